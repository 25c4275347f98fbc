package raftlog

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

const (
	// DefaultSegmentSize is how long segment files become.
	DefaultSegmentSize = 16 << 20

	leastSegment = 2 * recordsAt
	// firstPart: a segment that does not follow a full one has this part of the size, and
	// the next ones twice the one before. So a small log is a small file.
	firstPart = 16
	// bufferKept is what is kept of the buffer between appends.
	bufferKept = 4 << 20
)

// ErrClosed says that the log was closed.
var ErrClosed = errors.New("the log is closed")

// Options say where a log is.
type Options struct {
	Dir  string // made if it is missing
	Mark *Mark  // what was acknowledged; required
	// SegmentSize is how long segment files become, at least 8 KiB; 0 is DefaultSegmentSize.
	SegmentSize int64
	// Snapshot returns the last entry of the newest snapshot, 0 without one. It is asked
	// when the log is emptied, because what was acknowledged is in the snapshot then. nil:
	// there is never one.
	Snapshot func() (index, term uint64, err error)
	FS       FS           // nil: that of the system
	Logger   *slog.Logger // nil: silent

	inline bool // for tests: nothing runs in the background
}

// Log is a log store of raft in segment files. It is safe for concurrent use.
type Log struct {
	o     Options
	ahead *ahead

	// first and last are 0 for an empty log. They are not behind a mutex, so that reading
	// them does not wait for the disk.
	first, last atomic.Uint64

	writing sync.Mutex // held by who writes; guards what follows
	failed  error      // the first failed write
	nextSeq uint64
	buf     []byte
	starts  []int64

	// mu guards what follows. It is held for reading while an entry is read, so that the file
	// is not given to another segment meanwhile.
	mu       sync.RWMutex
	segments []*segment // without a gap; the last one takes appends
	closed   bool
}

// IsMonotonic makes raft empty the log after it has restored a snapshot: there is never a
// gap in it.
func (l *Log) IsMonotonic() bool { return true }

// FirstIndex is 0 for an empty log.
func (l *Log) FirstIndex() (uint64, error) { return l.first.Load(), nil }

// LastIndex is 0 for an empty log.
func (l *Log) LastIndex() (uint64, error) { return l.last.Load(), nil }

// GetLog reads an entry and checks all of it. It returns raft.ErrLogNotFound for one that
// is not there, and a [DamageError] for one that is not what was stored.
func (l *Log) GetLog(index uint64, to *raft.Log) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return ErrClosed
	}
	if first := l.first.Load(); first == 0 || index < first || index > l.last.Load() {
		return raft.ErrLogNotFound
	}
	i := len(l.segments) - 1
	for len(l.segments[i].offsets) == 0 || l.segments[i].first > index {
		i--
	}
	s := l.segments[i]
	from, end := s.extent(index - s.first)
	b := make([]byte, end-from)
	if _, err := s.file.ReadAt(b, from); errors.Is(err, io.EOF) {
		return l.damage(s, index, from, errors.New("the file was cut"))
	} else if err != nil {
		return fmt.Errorf("read entry %d: %w", index, err)
	}
	h, err := parseHead(b, s.salt, from)
	if err == nil && (h.index != index || h.size() != end-from) {
		err = fmt.Errorf("found entry %d in the place of entry %d", h.index, index)
	}
	if err == nil {
		err = h.checkBody(b[headLen:])
	}
	if err != nil {
		return l.damage(s, index, from, err)
	}
	h.fill(to, b[headLen:])
	return nil
}

