package sim

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestFalseWordsInGossip: whatever a stranger says of nodes, locks are given, nobody is
// removed, and clients are led to no other place.
func TestFalseWordsInGossip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Options{})
		cl := mustClient(t, c, "a")
		c.Mislead()
		longest := gaps(t, c, cl, func() {
			time.Sleep(12 * time.Second)
			for _, err := range c.Misled(t.Context()) {
				t.Error(err)
			}
		})
		if longest > anElection {
			t.Errorf("no lock was given for %v", longest)
		}
	})
}
