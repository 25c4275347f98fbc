package simdisk

import (
	"fmt"
	"time"
)

// Lie makes the disk acknowledge writes that are not durable yet: the last
// Options.Volatile, or all until Sync. When it ends, the next write makes
// everything durable.
func (d *Disk) Lie(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lie = on
}

// SetVolatile changes Options.Volatile.
func (d *Disk) SetVolatile(writes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.o.Volatile = max(writes, 0)
}

// Slow sets how long each write takes; half of the time passes before the write happens, half
// of it after.
func (d *Disk) Slow(each time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slow = max(each, 0)
}

// Hang lets writes wait until Release, or until the node's life ends.
func (d *Disk) Hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hung == nil {
		d.hung = make(chan struct{})
	}
}

// Release ends Hang; the writes that waited go on.
func (d *Disk) Release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.releaseLocked()
}

func (d *Disk) releaseLocked() {
	if d.hung != nil {
		close(d.hung)
		d.hung = nil
	}
}

// Fail makes the next writes fail with err and change nothing; a negative number makes all
// of them fail. A nil err or zero writes ends it.
func (d *Disk) Fail(err error, writes int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		writes = 0
	}
	d.failure, d.failures = err, writes
}

// CorruptLog flips one byte of a stored entry. It returns an error if there is
// no such entry.
func (d *Disk) CorruptLog(index uint64) error {
	return d.corrupt(func(c *content) bool {
		e := c.entry(index)
		if e == nil {
			return false
		}
		if len(e.Data) > 0 {
			e.Data = flipped(e.Data)
		} else if len(e.Extensions) > 0 {
			e.Extensions = flipped(e.Extensions)
		} else {
			e.Term ^= 1
		}
		return true
	}, fmt.Sprintf("log entry %d", index))
}

// CorruptSnapshot flips one byte of the newest snapshot: it can no longer be
// opened, and is left out from the next life on. It returns an error if there is
// none.
func (d *Disk) CorruptSnapshot() error {
	return d.corrupt(func(c *content) bool {
		if len(c.snapshots) == 0 {
			return false
		}
		s := *c.snapshots[0]
		s.damaged = true
		s.contents = flipped(s.contents)
		c.snapshots[0] = &s
		return true
	}, "snapshot")
}

// corrupt changes what is stored, durable or not, behind the stores' back.
func (d *Disk) corrupt(f func(*content) bool, what string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	found := f(d.current)
	if d.durable != nil {
		found = f(d.durable) || found
	}
	if !found {
		return fmt.Errorf("corrupt %s: there is none", what)
	}
	return nil
}

// flipped is a copy of b with one bit changed in its middle.
func flipped(b []byte) []byte {
	b = append([]byte(nil), b...)
	if len(b) > 0 {
		b[len(b)/2] ^= 0x10
	}
	return b
}
