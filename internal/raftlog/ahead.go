package raftlog

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// A free file is next-NUMBER.tmp. What it holds does not matter: a segment begins with a
	// salt that was never used before.
	freePrefix, freeSuffix = "next-", ".tmp"

	// mostFree are kept: the front of the log is cut after a snapshot, which frees some
	// files at once that are needed until the next one.
	mostFree = 4

	// zeroChunk is written and synced at a time, so that a sync of the log does not wait for
	// more than that.
	zeroChunk = 256 << 10
)

var zeros [zeroChunk]byte

func isFree(name string) bool {
	return strings.HasPrefix(name, freePrefix) && strings.HasSuffix(name, freeSuffix)
}

// free is a file that a segment can begin in: its blocks are all written.
type free struct {
	path string
	file File
	size int64
}

// ahead has the files for the next segments, and makes one in the background.
type ahead struct {
	fs     FS
	dir    string
	logger *slog.Logger
	inline bool // for tests: no goroutine
	stop   atomic.Bool
	done   sync.WaitGroup // of the goroutine

	mu     sync.Mutex // guards what follows
	idle   sync.Cond  // signalled when busy ends
	busy   bool
	ready  []*free
	number uint64 // of the last file
}

func newAhead(fs FS, dir string, logger *slog.Logger) *ahead {
	a := &ahead{fs: fs, dir: dir, logger: logger}
	a.idle.L = &a.mu
	return a
}

func (a *ahead) newPathLocked() string {
	a.number++
	return filepath.Join(a.dir, fmt.Sprintf("%s%d%s", freePrefix, a.number, freeSuffix))
}

// adopt takes over a file that an earlier life has left, if it has one of the sizes that
// are needed, or removes it: it was not finished then. Its end may not be durable yet; the
// sync of the segment's header sees to that.
func (a *ahead) adopt(name string, fits func(size int64) bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	path := filepath.Join(a.dir, name)
	f, err := a.fs.Open(path)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err == nil && (len(a.ready) >= mostFree || !fits(size)) {
		return errors.Join(f.Close(), a.fs.Remove(path))
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	var n uint64
	if _, err := fmt.Sscanf(name, freePrefix+"%d"+freeSuffix, &n); err == nil {
		a.number = max(a.number, n)
	}
	a.ready = append(a.ready, &free{path, f, size})
	return nil
}

// prepare has a file of the size made, unless there is one already.
func (a *ahead) prepare(size int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy || a.stop.Load() || slices.ContainsFunc(a.ready, func(f *free) bool { return f.size >= size }) {
		return
	}
	a.busy = true
	small := a.ready // a log that has grown does not need them
	a.ready = nil
	path := a.newPathLocked()
	run := func() {
		err := a.remove(small)
		made, err2 := a.make(path, size)
		if err = errors.Join(err, err2); err != nil && !errors.Is(err, errStopped) {
			a.logger.Warn("the next segment of the log cannot be prepared; it is tried again when it is needed", "dir", a.dir, "err", err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.busy = false; made != nil {
			a.ready = append(a.ready, made)
		}
		a.idle.Broadcast()
	}
	if a.inline {
		a.mu.Unlock()
		run()
		a.mu.Lock()
		return
	}
	a.done.Go(run)
}

var errStopped = errors.New("the log is being closed")

// make writes a file of zeros. If that fails the file is removed: nothing relies on it.
func (a *ahead) make(path string, size int64) (*free, error) {
	f, err := a.fs.Create(path)
	if err != nil {
		return nil, err
	}
	for at := int64(0); at < size && err == nil; at += zeroChunk {
		if a.stop.Load() {
			err = errStopped
			break
		}
		if err = writeAll(f, zeros[:min(zeroChunk, size-at)], at); err == nil {
			err = f.Sync()
		}
	}
	if err == nil {
		// The name has to be that of this file before it is renamed: after a loss of power
		// an earlier file with the name could otherwise be the segment.
		err = a.fs.SyncDir(a.dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), a.fs.Remove(path))
	}
	return &free{path, f, size}, nil
}

// remove gives files up.
func (a *ahead) remove(files []*free) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.file.Close(), a.fs.Remove(f.path))
	}
	return errors.Join(errs...)
}

// take returns the shortest file of at least the size, or a new one.
func (a *ahead) take(size int64) (*free, error) {
	a.mu.Lock()
	for a.busy {
		a.idle.Wait()
	}
	best := -1
	for i, f := range a.ready {
		if f.size >= size && (best < 0 || f.size < a.ready[best].size) {
			best = i
		}
	}
	if best >= 0 {
		f := a.ready[best]
		a.ready = slices.Delete(a.ready, best, best+1)
		a.mu.Unlock()
		return f, nil
	}
	path := a.newPathLocked()
	a.mu.Unlock()
	return a.make(path, size)
}

// give keeps the file of a segment that is not needed any more, if it is long enough for
// the next one, or removes it. The segment has no readers, and the cut that made it useless
// is durable.
func (a *ahead) give(s *segment, least, most int64) error {
	path := filepath.Join(a.dir, s.name())
	a.mu.Lock()
	keep := len(a.ready) < mostFree && s.size >= least && s.size <= most
	f := &free{a.newPathLocked(), s.file, s.size}
	a.mu.Unlock()
	if !keep {
		return errors.Join(s.file.Close(), a.fs.Remove(path))
	}
	// The old name has to be gone before anything is written to the file: after a loss of
	// power it would otherwise be the name of another segment.
	if err := errors.Join(a.fs.Rename(path, f.path), a.fs.SyncDir(a.dir)); err != nil {
		return errors.Join(err, s.file.Close())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ready = append(a.ready, f)
	return nil
}

// close stops the goroutine after the chunk that it writes, and waits for it.
func (a *ahead) close() error {
	a.stop.Store(true)
	a.done.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, f := range a.ready {
		errs = append(errs, f.file.Close())
	}
	a.ready = nil
	return errors.Join(errs...)
}

// writeAll writes all of b or returns an error.
func writeAll(f File, b []byte, at int64) error {
	n, err := f.WriteAt(b, at)
	if err == nil && n < len(b) {
		err = fmt.Errorf("%d of %d bytes were written: %w", n, len(b), io.ErrShortWrite)
	}
	return err
}
