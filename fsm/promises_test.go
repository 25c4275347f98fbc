package fsm

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// answered checks what a command's result promises.
func (w *witness) answered(c Command, a Applied, before int) {
	got := a.Results[0]
	switch c := c.(type) {
	case OpenSession:
		if got.Code == OK {
			w.alive(c.Session, got.Deadline)
		}
	case KeepAlive:
		for i, k := range c.Sessions {
			w.alive(k.Session, got.Alive[i].Deadline)
		}
	case Acquire:
		w.once(c.ID, c.kind(), a)
	case Release:
		if !w.once(c.ID, c.kind(), a) && got.Code == OK && len(w.grants) >= before && countKind(a, EventReleased) != 1 {
			w.fail("release %+v answered OK and released %d grants", c, countKind(a, EventReleased))
		}
		if got.Code != OK && countKind(a, EventReleased) != 0 {
			w.fail("release answered %d and released something", got.Code)
		}
	case Renew:
		if !w.once(c.ID, c.kind(), a) && got.Code == OK {
			w.renewed(c, got)
		}
	case Cancel:
		w.once(c.ID, c.kind(), a)
		w.cancelled(c, got)
	case SetValue:
		w.once(c.ID, c.kind(), a)
	case ForceRelease:
		w.once(c.ID, c.kind(), a)
	case Resize:
		if !w.once(c.ID, c.kind(), a) && got.Code == OK {
			w.resized[c.Lock] = c.Limit
		}
	case Recover:
		w.lastToken += 1 << 40
	}
}

// forgetSizes drops the sizes of semaphores that have lost their last user.
func (w *witness) forgetSizes() {
	for lock := range w.resized {
		if !w.inUse(lock) {
			delete(w.resized, lock)
		}
	}
}

func countKind(a Applied, kind EventKind) int {
	n := 0
	for _, e := range a.Events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

func (w *witness) inUse(lock string) bool {
	for _, rs := range [][]*witnessed{w.grants, w.line} {
		for _, r := range rs {
			for _, want := range r.wants {
				if want.Lock == lock {
					return true
				}
			}
		}
	}
	return false
}

// alive checks T6 for a session: its deadline never moves back.
func (w *witness) alive(id SessionID, deadline int64) {
	s := w.sessions[id]
	if (s == nil) != (deadline == 0) {
		w.fail("keep-alive of session %x: deadline %d, open %v", id, deadline, s != nil)
	}
	if s == nil {
		return
	}
	s.floor = max(s.floor, later(w.now, s.ttl))
	if deadline < s.floor || deadline < s.deadline {
		w.fail("session %x: deadline %d after %d, want at least %d", id, deadline, s.deadline, s.floor)
	}
	s.deadline = deadline
}

// renewed checks T6 for a grant, and that only one that is held is renewed.
func (w *witness) renewed(c Renew, got Result) {
	for _, r := range w.grants {
		if r.token != c.Token {
			continue
		}
		if r.floor == 0 {
			return // kept by its session
		}
		r.floor = max(r.floor, later(w.now, c.TTL))
		if got.Deadline != r.floor {
			w.fail("renewed to %d, want %d", got.Deadline, r.floor)
		}
		return
	}
	w.fail("renew of token %d, which is not held, answered OK", c.Token)
}

// cancelled notes that a target of a session must never be granted again.
func (w *witness) cancelled(c Cancel, got Result) {
	s := w.sessions[c.Target.Session]
	if s == nil || got.Code != OK || w.retried {
		return
	}
	s.ended[c.Target.Sequence] = true
	delete(s.first, c.Target.Sequence)
	s.kinds[c.Target.Sequence] = KindAcquire
}

// once checks S6: a retry changes nothing and gets the first answer. It says
// whether the command was a retry, or was refused without being looked at.
func (w *witness) once(id RequestID, kind Kind, a Applied) bool {
	w.retried = false
	s := w.sessions[id.Session]
	got := a.Results[0]
	if s == nil {
		return id.Once != OnceID{} // seen or not: the directed tests look at these
	}
	if known, ok := s.kinds[id.Sequence]; ok && known != kind || id.Once != (OnceID{}) || id.Sequence == 0 {
		w.retried = true
		if got.Code == OK || got.Code == Queued {
			w.fail("%T with the bad ID %+v answered %d", kind, id, got.Code)
		}
		return true
	}
	switch got.Code {
	case NoSession, StaleRequest, OverLimit:
		w.retried = true
		return true
	}
	first, again := s.first[id.Sequence]
	if !again {
		s.first[id.Sequence], s.kinds[id.Sequence] = got, kind
		return false
	}
	w.retried = true
	if final, ok := s.final[id.Sequence]; ok && first.Code == Queued {
		first = final
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", first) {
		w.fail("retry of %+v answered %+v, first answer %+v", id, got, first)
	}
	for _, e := range a.Events {
		if e.Kind != EventExpired && e.Kind != EventSessionEnded && e.Kind != EventWaitEnded && e.Kind != EventGranted {
			w.fail("retry of %+v did something: %+v", id, e)
		}
	}
	return true
}

// sameHolders compares the grants that the witness counted with what the table shows.
func (w *witness) sameHolders(t *Table) {
	want := map[string]int{}
	for _, r := range w.grants {
		for _, h := range r.wants {
			want[h.Lock]++
		}
	}
	for _, name := range genLocks {
		v := t.Lock(name)
		if v.HolderCount != want[name] {
			w.fail("lock %q shows %d holders, %d were granted and not ended", name, v.HolderCount, want[name])
		}
		for _, h := range v.Holders {
			if h.Deadline != 0 && h.Deadline <= w.now && !w.cut {
				w.fail("lock %q is held at %d with deadline %d", name, w.now, h.Deadline)
			}
		}
	}
}

// withoutOnce takes the once ID from commands whose effect the witness could
// not tell from a retry's answer.
func withoutOnce(c Command) Command {
	switch c := c.(type) {
	case Renew:
		c.ID.Once = OnceID{}
		return c
	case Resize:
		c.ID.Once = OnceID{}
		return c
	}
	return c
}

// The promises of the design, checked from outside: exclusion, no early end,
// tokens that grow, only the token's holder, exactly once, deadlines that only
// move forward, first come first served, nobody granted who has left.
func TestPromisesHoldWhateverIsAsked(t *testing.T) {
	checkMany(t, 15, func(t *rapid.T) {
		m := newModel() // only to aim at what lives
		gen := newGenerator(rapidSource{t}, m)
		table := New()
		w := newWitness(failer(t))
		var index uint64
		apply := func(stamp int64, commands ...Command) {
			index++
			term := 1 + index/20 // leaders come and go
			a := table.Apply(index, term, encode(term, stamp, 0, commands...))
			m.apply(stamp, 0, commands)
			w.cut = a.MoreDue
			var c Command
			if len(commands) > 0 {
				c = commands[0]
			}
			w.see(c, a)
			w.sameHolders(table)
		}
		if gen.oneIn(3, "small limits") {
			apply(0, Configure{Limits: gen.limits()})
		}
		for range gen.pick(150, "commands") + 10 {
			apply(gen.stamp())
			apply(0, withoutOnce(gen.command()))
		}
	})
}
