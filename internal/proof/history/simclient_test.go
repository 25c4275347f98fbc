package history

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"time"

	"github.com/locknode/locknode/fsm"
)

// simClient is a simulated client: one session, one operation after the other, grants that it
// holds for a while, and a clock of its own.
type simClient struct {
	w     *world
	name  string
	rate  float64
	ttl   time.Duration
	s     *simSession
	acted int
}

// simSession follows the rules of client.session: what it knows of the cluster's clock, until
// when it is valid, and which grants it takes to be valid.
type simSession struct {
	c        *simClient
	id       fsm.SessionID
	sequence uint64
	offset   float64
	known    bool
	deadline fsm.Instant
	seen     uint64
	over     bool
	silent   bool // its keep-alives are not sent, as on a machine that hangs
	delayed  bool // it has lost a grant with a delay by time: its end would skip that
	grants   map[uint64]*simGrant
	revoked  map[uint64]bool
}

type simGrant struct {
	s        *simSession
	token    uint64
	lock     string
	deadline fsm.Instant // own
	delay    time.Duration
	belief   *Belief
}

func newSimClient(w *world, name string) {
	c := &simClient{w: w, name: name, rate: 1 + simRate*(2*w.rnd.Float64()-1), ttl: w.between(3*time.Second, 6*time.Second)}
	w.after(w.between(0, 100*time.Millisecond), c.open)
}

func (c *simClient) clock() time.Duration { return time.Duration(float64(c.w.now) * c.rate) }

// call sends a command until it is answered or given up, and records it.
func (c *simClient) call(o *Op, cmd fsm.Command, tries int, answered func(reply, bool)) {
	w := c.w
	o.Client, o.Call, o.Return, o.Outcome = c.name, w.now, Never, Unknown
	w.ops = append(w.ops, o)
	if w.harsh && tries > 2 && o.Kind != Cancel {
		tries = 2
	}
	done := false
	answer := func(r reply) {
		if done {
			return
		}
		done = true
		o.Return, o.Index, o.Stamp = w.now, r.index, r.stamp
		o.answer(r)
		answered(r, true)
	}
	patience := w.between(700*time.Millisecond, 1500*time.Millisecond)
	if q, ok := cmd.(fsm.Acquire); ok && q.Wait > 0 {
		patience += time.Duration(q.Wait) / 2
	}
	var try func(n int)
	try = func(n int) {
		if done {
			return
		}
		if n == tries {
			done = true
			answered(reply{}, false)
			return
		}
		if d, lost := w.delay(); !lost {
			w.after(d, func() {
				if w.wrong.refuses(cmd, o.Outcome == OK) {
					return
				}
				w.submit(&command{w.wrong.again(cmd, n), func(r reply) {
					if d, lost := w.delay(); !lost {
						w.after(d, func() { answer(r) })
					}
				}})
			})
		}
		w.after(patience, func() { try(n + 1) })
	}
	try(0)
	w.wrong.copies(cmd, func() bool { return o.Outcome == OK })
}

// answer fills in the result of the table.
func (o *Op) answer(r reply) {
	switch r.res.Code {
	case fsm.OK:
		o.Outcome = OK
	case fsm.Busy:
		o.Outcome = Busy
		o.Holders = tokensOf(r.res.Holders)
		slices.Sort(o.Holders)
		o.Holders = slices.Compact(o.Holders)
	case fsm.TimedOut:
		o.Outcome = TimedOut
	case fsm.NotHeld:
		o.Outcome = NotHeld
	case fsm.NoSession:
		o.Outcome = NoSess
	case fsm.StaleRequest:
		o.Outcome, o.Return = Unknown, Never
	case fsm.Invalid:
		o.Outcome = Invalid
	default:
		o.Outcome = Refused
	}
	if o.Kind == Acquire && o.Outcome == OK {
		o.Token, o.Came = r.res.Token, r.res.Queued
	}
	if (o.Kind == Acquire || o.Kind == Renew) && o.Outcome == OK {
		o.Until = r.res.Deadline
	}
	if o.Kind == ForceRelease && o.Outcome == OK {
		o.Holders = tokensOf(r.res.Holders)
	}
	if o.Kind == KeepAlive && o.Outcome == OK && r.res.Alive[0].Deadline == 0 {
		o.Outcome = NoSess
	}
}

