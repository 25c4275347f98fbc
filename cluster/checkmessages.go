package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

// Plaintext messages are checked before memberlist decodes them, because its decoder
// allocates what a message announces:
//
//   - For a time, which msgpack calls an extension and gossip has no use for, it allocates
//     the announced length: a packet of 45 bytes took 4 GiB.
//   - For the list of nodes of an exchange it allocates the announced number: 20 bytes that
//     announce a million nodes took 100 MiB.
//
// Compressed messages, and those for memberlist's users, are refused as well: this package
// sends neither. Encrypted gossip is not checked: its sender has a key.

// The types of memberlist's messages that matter here.
const (
	msgSuspect  = 3
	msgAlive    = 4
	msgDead     = 5
	msgPushPull = 6
	msgCompound = 7
	msgUser     = 8
	msgCompress = 9
	msgEncrypt  = 10
	msgCRC      = 12
	msgLast     = 13 // an error
	msgLabel    = 244
)

var errExtension = errors.New("an extension is in it")

// checkPacket returns why memberlist must not get a packet, or nil.
func checkPacket(buf []byte) error {
	buf, _, err := memberlist.RemoveLabelHeaderFromPacket(buf)
	if err != nil {
		return err
	}
	if len(buf) >= 5 && buf[0] == msgCRC {
		buf = buf[5:]
	}
	if len(buf) == 0 || buf[0] != msgCompound {
		return checkMessage(buf)
	}
	if len(buf) < 2 || len(buf) < 2+2*int(buf[1]) {
		return errors.New("it is cut off")
	}
	lengths, parts := buf[2:2+2*int(buf[1])], buf[2+2*int(buf[1]):]
	for ; len(lengths) > 0; lengths = lengths[2:] {
		n := int(lengths[0])<<8 | int(lengths[1])
		if n > len(parts) {
			return nil // memberlist ignores the rest, too
		}
		if err := checkMessage(parts[:n]); err != nil {
			return err
		}
		parts = parts[n:]
	}
	return nil
}

// checkMessage checks a message that is not a compound of others.
func checkMessage(buf []byte) error {
	if len(buf) == 0 {
		return errors.New("it is empty")
	}
	if err := checkType(buf[0]); err != nil {
		return err
	}
	var s tokens
	if t := buf[0]; t == msgSuspect || t == msgAlive || t == msgDead {
		s.limit = maxIncarnation(time.Now())
	}
	return s.read(buf[1:])
}

// maxIncarnation returns the highest incarnation that is accepted at a time.
//
// The incarnation says which of two messages about a node is the later one. A node corrects
// a false message by one with the next number, and after 2^32-1 comes 0
// (hashicorp/memberlist#358): a false message with 2^32-1 could never be corrected. The same
// holds for any fixed limit, because the correction would exceed it. So the limit grows by
// one a second: a node that accepted a false number accepts the correction a second later.
// The limit reaches 2^32 in 2136.
//
// Correct numbers are small. They begin at 1 and grow with each change of the meta and each
// false message. 2^20 of them are accepted in any case, for clocks that are wrong.
//
// The limit is applied to every number in a message about a node: the others, ports and
// states, are smaller.
func maxIncarnation(now time.Time) uint64 {
	const always, year2000 = 1 << 20, 946684800
	return always + uint64(min(max(now.Unix()-year2000, 0), 1<<32-2-always)) //nolint:gosec // not negative
}

// tooHigh is the error for a number above the limit.
func tooHigh(n, limit uint64) error {
	return fmt.Errorf("a number in it, an incarnation perhaps, is %d: at most %d is accepted now", n, limit)
}

func checkType(t byte) error {
	switch t {
	case msgEncrypt:
		return errEncrypted
	case msgCompound, msgUser, msgCompress, msgCRC:
		return fmt.Errorf("no node sends messages of memberlist's type %d", t)
	}
	return nil
}

// maxHeader bounds the numbers in the header of an exchanged list: memberlist allocates
// room for as many nodes as the header announces.
const maxHeader = 4 * (maxAlive + maxGone)

// tokens parses msgpack values as they arrive and stops at an extension.
type tokens struct {
	header int    // values of a header that are missing; -1: it begins with the next
	skip   uint64 // missing bytes of a value
	need   int    // missing bytes of a number
	number uint64
	counts counted
	limit  uint64 // of numbers; 0: none
}

// counted is what a number counts.
type counted uint8

const (
	countsBytes  counted = iota // that follow
	countsValues                // in an array or map
	countsItself
)

