package simnet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/internal/proof/testall"
)

// chaos is a network in which every host sends numbered words to every other,
// over connections that are replaced when they break.
type chaos struct {
	fail  func(format string, args ...any)
	n     *Network
	names []string
	stop  chan struct{}
	wg    sync.WaitGroup

	mu    sync.Mutex
	words int // received
	ends  map[string]int
}

func (c *chaos) serve(h *Host) {
	l, err := h.Listen(":9")
	if err != nil {
		c.fail("listen: %v", err)
		return
	}
	c.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.receive(conn) })
		}
	})
}

// receive demands that words come in order, each once, from the first on.
func (c *chaos) receive(conn net.Conn) {
	defer conn.Close()
	for want := uint64(0); ; want++ {
		var b [8]byte
		n, err := io.ReadFull(conn, b[:])
		if err != nil {
			if n > 0 && errors.Is(err, io.ErrUnexpectedEOF) {
				c.fail("stream ends after %d bytes of a word", n)
			}
			c.mu.Lock()
			c.ends[outcome(err)]++
			c.mu.Unlock()
			return
		}
		if got := binary.BigEndian.Uint64(b[:]); got != want {
			c.fail("%v -> %v: word %d, want %d", conn.RemoteAddr(), conn.LocalAddr(), got, want)
			return
		}
		c.mu.Lock()
		c.words++
		c.mu.Unlock()
	}
}

func (c *chaos) received() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.words
}

// send goes on in one life of a host.
func (c *chaos) send(h *Host, to string, rnd *rand.Rand) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-c.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	for ctx.Err() == nil {
		conn, err := h.Dial(ctx, to+":9")
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		end := context.AfterFunc(ctx, func() { _ = conn.SetWriteDeadline(time.Unix(1, 0)) })
		var b []byte
		for word, last := uint64(0), 20+rnd.Uint64N(200); word < last; word++ {
			if b = binary.BigEndian.AppendUint64(b, word); rnd.IntN(3) > 0 {
				continue
			}
			if _, err := conn.Write(b); err != nil {
				break
			}
			b = nil
			time.Sleep(time.Duration(rnd.IntN(int(20 * time.Millisecond))))
		}
		end()
		_ = conn.Close()
	}
}

func (c *chaos) begin(h *Host, seed uint64) {
	c.serve(h)
	for i, to := range c.names {
		if to != h.Name() {
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			c.wg.Go(func() { c.send(h, to, rnd) })
		}
	}
}

// fault does one thing to the network.
func (c *chaos) fault(rnd *rand.Rand) {
	a, b := c.names[rnd.IntN(len(c.names))], c.names[rnd.IntN(len(c.names))]
	switch rnd.IntN(12) {
	case 0, 1:
		c.n.Cut(a, b)
	case 2, 3:
		c.n.Mend(a, b)
	case 4:
		c.n.Isolate(a)
	case 5:
		c.n.Rejoin(a)
	case 6:
		c.n.Slow(a, b, time.Duration(rnd.IntN(int(time.Second))))
	case 7:
		c.n.Reset(a, b)
	case 8:
		c.n.HealAll()
	default:
		end := c.n.Kill
		if rnd.IntN(2) == 0 {
			end = c.n.PowerOff
		}
		end(a)
		time.Sleep(time.Duration(rnd.IntN(int(time.Second))))
		c.begin(c.n.Revive(a), rnd.Uint64())
	}
}

func TestStreamsKeepTheirOrderWhateverFails(t *testing.T) {
	seeds := uint64(20)
	if !testall.On() {
		seeds = 4
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, Options{Latency: time.Millisecond, Jitter: 5 * time.Millisecond, Window: 512, Loss: 0.02}, func(t *testing.T, n *Network) {
				c := &chaos{fail: t.Errorf, n: n, names: []string{"a", "b", "c"}, stop: make(chan struct{}), ends: map[string]int{}}
				for _, name := range c.names {
					n.Host(name)
				}
				rnd := rand.New(rand.NewPCG(seed, 0))
				for i, name := range c.names {
					c.begin(n.Host(name), uint64(i))
				}
				for range 100 {
					time.Sleep(time.Duration(rnd.IntN(int(500 * time.Millisecond))))
					c.fault(rnd)
				}
				n.HealAll()
				before := c.received()
				time.Sleep(30 * time.Second)
				if more := c.received() - before; more < 1000 {
					t.Errorf("only %d words in 30s after everything was mended", more)
				}
				close(c.stop)
				n.Close()
				c.wg.Wait()
				if open := n.Stats().Open; open != 0 {
					t.Errorf("%d connections are left", open)
				}
				for _, want := range []string{"EOF", "read reset", "read closed"} {
					if c.ends[want] == 0 {
						t.Errorf("no stream ended with %q: %v; the faults do not bite", want, c.ends)
					}
				}
			})
		})
	}
}

func TestTheReceiverNoticesWhatIsGarbled(t *testing.T) {
	word := func(i uint64) []byte { return binary.BigEndian.AppendUint64(nil, i) }
	for name, sent := range map[string][][]byte{
		"lost":     {word(0), word(2)},
		"repeated": {word(0), word(0)},
		"swapped":  {word(1), word(0)},
		"cut":      {word(0), word(1)[:5]},
	} {
		faults := 0
		c := &chaos{fail: func(string, ...any) { faults++ }, ends: map[string]int{}}
		a, b := net.Pipe()
		c.wg.Go(func() { c.receive(b) })
		for _, w := range sent {
			_, _ = a.Write(w)
		}
		_ = a.Close()
		if c.wg.Wait(); faults != 1 {
			t.Errorf("%s: %d faults, want 1", name, faults)
		}
	}
}

// With the same seed, a link has the same delays and losses; the links of a
// network, and those of networks with other seeds, have their own.
func TestDelaysFollowFromTheSeed(t *testing.T) {
	trace := func(seed uint64, from, to string) (s string) {
		synctest.Test(t, func(t *testing.T) {
			n := New(seed, Options{Latency: time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.3})
			defer n.Close()
			for _, name := range []string{"a", "b", "c"} {
				n.Host(name)
			}
			p, q := n.Host(from).Packets(7), n.Host(to).Packets(7)
			for range 20 {
				start := time.Now()
				_, _ = p.WriteTo([]byte("x"), q.Addr().String())
				select {
				case <-q.PacketCh():
					s += fmt.Sprint(time.Since(start), " ")
				case <-time.After(time.Second):
					s += "lost "
				}
			}
		})
		return s
	}
	first := trace(1, "a", "b")
	if again := trace(1, "a", "b"); again != first {
		t.Errorf("seed 1 gave\n%s\nand then\n%s", first, again)
	}
	for _, other := range []string{trace(2, "a", "b"), trace(1, "b", "a"), trace(1, "a", "c")} {
		if other == first {
			t.Errorf("another link or seed gave the same: %s", first)
		}
	}
}
