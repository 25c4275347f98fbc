package client

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/embedded"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/proof/fuzz"
)

// scripted is a backend whose answers are made of its input, right or wrong. It remembers
// what a client may conclude from them.
type scripted struct {
	embedded.Operator // not used

	t   testing.TB
	now func() time.Duration
	ttl time.Duration // of sessions

	mu      sync.Mutex
	input   *fuzz.Bytes
	mute    bool
	timers  []*time.Timer
	tokens  uint64        // the last that was given
	alive   time.Duration // when an open or a keep-alive was last answered without an error
	granted map[uint64]int
	watched map[[16]byte]func(*apiv1.Notice)
}

// Start is part of backend.
func (l *scripted) Start(call *mux.Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mute {
		return
	}
	a := l.answerLocked(call.Op)
	if a == nil {
		return // there is no answer
	}
	a.Id = call.Op.GetId()
	delay := []time.Duration{0, 0, 0, time.Millisecond, 100 * time.Millisecond, 3 * time.Second}[l.input.Pick(6)]
	l.timers = append(l.timers, time.AfterFunc(delay, func() {
		l.mu.Lock()
		if a.GetError() == nil && (a.GetOpenSession() != nil && call.Op.GetOpenSession() != nil || a.GetKeepAlive() != nil && call.Op.GetKeepAlive() != nil) {
			l.alive = l.now()
		}
		if token := a.GetAcquire().GetToken(); token != 0 && call.Op.GetAcquire() != nil {
			l.granted[token]++
		}
		mute := l.mute
		l.mu.Unlock()
		if !mute {
			call.Done(a)
		}
	}))
}

// Watch is part of backend.
func (l *scripted) Watch(session [16]byte, f func(*apiv1.Notice)) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watched[session] = f
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.watched, session)
	}
}

// Done is part of backend.
func (*scripted) Done() <-chan struct{} { return nil }

func (l *scripted) silence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mute = true
	for _, timer := range l.timers {
		timer.Stop()
	}
}

// number returns the right one, one at an edge, or any.
func (l *scripted) number(right int64) int64 {
	switch l.input.Pick(10) {
	default:
		return right
	case 6:
		return int64(l.input.Pick(4))
	case 7:
		return []int64{math.MaxInt64, math.MinInt64, -1, math.MaxInt64 - int64(l.ttl)}[l.input.Pick(4)]
	case 8:
		return right + int64(l.input.Pick(256)-128)*int64(time.Minute)
	case 9:
		return int64(l.input.Uint64())
	}
}

// time returns a cluster time: the right one runs with the client's clock.
func (l *scripted) time(after time.Duration) int64 { return l.number(int64(l.now() + after)) }

// token returns the next one, or one of a few.
func (l *scripted) token() uint64 {
	if l.input.Pick(3) == 2 {
		return uint64(l.input.Pick(6))
	}
	l.tokens++
	return l.tokens
}

func (l *scripted) answerLocked(op *apiv1.Operation) *apiv1.Answer {
	a := &apiv1.Answer{Stamp: l.time(0), Index: uint64(l.number(1))}
	kind := 12 // that of the request
	switch l.input.Pick(12) {
	case 7:
		return nil
	case 8:
		if proto.Unmarshal(l.input.Take(), a) != nil {
			return nil
		}
		return a
	case 9, 10:
		codes := []apiv1.Code{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 64, 65, 66, 67, 68, 69, 70, 71, 72, 0, 999, codeGaveUp}
		e := apiv1.NewError(codes[l.input.Pick(len(codes))], "no")
		e.Holders = []*apiv1.Holder{{Token: 1}, nil}[:l.input.Pick(2)]
		a.Result = &apiv1.Answer_Error{Error: e}
		return a
	case 11:
		kind = l.input.Pick(12) // another one
	}
	l.fill(a, op, kind)
	return a
}

