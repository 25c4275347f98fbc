package history

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/proof/testall"
)

// TestCorrectHistoriesGiveNoViolation, whatever clients, network and elections do.
//
//	LOCKNODE_HISTORIES=100000 go test ./internal/proof/history -run TestCorrectHistories -timeout 1h
//
// runs more than the usual 1,000.
func TestCorrectHistoriesGiveNoViolation(t *testing.T) {
	n := 1000
	if !testall.On() {
		n = 200
	}
	if s := os.Getenv("LOCKNODE_HISTORIES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 1 {
			t.Fatalf("LOCKNODE_HISTORIES is %q: must be a number from 1", s)
		}
	}
	var sum Stats
	bad := 0
	for seed := range uint64(n) {
		h, _ := simulate(profile{seed: seed, clients: 2 + int(seed%5), locks: 1 + int(seed%3), ops: 150, end: time.Minute, calm: seed%4 == 0, harsh: seed%4 >= 2, resizes: seed%2 == 0})
		r := h.Check(Options{Alone: true, Gone: testGone})
		sum.Ops += r.Stats.Ops
		sum.Unknown += r.Stats.Unknown
		sum.Resolved += r.Stats.Resolved
		sum.Grants += r.Stats.Grants
		sum.Beliefs += r.Stats.Beliefs
		sum.Entries += r.Stats.Entries
		sum.Searched += r.Stats.Searched
		sum.Longest = max(sum.Longest, r.Stats.Longest)
		without := *h
		without.Entries = nil
		for _, v := range append(r.Violations, without.Check(Options{}).Violations...) {
			t.Errorf("seed %d: %+v", seed, v)
			bad++
		}
		if bad > 20 {
			t.Fatal("too many")
		}
	}
	t.Logf("%d histories: %+v", n, sum)
}
