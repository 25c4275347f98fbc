package fsm

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// What the witness promises of callers: what is an identity's ends by nobody else without
// force, and who was known by an access token takes nothing once none of the name is left.

// witnessedToken is an access token that was put in.
type witnessedToken struct {
	name     string
	deadline Instant // 0: none
}

// rightsChanged notes what a command has done to access tokens. Those whose time has come
// have ended in the entry before the command, unless it was cut.
func (w *witness) rightsChanged(c Command, a Applied) {
	for accessor, t := range w.valid {
		if t.deadline != 0 && t.deadline <= w.now && !a.MoreDue {
			delete(w.valid, accessor)
		}
	}
	if c == nil || a.Results[0].Code != OK {
		return
	}
	switch c := c.(type) {
	case PutAccessToken:
		t := witnessedToken{name: c.Name}
		if c.TTL > 0 {
			t.deadline = later(w.now, c.TTL)
		}
		w.valid[c.Accessor] = t
	case RevokeAccessToken:
		delete(w.valid, c.Accessor)
	}
}

// isNobody says that an owner was known by access tokens of which none is left.
func (w *witness) isNobody(owner string) bool {
	name, ok := strings.CutPrefix(owner, "token:")
	for _, t := range w.valid {
		ok = ok && t.name != name
	}
	return ok
}

// ownerOf is whose a new request is.
func (w *witness) ownerOf(c Acquire) string {
	if c.Detached {
		return c.Owner
	}
	return w.sessions[c.ID.Session].owner
}

// mayTake fails if a request that was granted takes what it must not: of somebody who is
// nobody any more, or in the name of another.
func (w *witness) mayTake(c Command, r *witnessed, waited bool) {
	if w.isNobody(r.owner) && (waited || w.as != nil) && w.ruled {
		w.fail("granted to %+v, and no access token of the name is valid: %+v", r, w.valid)
	}
	if _, asks := c.(Acquire); asks && !waited {
		w.onlyItsOwn(r, "granted to")
	}
}

// onlyItsOwn fails if the command under way comes as somebody and touches what is another
// identity's.
func (w *witness) onlyItsOwn(r *witnessed, did string) {
	if w.as == nil || !modelIdentity(r.owner) || r.owner == w.as.Caller {
		return
	}
	switch w.as.Command.(type) {
	case ForceRelease: // the node asks for the right
	case EndSession: // of a session that is nobody's, in which the other waited
	case Release, Cancel:
		if !w.as.Force {
			w.fail("%s %+v by %+v", did, r, w.as)
		}
	default:
		w.fail("%s %+v by %+v", did, r, w.as)
	}
}

// as notes for whom the command under way runs, and returns it bare.
func (w *witness) unwrap(c Command) Command {
	w.as = nil
	if as, ok := c.(As); ok {
		w.as = &as
		return as.Command
	}
	return c
}

func TestPromisesHoldForCallers(t *testing.T) {
	checkMany(t, 15, func(t *rapid.T) {
		m := newModel() // only to aim at what lives
		gen := newRightsGenerator(rapidSource{t}, m)
		promises(t, gen, func(apply func(Instant, ...Command)) { apply(0, raiseTo(Level)) })
	})
}

// refusedUnseen says that a request was refused for who sent it, and nothing is remembered of
// it: so it must be, where its session is another identity's.
func (w *witness) refusedUnseen(id RequestID, got Result) bool {
	if w.as == nil {
		return false
	}
	if got.Code == Invalid && got.Field == "caller" {
		return true
	}
	s := w.sessions[id.Session]
	if s == nil || !modelIdentity(s.owner) || s.owner == w.as.Caller {
		return false
	}
	if got.Code != NotOwner {
		w.fail("%+v in a session of %q answered %+v", w.as, s.owner, got)
	}
	return true
}
