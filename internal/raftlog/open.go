package raftlog

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"
)

// ErrDamaged says that the log is not what was stored. It must not be used.
var ErrDamaged = errors.New("the log is damaged")

// DamageError says where the log is damaged. It is an [ErrDamaged]. An error of the system
// never is one. The caller adds what to do: the node has to get its entries from the others.
type DamageError struct {
	Dir    string
	File   string // name in Dir; empty: of no file
	Index  uint64 // of the entry; 0: of none
	Offset int64  // in the file
	Cause  error
}

// Place is where the damage is.
func (e *DamageError) Place() string {
	switch {
	case e.Index != 0:
		return fmt.Sprintf("entry %d of the log in %s (file %s, offset %d)", e.Index, e.Dir, e.File, e.Offset)
	case e.File != "":
		return filepath.Join(e.Dir, e.File)
	}
	return e.Dir
}

func (e *DamageError) Error() string { return fmt.Sprintf("%s: %v", e.Place(), e.Cause) }

// Is makes it an ErrDamaged.
func (e *DamageError) Is(target error) bool { return target == ErrDamaged }
func (e *DamageError) Unwrap() error        { return e.Cause }

func (l *Log) damage(s *segment, index uint64, offset int64, cause error) error {
	return &DamageError{Dir: l.o.Dir, File: s.name(), Index: index, Offset: offset, Cause: cause}
}

