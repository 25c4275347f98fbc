package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

var errPower = errors.New("the power is off")

const sector = 512

// disk is a file system in memory that loses power. What was written and not synced is
// lost then or kept, sector by sector in any subset; so are names that were not made
// durable by a sync of their folder, in any subset that keeps their order.
type disk struct {
	mu      sync.Mutex // guards what follows
	rnd     *rand.Rand
	names   map[string]*inode
	durable map[string]*inode
	pending []nameOp
	changes int  // what was done so far: writes, syncs, changes of names
	offAt   int  // the change at which power fails; 0: never
	off     bool // it has failed
	failing func(op, path string) error
	short   bool // the next write is a short one
	lies    bool // Sync does nothing: for tests of the tests
}

// inode is a file: what a process reads, what is durable, and what is between.
type inode struct {
	cache, durable []byte
	pending        []piece
	name           string // the last one
}

type piece struct {
	at   int64
	data []byte
}

// nameOp is a change of names that is not durable yet; file is set for a creation, from
// for a rename or a removal, to for a rename.
type nameOp struct {
	file     *inode
	from, to string
}

func newDisk(rnd *rand.Rand) *disk {
	return &disk{rnd: rnd, names: map[string]*inode{}, durable: map[string]*inode{}}
}

// change counts a change and reports whether power fails with it.
func (d *disk) change(op, path string) (fails bool, err error) {
	if d.off {
		return false, errPower
	}
	if d.failing != nil {
		if err := d.failing(op, path); err != nil {
			return false, &fs.PathError{Op: op, Path: path, Err: err}
		}
	}
	d.changes++
	d.off = d.changes == d.offAt
	return d.off, nil
}

func (d *disk) MkdirAll(string) error { return nil }

