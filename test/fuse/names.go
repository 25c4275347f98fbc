//go:build linux

package faultfs

import (
	"errors"

	"golang.org/x/sys/unix"
)

// place is a name in a directory.
type place struct {
	dir  *inode
	name string
}

// change runs a change of names, and remembers what they stood for at the last
// sync of their directories.
func (v *Volume) change(change func() error, places ...place) error {
	was := make([]*inode, len(places))
	defer func() {
		for _, x := range was { // those that are not in an undo log now
			v.unpin(x)
		}
	}()
	for i, p := range places {
		x, err := v.find(p.dir, p.name)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		if err == nil {
			x.pins++
			was[i] = x
		}
	}
	if err := change(); err != nil {
		return err
	}
	for i, p := range places {
		if _, known := p.dir.names[p.name]; known {
			continue
		}
		if p.dir.names == nil {
			p.dir.names = map[string]*inode{}
		}
		p.dir.names[p.name], was[i] = was[i], nil
		v.cost += nameCost
		v.soil(p.dir)
	}
	return nil
}

// settleNames makes the names of a directory durable, and of those that renames
// have tied to it.
func (v *Volume) settleNames(dir *inode) {
	group := map[*inode]bool{}
	for todo := []*inode{dir}; len(todo) > 0; todo = todo[1:] {
		if d := todo[0]; !group[d] {
			group[d] = true
			for other := range d.with {
				todo = append(todo, other)
			}
		}
	}
	for d := range group {
		names := d.names
		d.names, d.with = nil, nil
		v.cost -= int64(len(names)) * nameCost
		for _, x := range names {
			v.unpin(x)
		}
	}
	for d := range group {
		v.clean(d)
	}
}

// tie lets the changes of two directories become durable together.
func tie(a, b *inode) {
	for _, pair := range [][2]*inode{{a, b}, {b, a}} {
		if pair[0].with == nil {
			pair[0].with = map[*inode]bool{}
		}
		pair[0].with[pair[1]] = true
	}
}

// owner is who is to own a file that is made.
type owner struct{ uid, gid uint32 }

// make creates something with a name, and looks it up for the kernel.
func (v *Volume) make(dir uint64, name string, o owner, create func(dirfd int) error) (*inode, *unix.Stat_t, error) {
	d, err := v.node(dir)
	if err != nil {
		return nil, nil, err
	}
	err = v.change(func() error {
		if err := create(d.path); err != nil {
			return err
		}
		if o == (owner{uint32(unix.Geteuid()), uint32(unix.Getegid())}) {
			return nil
		}
		return unix.Fchownat(d.path, name, int(o.uid), int(o.gid), unix.AT_SYMLINK_NOFOLLOW)
	}, place{d, name})
	if err != nil {
		return nil, nil, err
	}
	x, st, err := v.lookupLocked(d, name)
	v.writeBack()
	return x, st, err
}

// create makes a file and opens it.
func (v *Volume) create(dir uint64, name string, o owner, flags, mode uint32) (*inode, *unix.Stat_t, uint64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	d, err := v.node(dir)
	if err != nil {
		return nil, nil, 0, err
	}
	var x *inode
	var st *unix.Stat_t
	old, err := v.find(d, name)
	switch {
	case err == nil && flags&unix.O_EXCL != 0:
		v.drop(old)
		return nil, nil, 0, unix.EEXIST
	case err == nil: // somebody was faster, below or on another thread
		x, st, err = v.lookupLocked(d, name)
	default:
		x, st, err = v.make(dir, name, o, func(dirfd int) error {
			fd, err := unix.Openat(dirfd, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, mode)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		})
	}
	if err != nil {
		return nil, nil, 0, err
	}
	h, err := v.openLocked(x, flags)
	if err != nil {
		x.lookups--
		v.drop(x)
		return nil, nil, 0, err
	}
	return x, st, h, nil
}

func (v *Volume) mkdir(dir uint64, name string, o owner, mode uint32) (*inode, *unix.Stat_t, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.make(dir, name, o, func(dirfd int) error { return unix.Mkdirat(dirfd, name, mode) })
}

func (v *Volume) symlink(dir uint64, name string, o owner, to string) (*inode, *unix.Stat_t, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.make(dir, name, o, func(dirfd int) error { return unix.Symlinkat(to, dirfd, name) })
}

func (v *Volume) link(target, dir uint64, name string) (*inode, *unix.Stat_t, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	x, err := v.node(target)
	if err != nil {
		return nil, nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(x.path, &st); err != nil {
		return nil, nil, err
	}
	return v.make(dir, name, owner{st.Uid, st.Gid}, func(dirfd int) error {
		return unix.Linkat(unix.AT_FDCWD, x.link(), dirfd, name, unix.AT_SYMLINK_FOLLOW)
	})
}

func (v *Volume) readlink(id uint64) ([]byte, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	x, err := v.node(id)
	if err != nil {
		return nil, err
	}
	return x.readlink()
}

func (x *inode) readlink() ([]byte, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(x.path, "", buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

// remove removes a name. The flag is AT_REMOVEDIR for a directory.
func (v *Volume) remove(dir uint64, name string, flag int) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	d, err := v.node(dir)
	if err != nil {
		return err
	}
	defer v.writeBack()
	return v.change(func() error { return unix.Unlinkat(d.path, name, flag) }, place{d, name})
}

func (v *Volume) rename(from uint64, name string, to uint64, newName string, flags uint32) error {
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return unix.EINVAL
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	d, err := v.node(from)
	if err != nil {
		return err
	}
	e, err := v.node(to)
	if err != nil {
		return err
	}
	if flags&unix.RENAME_NOREPLACE == 0 && sameFile(d, name, e, newName) {
		return nil // two names of one file: rename(2) does nothing
	}
	err = v.change(func() error {
		return unix.Renameat2(d.path, name, e.path, newName, uint(flags))
	}, place{d, name}, place{e, newName})
	if err == nil && d != e {
		tie(d, e)
	}
	v.writeBack()
	return err
}

func sameFile(d *inode, name string, e *inode, other string) bool {
	var a, b unix.Stat_t
	return unix.Fstatat(d.path, name, &a, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		unix.Fstatat(e.path, other, &b, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		a.Dev == b.Dev && a.Ino == b.Ino
}
