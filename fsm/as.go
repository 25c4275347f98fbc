package fsm

import "strings"

// Whose is what.
//
// A session, a request and a once ID belong to the owner that the command named which made
// them. Where that is an identity, a request that comes as somebody else ([As]) cannot use
// them: not the session's ID, not a detached grant by its token, which is easily guessed,
// and not what is known under the once ID. An owner that is none, an address or a node,
// keeps nobody out: so the sessions pass that nodes hold for callers who have none.
//
// The rules, for a request as a caller:
//
//   - The session that its ID names, that it opens or ends, is of no other identity.
//   - To end, renew or change a detached grant, or to cancel what another's session asked
//     for, the caller is its owner or has force.
//   - What it makes is the caller's: Owner is the caller, where one of the two is an identity.
//   - A once ID of another identity is not joined, and nothing is told of it.
//   - Who was known by an access token, of which none of the name is left, opens no session
//     and acquires nothing; and what still waits for him ends as NotOwner when its turn comes.
//     So a revocation holds from its place in the log on, also for what another
//     node had let in before it heard of it.
//
// A refusal for one of the first rules touches nothing, not even the window of the session.
// Requests without [As] are asked nothing: rights are not enforced where they come from.

// asCaller is for whom the command under way runs.
type asCaller struct {
	set    bool
	force  bool
	caller string
}

// runAs runs the command that an As has, as its caller.
func (t *Table) runAs(d *decoder) Result {
	as := asCaller{set: true, caller: d.string(), force: d.bool()}
	if len(d.buf) == 0 || d.bad || !Kind(d.buf[0]).isRequest() {
		return Result{Code: Malformed}
	}
	if as.caller == "" || !fits(as.caller, maxOwnerBytes) {
		if _, err := decodeCommand(d.buf); err != nil { // not with d itself, which then would be on the heap
			return Result{Code: Malformed}
		}
		return t.refuse(Invalid, badCaller, maxOwnerBytes)
	}
	t.as = as
	res := t.run(d.buf)
	t.as = asCaller{}
	return res
}

// isForeign says that something of an owner is not for the caller under way to use.
func (t *Table) isForeign(o *owner) bool {
	return t.as.set && o.name != t.as.caller && isIdentity(o.name)
}

// isGuarded says that the caller under way may not end or change something of an owner.
func (t *Table) isGuarded(o *owner) bool { return !t.as.force && t.isForeign(o) }

// usesForeignSession says that the session is one that the caller under way may not use.
func (t *Table) usesForeignSession(id SessionID) bool {
	if !t.as.set {
		return false
	}
	s := t.session(id)
	return s != nil && t.isForeign(s.owner)
}

// checkMaker refuses to make something for an owner as somebody else, or for an identity that
// there is no more.
func (t *Table) checkMaker(owner string) (Result, bool) {
	switch {
	case owner != t.as.caller && (isIdentity(owner) || isIdentity(t.as.caller)):
		return t.refuse(NotOwner, otherOwner, 0), false
	case t.isRevoked(t.as.caller):
		return t.refuse(NotOwner, revokedCaller, 0), false
	}
	return Result{}, true
}

// isRevoked says that a caller was known by an access token and none of the name is left.
func (t *Table) isRevoked(caller string) bool {
	name, ok := tokenName(caller)
	return ok && !t.isNamed(name)
}

// tokenName is the name of the access tokens by which a caller is known.
func tokenName(caller string) (name string, ok bool) { return strings.CutPrefix(caller, tokenPrefix) }

// checkAcquirer refuses an acquire that is not for the caller under way to make.
func (t *Table) checkAcquirer(c *Acquire) (Result, bool) {
	if !t.as.set {
		return Result{}, true
	}
	owner := t.as.caller
	if c.Detached {
		owner = c.Owner
	}
	if res, ok := t.checkMaker(owner); !ok {
		return res, false
	}
	if m, ok := t.recordOf(c); ok && t.isForeign(m.owner) {
		return t.refuse(NotOwner, foreignOnce, 0), false
	}
	return Result{}, true
}
