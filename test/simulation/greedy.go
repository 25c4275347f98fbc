package simulation

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/proof/history"
)

// greedyLimits are so low that one client reaches each of them within seconds, and so high
// that nobody else has more than what one who is greedy leaves.
func greedyLimits(r *rand.Rand) fsm.Limits {
	return fsm.Limits{
		Sessions: 100 + r.IntN(40), EndedRemembered: 500, Grants: 200 + r.IntN(50), OnceRemembered: 500,
		Waiters: 80 + r.IntN(40), WaitersPerLock: 20 + r.IntN(20), TableBytes: 3 << 19,
	}
}

const (
	greedyAtOnce = 10
	// greedyMost is how often something is taken at most: more than any share is.
	greedyMost = 400
	greedyTTL  = 8 * time.Second
)

// greed is something that a limit bounds for all.
type greed struct {
	limit string
	often int
	take  func(g *glutton, ctx context.Context) // one more
	// again says that a share is free again once all of it was given back: it is not
	// remembered for longer.
	again bool
}

func greeds() []greed {
	return []greed{
		{"sessions", 2, (*glutton).takeSession, true},
		{"grants", 2, (*glutton).takeGrant, true},
		{"waiters", 2, (*glutton).takeWait, true},
		{"waiters_per_lock", 2, (*glutton).takePlace, true},
		{"table_bytes", 3, (*glutton).takeBytes, true},
		{"once_remembered", 1, (*glutton).takeOnce, false},
		{"ended_remembered", 1, (*glutton).takeEnd, false},
	}
}

// glutton is who takes, from one address, all that it is given.
type glutton struct {
	*worker
	s       *raw
	what    *greed
	n       atomic.Int64 // names
	full    atomic.Bool  // it was refused more of what it takes
	refused atomic.Bool  // the same, or for what is remembered of what it had before

	small atomic.Bool // of memory it takes little at a time now

	mu       sync.Mutex // guards what follows
	rand     *rand.Rand
	sessions map[[16]byte]time.Duration // since when each is alive
	tokens   []uint64
	waits    []*apiv1.RequestID
}

// greedy takes of one thing whatever it is given, and looks whether another client is given
// what it needs beside that. Then it lets all of it go. Nothing of that may be refused, nor
// what keeps it alive, and after that it is given something again.
func (w *worker) greedy(ctx context.Context, _ *client.Client) error {
	list, sum := greeds(), 0
	if w.r.c.Now() < w.r.p.Duration/2 { // what is remembered for minutes would leave nothing to do
		list = slices.DeleteFunc(list, func(g greed) bool { return !g.again })
	}
	for i := range list {
		sum += list[i].often
	}
	n := w.rand.IntN(sum)
	for i := range list {
		if n -= list[i].often; n < 0 {
			w.take(ctx, &list[i])
			break
		}
	}
	return nil
}

// take reports whether it was given all until it was refused.
func (w *worker) take(ctx context.Context, what *greed) bool {
	l := w.line("")
	defer l.close()
	g := &glutton{
		worker: w, what: what, rand: rand.New(rand.NewPCG(w.rand.Uint64(), 4)), sessions: map[[16]byte]time.Duration{},
	}
	if g.s = w.openRaw(ctx, l); g.s == nil {
		return false // too many of its sessions are remembered
	}
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	var kept sync.WaitGroup
	kept.Go(func() { g.keepAlive(alive) })
	for taken := 0; taken < greedyMost && !g.refused.Load() && ctx.Err() == nil; taken += greedyAtOnce {
		atOnce(func() { what.take(g, ctx) })
	}
	full := g.full.Load()
	if full {
		g.beside(ctx)
		if what.limit == "sessions" || w.rand.IntN(3) == 0 {
			sleep(ctx, greedyTTL*3/2) // what was not kept alive would have ended
			g.beside(ctx)
		}
	}
	stop()
	kept.Wait()
	g.letGo(ctx)
	if full && what.again {
		w.soon(ctx, fmt.Sprintf("who has given back all of its share of %s gets one again", what.limit), func(ctx context.Context) bool {
			g.full.Store(false)
			g.small.Store(false)
			atOnce(func() { what.take(g, ctx) })
			return !g.full.Load()
		})
		g.letGo(ctx)
	}
	g.s.stop()
	g.s.kept.Wait()
	g.free(ctx, "the end of a session", &apiv1.Operation{Request: &apiv1.Operation_EndSession{EndSession: &apiv1.EndSessionRequest{Session: g.s.id[:]}}})
	return full
}

func atOnce(do func()) {
	var wg sync.WaitGroup
	for range greedyAtOnce {
		wg.Go(do)
	}
	wg.Wait()
}

// isLimit says that an answer refuses something for a limit.
func isLimit(a *apiv1.Answer) bool { return apiv1.Code(a.GetError().GetCode()) == apiv1.CodeLimit }

// ask notes a refusal.
func (g *glutton) ask(ctx context.Context, op *apiv1.Operation) *apiv1.Answer {
	a := g.s.do(ctx, op)
	g.note(a)
	return a
}

