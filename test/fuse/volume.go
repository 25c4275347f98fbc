//go:build linux

package faultfs

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	rootID = 1 // the kernel's number for it

	maxDirty = 4096 // files and directories with undo logs: each holds descriptors
)

// Volume is a directory with undo logs. Its methods may be called from several
// goroutines; they do not pass through Faults, which is done by who serves it.
type Volume struct {
	Faults Faults

	dir   string
	limit int64

	mu          sync.RWMutex // guards what follows, and all inodes
	root        *inode
	nodes       map[uint64]*inode  // those that the kernel may name
	known       map[fileKey]*inode // the same, by what they are below
	handles     map[uint64]*handle
	lastID      uint64 // of inodes; never used twice, so that caches cannot be stale
	lastHandle  uint64
	dirty       map[*inode]struct{} // with undo logs
	cost        int64               // bytes of all undo logs
	changes     uint64              // counts the first changes after a sync
	writtenBack int
}

// fileKey names a file below, as long as a descriptor of it is open.
type fileKey struct{ dev, ino uint64 }

// inode is a file or directory: one that the kernel has looked up and not
// forgotten, or that is open, or that is needed to undo something.
type inode struct {
	id   uint64
	key  fileKey
	kind uint32 // S_IFREG, S_IFDIR, …
	path int    // O_PATH descriptor of it
	io   int    // descriptor to read and write it; -1 until it is needed

	lookups uint64 // by the kernel, not forgotten yet
	pins    int    // handles, and names in undo logs

	since   uint64            // Volume.changes when it became dirty
	content *contentLog       // what a file was; nil: as it is
	names   map[string]*inode // what names in a directory were: nil for none; those not in it are as they are
	with    map[*inode]bool   // directories that a rename has tied to this one
}

func (x *inode) dirty() bool { return x.content != nil || x.names != nil }

// handle is an open file or directory.
type handle struct {
	x    *inode
	sync bool       // opened with O_SYNC or O_DSYNC
	list []dirEntry // of a directory, as it was when it was opened
}

type dirEntry struct {
	name string
	kind uint32
}

// Open opens the volume on a directory. The limit is for the bytes of its undo
// logs; 0 stands for DefaultLimit.
func Open(dir string, limit int64) (*Volume, error) {
	if limit == 0 {
		limit = DefaultLimit
	}
	if limit < 0 {
		return nil, fmt.Errorf("open volume %s: the limit is %d bytes: at least 1", dir, limit)
	}
	v := &Volume{dir: dir, limit: limit}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.reset(); err != nil {
		return nil, fmt.Errorf("open volume %s: %w", dir, err)
	}
	return v, nil
}

// reset begins anew with what is below; all inodes and handles are gone.
func (v *Volume) reset() error {
	path, err := unix.Open(v.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	v.closeAll()
	v.root, err = newInode(path)
	if err != nil {
		return err
	}
	v.root.id, v.root.pins = rootID, 1
	v.nodes = map[uint64]*inode{rootID: v.root}
	v.known = map[fileKey]*inode{v.root.key: v.root}
	v.handles = map[uint64]*handle{}
	v.dirty = map[*inode]struct{}{}
	v.lastID, v.cost = max(v.lastID, rootID), 0
	return nil
}

// Close gives the descriptors back. What was not synced stays in the directory.
func (v *Volume) Close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closeAll()
}

func (v *Volume) closeAll() {
	for _, x := range v.nodes {
		x.close()
	}
	v.nodes, v.known, v.handles, v.dirty = nil, nil, nil, nil
}

func newInode(path int) (*inode, error) {
	var st unix.Stat_t
	if err := unix.Fstat(path, &st); err != nil {
		_ = unix.Close(path)
		return nil, err
	}
	return &inode{key: fileKey{st.Dev, st.Ino}, kind: st.Mode & unix.S_IFMT, path: path, io: -1}, nil
}

func (x *inode) close() {
	_ = unix.Close(x.path) // neither descriptor has anything that could be lost here
	if x.io >= 0 {
		_ = unix.Close(x.io)
	}
}

// link is a path to the file itself, whatever its names are.
func (x *inode) link() string { return "/proc/self/fd/" + strconv.Itoa(x.path) }

