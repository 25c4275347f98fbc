package guard

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"sync"
)

// mark remembers the last entry that was acknowledged, beside the log. Without
// it, a log whose end was lost (a flipped byte in the last batch or in a frame
// header, which raft-wal takes for a torn write; a deleted tail segment; a
// deleted log with a snapshot beside it) looks like a shorter log, and a node
// that has forgotten acknowledged entries can elect a leader without them.
//
// advance writes without fsync after each append: kill -9 loses nothing, power
// loss makes the mark older, never newer than the log. lower is durable and
// comes before the log is cut. Two slots in separate sectors are written in
// turn, so that a torn write leaves the other one. A nil mark does nothing.
type mark struct {
	mu   sync.Mutex // guards what follows
	f    *os.File
	seq  uint64
	know marked
}

// marked is what was acknowledged; zero where nothing is known.
type marked struct {
	index, term   uint64 // the last entry of the log, or of the snapshot if it is empty
	current, vote uint64 // the current term, and the term of the last vote
	lowered       bool   // the log was cut here on purpose, or emptied
}

// emptied says that raft itself has emptied the log, and there was no snapshot.
func (k marked) emptied() bool { return k.lowered && k.index == 0 }

const (
	markSlot = 512
	markLen  = 5*8 + 1 + 4 // sequence, four numbers, lowered, checksum
	markFile = "mark"
)

// openMark opens or creates the file. It does not fsync the directory.
func openMark(path string) (*mark, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	m := &mark{f: f}
	if err := m.load(); err != nil {
		_ = f.Close()
		return nil, err
	}
	return m, nil
}

// load takes the newer of the valid slots. After power loss both may be empty:
// then nothing is known, and nothing is demanded.
func (m *mark) load() error {
	buf := make([]byte, 2*markSlot)
	n, err := m.f.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	clear(buf[n:])
	bad := false
	for off := 0; off < len(buf); off += markSlot {
		seq, know, ok := decodeMark(buf[off:])
		switch {
		case !ok:
			bad = bad || seq != 0
		case seq > m.seq:
			m.seq, m.know = seq, know
		}
	}
	if bad && m.seq == 0 {
		return errors.New("no slot of it is valid")
	}
	return nil
}

func encodeMark(seq uint64, k marked) []byte {
	b := make([]byte, 0, markLen)
	for _, v := range []uint64{seq, k.index, k.term, k.current, k.vote} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	lowered := byte(0)
	if k.lowered {
		lowered = 1
	}
	b = append(b, lowered)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeMark(b []byte) (seq uint64, k marked, ok bool) {
	number := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	k = marked{index: number(1), term: number(2), current: number(3), vote: number(4), lowered: b[40] == 1}
	sum := binary.LittleEndian.Uint32(b[markLen-4:])
	return number(0), k, sum == crc32.Checksum(b[:markLen-4], castagnoli)
}

// advance says that the log was extended to this entry.
func (m *mark) advance(index, term uint64) error {
	return m.put(false, func(k *marked) { k.index, k.term, k.lowered = index, term, false })
}

// lower says that the log is about to be cut after this entry, or emptied, with a
// snapshot up to this entry.
func (m *mark) lower(index, term uint64) error {
	return m.put(true, func(k *marked) { k.index, k.term, k.lowered = index, term, true })
}

// promise says that a term or a vote was saved.
func (m *mark) promise(key string, term uint64) error {
	return m.put(false, func(k *marked) {
		if key == keyTermRecord {
			k.current = term
		} else {
			k.vote = term
		}
	})
}

func (m *mark) put(durable bool, change func(*marked)) error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.know
	change(&next)
	if _, err := m.f.WriteAt(encodeMark(m.seq+1, next), int64((m.seq+1)%2)*markSlot); err != nil {
		return err
	}
	m.seq, m.know = m.seq+1, next
	if durable {
		return m.f.Sync()
	}
	return nil
}

func (m *mark) last() marked {
	if m == nil {
		return marked{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.know
}

// Close makes the mark durable: it may be newer than the last fsync.
func (m *mark) Close() error { return errors.Join(m.f.Sync(), m.f.Close()) }
