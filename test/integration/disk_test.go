//go:build unix

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/faultdisk"
	"github.com/locknode/locknode/internal/proof/proc"
)

// Nodes on disks that fail, hang, fill up, lose power and lie. The disks are those
// of the module test/fuse, which is built first; where that fails, or
// nothing can be mounted, these tests are skipped.

var (
	formations    = flag.Int("formations", 4, "how often power is lost while a cluster forms")
	moments       = flag.Int("moments", 8, "at how many operations power is lost, of the first 400 if there are fewer")
	momentSeed    = flag.Uint64("moment-seed", 0, "the seed that chooses them")
	formationSeed = flag.Uint64("formation-seed", 0, "the seed of the first of them")
)

// allMoments is about how many operations a node needs to start and to give the
// first locks.
const allMoments = 400

// faultfs is the program of the disks.
var faultfs struct {
	once sync.Once
	path string
	err  error
}

func buildFaultfs() (string, error) {
	faultfs.once.Do(func() {
		faultfs.path = filepath.Join(filepath.Dir(program), "faultfs")
		build := exec.Command("go", "build", "-C", filepath.Join("..", "fuse"), "-o", faultfs.path, "./cmd/faultfs")
		if out, err := build.CombinedOutput(); err != nil {
			faultfs.err = fmt.Errorf("build faultfs: %w: %s", err, out)
		}
	})
	return faultfs.path, faultfs.err
}

// disks are the disks of a cluster's nodes, by the node's ID.
type disks map[string]*faultdisk.Disk

// startOnDisks starts three nodes, each on a disk of its own.
func startOnDisks(t *testing.T, args ...string) (*proc.Cluster, disks) {
	t.Helper()
	return startSomeOnDisks(t, 3, args...)
}

