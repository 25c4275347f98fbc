package simulation

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/mux"
)

const (
	crowdLocks = 3
	// bigCrowd is more than a stream may have under way that is to be answered at once.
	bigCrowd = 20_400
	// floodMost is how many keep-alives of sessions that do not exist are sent at once.
	floodMost = 3000
)

// crowd has thousands of acquires wait through one follower for a few locks, sends thousands
// of keep-alives of sessions that do not exist, and checks that another client is served at
// the same time: it acquires a lock, releases it, cancels, and ends its session. Then the
// first waiters get the locks, and the others leave.
func (w *worker) crowd(ctx context.Context, c *client.Client) error {
	n := 1500 + w.rand.IntN(2000)
	if w.rand.IntN(8) == 0 {
		n = bigCrowd
	}
	follower := w.follower(ctx)
	if follower == "" {
		return nil
	}
	held, err := w.hot(ctx, c)
	defer func() {
		for _, g := range held {
			w.expect(g.Unlock())
		}
	}()
	if err != nil {
		return err
	}
	l, beside, unknown := w.line(follower), w.line(follower), w.line(follower)
	defer l.close()
	defer beside.close()
	defer unknown.close()
	stand := w.stand(ctx, l, n)
	if len(stand) == 0 {
		return nil
	}
	answered := w.flood(ctx, unknown, floodMost)
	w.besides(ctx, beside)
	w.soon(ctx, "every keep-alive of a session that does not exist is answered", func(context.Context) bool { return answered() })
	w.expect(held[0].Unlock())
	w.soon(ctx, "the first in the queue gets the lock", func(context.Context) bool { return stand[0].served() })
	for _, s := range stand {
		w.soon(ctx, "a session with thousands of waiters ends", s.finish)
	}
	w.soon(ctx, "no waiter of a session that has ended is in the queue", func(ctx context.Context) bool {
		info, err := w.look(ctx, w.hotName(1))
		return err == nil && info.Waiters == 0
	})
	return nil
}

func (w *worker) hotName(i int) string { return fmt.Sprintf("crowd/%s/%d", w.w.Name, i) }

func (w *worker) follower(ctx context.Context) string {
	leader := w.r.leader(ctx)
	followers := others(w.r.c, leader)
	if leader == "" || len(followers) == 0 {
		return ""
	}
	return followers[w.rand.IntN(len(followers))]
}

// hot takes the locks that the others are to wait for.
func (w *worker) hot(ctx context.Context, c *client.Client) (held []*client.Grant, err error) {
	for i := range crowdLocks {
		g, err := c.Lock(ctx, w.hotName(i), client.Wait(maxHold))
		if err != nil {
			return held, err
		}
		held = append(held, g)
	}
	return held, nil
}

// stander is a session with many acquires that wait for one lock.
type stander struct {
	*raw
	mu    sync.Mutex // guards first
	first *apiv1.Answer
}

func (s *stander) served() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first != nil
}

// stand has n acquires wait, of as many sessions as there are locks.
func (w *worker) stand(ctx context.Context, l *line, n int) (all []*stander) {
	for i := range crowdLocks {
		s := &stander{raw: w.openRaw(ctx, l)}
		conn := l.to(ctx)
		if s.raw == nil || conn == nil {
			return all
		}
		all = append(all, s)
		for k := range n / crowdLocks {
			conn.Start(&mux.Call{
				Op: &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{
					Id: s.sign(), WaitNs: -1, Locks: []*apiv1.Want{{Name: w.hotName(i)}},
				}}},
				Done: func(a *apiv1.Answer) {
					if k == 0 {
						s.mu.Lock()
						s.first = a
						s.mu.Unlock()
					}
				},
			})
		}
	}
	return all
}

// flood keeps n sessions alive that nobody has opened, all at once. It returns whether all
// of that was answered.
func (w *worker) flood(ctx context.Context, l *line, n int) (answered func() bool) {
	var left atomic.Int64
	if conn := l.to(ctx); conn != nil {
		left.Store(int64(n))
		for range n {
			conn.Start(&mux.Call{
				Op: &apiv1.Operation{Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{Session: w.onceID()}}},
				Done: func(a *apiv1.Answer) {
					if code := apiv1.Code(a.GetError().GetCode()); code != apiv1.CodeNoSession && !passing(a) {
						w.r.violate("sessions", "%s: a session that nobody has opened is kept alive: %v", w.w.Name, code)
					}
					left.Add(-1)
				},
			})
		}
	}
	return func() bool { return left.Load() == 0 }
}

// besides runs operations through the same node that must not wait for the waiters.
func (w *worker) besides(ctx context.Context, l *line) {
	sleep(ctx, time.Second)
	var s *raw
	if !w.soon(ctx, "a session is opened beside the waiters", func(ctx context.Context) bool { s = w.openRaw(ctx, l); return s != nil }) {
		return
	}
	do := func(what string, op *apiv1.Operation) (a *apiv1.Answer) {
		w.soon(ctx, what, func(ctx context.Context) bool { a = s.do(ctx, op); return a != nil })
		return a
	}
	take := func(lock string, wait time.Duration) *apiv1.AcquireRequest {
		return &apiv1.AcquireRequest{Id: s.sign(), WaitNs: int64(wait), Locks: []*apiv1.Want{{Name: lock}}}
	}
	opened := w.r.c.Now()
	q := take(w.hotName(-1), 0)
	a := do("a lock is acquired beside the waiters", &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: q}})
	if apiv1.Code(a.GetError().GetCode()) == apiv1.CodeNoSession && w.r.calmFor() > w.r.c.Now()-opened+s.ttl {
		w.r.violate("sessions", "%s: a session that is kept alive beside a flood has ended after %v", w.w.Name, w.r.c.Now()-opened)
	}
	if token := a.GetAcquire().GetToken(); token != 0 {
		do("it is released", &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Id: s.sign(), Token: token}}})
	}
	waiting, leave := context.WithCancel(ctx)
	last, left := take(w.hotName(1), -1), make(chan struct{})
	go func() {
		defer close(left)
		s.do(waiting, &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: last}})
	}()
	do("a wait is cancelled", &apiv1.Operation{Request: &apiv1.Operation_Cancel{Cancel: &apiv1.CancelRequest{Id: s.sign(), Target: last.GetId()}}})
	leave()
	<-left
	w.soon(ctx, "a session ends beside the waiters", s.finish)
}
