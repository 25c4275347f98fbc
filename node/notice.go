package node

import (
	"sync"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// notices sends streams what happens to the sessions that they watch.
type notices struct {
	mu       sync.Mutex // guards what follows
	next     uint64
	watchers map[fsm.SessionID]map[uint64]func(*apiv1.Notice) // session → number → function
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

// observe turns the events of an entry into notices. A client whose session an operator has
// ended first gets who has ended its grants and why, and then that the session is over.
func (n *notices) observe(a *fsm.Applied) {
	for i := range a.Events {
		if e := &a.Events[i]; e.Kind == fsm.EventRevoked && e.Session != (fsm.SessionID{}) {
			n.send(e.Session, &apiv1.Notice{Session: e.Session[:], Revocation: &apiv1.Revocation{
				Number: e.Number, Token: e.Token, Reason: e.Reason, Who: e.Who,
			}})
		}
	}
	for i := range a.Events {
		if e := &a.Events[i]; e.Kind == fsm.EventSessionEnded {
			n.send(e.Session, &apiv1.Notice{Session: e.Session[:]})
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