func (c *simClient) randomID() (id [16]byte) {
	binary.LittleEndian.PutUint64(id[:], c.w.rnd.Uint64())
	binary.LittleEndian.PutUint64(id[8:], c.w.rnd.Uint64()|1)
	return id
}

func (c *simClient) open() {
	s := &simSession{c: c, id: c.randomID(), grants: make(map[uint64]*simGrant), revoked: make(map[uint64]bool)}
	c.s = s
	sent := c.clock()
	o := &Op{Kind: Open, Session: s.name(), TTL: c.ttl}
	c.call(o, fsm.OpenSession{Session: s.id, TTL: int64(c.ttl)}, 20, func(r reply, ok bool) {
		if !ok || r.res.Code != fsm.OK {
			c.next(c.open)
			return
		}
		s.learn(sent, r.res.Deadline, r.stamp)
		s.keepAlive()
		c.next(c.act)
	})
}

func (s *simSession) name() string { return hex.EncodeToString(s.id[:]) }

func (c *simClient) next(do func()) {
	if c.w.now > c.w.end || len(c.w.ops) >= c.w.maxOps {
		return
	}
	c.w.after(c.w.between(0, 400*time.Millisecond), do)
}

func (s *simSession) learn(sent time.Duration, deadline, stamp fsm.Instant) {
	offset := float64(sent) - float64(stamp)*0.99
	if !s.known || offset > s.offset {
		s.offset, s.known = offset, true
	}
	s.deadline = max(s.deadline, deadline)
}

// bound returns until when, in real time, the client relies on a deadline.
func (s *simSession) bound(deadline fsm.Instant) time.Duration {
	at := s.offset + float64(deadline)*0.99 - float64(10*time.Millisecond)
	return s.c.w.wrong.bound(time.Duration(at / s.c.rate))
}

func (s *simSession) keepAlive() {
	c := s.c
	if s.over || c.w.now > c.w.end || len(c.w.ops) >= c.w.maxOps {
		return
	}
	c.w.after(c.ttl/3, s.keepAlive)
	if s.silent {
		return
	}
	sent := c.clock()
	o := &Op{Kind: KeepAlive, Session: s.name()}
	k := fsm.KeepAliveSession{Session: s.id, RevocationsSeen: s.seen}
	c.call(o, fsm.KeepAlive{Sessions: []fsm.KeepAliveSession{k}}, 1, func(r reply, ok bool) {
		if !ok || s.over {
			return
		}
		alive := r.res.Alive[0]
		if alive.Deadline == 0 {
			s.lose(LostExpired)
			s.over = true
			return
		}
		s.learn(sent, alive.Deadline, r.stamp)
		for _, v := range alive.Revocations {
			s.seen = max(s.seen, v.Number)
			if c.w.wrong.forgets(v.Token) {
				continue
			}
			s.revoked[v.Token] = true
			if g := s.grants[v.Token]; g != nil {
				g.lose(LostForced)
			}
		}
	})
}

// lose ends all beliefs.
func (s *simSession) lose(why string) {
	for _, token := range sortedTokens(s.grants) {
		s.grants[token].lose(why)
	}
}

func sortedTokens(m map[uint64]*simGrant) (tokens []uint64) {
	for t := range m {
		tokens = append(tokens, t)
	}
	slices.Sort(tokens)
	return tokens
}

func (g *simGrant) lose(why string) {
	g.belief.Until, g.belief.Lost = g.s.c.w.now, why
	delete(g.s.grants, g.token)
}

func (g *simGrant) until() time.Duration {
	until := g.s.bound(g.s.deadline)
	if g.deadline != 0 {
		until = min(until, g.s.bound(g.deadline))
	}
	return until
}

