//go:build linux

package faultfs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// server answers the kernel: each operation passes the faults and is then done by
// the volume. What is not here the kernel does without (extended attributes,
// copy_file_range) or by itself (flock).
type server struct {
	fuse.RawFileSystem
	v *Volume
}

func newServer(v *Volume) *server { return &server{fuse.NewDefaultRawFileSystem(), v} }

// status is what the kernel is told. An error that is not the kernel's own is one
// of the disk.
func status(err error) fuse.Status { return fuse.ToStatus(err) }

func (s *server) enter(op Op, h *fuse.InHeader) fuse.Status {
	return fuse.Status(s.v.Faults.enter(op, h.Pid))
}

// entry answers with an inode. Nothing of it may be cached: a loss of power
// changes everything at once.
func entry(x *inode, st *unix.Stat_t, out *fuse.EntryOut) {
	out.NodeId = x.id
	attributes(x.id, st, &out.Attr)
}

func attributes(id uint64, st *unix.Stat_t, out *fuse.Attr) {
	*out = fuse.Attr{
		Ino: id, Size: uint64(st.Size), Blocks: uint64(st.Blocks), Mode: st.Mode, Nlink: uint32(st.Nlink),
		Owner: fuse.Owner{Uid: st.Uid, Gid: st.Gid}, Rdev: uint32(st.Rdev), Blksize: uint32(st.Blksize),
		Atime: uint64(st.Atim.Sec), Atimensec: uint32(st.Atim.Nsec),
		Mtime: uint64(st.Mtim.Sec), Mtimensec: uint32(st.Mtim.Nsec),
		Ctime: uint64(st.Ctim.Sec), Ctimensec: uint32(st.Ctim.Nsec),
	}
}

func (s *server) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	x, st, err := s.v.lookup(h.NodeId, name)
	if err != nil {
		return status(err)
	}
	entry(x, st, out)
	return fuse.OK
}

func (s *server) Forget(id, lookups uint64) { s.v.forget(id, lookups) }

func (s *server) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return s.stat(in.NodeId, out)
}

func (s *server) stat(id uint64, out *fuse.AttrOut) fuse.Status {
	st, err := s.v.stat(id)
	if err != nil {
		return status(err)
	}
	attributes(id, st, &out.Attr)
	return fuse.OK
}

func (s *server) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if _, ok := in.GetSize(); ok {
		if e := s.enter(OpWrite, &in.InHeader); e != fuse.OK {
			return e
		}
	}
	if err := s.v.setAttributes(in); err != nil {
		return status(err)
	}
	return s.stat(in.NodeId, out)
}

func (v *Volume) setAttributes(in *fuse.SetAttrIn) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	x, err := v.node(in.NodeId)
	if err != nil {
		return err
	}
	if size, ok := in.GetSize(); ok {
		if err := v.truncate(x, int64(size)); err != nil {
			return err
		}
	}
	if mode, ok := in.GetMode(); ok {
		if err := unix.Chmod(x.link(), mode); err != nil {
			return err
		}
	}
	uid, hasUID := in.GetUID()
	gid, hasGID := in.GetGID()
	if hasUID || hasGID {
		if err := unix.Fchownat(x.path, "", int(int32(uid)), int(int32(gid)), unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	atime, hasAtime := in.GetATime()
	mtime, hasMtime := in.GetMTime()
	if !hasAtime && !hasMtime || x.kind == unix.S_IFLNK {
		return nil
	}
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	if hasAtime {
		times[0] = unix.NsecToTimespec(atime.UnixNano())
	}
	if hasMtime {
		times[1] = unix.NsecToTimespec(mtime.UnixNano())
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, x.link(), times[:], 0)
}

func (s *server) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if e := s.enter(OpCreate, &in.InHeader); e != fuse.OK {
		return e
	}
	x, st, h, err := s.v.create(in.NodeId, name, owner{in.Uid, in.Gid}, in.Flags, in.Mode)
	if err != nil {
		return status(err)
	}
	entry(x, st, &out.EntryOut)
	out.Fh = h
	return fuse.OK
}

func (s *server) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if e := s.enter(OpCreate, &in.InHeader); e != fuse.OK {
		return e
	}
	x, st, err := s.v.mkdir(in.NodeId, name, owner{in.Uid, in.Gid}, in.Mode)
	if err != nil {
		return status(err)
	}
	entry(x, st, out)
	return fuse.OK
}

