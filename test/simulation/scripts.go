package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
)

// scriptHold is the TTL of grants that must not be left behind.
const scriptHold = 40 * time.Second

// script is a detached acquire under an ID of its caller's own, which others may use as
// well, and the tokens in its answers.
type script struct {
	q      *apiv1.AcquireRequest
	tokens []uint64 // guarded by runner.mu
}

// scripts does what programs without a session do: they ask for a lock through any
// node, wait for a short time only, and ask again under the same ID. What they are
// told is judged by the history.
func (w *worker) scripts(ctx context.Context, c *client.Client) error {
	switch n := w.rand.IntN(10); {
	case n < 4:
		w.retried(ctx, w.newScript())
	case n < 6:
		w.together(ctx, w.newScript())
	case n < 8:
		w.borrowed(ctx)
	case w.rand.IntN(3) == 0:
		w.unnamed(ctx)
	case w.rand.IntN(2) == 0:
		return w.steal(ctx, c)
	default:
		return w.vanish(ctx, c)
	}
	return nil
}

// steal shows a token that is another one's: if that has a session, nothing may come
// of it.
func (w *worker) steal(ctx context.Context, c *client.Client) error {
	name := w.name()
	info, err := c.Get(ctx, name)
	if err != nil || len(info.Holders) == 0 {
		return err
	}
	l := w.line("")
	defer l.close()
	token := info.Holders[0].Token
	if w.rand.IntN(2) == 0 {
		l.do(ctx, &apiv1.Operation{Request: &apiv1.Operation_Renew{Renew: &apiv1.RenewRequest{Token: token, TtlNs: int64(2 * time.Second)}}})
	}
	l.do(ctx, &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Token: token, Name: name}}})
	return nil
}

func (w *worker) newScript() *script {
	s := &script{q: &apiv1.AcquireRequest{
		Id:    &apiv1.RequestID{Once: w.onceID()},
		Locks: []*apiv1.Want{{Name: w.scriptName()}}, TtlNs: int64(time.Second) + w.rand.Int64N(int64(3*time.Second)),
	}}
	if w.rand.IntN(4) == 0 {
		s.q.Locks[0].Mode = apiv1.Mode_MODE_SHARED
	}
	if w.rand.IntN(6) == 0 {
		s.q.DelayNs, s.q.Value = w.rand.Int64N(int64(time.Second)), []byte(w.w.Name)
	}
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	w.r.scripts = append(w.r.scripts, s)
	if len(w.r.scripts) > 8 {
		w.r.scripts = w.r.scripts[1:]
	}
	return s
}

func (w *worker) scriptName() string {
	if w.rand.IntN(3) == 0 {
		return w.name()
	}
	return fmt.Sprintf("script/%d", w.rand.IntN(2))
}

// tryOnce is one more try of a script, through some node; it has its own wait.
func (w *worker) tryOnce(ctx context.Context, s *script) *apiv1.Answer {
	q := proto.CloneOf(s.q)
	if w.rand.IntN(2) == 0 {
		q.WaitNs = w.rand.Int64N(int64(4 * time.Second))
	}
	return w.ask(ctx, s, q, w.patience())
}

func (w *worker) patience() time.Duration {
	return 20*time.Millisecond + time.Duration(w.rand.Int64N(int64(2*time.Second)))
}

// ask sends one try over one of the roads, and gives up after a while: nil.
func (w *worker) ask(ctx context.Context, s *script, q *apiv1.AcquireRequest, patience time.Duration) *apiv1.Answer {
	nodes := w.r.c.Nodes()
	node, batch := nodes[w.rand.IntN(len(nodes))], w.rand.IntN(2) == 0
	q.Holder = fmt.Sprintf("%s/%x", w.w.Name, w.rand.Uint64())
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a := w.call(ctx, node, batch, q)
	if token := a.GetAcquire().GetToken(); token != 0 && s != nil {
		w.r.mu.Lock()
		s.tokens = append(s.tokens, token)
		w.r.mu.Unlock()
	}
	return a
}

