package simnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pair is one connection: two ends, and a flow from each to the other.
type pair struct {
	net  *Network
	id   uint64
	a, b *conn // a dialled

	mu sync.Mutex // guards the ends and flows, but for what waiters keep to themselves
}

func newPair(n *Network, id uint64, from, to *Host, fromAddr, toAddr *net.TCPAddr, there, back *link) *pair {
	p := &pair{net: n, id: id}
	ab, ba := &flow{link: there, back: back}, &flow{link: back, back: there}
	p.a = &conn{p: p, host: from, local: fromAddr, remote: toAddr, in: ba, out: ab, reader: newWaiter(), writer: newWaiter()}
	p.b = &conn{p: p, host: to, local: toAddr, remote: fromAddr, in: ab, out: ba, reader: newWaiter(), writer: newWaiter()}
	p.a.peer, p.b.peer = p.b, p.a
	return p
}

// segment is one write, or the end of the stream.
type segment struct {
	b   []byte
	at  time.Time // of arrival; zero while it is stalled
	end bool
}

// flow is one direction of a connection.
type flow struct {
	link, back *link

	segments []segment
	last     time.Time // the latest arrival so far: the next is no earlier
	under    int       // bytes that count against the window
	unacked  int       // of those, bytes that were read while the way back is cut
	ended    bool      // the end of the stream is in segments, or was
	closed   bool      // the reader has closed; its machine answers with resets
	silent   bool      // the reader's machine has no power and does not answer
}

// arrival is when what is sent now arrives; zero if the link is cut.
func (f *flow) arrival(now time.Time) time.Time {
	d, ok := f.link.delay()
	if !ok {
		return time.Time{}
	}
	if f.link.lose() {
		d += retransmit
	}
	return later(f.last, now.Add(d))
}

func (f *flow) send(now time.Time, b []byte, end bool) {
	s := segment{b: append([]byte(nil), b...), at: f.arrival(now), end: end}
	f.last = later(f.last, s.at)
	f.segments = append(f.segments, s)
	f.under += len(b)
	f.ended = f.ended || end
}

// arrived reports whether the first segment is there.
func (f *flow) arrived(now time.Time) bool {
	return len(f.segments) > 0 && !f.segments[0].at.IsZero() && !f.segments[0].at.After(now)
}

// take copies what has arrived.
func (f *flow) take(b []byte, now time.Time) (n int) {
	for n < len(b) && f.arrived(now) && !f.segments[0].end {
		s := &f.segments[0]
		m := copy(b[n:], s.b)
		n, s.b = n+m, s.b[m:]
		if len(s.b) == 0 {
			*s = segment{}
			f.segments = f.segments[1:]
		}
	}
	if f.back.isCut() {
		f.unacked += n
	} else {
		f.under -= n
	}
	return n
}

// stall stops what arrives after t.
func (f *flow) stall(t time.Time) {
	for i := range f.segments {
		if f.segments[i].at.After(t) {
			f.segments[i].at = time.Time{}
		}
	}
}

// resume sends again what was stalled.
func (f *flow) resume(now time.Time) {
	now = now.Add(f.link.backoff())
	for i := range f.segments {
		if s := &f.segments[i]; s.at.IsZero() {
			s.at = f.arrival(now)
			f.last = later(f.last, s.at)
		}
	}
}

// drop loses what has not arrived.
func (f *flow) drop(now time.Time) {
	for i, s := range f.segments {
		if s.at.IsZero() || s.at.After(now) {
			f.segments = f.segments[:i]
			return
		}
	}
}

// tryRead returns n > 0, an error, or until when to wait; zero is for ever.
func (c *conn) tryRead(b []byte, now time.Time) (n int, until time.Time, err error) {
	switch {
	case c.closed:
		return 0, until, net.ErrClosed
	case passed(c.readDeadline, now):
		return 0, until, os.ErrDeadlineExceeded
	}
	if n = c.in.take(b, now); n > 0 {
		c.peer.roomLocked()
		return n, until, nil
	}
	switch {
	case passed(c.reset, now):
		return 0, until, os.NewSyscallError("read", syscall.ECONNRESET)
	case passed(c.givesUp, now):
		return 0, until, os.NewSyscallError("read", syscall.ETIMEDOUT)
	case c.in.arrived(now): // its end
		return 0, until, io.EOF
	}
	until = earlier(c.readDeadline, c.endsLocked())
	if len(c.in.segments) > 0 {
		until = earlier(until, c.in.segments[0].at)
	}
	return 0, until, nil
}

