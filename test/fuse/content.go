//go:build linux

package faultfs

import (
	"errors"
	"io"
	"maps"

	"golang.org/x/sys/unix"
)

const (
	sectorSize = 512 // what a disk writes as a whole

	sectorCost = sectorSize + 64 // bytes of memory
	nameCost   = 256
)

// contentLog is what a file was when it was last synced.
type contentLog struct {
	size int64
	// old has the sectors that were changed since. A nil one was beyond the end,
	// and reads as zeros where the end is moved past it.
	old map[int64][]byte
	// lost are those of them that a failed sync has given up.
	lost map[int64]bool
}

func (c *contentLog) cost() int64 { return int64(len(c.old)) * sectorCost }

// touch begins the undo log of a file.
func (v *Volume) touch(x *inode) (*contentLog, error) {
	if x.content != nil {
		return x.content, nil
	}
	size, err := x.size()
	if err != nil {
		return nil, err
	}
	x.content = &contentLog{size: size, old: map[int64][]byte{}, lost: map[int64]bool{}}
	v.soil(x)
	return x.content, nil
}

// soil notes that an inode has an undo log.
func (v *Volume) soil(x *inode) {
	if _, known := v.dirty[x]; !known {
		v.changes++
		x.since = v.changes
		v.dirty[x] = struct{}{}
	}
}

func (x *inode) size() (int64, error) {
	var st unix.Stat_t
	err := unix.Fstat(x.path, &st)
	return st.Size, err
}

// capture saves the sectors of [from, to) that were not changed since the last sync.
func (v *Volume) capture(x *inode, from, to int64) error {
	c, err := v.touch(x)
	if err != nil {
		return err
	}
	first, end := from/sectorSize, (to+sectorSize-1)/sectorSize
	var buf []byte // from first up to the durable end of the file
	for s := first; s < end; s++ {
		delete(c.lost, s)
		if _, there := c.old[s]; there {
			continue
		}
		v.cost += sectorCost
		if s*sectorSize >= c.size {
			c.old[s] = nil
			continue
		}
		if buf == nil {
			if buf, err = x.readSectors(first, min(end*sectorSize, c.size)); err != nil {
				return err
			}
		}
		old := make([]byte, sectorSize)
		copy(old, buf[(s-first)*sectorSize:])
		c.old[s] = old
	}
	return nil
}

// readSectors reads from a sector up to an offset, filled with zeros.
func (x *inode) readSectors(first, to int64) ([]byte, error) {
	fd, err := x.data()
	if err != nil {
		return nil, err
	}
	buf := make([]byte, to-first*sectorSize)
	_, err = readAt(fd, buf, first*sectorSize)
	return buf, err
}

