package history

import (
	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/embedded"
	"github.com/locknode/locknode/internal/mux"
)

// Backend returns a backend that records the operations of the client of that name and their
// answers. It is for clients of embedded nodes, which have no stream.
func (r *Recorder) Backend(name string, b embedded.Node) embedded.Node {
	own := backend{b, r, name}
	if rights, ok := b.(embedded.Rights); ok {
		return operatorBackend{own, rights}
	}
	return own
}

// operatorBackend is a backend of a node that knows access tokens and policies.
type operatorBackend struct {
	backend
	embedded.Rights
}

type backend struct {
	embedded.Node
	r      *Recorder
	client string
}

// Start is part of embedded.Node. It records the answer before the client gets it.
func (b backend) Start(call *mux.Call) {
	b.r.mu.Lock()
	now := b.r.now()
	i, ok := b.r.noteLocked(b.client, call.Op, now, sendingTakes)
	b.r.mu.Unlock()
	if ok {
		done := call.Done
		call.Done = func(a *apiv1.Answer) {
			b.r.mu.Lock()
			b.r.answerLocked(sending{i, now}, a, b.r.now())
			b.r.mu.Unlock()
			call.Done = done // the client may start the call again
			done(a)
		}
	}
	b.Node.Start(call)
}
