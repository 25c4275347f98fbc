//go:build linux

package faultfs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Op is a kind of operation that can be broken.
type Op string

// The kinds of operations.
const (
	OpRead   Op = "read"   // of a file; what the kernel has cached is not read again
	OpWrite  Op = "write"  // also truncating and preallocating
	OpFsync  Op = "fsync"  // also fdatasync, of directories, and each write with O_SYNC or O_DSYNC
	OpOpen   Op = "open"   // of a file that exists
	OpCreate Op = "create" // of files, directories and links
	OpRename Op = "rename"
	OpRemove Op = "remove" // of files and directories
	OpAny    Op = "any"    // all of these
)

var ops = []Op{OpRead, OpWrite, OpFsync, OpOpen, OpCreate, OpRename, OpRemove, OpAny}

// errnos are the errors that a disk may give.
var errnos = map[string]syscall.Errno{"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC, "EROFS": syscall.EROFS}

// longest is how long an operation may be slowed down.
const longest = time.Minute

// dyingEvery is how often an operation that hangs looks whether its process is
// being killed: that process cannot end before its operation has.
const dyingEvery = 20 * time.Millisecond

// Faults decides what happens to the operations of a volume. The zero value lets
// all of them pass. Its methods may be called from several goroutines.
type Faults struct {
	mu    sync.Mutex // guards what follows
	rules map[Op]*rule
	lying bool
	wake  chan struct{} // closed when rules change

	passed, failed map[Op]int
	lied, hanging  int
}

// rule is what happens to one kind of operation.
type rule struct {
	errno syscall.Errno // 0: it succeeds
	left  int           // how many fail; negative: all
	delay time.Duration
	hang  bool
	pass  int // how many pass before the others hang
}

// Fail lets the next count operations fail, all if count is 0.
func (f *Faults) Fail(op Op, errno syscall.Errno, count int) error {
	if count < 0 {
		return fmt.Errorf("count is %d: at least 1, or none for all", count)
	}
	if count == 0 {
		count = -1
	}
	return f.change(op, func(r *rule) { r.errno, r.left = errno, count })
}

// Hang lets so many operations pass and then holds all others, until Release or
// Clear, or until their process is killed. To hold all that a process does from the
// nth operation on, to kill it and to lose power then, is to lose power at the nth.
func (f *Faults) Hang(op Op, after int) error {
	if after < 0 {
		return fmt.Errorf("after is %d: at least 0", after)
	}
	return f.change(op, func(r *rule) { r.hang, r.pass = true, after })
}

// Slow makes each operation take longer.
func (f *Faults) Slow(op Op, by time.Duration) error {
	if by < 0 || by > longest {
		return fmt.Errorf("duration is %v: 0 to %v are allowed", by, longest)
	}
	return f.change(op, func(r *rule) { r.delay = by })
}

// Lie lets fsync succeed without making anything durable.
func (f *Faults) Lie(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lying = on
}

// Release lets go what hangs, and lets nothing hang any more.
func (f *Faults) Release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.rules {
		r.hang = false
	}
	f.wakeLocked()
}

// Clear ends all faults, and lets go what hangs.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules, f.lying = nil, false
	f.wakeLocked()
}

func (f *Faults) change(op Op, change func(*rule)) error {
	if !slices.Contains(ops, op) {
		return fmt.Errorf("operation is %q: allowed are %s", op, opNames())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rules == nil {
		f.rules = map[Op]*rule{}
	}
	if f.rules[op] == nil {
		f.rules[op] = &rule{}
	}
	change(f.rules[op])
	f.wakeLocked()
	return nil
}

func (f *Faults) wakeLocked() {
	if f.wake != nil {
		close(f.wake)
		f.wake = nil
	}
}

// enter is called before an operation of the given thread. It returns how the
// operation ends, 0 if it is to be done.
func (f *Faults) enter(op Op, thread uint32) syscall.Errno {
	f.mu.Lock()
	defer f.mu.Unlock()
	if delay := f.delayLocked(op); delay > 0 {
		due := time.Now().Add(delay)
		for now := time.Now(); now.Before(due) && f.delayLocked(op) > 0; now = time.Now() {
			if f.pauseLocked(min(due.Sub(now), dyingEvery), thread) {
				return syscall.EINTR
			}
		}
	}
	for mayPass := true; f.hangsLocked(op, mayPass); mayPass = false {
		f.hanging++
		killed := f.pauseLocked(dyingEvery, thread)
		f.hanging--
		if killed {
			return syscall.EINTR
		}
	}
	for _, k := range []Op{op, OpAny} {
		r := f.rules[k]
		if r == nil || r.errno == 0 || r.left == 0 {
			continue
		}
		if r.left > 0 {
			r.left--
		}
		count(&f.failed, op)
		return r.errno
	}
	count(&f.passed, op)
	return 0
}

// lies reports whether an fsync is to do nothing, and counts it then.
func (f *Faults) lies() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lying {
		f.lied++
	}
	return f.lying
}

func count(in *map[Op]int, op Op) {
	if *in == nil {
		*in = map[Op]int{}
	}
	(*in)[op]++
}

func (f *Faults) delayLocked(op Op) (d time.Duration) {
	for _, k := range []Op{op, OpAny} {
		if r := f.rules[k]; r != nil {
			d = max(d, r.delay)
		}
	}
	return d
}

// hangsLocked reports whether an operation hangs. One that may pass uses up the
// right of one to do so.
func (f *Faults) hangsLocked(op Op, mayPass bool) (hangs bool) {
	for _, k := range []Op{op, OpAny} {
		r := f.rules[k]
		switch {
		case r == nil || !r.hang:
		case mayPass && r.pass > 0:
			r.pass--
		default:
			hangs = true
		}
	}
	return hangs
}

// pauseLocked gives the mutex away for a time, or until the rules change. It reports
// whether the thread is being killed.
func (f *Faults) pauseLocked(d time.Duration, thread uint32) (killed bool) {
	if f.wake == nil {
		f.wake = make(chan struct{})
	}
	wake := f.wake
	f.mu.Unlock()
	defer f.mu.Lock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-wake:
		return false
	case <-timer.C:
		return dying(thread)
	}
}

// FaultStats says what has happened to operations so far.
type FaultStats struct {
	Passed  map[Op]int `json:"passed"`
	Failed  map[Op]int `json:"failed"`
	Lied    int        `json:"lied"`    // syncs that did nothing
	Hanging int        `json:"hanging"` // now
}

// Stats counts operations since the start.
func (f *Faults) Stats() FaultStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := FaultStats{Passed: maps.Clone(f.passed), Failed: maps.Clone(f.failed), Lied: f.lied, Hanging: f.hanging}
	for _, m := range []*map[Op]int{&s.Passed, &s.Failed} {
		if *m == nil {
			*m = map[Op]int{}
		}
	}
	return s
}

// parseErrno is the error of this name.
func parseErrno(name string) (syscall.Errno, error) {
	if e, ok := errnos[name]; ok {
		return e, nil
	}
	return 0, fmt.Errorf("error is %q: allowed are %s", name, strings.Join(slices.Sorted(maps.Keys(errnos)), ", "))
}

func opNames() string {
	names := make([]string, len(ops))
	for i, op := range ops {
		names[i] = string(op)
	}
	return strings.Join(names, ", ")
}
