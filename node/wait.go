package node

import (
	"slices"
	"sync"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/mux"
)

// waitKey is what an acquire and the event that ends its wait have in common.
type waitKey struct {
	session  fsm.SessionID
	sequence uint64
	once     fsm.OnceID
}

func keyOf(id fsm.RequestID) waitKey {
	return waitKey{session: id.Session, sequence: id.Sequence, once: id.Once}
}

// waits knows the acquires that this node took into the table and whose end it
// has not told yet. It wakes them from the events of apply, so nobody polls.
//
// An acquire is entered before it is proposed: its grant may be applied before
// the proposer has said that it is queued. Whoever removes a call answers it.
//
// A request that is sent again has several calls here. An event answers only those
// whose own entry has been applied: one that is still on its way may not be told
// of the grant that an earlier try was given, because the cancel of that try may
// come before it in the log.
type waits struct {
	mu    sync.Mutex
	calls map[waitKey][]*parked // usually one; more when a request was sent again
}

// parked is one call that waits.
type parked struct {
	call   *mux.Call
	queued bool          // its own entry was applied and put or found it in line
	end    *apiv1.Answer // of the wait, seen before queued; nil: not ended
}

func newWaits() *waits { return &waits{calls: make(map[waitKey][]*parked)} }

// enter also drops the earlier calls of the same request whose senders have
// gone: a client that reconnects often leaves one behind each time.
func (w *waits) enter(key waitKey, call *mux.Call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := slices.DeleteFunc(w.calls[key], func(p *parked) bool { return p.call.Abandoned() })
	w.calls[key] = append(calls, &parked{call: call})
}

// remove reports whether call was still there.
func (w *waits) remove(key waitKey, call *mux.Call) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.removeLocked(key, call) != nil
}

func (w *waits) removeLocked(key waitKey, call *mux.Call) *parked {
	calls := w.calls[key]
	for i, p := range calls {
		if p.call != call {
			continue
		}
		if len(calls) == 1 {
			delete(w.calls, key)
		} else {
			w.calls[key] = slices.Delete(calls, i, i+1)
		}
		return p
	}
	return nil
}

// queued says that the call's own entry was applied and left it in line. It
// returns the answer if the wait has ended since, and the call is then gone.
func (w *waits) queued(key waitKey, call *mux.Call) (end *apiv1.Answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.calls[key] {
		if p.call == call {
			if p.queued = true; p.end != nil {
				return w.removeLocked(key, call).end
			}
		}
	}
	return nil
}

// takeAll empties the registry.
func (w *waits) takeAll() []*mux.Call {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*mux.Call
	for _, calls := range w.calls {
		for _, p := range calls {
			all = append(all, p.call)
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
		e := &a.Events[i]
		switch e.Kind {
		case fsm.EventQueued:
			w.begun(keyOf(e.Request))
		case fsm.EventGranted, fsm.EventWaitEnded:
			for _, call := range w.ended(keyOf(e.Request), e, a) {
				call.Done(endOfWait(call.Op, e, a))
			}
		}
	}
}

// begun says that a request was put in line: what ended before was another wait
// under the same ID.
func (w *waits) begun(key waitKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.calls[key] {
		p.end = nil
	}
}

// ended takes out the calls that an event answers and leaves it with the others.
func (w *waits) ended(key waitKey, e *fsm.Event, a *fsm.Applied) (answered []*mux.Call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var rest []*parked
	for _, p := range w.calls[key] {
		if p.queued {
			answered = append(answered, p.call)
			continue
		}
		p.end = endOfWait(p.call.Op, e, a)
		rest = append(rest, p)
	}
	if len(rest) == 0 {
		delete(w.calls, key)
	} else {
		w.calls[key] = rest
	}
	return answered
}

func endOfWait(op *apiv1.Operation, e *fsm.Event, a *fsm.Applied) *apiv1.Answer {
	res := e.Result
	if e.Kind == fsm.EventWaitEnded {
		res = fsm.Result{Code: e.Code}
	}
	return answer(op, &res, a.Index, a.Now)
}

// notices tells streams what happened to the sessions that they watch.
type notices struct {
	mu       sync.Mutex
	next     uint64
	watchers map[fsm.SessionID]map[uint64]func(*apiv1.Notice)
}

func newNotices() *notices {
	return &notices{watchers: make(map[fsm.SessionID]map[uint64]func(*apiv1.Notice))}
}

// watch calls f, which must not block, for every notice about a session until
// stop is called.
func (n *notices) watch(session fsm.SessionID, f func(*apiv1.Notice)) (stop func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	id := n.next
	if n.watchers[session] == nil {
		n.watchers[session] = make(map[uint64]func(*apiv1.Notice))
	}
	n.watchers[session][id] = f
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.watchers[session], id)
		if len(n.watchers[session]) == 0 {
			delete(n.watchers, session)
		}
	}
}

// observe turns the events of an entry into notices.
func (n *notices) observe(a *fsm.Applied) {
	for i := range a.Events {
		e := &a.Events[i]
		if e.Session == (fsm.SessionID{}) {
			continue
		}
		switch e.Kind {
		case fsm.EventSessionEnded:
			n.send(e.Session, &apiv1.Notice{Session: e.Session[:]})
		case fsm.EventRevoked:
			n.send(e.Session, &apiv1.Notice{Session: e.Session[:], Revocation: &apiv1.Revocation{
				Number: e.Number, Token: e.Token, Reason: e.Reason, Who: e.Who,
			}})
		}
	}
}

func (n *notices) send(session fsm.SessionID, notice *apiv1.Notice) {
	n.mu.Lock()
	var fs []func(*apiv1.Notice)
	for _, f := range n.watchers[session] {
		fs = append(fs, f)
	}
	n.mu.Unlock()
	for _, f := range fs {
		f(notice)
	}
}
