package fsm

import (
	"fmt"
	"slices"
	"strings"
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
		if !w.exactlyOnce(c.ID, c, a) {
			w.acquired(c, a)
		}
	case Release:
		kind := EventReleased
		if c.Lost {
			kind = EventExpired
		}
		if !w.exactlyOnce(c.ID, c, a) && got.Code == OK && len(w.grants) >= before && countKind(a, kind) != 1 {
			w.fail("release %+v answered OK and released %d grants", c, countKind(a, kind))
		}
		if got.Code != OK && countKind(a, EventReleased) != 0 {
			w.fail("release answered %d and released something", got.Code)
		}
	case Renew:
		if !w.exactlyOnce(c.ID, c, a) && got.Code == OK {
			w.renewed(c, got)
		}
	case Cancel:
		w.exactlyOnce(c.ID, c, a)
		w.cancelled(c, got)
	case SetValue:
		if !w.exactlyOnce(c.ID, c, a) && got.Code == OK {
			w.shown(c.Token)
		}
	case ForceRelease:
		w.exactlyOnce(c.ID, c, a)
	case Resize:
		if again := w.exactlyOnce(c.ID, c, a); !again && got.Code == OK != (countKind(a, EventResized) == 1) {
			w.fail("%+v answered %d, with the events %+v", c, got.Code, a.Events)
		}
	case Configure:
		if got.Code == OK {
			w.onceNanos = c.Limits.WithDefaults().OnceNanos
		}
	}
}

// acquired checks what another try of a once ID is told, and notes it.
func (w *witness) acquired(c Acquire, a Applied) {
	got := a.Results[0]
	switch {
	case got.Code == Queued && countKind(a, EventQueued) == 0:
		w.joins(c)
	case got.Code == OK && countKind(a, EventGranted) == 0:
		once := w.once[c.ID.Once]
		i := slices.IndexFunc(w.grants, func(r *witnessed) bool { return r.token == got.Token })
		if once == nil || once.token != got.Token || i < 0 || got.Deadline != w.grants[i].floor || got.Queued != w.now {
			w.fail("%+v is told of the grant %+v, of all %+v", c, got, w.grants)
		}
		w.grants[i].unconfirmed, w.grants[i].shared = false, true
	case got.Code == NotHeld:
		if once := w.once[c.ID.Once]; once == nil || once.forget == 0 || once.token != got.Token {
			w.fail("%+v is told that its grant has ended: %+v, have %+v", c, got, once)
		}
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
func (w *witness) alive(id SessionID, deadline Instant) {
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
		w.confirmed(r)
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
	for _, r := range w.grants {
		if r.unconfirmed && len(r.tries) > 1 {
			r.tries = slices.DeleteFunc(slices.Clone(r.tries), func(id RequestID) bool {
				return id.Session == c.Target.Session && id.Sequence == c.Target.Sequence
			})
		}
	}
	if _, came := s.asked[c.Target.Sequence]; !came {
		s.asked[c.Target.Sequence] = ""
	}
}

// exactlyOnce checks S6: a retry changes nothing and gets the first answer. It says
// whether the command was a retry, or was refused without being looked at.
func (w *witness) exactlyOnce(id RequestID, c Command, a Applied) bool {
	w.retried = false
	s := w.sessions[id.Session]
	got := a.Results[0]
	acquire, acquires := c.(Acquire)
	if w.refusedUnseen(id, got) {
		w.retried = true
		return true
	}
	if id.Once != (OnceID{}) && (!acquires || !acquire.Detached) || s == nil && acquires || s != nil && id.Sequence == 0 {
		w.retried = true
		if got.Code == OK || got.Code == Queued {
			w.fail("%+v, whose ID is bad, answered %d", c, got.Code)
		}
		return true
	}
	if s == nil {
		return false
	}
	asked := bareText(c)
	known, again := s.asked[id.Sequence]
	if again && (known == "" && !acquires || known != "" && known != asked) {
		w.retried = true
		if got.Code != Invalid && got.Code != StaleRequest {
			w.fail("%+v answered %d, and its sequence was used for %s", c, got.Code, known)
		}
		return true
	}
	if got.Code == StaleRequest {
		w.retried = true
		return true
	}
	if !again {
		s.asked[id.Sequence] = asked
	}
	overtaken := again && known == "" // by its cancel
	first, again := s.first[id.Sequence]
	if !again {
		s.first[id.Sequence] = got
		if overtaken && got.Code != Cancelled {
			w.fail("%+v answered %d after its cancel", c, got.Code)
		}
		return overtaken
	}
	w.retried = true
	if final, ok := s.final[id.Sequence]; ok && first.Code == Queued {
		first = final
	}
	w.sameAnswer(c, got, first)
	for _, e := range a.Events {
		if e.Kind != EventExpired && e.Kind != EventSessionEnded && e.Kind != EventWaitEnded && e.Kind != EventGranted && e.Kind != EventTryEnded {
			w.fail("retry of %+v did something: %+v", id, e)
		}
	}
	return true
}

// sameAnswer compares the answer to a retry with the first one. What they say of
// others, and of a detached grant, is true now.
func (w *witness) sameAnswer(c Command, got, first Result) {
	acquire, ok := c.(Acquire)
	switch {
	case strings.HasPrefix(got.Field, "quota."):
		first.Detail = got.Detail // only the first one names the policy
	case ok && first.Code == Busy:
		got.Holders, first.Holders = nil, nil
	case ok && acquire.Detached && first.Code == OK:
		i := slices.IndexFunc(w.grants, func(r *witnessed) bool { return r.token == first.Token })
		if i < 0 {
			first = Result{Code: NotHeld, Token: first.Token, Field: got.Field, Detail: got.Detail}
		} else {
			first.Deadline = w.grants[i].floor
		}
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", first) {
		w.fail("retry of %+v answered %+v, first answer %+v", c, got, first)
	}
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

// The promises of the design, checked from outside: exclusion, no early end,
// tokens that grow, only the token's holder, exactly once, deadlines that only
// move forward, first come first served, nobody granted who has left.
func TestPromisesHoldWhateverIsAsked(t *testing.T) {
	checkMany(t, 15, func(t *rapid.T) {
		m := newModel() // only to aim at what lives
		gen := newGenerator(rapidSource{t}, m)
		promises(t, gen, func(apply func(Instant, ...Command)) {
			if gen.oneIn(3, "small limits") {
				apply(0, Configure{Limits: gen.limits()})
			}
		})
	})
}

func promises(t *rapid.T, gen *generator, begin func(apply func(Instant, ...Command))) {
	table := New()
	w := newWitness(failer(t))
	var index uint64
	apply := func(stamp Instant, commands ...Command) {
		index++
		term := 1 + index/20 // leaders come and go
		a := table.Apply(index, term, encode(term, stamp, 0, commands...))
		gen.model.index = index
		gen.model.apply(stamp, 0, commands)
		w.cut = a.MoreDue
		level, _ := table.Level()
		w.ruled = level >= levelOfRights
		var c Command
		if len(commands) > 0 {
			c = commands[0]
		}
		w.see(c, a)
		w.sameHolders(table)
	}
	begin(apply)
	for range gen.pick(150, "commands") + 10 {
		apply(gen.stamp())
		apply(0, gen.command())
	}
}
