package history

import (
	"slices"

	"github.com/locknode/locknode/fsm"
)

// replay runs the log's events through a small model, which has who holds a lock, who waits,
// and the earliest cluster time at which each may end. So it checks what may happen next,
// without the rules by which the table decides.
type replay struct {
	c        *checker
	l        *logbook
	locks    map[string]*replayLock
	waits    map[string]*logGrant // by request ID
	held     map[string][]*logGrant
	floors   map[uint64]fsm.Instant // token → cluster time before which its own TTL cannot end it
	token    uint64                 // the last one
	extended []extension            // by index
	reads    []*Op                  // by index
	calls    calls
	stuck    stuck

	entry   *logEntry
	over    map[string]fsm.Code // sessions that ended in this entry
	resized []*replayLock       // in this entry
}

type replayLock struct {
	name    string
	holders []*logGrant // by token
	queue   []*logGrant // in the order in which they came
	delayed fsm.Instant // cluster time until which it must stay free after a loss
	size    uint32      // of a semaphore in use
}

// extension is a session or grant that an answer says was extended.
type extension struct {
	index   uint64
	session string
	token   uint64
	until   fsm.Instant // cluster time, at least
}

func (c *checker) replay(l *logbook) {
	r := &replay{
		c: c, l: l, locks: make(map[string]*replayLock), waits: make(map[string]*logGrant),
		held: make(map[string][]*logGrant), floors: make(map[uint64]fsm.Instant), calls: newCalls(c.h.Ops),
		stuck: stuck{touched: make(map[*replayLock]bool), since: make(map[*logGrant]fsm.Instant)},
	}
	r.prepare()
	for i := range l.entries {
		e := &l.entries[i]
		r.readUpTo(e.Index - 1)
		r.extendUpTo(e.Index - 1)
		r.entry, r.over, r.resized = e, nil, nil
		for k := range e.Events {
			r.event(&e.Events[k])
		}
		for session := range r.over {
			for _, g := range r.held[session] {
				c.violate("S6", "log", g.lock(), "index %d: session %s ended, its grant with token %d did not", e.Index, session, g.token)
			}
		}
		r.checkSizes()
		r.checkStuck()
	}
	r.readUpTo(^uint64(0))
}

// prepare sorts reads and renewals by log index.
func (r *replay) prepare() {
	for i := range r.c.h.Ops {
		o := &r.c.h.Ops[i]
		if o.Outcome != OK {
			continue
		}
		switch o.Kind {
		case Get:
			r.reads = append(r.reads, o)
		case Acquire:
			// A deadline in an answer holds, whatever has moved it.
			if o.Detached && o.Index > 0 {
				r.extended = append(r.extended, extension{index: o.Index, token: o.Token, until: o.Until})
			}
		case Open, KeepAlive:
			// None of these is remembered: it was executed in the entry that the answer names.
			s := r.c.facts.sessions[o.Session]
			if e := r.l.entry(o.Index); e != nil && s != nil && s.ttl > 0 {
				r.extended = append(r.extended, extension{index: o.Index, session: o.Session, until: e.Now + fsm.Instant(s.ttl)})
			}
		case Renew:
			// The answer may be a remembered one: it was executed in that entry or
			// before, but not before it was called.
			if e := r.l.since(o.Call); e != nil && e.Index <= o.Index {
				r.extended = append(r.extended, extension{index: o.Index, token: o.Token, until: e.Now + fsm.Instant(o.TTL)})
			}
		}
	}
	slices.SortStableFunc(r.reads, func(a, b *Op) int { return compare(a.Index, b.Index) })
	slices.SortStableFunc(r.extended, func(a, b extension) int { return compare(a.index, b.index) })
}

// extendUpTo takes into account what was extended by an index.
func (r *replay) extendUpTo(index uint64) {
	for len(r.extended) > 0 && r.extended[0].index <= index {
		x := r.extended[0]
		r.extended = r.extended[1:]
		if s := r.l.sessions[x.session]; x.session != "" && s != nil {
			s.deadline = max(s.deadline, x.until)
		}
		if at, ok := r.floors[x.token]; ok {
			r.floors[x.token] = max(at, x.until)
		}
	}
}

// readUpTo compares the reads up to an index with who holds their locks (S8).
func (r *replay) readUpTo(index uint64) {
	for len(r.reads) > 0 && r.reads[0].Index <= index {
		o := r.reads[0]
		r.reads = r.reads[1:]
		var held []uint64
		if l := r.locks[o.lock()]; l != nil {
			for _, g := range l.holders {
				held = append(held, g.token)
			}
		}
		if len(o.Holders) >= maxHolders && len(held) > maxHolders {
			continue // only some holders are named
		}
		if !slices.Equal(held, o.Holders) {
			r.c.violate("S8", "log", o.lock(), "%s read at %v that at index %d tokens %d hold it; by the log %d do",
				o.Client, o.Return, o.Index, o.Holders, held)
		}
	}
}