func startSomeOnDisks(t *testing.T, nodes int, args ...string) (*proc.Cluster, disks) {
	t.Helper()
	slow(t, "real disks that are broken")
	binary, err := buildFaultfs()
	if err != nil {
		t.Skip(err)
	}
	dir, all := t.TempDir(), disks{}
	for i := range nodes {
		id := fmt.Sprint("n", i+1)
		root, mount := filepath.Join(dir, "below", id), filepath.Join(dir, id)
		must(t, os.MkdirAll(root, 0o700))
		must(t, os.Mkdir(mount, 0o700))
		d, err := faultdisk.Start(within(t, patience), binary, root, mount)
		if errors.Is(err, faultdisk.ErrUnavailable) {
			t.Skip(err)
		}
		must(t, err)
		t.Cleanup(func() { // after the nodes have been killed
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		all[id] = d
	}
	return startClusterIn(t, dir, nodes, args...), all
}

// do sends a command to the disk of each node, and returns the answer of the last one.
func (d disks) do(t *testing.T, command string, nodes ...*proc.Node) (said string) {
	t.Helper()
	for _, n := range nodes {
		var err error
		said, err = d[n.ID].Do(command)
		must(t, err)
	}
	return said
}

// losePower kills nodes, and drops from their disks what was not synced.
func (d disks) losePower(t *testing.T, command string, nodes ...*proc.Node) {
	t.Helper()
	kill(t, nodes...)
	d.losePowerOf(t, command, nodes...)
}

// losePowerOf does the same for nodes that do not run.
func (d disks) losePowerOf(t *testing.T, command string, nodes ...*proc.Node) {
	t.Helper()
	for _, n := range nodes {
		t.Logf("%s lost: %s", n.ID, d.do(t, command, n))
	}
}

// diskStats is a part of the status of a disk.
type diskStats struct {
	Failed  map[string]int `json:"failed"`
	Hanging int            `json:"hanging"`
	Lied    int            `json:"lied"`
}

func (d disks) stats(t *testing.T, n *proc.Node) (s diskStats) {
	t.Helper()
	must(t, json.Unmarshal([]byte(d.do(t, "stats", n)), &s))
	return s
}

// otherLeader waits until a node other than this one leads, and returns how long
// that took.
func otherLeader(t *testing.T, c *proc.Cluster, old *proc.Node) time.Duration {
	t.Helper()
	began := time.Now()
	eventually(t, "another node leads", func() bool {
		for _, n := range c.Running() { // not through the old one, which may be slow to answer
			if n != old && status(t, n).GetState() == "leader" {
				return true
			}
		}
		return false
	})
	return time.Since(began)
}

// The first write or sync that fails is the last one, because the kernel may report success
// for the next one although data are lost. The node ends with the reason, the others go on.
func TestNodeWhoseDiskFailsStopsForGoodAndTheOthersGoOn(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct {
		command string
		says    string
		lasts   bool // so that the node cannot start before it is repaired
	}{
		"one fsync":  {command: "fail fsync EIO 1", says: "input/output error"},
		"every sync": {command: "fail fsync EIO", says: "input/output error", lasts: true},
		"disk full":  {command: "fail write ENOSPC", says: "no space left on device", lasts: true},
	} {
		for _, store := range stores {
			t.Run(name+"/"+store, func(t *testing.T) {
				t.Parallel()
				c, d := startOnDisks(t, "--log-store", store)
				l := startLoad(t, c, patience)
				l.progress(t, 100)
				leader := leaderOf(t, c)
				l.newGap()
				d.do(t, fault.command, leader)
				refused(t, leader, fault.says)
				l.progress(t, 100)
				const limit = 5 * time.Second // it takes half a second on an idle machine
				if gap := l.newGap(); gap > limit && !raceDetector {
					t.Errorf("no cycle ended for %v, want an election within about a second", gap)
				} else {
					t.Logf("no cycle ended for %v", gap)
				}
				if fault.lasts {
					must(t, leader.Start())
					refused(t, leader, fault.says)
				}
				// What the failed sync did not write is gone after a loss of power.
				d.do(t, "clear", leader)
				d.do(t, "powerloss", leader)
				start(t, leader)
				l.progress(t, 100)
				l.finish(t)
				agree(t, c)
			})
		}
	}
}

// A leader whose disk hangs is deposed. When the disk answers again, the operations that were
// in flight have no effect.
func TestLeaderWhoseDiskHangsIsDeposedAndFollowsLater(t *testing.T) {
	t.Parallel()
	c, d := startOnDisks(t)
	l := startLoad(t, c, patience)
	watch := dial(t, c.Endpoints())
	const hang = 5 * time.Second
	limit := 2 * time.Second
	if raceDetector { // which makes a stall and an election take longer
		limit = patience
	}
	var took []time.Duration
	for len(took) == 0 || took[len(took)-1] > limit && len(took) < 3 {
		l.progress(t, 100)
		old := leaderOf(t, c)
		l.newGap()
		began := time.Now()
		d.do(t, "hang fsync", old)
		took = append(took, otherLeader(t, c, old))
		l.progress(t, 20)
		gap := l.newGap()

		// The old leader grants nothing, and answers no read.
		name := fmt.Sprintf("%s/%d", t.Name(), len(took))
		g := lock(t, watch, name)
		read, try := connect(t, old.HTTP()), connect(t, old.HTTP())
		read.send(t, "GET", "/v1/locks/"+name, "")
		try.send(t, "POST", "/v1/acquire", fmt.Sprintf(`{"name":%q,"ttl":"1m"}`, name))
		if d.stats(t, old).Hanging == 0 {
			t.Error("nothing hangs")
		}
		time.Sleep(time.Until(began.Add(hang))) // the length of the fault, not waiting for anything
		d.do(t, "release", old)
		if a := read.answer(t); a.status == 200 {
			if got := answered[lockView](t, a, 200); !got.Held || got.Holders[0].Token != g.Token() {
				t.Errorf("the deposed leader answers %+v, want it held with token %d", got, g.Token())
			}
		}
		if a := try.answer(t); a.status == 200 {
			t.Errorf("the deposed leader gave the lock a second time: %s", a.body)
		}
		heldWith(t, watch, name, g.Token())
		t.Logf("another node led after %v; no cycle ended for %v", took[len(took)-1], gap)
		must(t, old.WaitReady(within(t, patience)))
		agree(t, c)
		if s := status(t, old); s.GetState() != "follower" {
			t.Errorf("the node whose disk hung is a %s, want a follower", s.GetState())
		}
	}
	if took[len(took)-1] > limit {
		t.Errorf("leadership moved after %v, want %v", took, limit)
	}
	l.finish(t)
}

// All machines lose power at once, under load: nothing that was acknowledged is lost, and
// nothing has expired early.
func TestNothingAcknowledgedIsLostWhenAllNodesLosePower(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, store string) {
		c, d := startOnDisks(t, "--log-store", store)
		l := startLoad(t, c, patience)
		watch := dial(t, c.Endpoints())
		long, err := watch.Detached().Acquire(t.Context(), "long", time.Hour)
		must(t, err)
		for round, command := range []string{"powerloss", "powerloss torn 1", "powerloss", "powerloss torn 2"} {
			l.progress(t, 60)
			const ttl = 2 * time.Second
			name := fmt.Sprint("brief/", round)
			asked := time.Now()
			brief, err := watch.Detached().Acquire(t.Context(), name, ttl)
			must(t, err)
			before, at := remaining(t, watch, "long"), time.Now()

			d.losePower(t, command, c.Nodes()...)
			dead := time.Now()
			start(t, c.Nodes()...)
			after := remaining(t, watch, "long")
			t.Logf("locks again after %v", time.Since(dead).Round(time.Millisecond))

			if spent, passed := before-after, time.Since(at); spent < 0 || spent > passed+passed/100 {
				t.Errorf("%v of the TTL were spent in %v", spent, passed)
			}
			heldWith(t, watch, "long", long.Token)
			if now := lock(t, watch, fmt.Sprint("new/", round)).Token(); now <= brief.Token {
				t.Errorf("a new token is %d, want more than %d", now, brief.Token)
			}
			var free time.Time
			eventually(t, "the lock with the short TTL is free", func() bool {
				locked, err := watch.IsLocked(within(t, patience), name)
				free = time.Now()
				return err == nil && !locked
			})
			if lived := free.Sub(asked); lived < ttl*99/100 {
				t.Errorf("acquired for %v and free after %v", ttl, lived)
			}
		}
		l.finish(t)
		agree(t, c)
	})
}

