//go:build linux

package faultfs

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Mount is a volume that the kernel serves at a directory.
type Mount struct {
	v      *Volume
	dir    string
	server *fuse.Server
}

// MountAt mounts the volume and returns when it serves. It returns ErrCannotMount
// where FUSE cannot be used, and then has changed nothing.
func MountAt(v *Volume, dir string) (*Mount, error) {
	dir, err := apart(v.dir, dir)
	if err != nil {
		return nil, err
	}
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w: the kernel needs FUSE, and this user the right to use it", ErrCannotMount, err)
	}
	_ = device.Close() // only to see whether it can be opened
	root := unix.Geteuid() == 0
	server, err := fuse.NewServer(newServer(v), dir, &fuse.MountOptions{
		FsName: v.dir, Name: "faultfs",
		Options:           []string{"default_permissions"},
		AllowOther:        root,
		DirectMountStrict: root, // else by fusermount
		// What is cached changes only by this server, which says so.
		ExplicitDataCacheControl: true,
		DisableReadDirPlus:       true,
		DisableXAttrs:            true,
		Logger:                   log.New(os.Stderr, "faultfs: ", 0),
	})
	if err != nil {
		return nil, fmt.Errorf("%w: mount %s: %w: it takes root, or fusermount3 in the PATH", ErrCannotMount, dir, err)
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: mount %s: %w", ErrCannotMount, dir, err), server.Unmount())
	}
	return &Mount{v: v, dir: dir, server: server}, nil
}

// apart refuses a mount point in the directory that is served, or around it: the
// server would wait for itself.
func apart(root, mount string) (string, error) {
	var real [2]string
	for i, dir := range []string{root, mount} {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return "", err
		}
		if real[i], err = filepath.EvalSymlinks(abs); err != nil {
			return "", err
		}
	}
	for i := range real {
		if strings.HasPrefix(real[i]+"/", real[1-i]+"/") {
			return "", fmt.Errorf("mount %s: the mount point and the directory that it shows, %s, must not be in one another", real[1], real[0])
		}
	}
	return real[1], nil
}

// Flip inverts the bits of a byte of a file, on the disk and in the cache.
func (m *Mount) Flip(path string, off int64) error {
	id, err := m.v.flipPath(path, off)
	if err == nil && id != 0 {
		if st := m.server.InodeNotify(id, 0, 0); !st.Ok() && st != fuse.ENOENT { // it was not cached
			err = syscall.Errno(st)
		}
	}
	if err != nil {
		return fmt.Errorf("flip byte %d of %s: %w", off, path, err)
	}
	return nil
}

// Unmount lets go what hangs and unmounts. If files are open still, the directory
// is free at once, and who has them open gets errors when this process ends.
func (m *Mount) Unmount() error {
	const patience = 2 * time.Second // for processes that are being killed
	m.v.Faults.Clear()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if err = m.server.Unmount(); err == nil {
			return nil
		}
	}
	if unix.Unmount(m.dir, unix.MNT_DETACH) == nil {
		return nil
	}
	return fmt.Errorf("unmount %s: %w", m.dir, err)
}
