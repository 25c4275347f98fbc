package history

import (
	"time"

	"github.com/locknode/locknode/fsm"
)

// The faults of a wrong service with detached grants and once IDs.

// remembered is what a correct table knows of an ID.
type remembered struct {
	token uint64 // true, of its last grant
	live  bool
	ended fsm.Instant // cluster time; 0: never, or no caller got it
}

// testGone is Options.Gone in the simulation, where messages take up to 8 s.
const testGone = 20 * time.Second

// gone returns the cluster time at which the last caller of a detached grant was gone. ok is
// false if one was not.
func (w *world) gone(e *fsm.Event) (at fsm.Instant, ok bool) {
	for _, o := range w.ops {
		if o.Kind != Acquire || !o.Detached || o.Request != textOf(e.Request) && (e.Request.Once != (fsm.OnceID{}) || o.Holder != e.Holder) {
			continue
		}
		left := o.Left
		if left == 0 {
			if left = o.Return; o.Outcome == Unknown || o.Outcome == OK {
				return 0, false
			}
		}
		for _, v := range w.views {
			if v.from <= left {
				at, ok = max(at, v.now), true
			}
		}
	}
	return at, ok
}

// scripted delivers another try of an acquire, in a while.
func (x *wrong) scripted(q fsm.Acquire) {
	if x.is("request is forgotten") && q.ID.Once != (fsm.OnceID{}) {
		x.w.after(x.w.between(5*time.Second, 20*time.Second), func() { x.w.host().acquire(q, func(reply) {}) })
	}
}

// changeScript returns the command that the table gets instead of a detached acquire.
func (x *wrong) changeScript(q fsm.Acquire) fsm.Acquire {
	if x.is("one ID is granted twice") && q.ID.Once != (fsm.OnceID{}) && x.w.chance(0.4) {
		q.ID.Once[15] ^= 0xff
	}
	return q
}

// sameOnce returns the ID that a changed one stands for. IDs of clients end with an even byte.
func (x *wrong) sameOnce(e *fsm.Event) {
	if !x.is("one ID is granted twice") {
		return
	}
	if e.Request.Once[15]%2 == 1 {
		e.Request.Once[15] ^= 0xff
	}
}

// asOwner releases a grant as if by its owner.
func (x *wrong) asOwner(q fsm.Release) fsm.Command {
	owner, held := x.owners[q.Token]
	if held && owner != (fsm.SessionID{}) && owner != q.ID.Session {
		x.fired++
		q.ID = fsm.RequestID{Session: owner, Sequence: 1<<50 + uint64(x.fired)}
	}
	return q
}

// takeAll releases the grant of a try, even if other callers know it.
func (x *wrong) takeAll(q fsm.Cancel) fsm.Command {
	for _, o := range x.w.tried {
		if o.id.Session != q.Target.Session || o.id.Sequence != q.Target.Sequence || o.id.Once == (fsm.OnceID{}) {
			continue
		}
		m := x.onces[o.id.Once]
		if m == nil || !m.live {
			return q
		}
		if x.knows[m.token] > 0 {
			x.fired++
		}
		return fsm.Release{ID: q.ID, Token: m.token}
	}
	return q
}

// grantedScript is called for each grant.
func (x *wrong) grantedScript(a *fsm.Applied, e *fsm.Event) {
	if x.owners == nil {
		x.owners, x.onces, x.knows = make(map[uint64]fsm.SessionID), make(map[fsm.OnceID]*remembered), make(map[uint64]int)
	}
	x.owners[e.Token] = e.Session
	if gone, ok := x.w.gone(e); ok && e.Waited > 0 && x.is("wait outlives its owner") && a.Now.Sub(gone) > int64(testGone) {
		x.fired++
	}
	once := e.Request.Once
	if once == (fsm.OnceID{}) {
		return
	}
	m := x.onces[once]
	if m == nil {
		m = &remembered{}
		x.onces[once] = m
	}
	if (x.is("one ID is granted twice") || x.is("request is forgotten")) && (m.live || m.ended > 0 && a.Now.Sub(m.ended) < int64(onceFor)) {
		x.fired++
	}
	*m = remembered{token: e.Token, live: true}
}

// endedScript is called for the end of each grant. One that was released and delivered to no
// caller was given up.
func (x *wrong) endedScript(a *fsm.Applied, e *fsm.Event) {
	delete(x.owners, e.Token)
	m := x.onces[e.Request.Once]
	if m == nil || m.token != e.Token {
		return
	}
	m.live = false
	if e.Kind != fsm.EventReleased || x.called(func(o *Op) bool { return o.Kind == Release && o.Token == x.answered(e.Token) }) {
		m.ended = a.Now
	}
}

// answerScript returns the answer that is sent instead of that to a detached acquire.
func (x *wrong) answerScript(q fsm.Acquire, r *fsm.Result) {
	again := r.Code == fsm.OK && r.Queued > r.Granted && q.ID.Once != (fsm.OnceID{})
	switch {
	case again && x.is("more is answered than is left"):
		r.Queued = r.Granted
		x.fired++
	case again && x.is("refused by its own grant"):
		*r = fsm.Result{Code: fsm.Busy, Holders: []fsm.Holder{{Token: r.Token}}}
		x.fired++
	case r.Code == fsm.NotHeld && r.Token != 0 && x.is("ended grant is answered as held"):
		now := x.w.table.Now()
		*r = fsm.Result{Token: r.Token, Deadline: now + fsm.Instant(q.TTL), Queued: now, Granted: now}
		x.fired++
	}
}
