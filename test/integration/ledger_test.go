//go:build unix

package integration

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
)

// claim is a time in which a client took a lock to be held. It is never longer than the
// client's grant was valid: it begins after the acquire has returned, and ends before the last
// check that found the grant valid.
type claim struct {
	lock        string
	token       uint64
	who         string
	asked       time.Time // before the acquire was called
	from, until time.Time
}

// ledger collects claims and finds those that contradict each other.
type ledger struct {
	mu     sync.Mutex // guards claims
	claims []claim
}

// opened begins a claim, right after an acquire has returned.
func opened(g *client.Grant, who string, asked time.Time) *claim {
	now := time.Now()
	return &claim{lock: g.Name(), token: g.Token(), who: who, asked: asked, from: now, until: now}
}

// extend extends the claim if the grant is still valid.
func (c *claim) extend(g *client.Grant) bool {
	now := time.Now() // before the check
	if g.Err() != nil {
		return false
	}
	c.until = now
	return true
}

func (l *ledger) add(c *claim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims = append(l.claims, *c)
}

// contradiction returns an error if two clients took the same lock to be held at the same
// time, or if a token was not greater than all that were given before its request.
func (l *ledger) contradiction() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(append(l.beliefsLocked(), l.tokensLocked()...)...)
}

func (l *ledger) beliefsLocked() (errs []error) {
	byStart := slices.SortedFunc(slices.Values(l.claims), func(a, b claim) int { return a.from.Compare(b.from) })
	last := map[string]claim{} // lock → the claim that ended last
	for _, c := range byStart {
		before, ok := last[c.lock]
		if ok && before.until.After(c.from) {
			errs = append(errs, fmt.Errorf("lock %s: %s held token %d until %v after %s had got token %d",
				c.lock, before.who, before.token, before.until.Sub(c.from), c.who, c.token))
		}
		if ok && c.token <= before.token {
			errs = append(errs, fmt.Errorf("lock %s: %s got token %d after %s had token %d",
				c.lock, c.who, c.token, before.who, before.token))
		}
		if !ok || c.until.After(before.until) {
			last[c.lock] = c
		}
	}
	return errs
}

func (l *ledger) tokensLocked() (errs []error) {
	byAsked := slices.SortedFunc(slices.Values(l.claims), func(a, b claim) int { return a.asked.Compare(b.asked) })
	byFrom := slices.SortedFunc(slices.Values(l.claims), func(a, b claim) int { return a.from.Compare(b.from) })
	var greatest claim // of those that were given before c was asked for
	given := map[uint64]bool{}
	for _, c := range byAsked {
		for len(byFrom) > 0 && byFrom[0].from.Before(c.asked) {
			if byFrom[0].token > greatest.token {
				greatest = byFrom[0]
			}
			byFrom = byFrom[1:]
		}
		if c.token <= greatest.token {
			errs = append(errs, fmt.Errorf("lock %s: %s asked after %s had got token %d of lock %s, and got token %d",
				c.lock, c.who, greatest.who, greatest.token, greatest.lock, c.token))
		}
		if given[c.token] {
			errs = append(errs, fmt.Errorf("lock %s: token %d was given twice", c.lock, c.token))
		}
		given[c.token] = true
	}
	return errs
}

// TestLedgerFindsContradictions, so that it means something if it finds none.
func TestLedgerFindsContradictions(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }
	entry := func(lock string, token uint64, asked, from, until int) claim {
		return claim{lock: lock, token: token, who: "w", asked: at(asked), from: at(from), until: at(until)}
	}
	for _, c := range []struct {
		name   string
		claims []claim
		bad    bool
	}{
		{"one after the other", []claim{entry("a", 1, 0, 1, 5), entry("a", 2, 0, 5, 9)}, false},
		{"side by side on two locks", []claim{entry("a", 2, 0, 1, 5), entry("b", 1, 0, 1, 5)}, false},
		{"overlap", []claim{entry("a", 1, 0, 1, 5), entry("a", 2, 0, 4, 9)}, true},
		{"overlap across another", []claim{entry("a", 1, 0, 1, 9), entry("a", 2, 0, 9, 9), entry("a", 3, 0, 8, 10)}, true},
		{"token of a lock goes back", []claim{entry("a", 2, 0, 1, 5), entry("a", 1, 0, 6, 9)}, true},
		{"token of another lock goes back", []claim{entry("a", 2, 0, 1, 5), entry("b", 1, 2, 3, 5)}, true},
		{"token twice", []claim{entry("a", 1, 0, 1, 5), entry("b", 1, 0, 1, 5)}, true},
	} {
		l := &ledger{claims: c.claims}
		if err := l.contradiction(); (err != nil) != c.bad {
			t.Errorf("%s: contradiction: got %v, want one: %v", c.name, err, c.bad)
		}
	}
}