func (r *replay) event(e *fsm.Event) {
	switch e.Kind {
	case fsm.EventSessionOpened:
		r.opened(e)
	case fsm.EventSessionEnded:
		r.sessionEnded(e)
	case fsm.EventQueued:
		r.queued(e)
	case fsm.EventGranted:
		r.granted(e)
	case fsm.EventReleased, fsm.EventExpired, fsm.EventRevoked:
		r.grantEnded(e)
	case fsm.EventWaitEnded:
		r.waitEnded(e)
	case fsm.EventTryEnded:
		r.tryEnded(e)
	case fsm.EventResized:
		r.resize(e)
	}
}

func (r *replay) opened(e *fsm.Event) {
	id := hexOf(e.Session)
	t := r.c.facts.sessions[id]
	switch s := r.l.sessions[id]; {
	case s == nil:
	case s.ended == 0:
		r.c.violate("S6", "log", "", "index %d: session %s was opened while it was open", r.entry.Index, id)
	case t != nil && t.open != nil && t.open.Outcome == OK && t.open.Return < r.entry.at:
		// Its client knew that it was open and did not retry: this is an old copy.
		r.c.violate("S6", "log", "", "index %d: session %s, which ended at index %d, was opened again: its earlier requests can take effect twice",
			r.entry.Index, id, s.ended)
	}
	s := &logSession{opened: r.entry.Index, before: r.l.sessions[id]}
	if t != nil && t.ttl > 0 {
		s.deadline = r.entry.Now + fsm.Instant(t.ttl)
	}
	r.l.sessions[id] = s
}

func (r *replay) sessionEnded(e *fsm.Event) {
	id := hexOf(e.Session)
	s := r.l.sessions[id]
	if s == nil || s.ended != 0 {
		r.c.violate("S6", "log", "", "index %d: session %s ended and was not open", r.entry.Index, id)
		return
	}
	s.ended, s.code = r.entry.Index, e.Code
	if r.over == nil {
		r.over = make(map[string]fsm.Code)
	}
	r.over[id] = e.Code
	r.checkSessionCause(id, s)
}

// request returns the request that an event is about, as it comes.
func (r *replay) request(e *fsm.Event) *logGrant {
	id := requestOf(e)
	return &logGrant{
		request: id.String(), try: id.try(), by: hexOf(id.session), session: hexOf(e.Session), holder: e.Holder, wants: e.Wants,
		queued: r.entry.Now, index: r.entry.Index, now: r.entry.Now, at: r.entry.at, endAt: Never,
	}
}

// checkNew checks that a request comes to the table once, and while its session is open.
func (r *replay) checkNew(g *logGrant) {
	if s := r.l.sessions[g.by]; s == nil || s.ended != 0 {
		r.c.violate("FIFO", "log", g.lock(), "index %d: request %s came without an open session", r.entry.Index, g.request)
	}
	other := r.l.requests[g.request]
	if isOnce(g.request) {
		r.checkRemembered(g, other)
		return
	}
	if other != nil {
		r.c.violate("S6", "log", g.lock(), "index %d: request %s took effect again; token %d was granted to it at index %d",
			r.entry.Index, g.request, other.token, other.index)
	}
	if _, ended := r.l.ended[g.request]; ended {
		r.c.violate("FIFO", "log", g.lock(), "index %d: request %s came or was granted again after its wait had ended", r.entry.Index, g.request)
	}
}

func (r *replay) queued(e *fsm.Event) {
	g := r.request(e)
	r.checkNew(g)
	if r.waits[g.request] != nil {
		r.c.violate("S6", "log", g.lock(), "index %d: request %s is queued twice", r.entry.Index, g.request)
		return
	}
	r.waits[g.request] = g
	for _, w := range g.wants {
		l := r.lock(w.Lock)
		r.checkSize(g, w)
		l.queue = append(l.queue, g)
		r.stuck.touch(l)
	}
}

func (r *replay) lock(name string) *replayLock {
	l := r.locks[name]
	if l == nil {
		l = &replayLock{name: name}
		r.locks[name] = l
	}
	return l
}

// granted checks exclusion (S1), tokens (S4) and the order of waiters (FIFO).
func (r *replay) granted(e *fsm.Event) {
	g := r.request(e)
	waiting := r.waits[g.request]
	if waiting != nil {
		g.queued, g.waited, g.sessions = waiting.queued, true, []string{g.by}
		for _, other := range e.Others {
			g.sessions = append(g.sessions, hexOf(other.Session))
		}
		r.checkStands(waiting)
	} else {
		r.checkNew(g)
	}
	g.token, g.deadline = e.Token, e.Result.Deadline
	if g.token <= r.token {
		r.c.violate("S4", "log", g.lock(), "index %d: token %d was granted after token %d", r.entry.Index, g.token, r.token)
	}
	r.token = max(r.token, g.token)
	came := e.Result.Queued == g.queued
	if isOnce(g.request) && g.waited {
		came = e.Result.Queued >= g.queued && e.Result.Queued <= r.entry.Now // of the try that came last
	}
	if !came || e.Result.Token != g.token {
		r.c.violate("S3", "log", g.lock(), "index %d: the answer to request %s says token %d and that it came at %d; it is token %d, and it came at %d",
			r.entry.Index, g.request, e.Result.Token, e.Result.Queued, g.token, g.queued)
	}
	for _, w := range g.wants {
		if waiting == nil {
			r.checkSize(g, w)
		}
		r.checkExclusion(g, w)
		r.checkTurn(g, waiting, w)
		if until := r.lock(w.Lock).delayed; r.entry.Now < until {
			r.c.violate("delay", "log", w.Lock, "index %d: token %d was granted at %d; after a loss it had to stay free until %d", r.entry.Index, g.token, r.entry.Now, until)
		}
	}
	r.leaveQueues(waiting)
	for _, w := range g.wants {
		l := r.lock(w.Lock)
		l.holders = append(l.holders, g)
	}
	g.before = r.l.requests[g.request]
	r.l.grants[g.token], r.l.requests[g.request] = g, g
	if g.session != "" {
		r.held[g.session] = append(r.held[g.session], g)
	}
	r.floor(g)
}

