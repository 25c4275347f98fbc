package node

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/fair"
)

// How a proposal can end without a result.
var (
	// errNotProposed: the command changed nothing and never will.
	errNotProposed = errors.New("not proposed")
	// errOutcomeUnknown: the command may take effect, now or later. Only the
	// same request ID may be sent again.
	errOutcomeUnknown = errors.New("outcome unknown")
	// errOverloaded: the caller's share of the queue is used up; the command changed
	// nothing.
	errOverloaded = errors.New("overloaded")
	// errForeign: the session belongs to another identity; its keep-alive changed nothing.
	errForeign = errors.New("session of another identity")
)

const (
	maxYields = 8

	// tickEvery is how often cluster time moves while anything has a deadline. It is well
	// below maxAdvance: if a tick is later than that, every deadline is late by the excess.
	tickEvery = 500 * time.Millisecond
)

// outcome is how one proposed command ended. Without err the result is that of
// the entry at index, applied at cluster time now.
type outcome struct {
	result fsm.Result
	index  uint64
	now    fsm.Instant
	err    error
}

// proposer is the collector of one term: commands gather while an entry is on
// its way, and all that have gathered become the next entry. One entry is in
// flight at a time; more would only make the entries smaller. What gathers is in
// [lanes]: its owners take turns.
//
// A keep-alive of a session that the table does not have is not part of an entry: see
// [missingSessions].
//
// Its goroutine, run, owns the clock and the timing of ticks. Everybody else
// calls submit and keepAlive, which never block.
type proposer struct {
	term  uint64
	clock *leaderClock
	wall  func() time.Time
	// commit puts one entry through the log. Its error is errNotProposed or
	// errOutcomeUnknown.
	commit func(entry []byte) (fsm.Applied, error)

	// missing returns which sessions the table does not have now, nil if it has them all.
	// nil: the table has every session.
	missing func([]fsm.KeepAliveSession) []bool
	// aside gets the keep-alives of those sessions, on run's goroutine.
	aside func([]keepAlive)
	// foreign returns which keep-alives their callers may not send, nil if there are none. nil:
	// everybody may keep every session alive.
	foreign func([]keepAlive) []bool
	// level returns the feature level of the table. nil: every command may be written.
	level func() tableLevel

	woken chan struct{} // holds a token when there may be work
	lost  chan struct{} // closed when an entry failed: the term is over
	done  chan struct{} // closed when run has returned

	nextDue fsm.Instant              // cluster time of the next deadline, 0: none; owned by run
	lastAt  time.Duration            // monotonic time of the last stamp; owned by run
	due     atomic.Pointer[dueAfter] // nil: nothing has a deadline
	slots   map[fsm.SessionID]int32  // of lanes.take; owned by run

	mu     sync.Mutex // guards what follows
	closed bool
	lanes  *lanes
}

// dueAfter is when the next deadline comes, as of an entry.
type dueAfter struct {
	index uint64        // of the entry
	at    time.Duration // monotonic time
}

func newProposer(term uint64, clock *leaderClock, wall func() time.Time, commit func([]byte) (fsm.Applied, error)) *proposer {
	return &proposer{
		term: term, clock: clock, wall: wall, commit: commit,
		woken: make(chan struct{}, 1),
		lost:  make(chan struct{}),
		done:  make(chan struct{}),
		lanes: &lanes{},
		slots: make(map[fsm.SessionID]int32),
	}
}

// submit queues a command of an owner; done gets its outcome exactly once, on the
// proposer's goroutine or, when the command is refused at once, on the caller's.
func (p *proposer) submit(o fair.Owner, c fsm.Command, done func(outcome)) {
	if p.level != nil {
		if res, below := belowLevel(c, p.level()); below {
			done(outcome{result: res})
			return
		}
	}
	p.mu.Lock()
	var err error
	switch {
	case p.closed:
		err = errNotProposed
	case !p.lanes.push(o, queuedCommand{c, done}):
		err = errOverloaded
	}
	p.mu.Unlock()
	if err != nil {
		done(outcome{err: err})
		return
	}
	p.wake()
}

// frees reports whether a command frees something or keeps it alive, as operations of the
// class [mux.Frees] do.
func frees(c fsm.Command) bool {
	switch plain(c).(type) {
	case fsm.EndSession, fsm.Cancel, fsm.Release, fsm.Renew, fsm.ForceRelease,
		fsm.KillSession, fsm.Clear, fsm.Configure: // with which an operator ends an overload
		return true
	}
	return false
}

// keepAlive queues the renewal of one session in the lane of its own. Its done gets the
// outcome as that of submit does.
func (p *proposer) keepAlive(k keepAlive) {
	p.mu.Lock()
	var err error
	switch {
	case p.closed:
		err = errNotProposed
	case !p.lanes.alive.Push(k.owner, k, 0, fair.Room{Items: maxKeepAlives}):
		err = errOverloaded
	}
	p.mu.Unlock()
	if err != nil {
		k.done(fsm.Alive{}, outcome{err: err})
		return
	}
	p.wake()
}

func (p *proposer) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

// close refuses new commands and fails those that are queued with errNotProposed. The entry
// in flight ends by itself. run returns soon after.
func (p *proposer) close() {
	p.mu.Lock()
	p.closed = true
	rest := p.lanes
	p.lanes = &lanes{}
	p.mu.Unlock()
	rest.openNone()
	for {
		b := rest.take(make(map[fsm.SessionID]int32))
		if b.empty() {
			break
		}
		b.fail(errNotProposed)
	}
	p.wake()
}

