package fsm

import (
	"fmt"
	"strings"
	"testing"
)

// shares are the limits that owners share, and how one owner asks for one more of each.
// Each is set to limit, the others are far away.
var shares = []struct {
	field  string
	limits func(limit int) Limits
	ask    func(c *sharers, owner string) Result
}{
	{"sessions", func(n int) Limits { return Limits{Sessions: n} }, (*sharers).opens},
	{"ended_remembered", func(n int) Limits { return Limits{EndedRemembered: n} }, (*sharers).opensAndEnds},
	{"grants", func(n int) Limits { return Limits{Grants: n} }, func(c *sharers, owner string) Result {
		return c.acquires(owner, Acquire{Wants: exclusive(c.name()), TTL: 3600 * second})
	}},
	{"once_remembered", func(n int) Limits { return Limits{OnceRemembered: n} }, func(c *sharers, owner string) Result {
		a := Acquire{Wants: exclusive(c.name()), TTL: second}
		a.ID.Once = OnceID{byte(c.used >> 8), byte(c.used), 1}
		return c.acquires(owner, a)
	}},
	{"waiters", func(n int) Limits { return Limits{Waiters: n} }, func(c *sharers, owner string) Result {
		name := c.name()
		c.acquires("holder", Acquire{Wants: exclusive(name), TTL: 3600 * second})
		return c.acquires(owner, Acquire{Wants: exclusive(name), TTL: second, Wait: 3600 * second})
	}},
	{"waiters_per_lock", func(n int) Limits { return Limits{WaitersPerLock: n} }, func(c *sharers, owner string) Result {
		c.acquires("holder", Acquire{Wants: exclusive("one"), TTL: 3600 * second})
		return c.acquires(owner, Acquire{Wants: exclusive("one"), TTL: second, Wait: 3600 * second})
	}},
}

// sharers is a table of which several owners take what they get.
type sharers struct {
	*bench
	used int
}

func newSharers(t *testing.T, limits Limits) *sharers {
	s := &sharers{bench: &bench{T: t, table: New(), term: 1}}
	s.want(s.one(0, OpenSession{Session: host, TTL: hostTTL, Owner: "node"}), OK)
	s.want(s.one(0, Configure{Limits: limits}), OK)
	return s
}

func (s *sharers) name() string {
	s.used++
	return fmt.Sprint("l", s.used)
}

func (s *sharers) opens(owner string) Result {
	s.used++
	return s.one(0, OpenSession{Session: SessionID{byte(s.used >> 8), byte(s.used), 2}, TTL: 3600 * second, Owner: owner})
}

func (s *sharers) opensAndEnds(owner string) Result {
	r := s.opens(owner)
	if r.Code == OK {
		s.want(s.one(0, EndSession{Session: SessionID{byte(s.used >> 8), byte(s.used), 2}}), OK)
	}
	return r
}

// acquires asks without a session of the owner's own, as a node does for its callers.
func (s *sharers) acquires(owner string, a Acquire) Result {
	s.used++
	a.ID.Session, a.ID.Sequence, a.ID.Acked = host, uint64(s.used), uint64(s.used-1)
	a.Detached, a.Owner = true, owner
	return s.one(0, a)
}

// take has an owner take until it is refused, and returns how many it got.
func (s *sharers) take(field string, ask func(*sharers, string) Result, owner string) int {
	for n := range 1000 {
		r := ask(s, owner)
		if r.Code == OK || r.Code == Queued {
			continue
		}
		if r.Code != OverLimit || r.Field != field || !strings.Contains(r.Detail, "locknode sessions ls") {
			s.Fatalf("%q is refused with %+v, want a full share of %s and what helps", owner, r, field)
		}
		return n
	}
	s.Fatalf("%q is never refused", owner)
	return 0
}