// watch ends the belief when its time is over.
func (g *simGrant) watch() {
	if g.s.grants[g.token] != g {
		return
	}
	w := g.s.c.w
	if left := g.until() - w.now; left > 0 {
		w.after(left, g.watch)
		return
	}
	why := LostDeadline
	if g.deadline != 0 && g.s.bound(g.deadline) <= w.now {
		why = LostExpired
	}
	g.lose(why)
	g.s.delayed = g.s.delayed || g.delay > 0
	if why == LostDeadline {
		g.s.c.giveBack(g.s, g.token, g.lock, !w.wrong.is("loss is sent as a release"))
	}
}

// act runs one operation after the other.
func (c *simClient) act() {
	c.acted++
	w, s := c.w, c.s
	if s.over {
		c.open()
		return
	}
	again := func() { c.next(c.act) }
	switch p := w.rnd.Float64(); {
	case w.resizes && p < 0.04:
		c.resize(again)
	case p < 0.50:
		c.acquire(0, again)
	case p < 0.65:
		c.acquire(w.between(time.Millisecond, 3*time.Second), again)
	case p < 0.80:
		c.get(again)
	case p < 0.88:
		c.detached(again)
	case p < 0.90:
		c.force(again)
	case p < 0.91:
		c.stranger(again)
	case p < 0.94 && !w.calm:
		s.silent = true
		w.after(w.between(0, 2*c.ttl), func() { s.silent = false })
		again()
	case p < 0.96:
		c.close(again)
	default:
		c.acquire(-1, again)
	}
}

func (s *simSession) sign() fsm.RequestID {
	s.sequence++
	return fsm.RequestID{Session: s.id, Sequence: s.sequence}
}

func textOf(id fsm.RequestID) string {
	return requestID{session: id.Session, sequence: id.Sequence, once: id.Once}.String()
}

// wants picks one lock, sometimes two.
func (c *simClient) wants() []Want {
	w := c.w
	pick := func() Want {
		l := w.locks[w.rnd.IntN(len(w.locks))]
		if w.chance(0.5) {
			l = w.locks[0]
		}
		if l.Mode == fsm.Shared && w.chance(0.4) {
			l.Mode = fsm.Exclusive
		}
		if l.Mode == fsm.Permits {
			l.Permits = 1 + uint32(w.rnd.IntN(2))
		}
		return l
	}
	first := pick()
	if second := pick(); second.Lock != first.Lock && w.chance(0.1) {
		return []Want{first, second}
	}
	return []Want{first}
}

func plain(in []Want) (out []fsm.Want) {
	for _, l := range in {
		out = append(out, fsm.Want(l))
	}
	return out
}

func (c *simClient) acquire(wait time.Duration, then func()) {
	w, s := c.w, c.s
	q := fsm.Acquire{ID: s.sign(), Wait: int64(wait)}
	o := &Op{Kind: Acquire, Session: s.name(), Request: textOf(q.ID), Wants: c.wants(), Wait: wait}
	q.Wants = plain(o.Wants)
	if w.chance(0.2) {
		o.TTL = w.between(1*time.Second, 4*time.Second)
		q.TTL = int64(o.TTL)
	}
	if w.chance(0.15) {
		o.Delay = w.between(100*time.Millisecond, 2*time.Second)
		q.Delay = int64(o.Delay)
	}
	tries := 6
	if wait < 0 {
		tries = 3 // and then it gives up
	}
	sent := c.clock()
	c.call(o, q, tries, func(r reply, ok bool) {
		defer then()
		switch {
		case !ok:
			c.cancel(s, q.ID)
		case r.res.Code == fsm.NoSession:
			s.lose(LostExpired)
			s.over = true
		case r.res.Code == fsm.OK:
			c.hold(s, o, sent, r)
		}
	})
}

