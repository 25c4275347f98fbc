package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A record is one entry: a head of 64 bytes, the data, the extensions, and zeros up to a
// multiple of 8. All numbers are little-endian.
//
//	 0  4  tag: the upper half of the segment's salt
//	 4  4  CRC32C over what follows of the head, begun with a hash of the salt and the offset
//	 8  8  index
//	16  8  term
//	24  8  AppendedAt, seconds
//	32  4  AppendedAt, nanoseconds
//	36  1  type, then three zeros
//	40  4  length of the data
//	44  4  length of the extensions
//	48  4  CRC32C over data and extensions
//	52  4  how many entries of the same append come before it
//	56  4  how many entries the append has
//	60  4  zero
const (
	headLen = 64
	align   = 8
)

// head is what the head of a record says.
type head struct {
	index, term       uint64
	sec               int64
	nsec              uint32
	kind              uint8
	dataLen, extLen   uint32
	bodySum           uint32
	position, entries uint32 // in its append
}

// begins is the index of the first entry of the same append.
func (h head) begins() uint64 { return h.index - uint64(h.position) }

// size is the length of the whole record.
func (h head) size() int64 { return recordSize(int64(h.dataLen) + int64(h.extLen)) }

func recordSize(body int64) int64 { return headLen + (body+align-1)/align*align }

// errNoRecord says that no record of this segment begins at a place: it was never
// written, or the first sector of it was lost.
var errNoRecord = errors.New("no record is there")

// sumError says that a checksum does not fit.
type sumError struct{ got, stored uint32 }

func (e sumError) Error() string {
	return fmt.Sprintf("checksum is %08x, stored was %08x", e.got, e.stored)
}

func tagOf(salt uint64) uint32 { return uint32(salt >> 32) } //nolint:gosec // the upper half

// headSum binds a head to its segment and to its place there: a record of another life of
// the file, of another file or of another place has another sum. Salt and offset are hashed
// to what the CRC begins with; two that begin differently end differently.
func headSum(salt uint64, offset int64, b []byte) uint32 {
	x := salt + uint64(offset)*0x9e3779b97f4a7c15 //nolint:gosec // never negative
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9          // the finalizer of splitmix64
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return crc32.Update(uint32(x>>32), castagnoli, b[8:headLen])
}

// appendRecord appends the record of l, which is to lie at offset.
func appendRecord(b []byte, salt uint64, offset int64, l *raft.Log, position, entries int) []byte {
	var room [headLen]byte
	start := len(b)
	b = append(b, room[:]...)
	b = append(b, l.Data...)
	b = append(b, l.Extensions...)
	h := b[start : start+headLen]
	le := binary.LittleEndian
	le.PutUint32(h, tagOf(salt))
	le.PutUint64(h[8:], l.Index)
	le.PutUint64(h[16:], l.Term)
	le.PutUint64(h[24:], uint64(l.AppendedAt.Unix()))       //nolint:gosec // read back as it was
	le.PutUint32(h[32:], uint32(l.AppendedAt.Nanosecond())) //nolint:gosec // below 1e9
	h[36] = byte(l.Type)
	le.PutUint32(h[40:], uint32(len(l.Data)))       //nolint:gosec // checked by checkBatch
	le.PutUint32(h[44:], uint32(len(l.Extensions))) //nolint:gosec // checked by checkBatch
	le.PutUint32(h[48:], crc32.Checksum(b[start+headLen:], castagnoli))
	le.PutUint32(h[52:], uint32(position)) //nolint:gosec // checked by checkBatch
	le.PutUint32(h[56:], uint32(entries))  //nolint:gosec // checked by checkBatch
	le.PutUint32(h[4:], headSum(salt, offset, h))
	return append(b, room[:(align-len(b)%align)%align]...)
}

// parseHead checks and reads the head at offset; b has at least headLen bytes.
func parseHead(b []byte, salt uint64, offset int64) (head, error) {
	le := binary.LittleEndian
	if le.Uint32(b) != tagOf(salt) {
		return head{}, errNoRecord
	}
	if got, stored := headSum(salt, offset, b), le.Uint32(b[4:]); got != stored {
		return head{}, sumError{got, stored}
	}
	h := head{
		index: le.Uint64(b[8:]), term: le.Uint64(b[16:]), sec: int64(le.Uint64(b[24:])), nsec: le.Uint32(b[32:]), //nolint:gosec // as it was written
		kind: b[36], dataLen: le.Uint32(b[40:]), extLen: le.Uint32(b[44:]), bodySum: le.Uint32(b[48:]),
		position: le.Uint32(b[52:]), entries: le.Uint32(b[56:]),
	}
	if h.index == 0 || h.index == math.MaxUint64 || uint64(h.position) >= h.index || h.position >= h.entries {
		return head{}, fmt.Errorf("entry %d is number %d of %d entries", h.index, h.position, h.entries)
	}
	return h, nil
}

// checkBody compares the checksum of data and extensions.
func (h head) checkBody(body []byte) error {
	if got := crc32.Checksum(body[:int64(h.dataLen)+int64(h.extLen)], castagnoli); got != h.bodySum {
		return sumError{got, h.bodySum}
	}
	return nil
}

// fill makes l the entry; it keeps body.
func (h head) fill(l *raft.Log, body []byte) {
	end := int64(h.dataLen) + int64(h.extLen)
	*l = raft.Log{Index: h.index, Term: h.term, Type: raft.LogType(h.kind), AppendedAt: time.Unix(h.sec, int64(h.nsec)).UTC()}
	if h.dataLen > 0 {
		l.Data = body[:h.dataLen:h.dataLen]
	}
	if h.extLen > 0 {
		l.Extensions = body[h.dataLen:end:end]
	}
}
