package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// worst are the inputs that were found to take the most memory, by name; each is repeated
// on many connections.
var worst = []struct {
	name  string
	conns int
	send  func(b *testing.B, r *running, i int)
}{
	{"HTTP: answers that are not read", 1000, func(b *testing.B, r *running, _ int) {
		conn := dialTo(b, r.http)
		_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		_, _ = io.WriteString(conn, strings.Repeat("GET /v1/locks?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n", 3))
	}},
	{"HTTP: heads of short lines without an end", 1000, func(b *testing.B, r *running, _ int) {
		var head strings.Builder
		head.WriteString("GET /v1/locks HTTP/1.1\r\nHost: localhost\r\n")
		for i := range 2000 {
			fmt.Fprintf(&head, "%x:\r\n", i)
		}
		_, _ = io.WriteString(dialTo(b, r.http), head.String())
	}},
	{"HTTP: bodies without an end", 1000, func(b *testing.B, r *running, _ int) {
		_, _ = fmt.Fprintf(dialTo(b, r.http), "POST /v1/acquire HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65000\r\n\r\n{\"name\":\"a\",\"value\":\"%s", strings.Repeat("x", 60<<10))
	}},
	{"HTTP: long acquires that wait", 1000, func(b *testing.B, r *running, i int) {
		body := fmt.Sprintf(`{"name":"a","wait":"1h","value":"%s"}`, strings.Repeat("x", 60<<10))
		_, _ = fmt.Fprintf(dialTo(b, r.http), "POST /v1/acquire HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}},
	{"gRPC: answers of calls that are not read", 20, func(b *testing.B, r *running, _ int) {
		conn := dialQuiet(b, r)
		for range 300 {
			_ = conn.WriteData(conn.begin("List"), true, make([]byte, 5))
		}
	}},
	{"gRPC: answers of streams that are not read", 200, func(b *testing.B, r *running, _ int) {
		conn := dialQuiet(b, r)
		stream := conn.begin("Session")
		list := &apiv1.Operation{Id: 1, Request: &apiv1.Operation_List{List: &apiv1.ListRequest{}}}
		for range 100 {
			conn.message(b, stream, list)
		}
	}},
	{"gRPC: messages without an end", 20, func(b *testing.B, r *running, _ int) {
		conn := dialRaw(b, r)
		for range 300 {
			if conn.beginMessage(conn.begin("Acquire"), 1<<20, 200<<10) != nil {
				return
			}
		}
	}},
	{"gRPC: messages in frames of one byte", 20, func(b *testing.B, r *running, _ int) {
		conn := dialRaw(b, r)
		_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
		for range 50 {
			stream := conn.begin("Acquire")
			var frames bytes.Buffer
			framer := http2.NewFramer(&frames, nil)
			_ = framer.WriteData(stream, false, []byte{0, 0, 1, 0, 0}) // of 64 KiB
			for range 60_000 {
				_ = framer.WriteData(stream, false, []byte{0})
			}
			if _, err := conn.Write(frames.Bytes()); err != nil {
				return
			}
		}
	}},
	{"gRPC: batches of empty operations", 20, func(b *testing.B, r *running, _ int) {
		m := bytes.Repeat([]byte{0x0a, 0}, 400_000)
		conn := dialRaw(b, r)
		stream := conn.begin("Batch")
		framed := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
		for len(framed) > 0 {
			n := min(len(framed), 16<<10)
			if conn.WriteData(stream, n == len(framed), framed[:n]) != nil {
				return
			}
			framed = framed[n:]
		}
	}},
	{"gRPC: streams", 20, func(b *testing.B, r *running, _ int) {
		conn := dialRaw(b, r)
		for range 1000 {
			conn.begin("Session")
		}
	}},
}

// BenchmarkWorst measures the most memory that the server takes for the worst inputs with
// its default limits. The clients run in this process, too. SECURITY.md has the
// table; run it with -benchtime=1x.
func BenchmarkWorst(b *testing.B) {
	for _, w := range worst {
		b.Run(strings.ReplaceAll(w.name, " ", "_"), func(b *testing.B) {
			for range b.N {
				r := serve(b, Config{Backend: bigNode(112 << 10), Limits: Limits{}})
				_, _ = r.client(b).Acquire(b.Context(), acquireOf("a", 0)) // so that others wait
				before := memoryInUse()
				most := before
				done := make(chan struct{})
				var wg sync.WaitGroup
				wg.Go(func() {
					for {
						var m runtime.MemStats
						runtime.ReadMemStats(&m)
						most = max(most, int64(m.HeapInuse+m.StackInuse))
						select {
						case <-done:
							return
						case <-time.After(20 * time.Millisecond):
						}
					}
				})
				var clients sync.WaitGroup
				for lane := range 8 {
					clients.Go(func() {
						for i := lane; i < w.conns; i += 8 {
							w.send(b, r, i)
						}
					})
				}
				clients.Wait()
				time.Sleep(3 * time.Second)
				kept := memoryInUse()
				close(done)
				wg.Wait()
				b.ReportMetric(float64(most-before)/(1<<20), "MiB-most")
				b.ReportMetric(float64(kept-before)/(1<<20), "MiB-kept")
				b.ReportMetric(0, "ns/op")
			}
		})
	}
}
