package fsm

import (
	"bytes"
	"strings"
)

// The access tokens in the table. One ends when it is revoked or when its time has come, as
// everything ends here: by cluster time, in an entry of the log.

const (
	maxAccessor = 32
	// maxIdentityName leaves room for the longest prefix of an identity in an owner.
	maxIdentityName = maxOwnerBytes - len(tokenPrefix)
	// maxAccessTTL is the longest that an access token can be valid that has an end.
	maxAccessTTL = 3660 * nanosPerDay
)

// accessToken is an access token in the table. It is never changed.
type accessToken struct {
	AccessToken
	number uint64 // of the sessions' and requests' numbers; orders what ends at the same time
	timer  int32  // slot in Table.deadlines; 0: it has no deadline
}

// nameKey orders access tokens by their names, and those of one name by their accessors.
type nameKey struct{ name, accessor string }

func compareNames(a, b nameKey) int {
	if c := strings.Compare(a.name, b.name); c != 0 {
		return c
	}
	return strings.Compare(a.accessor, b.accessor)
}

func compareHashes(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) }

func (t *Table) putAccessToken(c *PutAccessToken) Result {
	if res, bad := t.checkAccessToken(c); bad {
		return res
	}
	_, known := t.accessTokens.get(c.Accessor)
	if _, same := t.hashes.get(c.Hash); known || same {
		return t.refuse(Invalid, tokenExists, 0)
	}
	a := &accessToken{AccessToken: AccessToken{
		Accessor: c.Accessor, Hash: c.Hash, Name: c.Name, Labels: c.Labels, MadeBy: c.MadeBy, MadeAt: c.MadeAt,
	}}
	if t.accessTokens.len >= t.limits.AccessTokens {
		return t.refuse(OverLimit, fullAccessTokens, int64(t.limits.AccessTokens))
	}
	if res, ok := t.roomForRights(a.costOf()); !ok {
		return res
	}
	if c.TTL != 0 {
		a.Deadline = t.now.Add(c.TTL)
	}
	a.number = t.nextNumber()
	t.enterAccessToken(a)
	t.rightsChanged()
	return Result{Deadline: a.Deadline}
}

func (t *Table) checkAccessToken(c *PutAccessToken) (Result, bool) {
	switch {
	case c.Accessor == "" || !fits(c.Accessor, maxAccessor):
		return t.refuse(Invalid, badAccessor, maxAccessor), true
	case c.Hash == ([32]byte{}):
		return t.refuse(Invalid, noHash, 0), true
	case c.Name == "" || !fits(c.Name, maxIdentityName):
		return t.refuse(Invalid, badTokenName, int64(maxIdentityName)), true
	case !fits(c.MadeBy, maxOwnerBytes):
		return t.refuse(Invalid, badMadeBy, maxOwnerBytes), true
	case c.TTL < 0 || c.TTL > maxAccessTTL:
		return t.refuse(Invalid, badTokenTTL, maxAccessTTL), true
	}
	if why, arg := t.checkLabels(c.Labels); why != noReason {
		return t.refuse(Invalid, why, arg), true
	}
	return Result{}, false
}

// enterAccessToken puts an access token into the table and into what follows from it.
func (t *Table) enterAccessToken(a *accessToken) {
	if a.Deadline != 0 {
		a.timer = t.deadlines.add(a.Deadline, a.number, &target{accessor: a.Accessor})
	}
	t.accessTokens.put(a.Accessor, a)
	t.hashes.put(a.Hash, a)
	t.named.put(nameKey{a.Name, a.Accessor}, a)
	t.chargeRights(a.costOf())
}

func (t *Table) revokeAccessToken(c *RevokeAccessToken) Result {
	a, ok := t.accessTokens.get(c.Accessor)
	if !ok {
		return t.refuse(NotHeld, noAccessToken, 0)
	}
	t.endAccessToken(a)
	return Result{}
}

// endAccessToken takes an access token out: it was revoked, or its time has come.
func (t *Table) endAccessToken(a *accessToken) {
	t.deadlines.remove(a.timer)
	t.accessTokens.delete(a.Accessor)
	t.hashes.delete(a.Hash)
	t.named.delete(nameKey{a.Name, a.Accessor})
	t.chargeRights(-a.costOf())
	t.rightsChanged()
}

// rightsChanged notes that access tokens or policies are not what they were.
func (t *Table) rightsChanged() { t.rightsIndex = t.applying }

// namedTokens walks the access tokens of a name, in the order of their accessors.
func (t *Table) namedTokens(name string) func(func(*accessToken) bool) {
	return func(yield func(*accessToken) bool) {
		for key, a := range t.named.from(nameKey{name: name}) {
			if key.name != name || !yield(a) {
				return
			}
		}
	}
}

// isNamed says that an access token of the name is there.
func (t *Table) isNamed(name string) bool {
	for range t.namedTokens(name) {
		return true
	}
	return false
}
