package history

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/fsm"
)

// What a recorder keeps unless [Recorder.Limit] says otherwise.
const (
	defaultOps      = 1 << 20
	entriesPerOp    = 8 // several nodes apply each operation, in several runs each
	maxFaults       = 1 << 16
	streamIsSettled = 2 * time.Second
	sendingTakes    = time.Second
)

// Recorder collects a history. Its methods are safe for concurrent use.
//
// It keeps a limited number of records. Those that come after that are counted and left
// out.
type Recorder struct {
	now func() time.Duration

	mu      sync.Mutex // guards what follows
	limit   int        // of records, and of beliefs
	records []record
	byID    map[callID]int32 // the record that a call sent again belongs to
	names   map[[16]byte]string
	granted map[uint64][]Want // token → locks, from the answers
	beliefs []Belief
	open    map[beliefKey]int32 // beliefs that have not ended, or have not begun
	entries []Entry
	events  map[uint64][]appliedOnce // by index: equal entries share their events
	faults  []Fault
	dropped int
}

type beliefKey struct {
	client string
	token  uint64
}

// appliedOnce is what the entries of one index and digest have in common.
type appliedOnce struct {
	digest uint64
	events []fsm.Event
}

// NewRecorder returns an empty recorder. now reads the clock of the history:
// one that no fault skews, such as the time since the beginning.
func NewRecorder(now func() time.Duration) *Recorder {
	return &Recorder{
		now:     now,
		limit:   defaultOps,
		byID:    make(map[callID]int32),
		names:   make(map[[16]byte]string),
		granted: make(map[uint64][]Want),
		open:    make(map[beliefKey]int32),
		events:  make(map[uint64][]appliedOnce),
	}
}

// Limit bounds what is kept: n operations, n beliefs and 8 n entries. The
// default is about a million. Limit must be called before the recorder is used.
func (r *Recorder) Limit(n int) { r.limit = n }

// Fault records a fault of the cluster; until is 0 for one that took no time.
func (r *Recorder) Fault(what string, at, until time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.faults) >= maxFaults {
		r.dropped++
		return
	}
	r.faults = append(r.faults, Fault{At: at, Until: until, What: what})
}

// Applied returns a function that records what one run of a node applies. It must be called
// for each entry, in order, and keeps no results.
func (r *Recorder) Applied(node string) func(fsm.Applied) {
	return func(a fsm.Applied) {
		at := r.now()
		a.Results = nil
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.entries) >= entriesPerOp*r.limit {
			r.dropped++
			return
		}
		r.shareEventsLocked(&a)
		r.entries = append(r.entries, Entry{Node: node, At: at, Applied: a})
	}
}

// shareEventsLocked makes equal entries share one slice of events.
func (r *Recorder) shareEventsLocked(a *fsm.Applied) {
	for _, seen := range r.events[a.Index] {
		if seen.digest == a.Digest && len(seen.events) == len(a.Events) {
			a.Events = seen.events
			return
		}
	}
	if len(a.Events) > 0 {
		r.events[a.Index] = append(r.events[a.Index], appliedOnce{a.Digest, a.Events})
	}
}

// Trace returns a trace for the client of that name, which records its beliefs.
func (r *Recorder) Trace(name string) client.GrantTrace {
	return client.GrantTrace{
		Granted: func(g *client.Grant) { r.believe(name, g.Name(), g.Token()) },
		Ended:   func(g *client.Grant, err error) { r.disbelieve(name, g.Name(), g.Token(), LostWord(err)) },
	}
}

// LostWord returns one word for why a grant ended, from the error that its holder got.
func LostWord(err error) string {
	var lost *client.LostError
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &lost):
		return err.Error()
	}
	switch lost.Reason {
	case client.LostDeadline:
		return LostDeadline
	case client.LostExpired:
		return LostExpired
	case client.LostForced:
		return LostForced
	case client.LostClosed:
		return LostClosed
	}
	return lost.Reason.String()
}

// unbegun is the From of a belief whose end was recorded before its begin.
const unbegun = time.Duration(-1)

func (r *Recorder) believe(name, lock string, token uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.now()
	key := beliefKey{name, token}
	if i, ok := r.open[key]; ok && r.beliefs[i].From == unbegun {
		r.beliefs[i].From = min(at, r.beliefs[i].Until)
		delete(r.open, key)
		return
	}
	if len(r.beliefs) >= r.limit {
		r.dropped++
		return
	}
	r.open[key] = int32(len(r.beliefs))
	r.beliefs = append(r.beliefs, Belief{Client: name, Wants: r.wantsLocked(lock, token), Token: token, From: at, Until: Never})
}

func (r *Recorder) disbelieve(name, lock string, token uint64, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.now()
	key := beliefKey{name, token}
	if i, ok := r.open[key]; ok {
		r.beliefs[i].Until, r.beliefs[i].Lost = at, why
		delete(r.open, key)
		return
	}
	if len(r.beliefs) >= r.limit {
		r.dropped++
		return
	}
	r.open[key] = int32(len(r.beliefs))
	r.beliefs = append(r.beliefs, Belief{
		Client: name, Wants: r.wantsLocked(lock, token), Token: token, From: unbegun, Until: at, Lost: why,
	})
}

// wantsLocked returns the locks of a grant: as requested, if the request was seen.
func (r *Recorder) wantsLocked(lock string, token uint64) []Want {
	if wants, ok := r.granted[token]; ok {
		return wants
	}
	return []Want{{Lock: lock, Mode: fsm.Exclusive}}
}

// History returns a copy of what was recorded so far. Operations without a final
// answer have the outcome [Unknown]; reads without one are left out.
func (r *Recorder) History() *History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := &History{
		Ops:     make([]Op, 0, len(r.records)),
		Beliefs: make([]Belief, 0, len(r.beliefs)),
		Entries: slices.Clone(r.entries),
		Faults:  slices.Clone(r.faults),
		Dropped: r.dropped,
	}
	for i := range r.records {
		rec := &r.records[i]
		if !rec.final && rec.op.Kind == Get {
			continue
		}
		op := rec.op
		op.Request, op.Target = rec.id.request.String(), rec.target.try()
		if rec.id.request.once != [16]byte{} {
			op.Try = rec.id.request.try()
		}
		h.Ops = append(h.Ops, op)
	}
	for _, b := range r.beliefs {
		if b.From == unbegun {
			b.From = b.Until // told in between
		}
		h.Beliefs = append(h.Beliefs, b)
	}
	slices.SortStableFunc(h.Ops, func(a, b Op) int { return int(min(1, max(-1, a.Call-b.Call))) })
	return h
}

// requestID is an [apiv1.RequestID] as a key.
type requestID struct {
	session  [16]byte
	sequence uint64
	once     [16]byte
}

// String returns "once/ID" or "session/sequence", as [Op.Request] has it.
func (id requestID) String() string {
	if id.once != [16]byte{} {
		return onceWord + hex.EncodeToString(id.once[:])
	}
	return id.try()
}

// try returns "session/sequence".
func (id requestID) try() string {
	if id.sequence == 0 {
		return ""
	}
	return fmt.Sprintf("%x/%d", id.session, id.sequence)
}

// onceWord begins a request that has a once ID.
const onceWord = "once/"

func isOnce(request string) bool { return strings.HasPrefix(request, onceWord) }
