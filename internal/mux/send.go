package mux

import (
	"runtime"
	"unicode/utf8"

	apiv1 "github.com/locknode/locknode/api/v1"
)

const (
	// MaxOperations is how many operations a message of the stream may carry.
	MaxOperations = 512
	// maxMessageBytes ends a message early, far below what a node accepts: what goes
	// ahead waits for the one that is being sent.
	maxMessageBytes = 128 << 10
	// maxOperationBytes is far above what the default limits of the lock table
	// allow, and lets the longest HTTP body through; a much longer operation
	// would end the stream for everybody on it.
	maxOperationBytes = 65 << 10
	// Below this many the sender lets others run first: they may add theirs.
	fewQueued = 64
)

// outbox is what the sender has taken from a queue: all of it, and the rest that was
// not sent yet.
type outbox struct{ all, rest []queued }

// refillLocked swaps the queue for one that was sent.
func (o *outbox) refillLocked(queue *[]queued) {
	if len(o.rest) > 0 {
		return
	}
	clear(o.all)
	o.all, *queue = *queue, o.all[:0]
	o.rest = o.all
}

// send is the sender's goroutine: it packs what is queued into messages. Before each
// message it looks for what goes ahead, so that a ping or a keep-alive waits for the
// message that is being sent, and for nothing else.
func (c *Conn) send() {
	defer close(c.sent)
	var ahead, work outbox
	for {
		select {
		case <-c.wake:
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
	if n := len(c.queue); n > 0 && n < fewQueued && len(work.rest) == 0 {
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	ahead.refillLocked(&c.ahead)
	work.refillLocked(&c.queue)
	return len(ahead.rest)+len(work.rest) > 0
}

// message is one in the making.
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
		op.Redirect, op.Request = asked.GetRedirect(), asked.GetRequest()
		m.refs = append(m.refs, op)
	}
	return from
}

// write sends a message, unless it is empty, and reports whether the stream still
// works. grpc may look at a message after Send: nothing of it is used again.
func (c *Conn) write(m *message) bool {
	if len(m.refs) == 0 {
		return true
	}
	if err := c.stream.Send(&apiv1.SessionRequest{Operations: m.refs}); err != nil {
		// The receiver learns why a stream ended; cancelling it makes sure.
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
		c.silence.timed = 0 // it tells nothing of the node
	}
	call := c.pending[id]
	delete(c.pending, id)
	c.mu.Unlock()
	if call != nil {
		call.Done(answerError(call.Op, problem))
	}
}

// waits reports whether op may stand in line: only an acquire does.
func waits(op *apiv1.Operation) bool {
	a, ok := op.GetRequest().(*apiv1.Operation_Acquire)
	return ok && a.Acquire.GetWaitNs() != 0
}

// inspect estimates the encoded size of an operation and finds what would make
// encoding fail: a string that is not UTF-8 cannot be sent at all, and would
// break the stream, and the next one, for every call on it.
func inspect(op *apiv1.Operation) (size int, problem *apiv1.Error) {
	in := inspection{size: fixedBytes + op.UnknownBytes()}
	switch r := op.GetRequest().(type) {
	case *apiv1.Operation_OpenSession:
		in.bytes(r.OpenSession.GetSession())
		in.text("holder", r.OpenSession.GetHolder())
		in.labels(r.OpenSession.GetLabels())
	case *apiv1.Operation_KeepAlive:
		in.bytes(r.KeepAlive.GetSession())
	case *apiv1.Operation_EndSession:
		in.bytes(r.EndSession.GetSession())
		in.size += 10 * len(r.EndSession.GetUndelivered())
	case *apiv1.Operation_Acquire:
		in.acquire(r.Acquire)
	case *apiv1.Operation_Cancel:
		in.id(r.Cancel.GetId())
		in.id(r.Cancel.GetTarget())
	case *apiv1.Operation_Release:
		in.id(r.Release.GetId())
		in.text("name", r.Release.GetName())
	case *apiv1.Operation_Renew:
		in.id(r.Renew.GetId())
		in.text("name", r.Renew.GetName())
	case *apiv1.Operation_SetValue:
		in.id(r.SetValue.GetId())
		in.text("name", r.SetValue.GetName())
		in.bytes(r.SetValue.GetValue())
	case *apiv1.Operation_ForceRelease:
		in.id(r.ForceRelease.GetId())
		in.text("name", r.ForceRelease.GetName())
		in.text("reason", r.ForceRelease.GetReason())
		in.text("who", r.ForceRelease.GetWho())
	case *apiv1.Operation_Get:
		in.text("name", r.Get.GetName())
	case *apiv1.Operation_List:
		in.text("prefix", r.List.GetPrefix())
		in.text("after", r.List.GetAfter())
	}
	if in.badField != "" {
		return in.size, apiv1.NewError(apiv1.CodeInvalid, "%s: is not UTF-8", in.badField)
	}
	if in.size > maxOperationBytes {
		return in.size, apiv1.NewError(apiv1.CodeTooLarge, "the operation has %d bytes; at most %d are accepted", in.size, maxOperationBytes)
	}
	return in.size, nil
}

// Check reports an operation that is too long to travel between nodes, or that
// cannot be encoded; nil if it can be sent.
func Check(op *apiv1.Operation) *apiv1.Error {
	_, problem := inspect(op)
	return problem
}

// fixedBytes is more than the numbers and tags of any operation need.
const fixedBytes = 128

type inspection struct {
	size     int
	badField string
}

func (in *inspection) bytes(b []byte) { in.size += len(b) }

func (in *inspection) text(field, s string) {
	in.size += len(s)
	if !utf8.ValidString(s) {
		in.badField = field
	}
}

func (in *inspection) id(id *apiv1.RequestID) {
	in.size += len(id.GetSession()) + len(id.GetOnce()) + 24*len(id.GetAnswered())
}

func (in *inspection) labels(labels []*apiv1.Label) {
	for _, l := range labels {
		in.size += 12
		in.text("labels", l.GetKey())
		in.text("labels", l.GetValue())
	}
}

func (in *inspection) acquire(r *apiv1.AcquireRequest) {
	in.id(r.GetId())
	for _, w := range r.GetLocks() {
		in.size += 32
		in.text("name", w.GetName())
	}
	in.text("holder", r.GetHolder())
	in.bytes(r.GetValue())
	in.labels(r.GetLabels())
}