// run proposes until close is called or an entry fails.
func (p *proposer) run() {
	defer close(p.done)
	for {
		b, more, closed := p.take()
		if closed {
			b.fail(errNotProposed)
			return
		}
		if b.empty() && !p.tickDue() {
			if !more {
				p.sleep()
			}
			continue
		}
		if !p.propose(b) {
			close(p.lost)
			p.close()
			return
		}
		p.yield()
	}
}

// propose commits one entry and hands out its results. It reports false when
// the term is over.
func (p *proposer) propose(b batch) bool {
	applied, err := p.commit(p.encode(b))
	if err == nil && applied.Refused != fsm.OK {
		// Stamped in this term, stored in another: it changed nothing.
		err = errNotProposed
	}
	if err != nil {
		b.fail(err)
		return false
	}
	p.nextDue = applied.NextDue
	var due *dueAfter
	if p.nextDue != 0 {
		due = &dueAfter{index: applied.Index, at: p.clock.when(p.nextDue)}
	}
	p.due.Store(due)
	b.deliver(applied)
	p.opened(b)
	return true
}

// encode stamps and encodes the entry. Keep-alives come first.
func (p *proposer) encode(b batch) []byte {
	stamp := p.clock.stamp()
	p.lastAt = p.clock.mono()
	n := len(b.commands)
	if len(b.sessions) > 0 {
		n++
	}
	size := 64 + 32*len(b.sessions)
	for _, q := range b.commands {
		size += sizeOf(q.command)
	}
	entry := make([]byte, 0, size)
	entry = fsm.AppendHeader(entry, p.term, stamp, p.wall().UnixMilli(), n)
	if len(b.sessions) > 0 {
		entry = fsm.AppendCommand(entry, fsm.KeepAlive{Sessions: b.sessions})
	}
	for _, q := range b.commands {
		entry = fsm.AppendCommand(entry, q.command)
	}
	return entry
}

// take removes what fits into one entry, and reports whether there is more. What the table
// says about missing sessions is still true when the entry is applied: no other entry is in
// flight, and keep-alives come first.
func (p *proposer) take() (b batch, more, closed bool) {
	p.mu.Lock()
	b, closed = p.lanes.take(p.slots), p.closed
	more = p.lanes.commands.Len()+p.lanes.alive.Len() > 0
	p.mu.Unlock()
	if closed || len(b.sessions) == 0 {
		return b, more, closed
	}
	if p.foreign != nil {
		for _, k := range b.withoutForeign(p.foreign(b.alive)) {
			k.done(fsm.Alive{}, outcome{err: errForeign})
		}
	}
	if p.missing == nil {
		return b, more, closed
	}
	if missing := p.missing(b.sessions); missing != nil {
		p.setAside(b.without(missing))
	}
	return b, more, closed
}

// setAside takes keep-alives of sessions that the table does not have. Those of sessions
// that are about to be opened wait for that, the others go to aside.
func (p *proposer) setAside(out []keepAlive) {
	n := 0
	var refused []keepAlive
	p.mu.Lock()
	for _, k := range out {
		switch o := p.lanes.opening[k.session.Session]; {
		case o == nil:
			out[n] = k
			n++
		case len(o.behind) < maxBehind:
			o.behind = append(o.behind, k)
		default:
			refused = append(refused, k)
		}
	}
	p.mu.Unlock()
	for _, k := range refused {
		k.done(fsm.Alive{}, outcome{err: errOverloaded})
	}
	if n > 0 {
		p.aside(out[:n])
	}
}

// opened queues the keep-alives that have waited for sessions that the batch has opened.
func (p *proposer) opened(b batch) {
	for _, q := range b.commands {
		if c, ok := plain(q.command).(fsm.OpenSession); ok {
			p.mu.Lock()
			p.lanes.opened(c)
			p.mu.Unlock()
		}
	}
}

// yield lets the callers that were just answered put their next commands into the next
// entry: as long as the queue grows, at most maxYields times.
func (p *proposer) yield() {
	before := -1
	for range maxYields {
		p.mu.Lock()
		n := p.lanes.commands.Len()
		p.mu.Unlock()
		if n == before {
			return
		}
		before = n
		runtime.Gosched()
	}
}

// untilTick returns how long until an empty entry must move cluster time. ok is false while
// nothing has a deadline.
func (p *proposer) untilTick() (d time.Duration, ok bool) {
	if p.nextDue == 0 {
		return 0, false
	}
	due := time.Duration(p.nextDue.Sub(p.clock.now()))
	return max(0, min(due, p.lastAt+tickEvery-p.clock.mono())), true
}

// overdue reports whether a deadline has come that is after the stamps of all entries up to
// the one at index: an entry that ends it follows. It is safe for concurrent use.
func (p *proposer) overdue() (index uint64, ok bool) {
	due := p.due.Load()
	if due == nil || p.clock.mono() < due.at {
		return 0, false
	}
	return due.index, true
}

func (p *proposer) tickDue() bool {
	d, ok := p.untilTick()
	return ok && d == 0
}

// sleep waits for work or for the time of the next tick.
func (p *proposer) sleep() {
	d, ok := p.untilTick()
	if !ok {
		<-p.woken
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.woken:
	case <-t.C:
	}
}