// floor records the time before which the grant's own TTL cannot end it, and compares its
// deadline with the requested TTL (S2).
func (r *replay) floor(g *logGrant) {
	until := g.deadline
	if o := r.c.asked(g); o != nil {
		until = 0
		if o.TTL > 0 {
			until = g.now + fsm.Instant(o.TTL)
		}
		if g.deadline != until {
			r.c.violate("S2", "log", g.lock(), "index %d: token %d was granted at %d with deadline %d; with a TTL of %v it is %d (0: none)",
				r.entry.Index, g.token, g.now, g.deadline, o.TTL, until)
		}
	}
	if until != 0 {
		r.floors[g.token] = until
	}
}

func (r *replay) checkExclusion(g *logGrant, w fsm.Want) {
	permits := uint64(w.Permits)
	for _, h := range r.lock(w.Lock).holders {
		for _, other := range h.wants {
			if other.Lock != w.Lock {
				continue
			}
			if conflicts(Want(other), Want(w)) {
				r.c.violate("S1", "log", w.Lock, "index %d: token %d was granted while token %d held it", r.entry.Index, g.token, h.token)
			}
			permits += uint64(other.Permits)
		}
	}
	if size := r.lock(w.Lock).size; w.Mode == fsm.Permits && permits > uint64(size) {
		r.c.violate("S1", "log", w.Lock, "index %d: with token %d, %d permits of %d are held", r.entry.Index, g.token, permits, size)
	}
}

// checkTurn looks for an earlier waiter that conflicts with what is granted now. Two shared
// requests do not conflict.
func (r *replay) checkTurn(g, waiting *logGrant, w fsm.Want) {
	for _, other := range r.lock(w.Lock).queue {
		if other == waiting {
			return
		}
		for _, want := range other.wants {
			if want.Lock == w.Lock && (want.Mode != fsm.Shared || w.Mode != fsm.Shared) {
				r.c.violate("FIFO", "log", w.Lock, "index %d: request %s overtook %s, which was queued since index %d",
					r.entry.Index, g.request, other.request, other.index)
				return
			}
		}
	}
}

func (r *replay) leaveQueues(g *logGrant) {
	if g == nil {
		return
	}
	delete(r.waits, g.request)
	for _, w := range g.wants {
		l := r.lock(w.Lock)
		l.queue = slices.DeleteFunc(l.queue, func(other *logGrant) bool { return other == g })
		r.stuck.touch(l)
	}
}

func (r *replay) waitEnded(e *fsm.Event) {
	request := requestOf(e).String()
	g := r.waits[request]
	if g == nil {
		r.c.violate("S6", "log", "", "index %d: the wait of request %s ended, which did not wait", r.entry.Index, request)
		return
	}
	r.checkWaitCause(g, e)
	r.leaveQueues(g)
	if !isOnce(request) {
		r.l.ended[request] = e.Code
	}
}

func (r *replay) grantEnded(e *fsm.Event) {
	g := r.l.grants[e.Token]
	if g == nil || g.over() {
		r.c.violate("S6", "log", "", "index %d: token %d %s and was not held", r.entry.Index, e.Token, endWord[e.Kind])
		return
	}
	r.checkGrantCause(g, e.Kind)
	if r.delaysNobody(g) {
		g.givenUp = true // its ID is forgotten with it
	}
	g.ended, g.endIndex, g.endNow, g.endAt = e.Kind, r.entry.Index, r.entry.Now, r.entry.at
	delete(r.floors, g.token)
	same := func(other *logGrant) bool { return other == g }
	for _, w := range g.wants {
		l := r.lock(w.Lock)
		l.holders = slices.DeleteFunc(l.holders, same)
		if o := r.c.asked(g); o != nil && o.Delay > 0 && e.Kind == fsm.EventExpired && !r.delaysNobody(g) {
			l.delayed = max(l.delayed, r.entry.Now+fsm.Instant(o.Delay))
		}
		r.stuck.touch(l)
	}
	r.held[g.session] = slices.DeleteFunc(r.held[g.session], same)
}

func (g *logGrant) lock() string {
	if len(g.wants) == 0 {
		return ""
	}
	return g.wants[0].Lock
}