func (s *server) Symlink(_ <-chan struct{}, h *fuse.InHeader, to, name string, out *fuse.EntryOut) fuse.Status {
	if e := s.enter(OpCreate, h); e != fuse.OK {
		return e
	}
	x, st, err := s.v.symlink(h.NodeId, name, owner{h.Uid, h.Gid}, to)
	if err != nil {
		return status(err)
	}
	entry(x, st, out)
	return fuse.OK
}

func (s *server) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	if e := s.enter(OpCreate, &in.InHeader); e != fuse.OK {
		return e
	}
	x, st, err := s.v.link(in.Oldnodeid, in.NodeId, name)
	if err != nil {
		return status(err)
	}
	entry(x, st, out)
	return fuse.OK
}

func (s *server) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	to, err := s.v.readlink(h.NodeId)
	return to, status(err)
}

func (s *server) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if e := s.enter(OpRemove, h); e != fuse.OK {
		return e
	}
	return status(s.v.remove(h.NodeId, name, 0))
}

func (s *server) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if e := s.enter(OpRemove, h); e != fuse.OK {
		return e
	}
	return status(s.v.remove(h.NodeId, name, unix.AT_REMOVEDIR))
}

func (s *server) Rename(_ <-chan struct{}, in *fuse.RenameIn, name, newName string) fuse.Status {
	if e := s.enter(OpRename, &in.InHeader); e != fuse.OK {
		return e
	}
	return status(s.v.rename(in.NodeId, name, in.Newdir, newName, in.Flags))
}

func (s *server) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if e := s.enter(OpOpen, &in.InHeader); e != fuse.OK {
		return e
	}
	h, err := s.v.open(in.NodeId, in.Flags)
	out.Fh = h
	return status(err)
}

func (s *server) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if e := s.enter(OpRead, &in.InHeader); e != fuse.OK {
		return nil, e
	}
	n, err := s.v.read(in.Fh, buf, int64(in.Offset))
	if err != nil {
		return nil, status(err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (s *server) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if e := s.enter(OpWrite, &in.InHeader); e != fuse.OK {
		return 0, e
	}
	n, sync, err := s.v.write(in.Fh, data, int64(in.Offset))
	if err != nil {
		return 0, status(err)
	}
	if sync {
		if e := s.fsync(&in.InHeader); e != fuse.OK {
			return 0, e
		}
	}
	return uint32(n), fuse.OK
}

func (s *server) Writev(<-chan struct{}, *fuse.WriteIn, [][]byte) (uint32, fuse.Status) {
	return 0, fuse.ENOSYS // Write is called then
}

func (s *server) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if e := s.enter(OpWrite, &in.InHeader); e != fuse.OK {
		return e
	}
	return status(s.v.allocate(in.Fh, in.Offset, in.Length, in.Mode))
}

// Flush is close(2), which makes nothing durable.
func (s *server) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func (s *server) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { s.v.release(in.Fh) }

func (s *server) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status { return s.fsync(&in.InHeader) }

func (s *server) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return s.fsync(&in.InHeader)
}

func (s *server) fsync(h *fuse.InHeader) fuse.Status {
	e := s.enter(OpFsync, h)
	switch {
	case e == fuse.Status(syscall.EINTR): // its process is gone; nothing was tried
		return e
	case e != fuse.OK:
		s.v.failSync(h.NodeId)
		return e
	case s.v.Faults.lies():
		return fuse.OK
	}
	return status(s.v.fsync(h.NodeId))
}

func (s *server) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	h, err := s.v.openDir(in.NodeId)
	out.Fh = h
	return status(err)
}

func (s *server) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	entries, err := s.v.entries(in.Fh, in.Offset)
	if err != nil {
		return status(err)
	}
	for i, e := range entries {
		if !out.AddDirEntry(fuse.DirEntry{Name: e.name, Mode: e.kind, Ino: fuse.FUSE_UNKNOWN_INO, Off: in.Offset + uint64(i) + 1}) {
			break
		}
	}
	return fuse.OK
}

func (s *server) ReleaseDir(in *fuse.ReleaseIn) { s.v.release(in.Fh) }

func (s *server) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	st, err := s.v.statfs()
	if err != nil {
		return status(err)
	}
	*out = fuse.StatfsOut{
		Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
		Bsize: uint32(st.Bsize), NameLen: uint32(st.Namelen), Frsize: uint32(st.Frsize),
	}
	return fuse.OK
}
