package raftlog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"path/filepath"
	"sync"
)

// Mark is a small file beside the log that remembers what was acknowledged. The log alone
// cannot tell a last append that was torn, which nobody has seen, from one that was
// acknowledged and is damaged, nor a log that was replaced by an earlier copy of itself.
// It also has the first entry of the log, and the term and the vote of the stable store,
// which can be replaced by an earlier copy as well.
//
// After an append it is written without a sync: kill -9 loses nothing then, and a loss of
// power makes it older, never newer than the log. Before the log is cut, at either end, it
// is written and synced: so it never asks for what was cut on purpose. Two slots in sectors
// of their own are written in turn, so that a torn write leaves the other one.
//
// It is safe for concurrent use. After a failed write it refuses every other one.
type Mark struct {
	mu     sync.Mutex // guards what follows
	f      File
	seq    uint64
	known  Known
	failed error
	buf    []byte
}

// Known is what a Mark remembers; zero where nothing is known.
type Known struct {
	// First is the first entry of the log; 0 if nothing is known.
	First uint64
	// Index and Term are the last entry that was acknowledged, or of the snapshot with
	// which the log was emptied.
	Index, Term uint64
	// CurrentTerm and VoteTerm are the term that was saved, and that of the last vote.
	CurrentTerm, VoteTerm uint64
	// Emptied is set when the log was emptied on purpose, until the next append: it is the
	// number of the segment with which it begins anew, or 1 for a log in another store.
	Emptied uint64
}

// demands says that the log has to have the entries from First to Index.
func (k Known) demands() bool { return k.First != 0 && k.Emptied == 0 }

const (
	markSlot = 512
	markLen  = 7*8 + 4 // sequence, six numbers, checksum
)

// OpenMark opens the file or makes it, durably.
func OpenMark(fs FS, path string) (*Mark, error) {
	dir, name := filepath.Split(path)
	names, err := fs.ReadDir(filepath.Clean(dir))
	if err != nil {
		return nil, err
	}
	open, isNew := fs.Open, true
	for _, n := range names {
		isNew = isNew && n != name
	}
	if isNew {
		open = fs.Create
	}
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	m := &Mark{f: f}
	if isNew {
		err = errors.Join(m.Put(true, func(*Known) {}), fs.SyncDir(filepath.Clean(dir)))
	} else {
		err = m.load()
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return m, nil
}

// load takes the newer of the valid slots. Both may be empty after a loss of power in the
// first moment: then nothing is known, and nothing is demanded.
func (m *Mark) load() error {
	buf := make([]byte, 2*markSlot)
	n, err := m.f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	clear(buf[n:])
	bad := false
	for off := 0; off < len(buf); off += markSlot {
		seq, known, ok := decodeMark(buf[off:])
		switch {
		case !ok:
			bad = bad || seq != 0
		case seq > m.seq:
			m.seq, m.known = seq, known
		}
	}
	if bad && m.seq == 0 {
		return errors.New("no slot of it is valid")
	}
	return nil
}

func encodeMark(b []byte, seq uint64, k Known) []byte {
	for _, v := range []uint64{seq, k.First, k.Index, k.Term, k.CurrentTerm, k.VoteTerm, k.Emptied} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeMark(b []byte) (seq uint64, k Known, ok bool) {
	number := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	k = Known{First: number(1), Index: number(2), Term: number(3), CurrentTerm: number(4), VoteTerm: number(5), Emptied: number(6)}
	sum := binary.LittleEndian.Uint32(b[markLen-4:])
	return number(0), k, sum == crc32.Checksum(b[:markLen-4], castagnoli)
}

// Advance says that a log that begins with first was extended to this entry.
func (m *Mark) Advance(first, index, term uint64) error {
	return m.Put(false, func(k *Known) { k.First, k.Index, k.Term, k.Emptied = first, index, term, 0 })
}

// Lower says, durably, that the log is about to be cut after this entry.
func (m *Mark) Lower(index, term uint64) error {
	return m.Put(true, func(k *Known) { k.Index, k.Term = index, term })
}

// Empty says, durably, that the log is about to be emptied and to begin anew with a
// segment, when there is a snapshot up to this entry; 0 without a snapshot.
func (m *Mark) Empty(index, term, segment uint64) error {
	return m.Put(true, func(k *Known) { k.Index, k.Term, k.Emptied = index, term, segment })
}

// Put changes what is known, and syncs it if it has to be durable. A nil Mark does nothing.
func (m *Mark) Put(durable bool, change func(*Known)) error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed != nil {
		return m.failed
	}
	next := m.known
	change(&next)
	m.buf = encodeMark(m.buf[:0], m.seq+1, next)
	_, err := m.f.WriteAt(m.buf, int64((m.seq+1)%2)*markSlot) //nolint:gosec // 0 or 1
	if err == nil && durable {
		err = m.f.Sync()
	}
	if err != nil {
		m.failed = err
		return err
	}
	m.seq, m.known = m.seq+1, next
	return nil
}

// Known is what the mark remembers. Of a nil Mark it is nothing.
func (m *Mark) Known() Known {
	if m == nil {
		return Known{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known
}

// Close makes the mark durable: it may be newer than the last sync.
func (m *Mark) Close() error { return errors.Join(m.f.Sync(), m.f.Close()) }
