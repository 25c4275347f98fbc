package client

import (
	"fmt"
	"sync/atomic"
	"testing"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/embedded"
	"github.com/locknode/locknode/internal/mux"
)

// instant is a backend that grants every request, in batches on one goroutine, as a stream
// does: the client alone is measured.
type instant struct {
	embedded.Operator // not used

	calls  chan *mux.Call
	tokens atomic.Uint64
}

func newInstant(b *testing.B) *instant {
	k := &instant{calls: make(chan *mux.Call, 4096)}
	go func() {
		for call := range k.calls {
			call.Done(k.answer(call.Op))
		}
	}()
	b.Cleanup(func() { close(k.calls) })
	return k
}

// Start is part of backend.
func (k *instant) Start(call *mux.Call) { k.calls <- call }

// Watch is part of backend.
func (k *instant) Watch([16]byte, func(*apiv1.Notice)) func() { return func() {} }

// Done is part of backend.
func (*instant) Done() <-chan struct{} { return nil }

func (k *instant) answer(op *apiv1.Operation) *apiv1.Answer {
	const now, deadline = 1e9, 3601e9
	a := &apiv1.Answer{Id: op.Id, Stamp: now}
	switch op.Request.(type) {
	case *apiv1.Operation_OpenSession:
		a.Result = &apiv1.Answer_OpenSession{OpenSession: &apiv1.OpenSessionResponse{Deadline: deadline}}
	case *apiv1.Operation_KeepAlive:
		a.Result = &apiv1.Answer_KeepAlive{KeepAlive: &apiv1.KeepAliveResponse{Deadline: deadline}}
	case *apiv1.Operation_Acquire:
		a.Result = &apiv1.Answer_Acquire{Acquire: &apiv1.AcquireResponse{Token: k.tokens.Add(1), Deadline: deadline, Queued: now, Granted: now}}
	case *apiv1.Operation_Get:
		a.Result = &apiv1.Answer_Get{Get: &apiv1.GetResponse{Lock: &apiv1.Lock{}}}
	}
	return a
}

// BenchmarkClient measures the client alone, with 32 goroutines for each CPU.
func BenchmarkClient(b *testing.B) {
	for name, one := range map[string]func(*Client, *testing.B, string){
		"LockUnlock": func(c *Client, b *testing.B, name string) {
			g, err := c.Lock(b.Context(), name)
			if err != nil {
				b.Error(err)
				return
			}
			_ = g.Unlock()
		},
		"LockUnlockTTL": func(c *Client, b *testing.B, name string) {
			g, err := c.Lock(b.Context(), name, TTL(1e12))
			if err != nil {
				b.Error(err)
				return
			}
			_ = g.Unlock()
		},
		"IsLocked": func(c *Client, b *testing.B, name string) {
			if _, err := c.IsLocked(b.Context(), name); err != nil {
				b.Error(err)
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			c := newEmbedded(newInstant(b), []Option{SessionTTL(3600e9)})
			b.Cleanup(func() { _ = c.Close() })
			b.ReportAllocs()
			b.SetParallelism(32)
			var workers atomic.Int32
			b.RunParallel(func(p *testing.PB) {
				name := fmt.Sprint("lock-", workers.Add(1))
				for p.Next() {
					one(c, b, name)
				}
			})
		})
	}
}