func (s *tokens) read(b []byte) error {
	for len(b) > 0 {
		if s.skip > 0 {
			n := min(s.skip, uint64(len(b)))
			s.skip -= n
			b = b[n:]
			continue
		}
		t := b[0]
		b = b[1:]
		if s.need == 0 {
			if err := s.begin(t); err != nil {
				return err
			}
			continue
		}
		s.number = s.number<<8 | uint64(t)
		if s.need--; s.need > 0 {
			continue
		}
		if s.counts == countsBytes {
			s.skip = s.number
		}
		if s.counts == countsItself && s.header > 0 && s.number > maxHeader {
			return fmt.Errorf("a number in its header is %d: at most %d is taken", s.number, maxHeader)
		}
		if s.counts == countsItself && s.limit > 0 && s.number > s.limit {
			return tooHigh(s.number, s.limit)
		}
	}
	return nil
}

// begin takes the first byte of a value.
func (s *tokens) begin(t byte) error {
	switch {
	case s.header == -1:
		if t < 0x80 || t > 0x8f {
			return errors.New("it has no header")
		}
		s.header = 2*int(t&0x0f) + 1 // the last value ends with what comes after it
	case s.header > 0:
		if s.header--; s.header > 0 && (t >= 0x80 && t <= 0x9f || t >= 0xca && t <= 0xcb || t >= 0xdc && t <= 0xdf) {
			return errors.New("its header is none")
		}
	}
	s.number = 0
	switch {
	case t >= 0xa0 && t <= 0xbf: // a short string
		s.skip = uint64(t & 0x1f)
	case t == 0xc4 || t == 0xd9: // bytes and strings
		s.need, s.counts = 1, countsBytes
	case t == 0xc5 || t == 0xda:
		s.need, s.counts = 2, countsBytes
	case t == 0xc6 || t == 0xdb:
		s.need, s.counts = 4, countsBytes
	case t == 0xca || t == 0xcb: // floats
		s.skip = 4 << (t - 0xca)
	case t >= 0xcc && t <= 0xcf: // numbers
		s.need, s.counts = 1<<(t-0xcc), countsItself
	case t >= 0xd0 && t <= 0xd3:
		s.need, s.counts = 1<<(t-0xd0), countsItself
	case t == 0xdc || t == 0xde: // arrays and maps
		s.need, s.counts = 2, countsValues
	case t == 0xdd || t == 0xdf:
		s.need, s.counts = 4, countsValues
	case t == 0xc1 || t >= 0xc7 && t <= 0xc9 || t >= 0xd4 && t <= 0xd8:
		return errExtension
	}
	return nil
}

// plainConn checks what is read from it: all of it, or only the beginning if gossip is
// encrypted.
type plainConn struct {
	net.Conn
	keyed bool
	tell  func(why error) // called with why the other end is no peer
	mute  func(err error) // called with how a read ended before the first byte; may be nil
	label int             // missing bytes of the label; -1: its length is missing
	typed bool
	begun bool // a byte has arrived
	body  tokens

	answerKeys func(net.Conn) // gets a connection in TLS; nil: there is no TLS
}

// Read closes the connection at the first byte that memberlist must not get.
func (c *plainConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.begun && b[0] == recordHandshake && c.answerKeys != nil {
		c.answerKeys(&begunConn{c.Conn, bytes.Clone(b[:n])})
		_ = c.Close()
		return 0, errTold // memberlist has no further use for it
	}
	if n > 0 {
		c.begun = true
	} else if err != nil && !c.begun && c.mute != nil {
		c.mute(err)
	}
	if problem := c.look(b[:n]); problem != nil {
		c.tell(problem)
		if errors.Is(problem, errHTTP) {
			answerHTTP(c.Conn)
		}
		_ = c.Close()
		return 0, errTold
	}
	return n, err
}

func (c *plainConn) look(b []byte) error {
	for len(b) > 0 && !c.typed {
		switch {
		case c.label == -1:
			c.label = int(b[0])
		case c.label > 0:
			c.label--
		case b[0] == msgLabel:
			c.label = -1
		default:
			c.typed = true
			if err := checkStart(b[0], c.keyed); err != nil {
				return err
			}
			if c.keyed && b[0] != msgEncrypt {
				c.tell(errPlaintext)
			}
			if b[0] == msgPushPull {
				c.body.header, c.body.limit = -1, maxIncarnation(time.Now())
			}
		}
		b = b[1:]
	}
	if c.keyed {
		return nil
	}
	return c.body.read(b)
}