func (d *disk) ReadDir(dir string) (names []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return nil, errPower
	}
	for name := range d.names {
		if path.Dir(name) == dir {
			names = append(names, path.Base(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (d *disk) Open(name string) (File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return nil, errPower
	}
	if d.failing != nil {
		if err := d.failing("open", name); err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
	}
	n := d.names[name]
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	}
	return &handle{d: d, n: n}, nil
}

func (d *disk) Create(name string) (File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.change("create", name); err != nil {
		return nil, err
	}
	// A file that is there is not cut but replaced: both happen on real disks, and this
	// one leaves less to rely on.
	n := &inode{name: name}
	d.names[name] = n
	d.pending = append(d.pending, nameOp{file: n, to: name})
	return &handle{d: d, n: n}, nil
}

func (d *disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.change("rename", from); err != nil {
		return err
	}
	return d.apply(nameOp{from: from, to: to}, d.names, true)
}

func (d *disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.change("remove", name); err != nil {
		return err
	}
	return d.apply(nameOp{from: name}, d.names, true)
}

func (d *disk) apply(op nameOp, names map[string]*inode, note bool) error {
	n := op.file
	if n == nil {
		if n = names[op.from]; n == nil {
			return &fs.PathError{Op: "rename", Path: op.from, Err: syscall.ENOENT}
		}
		delete(names, op.from)
	}
	if op.to != "" {
		names[op.to], n.name = n, op.to
	}
	if note {
		d.pending = append(d.pending, op)
	}
	return nil
}

func (d *disk) SyncDir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	fails, err := d.change("syncdir", dir)
	if err != nil {
		return err
	}
	if d.lies {
		return nil
	}
	if fails && d.rnd.IntN(2) == 0 {
		return errPower
	}
	var rest []nameOp
	for _, op := range d.pending {
		if path.Dir(cmpOr(op.to, op.from)) != dir {
			rest = append(rest, op)
			continue
		}
		_ = d.apply(op, d.durable, false)
	}
	d.pending = rest
	if fails {
		return errPower
	}
	return nil
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// handle is an open file.
type handle struct {
	d *disk
	n *inode
}

func (h *handle) ReadAt(b []byte, at int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if h.d.off {
		return 0, errPower
	}
	if h.d.failing != nil {
		if err := h.d.failing("read", h.n.name); err != nil {
			return 0, &fs.PathError{Op: "read", Path: h.n.name, Err: err}
		}
	}
	if at >= int64(len(h.n.cache)) {
		return 0, io.EOF
	}
	n := copy(b, h.n.cache[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *handle) WriteAt(b []byte, at int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	fails, err := h.d.change("write", h.n.name)
	if err != nil {
		return 0, err
	}
	if h.d.short {
		h.d.short = false
		b = b[:len(b)/2]
	}
	h.n.cache = put(h.n.cache, b, at)
	h.n.pending = append(h.n.pending, piece{at, bytes.Clone(b)})
	if fails {
		return 0, errPower
	}
	return len(b), nil
}

func put(to, b []byte, at int64) []byte {
	if need := at + int64(len(b)); int64(len(to)) < need {
		to = append(to, make([]byte, need-int64(len(to)))...)
	}
	copy(to[at:], b)
	return to
}

// Sync that fails throws away what it should have written, as Linux does: it is still read
// back, and the next Sync succeeds.
func (h *handle) Sync() error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	fails, err := h.d.change("sync", h.n.name)
	if err != nil {
		if !h.d.off {
			h.n.pending = nil
		}
		return err
	}
	if h.d.lies {
		return nil
	}
	if fails && h.d.rnd.IntN(2) == 0 {
		return errPower
	}
	for _, p := range h.n.pending {
		h.n.durable = put(h.n.durable, p.data, p.at)
	}
	h.n.pending = nil
	if fails {
		return errPower
	}
	return nil
}

func (h *handle) Size() (int64, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if h.d.off {
		return 0, errPower
	}
	return int64(len(h.n.cache)), nil
}

func (h *handle) Close() error { return nil }

// lose is what is left when the power comes back. It reports whether a write was torn.
func (d *disk) lose() (torn bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := map[*inode]bool{}
	for _, n := range d.names {
		all[n] = true
	}
	for _, n := range d.durable {
		all[n] = true
	}
	for _, op := range d.pending {
		if op.file != nil {
			all[op.file] = true
		}
	}
	keep := d.keeper()
	// In the order of the names, so that a seed always does the same.
	var inodes []*inode
	for _, names := range []map[string]*inode{d.durable, d.names} {
		for _, name := range sorted(names) {
			if n := names[name]; all[n] {
				delete(all, n)
				inodes = append(inodes, n)
			}
		}
	}
	for _, n := range inodes {
		for _, p := range n.pending {
			kept, lost := 0, 0
			for from := int64(0); from < int64(len(p.data)); {
				to := min((p.at+from)/sector*sector+sector-p.at, int64(len(p.data)))
				if keep() {
					n.durable = put(n.durable, p.data[from:to], p.at+from)
					kept++
				} else {
					lost++
				}
				from = to
			}
			torn = torn || kept > 0 && lost > 0
		}
		n.cache, n.pending = bytes.Clone(n.durable), nil
	}
	for _, op := range d.pending {
		if keep() {
			_ = d.apply(op, d.durable, false)
		}
	}
	d.pending, d.names = nil, map[string]*inode{}
	for name, n := range d.durable {
		n.cache = bytes.Clone(n.durable)
		d.names[name] = n
	}
	d.off, d.offAt = false, 0
	return torn
}

// keeper decides what is kept: all, nothing, what was first or last, or any subset.
func (d *disk) keeper() func() bool {
	n := d.rnd.IntN(40)
	switch d.rnd.IntN(8) {
	case 0:
		return func() bool { return true }
	case 1:
		return func() bool { return false }
	case 2:
		return func() bool { n--; return n >= 0 }
	case 3:
		return func() bool { n--; return n < 0 }
	}
	return func() bool { return d.rnd.IntN(2) == 0 }
}

func sorted(names map[string]*inode) (list []string) {
	for name := range names {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// segments are the names of the segment files, in order.
func (d *disk) segments() (list []string) {
	for _, name := range sorted(d.names) {
		if strings.HasSuffix(name, segmentExt) {
			list = append(list, name)
		}
	}
	return list
}

// copyOf is a disk with the same files, all durable.
func (d *disk) copyOf() *disk {
	c := newDisk(d.rnd)
	for name, n := range d.names {
		m := &inode{cache: bytes.Clone(n.cache), durable: bytes.Clone(n.cache), name: name}
		c.names[name], c.durable[name] = m, m
	}
	return c
}

func (d *disk) String() string {
	var b strings.Builder
	for _, name := range sorted(d.names) {
		fmt.Fprintf(&b, "%s (%d) ", name, len(d.names[name].cache))
	}
	return b.String()
}
