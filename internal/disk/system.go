package disk

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// An operation on a file fails for one of two reasons: what it holds is wrong, or the
// system did not let the node at it. Only the first one says that the node may have
// forgotten something, and asks for a re-seed, which throws the data away. A full disk,
// a missing right or a limit of open files leaves the data as they are: the node ends
// and says what to do about the system. So every error is looked at here before it is
// called damage.

// contentErrnos are what the system says of a file that is not there or is something
// else than it should be: that is a matter of contents.
var contentErrnos = map[syscall.Errno]bool{
	syscall.ENOENT: true, syscall.ENOTDIR: true, syscall.EISDIR: true, syscall.EEXIST: true,
	syscall.ENOTEMPTY: true, syscall.EINVAL: true,
}

// remedies are what to do about the errors that operators meet.
var remedies = []struct {
	errno  syscall.Errno
	remedy func() string
}{
	{syscall.EACCES, ownerRemedy},
	{syscall.EPERM, ownerRemedy},
	{syscall.ENOSPC, remedy("free space, or inodes, on its file system")},
	{syscall.EDQUOT, remedy("free space in the quota of the user, or raise it")},
	{syscall.EROFS, remedy("mount its file system for writing; the kernel makes it read-only after an I/O error, so look into the kernel's log first")},
	{syscall.EMFILE, remedy("raise the limit of open files of the process (ulimit -n, LimitNOFILE=)")},
	{syscall.ENFILE, remedy("the whole machine has too many files open: end what holds them, or raise the limit (sysctl fs.file-max)")},
	{syscall.EFBIG, remedy("raise the limit of the size of a file (ulimit -f, LimitFSIZE=)")},
	{syscall.ENOMEM, remedy("free memory, or raise the limits of memory and of memory maps of the process")},
	{syscall.EIO, remedy("the disk, or the way to it, does not work: look into the kernel's log and repair it; if it cannot be repaired, put another disk in its place and re-seed the node")},
}

func remedy(text string) func() string { return func() string { return text } }

func ownerRemedy() string {
	return fmt.Sprintf("give the user that the process runs as (uid %d) the right to read and write the data directory and all that is in it", os.Geteuid())
}

// systemErrno finds what the system has said, if that is not about contents. Where err
// has several causes, any of them counts.
func systemErrno(err error) (syscall.Errno, bool) {
	switch e := err.(type) { //nolint:errorlint // this walks over the whole tree itself
	case nil:
		return 0, false
	case syscall.Errno:
		return e, !contentErrnos[e]
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			if errno, ok := systemErrno(one); ok {
				return errno, true
			}
		}
		return 0, false
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			return systemErrno(inner)
		}
	}
	// raft's snapshots and bbolt pass some errors of the system on as text alone.
	for _, r := range remedies {
		if strings.Contains(err.Error(), r.errno.Error()) {
			return r.errno, true
		}
	}
	return 0, false
}

// remedyFor is what to do about an error of the system.
func remedyFor(errno syscall.Errno) string {
	for _, r := range remedies {
		if r.errno == errno {
			return r.remedy()
		}
	}
	return "see to it that the system lets the process read and write there"
}

// systemError says that the system did not let the node use its directory, and what to
// do about that.
type systemError struct {
	cause error
	errno syscall.Errno
}

// asSystemError adds the remedy to an error of the system, once, and leaves others alone.
func asSystemError(err error) error {
	var done *systemError
	if errors.As(err, &done) {
		return err
	}
	if errno, ok := systemErrno(err); ok {
		return &systemError{err, errno}
	}
	return err
}

func (e *systemError) Error() string {
	return fmt.Sprintf("%v; this says nothing against what the data directory holds, so keep it. To go on, %s, and start the node again",
		e.cause, remedyFor(e.errno))
}

// Is makes it an ErrSystem.
func (e *systemError) Is(target error) bool { return target == ErrSystem }
func (e *systemError) Unwrap() error        { return e.cause }
