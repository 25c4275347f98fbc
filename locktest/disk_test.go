package locktest_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/locktest"
)

// loseMajority makes two nodes lose their power while the third is cut off. Then it
// takes the lock that another client holds, if the cluster has forgotten that.
func loseMajority(t testing.TB, cluster *locktest.Cluster, lying bool) (forgotten bool) {
	t.Helper()
	a, b := cluster.Client("a", client.SessionTTL(time.Minute)), cluster.Client("b")
	third := cluster.Followers()[0]
	var two []string
	for _, name := range cluster.Nodes() {
		if name != third {
			two = append(two, name)
			cluster.LyingDisk(name, lying)
		}
	}
	lock(t, a, "x")
	time.Sleep(time.Second) // until the third has applied it
	cluster.Kill(third)
	for _, name := range two {
		cluster.LoseUnsynced(name)
		cluster.LyingDisk(name, false)
		cluster.Restart(name)
	}
	cluster.WaitReady()
	for range 10 {
		if _, err := b.TryLock(t.Context(), "x"); err == nil {
			forgotten = true
		} else if !errors.Is(err, client.ErrBusy) {
			t.Fatal(err)
		}
	}
	cluster.Restart(third)
	return forgotten
}

// TestLiesOfAMajorityAreFound: acknowledged writes are lost, and the check reports it.
func TestLiesOfAMajorityAreFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := judged(t, func(t *judge) {
			cluster := locktest.New(t, 3)
			if !loseMajority(t, cluster, true) {
				t.Error("the cluster remembers what its disks have lost")
			}
			time.Sleep(5 * time.Second)
			cluster.CheckHistory()
		})
		for _, text := range failures {
			t.Log(text)
		}
		if !reports(failures, "what was acknowledged survives (S7)") || reports(failures, "remembers") {
			t.Errorf("a majority of lying disks: the kit reports %q", failures)
		}
	})
}

func TestALossOfPowerWithoutALyingDiskLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		if loseMajority(t, cluster, false) {
			t.Error("the cluster has forgotten a lock")
		}
		cluster.WaitReady()
	})
}

// TestLossOfPowerOfAllNodesAtOnce: the grant stays valid, and writes go on.
func TestLossOfPowerOfAllNodesAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		a := cluster.Client("a")
		g := lock(t, a, "x")
		for range 5 {
			for _, name := range cluster.Nodes() {
				cluster.LoseUnsynced(name)
			}
			for _, name := range cluster.Nodes() {
				cluster.Restart(name)
			}
			cluster.WaitReady()
			must(t, g.Err())
			must(t, lock(t, a, "y").Unlock())
		}
		must(t, g.Unlock())
	})
}

// TestAFullDiskStopsItsNodeOnly: its error has the reason, and it can be restarted.
func TestAFullDiskStopsItsNodeOnly(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		c := cluster.Client("a")
		g := lock(t, c, "x")
		full := cluster.Leader()
		n := cluster.Node(full)
		cluster.FailDisk(full, locktest.ErrNoSpace)
		within(t, 2*time.Second, "a lock after the leader's disk was full", func() {
			must(t, g.Unlock())
			g = lock(t, c, "y")
		})
		<-n.Done()
		if !errors.Is(n.Err(), locktest.ErrNoSpace) {
			t.Errorf("the node ended with %v, want what its disk said", n.Err())
		}
		cluster.FailDisk(full, nil)
		cluster.Restart(full)
		cluster.WaitReady()
		must(t, g.Unlock())
	})
}

// TestWaitReadyNamesTheNodeThatEnded at once, also if others are not ready.
func TestWaitReadyNamesTheNodeThatEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := locktest.New(t, 3)
		c := cluster.Client("a")
		broken := cluster.Followers()
		for _, name := range broken {
			cluster.FailDisk(name, locktest.ErrNoSpace)
		}
		waits := func() {
			t.Helper()
			begin := time.Now()
			failures := judged(t, func(j *judge) { cluster.With(j).WaitReady() })
			if took := time.Since(begin); took > time.Second || !reports(failures, `ended by itself`, broken[0], locktest.ErrNoSpace.Error()) {
				t.Errorf("after %v the kit reports %q, want that %s ended because of %v", took, failures, broken[0], locktest.ErrNoSpace)
			}
		}
		go func() { _, _ = c.TryLock(t.Context(), "x") }() // the write that fails
		<-cluster.Node(broken[0]).Done()
		<-cluster.Node(broken[1]).Done()
		waits() // the leader cannot be ready, either
		cluster.FailDisk(broken[1], nil)
		cluster.Restart(broken[1])
		waits()
		cluster.FailDisk(broken[0], nil)
		cluster.Restart(broken[0])
		cluster.WaitReady()
		cluster.CheckHistory()
	})
}

// TestNodeThatEndedForNoReasonFailsTheTest, also if it was restarted since; one
// whose disk the test has failed does not.
func TestNodeThatEndedForNoReasonFailsTheTest(t *testing.T) {
	for _, known := range []bool{true, false} {
		j := &judge{TB: t}
		synctest.Test(t, func(t *testing.T) {
			j.TB = t
			cluster := locktest.New(j, 3)
			name := cluster.Followers()[0]
			if known {
				cluster.FailDisk(name, locktest.ErrNoSpace)
			} else {
				cluster.Break(name, locktest.ErrNoSpace)
			}
			must(t, lock(t, cluster.Client("a"), "x").Unlock())
			<-cluster.Node(name).Done()
			cluster.FailDisk(name, nil)
			cluster.Restart(name)
			cluster.WaitReady()
		})
		if found := reports(j.texts, "ended by itself", locktest.ErrNoSpace.Error()); found == known {
			t.Errorf("a write failed, and the kit knew why: %v; it reports %q", known, j.texts)
		}
	}
}

func TestSlowDisksAreOnlySlow(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		leader := cluster.Leader()
		for _, name := range cluster.Nodes() {
			cluster.SlowDisk(name, 20*time.Millisecond)
		}
		c := cluster.Client("a")
		begin := time.Now()
		for range 20 {
			must(t, lock(t, c, "x").Unlock())
		}
		if took := time.Since(begin); took < 40*20*time.Millisecond || took > 40*25*time.Millisecond {
			t.Errorf("40 writes, each to two disks at the same time that take 20ms, took %v", took)
		}
		if now := cluster.Leader(); now != leader {
			t.Errorf("%s led and %s does: a slow disk is no failed leader", leader, now)
		}
	})
}