// wipe makes disks empty, durably.
func (d disks) wipe(t *testing.T, nodes ...*proc.Node) {
	t.Helper()
	for _, n := range nodes {
		entries, err := os.ReadDir(n.Dir)
		must(t, err)
		for _, e := range entries {
			must(t, os.RemoveAll(filepath.Join(n.Dir, e.Name())))
		}
		dir, err := os.Open(n.Dir)
		must(t, err)
		must(t, errors.Join(dir.Sync(), dir.Close()))
	}
}

// Power is lost while three new nodes find each other, at any moment of their first run. They
// must be able to go on from what is left.
func TestClusterThatLosesPowerWhileItFormsIsFormedLater(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, store string) {
		c, d := startOnDisks(t, "--log-store", store)
		kill(t, c.Nodes()...)
		for round := range *formations {
			d.wipe(t, c.Nodes()...)
			for _, n := range c.Nodes() {
				must(t, n.Start())
			}
			seed := *formationSeed + uint64(round)
			after := time.Duration(rand.New(rand.NewPCG(seed, 0)).Int64N(int64(time.Second)))
			time.Sleep(after) // the moment of the fault, not waiting for anything
			command := "powerloss"
			if round%2 == 1 {
				command = fmt.Sprint("powerloss torn ", seed)
			}
			d.losePower(t, command, c.Nodes()...)
			for _, n := range c.Nodes() {
				must(t, n.Start())
			}
			for _, n := range c.Nodes() {
				if err := n.WaitReady(within(t, patience)); err != nil {
					t.Fatalf("round %d, %s after %v: %v", round, command, after, err)
				}
			}
			must(t, lock(t, dial(t, c.Endpoints()), "formed").Unlock())
			kill(t, c.Nodes()...)
		}
	})
}

// Power is lost at each operation of a node on its disk, from the first one on: the node must
// start again, with everything that it had acknowledged until then.
func TestNodeSurvivesPowerLossAtEachOperationOnItsDisk(t *testing.T) {
	t.Parallel()
	forEachStore(t, func(t *testing.T, store string) {
		c, d := startSomeOnDisks(t, 1, "--log-store", store)
		n := c.Node("n1")
		kill(t, n)
		rng := rand.New(rand.NewPCG(*momentSeed, 0))
		for i := range *moments {
			moment, command := i, "powerloss"
			if *moments < allMoments {
				moment = rng.IntN(allMoments)
			}
			if rng.IntN(2) == 0 {
				command = fmt.Sprint("powerloss torn ", rng.Uint32())
			}
			d.wipe(t, n)
			d.do(t, fmt.Sprint("hang any ", moment), n)
			must(t, n.Start())
			watch, held := untilItHangs(t, c, d)
			d.losePower(t, command, n)
			d.do(t, "clear", n)
			must(t, n.Start())
			if err := n.WaitReady(within(t, patience)); err != nil {
				t.Fatalf("%s at operation %d: %v", command, moment, err)
			}
			if lost := gone(t, watch, held); len(lost) > 0 {
				t.Fatalf("%s at operation %d: acknowledged and lost: %v", command, moment, lost)
			}
			_ = watch.Close() // not earlier: it would wait for the cluster
			kill(t, n)
		}
	})
}

// untilItHangs acquires locks until the disk of the only node hangs. It returns
// the tokens of those that were acknowledged.
func untilItHangs(t *testing.T, c *proc.Cluster, d disks) (*client.Client, map[string]uint64) {
	t.Helper()
	ctx, cancel := context.WithCancel(within(t, patience))
	watch, err := client.Dial(ctx, c.Endpoints())
	must(t, err)
	acquired := make(chan map[string]uint64)
	go func() {
		tokens := map[string]uint64{}
		for i := 0; ; i++ {
			g, err := watch.Detached().Acquire(ctx, fmt.Sprint("held/", i), time.Hour)
			if err != nil {
				acquired <- tokens
				return
			}
			tokens[g.Name] = g.Token
		}
	}()
	eventually(t, "the disk hangs", func() bool { return d.stats(t, c.Node("n1")).Hanging > 0 })
	cancel()
	return watch, <-acquired
}
