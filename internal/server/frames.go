package server

import (
	"encoding/binary"
	"sync"
)

// What a gRPC client has sent of messages that are not complete lies in buffers of grpc,
// which has a bound for one stream and none for all of them. So the bytes are followed here,
// in both directions, as far as the frames of HTTP/2 and the five bytes before each message
// go: what a connection has under way, and how much of it waits for its rest.

const (
	frameHead    = 9
	prefaceBytes = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	// frameCost is more than grpc needs to keep a frame apart from its bytes: frames of one
	// byte cost a hundred times what was sent.
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
	first   bool    // a message has come whole
	partial int     // cost of the message that arrives
	unread  int     // cost of whole messages that came since the server sent something on the stream, without the first
}

// scanner finds the frames in a stream of bytes.
type scanner struct {
	skip int // bytes of the preface that are still to come
	head [frameHead]byte
	have int
	left int // bytes of the frame's payload that are still to come
	pad  int // of them those that are no data; -1: the number of them comes first
}

func newFrames(conn *limitedConn) *frames {
	return &frames{conn: conn, streams: map[uint32]*arriving{}, in: scanner{skip: prefaceBytes}}
}

func (s *scanner) kind() byte     { return s.head[3] }
func (s *scanner) flags() byte    { return s.head[4] }
func (s *scanner) stream() uint32 { return binary.BigEndian.Uint32(s.head[5:]) &^ (1 << 31) }

// scan calls begun for each frame whose head is there, and data for the data of frames
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
			// The padding is at the end: what is left may be all of it, and more.
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

// add follows the messages of a stream, and returns by how much they cost more.
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
		// It is whole: the server takes the first at once, and says so of others.
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

// dropLocked forgets a stream, and returns what it cost.
func (f *frames) dropLocked(id uint32, a *arriving) (cost int) {
	delete(f.streams, id)
	return a.partial + a.unread
}

// close forgets all streams.
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