// hold takes a grant to be valid, if it is not too late, and releases it later.
func (c *simClient) hold(s *simSession, o *Op, sent time.Duration, r reply) {
	w := c.w
	g := &simGrant{s: s, token: r.res.Token, lock: o.lock(), deadline: r.res.Deadline, delay: o.Delay}
	if g.deadline != 0 {
		s.learn(sent, 0, r.res.Queued)
	}
	if s.over || g.until() <= w.now {
		c.release(s, g.token, g.lock)
		return
	}
	if s.revoked[g.token] {
		return
	}
	g.belief = &Belief{Client: c.name, Wants: o.Wants, Token: g.token, From: w.now, Until: Never}
	w.beliefs = append(w.beliefs, g.belief)
	s.grants[g.token] = g
	g.watch()
	held := w.between(0, 500*time.Millisecond)
	if w.chance(0.2) {
		held = w.between(0, 2*c.ttl)
	}
	w.after(held, func() {
		if s.grants[g.token] == g {
			g.belief.Until = w.now
			delete(s.grants, g.token)
			c.release(s, g.token, g.lock)
		}
	})
}

func (c *simClient) release(s *simSession, token uint64, lock string) {
	c.giveBack(s, token, lock, false)
}

// giveBack releases a grant; lost: by the client's clock it is no longer valid.
func (c *simClient) giveBack(s *simSession, token uint64, lock string, lost bool) {
	if s.over {
		return
	}
	id := s.sign()
	o := &Op{Kind: Release, Session: s.name(), Request: textOf(id), Wants: named(lock), Token: token, Lost: lost}
	c.call(o, fsm.Release{ID: id, Token: token, Lost: lost}, 8, func(reply, bool) {})
}

func (c *simClient) cancel(s *simSession, target fsm.RequestID) {
	if s.over {
		return
	}
	id := s.sign()
	o := &Op{Kind: Cancel, Session: s.name(), Request: textOf(id), Target: textOf(target)}
	c.call(o, fsm.Cancel{ID: id, Target: target}, 10, func(reply, bool) {})
}

func (c *simClient) get(then func()) {
	w := c.w
	l := w.locks[w.rnd.IntN(len(w.locks))]
	o := &Op{Kind: Get, Wants: named(l.Lock), Client: c.name, Call: w.now, Return: Never, Outcome: Unknown}
	if w.chance(0.1) {
		o.Stale = time.Second
	}
	w.ops = append(w.ops, o)
	w.after(time.Second, then)
	d, lost := w.delay()
	if lost {
		return
	}
	w.after(d, func() {
		w.read(l.Lock, func(v view) {
			d, lost := w.delay()
			if lost {
				return
			}
			w.after(d, func() {
				o.Return, o.Outcome, o.Index, o.Stamp = w.now, OK, v.index, v.now
				o.Holders = slices.Clone(v.holders[l.Lock])
				slices.Sort(o.Holders)
			})
		})
	})
}

func (c *simClient) force(then func()) {
	w := c.w
	lock := w.locks[w.rnd.IntN(len(w.locks))].Lock
	c.through(&Op{Kind: ForceRelease, Wants: named(lock)}, func(id fsm.RequestID) fsm.Command {
		return fsm.ForceRelease{ID: id, Lock: lock}
	}, then)
}

// resize changes the size of the semaphore; other clients use the new one once it is answered.
func (c *simClient) resize(then func()) {
	w := c.w
	i := slices.IndexFunc(w.locks, func(l Want) bool { return l.Mode == fsm.Permits })
	size := 2 + uint32(w.rnd.IntN(4)) // of which each request is for at most 2
	o := &Op{Kind: Resize, Wants: []Want{{Lock: w.locks[i].Lock, Mode: fsm.Permits, Limit: size}}}
	c.through(o, func(id fsm.RequestID) fsm.Command {
		return fsm.Resize{ID: id, Lock: o.lock(), Limit: size}
	}, then)
	w.after(w.between(0, 3*time.Second), func() {
		if o.Outcome == OK {
			w.locks[i].Limit = size
		}
	})
}

// close ends the session and opens another.
func (c *simClient) close(then func()) {
	s := c.s
	s.lose(LostClosed)
	s.over = true
	if s.delayed && !c.w.wrong.is("loss is sent as a release") {
		then()
		return
	}
	o := &Op{Kind: End, Session: s.name()}
	c.call(o, fsm.EndSession{Session: s.id}, 5, func(reply, bool) { then() })
}
