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

// waits knows the acquires that this node took into the table and whose end it
// has not told yet. It wakes them from the events of apply, so nobody polls.
//
// An acquire is entered before it is proposed: its grant may be applied before
// the proposer has said that it is queued. Whoever removes a call answers it.
//
// A request that is sent again has several calls here. An event answers only those
// whose own entry has been applied: one that is still on its way may not be told
// of the grant that an earlier copy was given, because the cancel of the request may
// come before it in the log.
type waits struct {
	// holders says who holds locks now, for those who have waited in vain.
	holders func([]fsm.Want) []fsm.Holder

	mu    sync.Mutex
	calls map[waitKey]*line
}

// line is the calls of one request: usually one, more when it was sent again.
type line struct {
	first, last *parked
	n           int
	sweep       int // when n is as much, those of callers who have gone are dropped
}

// parked is one call that waits. Its links are guarded by waits.mu.
type parked struct {
	key        waitKey
	call       *mux.Call
	next, prev *parked
	gone       bool // it has been removed

	queued bool        // its own entry was applied and put or found it in line
	came   fsm.Instant // cluster time at which the request entered the table; once it is queued
	stamp  fsm.Instant // cluster time of that entry
	end    *ending     // of the wait, seen before queued; nil: not ended
}

// ending is how a wait has ended.
type ending struct {
	result fsm.Result
	index  uint64
	now    fsm.Instant
}

func newWaits() *waits {
	return &waits{
		calls:   make(map[waitKey]*line),
		holders: func([]fsm.Want) []fsm.Holder { return nil },
	}
}

// fewCalls is how many calls a request may have before those whose callers have gone
// are looked for.
const fewCalls = 4

// enter puts a call into the registry. A client that reconnects often leaves calls of
// the same request behind: now and then they are dropped, so that entering one takes
// the same time however many there are.
func (w *waits) enter(key waitKey, call *mux.Call) *parked {
	p := &parked{key: key, call: call}
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.calls[key]
	if l == nil {
		l = &line{sweep: fewCalls}
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

// unlink leaves the links of p itself as they are: whoever walks the line goes on.
func (l *line) unlink(p *parked) {
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

// remove reports whether p was still there.
func (w *waits) remove(p *parked) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.removeLocked(p)
}

func (w *waits) removeLocked(p *parked) bool {
	if p.gone {
		return false
	}
	l := w.calls[p.key]
	if l.unlink(p); l.n == 0 {
		delete(w.calls, p.key)
	}
	return true
}

// queued says that the own entry of p was applied and left it in line. It returns
// the answer if the wait has ended since, and p is then gone.
func (w *waits) queued(p *parked, o outcome) (end *apiv1.Answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.queued, p.came, p.stamp = true, o.result.Queued, o.now
	if p.end == nil || !w.removeLocked(p) {
		return nil
	}
	return p.answer(p.end)
}

// takeAll empties the registry.
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
			w.tell(e.Request, e, a)
			for _, other := range e.Others {
				w.tell(other, e, a)
			}
		case fsm.EventTryEnded: // the others wait on
			w.tell(e.Request, e, a)
		}
	}
}

// tell answers the calls of one request that an event has ended.
func (w *waits) tell(id fsm.RequestID, e *fsm.Event, a *fsm.Applied) {
	key := keyOf(id)
	w.mu.Lock()
	_, waits := w.calls[key]
	w.mu.Unlock()
	if !waits {
		return
	}
	end := &ending{result: e.Result, index: a.Index, now: a.Now}
	if e.Kind != fsm.EventGranted {
		end.result = fsm.Result{Code: e.Code}
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

// ended takes out the calls that are to be answered, and leaves the end with the
// others.
func (w *waits) ended(key waitKey, end *ending) (answered []*parked) {
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

// answer tells p how its wait has ended. The stamp of a grant is that of the call's
// own entry: its client counts from when it sent that.
func (p *parked) answer(end *ending) *apiv1.Answer {
	res := end.result
	if res.Code != fsm.OK {
		return answer(p.call.Op, &res, end.index, end.now)
	}
	res.Queued = p.came
	a := answer(p.call.Op, &res, end.index, end.now)
	a.Stamp = int64(p.stamp)
	return a
}
