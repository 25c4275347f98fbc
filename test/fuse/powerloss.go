//go:build linux

package faultfs

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Loss says what a loss of power has undone.
type Loss struct {
	Files   int `json:"files"`   // whose content or size is not what it was
	Sectors int `json:"sectors"` // that were put back
	Names   int `json:"names"`   // that were put back
}

// PowerLoss goes back to what is durable. With torn, a random part of what is not
// survives. All handles, and all that the kernel knows, become void.
//
// After an error the directory is neither in the old state nor in the new one.
func (v *Volume) PowerLoss(torn *rand.Rand) (Loss, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var loss Loss
	dirty := slices.SortedFunc(maps.Keys(v.dirty), func(a, b *inode) int { return cmp.Compare(a.since, b.since) })
	keepNames := torn != nil && torn.IntN(2) == 0
	for _, x := range dirty {
		if keepNames {
			v.settleNames(x)
		}
		loss.Names += len(x.names)
		if x.content == nil {
			continue
		}
		if torn != nil {
			if err := x.tear(torn); err != nil {
				return loss, fmt.Errorf("power loss: %w", err)
			}
		}
		changed, err := x.rollBack()
		if err != nil {
			return loss, fmt.Errorf("power loss: put a file back: %w", err)
		}
		loss.Sectors += len(x.content.old)
		if changed {
			loss.Files++
		}
	}
	if err := v.rollBackNames(dirty); err != nil {
		return loss, fmt.Errorf("power loss: put names back: %w", err)
	}
	return loss, v.reset()
}

// tear lets a part of what is not durable survive.
func (x *inode) tear(torn *rand.Rand) error {
	c := x.content
	if torn.IntN(2) == 0 {
		size, err := x.size()
		if err != nil {
			return err
		}
		c.size = size
	}
	for _, s := range slices.Sorted(maps.Keys(c.old)) {
		if !c.lost[s] && torn.IntN(2) == 0 {
			delete(c.old, s)
		}
	}
	return nil
}

// rollBack makes the content of a file what it was, and reports whether that
// changed anything.
func (x *inode) rollBack() (changed bool, err error) {
	c := x.content
	size, err := x.size()
	if err != nil {
		return false, err
	}
	if len(c.old) == 0 && size == c.size {
		return false, nil
	}
	fd, err := x.data()
	if err != nil {
		return false, err
	}
	zeros := make([]byte, sectorSize)
	for s, old := range c.old {
		switch {
		case s*sectorSize >= c.size:
			continue // cut off below
		case old == nil:
			old = zeros
		}
		if _, err := writeAt(fd, old, s*sectorSize); err != nil {
			return false, err
		}
	}
	return true, unix.Ftruncate(fd, c.size)
}

// rollBackNames makes the names what they were. First everything that was put
// under a name that is not durable is moved aside; then what is durable gets its
// name back: from there, or, if it has been removed, as a copy of what its
// descriptor still holds.
func (v *Volume) rollBackNames(dirty []*inode) error {
	dirs := slices.DeleteFunc(dirty, func(x *inode) bool { return x.names == nil })
	if len(dirs) == 0 {
		return nil
	}
	aside, err := os.MkdirTemp(v.dir, ".faultfs-")
	if err != nil {
		return err
	}
	r := &roller{aside: aside, names: map[*inode][]string{}}
	for _, d := range dirs {
		for name := range d.names {
			if err := r.moveAside(v, d, name); err != nil {
				return err
			}
		}
	}
	for len(dirs) > 0 {
		n := len(dirs)
		dirs, err = r.placeAll(dirs)
		if err != nil {
			return err
		}
		if len(dirs) == n {
			break // nothing that is durable leads to them
		}
	}
	return os.RemoveAll(aside)
}

// roller is a rollback of names.
type roller struct {
	aside string
	moved int
	names map[*inode][]string // where they are now, in aside
}

func (r *roller) moveAside(v *Volume, d *inode, name string) error {
	x, err := v.find(d, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	r.moved++
	to := filepath.Join(r.aside, fmt.Sprint(r.moved))
	if err := unix.Renameat(d.path, name, unix.AT_FDCWD, to); err != nil {
		return err
	}
	r.names[x] = append(r.names[x], to)
	return nil
}

// placeAll puts the names back in those directories that exist. It returns the
// others: what it has put back may be one of them.
func (r *roller) placeAll(dirs []*inode) (rest []*inode, err error) {
	for _, d := range dirs {
		var st unix.Stat_t
		if err := unix.Fstat(d.path, &st); err != nil {
			return nil, err
		}
		if st.Nlink == 0 {
			rest = append(rest, d)
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(d.names)) {
			x := d.names[name]
			if x == nil {
				continue
			}
			if err := r.place(x, d, name); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return rest, nil
}

func (r *roller) place(x, d *inode, name string) error {
	if at := r.names[x]; len(at) > 0 {
		r.names[x] = at[1:]
		return unix.Renameat(unix.AT_FDCWD, at[0], d.path, name)
	}
	var st unix.Stat_t
	if err := unix.Fstat(x.path, &st); err != nil {
		return err
	}
	switch {
	case st.Nlink > 0 && x.kind != unix.S_IFDIR: // it has another name
		return unix.Linkat(unix.AT_FDCWD, x.link(), d.path, name, unix.AT_SYMLINK_FOLLOW)
	case x.kind == unix.S_IFREG:
		if err := x.copyTo(d, name, st); err != nil {
			return err
		}
	case x.kind == unix.S_IFDIR:
		if err := unix.Mkdirat(d.path, name, st.Mode&0o7777); err != nil {
			return err
		}
	case x.kind == unix.S_IFLNK:
		to, err := x.readlink()
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(string(to), d.path, name); err != nil {
			return err
		}
	default:
		return fmt.Errorf("cannot make a file of type %o again: %w", x.kind, unix.ENOTSUP)
	}
	return x.renew(d, name, st)
}

// copyTo makes a removed file again.
func (x *inode) copyTo(d *inode, name string, st unix.Stat_t) error {
	fd, err := unix.Openat(d.path, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, st.Mode&0o7777)
	if err != nil {
		return err
	}
	from, err := x.data()
	buf := make([]byte, 1<<20)
	for off := int64(0); err == nil; {
		var n int
		n, err = readAt(from, buf, off)
		if n == 0 {
			break
		}
		if err == nil {
			_, err = writeAt(fd, buf[:n], off)
		}
		off += int64(n)
	}
	return errors.Join(err, unix.Close(fd))
}

// renew lets the inode of something removed stand for what was made in its place.
func (x *inode) renew(d *inode, name string, st unix.Stat_t) error {
	if err := unix.Fchownat(d.path, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	path, err := unix.Openat(d.path, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	x.close()
	x.path, x.io = path, -1
	return nil
}
