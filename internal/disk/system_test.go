package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
)

// wantSystem is an error that blames the system, names the remedy and asks nobody to
// re-seed.
func wantSystem(t *testing.T, err error, errno syscall.Errno) {
	t.Helper()
	if !errors.Is(err, ErrSystem) || errors.Is(err, ErrDamaged) {
		t.Fatalf("%v: want an ErrSystem and no ErrDamaged", err)
	}
	for _, part := range []string{errno.Error(), remedyFor(errno)} {
		if strings.Count(err.Error(), part) != 1 {
			t.Errorf("%v: want %q in it, once", err, part)
		}
	}
	if strings.Contains(err.Error(), "locknode reseed") {
		t.Errorf("%v: advises to give the data up", err)
	}
}

func TestErrorsOfTheSystemAreNotCalledDamage(t *testing.T) {
	s := &Stores{dir: "/data"}
	for _, errno := range []syscall.Errno{
		syscall.EACCES, syscall.EPERM, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EMFILE,
		syscall.ENFILE, syscall.EFBIG, syscall.ENOMEM, syscall.EIO, syscall.ETIMEDOUT, syscall.ESTALE,
	} {
		for _, cause := range []error{
			&fs.PathError{Op: "open", Path: "/data/log", Err: errno},
			fmt.Errorf("one layer more: %w", &fs.PathError{Op: "read", Path: "/data/log", Err: errno}),
			errors.Join(fs.ErrNotExist, errors.New("what failed first"), &os.SyscallError{Syscall: "fsync", Err: errno}),
		} {
			wantSystem(t, asSystemError(s.damaged("/data/log", cause)), errno)
			wantSystem(t, asSystemError(asSystemError(cause)), errno)
		}
	}
	// As raft's snapshots and bbolt write it.
	wantSystem(t, asSystemError(s.damaged("/data", fmt.Errorf("permissions test failed: %s", syscall.EROFS.Error()))), syscall.EROFS)
}

func TestWrongContentsAreCalledDamage(t *testing.T) {
	s := &Stores{dir: "/data", lost: errors.New("snapshot 7 is in damaged-snapshots")}
	for _, cause := range []error{
		errors.New("checksum is 1, stored was 2"),
		&fs.PathError{Op: "open", Path: "/data/log", Err: syscall.ENOENT},
		&fs.PathError{Op: "open", Path: "/data/log", Err: syscall.ENOTDIR},
		&fs.PathError{Op: "read", Path: "/data/log", Err: syscall.EISDIR},
	} {
		err := asSystemError(s.damaged("/data/log", cause))
		if !errors.Is(err, ErrDamaged) || errors.Is(err, ErrSystem) || !strings.Contains(err.Error(), "locknode reseed --data-dir /data") {
			t.Errorf("%v: want ErrDamaged with the command that re-seeds", err)
		}
	}
}
