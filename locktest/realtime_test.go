package locktest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/locktest"
)

// TestTheKitWorksInRealTime: outside a bubble everything is the same, and takes real time.
func TestTheKitWorksInRealTime(t *testing.T) {
	cluster := locktest.New(t, 3, locktest.Timing(500*time.Millisecond)) // ample, for a busy machine
	a, b := cluster.Client("a"), cluster.Client("b")
	g := lock(t, a, "x")
	if _, err := b.TryLock(t.Context(), "x"); !errors.Is(err, client.ErrBusy) {
		t.Errorf("TryLock of a lock that is held: %v, want ErrBusy", err)
	}
	killed := cluster.KillLeader()
	must(t, g.Unlock())
	must(t, lock(t, b, "x").Unlock())
	cluster.Restart(killed)
	cluster.WaitReady()
	cluster.CheckHistory()
}
