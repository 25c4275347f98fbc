package history

import (
	"encoding/binary"
	"time"

	"github.com/locknode/locknode/fsm"
)

// simHost is a simulated node as callers without a session see it: it sends their requests in
// a session of its own, cancels those whose callers are gone, and is killed now and then.
type simHost struct {
	w        *world
	id       fsm.SessionID
	sequence uint64
	open     bool
	waiting  []func() // until it is open
}

const hostTTL = 5 * time.Second

// hosted is one try of an acquire that a host has sent.
type hosted struct {
	h        *simHost
	id       fsm.RequestID
	once     bool
	answered bool
	left     bool
}

func newSimHost(w *world) *simHost {
	h := &simHost{w: w}
	h.begin()
	return h
}

// begin opens a new session.
func (h *simHost) begin() {
	binary.LittleEndian.PutUint64(h.id[:], h.w.rnd.Uint64())
	binary.LittleEndian.PutUint64(h.id[8:], h.w.rnd.Uint64()|1)
	h.sequence, h.open = 0, false
	id := h.id
	h.insist(fsm.OpenSession{Session: id, TTL: int64(hostTTL)}, func() bool { return h.id == id && !h.open }, func(r reply) {
		if h.id != id || r.res.Code != fsm.OK {
			return
		}
		h.open = true
		waiting := h.waiting
		h.waiting = nil
		for _, do := range waiting {
			do()
		}
		h.keepAlive(id)
	})
}

// insist submits a command until it is answered, or no longer needed.
func (h *simHost) insist(c fsm.Command, wanted func() bool, answered func(reply)) {
	done := false
	var try func()
	try = func() {
		if done || !wanted() || h.w.now > h.w.end+20*time.Second {
			return
		}
		h.w.submit(&command{c, func(r reply) {
			if !done {
				done = true
				answered(r)
			}
		}})
		h.w.after(700*time.Millisecond, try)
	}
	try()
}

func (h *simHost) keepAlive(id fsm.SessionID) {
	if h.id != id || h.w.now > h.w.end+20*time.Second {
		return
	}
	h.w.submit(&command{fsm.KeepAlive{Sessions: []fsm.KeepAliveSession{{Session: id}}}, func(r reply) {
		if h.id == id && r.res.Alive[0].Deadline == 0 {
			h.begin()
		}
	}})
	h.w.after(hostTTL/3, func() { h.keepAlive(id) })
}

// kill ends the host, and starts a new one in its place.
func (h *simHost) kill() {
	h.waiting = nil
	h.begin()
}

// sign calls do with the ID of the next request, once there is a session for it.
func (h *simHost) sign(do func(fsm.RequestID)) {
	if !h.open {
		h.waiting = append(h.waiting, func() { h.sign(do) })
		return
	}
	h.sequence++
	do(fsm.RequestID{Session: h.id, Sequence: h.sequence})
}

// send sends a request without a session until it is answered.
func (h *simHost) send(c func(fsm.RequestID) fsm.Command, answered func(reply)) {
	h.sign(func(id fsm.RequestID) {
		h.insist(c(id), func() bool { return h.id == id.Session }, answered)
	})
}

// acquire sends a try, and gives it up if its caller is gone.
func (h *simHost) acquire(q fsm.Acquire, answered func(reply)) *hosted {
	t := &hosted{h: h, once: q.ID.Once != fsm.OnceID{}}
	h.sign(func(id fsm.RequestID) {
		if t.left {
			return
		}
		id.Once = q.ID.Once
		t.id, q.ID = id, id
		if t.once {
			h.w.tried = append(h.w.tried, t)
		}
		h.insist(q, func() bool { return h.id == id.Session && !t.left }, func(r reply) {
			if t.left {
				return
			}
			if q.Wait == 0 || r.res.Code != fsm.OK {
				t.answered = true
				answered(r)
				return
			}
			t.confirm(r, q.TTL, answered)
		})
	})
	return t
}

// confirm renews a grant that came out of a wait before it is answered: until then it ends
// with the host's session.
func (t *hosted) confirm(granted reply, ttl int64, answered func(reply)) {
	t.h.send(func(id fsm.RequestID) fsm.Command {
		return fsm.Renew{ID: id, Token: granted.res.Token, TTL: ttl}
	}, func(r reply) {
		if t.left || r.res.Code != fsm.OK {
			return
		}
		t.answered = true
		granted.res.Deadline, granted.index, granted.stamp = r.res.Deadline, r.index, r.stamp
		answered(granted)
	})
}

// leave ends a waiting caller: after a while, in which it could have retried, the try is
// cancelled.
func (t *hosted) leave() {
	t.left = true
	if t.id == (fsm.RequestID{}) || t.answered || t.h.w.wrong.is("wait outlives its owner") {
		return
	}
	keep := time.Duration(0)
	if t.once {
		keep = t.h.w.between(0, 3*time.Second)
	}
	t.h.w.after(keep, func() {
		if t.h.id != t.id.Session {
			return
		}
		t.h.send(func(id fsm.RequestID) fsm.Command {
			return fsm.Cancel{ID: id, Target: fsm.RequestID{Session: t.id.Session, Sequence: t.id.Sequence}}
		}, func(reply) {})
	})
}

// script is a request under one ID, which any caller may use.
type script struct {
	once   fsm.OnceID // zero: none
	wants  []Want
	ttl    time.Duration
	delay  time.Duration
	value  string
	tokens []uint64 // that callers got
}

