package history

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/locknode/locknode/fsm"
)

// A lock service that is correct by construction, in virtual time: the real table behind a
// leader that commits one entry after the other, a network that delays and loses messages,
// elections, and clients (simclient_test.go) that follow the rules of the real one. Each fault
// that a check must find can be switched on (simwrong_test.go).

const simRate = 0.005 // how far clocks run from real time

type world struct {
	rnd    *rand.Rand
	now    time.Duration
	events eventHeap
	number int

	table       *fsm.Table
	index, term uint64
	base        fsm.Instant   // cluster time at m0, as the leader has it
	m0          time.Duration // on its clock
	rate        float64       // of its clock
	last        fsm.Instant   // its last stamp
	pending     []*command
	flying      bool          // an entry is in flight
	down        bool          // no leader
	tickAt      time.Duration // when the next tick is set for; 0: none
	tickDue     bool
	waits       map[requestID][]*command
	followers   [2]time.Duration // when each applied last
	views       []view           // earlier states of the locks, for stale reads

	h       History
	ops     []*Op
	beliefs []*Belief
	locks   []Want
	hosts   []*simHost
	scripts []*script
	tried   []*hosted // under once IDs
	names   int
	maxOps  int
	end     time.Duration
	harsh   bool // many messages are lost or late, and callers give up early
	calm    bool // no losses, no elections, and quick answers
	resizes bool // the size of the semaphore changes
	wrong   wrong
}

// command is an operation that has reached the leader.
type command struct {
	cmd   fsm.Command
	reply func(reply)
}

type reply struct {
	res   fsm.Result
	index uint64
	stamp fsm.Instant
}

type view struct {
	from    time.Duration
	index   uint64
	now     fsm.Instant
	holders map[string][]uint64
}

type event struct {
	at     time.Duration
	number int
	do     func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].number < h[j].number
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

// profile describes a simulated history.
type profile struct {
	seed    uint64
	clients int
	locks   int
	ops     int
	end     time.Duration
	calm    bool
	harsh   bool
	resizes bool
	wrong   string
}