// call makes one call to a node, by itself or in a batch; nil: it was not answered.
func (w *worker) call(ctx context.Context, node string, batch bool, q *apiv1.AcquireRequest) *apiv1.Answer {
	cc, err := w.r.c.Conn(w.w.Name, node)
	if err != nil {
		return nil
	}
	defer func() { _ = cc.Close() }() // nothing is under way any more
	locks := apiv1.NewLocksClient(cc)
	if batch {
		p, err := locks.Batch(ctx, &apiv1.BatchRequest{Operations: []*apiv1.Operation{{Request: &apiv1.Operation_Acquire{Acquire: q}}}})
		if err != nil {
			return nil
		}
		return p.GetAnswers()[0]
	}
	p, err := locks.Acquire(ctx, q)
	if err == nil {
		return &apiv1.Answer{Result: &apiv1.Answer_Acquire{Acquire: p}}
	}
	if s, ok := status.FromError(err); !ok || len(s.Details()) == 0 {
		return nil // not by a node
	}
	return &apiv1.Answer{Result: &apiv1.Answer_Error{Error: apiv1.AsError(err)}}
}

// retried asks until it is answered for good, uses the lock, and asks again after
// that, now and then for something else.
func (w *worker) retried(ctx context.Context, s *script) {
	for range 6 {
		if a := w.tryOnce(ctx, s); a.GetAcquire() != nil {
			break
		}
		sleep(ctx, time.Duration(w.rand.Int64N(int64(300*time.Millisecond))))
	}
	w.use(ctx, s)
	w.after(ctx, s)
}

// use renews and releases what a script was granted, if it was.
func (w *worker) use(ctx context.Context, s *script) {
	token := w.tokenOf(s)
	if token == 0 {
		return
	}
	l := w.line("")
	defer l.close()
	sleep(ctx, time.Duration(w.rand.Int64N(s.q.TtlNs)))
	if w.rand.IntN(3) == 0 {
		l.do(ctx, &apiv1.Operation{Request: &apiv1.Operation_Renew{Renew: &apiv1.RenewRequest{Token: token, TtlNs: s.q.TtlNs}}})
		sleep(ctx, time.Duration(w.rand.Int64N(s.q.TtlNs)))
	}
	if w.rand.IntN(3) > 0 {
		l.do(ctx, &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Token: token}}})
	}
}

func (w *worker) tokenOf(s *script) uint64 {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	if len(s.tokens) == 0 {
		return 0
	}
	return s.tokens[len(s.tokens)-1]
}

// after repeats a script after its release or expiry, or before, whatever it is, and
// asks for something else under its ID.
func (w *worker) after(ctx context.Context, s *script) {
	for range w.rand.IntN(3) {
		sleep(ctx, time.Duration(w.rand.Int64N(int64(2*time.Second))))
		if w.rand.IntN(3) > 0 {
			w.tryOnce(ctx, s)
			continue
		}
		q := proto.CloneOf(s.q)
		switch w.rand.IntN(3) {
		case 0:
			q.TtlNs++
		case 1:
			q.Locks[0].Name = "script/other"
		default:
			q.DelayNs++
		}
		w.ask(ctx, nil, q, w.patience())
	}
}

// together sends several tries at once, each through some node, and gives each of
// them up at another time.
func (w *worker) together(ctx context.Context, s *script) {
	var wg sync.WaitGroup
	for i := range 2 + w.rand.IntN(3) {
		other := w.fork(i)
		wg.Go(func() {
			sleep(ctx, time.Duration(other.rand.Int64N(int64(500*time.Millisecond))))
			other.tryOnce(ctx, s)
		})
	}
	wg.Wait()
	w.use(ctx, s)
	w.after(ctx, s)
}

// fork is the same worker with numbers of its own, for another goroutine.
func (w *worker) fork(i int) *worker {
	other := newWorker(w.r, w.w, i)
	other.rand = rand.New(rand.NewPCG(w.rand.Uint64(), 3))
	return other
}