// StoreLog is StoreLogs with one entry.
func (l *Log) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs appends entries, all or none. They are durable when it returns nil.
//
// If no file can be made for the next segment, as on a full disk, nothing was written, the
// log is as it was, and the next append tries again. After any other error the log takes
// no more writes: after a failed sync the system may have thrown away what it could not
// write, and a second sync would succeed. Only opening it again finds out what is on disk.
func (l *Log) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.failed != nil {
		return l.failed
	}
	need, err := l.checkBatch(logs)
	if err != nil {
		return err
	}
	if s := l.active(); s.end+need > s.size {
		if err := l.beginNext(logs[0].Index, need); err != nil {
			return err
		}
	}
	s := l.active()
	l.buf, l.starts = l.buf[:0], l.starts[:0]
	for i, e := range logs {
		l.starts = append(l.starts, s.end+int64(len(l.buf)))
		l.buf = appendRecord(l.buf, s.salt, s.end+int64(len(l.buf)), e, i, len(logs))
	}
	if err := writeAll(s.file, l.buf, s.end); err != nil {
		return l.fail(s, "write entries", err)
	}
	if err := s.file.Sync(); err != nil {
		return l.fail(s, "sync entries", err)
	}
	first, last := l.first.Load(), logs[len(logs)-1]
	if first == 0 {
		first = logs[0].Index
	}
	if err := l.o.Mark.Advance(first, last.Index, last.Term); err != nil {
		return l.fail(s, "write the mark", err)
	}
	l.publish(s, logs[0].Index, first, last.Index)
	if cap(l.buf) > bufferKept {
		l.buf = nil
	}
	if s.end > s.size/2 {
		l.ahead.prepare(l.sizeAfter(s))
	}
	return nil
}

// checkBatch refuses what cannot be stored, and returns the length of the records.
func (l *Log) checkBatch(logs []*raft.Log) (need int64, err error) {
	next := l.last.Load() + 1
	if next == 1 {
		next = logs[0].Index
	}
	for _, e := range logs {
		if e.Index != next || e.Index == 0 || e.Index == math.MaxUint64 {
			return 0, fmt.Errorf("entry %d cannot be stored: the next entry of the log is %d", e.Index, next)
		}
		if int64(len(e.Data)) > math.MaxUint32 || int64(len(e.Extensions)) > math.MaxUint32 {
			return 0, fmt.Errorf("entry %d: is %d bytes long, must be at most %d", e.Index, len(e.Data)+len(e.Extensions), int64(math.MaxUint32))
		}
		next++
		need += recordSize(int64(len(e.Data)) + int64(len(e.Extensions)))
	}
	if need > maxSegment-recordsAt-zeroChunk {
		return 0, fmt.Errorf("entries %d to %d: are %d bytes long, must be at most %d at a time", logs[0].Index, next-1, need, int64(maxSegment-recordsAt-zeroChunk))
	}
	return need, nil
}

// publish lets readers see what was appended to s.
func (l *Log) publish(s *segment, index, first, last uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.first = index - uint64(len(s.offsets))
	for _, at := range l.starts {
		s.offsets = append(s.offsets, uint32(at/align)) //nolint:gosec // below maxSegment
	}
	s.end += int64(len(l.buf))
	l.last.Store(last)
	l.first.Store(first)
}

// DeleteRange cuts the log at one end, or empties it. It is durable when it returns nil;
// after an error the log takes no more writes, unless no file could be made.
func (l *Log) DeleteRange(from, to uint64) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.failed != nil {
		return l.failed
	}
	first, last := l.first.Load(), l.last.Load()
	switch {
	case last == 0 || to < first || from > last || from > to:
		return nil
	case from <= first && to >= last:
		return l.empty()
	case from <= first:
		return l.cutFront(to + 1)
	case to >= last:
		return l.cutBack(from)
	}
	return fmt.Errorf("entries %d to %d cannot be deleted: they lie in the middle of the log, which has %d to %d", from, to, first, last)
}

// cutFront makes first the first entry. The mark is what makes it durable.
func (l *Log) cutFront(first uint64) error {
	if err := l.o.Mark.Put(true, func(k *Known) { k.First = first }); err != nil {
		return l.fail(l.active(), "write the mark", err)
	}
	l.mu.Lock()
	l.first.Store(first)
	n := 0
	for n+1 < len(l.segments) && l.segments[n+1].first <= first {
		n++
	}
	gone := l.segments[:n]
	l.segments = append([]*segment(nil), l.segments[n:]...)
	l.mu.Unlock()
	return l.dispose(gone)
}