// simulate returns a history, and how often the fault that was switched on took effect.
func simulate(p profile) (*History, int) {
	w := &world{
		rnd: rand.New(rand.NewPCG(p.seed, 7)), table: fsm.New(), term: 1, waits: make(map[requestID][]*command),
		maxOps: p.ops, end: p.end, calm: p.calm, harsh: p.harsh, resizes: p.resizes,
	}
	w.wrong.w, w.wrong.kind = w, p.wrong
	for i := range p.locks {
		w.locks = append(w.locks, Want{Lock: fmt.Sprint("lock", i), Mode: fsm.Exclusive})
	}
	w.locks = append(w.locks, Want{Lock: "rw", Mode: fsm.Shared}, Want{Lock: "sem", Mode: fsm.Permits, Limit: 3})
	w.lead()
	if w.wrong.is("session is opened again") || w.wrong.is("request is forgotten") { // with a table that remembers nothing that has ended
		w.submit(&command{fsm.Configure{Limits: fsm.Limits{OnceNanos: 1}}, func(reply) {}})
	}
	w.wrong.begin()
	if !p.calm {
		w.after(w.between(2*time.Second, 20*time.Second), w.election)
	}
	for range 3 {
		w.hosts = append(w.hosts, newSimHost(w))
	}
	if !p.calm {
		w.after(w.between(2*time.Second, 20*time.Second), w.killHost)
	}
	for i := range p.clients {
		newSimClient(w, fmt.Sprint("c", i))
	}
	for len(w.events) > 0 && w.now < w.end+30*time.Second {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	for _, o := range w.ops {
		if o.Kind != Get || o.Outcome != Unknown {
			w.h.Ops = append(w.h.Ops, *o)
		}
	}
	for _, b := range w.beliefs {
		w.h.Beliefs = append(w.h.Beliefs, *b)
	}
	w.wrong.afterwards()
	return &w.h, w.wrong.fired
}

func (w *world) after(d time.Duration, do func()) {
	w.number++
	heap.Push(&w.events, event{w.now + max(d, 0), w.number, do})
}

func (w *world) between(a, b time.Duration) time.Duration {
	return a + time.Duration(w.rnd.Int64N(int64(b-a)))
}

func (w *world) chance(p float64) bool { return w.rnd.Float64() < p }

// delay returns how long a message takes; lost is true if it does not arrive.
func (w *world) delay() (d time.Duration, lost bool) {
	if w.calm {
		return w.between(50*time.Microsecond, 500*time.Microsecond), false
	}
	d = w.between(100*time.Microsecond, 3*time.Millisecond)
	if w.harsh {
		if w.chance(0.05) {
			d = w.between(0, 8*time.Second)
		}
		return d, w.chance(0.2)
	}
	if w.chance(0.03) {
		d = w.between(0, 900*time.Millisecond)
	}
	return d, w.chance(0.03)
}

// lead begins the next term with a new leader, whose clock goes on from the table's time.
func (w *world) lead() {
	w.term++
	w.down = false
	w.rate = 1 + simRate*(2*w.rnd.Float64()-1)
	w.base, w.last = w.table.Now(), w.table.Now()
	w.m0 = w.clock()
	w.propose()
}

func (w *world) clock() time.Duration { return time.Duration(float64(w.now) * w.rate) }

func (w *world) stamp() fsm.Instant {
	s := max(w.last, w.base+fsm.Instant(w.wrong.advance(w.clock()-w.m0)))
	if limit := w.last + fsm.Instant(time.Second); s > limit {
		w.base -= s - limit
		s = limit
	}
	w.last = s
	return s
}

// election leaves the cluster without a leader for a while. The entry in flight is lost, or
// committed and not answered.
func (w *world) election() {
	w.down = true
	w.pending, w.waits = nil, make(map[requestID][]*command)
	w.after(w.between(100*time.Millisecond, 2*time.Second), func() {
		w.flying = false
		w.lead()
	})
	if w.now < w.end {
		w.after(w.between(5*time.Second, 25*time.Second), w.election)
	}
}

// killHost kills a host.
func (w *world) killHost() {
	w.host().kill()
	if w.now < w.end {
		w.after(w.between(5*time.Second, 25*time.Second), w.killHost)
	}
}

func (w *world) host() *simHost { return w.hosts[w.rnd.IntN(len(w.hosts))] }

// name returns a new name.
func (w *world) name() string {
	w.names++
	return fmt.Sprint("holder ", w.names)
}

// submit queues a command.
func (w *world) submit(c *command) {
	if w.down {
		return
	}
	w.pending = append(w.pending, c)
	w.propose()
}

// propose stamps the pending commands and applies them a moment later.
func (w *world) propose() {
	if w.down || w.flying {
		return
	}
	batch := w.pending
	w.pending = nil
	if len(batch) == 0 && !w.tickDue {
		w.tick()
		return
	}
	w.tickDue = false
	w.flying = true
	term := w.term
	buf := fsm.AppendHeader(nil, term, w.stamp(), 0, len(batch))
	for _, c := range batch {
		buf = fsm.AppendCommand(buf, w.wrong.change(c.cmd))
	}
	commits := w.calm || w.chance(0.97)
	w.after(w.between(300*time.Microsecond, 3*time.Millisecond), func() {
		if term != w.term && !commits {
			return
		}
		if term == w.term || commits && w.down {
			w.apply(term, buf, batch)
		}
		if term == w.term && !w.down {
			w.flying = false
			w.propose()
		}
	})
}

// tick has an empty entry proposed when a deadline is due, or in a second.
func (w *world) tick() {
	due, timed := w.table.NextDeadline()
	if !timed {
		return
	}
	at := w.now + min(max(time.Duration(due-w.base)-(w.clock()-w.m0), time.Millisecond), time.Second)
	if w.tickAt != 0 && w.tickAt <= at {
		return
	}
	w.tickAt = at
	w.after(at-w.now, func() {
		if w.tickAt == at {
			w.tickAt, w.tickDue = 0, true
			w.propose()
		}
	})
}

func (w *world) apply(term uint64, buf []byte, batch []*command) {
	w.index++
	if w.chance(0.02) {
		w.index++ // an entry of Raft's own
	}
	a := w.table.Apply(w.index, term, buf)
	w.wrong.applied(&a)
	w.record(a)
	for i, c := range batch {
		if w.down {
			continue // its leader is gone
		}
		res := a.Results[i]
		w.wrong.answer(c.cmd, &res)
		if q, ok := c.cmd.(fsm.Acquire); ok && res.Code == fsm.Queued {
			id := requestID{session: q.ID.Session, sequence: q.ID.Sequence}
			w.waits[id] = append(w.waits[id], c)
			continue
		}
		c.reply(reply{res, a.Index, a.Now})
	}
	for i := range a.Events {
		e := &a.Events[i]
		ids := append([]fsm.RequestID{e.Request}, e.Others...)
		res := e.Result
		switch e.Kind {
		case fsm.EventGranted:
		case fsm.EventTryEnded:
			ids = ids[:1]
			fallthrough
		case fsm.EventWaitEnded:
			res = fsm.Result{Code: e.Code}
		default:
			continue
		}
		for _, id := range ids {
			try := requestID{session: id.Session, sequence: id.Sequence}
			for _, c := range w.waits[try] {
				c.reply(reply{res, a.Index, a.Now})
			}
			delete(w.waits, try)
		}
	}
}

// record records an entry as three nodes apply it, and the state of the locks.
func (w *world) record(a fsm.Applied) {
	a.Results = nil
	w.h.Entries = append(w.h.Entries, Entry{Node: "n0", At: w.now, Applied: a})
	for i := range w.followers {
		w.followers[i] = max(w.followers[i], w.now) + w.between(0, 3*time.Millisecond)
		w.h.Entries = append(w.h.Entries, Entry{Node: fmt.Sprint("n", i+1), At: w.followers[i], Applied: a})
	}
	v := view{from: w.now, index: a.Index, now: a.Now}
	if len(a.Events) == 0 && len(w.views) > 0 {
		v.holders = w.views[len(w.views)-1].holders
	} else {
		v.holders = make(map[string][]uint64)
		for _, l := range w.locks {
			v.holders[l.Lock] = w.wrong.holders(l.Lock)
		}
	}
	w.views = append(w.views, v)
}

// read answers from the leader's table.
func (w *world) read(lock string, answer func(view)) {
	if w.down {
		return
	}
	if len(w.views) == 0 {
		answer(view{})
		return
	}
	answer(w.wrong.view(lock, w.views[len(w.views)-1]))
}

func tokensOf(holders []fsm.Holder) (out []uint64) {
	for _, h := range holders {
		out = append(out, h.Token)
	}
	return out
}