// data is a descriptor to read and write the file.
func (x *inode) data() (int, error) {
	if x.io >= 0 {
		return x.io, nil
	}
	fd, err := unix.Open(x.link(), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ETXTBSY) {
		fd, err = unix.Open(x.link(), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		return -1, err
	}
	x.io = fd
	return fd, nil
}

// node is the inode that the kernel means; ESTALE for one from before a loss of power.
func (v *Volume) node(id uint64) (*inode, error) {
	if x := v.nodes[id]; x != nil {
		return x, nil
	}
	return nil, unix.ESTALE
}

// find is what a name in a directory stands for. It is not kept by that: without a
// lookup or a pin it is gone with the next drop.
func (v *Volume) find(dir *inode, name string) (*inode, error) {
	path, err := unix.Openat(dir.path, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	x, err := newInode(path)
	if err != nil {
		return nil, err
	}
	if old := v.known[x.key]; old != nil {
		x.close()
		return old, nil
	}
	v.lastID++
	x.id = v.lastID
	v.nodes[x.id], v.known[x.key] = x, x
	return x, nil
}

// drop forgets an inode that nobody needs.
func (v *Volume) drop(x *inode) {
	if x == nil || x.lookups > 0 || x.pins > 0 || x.dirty() || v.nodes[x.id] != x {
		return
	}
	delete(v.nodes, x.id)
	delete(v.known, x.key)
	x.close()
}

func (v *Volume) unpin(x *inode) {
	if x != nil {
		x.pins--
		v.drop(x)
	}
}

// lookup finds a name for the kernel, which will forget it once.
func (v *Volume) lookup(dir uint64, name string) (*inode, *unix.Stat_t, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d, err := v.node(dir)
	if err != nil {
		return nil, nil, err
	}
	return v.lookupLocked(d, name)
}

func (v *Volume) lookupLocked(dir *inode, name string) (*inode, *unix.Stat_t, error) {
	x, err := v.find(dir, name)
	if err != nil {
		return nil, nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(x.path, &st); err != nil {
		v.drop(x)
		return nil, nil, err
	}
	x.lookups++
	return x, &st, nil
}

// forget takes lookups back.
func (v *Volume) forget(id, lookups uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	x := v.nodes[id]
	if x == nil { // from before a loss of power
		return
	}
	x.lookups -= min(lookups, x.lookups)
	v.drop(x)
}

func (v *Volume) stat(id uint64) (*unix.Stat_t, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	x, err := v.node(id)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	return &st, unix.Fstat(x.path, &st)
}

func (v *Volume) statfs() (st unix.Statfs_t, err error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return st, unix.Fstatfs(v.root.path, &st)
}

// open makes a handle on a file.
func (v *Volume) open(id uint64, flags uint32) (uint64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	x, err := v.node(id)
	if err != nil {
		return 0, err
	}
	return v.openLocked(x, flags)
}

func (v *Volume) openLocked(x *inode, flags uint32) (uint64, error) {
	if _, err := x.data(); err != nil {
		return 0, err
	}
	if flags&unix.O_TRUNC != 0 {
		if err := v.truncate(x, 0); err != nil {
			return 0, err
		}
	}
	// O_SYNC has O_DSYNC's bit in it.
	return v.newHandle(&handle{x: x, sync: flags&unix.O_DSYNC != 0}), nil
}

func (v *Volume) newHandle(h *handle) uint64 {
	h.x.pins++
	v.lastHandle++
	v.handles[v.lastHandle] = h
	return v.lastHandle
}

// handle is the open file that the kernel means; EIO for one from before a loss of
// power.
func (v *Volume) handle(number uint64) (*handle, error) {
	if h := v.handles[number]; h != nil {
		return h, nil
	}
	return nil, unix.EIO
}

func (v *Volume) release(number uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if h := v.handles[number]; h != nil {
		delete(v.handles, number)
		v.unpin(h.x)
	}
}

// openDir makes a handle on a directory, and lists it.
func (v *Volume) openDir(id uint64) (uint64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	x, err := v.node(id)
	if err != nil {
		return 0, err
	}
	list, err := x.list()
	if err != nil {
		return 0, err
	}
	return v.newHandle(&handle{x: x, list: list}), nil
}

// list reads a directory.
func (x *inode) list() ([]dirEntry, error) {
	f, err := os.OpenFile(x.link(), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	entries, err := f.ReadDir(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	list := make([]dirEntry, len(entries))
	for i, e := range entries {
		list[i] = dirEntry{e.Name(), unixKind(e.Type())}
	}
	return list, nil
}

func unixKind(mode os.FileMode) uint32 {
	switch {
	case mode.IsDir():
		return unix.S_IFDIR
	case mode&os.ModeSymlink != 0:
		return unix.S_IFLNK
	case mode.IsRegular():
		return unix.S_IFREG
	}
	return 0 // the kernel asks again when it needs it
}

// entries are what a handle lists from an offset on.
func (v *Volume) entries(number, from uint64) ([]dirEntry, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	h, err := v.handle(number)
	if err != nil {
		return nil, err
	}
	return h.list[min(from, uint64(len(h.list))):], nil
}
