package history

import (
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/locknode/locknode/client"
)

// Recorder collects a history.
type Recorder struct {
	mu  sync.Mutex
	h   History
	now func() time.Duration
}

// NewRecorder returns an empty one.
func NewRecorder(now func() time.Duration) *Recorder { return &Recorder{now: now} }

// DialOptions record what a client sends and is told.
func (r *Recorder) DialOptions(string) []grpc.DialOption { return nil }

// Trace records what a client believes.
func (r *Recorder) Trace(string) client.Trace { return client.Trace{} }

// Fault notes a fault.
func (r *Recorder) Fault(what string, at, until time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.h.Faults = append(r.h.Faults, Fault{At: at, Until: until, What: what})
}

// History is what was collected so far.
func (r *Recorder) History() *History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.h
	return &h
}

// Check judges.
func (h *History) Check(Options) Report {
	return Report{Stats: Stats{Ops: len(h.Ops), Beliefs: len(h.Beliefs)}}
}

// Picture draws.
func (h *History) Picture(io.Writer, string) error { return nil }
