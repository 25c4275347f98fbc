package disk

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrDamaged says that the data directory no longer holds what this node has
	// acknowledged: a checksum does not match, or a file or its end is missing.
	// The node must not run on it. The message names the place and the remedy.
	ErrDamaged = errors.New("data directory is damaged")
	// ErrSystem says that the operating system did not let the node use its data
	// directory: a full disk, a missing right, a limit of open files, an I/O error. It
	// says nothing against the data. The message names the remedy.
	ErrSystem = errors.New("the system does not let the node use its data directory")
	// ErrWrongStore says that the directory was made with another log store.
	ErrWrongStore = errors.New("directory was made with another log store")
	// ErrWrongNode says that the directory belongs to another node ID.
	ErrWrongNode = errors.New("directory belongs to another node")
	// ErrInUse says that another process has the data directory open.
	ErrInUse = errors.New("data directory is in use by another process")
	// ErrStalled says that a write has been outstanding for too long. It ends
	// when the write returns.
	ErrStalled = errors.New("disk is stalled")
	// ErrFailed says that a write failed, or that a stored entry could not be
	// read. It never ends: the node has to be stopped. It is an ErrSystem, too, where
	// the system is to blame.
	ErrFailed = errors.New("storage has failed")
	// ErrClosed says that the stores were closed.
	ErrClosed = errors.New("stores are closed")
)

// damaged says that what is damaged, unless cause is an error of the system: then the
// data are not to blame, and OpenStores adds what to do.
func damaged(e damagedError) error {
	if _, ok := systemErrno(e.cause); ok {
		return fmt.Errorf("%s: %w", e.what, e.cause)
	}
	return &e
}

// damagedError says what is damaged and how to come back from it.
type damagedError struct {
	what  string // the place: file, index
	cause error
	dir   string
	noID  bool // the directory does not say whose it is
}

func (e *damagedError) Error() string {
	id := ""
	if e.noID {
		id = " --node-id ID"
	}
	return fmt.Sprintf("%s: %v; this node must not run on it, because it may have forgotten what it acknowledged. To go on, %s",
		e.what, e.cause, reseedHint(e.dir, id))
}

// ReseedHint is what to do with a data directory that must not be used any more.
func ReseedHint(dir string) string { return reseedHint(dir, "") }

func reseedHint(dir, more string) string {
	return fmt.Sprintf("run \"locknode reseed --data-dir %s%s\" and start the node again as before: it gets everything from the others", quoted(dir), more)
}

// quoted is dir as a shell takes it.
func quoted(dir string) string {
	if strings.ContainsAny(dir, " \t\n'\"\\$`&;|<>()*?[]#~!{}") {
		return "'" + strings.ReplaceAll(dir, "'", `'\''`) + "'"
	}
	return dir
}

// Is makes it an ErrDamaged.
func (e *damagedError) Is(target error) bool { return target == ErrDamaged }
func (e *damagedError) Unwrap() error        { return e.cause }
