package cluster

import (
	"errors"
	"fmt"
	"net"

	"github.com/hashicorp/memberlist"
)

// What comes in plain text is looked at before memberlist decodes it. The
// decoder makes room for a time, a kind of value that gossip has no use for and
// that msgpack calls an extension, as long as the message says it is: a packet of 45 bytes took 4 GiB, and a
// few of them a node's memory. memberlist makes room for a million nodes, 100
// MiB, when a connection of 20 bytes announces them. What is packed, or meant for
// the users of memberlist, is refused as well: this package sends neither.
// Encrypted gossip is not looked at: it comes from who has a key.

// The types of memberlist's messages that matter here.
const (
	msgPushPull = 6
	msgCompound = 7
	msgUser     = 8
	msgCompress = 9
	msgEncrypt  = 10
	msgCRC      = 12
	msgLabel    = 244
)

var errExtension = errors.New("an extension is in it")

// checkPacket says why a packet is not for memberlist.
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

// checkMessage takes a message that is not made of others.
func checkMessage(buf []byte) error {
	if len(buf) == 0 {
		return errors.New("it is empty")
	}
	if err := checkType(buf[0]); err != nil {
		return err
	}
	var s tokens
	return s.read(buf[1:])
}

func checkType(t byte) error {
	switch t {
	case msgCompound, msgUser, msgCompress, msgEncrypt, msgCRC:
		return fmt.Errorf("messages of type %d are not taken here", t)
	}
	return nil
}

// maxHeader bounds the numbers in the header of a list that is exchanged: room is
// made for as many nodes as it says.
const maxHeader = 4 * (maxAlive + maxGone)

// tokens walks over msgpack values as they come and stops at an extension.
type tokens struct {
	header int    // values of a header that are still to come; -1: it begins with the next
	skip   uint64 // bytes of a value that are still to come
	need   int    // bytes of a number that are still to come
	number uint64
	counts counted
}

// counted is what a number says.
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

// plainConn looks at what is read from it.
type plainConn struct {
	net.Conn
	label int // bytes of the label that are still to come; -1: its length is
	typed bool
	body  tokens
}

// Read ends the connection at the first byte that memberlist must not see.
func (c *plainConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if problem := c.look(b[:n]); problem != nil {
		_ = c.Close()
		return 0, fmt.Errorf("gossip from %v: %w", c.RemoteAddr(), problem)
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
			if err := checkType(b[0]); err != nil {
				return err
			}
			if b[0] == msgPushPull {
				c.body.header = -1
			}
		}
		b = b[1:]
	}
	return c.body.read(b)
}
