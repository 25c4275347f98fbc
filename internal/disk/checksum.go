package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// An entry's checksum travels in its Extensions, behind what is there already:
// 4 bytes CRC32C, 1 byte sealTag. It never leaves this package.
const (
	sealTag = 0xC5
	sealLen = 5
)

var errNoChecksum = errors.New("entry carries no checksum")

// checkedLog seals entries on their way to the inner store and checks them on
// their way back. It reports itself as monotonic whatever the inner store says:
// raft then never leaves a gap in the log, which the scan would have to excuse.
type checkedLog struct {
	raft.LogStore
}

// IsMonotonic makes raft empty the log after it restored a snapshot.
func (c checkedLog) IsMonotonic() bool { return true }

// StoreLog is StoreLogs with one entry.
func (c checkedLog) StoreLog(l *raft.Log) error { return c.StoreLogs([]*raft.Log{l}) }

// StoreLogs stores sealed copies; its argument is left alone.
func (c checkedLog) StoreLogs(logs []*raft.Log) error {
	copies := make([]raft.Log, len(logs))
	sealed := make([]*raft.Log, len(logs))
	room := make([]byte, 0, sealLen*len(logs))
	for i, l := range logs {
		copies[i] = *l
		sum := checksum(l, l.Extensions)
		if len(l.Extensions) == 0 {
			start := len(room)
			room = appendSeal(room, sum)
			copies[i].Extensions = room[start:len(room):len(room)]
		} else {
			ext := make([]byte, 0, len(l.Extensions)+sealLen)
			copies[i].Extensions = appendSeal(append(ext, l.Extensions...), sum)
		}
		sealed[i] = &copies[i]
	}
	return c.LogStore.StoreLogs(sealed)
}

// GetLog returns the entry as it was given to StoreLogs, or an error.
func (c checkedLog) GetLog(index uint64, l *raft.Log) error {
	*l = raft.Log{} // raft-boltdb leaves a field alone that it does not find
	if err := c.LogStore.GetLog(index, l); err != nil {
		return err
	}
	n := len(l.Extensions) - sealLen
	if n < 0 || l.Extensions[n+4] != sealTag {
		return errNoChecksum
	}
	stored, ext := binary.LittleEndian.Uint32(l.Extensions[n:]), l.Extensions[:n:n]
	if n == 0 {
		ext = nil
	}
	if l.Index != index {
		return fmt.Errorf("found entry %d in the place of entry %d", l.Index, index)
	}
	if got := checksum(l, ext); got != stored {
		return fmt.Errorf("checksum is %08x, stored was %08x", got, stored)
	}
	l.Extensions = ext
	return nil
}

func appendSeal(b []byte, sum uint32) []byte {
	return append(binary.LittleEndian.AppendUint32(b, sum), sealTag)
}

// checksum covers index, term, type, data and extensions. AppendedAt is left
// out: nothing depends on it, and the stores round it differently.
func checksum(l *raft.Log, ext []byte) uint32 {
	var head [25]byte
	binary.LittleEndian.PutUint64(head[0:], l.Index)
	binary.LittleEndian.PutUint64(head[8:], l.Term)
	binary.LittleEndian.PutUint64(head[16:], uint64(len(l.Data)))
	head[24] = byte(l.Type)
	sum := crc32.Update(0, castagnoli, head[:])
	sum = crc32.Update(sum, castagnoli, l.Data)
	return crc32.Update(sum, castagnoli, ext)
}