// cutBack makes from-1 the last entry. The new segment is what makes it durable: it says
// where the one before it ends. Nothing is overwritten, so nothing can come back.
func (l *Log) cutBack(from uint64) error {
	var keep raft.Log
	if err := l.GetLog(from-1, &keep); err != nil {
		return l.fail(l.active(), "cut the log", err)
	}
	if err := l.o.Mark.Lower(from-1, keep.Term); err != nil {
		return l.fail(l.active(), "write the mark", err)
	}
	n := len(l.segments)
	for l.segments[n-1].first >= from || len(l.segments[n-1].offsets) == 0 {
		n--
	}
	return l.replace(n, from, 0, l.partSize())
}

// empty makes the log empty. The new segment has no one before it.
func (l *Log) empty() error {
	var index, term uint64
	if l.o.Snapshot != nil {
		var err error
		if index, term, err = l.o.Snapshot(); err != nil {
			return err
		}
	}
	if err := l.o.Mark.Empty(index, term, l.nextSeq); err != nil {
		return l.fail(l.active(), "write the mark", err)
	}
	return l.replace(0, 0, 0, l.partSize())
}

// beginNext begins a segment behind a full one.
func (l *Log) beginNext(index uint64, need int64) error {
	if l.last.Load() == 0 {
		return l.replace(0, 0, need, l.partSize())
	}
	return l.replace(len(l.segments), index, need, l.sizeAfter(l.active()))
}

// replace begins a new segment with room for need bytes in place of all but the first keep
// ones. Of these, what comes from base on is not in the log any more.
func (l *Log) replace(keep int, base uint64, need, size int64) error {
	h := header{seq: l.nextSeq, base: base}
	if keep > 0 {
		h.prev = l.segments[keep-1].seq
	}
	size = max(size, (recordsAt+need+recordsAt-1)/recordsAt*recordsAt)
	s, unusable, err := begin(l.ahead, h, size)
	if err != nil {
		err = fmt.Errorf("begin segment %s: %w", filepath.Join(l.o.Dir, h.name()), err)
		if unusable {
			l.failed = err
		}
		return err
	}
	l.nextSeq++
	l.mu.Lock()
	gone := append([]*segment(nil), l.segments[keep:]...)
	l.segments = append(append([]*segment(nil), l.segments[:keep]...), s)
	if keep == 0 {
		l.first.Store(0)
		l.last.Store(0)
	} else {
		before := l.segments[keep-1]
		if len(before.offsets) > 0 && before.last() >= base {
			before.keep(int(base - before.first)) //nolint:gosec // not more than there are offsets
		}
		l.last.Store(base - 1)
	}
	l.mu.Unlock()
	return l.dispose(gone)
}

// dispose recycles or removes segments that are not in the log any more. Nothing depends
// on when that becomes durable: Open knows that they are not.
func (l *Log) dispose(gone []*segment) error {
	for _, s := range gone {
		if err := l.ahead.give(s, l.sizeAfter(l.active()), l.o.SegmentSize); err != nil {
			return l.fail(s, "remove a segment", err)
		}
	}
	return nil
}

func (l *Log) active() *segment { return l.segments[len(l.segments)-1] }

// partSize is the size of a segment that does not follow a full one.
func (l *Log) partSize() int64 { return max(l.o.SegmentSize/firstPart, leastSegment) }

// sizeAfter is the size of the segment that follows s when it is full.
func (l *Log) sizeAfter(s *segment) int64 { return min(2*max(s.size, l.partSize()), l.o.SegmentSize) }

// fail takes note of a failed write: there is no other one.
func (l *Log) fail(s *segment, what string, cause error) error {
	l.failed = fmt.Errorf("%s: %s: %w", filepath.Join(l.o.Dir, s.name()), what, cause)
	return l.failed
}

// Close waits for what is being written and closes the files, but not the mark. It may be
// called twice.
func (l *Log) Close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.failed == nil {
		l.failed = ErrClosed
	}
	err := l.ahead.close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	errs := []error{err}
	for _, s := range l.segments {
		errs = append(errs, s.file.Close())
	}
	return errors.Join(errs...)
}