func (g *glutton) note(a *apiv1.Answer) {
	if isLimit(a) {
		if g.what.limit == "table_bytes" && !g.small.Swap(true) {
			return
		}
		g.refused.Store(true)
		if strings.HasPrefix(a.GetError().GetMessage(), g.what.limit+": ") {
			g.full.Store(true)
		}
	}
}

// free sends what gives back or keeps alive.
func (g *glutton) free(ctx context.Context, what string, op *apiv1.Operation) *apiv1.Answer {
	a := g.s.do(ctx, op)
	if isLimit(a) {
		g.r.violate("shares", "%s: %s is refused for a limit: %s", g.w.Name, what, a.GetError().GetMessage())
	}
	return a
}

func (g *glutton) id() (id [16]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range id {
		id[i] = byte(g.rand.Uint32())
	}
	return id
}

func (g *glutton) newName() string { return fmt.Sprintf("%s/%d", g.ownName("greedy"), g.n.Add(1)) }

func (g *glutton) takeSession(ctx context.Context) {
	if id := g.id(); g.open(ctx, id) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.sessions[id] = g.r.c.Now()
	}
}

func (g *glutton) open(ctx context.Context, id [16]byte) bool {
	return g.ask(ctx, &apiv1.Operation{Request: &apiv1.Operation_OpenSession{OpenSession: &apiv1.OpenSessionRequest{
		Session: id[:], TtlNs: int64(greedyTTL), Holder: g.w.Name,
	}}}).GetOpenSession() != nil
}

// takeEnd has one more session remembered.
func (g *glutton) takeEnd(ctx context.Context) {
	if id := g.id(); g.open(ctx, id) {
		g.end(ctx, id)
	}
}

func (g *glutton) end(ctx context.Context, id [16]byte) {
	g.free(ctx, "the end of a session", &apiv1.Operation{Request: &apiv1.Operation_EndSession{EndSession: &apiv1.EndSessionRequest{Session: id[:]}}})
}

// keepAlive keeps alive what takeSession has opened.
func (g *glutton) keepAlive(ctx context.Context) {
	for ctx.Err() == nil {
		sleep(ctx, greedyTTL/3)
		g.mu.Lock()
		ids := make([][16]byte, 0, len(g.sessions))
		for id := range g.sessions {
			ids = append(ids, id)
		}
		g.mu.Unlock()
		slices.SortFunc(ids, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) }) // for the replay
		all(len(ids), func(i int) { g.keepOne(ctx, ids[i]) })
	}
}

func (g *glutton) keepOne(ctx context.Context, id [16]byte) {
	ctx, cancel := context.WithTimeout(ctx, greedyTTL/3)
	defer cancel()
	sent := g.r.c.Now()
	a := g.free(ctx, "a keep-alive", &apiv1.Operation{Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{Session: id[:]}}})
	g.mu.Lock()
	defer g.mu.Unlock()
	since := g.sessions[id]
	switch {
	case a.GetKeepAlive().GetDeadline() != 0:
		g.sessions[id] = sent
	case a.GetKeepAlive() != nil || apiv1.Code(a.GetError().GetCode()) == apiv1.CodeNoSession:
		if g.r.calmFor() > g.r.c.Now()-since {
			g.r.violate("sessions", "%s: a session that was kept alive at %v has ended", g.w.Name, since)
		}
		delete(g.sessions, id)
	}
}

// acquire asks for a lock of the glutton's session.
func (g *glutton) acquire(ctx context.Context, q *apiv1.AcquireRequest) bool {
	q.Id = g.s.sign()
	defer g.s.answered(q.GetId())
	token := g.ask(ctx, &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: q}}).GetAcquire().GetToken()
	if token != 0 {
		g.mu.Lock()
		g.tokens = append(g.tokens, token)
		g.mu.Unlock()
	}
	return token != 0
}

func (g *glutton) takeGrant(ctx context.Context) {
	g.acquire(ctx, &apiv1.AcquireRequest{Locks: []*apiv1.Want{{Name: g.newName()}}})
}

// takeBytes takes a lock with as much beside it as is allowed, and once that is refused,
// one with nothing: what is left then is less than anybody else needs, if all could be had.
func (g *glutton) takeBytes(ctx context.Context) {
	if g.small.Load() {
		g.takeGrant(ctx)
		return
	}
	q := &apiv1.AcquireRequest{Locks: []*apiv1.Want{{Name: g.newName()}}, Value: make([]byte, 4096)}
	for i := range 30 {
		q.Labels = append(q.Labels, &apiv1.Label{Key: fmt.Sprint("label", i), Value: strings.Repeat("x", 240)})
	}
	g.acquire(ctx, q)
}

// takeOnce has one more request ID remembered, and releases its grant.
func (g *glutton) takeOnce(ctx context.Context) {
	id := g.id()
	a := g.ask(ctx, &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{
		Id: &apiv1.RequestID{Once: id[:]}, Detached: true, Holder: g.w.Name, TtlNs: int64(maxHold), Locks: []*apiv1.Want{{Name: g.newName()}},
	}}})
	if token := a.GetAcquire().GetToken(); token != 0 {
		g.free(ctx, "a release", &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Token: token}}})
	}
}