func (l *scripted) fill(a *apiv1.Answer, op *apiv1.Operation, kind int) {
	is := func(n int, asked bool) bool { return kind == n || kind == 12 && asked }
	switch {
	case is(0, op.GetOpenSession() != nil):
		a.Result = &apiv1.Answer_OpenSession{OpenSession: &apiv1.OpenSessionResponse{Deadline: l.time(l.ttl)}}
	case is(1, op.GetKeepAlive() != nil):
		k := &apiv1.KeepAliveResponse{Deadline: l.time(l.ttl)}
		for range l.input.Pick(3) {
			k.Revocations = append(k.Revocations, l.revocation())
		}
		a.Result = &apiv1.Answer_KeepAlive{KeepAlive: k}
	case is(2, op.GetAcquire() != nil):
		a.Result = &apiv1.Answer_Acquire{Acquire: &apiv1.AcquireResponse{
			Token: l.token(), Deadline: l.time(time.Duration(op.GetAcquire().GetTtlNs())), Queued: l.time(0), Granted: l.time(0),
		}}
	case is(3, op.GetRelease() != nil):
		a.Result = &apiv1.Answer_Release{Release: &apiv1.ReleaseResponse{}}
	case is(4, op.GetSetValue() != nil):
		a.Result = &apiv1.Answer_SetValue{SetValue: &apiv1.SetValueResponse{}}
	case is(5, op.GetRenew() != nil):
		a.Result = &apiv1.Answer_Renew{Renew: &apiv1.RenewResponse{Deadline: l.time(time.Duration(op.GetRenew().GetTtlNs()))}}
	case is(6, op.GetCancel() != nil):
		a.Result = &apiv1.Answer_Cancel{Cancel: &apiv1.CancelResponse{}}
	case is(7, op.GetEndSession() != nil):
		a.Result = &apiv1.Answer_EndSession{EndSession: &apiv1.EndSessionResponse{}}
	case is(8, op.GetForceRelease() != nil):
		a.Result = &apiv1.Answer_ForceRelease{ForceRelease: &apiv1.ForceReleaseResponse{Released: []*apiv1.Holder{{Token: 1}}[:l.input.Pick(2)]}}
	case is(9, op.GetGet() != nil):
		a.Result = &apiv1.Answer_Get{Get: &apiv1.GetResponse{Lock: &apiv1.Lock{HolderCount: uint32(l.number(1)), Holders: []*apiv1.Holder{{RemainingNs: l.number(1)}}}, AgeNs: l.number(0)}}
	case is(10, op.GetList() != nil):
		a.Result = &apiv1.Answer_List{List: &apiv1.ListResponse{Locks: []*apiv1.Lock{{Name: "a"}}[:l.input.Pick(2)], Next: []string{"", "a", "b"}[l.input.Pick(3)]}}
	case is(11, op.GetResize() != nil):
		a.Result = &apiv1.Answer_Resize{Resize: &apiv1.ResizeResponse{}}
	}
}

func (l *scripted) revocation() *apiv1.Revocation {
	return &apiv1.Revocation{Number: uint64(l.number(1)), Token: uint64(l.input.Pick(6)), Who: "w"}
}

// notice sends a notice to all sessions.
func (l *scripted) notice() {
	l.mu.Lock()
	n := &apiv1.Notice{}
	if l.input.Pick(4) != 0 {
		n.Revocation = l.revocation()
	}
	var all []func(*apiv1.Notice)
	for _, f := range l.watched {
		all = append(all, f)
	}
	l.mu.Unlock()
	for _, f := range all {
		f(n)
	}
}

// returned is a grant that the client has returned.
type returned struct {
	*Grant
	at  time.Duration // when
	ttl time.Duration // 0: none of its own
}

// checker uses a client of a scripted backend, and checks that no grant is valid for too long.
type checker struct {
	t       *testing.T
	backend *scripted
	c       *Client
	grants  []returned
}

// check checks every grant: it may be valid only for as long as an answer allows at most,
// whatever else is in the answers.
func (b *checker) check() {
	b.t.Helper()
	for _, g := range b.grants {
		b.backend.mu.Lock()
		alive := b.backend.alive
		b.backend.mu.Unlock()
		now := b.backend.now()
		if err := g.Err(); err != nil {
			if errors.Is(err, ErrLost) {
				b.checkLoss(g.Grant)
			}
			continue
		}
		if now >= alive+b.backend.ttl {
			b.t.Fatalf("token %d is valid %v after the last answer for its session", g.Token(), now-alive)
		}
		if g.ttl != 0 && now >= g.at+g.ttl {
			b.t.Fatalf("token %d with a ttl of %v is valid %v after it came", g.Token(), g.ttl, now-g.at)
		}
	}
}

// checkLoss checks that a loss ends the waits for it.
func (b *checker) checkLoss(g *Grant) {
	b.t.Helper()
	select {
	case <-g.Lost():
	default:
		b.t.Fatalf("token %d is lost and Lost is not closed", g.Token())
	}
	select {
	case <-g.Context().Done():
	default:
		b.t.Fatalf("token %d is lost and its context goes on", g.Token())
	}
}

func (b *checker) keep(g *Grant, err error, ttl time.Duration) {
	b.t.Helper()
	if err != nil {
		if g != nil {
			b.t.Fatalf("both a grant and %v", err)
		}
		return
	}
	b.backend.mu.Lock()
	given := b.backend.granted[g.Token()]
	b.backend.mu.Unlock()
	if given == 0 {
		b.t.Fatalf("token %d was never given", g.Token())
	}
	if ttl != 0 {
		_ = g.Lost() // it may be asked for before the loss, or after
	}
	b.grants = append(b.grants, returned{g, b.backend.now(), ttl})
}