// readAt reads until the buffer is full or the file ends.
func readAt(fd int, buf []byte, off int64) (n int, err error) {
	for n < len(buf) {
		m, err := unix.Pread(fd, buf[n:], off+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || m == 0 {
			return n, err
		}
		n += m
	}
	return n, nil
}

func writeAt(fd int, buf []byte, off int64) (n int, err error) {
	for n < len(buf) {
		m, err := unix.Pwrite(fd, buf[n:], off+int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, io.ErrShortWrite
		}
		n += m
	}
	return n, nil
}

func (v *Volume) read(number uint64, buf []byte, off int64) (int, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	h, err := v.handle(number)
	if err != nil {
		return 0, err
	}
	return readAt(h.x.io, buf, off)
}

// write writes through a handle. It reports whether the handle wants a sync after it.
func (v *Volume) write(number uint64, data []byte, off int64) (n int, sync bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	h, err := v.handle(number)
	if err != nil {
		return 0, false, err
	}
	if err := v.capture(h.x, off, off+int64(len(data))); err != nil {
		return 0, false, err
	}
	n, err = writeAt(h.x.io, data, off)
	v.writeBack()
	if n > 0 {
		err = nil // a short write, as far as it got
	}
	return n, h.sync, err
}

// truncate sets the size of a file.
func (v *Volume) truncate(x *inode, size int64) error {
	fd, err := x.data()
	if err != nil {
		return err
	}
	c, err := v.touch(x)
	if err != nil {
		return err
	}
	live, err := x.size()
	if err != nil {
		return err
	}
	// What is too much to be remembered becomes durable at once.
	big := c.size-size > v.limit
	if size < live && !big {
		// The sector in which the file ends now is written anew, too.
		if err := v.capture(x, size, max(c.size, min(live, size+1))); err != nil {
			return err
		}
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		return err
	}
	if big {
		v.writtenBack++
		return v.settle(x)
	}
	v.writeBack()
	return nil
}

// allocate reserves, or with FALLOC_FL_PUNCH_HOLE and FALLOC_FL_ZERO_RANGE clears,
// a part of a file.
func (v *Volume) allocate(number, off, length uint64, mode uint32) error {
	const clearing = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_ZERO_RANGE
	if mode&^(clearing|unix.FALLOC_FL_KEEP_SIZE) != 0 {
		return unix.EOPNOTSUPP
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	h, err := v.handle(number)
	if err != nil {
		return err
	}
	c, err := v.touch(h.x)
	if err != nil {
		return err
	}
	if mode&clearing != 0 {
		if err := v.capture(h.x, int64(off), min(int64(off+length), max(c.size, int64(off)))); err != nil {
			return err
		}
	}
	err = unix.Fallocate(h.x.io, mode, int64(off), int64(length))
	v.writeBack()
	return err
}

// fsync makes a file or directory durable.
func (v *Volume) fsync(id uint64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	x, err := v.node(id)
	if err != nil {
		return err
	}
	return v.settle(x)
}

// failSync is a sync that failed: what it was to write will not be written by
// another one.
func (v *Volume) failSync(id uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if x := v.nodes[id]; x != nil && x.content != nil {
		for s := range x.content.old {
			x.content.lost[s] = true
		}
	}
}

// settle makes an inode durable as it is, but for what a failed sync has given up.
func (v *Volume) settle(x *inode) error {
	if x.names != nil || x.with != nil {
		v.settleNames(x)
	}
	c := x.content
	if c == nil {
		return nil
	}
	size, err := x.size()
	if err != nil {
		return err
	}
	v.cost -= c.cost()
	c.size = size
	maps.DeleteFunc(c.old, func(s int64, _ []byte) bool { return !c.lost[s] || s*sectorSize >= size })
	if len(c.old) > 0 {
		v.cost += c.cost()
		return nil
	}
	x.content = nil
	v.clean(x)
	return nil
}

// clean notes that an inode may have no undo log any more.
func (v *Volume) clean(x *inode) {
	if !x.dirty() {
		delete(v.dirty, x)
		v.drop(x)
	}
}

// writeBack makes durable what has been dirty for longest, while there is too
// much to be remembered.
func (v *Volume) writeBack() {
	for v.cost > v.limit || len(v.dirty) > maxDirty {
		var oldest *inode
		for x := range v.dirty {
			if c := x.content; c != nil && len(c.lost) > 0 && len(c.lost) == len(c.old) {
				continue // it stays as it is
			}
			if oldest == nil || x.since < oldest.since {
				oldest = x
			}
		}
		if oldest == nil || v.settle(oldest) != nil {
			return
		}
		v.writtenBack++
	}
}

// flip inverts the bits of a byte of a file, durably.
func (v *Volume) flip(x *inode, off int64) error {
	fd, err := x.data()
	if err != nil {
		return err
	}
	var b [1]byte
	n, err := readAt(fd, b[:], off)
	if err != nil {
		return err
	}
	if n == 0 {
		return io.EOF
	}
	b[0] = ^b[0]
	if c := x.content; c != nil {
		if old := c.old[off/sectorSize]; old != nil {
			old[off%sectorSize] = ^old[off%sectorSize]
		}
	}
	_, err = writeAt(fd, b[:], off)
	return err
}
