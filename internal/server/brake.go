package server

import (
	"context"
	"runtime"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/mux"
)

// A client that sends operations faster than they are answered, or whose operations are
// refused, is slowed down before it takes the node's time from others: for a moment its
// stream is not read, and the flow control of HTTP/2 stops the sender. The pause is short,
// because pings and keep-alives come over the same stream. Rejected: to answer
// "overloaded" as fast as the client can send. That kept two cores busy, and the leader
// lost its leadership.

const (
	// maxPause is how long a stream is not read at most. It is well below the time after
	// which a client gives up a node that does not answer its pings. The pause is shorter
	// on the stream of another node, because several clients share it.
	maxPause     = 250 * time.Millisecond
	maxPeerPause = 25 * time.Millisecond
	// minPause is the first pause; pauses double until there is room again.
	minPause = time.Millisecond
	// manyOpen is how many operations of a stream may be unanswered before it is slowed
	// down: two entries of the log.
	manyOpen = 4096
	// manyAsked is how many operations of one message are many: they take about a tenth
	// of a millisecond.
	manyAsked = 128
)

// brake slows one stream's receiver down. Fields that are not the receiver's are guarded
// by stream.mu.
type brake struct {
	limit   int           // manyOpen, or less for a stream that may have less
	refused uint64        // operations so far
	freed   chan struct{} // wakes the receiver: there is room again

	seen  uint64        // of refused; the receiver's
	pause time.Duration // the last one; the receiver's
	timer *time.Timer   // the receiver's
}

func newBrake(inFlight int) brake {
	return brake{limit: min(manyOpen, max(inFlight/2, 1)), freed: make(chan struct{}, 1)}
}

// isFullLocked reports whether so much is unanswered that the stream is not read for a moment.
func (st *stream) isFullLocked() bool { return st.open.Prompt+st.unsent.Prompt >= st.brake.limit }

// refused notes that an operation was refused.
func (st *stream) refused() {
	st.mu.Lock()
	st.brake.refused++
	st.mu.Unlock()
}

// slowDown pauses the receiver if it must. The receiver calls it after each message, with
// the number of its operations.
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
			runtime.Gosched() // let other goroutines of the node run
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

// releaseLocked wakes the receiver if there is room again.
func (st *stream) releaseLocked() {
	if st.open.Prompt+st.unsent.Prompt != st.brake.limit-1 {
		return
	}
	select {
	case st.brake.freed <- struct{}{}:
	default:
	}
}

// fitsLocked reports whether an owner may have one more operation of a class. On the
// stream of another node, which its clients share, an owner may have no more than is still
// free, so that one owner does not use the stream up.
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

// refusedPause is how long a unary call or HTTP request that is refused, as overloaded or for want
// of rights, waits for its answer.
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