// act does one thing.
func (b *checker) act(script *fuzz.Bytes) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Second)
	defer cancel()
	name := []string{"a", "b"}[script.Pick(2)]
	var opts []LockOption
	var ttl time.Duration
	if script.Pick(3) == 2 {
		ttl = 2 * time.Second
		opts = append(opts, TTL(ttl))
	}
	begun := b.backend.now()
	switch script.Pick(12) {
	case 0, 1:
		g, err := b.c.Lock(ctx, name, opts...)
		b.keep(g, err, ttl)
	case 2, 3:
		g, err := b.c.TryLock(ctx, name, opts...)
		b.keep(g, err, ttl)
	case 4:
		if n := len(b.grants); n > 0 {
			g := b.grants[script.Pick(n)]
			if err := g.Unlock(); err != nil && !errors.Is(err, ErrNotHeld) {
				b.t.Fatalf("Unlock: %v", err)
			}
			if g.Err() == nil {
				b.t.Fatalf("token %d is held after Unlock", g.Token())
			}
		}
	case 5:
		if n := len(b.grants); n > 0 {
			_ = b.grants[script.Pick(n)].SetValue(ctx, []byte("v"))
		}
	case 6:
		time.Sleep([]time.Duration{time.Millisecond, 500 * time.Millisecond, 3 * time.Second, 9 * time.Second}[script.Pick(4)])
	case 7:
		b.backend.notice()
	case 8:
		d, err := b.c.Detached().Acquire(ctx, name, 3*time.Second)
		if err == nil && (d.ExpiresIn > 3*time.Second || d.ExpiresIn <= 0 || d.Token == 0) {
			b.t.Fatalf("detached grant %+v with a ttl of 3s", d)
		}
	case 9:
		left, err := b.c.Detached().Renew(ctx, name, 3, 3*time.Second)
		if err == nil && left <= 0 {
			b.t.Fatalf("renewed for %v", left)
		}
		_ = b.c.Detached().Release(ctx, name, 3)
	case 10:
		_, _ = b.c.Get(ctx, name)
		_, _ = b.c.List(ctx, "", ListOptions{})
	case 11:
		_, _ = b.c.ForceRelease(ctx, name, 1, "why")
		_ = b.c.Resize(ctx, name, 3)
	}
	if d := b.backend.now() - begun; d > 10*time.Second {
		b.t.Fatalf("an operation whose context ended after 5s took %v", d)
	}
	b.check()
}

// FuzzAnswers gives a client arbitrary answers and notices. It does not panic, no operation
// outlasts its context, no goroutine is left, and no grant is valid that was not given, or for
// longer than its answer allows at most.
func FuzzAnswers(f *testing.F) {
	correct := make([]byte, 400) // all right, and without delay
	f.Add([]byte{0, 0, 0, 0, 0, 6, 0, 0, 6, 2, 0, 0, 4, 0}, correct)
	hold := []byte{0, 0, 0, 0, 2, 0, 1, 0, 5, 0, 0, 0, 6, 3, 0, 0, 5, 0, 0, 0, 9, 0, 0, 8, 0, 0, 10, 0, 0, 11, 0, 0, 4, 0}
	f.Add(hold, correct)
	f.Add(hold, correct[:30])
	for i := range byte(12) {
		script := []byte{0, 0, 0, 0, 2, i, 1, 0, 2, 0, 0, 4, 0, i, 0, 6, 3, 0, 0, i, 1}
		answers := make([]byte, 200)
		for j := range answers {
			answers[j] = byte(j*j) * (i + 1)
		}
		f.Add(script, answers)
		f.Add(append(script, script...), append(correct[:60:60], answers...))
	}
	f.Fuzz(func(t *testing.T, script, answers []byte) {
		defer fuzz.Watch()()
		synctest.Test(t, func(t *testing.T) { converse(t, script, answers) })
	})
}

func converse(t *testing.T, script, answers []byte) {
	began := time.Now()
	l := &scripted{
		t: t, now: func() time.Duration { return time.Hour + time.Since(began) }, ttl: 8 * time.Second,
		input: &fuzz.Bytes{Data: answers}, granted: map[uint64]int{}, watched: map[[16]byte]func(*apiv1.Notice){},
	}
	c := newEmbedded(l, []Option{Clock(l.now), SessionTTL(l.ttl), Holder("me")})
	defer func() { // also when a check has failed
		l.silence()
		_ = c.Close() // it returns an error: the backend does not answer
	}()
	b := &checker{t: t, backend: l, c: c}
	s := &fuzz.Bytes{Data: script}
	for step := 0; !s.Empty() && step < 40; step++ {
		b.act(s)
	}
	// From here on there are no answers: nothing may be valid after the TTL.
	l.silence()
	for range 9 {
		time.Sleep(time.Second)
		b.check()
	}
	for _, g := range b.grants {
		if err := g.Err(); err == nil {
			t.Fatalf("token %d is held after 9s of silence", g.Token())
		}
		select {
		case <-g.Context().Done():
		default:
			t.Fatalf("the context of token %d goes on: %v", g.Token(), g.Err())
		}
	}
	_ = c.Close() // it returns an error: the backend does not answer
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sessions) != 0 {
		t.Fatalf("%d sessions are left", len(c.sessions))
	}
}
