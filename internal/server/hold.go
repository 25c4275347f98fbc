package server

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// smallOp is how many bytes of an operation are not counted: the number of operations is
// bounded elsewhere.
const smallOp = 1 << 10

// longBytes is what op takes beyond a small one.
func longBytes(op *apiv1.Operation) int {
	if !op.Kind().Stores() {
		return 0 // nothing long is kept of them
	}
	return max(0, proto.Size(op)-smallOp)
}

// trust ends the counting for a connection of another node: that node has counted what it
// brings.
func (c *limitedConn) trust() {
	if c != nil {
		for _, a := range [...]*account{c.in, c.ops, c.out} {
			a.exempt.Store(true)
		}
	}
}

// takeOp counts an operation's bytes, unless there is no room for them.
func (c *limitedConn) takeOp(bytes int, class mux.Class) bool {
	if c == nil {
		return true
	}
	if class == mux.Frees {
		c.ops.force(bytes)
		return true
	}
	return c.ops.take(bytes)
}

// giveOp gives an operation's bytes back.
func (c *limitedConn) giveOp(bytes int) {
	if c != nil {
		c.ops.force(-bytes)
	}
}

// afford counts bytes of answers. If they may be refused and there is no room, it returns
// the error to answer instead.
func (c *limitedConn) afford(bytes int, mayRefuse bool) *apiv1.Error {
	switch {
	case c == nil:
	case !mayRefuse:
		c.out.force(bytes)
	case !c.out.take(bytes):
		return c.listener.out.full()
	}
	return nil
}

// paid gives the bytes of an answer back that is sent, or dropped.
func (c *limitedConn) paid(bytes int) {
	if c != nil {
		c.out.force(-bytes)
	}
}

// expected is how long the answer to op may be, 0 for what reads nothing from the table.
func expected(op *apiv1.Operation) int {
	switch kind := op.Kind(); {
	case kind.Pages():
		return maxAnswerBytes
	case kind.Reads():
		return smallOp
	}
	return 0
}

// tally is what one call or HTTP request has counted. It is given back when that ends.
type tally struct {
	conn *limitedConn // nil: not known, nothing is counted
	use  *quotaUse    // whose quotas count; nil: nobody's
	json bool         // answers are sent as JSON

	mu         sync.Mutex // guards what follows
	ops, bytes int
	unsent     int // bytes that the caller has counted
	ended      bool
}

type tallyKey struct{}

// withTally returns a context that carries a tally.
func withTally(ctx context.Context, conn *limitedConn) (context.Context, *tally) {
	t := &tally{conn: conn}
	return context.WithValue(ctx, tallyKey{}, t), t
}

func tallyOf(ctx context.Context) *tally {
	t, _ := ctx.Value(tallyKey{}).(*tally)
	return t
}

// startOp counts an operation and what its answer may take, or refuses it, so that no
// answer is made for which there is no room. A nil tally counts nothing.
func (t *tally) startOp(op *apiv1.Operation) *apiv1.Error {
	if t == nil {
		return nil
	}
	if refusal := t.use.start(mux.ClassOf(op), time.Now()); refusal != nil {
		return refusal
	}
	bytes := longBytes(op)
	if !t.conn.takeOp(bytes, mux.ClassOf(op)) {
		return t.conn.listener.ops.full()
	}
	t.mu.Lock()
	t.ops += bytes
	t.mu.Unlock()
	return t.take(t.cost(expected(op)), true)
}

// take counts more bytes of answers, unless they may be refused and there is no room.
func (t *tally) take(bytes int, mayRefuse bool) *apiv1.Error {
	if t == nil || t.conn == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return nil
	}
	refusal := t.conn.afford(bytes, mayRefuse)
	if refusal == nil {
		t.bytes += bytes
	}
	return refusal
}

// answered counts the answer to op, or returns what is answered instead.
func (t *tally) answered(op *apiv1.Operation, a *apiv1.Answer) *apiv1.Answer {
	kind := op.Kind()
	kind.Shorten(a, maxAnswerBytes)
	t.give(t.cost(expected(op)))
	bytes := t.cost(sizeOf(kind, a))
	refusal := t.owe(bytes, isRead(kind, a))
	if refusal == nil {
		refusal = t.take(bytes, isRead(kind, a))
	}
	if refusal != nil {
		return errorAnswer(a.GetId(), refusal)
	}
	return a
}

// owe counts the bytes of an answer for the caller, unless they may be refused and are too
// many.
func (t *tally) owe(bytes int, mayRefuse bool) *apiv1.Error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return nil
	}
	refusal := t.use.afford(bytes, mayRefuse)
	if refusal == nil {
		t.unsent += bytes
	}
	return refusal
}

// give gives some bytes of answers back.
func (t *tally) give(bytes int) {
	if t == nil || t.conn == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.bytes -= bytes
		t.conn.paid(bytes)
	}
}

// cost is what an answer takes until it is sent: in JSON a piece of it (see jsonWriter)
// may be six times as long, twice.
func (t *tally) cost(bytes int) int {
	if t != nil && t.json {
		bytes += 12 * min(bytes, 16<<10)
	}
	return bytes
}

// end gives everything back.
func (t *tally) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	t.conn.giveOp(t.ops)
	t.conn.paid(t.bytes)
	t.use.paid(t.unsent)
	t.ops, t.bytes, t.unsent = 0, 0, 0
}
