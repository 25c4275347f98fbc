package mux

import (
	"runtime"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/fair"
)

const (
	// MaxOperations is how many operations a message of the stream may carry.
	MaxOperations = 512
	// maxMessageBytes keeps messages far below what a node accepts, because pings and
	// keep-alives wait for the message that is being sent.
	maxMessageBytes = 128 << 10
	// maxOperationBytes is far above what the default limits of the lock table
	// allow, and lets the longest HTTP body through; a much longer operation
	// would end the stream with all calls on it.
	maxOperationBytes = 65 << 10
	// While fewer are queued, the sender lets other goroutines run first, which may queue more.
	fewQueued = 64
)

// outbox is what the sender has taken from a queue and not sent yet. It is kept small, so
// that later calls of other owners get their turn soon.
type outbox struct{ all, rest []queued }

// refillLocked takes what may go into the next message, if all before was sent.
func (o *outbox) refillLocked(queue *fair.Queue[queued]) {
	if len(o.rest) > 0 {
		return
	}
	clear(o.all)
	o.all = o.all[:0]
	for len(o.all) < MaxOperations {
		q, _, ok := queue.Pop()
		if !ok {
			break
		}
		o.all = append(o.all, q)
	}
	o.rest = o.all
}

// send is the sender's goroutine: it packs what is queued into messages. Before each
// message it sends pings and keep-alives, so that these wait for the message that is being
// sent, and for nothing else.
func (c *Conn) send() {
	defer close(c.sent)
	var ahead, work outbox
	for {
		select {
		case <-c.woken:
		case <-c.ctx.Done():
			return
		}
		for c.take(&ahead, &work) {
			var m message
			if ahead.rest = c.pack(&m, ahead.rest); len(ahead.rest) == 0 {
				work.rest = c.pack(&m, work.rest)
			}
			if !c.write(&m) {
				return
			}
		}
	}
}

// take reports whether there is something to send.
func (c *Conn) take(ahead, work *outbox) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.queue.Len(); n > 0 && n < fewQueued && len(work.rest) == 0 {
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	ahead.refillLocked(&c.ahead)
	work.refillLocked(&c.queue)
	return len(ahead.rest)+len(work.rest) > 0
}

// message is a message while it is packed.
type message struct {
	ops   []apiv1.Operation // those that refs points to
	refs  []*apiv1.Operation
	bytes int
}

// pack puts as many operations into the message as fit, and returns the others.
func (c *Conn) pack(m *message, from []queued) (rest []queued) {
	for len(from) > 0 && len(m.refs) < MaxOperations {
		q := from[0]
		var asked *apiv1.Operation // nil: a ping
		if q.call != nil {
			asked = q.call.Op
		}
		size, problem := inspect(asked)
		if problem != nil {
			from = from[1:]
			c.refuse(q.id, problem)
			continue
		}
		if m.bytes > 0 && m.bytes+size > maxMessageBytes {
			break
		}
		from = from[1:]
		m.bytes += size
		if len(m.ops) == cap(m.ops) {
			// Not in place of the ones before: refs points to those.
			m.ops = make([]apiv1.Operation, 0, min(len(from)+1, MaxOperations))
		}
		m.ops = m.ops[:len(m.ops)+1]
		op := &m.ops[len(m.ops)-1]
		op.Id = q.id
		op.Redirect, op.Owner, op.Connection, op.Request = asked.GetRedirect(), asked.GetOwner(), asked.GetConnection(), asked.GetRequest()
		op.Checked, op.Force = asked.GetChecked(), asked.GetForce()
		m.refs = append(m.refs, op)
	}
	return from
}

// write sends a message, unless it is empty, and reports whether the stream still
// works. grpc may read a message after Send, so nothing of it is used again.
func (c *Conn) write(m *message) bool {
	if len(m.refs) == 0 {
		return true
	}
	if err := c.stream.Send(&apiv1.SessionRequest{Operations: m.refs}); err != nil {
		// The receiver gets the reason why a stream ended; cancel makes sure that it ends.
		if c.ctx.Err() == nil && !isEOF(err) {
			c.fail(err)
		}
		return false
	}
	return true
}

// refuse answers a call that must not be sent.
func (c *Conn) refuse(id uint64, problem *apiv1.Error) {
	c.mu.Lock()
	if id == c.silence.timed {
		c.silence.timed = 0 // it says nothing about the node
	}
	call := c.pending[id]
	delete(c.pending, id)
	c.mu.Unlock()
	if call != nil {
		call.Done(answerError(call.Op, problem))
	}
}

// inspect estimates the encoded size of an operation and finds what would make encoding
// fail: a string that is not UTF-8 cannot be sent, and would break the stream, and then the
// next one, for every call on it.
func inspect(op *apiv1.Operation) (size int, problem *apiv1.Error) {
	size, badField := op.Measure()
	if badField != "" {
		return size, apiv1.NewError(apiv1.CodeInvalid, "%s: must be UTF-8", badField)
	}
	if size > maxOperationBytes {
		return size, apiv1.NewError(apiv1.CodeTooLarge, "operation: is %d bytes long, must be at most %d", size, maxOperationBytes)
	}
	return size, nil
}

// Check reports an operation that is too long to travel between nodes, or that
// cannot be encoded; nil if it can be sent.
func Check(op *apiv1.Operation) *apiv1.Error {
	_, problem := inspect(op)
	return problem
}
