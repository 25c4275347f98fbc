package simdisk

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/locknode/locknode/internal/disk"
)

// ErrCrashed means that the stores belong to an earlier run of the node.
var ErrCrashed = errors.New("simulated disk: this life of the node is over")

const defaultRetain = 2

// Options shape a Disk; the zero value is a disk without faults that takes no time.
type Options struct {
	// Latency is how long a write takes; see Slow.
	Latency time.Duration
	// Volatile is how many of the latest writes a lying disk may still lose;
	// zero is all since the last Sync.
	Volatile int
	// Retain is how many snapshots are kept; zero is 2.
	Retain int
}

// Disk is the disk of one node. It is safe for concurrent use.
type Disk struct {
	o Options

	mu       sync.Mutex // guards what follows
	current  *content   // what reads see
	durable  *content   // what a crash leaves; nil while it is the same
	pending  []op       // from durable to current
	life     *life      // nil before the first Memory
	lie      bool
	slow     time.Duration
	hung     chan struct{} // closed by Release; nil while nothing hangs
	failure  error
	failures int // writes that still fail; negative: all
	writes   int // acknowledged
	snapshot uint64
}

// op is one write.
type op func(*content)

// life is the time between Memory and the next end of it.
type life struct {
	disk *Disk
	over chan struct{}
}

// New returns an empty disk. It panics when o is not valid.
func New(o Options) *Disk {
	if o.Latency < 0 || o.Volatile < 0 || o.Retain < 0 {
		panic(fmt.Sprintf("simdisk: options %+v: must not be negative", o))
	}
	if o.Retain == 0 {
		o.Retain = defaultRetain
	}
	return &Disk{o: o, current: newContent(o.Retain), slow: o.Latency}
}

// Memory begins a life of the node over what is stored, and ends the one before
// it as a clean stop would: nothing is lost. Snapshots that do not match their
// checksum are moved aside first, as package disk does with files.
func (d *Disk) Memory() *disk.Memory {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endLocked()
	l := &life{disk: d, over: make(chan struct{})}
	d.life = l
	d.current.dropDamaged()
	if d.durable != nil {
		d.durable.dropDamaged()
	}
	return &disk.Memory{
		Log:          logStore{l},
		Stable:       stableStore{l},
		Snapshots:    snapshotStore{l},
		Identity:     cloneIdentity(d.current.identity),
		SaveIdentity: l.saveIdentity,
	}
}

func (d *Disk) endLocked() {
	if d.life != nil {
		close(d.life.over)
		d.life = nil
	}
}

// Crash ends the life of the node. With keepUnsynced, everything that was
// acknowledged is still there, as after kill -9; without, only what is durable,
// as after a loss of power. A write that has not been acknowledged fails; it is
// there or not, depending on how far it was. Faults that were set stay.
func (d *Disk) Crash(keepUnsynced bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endLocked()
	if d.durable != nil && !keepUnsynced {
		d.current = d.durable
		d.durable, d.pending = nil, nil
	}
}

// Wipe ends the life of the node and puts a new, empty disk without faults in
// the place of this one.
func (d *Disk) Wipe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endLocked()
	d.current, d.durable, d.pending = newContent(d.o.Retain), nil, nil
	d.lie, d.slow, d.failure, d.failures = false, d.o.Latency, nil, 0
	d.releaseLocked()
}

// Reseed ends the life of the node and leaves of its data who it is and which
// cluster it belongs to. It must have been removed from the cluster before. Faults
// that were set stay.
func (d *Disk) Reseed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endLocked()
	next := newContent(d.o.Retain)
	was := d.current.identity
	next.identity = disk.Identity{Version: was.Version, NodeID: was.NodeID, ClusterID: was.ClusterID, LogStore: was.LogStore}
	d.current, d.durable, d.pending = next, nil, nil
}

// Sync makes everything durable that was acknowledged, on a lying disk too.
func (d *Disk) Sync() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.durable, d.pending = nil, nil
}

// Writes returns how many writes were acknowledged.
func (d *Disk) Writes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writes
}

// Unsynced returns how many acknowledged writes a crash would lose.
func (d *Disk) Unsynced() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pending)
}

// read runs f over the content, unless this life is over.
func (l *life) read(f func(*content) error) error {
	l.disk.mu.Lock()
	defer l.disk.mu.Unlock()
	if l.disk.life != l {
		return ErrCrashed
	}
	return f(l.disk.current)
}

// write waits as the faults say and does what prepare returns, in one step, half
// way through: a crash may come before or after it.
func (l *life) write(prepare func(*content) (op, error)) error {
	d := l.disk
	d.mu.Lock()
	slow := d.slow
	d.mu.Unlock()
	if err := l.sleep(slow / 2); err != nil {
		return err
	}
	if err := l.waitWhileHung(); err != nil {
		return err
	}
	if err := l.do(prepare); err != nil {
		return err
	}
	return l.sleep(slow - slow/2)
}

func (l *life) do(prepare func(*content) (op, error)) error {
	d := l.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.life != l {
		return ErrCrashed
	}
	if d.failures != 0 {
		d.failures = max(d.failures-1, -1)
		return d.failure
	}
	do, err := prepare(d.current)
	if err != nil {
		return err
	}
	d.applyLocked(do)
	return nil
}

func (d *Disk) applyLocked(do op) {
	d.writes++
	if !d.lie {
		do(d.current)
		d.durable, d.pending = nil, nil
		return
	}
	if d.durable == nil {
		d.durable = d.current.clone()
	}
	do(d.current)
	d.pending = append(d.pending, do)
	for d.o.Volatile > 0 && len(d.pending) > d.o.Volatile {
		d.pending[0](d.durable)
		d.pending[0] = nil
		d.pending = d.pending[1:]
	}
}

// sleep waits for t, or returns ErrCrashed when the life is over before.
func (l *life) sleep(t time.Duration) error {
	if t <= 0 {
		return nil
	}
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-l.over:
		return ErrCrashed
	}
}

// waitWhileHung returns after Release, or ErrCrashed when the life is over.
func (l *life) waitWhileHung() error {
	for {
		l.disk.mu.Lock()
		hung := l.disk.hung
		l.disk.mu.Unlock()
		if hung == nil {
			return nil
		}
		select {
		case <-hung:
		case <-l.over:
			return ErrCrashed
		}
	}
}
