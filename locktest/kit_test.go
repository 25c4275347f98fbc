package locktest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/locktest"
)

// TestWrongUseFailsTheTestAndSaysWhatThereIs: a fault that cannot be injected is an error.
func TestWrongUseFailsTheTestAndSaysWhatThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cluster *locktest.Cluster
		use := func(f func()) []string {
			return judged(t, func(j *judge) {
				cluster = cluster.With(j)
				f()
			})
		}
		cluster = locktest.New(t, 3)
		original := cluster
		cluster.Client("worker")
		cluster.Kill("n3")
		for name, c := range map[string]struct {
			do    func()
			words []string
		}{
			"kill":        {func() { cluster.Kill("n4") }, []string{`"n4"`, "n1, n2, n3"}},
			"kill twice":  {func() { cluster.Kill("n3") }, []string{"n3", "does not run"}},
			"kill client": {func() { cluster.KillClient("n1") }, []string{`"n1"`, "worker"}},
			"pause":       {func() { cluster.Pause("wroker") }, []string{`"wroker"`, "n1, n2, n3", "worker"}},
			"pause point": {func() { cluster.PausePoint("wroker") }, []string{`"wroker"`, "worker"}},
			"pause for":   {func() { cluster.PauseFor("wroker", time.Second) }, []string{`"wroker"`, "worker"}},
			"resume":      {func() { cluster.Resume("wroker") }, []string{`"wroker"`, "worker"}},
			"partition":   {func() { cluster.Partition([]string{"n1"}, []string{"n4"}) }, []string{`"n4"`, "n1, n2, n3"}},
			"one group":   {func() { cluster.Partition([]string{"n1"}) }, []string{"at least two"}},
			"isolate":     {func() { cluster.Isolate("n4") }, []string{`"n4"`, "n1, n2, n3"}},
			"cut":         {func() { cluster.Cut("n1", "n4") }, []string{`"n4"`, "n1, n2, n3"}},
			"node":        {func() { cluster.Node("worker") }, []string{`"worker"`, "n1, n2, n3"}},
			"killed node": {func() { cluster.Node("n3") }, []string{`"n3"`, "Restart"}},
			"skew":        {func() { cluster.SkewClock("n4", 1) }, []string{`"n4"`, "n1, n2, n3"}},
			"no rate":     {func() { cluster.SkewClock("n1", -1) }, []string{"-1", "must be more than 0"}},
			"jump":        {func() { cluster.JumpWallClock("worker", time.Hour) }, []string{"n1, n2, n3"}},
			"disk":        {func() { cluster.HangDisk("worker") }, []string{"n1, n2, n3"}},
			"slow disk":   {func() { cluster.SlowDisk("n1", -1) }, []string{"n1", "0 or more"}},
			"drop":        {func() { cluster.DropNextResponse("n1") }, []string{"worker"}},
			"expire":      {func() { cluster.Expire("n1") }, []string{"worker"}},
			"client":      {func() { cluster.Client("n1") }, []string{"n1"}},
			"client name": {func() { cluster.Client("a b") }, []string{"letters"}},
			"options":     {func() { cluster.Client("worker", short()) }, []string{"worker", "first"}},
			"bad option":  {func() { cluster.Client("other", client.SessionTTL(-1)) }, []string{"other", "ttl"}},
			"how many":    {func() { locktest.New(&judge{TB: t}, 10) }, nil},
			"never":       {func() { cluster.Eventually("pigs fly", func() bool { return false }) }, []string{"until pigs fly"}},
		} {
			if failures := use(c.do); c.words != nil && !reports(failures, c.words...) {
				t.Errorf("%s: the kit reports %q, want one with %q", name, failures, c.words)
			}
		}
		original.Restart("n3")
		original.WaitReady()
		if !original.CheckHistory() {
			t.Error("wrong use has changed something")
		}
	})
}

// TestCheckHistoryNamesTheNodeItCannotCompare: it fails if it cannot compare all tables.
func TestCheckHistoryNamesTheNodeItCannotCompare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := locktest.New(t, 3)
		lagging := cluster.Followers()[0]
		cluster.Isolate(lagging)
		must(t, lock(t, cluster.Client("a"), "x").Unlock())
		failures := judged(t, func(j *judge) { cluster.With(j).CheckHistory() })
		if !reports(failures, "cannot be compared", lagging+" at ", "heal") {
			t.Errorf("with %s cut off the kit reports %q", lagging, failures)
		}
		cluster.Heal()
		cluster.CheckHistory()
	})
}

// TestAnUnusedClusterBreaksNoPromise: a test need not have a client.
func TestAnUnusedClusterBreaksNoPromise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if !locktest.New(t, 1).CheckHistory() {
			t.Error("something was found")
		}
	})
}

// TestLatencyWithoutJitterIsExact: a message and its answer take the latency each, every time.
func TestLatencyWithoutJitterIsExact(t *testing.T) {
	const each = 5 * time.Millisecond
	for name, c := range map[string]struct {
		latency, jitter time.Duration
		exact           bool
	}{"none": {each, 0, true}, "some": {each, time.Millisecond, false}, "jitter alone": {0, each, false}} {
		synctest.Test(t, func(t *testing.T) {
			cluster := locktest.New(t, 1, locktest.Latency(c.latency, c.jitter))
			a := cluster.Client("a")
			_ = isLocked(t, a, "x") // connects
			exact := true
			for range 10 {
				begin := time.Now()
				_ = isLocked(t, a, "x")
				took := time.Since(begin)
				exact = exact && took == 2*c.latency
				if took < 2*c.latency || took > 2*(c.latency+c.jitter) {
					t.Errorf("%s: a read took %v, want %v to %v", name, took, 2*c.latency, 2*(c.latency+c.jitter))
				}
			}
			if exact != c.exact {
				t.Errorf("%s: all reads took exactly %v: %v, want %v", name, 2*c.latency, exact, c.exact)
			}
		})
	}
}
