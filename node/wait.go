package node

import (
	"sync"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/mux"
)

// waitKey is what an acquire and the event that ends its wait have in common.
type waitKey struct {
	session  fsm.SessionID
	sequence uint64
}

func keyOf(id fsm.RequestID) waitKey { return waitKey{session: id.Session, sequence: id.Sequence} }

// waits holds the calls of acquires that this node has proposed and that wait for their
// answer. The events of applied entries answer them, so nothing polls.
//
// An acquire is entered before it is proposed: its grant may be applied before the
// proposer has returned that it is queued. The goroutine that removes a call answers it.
//
// A request that is retried has several calls here. An event answers only those whose own
// entry has been applied. A call whose entry is still on its way must not be answered with
// the grant that an earlier try was given, because the cancel of the request may come
// before it in the log.
type waits struct {
	// holders returns who holds locks now, for the errors of waits that have timed out.
	holders func([]fsm.Want) []fsm.Holder

	mu    sync.Mutex
	calls map[waitKey]*tries
}

// tries are the calls of one request: usually one, more when it was retried.
type tries struct {
	first, last *waitingCall
	n           int
	sweep       int // when n reaches it, calls whose callers have gone away are dropped
}

// waitingCall is one call that waits. Its links are guarded by waits.mu.
type waitingCall struct {
	key        waitKey
	call       *mux.Call
	next, prev *waitingCall
	gone       bool // it has been removed

	queued bool        // its own entry was applied, and the request is queued in the table
	came   fsm.Instant // cluster time at which the request entered the table; once it is queued
	stamp  fsm.Instant // cluster time of that entry
	end    *ending     // of the wait, if that came before queued; nil: not ended
}

// ending is how a wait has ended.
type ending struct {
	result fsm.Result
	index  uint64
	now    fsm.Instant
}

func newWaits() *waits {
	return &waits{
		calls:   make(map[waitKey]*tries),
		holders: func([]fsm.Want) []fsm.Holder { return nil },
	}
}

// fewCalls is how many calls a request may have before those whose callers have gone away
// are searched.
const fewCalls = 4

// enter adds a call. A client that reconnects often leaves calls of the same request
// behind. They are dropped whenever their number has doubled, so that entering a call takes
// the same time on average however many there are.
func (w *waits) enter(key waitKey, call *mux.Call) *waitingCall {
	p := &waitingCall{key: key, call: call}
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.calls[key]
	if l == nil {
		l = &tries{sweep: fewCalls}
		w.calls[key] = l
	}
	if l.n >= l.sweep {
		for old := l.first; old != nil; old = old.next {
			if old.call.Abandoned() {
				l.unlink(old)
			}
		}
		l.sweep = max(2*l.n, fewCalls)
	}
	if p.prev = l.last; l.last == nil {
		l.first = p
	} else {
		l.last.next = p
	}
	l.last = p
	l.n++
	return p
}

// unlink removes p. The links of p itself stay as they are, so that a loop over the calls
// goes on.
func (l *tries) unlink(p *waitingCall) {
	if p.prev == nil {
		l.first = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		l.last = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.gone = true
	l.n--
}

// remove removes p and reports whether it was still there.
func (w *waits) remove(p *waitingCall) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.removeLocked(p)
}

func (w *waits) removeLocked(p *waitingCall) bool {
	if p.gone {
		return false
	}
	l := w.calls[p.key]
	if l.unlink(p); l.n == 0 {
		delete(w.calls, p.key)
	}
	return true
}

// queued is called when the own entry of p was applied and the request is queued. It
// returns the answer if the wait has ended since, and has then removed p.
func (w *waits) queued(p *waitingCall, o outcome) (end *apiv1.Answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.queued, p.came, p.stamp = true, o.result.Queued, o.now
	if p.end == nil || !w.removeLocked(p) {
		return nil
	}
	return p.answer(p.end)
}

// takeAll removes all calls and returns them.
func (w *waits) takeAll() []*mux.Call {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*mux.Call
	for _, l := range w.calls {
		for p := l.first; p != nil; p = p.next {
			all = append(all, p.call)
			p.gone = true
		}
	}
	clear(w.calls)
	return all
}

func (w *waits) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.calls)
}

// observe answers the calls whose wait the events of an entry have ended.
func (w *waits) observe(a *fsm.Applied) {
	for i := range a.Events {
		switch e := &a.Events[i]; e.Kind {
		case fsm.EventGranted, fsm.EventWaitEnded:
			w.finish(e.Request, e, a)
			for _, other := range e.Others {
				w.finish(other, e, a)
			}
		case fsm.EventTryEnded: // the other tries wait on
			w.finish(e.Request, e, a)
		}
	}
}

// finish answers the calls of one request that an event has ended.
func (w *waits) finish(id fsm.RequestID, e *fsm.Event, a *fsm.Applied) {
	key := keyOf(id)
	w.mu.Lock()
	_, waits := w.calls[key]
	w.mu.Unlock()
	if !waits {
		return
	}
	end := &ending{result: e.Result, index: a.Index, now: a.Now}
	if e.Kind != fsm.EventGranted {
		end.result = fsm.Result{Code: e.Code, Field: e.Result.Field, Detail: e.Result.Detail}
		if e.Who != "" {
			end.result.Detail += ", " + e.Who
		}
		if e.Reason != "" {
			end.result.Detail += ": " + e.Reason
		}
		if e.Code == fsm.TimedOut {
			end.result.Holders = w.holders(e.Wants)
		}
	}
	for _, p := range w.ended(key, end) {
		p.call.Done(p.answer(end))
	}
}

// ended removes the calls that are queued and returns them to be answered. The others keep
// the end until they are queued.
func (w *waits) ended(key waitKey, end *ending) (answered []*waitingCall) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.calls[key]
	if l == nil {
		return nil
	}
	for p := l.first; p != nil; p = p.next {
		if p.queued {
			answered = append(answered, p)
			l.unlink(p)
		} else {
			p.end = end
		}
	}
	if l.n == 0 {
		delete(w.calls, key)
	}
	return answered
}

// answer returns the answer to p when its wait has ended. The stamp of a grant is that of
// the call's own entry: its client counts the TTL from when it sent the call.
func (p *waitingCall) answer(end *ending) *apiv1.Answer {
	res := end.result
	if res.Code != fsm.OK {
		return answer(p.call.Op, &res, end.index, end.now)
	}
	res.Queued = p.came
	a := answer(p.call.Op, &res, end.index, end.now)
	a.Stamp = int64(p.stamp)
	return a
}
