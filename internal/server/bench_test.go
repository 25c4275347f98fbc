package server

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// BenchmarkStream measures what the protocol costs: the node answers at once, and the
// callers share one stream over loopback TCP. Client and server run in this process, so
// the CPU per operation is that of both.
func BenchmarkStream(b *testing.B) {
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			conn := openMux(b, atOnce(b).dial(b), mux.Config{})
			benchmark(b, callers, func(op *apiv1.Operation) error {
				_, err := mux.Do(b.Context(), conn.Start, op)
				return err
			})
		})
	}
}

// BenchmarkUnary measures the same with unary calls.
func BenchmarkUnary(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			c := atOnce(b).client(b)
			benchmark(b, callers, func(op *apiv1.Operation) error {
				_, err := c.Release(b.Context(), op.GetRelease())
				return err
			})
		})
	}
}

func atOnce(b *testing.B) *running {
	node := newFakeNode()
	node.on = func(c *mux.Call) bool {
		c.Done(&apiv1.Answer{Id: c.Op.GetId(), Index: 12345, Stamp: 1 << 40, Result: &apiv1.Answer_Release{Release: &apiv1.ReleaseResponse{}}})
		return true
	}
	return serve(b, Config{Backend: node})
}

func benchmark(b *testing.B, callers int, do func(*apiv1.Operation) error) {
	b.ReportAllocs()
	before := cpu()
	begun := time.Now()
	var wg sync.WaitGroup
	var next atomic.Int64
	for range callers {
		wg.Go(func() {
			op := &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{
				Id: &apiv1.RequestID{Session: make([]byte, 16), Sequence: 77}, Name: "orders/42", Token: 123456,
			}}}
			for next.Add(1) <= int64(b.N) {
				if err := do(op); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(begun).Seconds(), "ops/s")
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// cpu is the time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