// detached is a client without a session: it acquires a lock, with or without a once ID, gives
// up early, retries through another host, also what other clients have requested, and after
// the end of the grant.
func (c *simClient) detached(then func()) {
	w := c.w
	s := &script{wants: c.wants(), ttl: w.between(time.Second, 4*time.Second)}
	if w.chance(0.2) {
		s.delay, s.value = w.between(100*time.Millisecond, time.Second), "v"
	}
	switch {
	case w.chance(0.5):
		s.once = c.randomID()
		s.once[15] &^= 1
		w.scripts = append(w.scripts, s)
	case len(w.scripts) > 0 && w.chance(0.8):
		s = w.scripts[max(0, len(w.scripts)-1-w.rnd.IntN(4))]
	}
	left := 1
	if s.once != (fsm.OnceID{}) {
		left += w.rnd.IntN(4)
	}
	c.try(s, left, then)
}

// try sends up to n tries of a script, one after the other.
func (c *simClient) try(s *script, tries int, then func()) {
	w := c.w
	if tries == 0 || w.now > w.end || len(w.ops) >= w.maxOps {
		then()
		return
	}
	o := &Op{
		Client: c.name, Kind: Acquire, Detached: true, Wants: s.wants, TTL: s.ttl, Delay: s.delay, Value: s.value,
		Holder: w.name(), Call: w.now, Return: Never, Outcome: Unknown,
	}
	if w.chance(0.05) && s.once != (fsm.OnceID{}) {
		o.TTL += time.Second // that is another request
	}
	if w.chance(0.5) {
		o.Wait = w.between(0, 3*time.Second)
	}
	if w.wrong.is("wait outlives its owner") {
		o.Wait = w.between(0, 100*time.Second)
		o.TTL *= 3
	}
	q := fsm.Acquire{
		ID: fsm.RequestID{Once: s.once}, Wants: plain(o.Wants), TTL: int64(o.TTL), Delay: int64(o.Delay), Wait: int64(o.Wait), Holder: o.Holder,
		Detached: true,
	}
	if s.value != "" {
		q.Value = []byte(s.value)
	}
	if s.once != (fsm.OnceID{}) {
		o.Request = textOf(q.ID)
	}
	w.ops = append(w.ops, o)
	w.wrong.scripted(q)
	c.ask(o, q, func(r reply, ok bool) {
		if ok && r.res.Code == fsm.OK {
			if w.wrong.knows != nil {
				w.wrong.knows[w.wrong.truth(r.res.Token)]++
			}
			s.tokens = append(s.tokens, r.res.Token)
			c.use(o, s)
		}
		w.after(w.between(0, 2*time.Second), func() { c.try(s, tries-1, then) })
	})
}

// ask sends one try through a host, and gives up after a while.
func (c *simClient) ask(o *Op, q fsm.Acquire, done func(reply, bool)) {
	w := c.w
	over := false
	var t *hosted
	if d, lost := w.delay(); !lost {
		w.after(d, func() {
			t = w.host().acquire(q, func(r reply) {
				if d, lost := w.delay(); !lost {
					w.after(d, func() {
						if over {
							return
						}
						over = true
						o.Return, o.Index, o.Stamp = w.now, r.index, r.stamp
						o.answer(r)
						done(r, true)
					})
				}
			})
			if over {
				t.leave()
			}
		})
	}
	patience := w.between(200*time.Millisecond, 1500*time.Millisecond) + time.Duration(q.Wait)/2
	if w.wrong.is("wait outlives its owner") {
		patience = w.between(200*time.Millisecond, 1500*time.Millisecond)
	}
	w.after(patience, func() {
		if over {
			return
		}
		over, o.Left = true, w.now
		if t != nil {
			t.leave()
		}
		done(reply{}, false)
	})
}

// use renews and releases a grant, perhaps.
func (c *simClient) use(o *Op, s *script) {
	w := c.w
	token := s.tokens[len(s.tokens)-1]
	if w.chance(0.5) {
		k := &Op{Kind: Renew, Wants: named(o.lock()), TTL: w.between(time.Second, 3*time.Second), Token: token}
		w.after(w.between(0, 4*time.Second), func() {
			c.through(k, func(id fsm.RequestID) fsm.Command { return fsm.Renew{ID: id, Token: token, TTL: int64(k.TTL)} }, nil)
		})
	}
	if w.chance(0.6) {
		k := &Op{Kind: Release, Wants: named(o.lock()), Token: token}
		w.after(w.between(0, 4*time.Second), func() {
			c.through(k, func(id fsm.RequestID) fsm.Command { return fsm.Release{ID: id, Token: token} }, nil)
		})
	}
}

// through sends a request without a session through a host.
func (c *simClient) through(o *Op, cmd func(fsm.RequestID) fsm.Command, then func()) {
	w := c.w
	o.Client, o.Call, o.Return, o.Outcome = c.name, w.now, Never, Unknown
	w.ops = append(w.ops, o)
	if then != nil {
		w.after(2*time.Second, then)
	}
	if d, lost := w.delay(); !lost {
		w.after(d, func() {
			w.host().send(cmd, func(r reply) {
				if d, lost := w.delay(); !lost {
					w.after(d, func() {
						o.Return, o.Index, o.Stamp = w.now, r.index, r.stamp
						o.answer(r)
					})
				}
			})
		})
	}
}

// stranger tries to release a grant of another client.
func (c *simClient) stranger(then func()) {
	w := c.w
	var some []*Belief
	for _, b := range w.beliefs {
		if b.Until == Never && b.Client != c.name {
			some = append(some, b)
		}
	}
	if len(some) == 0 {
		then()
		return
	}
	b := some[w.rnd.IntN(len(some))]
	o := &Op{Kind: Release, Wants: named(b.lock()), Token: b.Token}
	c.through(o, func(id fsm.RequestID) fsm.Command { return fsm.Release{ID: id, Token: b.Token} }, then)
}
