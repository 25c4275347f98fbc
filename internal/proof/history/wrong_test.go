package history

import (
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/proof/testall"
)

// TestEachFaultIsFound: that a check finds nothing has a meaning only if it finds what is wrong.
// Each row switches one fault on and has a promise that must be found broken, in which share
// of the histories in which the fault took effect: with the log, and with the clients' records
// alone.
func TestEachFaultIsFound(t *testing.T) {
	for _, row := range []struct {
		kind     string
		promises string // any of them
		log      float64
		clients  float64 // without the log
	}{
		{"double grant", "S1", 1, 0.9},
		{"token goes back", "S4", 1, 0.5},
		{"too many permits", "S1", 1, 0.5},
		{"stale renew accepted", "S5", 0.8, 0.3},
		{"early expiry", "S2", 1, 0.5},
		{"early expiry of a grant", "S2", 0.9, 0.5},
		{"keep-alive is forgotten", "S2", 1, 0.5},
		{"stamp is too early", "S3", 1, 0},
		{"lost release", "S7", 0.9, 0.5},
		{"acknowledged grant lost", "S7", 1, 0.5},
		{"stale read", "S8", 1, 0.5},
		{"executed twice", "S6", 1, 0},
		{"cancelled waiter is granted", "FIFO", 0.8, 0},
		{"waiter overtakes", "FIFO", 1, 0},
		{"session is opened again", "S6", 0.9, 0},
		{"loss is reported late", "S3", 1, 0.3},
		{"loss is reported too early", "S2", 0.9, 0.9},
		{"digest differs", "S9", 1, 0},
		{"clock runs ahead", "S2", 1, 0.3},
		{"index is not named", "S7", 0.9, 0.9},
		{"wait is cut short", "FIFO", 1, 0},
		{"wait is cancelled by nobody", "FIFO", 0.9, 0},
		{"grant is revoked by nobody", "S5", 1, 0},
		{"session is killed by nobody", "S5", 1, 0},
		{"request is forgotten", "S6", 1, 0},
		{"expiry is recorded as a release", "S5", 1, 0},
		{"delay is skipped", "delay", 1, 0},
		{"loss is sent as a release", "delay", 1, 0},
		{"revocation is forgotten", "S3", 1, 0.5},
		{"waiter is left standing", "FIFO", 1, 0},
		{"more is answered than is left", "S3", 0.9, 0},
		{"ended grant is answered as held", "S6", 0.8, 0},
		{"refused by its own grant", "S6", 0.9, 0},
		{"one ID is granted twice", "S6", 1, 0},
		{"cancel of a try takes what others have", "S5", 1, 0},
		{"stranger releases", "S5", 1, 0},
		{"wait outlives its owner", "FIFO", 1, 0},
		{"resize is forgotten", "S7", 1, 0},
		{"resize comes again", "S6", 1, 0},
		{"resize leaves a waiter that is too wide", "FIFO", 1, 0},
	} {
		t.Run(row.kind, func(t *testing.T) {
			n := 60
			if !testall.On() {
				n = 45
			}
			fired, withLog, byClients, promised := 0, 0, 0, 0
			found := make(map[string]int)
			for seed := range uint64(n) {
				h, times := simulate(profile{seed: seed, clients: 5, locks: 1, ops: 150, end: time.Minute, wrong: row.kind, resizes: strings.Contains(row.kind, "resize")})
				if times == 0 {
					continue
				}
				fired++
				r := h.Check(Options{Alone: true, Gone: testGone})
				hit := false
				for _, v := range r.Violations {
					found[v.Promise+" by "+v.Check]++
					hit = hit || strings.Contains(row.promises, v.Promise)
				}
				if !r.OK() {
					withLog++
				}
				if hit {
					promised++
				}
				h.Entries = nil
				r = h.Check(Options{Alone: true, Gone: testGone})
				for _, v := range r.Violations {
					found[v.Promise+" by "+v.Check+" without log"]++
				}
				if !r.OK() {
					byClients++
				}
			}
			t.Logf("caught / fired: %d / %d with the log (%d as %s), %d / %d without it; %v", withLog, fired, promised, row.promises, byClients, fired, found)
			if fired == 0 {
				t.Fatal("the fault never took effect")
			}
			if share := float64(promised) / float64(fired); share < row.log {
				t.Errorf("found as %s in %.0f %% of the histories, want %.0f %%", row.promises, 100*share, 100*row.log)
			}
			if share := float64(byClients) / float64(fired); share < row.clients {
				t.Errorf("found without the log in %.0f %% of the histories, want %.0f %%", 100*share, 100*row.clients)
			}
		})
	}
}
