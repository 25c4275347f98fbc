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
type waits struct {
	mu    sync.Mutex
	calls map[waitKey][]*mux.Call // usually one; more when a request was sent again
}

func newWaits() *waits { return &waits{calls: make(map[waitKey][]*mux.Call)} }

// enter also drops the earlier calls of the same request whose senders have
// gone: a client that reconnects often leaves one behind each time.
func (w *waits) enter(key waitKey, call *mux.Call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := slices.DeleteFunc(w.calls[key], (*mux.Call).Abandoned)
	w.calls[key] = append(calls, call)
}

// remove reports whether call was still there.
func (w *waits) remove(key waitKey, call *mux.Call) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls[key]
	for i, c := range calls {
		if c != call {
			continue
		}
		if len(calls) == 1 {
			delete(w.calls, key)
		} else {
			w.calls[key] = append(calls[:i:i], calls[i+1:]...)
		}
		return true
	}
	return false
}

// takeAll empties the registry.
func (w *waits) takeAll() []*mux.Call {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*mux.Call
	for _, calls := range w.calls {
		all = append(all, calls...)
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
		if e.Kind != fsm.EventGranted && e.Kind != fsm.EventWaitEnded {
			continue
		}
		key := keyOf(e.Request)
		w.mu.Lock()
		calls := w.calls[key]
		delete(w.calls, key)
		w.mu.Unlock()
		for _, call := range calls {
			call.Done(endOfWait(call.Op, e, a))
		}
	}
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
