package server

import (
	"context"
	"runtime"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/mux"
)

// A client that asks for more than it is answered, or that is refused, is slowed down
// before it takes the node's time from others: for a moment its stream is not read, and
// the flow control of HTTP/2 holds the sender. The moment is short, because pings and
// keep-alives come over the same stream. Rejected: to answer "overloaded" as fast as the
// client can ask. Two cores were busy with nothing else, and the leader was deposed.

const (
	// maxPause is how long a stream is not read. It is well below the time after which
	// a client takes a node for dead whose pings are not answered. On the stream of
	// another node others wait as well.
	maxPause     = 250 * time.Millisecond
	maxPeerPause = 25 * time.Millisecond
	// minPause is the first one; they double until there is room again.
	minPause = time.Millisecond
	// manyOpen is how many operations of a stream may be unanswered before it is slowed
	// down: two entries of the log.
	manyOpen = 4096
	// manyAsked operations at once take about a tenth of a millisecond.
	manyAsked = 128
)

// brake is what slows one stream's receiver down. What is not said to be the receiver's
// is guarded by stream.mu.
type brake struct {
	limit   int           // manyOpen, or less for a stream that may have less
	refused uint64        // operations so far
	freed   chan struct{} // of capacity 1: there is room again

	seen  uint64        // of refused; the receiver's
	pause time.Duration // the last one; the receiver's
	timer *time.Timer   // the receiver's
}

func newBrake(inFlight int) brake {
	return brake{limit: min(manyOpen, max(inFlight/2, 1)), freed: make(chan struct{}, 1)}
}

// isFullLocked reports whether so much is unanswered that the stream is not read for a moment.
func (st *stream) isFullLocked() bool { return st.open.Prompt+st.unsent.Prompt >= st.brake.limit }

// slowDown is called by the receiver after each message, of so many operations.
func (st *stream) slowDown(asked int) {
	b := &st.brake
	st.mu.Lock()
	refused := b.refused - b.seen
	b.seen = b.refused
	full := st.isFullLocked()
	st.mu.Unlock()
	most := maxPause
	if st.peer {
		most = maxPeerPause
	}
	switch {
	case refused > 0:
		b.pause = min(max(2*b.pause, minPause), most)
		st.rest(b.pause, nil)
	case full:
		st.rest(most, b.freed)
	default:
		b.pause = 0
		if asked >= manyAsked {
			runtime.Gosched() // the rest of the node has its turn at the processors
		}
	}
}

// rest waits for d, or until there is room or the stream is over.
func (st *stream) rest(d time.Duration, freed <-chan struct{}) {
	if st.brake.timer == nil {
		st.brake.timer = time.NewTimer(d)
	} else {
		st.brake.timer.Reset(d)
	}
	defer st.brake.timer.Stop()
	for {
		select {
		case <-st.ctx.Done():
		case <-st.server.stopping:
		case <-st.brake.timer.C:
		case <-freed:
			st.mu.Lock()
			full := st.isFullLocked()
			st.mu.Unlock()
			if full { // again
				continue
			}
		}
		return
	}
}

// releaseLocked lets the receiver go on if there is room again.
func (st *stream) releaseLocked() {
	if st.open.Prompt+st.unsent.Prompt != st.brake.limit-1 {
		return
	}
	select {
	case st.brake.freed <- struct{}{}:
	default:
	}
}

// fitsLocked reports whether an owner may have one more operation of a class. On a stream
// that another node uses for its clients each of them is refused when it has as much as is
// free, so that one does not use it up.
func (st *stream) fitsLocked(o fair.Owner, class mux.Class, room int) bool {
	if !st.peer || class == mux.Waits {
		return true
	}
	if class == mux.Frees {
		room *= 2
	}
	return st.shares[o] < room-st.open.Prompt-st.unsent.Prompt
}

func (st *stream) countShareLocked(o fair.Owner, class mux.Class, n int) {
	if !st.peer || class == mux.Waits {
		return
	}
	if st.shares[o] += n; st.shares[o] == 0 {
		delete(st.shares, o)
	}
}

// refusedPause is how long the caller of a unary call or HTTP request waits for the
// answer that there is too much to do.
const refusedPause = 50 * time.Millisecond

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func isOverloaded(a *apiv1.Answer) bool {
	return apiv1.Code(a.GetError().GetCode()) == apiv1.CodeOverloaded
}
