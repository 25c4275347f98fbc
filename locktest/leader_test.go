package locktest_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/locktest"
)

func TestALockIsHeldWhenTheLeaderIsKilled(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		a, b := cluster.Client("a"), cluster.Client("b")
		g := lock(t, a, "x")
		killed := cluster.KillLeader()
		var busy *client.BusyError
		within(t, time.Second, "the next answer after the leader was killed", func() {
			if _, err := b.TryLock(t.Context(), "x"); !errors.As(err, &busy) || busy.Holders[0].Token != g.Token() {
				t.Errorf("TryLock: %v, want that a holds it with token %d", err, g.Token())
			}
		})
		time.Sleep(time.Minute)
		must(t, g.Err())
		cluster.Restart(killed)
		cluster.WaitReady()
		must(t, g.Unlock())
	})
}

func TestWaitersKeepTheirPlacesWhenTheLeaderIsKilled(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		names := []string{"a", "b", "c", "d"}
		g := lock(t, cluster.Client("holder"), "x")
		got := make(chan string, len(names))
		for i, name := range names {
			c := cluster.Client(name)
			go func() {
				g, err := c.Lock(t.Context(), "x")
				if err != nil {
					t.Error(name, err)
				}
				got <- name
				_ = g.Unlock()
			}()
			waiting(t, cluster, cluster.Client("observer"), "x", i+1)
		}
		cluster.KillLeader()
		must(t, g.Unlock())
		var order []string
		for range names {
			order = append(order, <-got)
		}
		if !slices.Equal(order, names) {
			t.Errorf("served in the order %q, want %q", order, names)
		}
	})
}

// TestAHungDiskMovesLeadership: the node reports the reason, the others elect a leader,
// and clients do not return to it.
func TestAHungDiskMovesLeadership(t *testing.T) {
	for seed := range uint64(5) {
		bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
			c := cluster.Client("a")
			g := lock(t, c, "x")
			hung := cluster.Leader()
			cluster.HangDisk(hung)
			begin := cluster.Now()
			unlocked := make(chan error)
			go func() { unlocked <- g.Unlock() }() // the write that hangs
			cluster.Eventually("the node reports that its disk hangs", func() bool {
				return strings.Contains(cluster.Node(hung).Status().NotReadyReason, "disk is stalled")
			})
			reported := cluster.Now() - begin
			cluster.Eventually("another node leads", func() bool { return cluster.Leader() != hung })
			moved := cluster.Now() - begin
			must(t, <-unlocked)
			g = lock(t, c, "x")
			served := cluster.Now() - begin
			t.Logf("the disk of the leader hung: reported after %v, another leads after %v, a client was served after %v", reported, moved, served)
			// A client leaves a node that has been silent for two seconds, and then finds another.
			if reported > 1100*time.Millisecond || moved > 2*time.Second || served > 3*time.Second {
				t.Error("want 1.1s, 2s and 3s at most")
			}
			cluster.ReleaseDisk(hung)
			cluster.WaitReady()
			must(t, g.Unlock())
		}, locktest.Seed(seed))
	}
}

// TestOneWayCutsDoNotStopTheCluster: the leader receives and cannot send, then
// sends and cannot receive.
func TestOneWayCutsDoNotStopTheCluster(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		c := cluster.Client("a")
		for _, mute := range []bool{true, false} {
			leader := cluster.Leader()
			for _, f := range cluster.Followers() {
				if mute {
					cluster.Cut(leader, f)
				} else {
					cluster.Cut(f, leader)
				}
			}
			within(t, 5*time.Second, "a lock and an unlock while the leader is cut off one way", func() {
				must(t, lock(t, c, "x").Unlock())
			})
			cluster.Heal()
			cluster.WaitReady()
		}
	})
}

// TestTwoOfThreeKilledAndBack: without a majority no lock is granted and none is
// lost; with it, all goes on.
func TestTwoOfThreeKilledAndBack(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		a, b := cluster.Client("a", client.SessionTTL(time.Minute)), cluster.Client("b")
		g := lock(t, a, "x")
		killed := cluster.Nodes()[:2]
		for _, name := range killed {
			cluster.Kill(name)
		}
		if _, err := b.Lock(t.Context(), "y", client.Wait(5*time.Second)); !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("Lock without a majority: %v, want ErrUnavailable", err)
		}
		for _, name := range killed {
			cluster.Restart(name)
		}
		cluster.WaitReady()
		must(t, g.Err())
		must(t, lock(t, b, "y").Unlock())
		must(t, g.Unlock())
		must(t, lock(t, b, "x").Unlock())
	})
}

// TestAFollowerThatHasOnlyASnapshotLeads: one that was down for longer than the
// log reaches back has holders, waiters and sessions.
func TestAFollowerThatHasOnlyASnapshotLeads(t *testing.T) {
	const away = "n2"
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		a, b := cluster.Client("a"), cluster.Client("b")
		if cluster.Leader() == away {
			_, err := a.TransferLeadership(t.Context(), "n1")
			must(t, err)
		}
		cluster.Kill(away)
		held := lock(t, a, "x")
		next := make(chan *client.Grant, 1)
		go func() {
			g, err := b.Lock(t.Context(), "x")
			if err != nil {
				t.Error(err)
			}
			next <- g
		}()
		waiting(t, cluster, a, "x", 1)
		for range 300 {
			must(t, lock(t, a, "y").Unlock())
		}
		time.Sleep(time.Minute) // nodes check only now and then whether a snapshot is due
		before := len(cluster.History().Entries)
		cluster.Restart(away)
		cluster.WaitReady()
		leader, err := a.TransferLeadership(t.Context(), away)
		must(t, err)
		applied := 0
		for _, e := range cluster.History().Entries[before:] {
			if e.Node == away {
				applied++
			}
		}
		if leader != away || applied > 300 {
			t.Fatalf("%s leads, and %s has applied %d entries since its return: it has not come back by a snapshot", leader, away, applied)
		}
		must(t, held.Err())
		must(t, held.Unlock())
		must(t, (<-next).Unlock())
	}, locktest.SnapshotEvery(50))
}
