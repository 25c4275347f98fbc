package server

import (
	"encoding/binary"
	"sync"
)

// grpc buffers what a client has sent of messages that are not complete, and bounds that
// for one stream, but not for all of them. So the bytes of a connection are followed here in
// both directions, by the frames of HTTP/2 and the five bytes before each message. That
// gives the streams under way, and how many bytes are of messages that are not complete.

const (
	frameHead    = 9
	prefaceBytes = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	// frameCost is counted for each frame besides its bytes, and is more than grpc needs:
	// frames of one byte take a hundred times as much memory as was sent.
	frameCost = 128

	frameData, frameHeaders, frameReset = 0, 1, 3
	flagEndStream, flagPadded           = 0x1, 0x8
)

// frames follows one connection.
type frames struct {
	conn *limitedConn

	mu      sync.Mutex
	in, out scanner
	streams map[uint32]*arriving
	last    uint32 // the highest number of a stream that was opened
}

// arriving is what has come on one open stream.
type arriving struct {
	head    [5]byte // of the message that arrives
	have    int     // bytes of head
	missing int     // bytes of the message
	first   bool    // the first message is complete
	partial int     // cost of the message that arrives
	unread  int     // cost of messages, but for the first, that were completed since the server sent something on the stream
}

// scanner finds the frames in a stream of bytes.
type scanner struct {
	skip int // bytes of the preface that are still to come
	head [frameHead]byte
	have int
	left int // bytes of the frame's payload that are still to come
	pad  int // bytes of them that are padding; -1: their number comes first
}

func newFrames(conn *limitedConn) *frames {
	return &frames{conn: conn, streams: map[uint32]*arriving{}, in: scanner{skip: prefaceBytes}}
}

func (s *scanner) kind() byte     { return s.head[3] }
func (s *scanner) flags() byte    { return s.head[4] }
func (s *scanner) stream() uint32 { return binary.BigEndian.Uint32(s.head[5:]) &^ (1 << 31) }

// scan calls begun for each frame whose head is complete, and data for the data of frames
// that carry some.
func (s *scanner) scan(b []byte, begun func(), data func([]byte)) {
	if n := min(s.skip, len(b)); n > 0 {
		s.skip -= n
		b = b[n:]
	}
	for len(b) > 0 {
		if s.have < frameHead {
			n := copy(s.head[s.have:], b)
			s.have += n
			b = b[n:]
			if s.have < frameHead {
				return
			}
			s.left = int(s.head[0])<<16 | int(s.head[1])<<8 | int(s.head[2])
			s.pad = 0
			if s.kind() == frameData && s.flags()&flagPadded != 0 && s.left > 0 {
				s.pad = -1
			}
			begun()
		}
		n := min(s.left, len(b))
		part := b[:n]
		b = b[n:]
		s.left -= n
		if s.kind() == frameData && data != nil && n > 0 {
			if s.pad < 0 {
				s.pad = int(part[0])
				part = part[1:]
			}
			// The padding ends the payload: what of it is not in left is the end of part.
			if over := s.pad - s.left; over > 0 {
				part = part[:max(0, len(part)-over)]
			}
			data(part)
		}
		if s.left == 0 {
			s.have = 0
		}
	}
}

// open is how many streams are under way. A nil frames has none.
func (f *frames) open() int {
	if f == nil {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.streams)
}

// received follows what the client sent.
func (f *frames) received(b []byte) {
	f.mu.Lock()
	cost, opened := 0, 0
	f.in.scan(b, func() {
		id := f.in.stream()
		switch a := f.streams[id]; f.in.kind() {
		case frameHeaders:
			if id > f.last {
				f.last = id
				f.streams[id] = &arriving{}
				opened++
			}
		case frameReset:
			if a != nil {
				cost -= f.dropLocked(id, a)
				opened--
			}
		case frameData:
			if a != nil {
				a.partial += frameCost
				cost += frameCost
			}
		}
	}, func(data []byte) {
		if a := f.streams[f.in.stream()]; a != nil {
			cost += a.add(data)
		}
	})
	f.mu.Unlock()
	f.conn.listener.addStreams(opened)
	f.conn.in.force(cost)
}

// add follows the messages of a stream, and returns by how much their cost grows.
func (a *arriving) add(data []byte) (cost int) {
	for len(data) > 0 {
		if a.have < len(a.head) {
			n := copy(a.head[a.have:], data)
			a.have += n
			data = data[n:]
			if a.have < len(a.head) {
				return cost
			}
			a.missing = int(binary.BigEndian.Uint32(a.head[1:]))
		}
		n := min(a.missing, len(data))
		a.missing -= n
		a.partial += n
		cost += n
		data = data[n:]
		if a.missing > 0 {
			return cost
		}
		// The message is complete. The server reads the first at once; that it has read
		// others shows when it sends something.
		if !a.first {
			a.first = true
			cost -= a.partial
		} else {
			a.unread += a.partial
		}
		a.partial, a.have = 0, 0
	}
	return cost
}

// sent follows what the server sent.
func (f *frames) sent(b []byte) {
	f.mu.Lock()
	cost, opened := 0, 0
	f.out.scan(b, func() {
		id := f.out.stream()
		a := f.streams[id]
		if a == nil {
			return
		}
		cost -= a.unread
		a.unread = 0
		ends := f.out.kind() == frameReset ||
			f.out.flags()&flagEndStream != 0 && (f.out.kind() == frameData || f.out.kind() == frameHeaders)
		if ends {
			cost -= f.dropLocked(id, a)
			opened--
		}
	}, nil)
	f.mu.Unlock()
	f.conn.listener.addStreams(opened)
	f.conn.in.force(cost)
}

// dropLocked removes a stream, and returns what it cost.
func (f *frames) dropLocked(id uint32, a *arriving) (cost int) {
	delete(f.streams, id)
	return a.partial + a.unread
}

// close removes all streams. No stream is opened afterwards.
func (f *frames) close() {
	if f == nil {
		return
	}
	f.mu.Lock()
	n := len(f.streams)
	f.streams = map[uint32]*arriving{}
	f.last = 1<<31 - 1 // nothing is opened any more
	f.mu.Unlock()
	f.conn.listener.addStreams(-n)
}
