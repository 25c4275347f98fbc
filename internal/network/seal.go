package network

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
)

// Raft's frames carry no checksum, and that of TCP has sixteen bits, which a broken
// network card or router computes over what it has broken. A flipped bit in a term is an
// election, one in the data of an entry is another entry: the follower stores it with a
// checksum of its own, and its table differs from then on. So after the handshake each
// direction is a sequence of records:
//
//	2 bytes length of the data, 4 bytes CRC32C, the data
//
// The checksum also covers all that was sent in this direction before, and begins with the
// nonces of both ends. So records of another connection, or repeated ones, do not verify. It
// does not protect against an attacker, because it has no key.
const (
	recordHead = 6
	// recordData bounds one record. On a slow link each record counts as progress.
	recordData = 4 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errDamagedRecord = refusal{"what came is damaged", "what came is damaged: its checksum is another one"}

// sealed is a connection in records. One goroutine reads and one writes.
type sealed struct {
	net.Conn
	in, out uint32 // checksums of what was read and written
	head    [recordHead]byte
	got     []byte // data that was read and not yet taken
	room    [recordData]byte
	sending []byte
}

// seal begins the records after a handshake, with the nonces of client and server.
func seal(c net.Conn, client, server string, isClient bool) *sealed {
	up := crc32.Checksum([]byte("client "+client+server), castagnoli)
	down := crc32.Checksum([]byte("server "+client+server), castagnoli)
	if isClient {
		return &sealed{Conn: c, out: up, in: down}
	}
	return &sealed{Conn: c, out: down, in: up}
}

// Read returns data whose checksum was compared. At the end between two records it is
// io.EOF.
func (s *sealed) Read(b []byte) (int, error) {
	if len(s.got) == 0 {
		if _, err := io.ReadFull(s.Conn, s.head[:]); err != nil {
			return 0, err
		}
		n := int(binary.BigEndian.Uint16(s.head[:]))
		if n == 0 || n > recordData {
			return 0, fmt.Errorf("%w (a record of %d bytes)", errDamagedRecord, n)
		}
		if _, err := io.ReadFull(s.Conn, s.room[:n]); err != nil {
			return 0, err
		}
		s.in = crc32.Update(crc32.Update(s.in, castagnoli, s.head[:2]), castagnoli, s.room[:n])
		if s.in != binary.BigEndian.Uint32(s.head[2:]) {
			return 0, errDamagedRecord
		}
		s.got = s.room[:n]
	}
	n := copy(b, s.got)
	s.got = s.got[n:]
	return n, nil
}

// Write sends b as records, in one write.
func (s *sealed) Write(b []byte) (int, error) {
	s.sending = s.sending[:0]
	for rest := b; len(rest) > 0; {
		data := rest[:min(len(rest), recordData)]
		rest = rest[len(data):]
		var head [recordHead]byte
		binary.BigEndian.PutUint16(head[:], uint16(len(data))) //nolint:gosec // at most recordData
		s.out = crc32.Update(crc32.Update(s.out, castagnoli, head[:2]), castagnoli, data)
		binary.BigEndian.PutUint32(head[2:], s.out)
		s.sending = append(append(s.sending, head[:]...), data...)
	}
	n, err := s.Conn.Write(s.sending)
	if err != nil {
		return min(n, len(b)), err // the connection cannot be used any more
	}
	return len(b), nil
}
