package simnet

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// inBubble runs f in virtual time. A bubble wants a *testing.T, which a benchmark
// gets by running a test.
func inBubble(b *testing.B, f func(t *testing.T)) {
	b.Helper()
	ok := testing.RunTests(func(string, string) (bool, error) { return true, nil },
		[]testing.InternalTest{{Name: b.Name(), F: func(t *testing.T) { synctest.Test(t, f) }}})
	if !ok {
		b.Fatal("the bubble failed")
	}
}

// pump sends n writes of size bytes over one connection.
func pump(tb testing.TB, o Options, size, n int) {
	network := New(1, o)
	defer network.Close()
	from, to := connected(tb, network)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			if _, err := to.Read(buf); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				tb.Error(err)
				return
			}
		}
	}()
	buf := make([]byte, size)
	for range n {
		if _, err := from.Write(buf); err != nil {
			tb.Fatal(err)
		}
	}
	_ = from.Close()
	<-done
	_ = to.Close()
}

func BenchmarkThroughput(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 64 << 10} {
		for _, o := range []Options{{}, {Latency: time.Millisecond, Jitter: time.Millisecond}} {
			b.Run(fmt.Sprintf("writes=%d/latency=%v", size, o.Latency), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				inBubble(b, func(t *testing.T) { pump(t, o, size, b.N) })
			})
		}
	}
	b.Run("writes=4096/real", func(b *testing.B) {
		b.SetBytes(4096)
		b.ReportAllocs()
		pump(b, Options{}, 4096, b.N)
	})
}

// BenchmarkPingPong is a request and its answer, 100 bytes each.
func BenchmarkPingPong(b *testing.B) {
	b.ReportAllocs()
	inBubble(b, func(t *testing.T) {
		n := New(1, Options{Latency: time.Millisecond, Jitter: time.Millisecond})
		defer n.Close()
		from, to := connected(t, n)
		go func() {
			_, _ = io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{to})
			_ = to.Close()
		}()
		buf := make([]byte, 100)
		for range b.N {
			_, _ = from.Write(buf)
			if _, err := io.ReadFull(from, buf); err != nil {
				t.Fatal(err)
			}
		}
		_ = from.Close()
	})
}

// BenchmarkIdleCluster is 5 hosts, all connected with all by 4 connections each,
// on each of which somebody waits with a deadline; every 100 ms a message of 50
// bytes goes over each. One operation is a virtual second.
func BenchmarkIdleCluster(b *testing.B) {
	const hosts, conns = 5, 4
	inBubble(b, func(t *testing.T) {
		n := New(1, Options{Latency: time.Millisecond, Jitter: time.Millisecond})
		defer n.Close()
		for i := range hosts {
			l := mustListen(t, n.Host(fmt.Sprint("h", i)), ":1")
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go drain(c)
				}
			}()
		}
		stop := time.Now().Add(time.Duration(b.N) * time.Second)
		for i := range hosts {
			for j := range hosts {
				for range conns {
					c := mustDial(t, n.Host(fmt.Sprint("h", i)), fmt.Sprintf("h%d:1", j))
					go func() {
						defer c.Close()
						for time.Now().Before(stop) {
							_, _ = c.Write(make([]byte, 50))
							time.Sleep(100 * time.Millisecond)
						}
					}()
				}
			}
		}
		time.Sleep(time.Until(stop) + time.Second)
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sim-s/s")
}

func drain(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 100)
	for {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}