// Open opens a log, or makes a new one, and reads all of it. It returns a [DamageError] if
// anything that was acknowledged is missing or not what was stored; the directory is then
// as it was. What it returns otherwise is durable.
func Open(o Options) (*Log, error) {
	if o.FS == nil {
		o.FS = OS{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = DefaultSegmentSize
	}
	o.SegmentSize = max(o.SegmentSize, leastSegment)
	l := &Log{o: o, ahead: newAhead(o.FS, o.Dir, o.Logger), nextSeq: 1}
	l.ahead.inline = o.inline
	if err := l.open(); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

func (l *Log) open() error {
	if err := l.o.FS.MkdirAll(l.o.Dir); err != nil {
		return err
	}
	found, err := l.find()
	if err != nil {
		return err
	}
	live, err := l.chain(found)
	if err != nil {
		closeAll(found)
		return err
	}
	l.segments = live // Close closes them
	dead := without(found, live)
	tail, err := l.scan(live)
	if err == nil {
		err = l.compare(live)
	}
	// The log is whole. Only now is anything written, or removed.
	if err == nil {
		err = l.adopt()
	}
	if err == nil {
		err = l.settle(tail)
	}
	if err != nil {
		closeAll(dead)
		return err
	}
	return l.dispose(dead)
}

// adopt takes over the files that an earlier life has made ready.
func (l *Log) adopt() error {
	names, err := l.o.FS.ReadDir(l.o.Dir)
	if err != nil {
		return err
	}
	fits := func(size int64) bool {
		for s := l.partSize(); ; s = min(2*s, l.o.SegmentSize) {
			if s >= size || s >= l.o.SegmentSize {
				return s == size
			}
		}
	}
	for _, name := range names {
		if isFree(name) {
			if err := l.ahead.adopt(name, fits); err != nil {
				return err
			}
		}
	}
	return nil
}

func closeAll(segments []*segment) {
	for _, s := range segments {
		_ = s.file.Close()
	}
}

// find opens all segments, the oldest first.
func (l *Log) find() (found []*segment, err error) {
	names, err := l.o.FS.ReadDir(l.o.Dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			closeAll(found)
			found = nil
		}
	}()
	if slices.Contains(names, "wal-meta.db") {
		return nil, &DamageError{Dir: l.o.Dir, Cause: errors.New("the log has the format of a version before 0.1.0 (there is a file wal-meta.db), which this version does not read")}
	}
	for _, name := range names {
		if filepath.Ext(name) != segmentExt {
			continue
		}
		seq, _, err := parseName(name)
		if err != nil {
			return found, &DamageError{Dir: l.o.Dir, File: name, Cause: err}
		}
		s, err := openSegment(l.o.FS, l.o.Dir, name)
		if err != nil {
			return found, named(l.o.Dir, name, err)
		}
		found = append(found, s)
		l.nextSeq = max(l.nextSeq, seq+1)
	}
	slices.SortFunc(found, func(a, b *segment) int { return cmp.Compare(a.seq, b.seq) })
	for i := 1; i < len(found); i++ {
		if a, b := found[i-1], found[i]; a.seq == b.seq {
			return found, &DamageError{Dir: l.o.Dir, File: b.name(), Cause: fmt.Errorf("it has the number of %s", a.name())}
		}
	}
	return found, nil
}

// named says which file an error is about. An error of the system is no damage.
func named(dir, name string, err error) error {
	if ofSystem(err) {
		return fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
	}
	return &DamageError{Dir: dir, File: name, Cause: err}
}

// ofSystem tells an error of the system from what is said here of a file's contents.
func ofSystem(err error) bool {
	var sys interface{ Timeout() bool } // syscall.Errno and fs.PathError have it
	return errors.As(err, &sys)
}

// chain returns the segments that are the log: the newest one, and from each the one that
// it names as the one before it, back to the one that has the first entry. The others were
// cut off or emptied, and the process ended before they were removed.
func (l *Log) chain(found []*segment) (live []*segment, err error) {
	known := l.o.Mark.Known()
	if len(found) == 0 {
		if known.demands() {
			return nil, &DamageError{Dir: l.o.Dir, Cause: fmt.Errorf("the log is empty, but entries %d to %d were acknowledged", known.First, known.Index)}
		}
		return nil, nil
	}
	bySeq := make(map[uint64]*segment, len(found))
	for _, s := range found {
		bySeq[s.seq] = s
	}
	for s := found[len(found)-1]; ; {
		live = append(live, s)
		if s.prev == 0 || known.First != 0 && s.base <= known.First {
			break
		}
		before := bySeq[s.prev]
		if before == nil {
			if !known.demands() { // nothing says that there must be more
				break
			}
			return nil, &DamageError{Dir: l.o.Dir, File: s.name(), Cause: fmt.Errorf("the segment before it, number %016x, is missing: it has entries up to %d, and entries from %d on were acknowledged",
				s.prev, s.base-1, known.First)}
		}
		if s.base == 0 || before.base > s.base {
			return nil, &DamageError{Dir: l.o.Dir, File: s.name(), Cause: fmt.Errorf("it begins before the segment before it, %s", before.name())}
		}
		s = before
	}
	slices.Reverse(live)
	return live, nil
}

// tail says what lies behind the last entry of the last segment.
type tail struct {
	lastTerm uint64
	lastAt   int64 // where the last append begins; 0: the segment has none
	torn     bool  // parts of an append that was not acknowledged
}

// scan reads all records.
func (l *Log) scan(live []*segment) (tail, error) {
	var t tail
	for i, s := range live {
		t.lastAt, t.torn = 0, false
		r := &reader{file: s.file, size: s.size}
		var limit uint64
		if i+1 < len(live) {
			limit = live[i+1].base
		}
		if err := l.scanSegment(s, r, limit, &t); err != nil {
			return t, err
		}
		if len(s.offsets) == 0 {
			continue
		}
		if l.first.Load() == 0 {
			l.first.Store(s.first)
		}
		l.last.Store(s.last())
	}
	return t, nil
}

// scanSegment reads the records of s up to the entry before limit; limit 0: up to the last
// one. In the last segment, what does not read on is told from damage.
func (l *Log) scanSegment(s *segment, r *reader, limit uint64, t *tail) error {
	var append head // of the entry before
	for index := s.first; limit == 0 || index < limit; {
		at := s.end
		h, err := r.record(s.salt, at)
		if err == nil && index == 0 && h.position == 0 { // the log was empty
			index, s.first = h.index, h.index
		}
		switch {
		case err != nil:
		case h.index != index:
			err = fmt.Errorf("found entry %d in the place of entry %d", h.index, index)
		case h.position != 0 && (h.position != append.position+1 || h.entries != append.entries),
			h.position == 0 && append.position+1 < append.entries:
			err = fmt.Errorf("number %d of %d entries follows number %d of %d", h.position, h.entries, append.position, append.entries)
		case h.term < t.lastTerm:
			err = fmt.Errorf("term falls from %d to %d", t.lastTerm, h.term)
		}
		if err != nil {
			switch {
			case ofSystem(err):
				return fmt.Errorf("read entry %d: %w", index, err)
			case limit != 0:
				return l.damage(s, index, at, err)
			}
			return l.endOfLog(s, r, index, append, err, t)
		}
		if h.position == 0 {
			t.lastAt = at
		}
		t.lastTerm, append = h.term, h
		s.add(at, at+h.size())
		index++
	}
	return nil
}

// endOfLog decides what it means that entry index cannot be read in the last segment: the
// log ends there, or an append was torn, or an acknowledged entry is damaged.
//
//   - The mark says that it was acknowledged: it is damaged.
//   - A later append was begun: then this one was acknowledged, so it is damaged.
//   - Otherwise the append to which it belongs was not acknowledged.
func (l *Log) endOfLog(s *segment, r *reader, index uint64, before head, cause error, t *tail) error {
	at := s.end
	begins := index
	if before.position+1 < before.entries { // it belongs to an append that was begun
		begins = before.begins()
	}
	known := l.o.Mark.Known()
	if known.demands() && known.Index >= begins {
		if errors.Is(cause, errNoRecord) {
			return l.damage(s, max(index, known.First), at, fmt.Errorf("the log ends at entry %d, but entry %d was acknowledged", max(index, known.First)-1, known.Index))
		}
		return l.damage(s, max(index, known.First), at, fmt.Errorf("%w; it was acknowledged: the mark says so up to entry %d", cause, known.Index))
	}
	trace, later, err := r.search(s.salt, at, index)
	if err != nil {
		return err
	}
	if later != 0 {
		return l.damage(s, index, at, fmt.Errorf("%w; it was acknowledged: entries from %d on were appended after it", cause, later))
	}
	t.torn = trace
	if begins < index {
		s.keep(int(begins - s.first)) //nolint:gosec // not more than there are offsets
		t.torn = true
		t.lastAt = 0 // what is before an append that was begun is durable
	}
	return nil
}

// compare holds the log against the mark.
func (l *Log) compare(live []*segment) error {
	known, first, last := l.o.Mark.Known(), l.first.Load(), l.last.Load()
	if known.First == 0 || len(live) == 0 {
		return nil
	}
	if known.Emptied != 0 {
		if root := live[0]; root.prev == 0 && root.seq == known.Emptied {
			return nil // it was emptied, and what it had before does not matter any more
		}
		// The process ended before it was: it begins where it did.
		if first <= known.First && known.First <= last {
			l.first.Store(known.First)
		}
		return nil
	}
	end := live[len(live)-1]
	switch {
	case last == 0:
		return &DamageError{Dir: l.o.Dir, File: end.name(), Cause: fmt.Errorf("the log is empty, but entries %d to %d were acknowledged", known.First, known.Index)}
	case last < known.Index:
		return &DamageError{Dir: l.o.Dir, File: end.name(), Cause: fmt.Errorf("the log ends at entry %d, but entry %d was acknowledged", last, known.Index)}
	case first > known.First:
		return &DamageError{Dir: l.o.Dir, File: live[0].name(), Cause: fmt.Errorf("the log begins at entry %d, but entries from %d on were acknowledged", first, known.First)}
	}
	l.first.Store(known.First)
	if known.Index < known.First {
		return nil
	}
	var e raft.Log
	if err := l.GetLog(known.Index, &e); err != nil {
		return err
	}
	if e.Term != known.Term {
		return &DamageError{Dir: l.o.Dir, File: end.name(), Cause: fmt.Errorf("entry %d is of term %d, but was acknowledged with term %d", e.Index, e.Term, known.Term)}
	}
	return nil
}

// settle makes durable what was read, and begins a new segment where the last one has parts
// of an append that was not acknowledged.
//
// What was read may be in the memory of the system only: the process before this one ended
// before its sync, or its sync failed, and then the system may take for written what is not.
// So the last append and the mark are written again, as they are, and synced. All that is
// before them was synced before the last append began.
func (l *Log) settle(t tail) error {
	if len(l.segments) > 0 && t.lastAt != 0 {
		s := l.active()
		b := make([]byte, s.end-t.lastAt)
		if _, err := s.file.ReadAt(b, t.lastAt); err != nil {
			return err
		}
		if err := writeAll(s.file, b, t.lastAt); err != nil {
			return err
		}
		if err := s.file.Sync(); err != nil {
			return err
		}
	}
	// A name that the process before this one could not make durable any more.
	if err := errors.Join(l.o.FS.SyncDir(l.o.Dir), l.o.FS.SyncDir(filepath.Dir(l.o.Dir))); err != nil {
		return err
	}
	first, last := l.first.Load(), l.last.Load()
	if err := l.o.Mark.Put(true, func(k *Known) {
		if last > k.Index {
			k.First, k.Index, k.Term, k.Emptied = first, last, t.lastTerm, 0
		}
	}); err != nil {
		return err
	}
	switch {
	case len(l.segments) == 0, t.torn && last == 0:
		return l.replace(0, 0, 0, l.partSize())
	case t.torn:
		return l.replace(len(l.segments), last+1, 0, l.partSize())
	}
	return nil
}

func without(all, some []*segment) (rest []*segment) {
	for _, s := range all {
		if !slices.Contains(some, s) {
			rest = append(rest, s)
		}
	}
	return rest
}

// reader reads a segment through a window that moves forward.
type reader struct {
	file File
	size int64
	at   int64 // where buf begins
	buf  []byte
}

const window = 256 << 10

// bytes returns n bytes at offset, or fewer at the end of the file.
func (r *reader) bytes(offset, n int64) ([]byte, error) {
	n = min(n, r.size-offset)
	if n <= 0 {
		return nil, nil
	}
	if offset < r.at || offset+n > r.at+int64(len(r.buf)) {
		want := min(max(n, window), r.size-offset)
		if int64(cap(r.buf)) < want {
			r.buf = make([]byte, want)
		}
		r.buf, r.at = r.buf[:want], offset
		got, err := r.file.ReadAt(r.buf, offset)
		if err != nil && !errors.Is(err, io.EOF) {
			r.buf = r.buf[:0]
			return nil, err
		}
		r.buf = r.buf[:got]
	}
	from := offset - r.at
	return r.buf[from:min(from+n, int64(len(r.buf)))], nil
}

// record checks the record at offset.
func (r *reader) record(salt uint64, offset int64) (head, error) {
	b, err := r.bytes(offset, headLen)
	if err != nil {
		return head{}, err
	}
	if len(b) < headLen {
		return head{}, errNoRecord
	}
	h, err := parseHead(b, salt, offset)
	if err != nil {
		return head{}, err
	}
	if h.size() > r.size-offset {
		return head{}, fmt.Errorf("%d bytes do not fit into the file", h.size())
	}
	if b, err = r.bytes(offset, h.size()); err != nil {
		return head{}, err
	}
	if int64(len(b)) < h.size() {
		return head{}, io.ErrUnexpectedEOF
	}
	return h, h.checkBody(b[headLen:])
}

// search looks behind offset, where entry index cannot be read, for what this life of the
// file has written. trace: there is something. later: the first entry of an append that
// was begun after the one with index; 0: there is none.
func (r *reader) search(salt uint64, offset int64, index uint64) (trace bool, later uint64, err error) {
	for at := offset; at < r.size; at += window / 2 {
		b, err := r.bytes(at, window/2+headLen)
		if err != nil {
			return false, 0, err
		}
		for i := 0; i < window/2 && i+headLen <= len(b); i += align {
			if binary.LittleEndian.Uint32(b[i:]) != tagOf(salt) {
				continue
			}
			trace = true
			h, err := parseHead(b[i:], salt, at+int64(i))
			if err == nil && (h.position == 0 && at+int64(i) > offset || index != 0 && h.begins() > index) {
				return true, h.begins(), nil
			}
		}
	}
	return trace, 0, nil
}