// lineName is a lock in whose line places are taken.
func (g *glutton) lineName() string { return g.ownName("greedy/line") }

func (g *glutton) takePlace(ctx context.Context) { g.waitFor(ctx, g.lineName()) }

func (g *glutton) takeWait(ctx context.Context) {
	g.waitFor(ctx, fmt.Sprintf("%s/%d", g.ownName("greedy/lines"), g.n.Add(1)/8))
}

// waitFor waits for a lock of its own.
func (g *glutton) waitFor(ctx context.Context, name string) {
	if g.acquire(ctx, &apiv1.AcquireRequest{Locks: []*apiv1.Want{{Name: name}}}) {
		return // it holds it now
	}
	conn := g.s.to(ctx)
	if conn == nil {
		return
	}
	id := g.s.sign()
	conn.Start(&mux.Call{
		Op:   &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{Id: id, WaitNs: -1, Locks: []*apiv1.Want{{Name: name}}}}},
		Done: g.note,
	})
	g.mu.Lock()
	g.waits = append(g.waits, id)
	g.mu.Unlock()
	sleep(ctx, 50*time.Millisecond)
}

// letGo gives back all that was taken.
func (g *glutton) letGo(ctx context.Context) {
	g.mu.Lock()
	tokens, waits, sessions := g.tokens, g.waits, make([][16]byte, 0, len(g.sessions))
	for id := range g.sessions {
		sessions = append(sessions, id)
	}
	g.tokens, g.waits = nil, nil
	clear(g.sessions)
	g.mu.Unlock()
	slices.SortFunc(sessions, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	all(len(waits), func(i int) {
		g.signed(ctx, "a cancel", func(id *apiv1.RequestID) *apiv1.Operation {
			return &apiv1.Operation{Request: &apiv1.Operation_Cancel{Cancel: &apiv1.CancelRequest{Id: id, Target: waits[i]}}}
		})
		g.s.answered(waits[i])
	})
	slices.Reverse(tokens) // the small ones first: that frees little, and what comes next has no room either
	release := func(tokens []uint64) {
		all(len(tokens), func(i int) {
			g.signed(ctx, "a release", func(id *apiv1.RequestID) *apiv1.Operation {
				return &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Id: id, Token: tokens[i]}}}
			})
		})
	}
	if len(tokens) > greedyAtOnce {
		release(tokens[:1])
		tokens = tokens[1:]
		for _, token := range tokens[len(tokens)-greedyAtOnce/2:] {
			g.signed(ctx, "a shorter value", func(id *apiv1.RequestID) *apiv1.Operation {
				return &apiv1.Operation{Request: &apiv1.Operation_SetValue{SetValue: &apiv1.SetValueRequest{Id: id, Token: token}}}
			})
		}
	}
	release(tokens)
	all(len(sessions), func(i int) { g.end(ctx, sessions[i]) })
}

// signed is free for what has a request ID.
func (g *glutton) signed(ctx context.Context, what string, op func(id *apiv1.RequestID) *apiv1.Operation) {
	id := g.s.sign()
	defer g.s.answered(id)
	g.free(ctx, what, op(id))
}

// beside has a program start at another address, beside who is greedy, and do some of all
// that takes room in the table. That none of it is refused is for expect to say.
func (g *glutton) beside(ctx context.Context) {
	name := g.ownName("beside")
	var held *client.Grant
	given := g.soonIn(ctx, maxHold, fmt.Sprintf("a lock is given beside who has all of %s that it gets", g.what.limit), func(ctx context.Context) bool {
		c, err := g.second("beside")
		if err == nil {
			held, err = c.Lock(ctx, name)
		}
		g.expect(err)
		return err == nil
	})
	if !given {
		return
	}
	c, err := g.second("beside")
	g.expect(err)
	g.expect(held.SetValue(ctx, make([]byte, 200)))
	if place, err := c.Lock(ctx, g.lineName(), client.Wait(300*time.Millisecond)); err == nil {
		g.expect(place.Unlock()) // the line is not there in all cases
	} else {
		g.expect(err)
	}
	if d, err := c.Detached().Acquire(ctx, name+"/detached", maxHold); err == nil {
		g.expect(ignoreNotHeld(c.Detached().Release(ctx, name+"/detached", d.Token)))
	} else {
		g.expect(err)
	}
	g.expect(held.Unlock())
	_ = g.r.c.KillClient(g.w.Name + "-beside") // the next one is a new program
}

// judgeShares finds who was refused something for a limit beside those who are greedy.
func (o *Outcome) judgeShares() {
	if o.Plan.Profile != "greedy" {
		return
	}
	greedy := map[string]bool{}
	for _, w := range o.Plan.Workers {
		greedy[w.Name] = w.Job == "greedy"
	}
	for i := range o.History.Ops {
		if op := &o.History.Ops[i]; op.Code == apiv1.CodeLimit && !greedy[op.Client] {
			o.Violations = append(o.Violations, history.Violation{
				Promise: "shares", Check: "run", Text: fmt.Sprintf("%s by %s was refused at %v beside who is greedy: %s", op.Kind, op.Client, op.Return, op.Error),
			})
		}
	}
}
