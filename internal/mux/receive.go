package mux

import (
	"errors"
	"fmt"
	"io"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// receive is the receiver's goroutine: it gives answers to their calls and,
// when the stream is over, the rest to OnBreak.
func (c *Conn) receive() {
	defer close(c.done)
	var calls []*Call // parallel to the answers of one message
	for {
		response, err := c.stream.Recv()
		if err != nil {
			c.fail(fmt.Errorf("session stream: %w", err))
			break
		}
		calls = c.deliver(response, calls[:0])
	}
	<-c.sent
	c.handOver()
}

// deliver answers the calls of one message. It returns the slice it was lent.
func (c *Conn) deliver(response *apiv1.SessionResponse, calls []*Call) []*Call {
	answers := response.GetAnswers()
	unknown := 0
	c.mu.Lock()
	c.heard = time.Now()
	for _, a := range answers {
		p, ok := c.pending[a.GetId()]
		if !ok {
			unknown++
		}
		c.removeLocked(a.GetId())
		calls = append(calls, p.call)
	}
	c.mu.Unlock()
	for i, call := range calls {
		if call != nil {
			answers[i].Id = call.Op.GetId()
			call.Done(answers[i])
		}
	}
	for _, n := range response.GetNotices() {
		c.cfg.OnNotice(n)
	}
	if unknown > 0 {
		c.cfg.Logger.Warn("answers to operations that were not asked", "count", unknown)
	}
	clear(calls)
	return calls
}

// armLocked makes check run after d.
func (c *Conn) armLocked(now time.Time, d time.Duration) {
	c.due = now.Add(d)
	c.timer.Reset(d)
}

// check runs on the timer while anything is pending: it breaks the conn when
// the node is silent for too long, and asks a node that may be silent for a sign.
func (c *Conn) check() {
	if c.silent(time.Now()) {
		c.fail(ErrStalled)
	}
}

func (c *Conn) silent(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	late := now.Sub(c.due)
	c.due = time.Time{}
	if c.err != nil || len(c.pending) == 0 {
		return false // the next Start sets the timer again
	}
	if late > c.cfg.StallAfter/2 {
		// It was this process that stood still: what has arrived meanwhile
		// waits to be read, and is given the time for it.
		c.heard = now
	}
	silence := now.Sub(c.heard)
	switch {
	case c.prompt > 0 && silence >= c.cfg.StallAfter:
		return true
	case c.prompt > 0:
		c.armLocked(now, c.cfg.StallAfter-silence)
	case silence >= c.cfg.PingEvery:
		if c.enqueueLocked(nil, false) {
			c.wakeSender()
		}
		c.armLocked(now, c.cfg.StallAfter)
	default:
		c.armLocked(now, c.cfg.PingEvery-silence)
	}
	return false
}