// borrowed repeats what others have asked for.
func (w *worker) borrowed(ctx context.Context) {
	w.r.mu.Lock()
	n := len(w.r.scripts)
	var s *script
	if n > 0 {
		s = w.r.scripts[w.rand.IntN(n)]
	}
	w.r.mu.Unlock()
	if s == nil {
		return
	}
	w.tryOnce(ctx, s)
	if w.rand.IntN(3) == 0 {
		w.use(ctx, s)
	}
	w.after(ctx, s)
}

// unnamed takes a lock without an ID, and releases what it was told of.
func (w *worker) unnamed(ctx context.Context) {
	s := w.newScript()
	s.q.Id = nil
	q := proto.CloneOf(s.q)
	if w.rand.IntN(2) == 0 {
		q.WaitNs = w.rand.Int64N(int64(4 * time.Second))
	}
	w.ask(ctx, s, q, w.patience())
	w.use(ctx, s)
}

// keeps is for how long a node may keep a place whose owner is gone, and its session
// may outlive the node.
const keeps = 15 * time.Second

// vanish waits in a queue as a program without a session, which then ends, loses its
// connection, or loses its node. Some seconds later its place must be given up, and a lock
// that it was granted meanwhile must be free.
func (w *worker) vanish(ctx context.Context, c *client.Client) error {
	name, role := fmt.Sprintf("vanish/%s", w.w.Name), w.w.Name+"-gone"
	if _, err := w.second("gone"); err != nil {
		return err
	}
	g, err := c.Lock(ctx, name, client.Wait(maxHold))
	if err != nil {
		return err
	}
	gone := w.fork(0)
	gone.w.Name = role
	q := &apiv1.AcquireRequest{Locks: []*apiv1.Want{{Name: name}}, TtlNs: int64(scriptHold), WaitNs: int64(2 * scriptHold)}
	if w.rand.IntN(2) == 0 {
		q.Id = &apiv1.RequestID{Once: w.onceID()}
	}
	waiting, hangUp := context.WithCancel(ctx)
	defer hangUp()
	left := make(chan *apiv1.Answer, 1)
	go func() { left <- gone.ask(waiting, nil, q, 2*scriptHold) }()
	sleep(ctx, time.Duration(w.rand.Int64N(int64(3*time.Second))))
	var a *apiv1.Answer
	select {
	case a = <-left: // its node was gone first, or the lock was free
	default:
		a = w.end(ctx, role, hangUp, left)
	}
	// An answer that was sent to a caller that is gone counts as delivered. So the lock is
	// released only when the node must have noticed.
	sleep(ctx, 3*time.Second)
	early := w.rand.IntN(2) == 0 && w.r.calmFor() > 3*time.Second
	if early {
		w.expect(g.Unlock())
	}
	if a.GetAcquire() == nil {
		w.soonIn(ctx, keeps, "the place and the lock of the caller that is gone are free", func(ctx context.Context) bool {
			l, err := w.look(ctx, name)
			held := early && len(l.Holders) > 0 || len(l.Holders) > 0 && l.Holders[0].Session == ""
			return err == nil && l.Waiters == 0 && !held
		})
	}
	if token := a.GetAcquire().GetToken(); token != 0 {
		w.expect(ignoreNotHeld(c.Detached().Release(ctx, name, token)))
	}
	if early {
		return nil
	}
	return g.Unlock()
}

func ignoreNotHeld(err error) error {
	if errors.Is(err, client.ErrNotHeld) {
		return nil
	}
	return err
}

// end ends a program that waits, and returns what it was answered before that.
func (w *worker) end(ctx context.Context, name string, hangUp func(), left <-chan *apiv1.Answer) *apiv1.Answer {
	switch w.rand.IntN(3) {
	case 0:
		hangUp()
	case 1:
		_ = w.r.c.KillClient(name) // it may be dead already
	default:
		_ = w.r.c.Isolate(name) // never fails for a client
		sleep(ctx, time.Duration(w.rand.Int64N(int64(3*time.Second))))
		hangUp()
		sleep(ctx, time.Second)
		_ = w.r.c.Rejoin(name) // likewise
	}
	return <-left
}
