package locktest

import (
	"errors"
	"fmt"
	"time"

	"github.com/locknode/locknode/internal/proof/simdisk"
)

// disk injects a fault into the disk of a node, and records it.
func (c *Cluster) disk(name, what string, do func(*simdisk.Disk)) {
	c.t.Helper()
	c.checkNode(name)
	d, err := c.sim.Disk(name)
	c.fatal(err)
	do(d)
	c.sim.Recorder().Fault(what+" of "+name, c.Now(), 0)
}

// SlowDisk makes each write of a node take that long; zero ends it.
func (c *Cluster) SlowDisk(name string, each time.Duration) {
	c.t.Helper()
	if each < 0 {
		c.t.Fatalf("locktest: slow disk of %q: time of a write: is %v, must be 0 or more", name, each)
	}
	c.disk(name, fmt.Sprintf("writes take %v on the disk", each), func(d *simdisk.Disk) { d.Slow(each) })
}

// HangDisk makes the writes of a node hang until [Cluster.ReleaseDisk], or until it is
// killed. Reads go on.
func (c *Cluster) HangDisk(name string) {
	c.t.Helper()
	c.disk(name, "writes hang on the disk", (*simdisk.Disk).Hang)
}

// ReleaseDisk ends [Cluster.HangDisk]; the writes that hung are carried out.
func (c *Cluster) ReleaseDisk(name string) {
	c.t.Helper()
	c.disk(name, "writes go on on the disk", (*simdisk.Disk).Release)
}

// FailDisk makes every write of a node fail with err, as a full or failing disk
// does, until it is called with nil. A node ends by itself at the first write
// that fails; [Cluster.Restart] starts it again.
func (c *Cluster) FailDisk(name string, err error) {
	c.t.Helper()
	what := "writes work again on the disk"
	if err != nil {
		what = fmt.Sprintf("writes fail (%v) on the disk", err)
		c.mu.Lock()
		c.failures = append(c.failures, err)
		c.mu.Unlock()
	}
	c.disk(name, what, func(d *simdisk.Disk) { d.Fail(err, -1) })
}

// ErrNoSpace is an error for [Cluster.FailDisk]: that of a full disk.
var ErrNoSpace = errors.New("no space left on device")

// LyingDisk makes the disk of a node acknowledge writes before they are durable,
// from now on, as one with a volatile cache that ignores flushes. Reads return them
// until [Cluster.LoseUnsynced] loses all of them. After on is false again, the next
// write makes everything durable.
//
// No cluster can keep its promises on such disks: use it to see whether your program notices.
func (c *Cluster) LyingDisk(name string, on bool) {
	c.t.Helper()
	what := "lies begin on the disk"
	if on {
		c.mu.Lock()
		c.lied = true
		c.mu.Unlock()
	} else {
		what = "lies end on the disk"
	}
	c.disk(name, what, func(d *simdisk.Disk) { d.Lie(on) })
}