// tryWrite takes what fits. Without an error, what is left has to wait.
func (c *conn) tryWrite(b []byte, now time.Time) (n int, until time.Time, err error) {
	switch {
	case c.closed:
		return 0, until, net.ErrClosed
	case passed(c.writeDeadline, now):
		return 0, until, os.ErrDeadlineExceeded
	case passed(c.reset, now):
		return 0, until, os.NewSyscallError("write", syscall.ECONNRESET)
	case passed(c.givesUp, now):
		return 0, until, os.NewSyscallError("write", syscall.ETIMEDOUT)
	case c.out.ended:
		return 0, until, os.NewSyscallError("write", syscall.EPIPE)
	}
	if n = min(len(b), c.p.net.o.Window-c.out.under); n > 0 {
		c.out.send(now, b[:n], false)
		if c.out.closed {
			c.bounceLocked()
		} else {
			c.peer.dataLocked(now)
		}
	}
	return n, earlier(c.writeDeadline, c.endsLocked()), nil
}

// endsLocked is when this end will fail, as far as is known; zero is never.
func (c *conn) endsLocked() time.Time { return earlier(c.reset, c.givesUp) }

// listenLocked starts or stops the timeout for a peer from which nothing arrives.
func (c *conn) listenLocked(now time.Time) {
	switch silence := c.out.silent || c.in.link.isCut() || c.out.link.isCut(); {
	case passed(c.givesUp, now): // for good
	case !silence:
		c.givesUp = time.Time{}
	case c.givesUp.IsZero():
		c.givesUp = now.Add(c.p.net.o.KeepAlive)
	}
	c.reader.wake()
	c.writer.wake()
}

// dataLocked wakes the reader because there is more: at once, or when it arrives.
func (c *conn) dataLocked(now time.Time) {
	switch s := c.in.segments; {
	case len(s) == 0 || s[0].at.IsZero():
	case s[0].at.After(now):
		c.reader.before(s[0].at)
	default:
		c.reader.wake()
	}
}

// roomLocked wakes the writer when half of the window is free.
func (c *conn) roomLocked() {
	if c.out.under <= c.p.net.o.Window/2 {
		c.writer.wake()
	}
}

// bounceLocked throws away what is on its way to a closed end, and resets this
// one once the answer is here. What is stalled waits for the link.
func (c *conn) bounceLocked() {
	f := c.out
	var first time.Time
	for len(f.segments) > 0 && !f.segments[0].at.IsZero() {
		s := f.segments[0]
		if !s.end {
			first = earlier(first, s.at)
		}
		f.under -= len(s.b)
		f.segments = f.segments[1:]
	}
	if !first.IsZero() && (c.reset.IsZero() || c.probing) {
		c.probing = false // what is sent finds out sooner
		c.resetLocked(first)
	}
}

// probeLocked lets a keep-alive probe be answered with a reset at the given time, because the
// other machine does not have the connection, if nothing is sent before.
func (c *conn) probeLocked(at time.Time) {
	last := c.in.last
	c.resetLocked(at)
	c.in.last, c.probing = last, true
}

// resetLocked lets a reset, sent by the other end at the given time, arrive here,
// behind everything that it sent before.
func (c *conn) resetLocked(sent time.Time) {
	c.reset = c.in.arrival(sent)
	c.resetStalled = c.reset.IsZero()
	c.in.last = later(c.in.last, c.reset)
	c.reader.wake()
	c.writer.wake()
}

func passed(t, now time.Time) bool { return !t.IsZero() && !t.After(now) }

// earlier is the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
