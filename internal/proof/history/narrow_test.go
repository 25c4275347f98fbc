package history

import (
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/locknode/locknode/internal/proof/testall"
)

// TestNarrowedSearchDecidesAsThePlainOne, for correct and wrong histories that are short enough
// for both. Cut into parts, which know less of earlier times, it may find less and never more.
func TestNarrowedSearchDecidesAsThePlainOne(t *testing.T) {
	kinds := []string{"", "", "double grant", "token goes back", "stale renew accepted", "early expiry", "early expiry of a grant",
		"keep-alive is forgotten", "lost release", "acknowledged grant lost", "stale read", "executed twice", "clock runs ahead"}
	n := 400
	if !testall.On() {
		n = 60
	}
	cut := 0
	verdicts := make(map[porcupine.CheckResult]int)
	for seed := range uint64(n) {
		kind := kinds[seed%uint64(len(kinds))]
		h, _ := simulate(profile{
			seed: seed, clients: 2 + int(seed%4), locks: 1, ops: 60, end: 30 * time.Second, harsh: seed%2 == 0, wrong: kind,
		})
		if seed%3 > 0 {
			h.Entries = nil
		}
		c := newChecker(h, Options{})
		c.gather()
		for lock, moves := range c.moves() {
			if slices.ContainsFunc(moves, func(m *move) bool { return m.returned < m.call }) {
				continue
			}
			plain := porcupine.CheckOperationsTimeout(c.model(state{}), operations(moves), 2*time.Second)
			if plain == porcupine.Unknown {
				continue
			}
			verdicts[plain]++
			if got := c.narrowed(moves, len(moves)); got != plain {
				t.Errorf("seed %d, %q, %s: the narrowed search says %s, the plain one %s", seed, kind, lock, got, plain)
			}
			if got := c.narrowed(moves, 3); got != plain {
				cut++
				if plain == porcupine.Ok {
					t.Errorf("seed %d, %q, %s: cut into parts it is %s, as a whole it is correct", seed, kind, lock, got)
				}
			}
		}
	}
	t.Logf("%v; cut into the smallest parts, %d of the wrong ones pass", verdicts, cut)
	if verdicts[porcupine.Ok] < n/2 || verdicts[porcupine.Illegal] < n/20 {
		t.Errorf("verdicts are %v: too few of one kind to compare", verdicts)
	}
}

// narrowed returns what searchLock decides, with parts of a size.
func (c *checker) narrowed(moves []*move, size int) porcupine.CheckResult {
	if m, _ := c.tighten(moves); m != nil {
		return porcupine.Illegal
	}
	for _, w := range c.cut(prune(moves), size) {
		if r := porcupine.CheckOperationsTimeout(c.model(w.begin), operations(w.moves), 10*time.Second); r != porcupine.Ok {
			return r
		}
	}
	return porcupine.Ok
}
