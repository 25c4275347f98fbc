package node

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/locknode/locknode/fsm"
)

// How a proposal can end without a result.
var (
	// errNotProposed: the command changed nothing and never will.
	errNotProposed = errors.New("not proposed")
	// errOutcomeUnknown: the command may take effect, now or later. Only the
	// same request ID may be sent again.
	errOutcomeUnknown = errors.New("outcome unknown")
	// errOverloaded: the queue is full; the command changed nothing.
	errOverloaded = errors.New("overloaded")
)

// Bounds of the collector.
const (
	maxEntryCommands = 2048
	maxEntryBytes    = 256 << 10
	// What may be queued; and as much again of what gives something back.
	maxQueueCommands = 64 << 10
	maxQueueBytes    = 32 << 20
	maxKeepAlives    = 256 << 10
	maxYields        = 8

	// tickEvery is how often cluster time moves while anything has a deadline.
	// It stays well below maxAdvance: what a tick comes too late beyond that is
	// time that every deadline waits longer.
	tickEvery = 500 * time.Millisecond
)

// outcome is how one proposed command ended. Without err the result is that of
// the entry at index, applied at cluster time now.
type outcome struct {
	result fsm.Result
	index  uint64
	now    int64
	err    error
}

// proposer is the collector of one term: commands gather while an entry is on
// its way, and all that have gathered become the next entry. One entry is in
// flight at a time; more would only make the entries smaller.
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

	wake chan struct{} // holds one token when there may be work
	lost chan struct{} // closed when an entry failed: the term is over
	done chan struct{} // closed when run has returned

	nextDue int64                    // cluster time of the next deadline, 0: none; owned by run
	lastAt  time.Duration            // monotonic time of the last stamp; owned by run
	due     atomic.Pointer[dueAfter] // nil: nothing has a deadline

	mu     sync.Mutex // guards what follows
	closed bool
	queue  lane
	alive  keepAliveLane
}

// dueAfter is when the next deadline comes, as of an entry.
type dueAfter struct {
	index uint64        // of the entry
	at    time.Duration // monotonic time
}

// lane holds encoded commands in order.
type lane struct {
	buf   []byte
	sizes []int
	done  []func(outcome)
}

// keepAliveLane is apart, so that a queue full of acquires expires no session.
type keepAliveLane struct {
	sessions []fsm.KeepAliveSession
	done     []func(fsm.Alive, outcome)
}

// batch is what goes into one entry.
type batch struct {
	commands lane
	alive    keepAliveLane
}

func newProposer(term uint64, clock *leaderClock, wall func() time.Time, commit func([]byte) (fsm.Applied, error)) *proposer {
	return &proposer{
		term: term, clock: clock, wall: wall, commit: commit,
		wake: make(chan struct{}, 1),
		lost: make(chan struct{}),
		done: make(chan struct{}),
	}
}

// submit queues a command; done gets its outcome exactly once, on the
// proposer's goroutine or, when the command is refused at once, on the caller's.
func (p *proposer) submit(c fsm.Command, done func(outcome)) {
	room := 1
	if frees(c) {
		room = 2 // acquires without end must not keep locks from being released
	}
	p.mu.Lock()
	var err error
	switch {
	case p.closed:
		err = errNotProposed
	case len(p.queue.sizes) >= room*maxQueueCommands || len(p.queue.buf) >= room*maxQueueBytes:
		err = errOverloaded
	default:
		before := len(p.queue.buf)
		p.queue.buf = fsm.AppendCommand(p.queue.buf, c)
		p.queue.sizes = append(p.queue.sizes, len(p.queue.buf)-before)
		p.queue.done = append(p.queue.done, done)
	}
	p.mu.Unlock()
	if err != nil {
		done(outcome{err: err})
		return
	}
	p.nudge()
}

// frees reports whether a command gives something back or keeps it alive: it is of the
// class [mux.Frees].
func frees(c fsm.Command) bool {
	switch c.(type) {
	case fsm.EndSession, fsm.Cancel, fsm.Release, fsm.Renew, fsm.ForceRelease:
		return true
	}
	return false
}

// keepAlive queues the renewal of one session in the lane of its own.
func (p *proposer) keepAlive(s fsm.KeepAliveSession, done func(fsm.Alive, outcome)) {
	p.mu.Lock()
	var err error
	switch {
	case p.closed:
		err = errNotProposed
	case len(p.alive.sessions) >= maxKeepAlives:
		err = errOverloaded
	default:
		p.alive.sessions = append(p.alive.sessions, s)
		p.alive.done = append(p.alive.done, done)
	}
	p.mu.Unlock()
	if err != nil {
		done(fsm.Alive{}, outcome{err: err})
		return
	}
	p.nudge()
}