// One owner gets at most half of each limit however often it asks, the next one half of the
// rest, and so on; after a restart the same as before.
func TestOneOwnerCannotTakeWhatOthersNeed(t *testing.T) {
	const limit = 64
	for _, share := range shares {
		t.Run(share.field, func(t *testing.T) {
			s := newSharers(t, share.limits(limit))
			greedy := s.take(share.field, share.ask, "10.0.0.1")
			if greedy > limit/2 || greedy < limit/2-2 {
				t.Errorf("one owner got %d of %d, want half", greedy, limit)
			}
			s.reload()
			if more := s.take(share.field, share.ask, "10.0.0.1"); more != 0 {
				t.Errorf("after a restart it got %d more", more)
			}
			for i, least := range []int{limit/4 - 2, limit/8 - 2, limit/16 - 2} {
				if n := s.take(share.field, share.ask, fmt.Sprint("10.0.1.", i)); n < least {
					t.Errorf("owner %d got %d after it, want %d at least", i, n, least)
				}
			}
			if err := s.table.check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What an owner gives back it may have again, and nothing is kept of one that has nothing.
func TestOwnerThatGivesBackMayHaveAgain(t *testing.T) {
	s := newSharers(t, Limits{Grants: 8})
	var tokens []uint64
	for range 4 {
		r := s.want(s.acquires("a", Acquire{Wants: exclusive(s.name()), TTL: 3600 * second}), OK)
		tokens = append(tokens, r.Token)
	}
	s.want(s.acquires("a", Acquire{Wants: exclusive("x"), TTL: second}), OverLimit)
	s.want(s.one(0, Release{Token: tokens[0]}), OK)
	s.want(s.acquires("a", Acquire{Wants: exclusive("x"), TTL: 3600 * second}), OK)
	if count, top := s.table.Owners(1); count != 2 || len(top) != 1 || top[0].Owner != "a" || top[0].Grants != 4 {
		t.Errorf("owners: %d, first %+v, want 2, and a with 4 grants", count, top)
	}
	tokens = nil
	for _, r := range s.table.requests.all() {
		tokens = append(tokens, r.token)
	}
	for _, token := range tokens {
		s.want(s.one(0, Release{Token: token}), OK)
	}
	if count, top := s.table.Owners(9); count != 1 || top[0].Owner != "node" {
		t.Errorf("owners: %d, %+v, want node alone", count, top)
	}
}

// Nothing is taken away from who has more than its share when a limit is lowered, and all
// that frees or keeps alive goes on.
func TestShareTakesNothingAway(t *testing.T) {
	s := newSharers(t, Limits{})
	r := s.want(s.acquires("a", Acquire{Wants: exclusive("x"), TTL: 30 * second}), OK)
	s.want(s.acquires("a", Acquire{Wants: exclusive("x"), TTL: 30 * second, Wait: 60 * second}), Queued)
	s.want(s.one(0, Configure{Limits: Limits{Grants: 1, Waiters: 1, WaitersPerLock: 1, Sessions: 1, EndedRemembered: 1, OnceRemembered: 1}}), OK)
	s.want(s.one(1, Renew{Token: r.Token, TTL: 30 * second}), OK)
	s.want(s.one(2, KeepAlive{Sessions: []KeepAliveSession{{Session: host}}}), OK)
	a := s.at(3, Release{Token: r.Token})
	if countKind(a, EventGranted) != 1 {
		t.Errorf("the waiter is not granted: %+v", a.Events)
	}
	s.want(s.one(4, EndSession{Session: host}), OK)
}

// The answer that says what helps is the same when it is asked for again, also after a
// restart.
func TestRefusedShareIsRemembered(t *testing.T) {
	s := newSharers(t, Limits{Grants: 1})
	s.want(s.acquires("a", Acquire{Wants: exclusive("x"), TTL: 30 * second}), OK)
	again := Acquire{Wants: exclusive("y"), TTL: 30 * second}
	first := s.want(s.acquires("a", again), OverLimit)
	again.ID, again.Detached, again.Owner = RequestID{Session: host, Sequence: uint64(s.used)}, true, "from elsewhere"
	for range 2 {
		if r := s.want(s.one(0, again), OverLimit); r.Detail != first.Detail {
			t.Errorf("copy is told %q, want %q", r.Detail, first.Detail)
		}
		s.reload()
	}
}
