package raftlog

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"path/filepath"
	"strconv"
	"strings"
)

// A segment file begins with a header; records follow at recordsAt. The header has a block
// of 4 KiB of its own, so that no later write can tear it. All numbers are little-endian.
//
//	 0  8  "lnraftl1"
//	 8  8  sequence number
//	16  8  sequence number of the segment before it; 0: there is none
//	24  8  index of the first entry; 0: the log was empty, the first record says it
//	32  8  salt: random, of this life of the file
//	40  8  length of the file
//	48  4  CRC32C over what is before it
//
// The name repeats the sequence number and the first index.
const (
	magic      = "lnraftl1"
	headerLen  = 52
	recordsAt  = 4096
	segmentExt = ".wal"

	// An offset in memory counts units of 8 bytes in 32 bits.
	maxSegment = align * math.MaxUint32
)

// header is what a segment file says of itself.
type header struct {
	seq, prev uint64
	base      uint64
	salt      uint64
	size      int64
}

func (h header) name() string {
	return fmt.Sprintf("%020d-%016x%s", h.base, h.seq, segmentExt)
}

// parseName reads sequence number and first index from a name.
func parseName(name string) (seq, base uint64, err error) {
	first, second, ok := strings.Cut(strings.TrimSuffix(name, segmentExt), "-")
	base, err1 := strconv.ParseUint(first, 10, 64)
	seq, err2 := strconv.ParseUint(second, 16, 64)
	if !ok || err1 != nil || err2 != nil || seq == 0 || name != (header{seq: seq, base: base}).name() {
		return 0, 0, errors.New("the name is not that of a segment")
	}
	return seq, base, nil
}

func (h header) encode() []byte {
	le := binary.LittleEndian
	b := append(make([]byte, 0, headerLen), magic...)
	for _, v := range []uint64{h.seq, h.prev, h.base, h.salt, uint64(h.size)} { //nolint:gosec // never negative
		b = le.AppendUint64(b, v)
	}
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeHeader(b []byte) (header, error) {
	le := binary.LittleEndian
	if string(b[:len(magic)]) != magic {
		return header{}, errors.New("the file does not begin as a segment of this format")
	}
	if got, stored := crc32.Checksum(b[:headerLen-4], castagnoli), le.Uint32(b[headerLen-4:]); got != stored {
		return header{}, fmt.Errorf("header: %w", sumError{got, stored})
	}
	return header{
		seq: le.Uint64(b[8:]), prev: le.Uint64(b[16:]), base: le.Uint64(b[24:]),
		salt: le.Uint64(b[32:]), size: int64(le.Uint64(b[40:])), //nolint:gosec // compared with the file's
	}, nil
}

// segment is an open segment file and the index of its entries.
type segment struct {
	header
	file    File
	first   uint64   // index of its first entry: base, or what the first record says
	offsets []uint32 // of its entries, in units of align
	end     int64    // of the last one
}

// openSegment checks the header against name and length of the file.
func openSegment(fs FS, dir, name string) (s *segment, err error) {
	f, err := fs.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	length, err := f.Size()
	if err != nil {
		return nil, err
	}
	var b [headerLen]byte
	if n, err := f.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	} else if n < len(b) {
		return nil, fmt.Errorf("the file was cut: it has %d bytes, and the header alone %d", length, headerLen)
	}
	h, err := decodeHeader(b[:])
	if err != nil {
		return nil, err
	}
	if h.name() != name {
		return nil, fmt.Errorf("the file is segment %s under the name of another one", h.name())
	}
	if h.size != length || h.size < recordsAt || h.size > maxSegment || h.prev >= h.seq {
		return nil, fmt.Errorf("the file has %d bytes, must have %d: it was cut or extended", length, h.size)
	}
	return &segment{header: h, file: f, first: h.base, end: recordsAt}, nil
}

// begin writes the header of a new segment over a free file and gives it its name: when it
// returns, the segment is durable. unusable says that it is not known what is on disk.
func begin(a *ahead, h header, least int64) (s *segment, unusable bool, err error) {
	f, err := a.take(least)
	if err != nil {
		return nil, false, err
	}
	h.size, h.salt = f.size, newSalt()
	err = writeAll(f.file, h.encode(), 0)
	if err == nil {
		err = f.file.Sync()
	}
	if err == nil {
		err = a.fs.Rename(f.path, filepath.Join(a.dir, h.name()))
	}
	if err == nil {
		err = a.fs.SyncDir(a.dir)
	}
	if err != nil {
		return nil, true, errors.Join(err, f.file.Close())
	}
	return &segment{header: h, file: f.file, first: h.base, end: recordsAt}, false, nil
}

// newSalt is random. Its upper half, the tag of the records, is not zero: zeros are what a
// new file is full of.
func newSalt() uint64 {
	for {
		var b [8]byte
		rand.Read(b[:])
		if salt := binary.LittleEndian.Uint64(b[:]); tagOf(salt) != 0 {
			return salt
		}
	}
}

// add notes that a record ends at end.
func (s *segment) add(offset, end int64) {
	s.offsets = append(s.offsets, uint32(offset/align)) //nolint:gosec // below maxSegment
	s.end = end
}

// keep forgets all but the first n records.
func (s *segment) keep(n int) {
	if n < len(s.offsets) {
		s.end = int64(s.offsets[n]) * align
		s.offsets = s.offsets[:n]
	}
}

// extent is where the i-th record lies.
func (s *segment) extent(i uint64) (from, to int64) {
	from, to = int64(s.offsets[i])*align, s.end
	if i+1 < uint64(len(s.offsets)) {
		to = int64(s.offsets[i+1]) * align
	}
	return from, to
}

// last is the index of the last entry, if there is one.
func (s *segment) last() uint64 { return s.first + uint64(len(s.offsets)) - 1 }