func (p *proposer) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// close refuses what comes and fails what is queued with errNotProposed. What
// is in flight ends by itself. run returns soon after.
func (p *proposer) close() {
	p.mu.Lock()
	p.closed = true
	rest := batch{commands: p.queue, alive: p.alive}
	p.queue, p.alive = lane{}, keepAliveLane{}
	p.mu.Unlock()
	rest.fail(errNotProposed)
	p.nudge()
}

// run proposes until close is called or an entry fails.
func (p *proposer) run() {
	defer close(p.done)
	for {
		b, closed := p.take()
		if closed {
			return
		}
		if b.empty() && !p.tickDue() {
			p.sleep()
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
	return true
}

// encode stamps the entry. Keep-alives come first: they have waited for nobody.
func (p *proposer) encode(b batch) []byte {
	stamp := p.clock.stamp()
	p.lastAt = p.clock.mono()
	n := len(b.commands.sizes)
	if len(b.alive.sessions) > 0 {
		n++
	}
	entry := make([]byte, 0, 64+len(b.commands.buf)+32*len(b.alive.sessions))
	entry = fsm.AppendHeader(entry, p.term, stamp, p.wall().UnixMilli(), n)
	if len(b.alive.sessions) > 0 {
		entry = fsm.AppendCommand(entry, fsm.KeepAlive{Sessions: b.alive.sessions})
	}
	return append(entry, b.commands.buf...)
}

// take removes what fits into one entry.
func (p *proposer) take() (b batch, closed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b.commands = p.queue.take(maxEntryCommands, maxEntryBytes)
	b.alive = p.alive.take(maxEntryCommands)
	return b, p.closed
}

// yield lets the callers who were just answered put their next commands into
// the next entry: as long as the queue grows, but not for ever.
func (p *proposer) yield() {
	before := -1
	for range maxYields {
		p.mu.Lock()
		n := len(p.queue.sizes)
		p.mu.Unlock()
		if n == before {
			return
		}
		before = n
		runtime.Gosched()
	}
}

// untilTick is how long until an empty entry must move cluster time; ok is
// false while nothing has a deadline.
func (p *proposer) untilTick() (d time.Duration, ok bool) {
	if p.nextDue == 0 {
		return 0, false
	}
	due := time.Duration(p.nextDue - p.clock.now())
	return max(0, min(due, p.lastAt+tickEvery-p.clock.mono())), true
}

// overdue reports whether a deadline has come that no entry up to the one at index
// has seen: another one is on its way. It may be called by any goroutine.
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
		<-p.wake
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.wake:
	case <-t.C:
	}
}

// take cuts the first commands off, at most n of them and about size bytes.
func (l *lane) take(n, size int) lane {
	if len(l.sizes) <= n && len(l.buf) <= size {
		all := *l
		*l = lane{}
		return all
	}
	count, bytes := 0, 0
	for count < len(l.sizes) && count < n && (count == 0 || bytes+l.sizes[count] <= size) {
		bytes += l.sizes[count]
		count++
	}
	head := lane{buf: l.buf[:bytes:bytes], sizes: l.sizes[:count:count], done: l.done[:count:count]}
	l.buf, l.sizes, l.done = l.buf[bytes:], l.sizes[count:], l.done[count:]
	return head
}

func (l *keepAliveLane) take(n int) keepAliveLane {
	n = min(n, len(l.sessions))
	head := keepAliveLane{sessions: l.sessions[:n:n], done: l.done[:n:n]}
	l.sessions, l.done = l.sessions[n:], l.done[n:]
	if len(l.sessions) == 0 {
		*l = keepAliveLane{}
	}
	return head
}

func (b *batch) empty() bool { return len(b.commands.sizes) == 0 && len(b.alive.sessions) == 0 }

func (b *batch) fail(err error) {
	for _, done := range b.alive.done {
		done(fsm.Alive{}, outcome{err: err})
	}
	for _, done := range b.commands.done {
		done(outcome{err: err})
	}
}

func (b *batch) deliver(a fsm.Applied) {
	results := a.Results
	o := outcome{index: a.Index, now: a.Now}
	if len(b.alive.sessions) > 0 {
		for i, done := range b.alive.done {
			done(results[0].Alive[i], o)
		}
		results = results[1:]
	}
	for i, done := range b.commands.done {
		o.result = results[i]
		done(o)
	}
}
