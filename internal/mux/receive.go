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
	var unfit *apiv1.Error // what a ping was answered with
	now := time.Now()
	c.mu.Lock()
	pinged, worked := false, len(response.GetNotices()) > 0
	for _, a := range answers {
		call, ok := c.pending[a.GetId()]
		switch {
		case !ok:
			unknown++
		case call == nil:
			pinged, unfit = true, a.GetError()
		default:
			worked = true
			c.silence.answeredLocked(a.GetId(), now, c.cfg.Patience)
		}
		delete(c.pending, a.GetId())
		calls = append(calls, call)
	}
	c.heardLocked(now, pinged, worked)
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
	if d := response.GetDirectory(); d != nil && c.cfg.OnDirectory != nil {
		c.cfg.OnDirectory(d)
	}
	if unknown > 0 && !c.odd { // logged once: a faulty node might send them without end
		c.odd = true
		c.cfg.Logger.Warn("answers to operations that were not sent", "count", unknown)
	}
	if unfit != nil {
		c.fail(fmt.Errorf("the node cannot serve: %w", unfit))
	}
	clear(calls)
	return calls
}
