package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
)

// Nodes on file systems of the kernel that are full or frozen. These tests need root, and are
// skipped where nothing can be mounted.

// mount mounts something until the test ends; the nodes on it must have ended by
// then.
func mount(t *testing.T, what string, args ...string) {
	t.Helper()
	point := args[len(args)-1]
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		t.Skipf("left out: %s cannot be mounted here: %v: %s", what, err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", point).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", point, err, out)
		}
	})
}

// startOnTmpfs starts three nodes, each on a small file system in memory.
func startOnTmpfs(t *testing.T, size string, args ...string) *proc.Cluster {
	t.Helper()
	dir := t.TempDir()
	for _, id := range []string{"n1", "n2", "n3"} {
		point := filepath.Join(dir, id)
		must(t, os.Mkdir(point, 0o700))
		mount(t, "tmpfs", "-t", "tmpfs", "-o", "size="+size, "locknode-test", point)
	}
	return startClusterIn(t, dir, 3, args...)
}

// fill uses up the free space of a node's disk until the returned function is called.
func fill(t *testing.T, n *proc.Node) (free func()) {
	t.Helper()
	path := filepath.Join(n.Dir, "ballast")
	f, err := os.Create(path)
	must(t, err)
	block := bytes.Repeat([]byte{1}, 4<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk of %s: %v", n.ID, err)
	}
	must(t, f.Close())
	return func() { must(t, os.Remove(path)) }
}

// writer changes the value of a lock, as often as it can, and remembers the last
// value that was acknowledged.
type writer struct {
	grant *client.Grant
	limit time.Duration // for one write
	acked int
}

// write writes until stop returns true or a write fails.
func (w *writer) write(t *testing.T, stop func() bool) error {
	t.Helper()
	pad := strings.Repeat("x", 3<<10) // so that a disk is soon full
	for !stop() {
		next := w.acked + 1
		if err := w.grant.SetValue(within(t, w.limit), fmt.Appendf(nil, "%d %s", next, pad)); err != nil {
			return err
		}
		w.acked = next
	}
	return nil
}

// check requires the last acknowledged value, or the one that was on its way.
func (w *writer) check(t *testing.T, watch *client.Client) {
	t.Helper()
	h := holder(t, watch, w.grant.Name())
	var value int
	if _, err := fmt.Sscanf(string(h.Value), "%d", &value); err != nil {
		t.Fatalf("the value is %.20q: %v", h.Value, err)
	}
	if h.Token != w.grant.Token() || value != w.acked && value != w.acked+1 {
		t.Errorf("held with token %d and value %d, want token %d and value %d, which was acknowledged", h.Token, value, w.grant.Token(), w.acked)
	}
}

const diskFull = "no space left on device"

func ended(n *proc.Node) bool {
	select {
	case <-n.Exited():
		return true
	default:
		return false
	}
}

func TestNodeWhoseDiskIsFullStopsAndComesBackWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	slow(t, "disks that fill up")
	for _, leads := range []bool{true, false} {
		for store, size := range map[string]string{"boltdb": "8m", "wal": "40m"} {
			t.Run(fmt.Sprintf("leader=%v/%s", leads, store), func(t *testing.T) {
				t.Parallel()
				c := startOnTmpfs(t, size, "--log-store", store)
				victim := followersOf(t, c)[0]
				if leads {
					victim = leaderOf(t, c)
				}
				watch := dial(t, c.Endpoints())
				w := writer{grant: lock(t, dial(t, c.Endpoints()), "written"), limit: patience}
				free := fill(t, victim)
				must(t, w.write(t, func() bool { return ended(victim) })) // the client notices nothing
				refused(t, victim, "storage has failed", diskFull)
				otherLeader(t, c, victim)
				last := w.acked
				must(t, w.write(t, func() bool { return w.acked >= last+20 }))
				w.check(t, watch)

				free()
				start(t, victim)
				w.check(t, watch)
				must(t, w.grant.Unlock())
				agree(t, c)
			})
		}
	}
}

// With all disks full nothing more is acknowledged, and nothing that was acknowledged is lost.
func TestNothingIsLostWhenAllDisksAreFull(t *testing.T) {
	t.Parallel()
	slow(t, "disks that fill up")
	for store, size := range map[string]string{"boltdb": "8m", "wal": "40m"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			c := startOnTmpfs(t, size, "--log-store", store)
			w := writer{grant: lock(t, dial(t, c.Endpoints()), "written", client.TTL(time.Hour)), limit: 10 * time.Second}
			// When the disks are full, the first write may fail already.
			must(t, w.write(t, func() bool { return w.acked == 10 }))
			var free []func()
			for _, n := range c.Nodes() {
				free = append(free, fill(t, n))
			}
			if err := w.write(t, func() bool { return false }); err == nil {
				t.Fatal("writes succeed with full disks")
			}
			full := 0
			eventually(t, "a majority has ended", func() bool {
				full = 0
				for _, n := range c.Nodes() {
					if ended(n) {
						full++
					}
				}
				return full >= 2
			})
			for i, n := range c.Nodes() {
				if ended(n) {
					refused(t, n, diskFull)
				} else {
					kill(t, n)
				}
				free[i]()
			}
			start(t, c.Nodes()...)
			watch := dial(t, c.Endpoints())
			w.check(t, watch)
			lock(t, watch, "new")
			agree(t, c)
		})
	}
}

// A frozen file system holds every write in the kernel, where no signal reaches it.
func TestLeaderOnAFrozenFileSystemIsDeposed(t *testing.T) {
	t.Parallel()
	slow(t, "a disk that hangs")
	dir := t.TempDir()
	for _, id := range []string{"n1", "n2", "n3"} {
		image, point := filepath.Join(dir, id+".img"), filepath.Join(dir, id)
		must(t, os.Mkdir(point, 0o700))
		must(t, os.WriteFile(image, nil, 0o600))
		must(t, os.Truncate(image, 64<<20))
		if out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput(); err != nil {
			t.Skipf("left out: no ext4 can be made here: %v: %s", err, out)
		}
		mount(t, "a loop device", "-o", "loop", image, point)
	}
	c := startClusterIn(t, dir, 3)
	l := startLoad(t, c, patience)
	const limit = 2 * time.Second
	var took time.Duration
	for try := 0; try == 0 || took > limit && try < 3; try++ {
		l.progress(t, 50)
		old := leaderOf(t, c)
		thaw := freeze(t, old.Dir)
		took = otherLeader(t, c, old)
		l.progress(t, 50)
		thaw()
		must(t, old.WaitReady(within(t, patience)))
		agree(t, c)
	}
	t.Logf("another node led after %v", took)
	if took > limit && !raceDetector {
		t.Errorf("leadership moved after %v, want %v", took, limit)
	}
	l.finish(t)
	agree(t, c)
}

// freeze freezes a file system; whatever happens it is thawed in time.
func freeze(t *testing.T, point string) (thaw func()) {
	t.Helper()
	if out, err := exec.Command("fsfreeze", "-f", point).CombinedOutput(); err != nil {
		t.Skipf("left out: %s cannot be frozen: %v: %s", point, err, out)
	}
	frozen := true
	thaw = func() {
		if frozen {
			frozen = false
			if out, err := exec.Command("fsfreeze", "-u", point).CombinedOutput(); err != nil {
				t.Errorf("thaw %s: %v: %s", point, err, out)
			}
		}
	}
	t.Cleanup(thaw)
	return thaw
}
