package node

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/mux"
)

// reads holds what waits for the table: reads whose round has covered more than the
// table has applied, and reads that came while an entry was being applied. An entry
// may take long, and neither a round nor a stream may wait for it. Its goroutine is
// run.
type reads struct {
	applied func() uint64 // index of the last command applied
	mono    func() time.Duration
	woken   chan struct{} // holds a token when there may be something to do

	waiting atomic.Int32 // length of parked
	// freed is called when few wait any more; see busy.
	freed func()

	mu     sync.Mutex   // guards what follows
	parked []parkedRead // by index
	closed bool
}

// parkedRead is what is to be done once the table has applied an index.
type parkedRead struct {
	index uint64
	until time.Duration // mono; then the wait is in vain
	do    func(reached bool)
}

// readsLook is how often it is looked who waits in vain.
const readsLook = 100 * time.Millisecond

func newReads(applied func() uint64, mono func() time.Duration) *reads {
	return &reads{applied: applied, mono: mono, freed: func() {}, woken: make(chan struct{}, 1)}
}

// park has do called on the goroutine of reads once the table has applied index, or
// with false when it has not within noLeaderPatience or the node is stopping.
func (r *reads) park(index uint64, do func(reached bool)) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		do(false)
		return
	}
	p := parkedRead{index: index, until: r.mono() + noLeaderPatience, do: do}
	at, _ := slices.BinarySearchFunc(r.parked, index+1, func(p parkedRead, i uint64) int { return cmp.Compare(p.index, i) })
	r.parked = slices.Insert(r.parked, at, p)
	r.waiting.Store(int32(len(r.parked)))
	r.mu.Unlock()
	r.wake()
}

// wake has it looked soon who can be served. It is called after every entry.
func (r *reads) wake() {
	if r.waiting.Load() == 0 {
		return
	}
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

func (r *reads) run(ctx context.Context) {
	t := time.NewTimer(readsLook)
	defer t.Stop()
	for {
		if more := r.serve(); more {
			t.Reset(readsLook)
		}
		select {
		case <-ctx.Done():
			r.close()
			return
		case <-r.woken:
		case <-t.C:
		}
	}
}

// fewReads that wait for the table are not many.
const fewReads = 256

// busy reports whether so many wait that more would wait for them.
func (r *reads) busy() bool { return r.waiting.Load() > fewReads }

// serve does what can be done, and reports whether some still wait.
func (r *reads) serve() (more bool) {
	r.mu.Lock()
	applied, now := r.applied(), r.mono()
	n := 0
	for n < len(r.parked) && r.parked[n].index <= applied {
		n++
	}
	ready := slices.Clone(r.parked[:n])
	r.parked = slices.Delete(r.parked, 0, n)
	var late []parkedRead
	r.parked = slices.DeleteFunc(r.parked, func(p parkedRead) bool {
		if p.until <= now {
			late = append(late, p)
		}
		return p.until <= now
	})
	more = len(r.parked) > 0
	freed := r.busy() && len(r.parked) <= fewReads
	r.waiting.Store(int32(len(r.parked)))
	r.mu.Unlock()
	for _, p := range ready {
		p.do(true)
	}
	for _, p := range late {
		p.do(false)
	}
	if freed {
		r.freed()
	}
	return more
}

// close lets nobody wait any more.
func (r *reads) close() {
	r.mu.Lock()
	r.closed = true
	rest := r.parked
	r.parked = nil
	r.mu.Unlock()
	for _, p := range rest {
		p.do(false)
	}
}

// whenApplied calls f once the table has applied index; not at all if that does not
// come to pass for long.
func (n *Node) whenApplied(index uint64, f func()) {
	if n.appliedIndex() >= index {
		f()
		return
	}
	n.reads.park(index, func(reached bool) {
		if reached {
			f()
		}
	})
}

// answerRead answers a read once the table has applied index: at once, if that can
// be done without waiting for the entry that is being applied.
func (n *Node) answerRead(call *mux.Call, index uint64, age time.Duration) {
	var a *apiv1.Answer
	show := func(t *fsm.Table) { a = readNow(t, call.Op, age) }
	if n.appliedIndex() >= index {
		if ran, intact := n.machine.TryView(show); ran {
			call.Done(n.shown(call, a, intact))
			return
		}
	}
	since := n.cfg.seams.Mono()
	n.reads.park(index, func(reached bool) {
		switch {
		case call.Abandoned():
		case !reached:
			call.Done(errorAnswer(call.Op, n.behind(index)))
		default:
			if age > 0 {
				age += n.cfg.seams.Mono() - since
			}
			intact := n.machine.View(show)
			call.Done(n.shown(call, a, intact))
		}
	})
}

// shown is the answer to a read, unless the table is not to be shown.
func (n *Node) shown(call *mux.Call, a *apiv1.Answer, intact bool) *apiv1.Answer {
	if !intact {
		return errorAnswer(call.Op, apiv1.NewError(apiv1.CodeInternal, "node %q: its lock table is broken and the node is stopping; ask another one", n.id))
	}
	return a
}

// behind says why a read was not answered that a round has covered.
func (n *Node) behind(index uint64) *apiv1.Error {
	if n.ctx.Err() != nil {
		return apiv1.NewError(apiv1.CodeUnavailable, "node %q is stopping", n.id)
	}
	return apiv1.NewError(apiv1.CodeUnavailable, "node %q is behind: it has applied the log up to entry %d, and entry %d is needed", n.id, n.appliedIndex(), index)
}

// readCost is what a read costs, about: see roundCost.
func readCost(op *apiv1.Operation) int {
	if op.Kind().Pages() {
		return listCost
	}
	return getCost
}

// Bounds of one List answer.
const (
	defaultPage  = 100
	maxPage      = 1000
	maxPageBytes = 112 << 10 // the server cuts pages that are longer than 128 KiB
)

// readNow answers a read from the table, which stays as it is meanwhile.
func readNow(t *fsm.Table, op *apiv1.Operation, age time.Duration) *apiv1.Answer {
	now := t.Now()
	_, index := t.Digest()
	a := &apiv1.Answer{Id: op.GetId(), Index: index, Stamp: int64(now)}
	if f := parts[op.Kind()].read; f != nil {
		if err := f(t, op, a, age); err != nil {
			return errorAnswer(op, err)
		}
	}
	return a
}

// checkName refuses names that no lock can have: that such a one is free would be
// true, and would hide a mistake.
func checkName(name string, most int) *apiv1.Error {
	if name == "" || len(name) > most || !fsm.Plain(name) {
		return apiv1.NewError(apiv1.CodeInvalid, "name %.100q of %d bytes: must be UTF-8 of 1 to %d bytes, without control characters", name, len(name), most)
	}
	return nil
}

// listLocks builds one page: as many locks as were asked for, or as fit.
func listLocks(t *fsm.Table, r *apiv1.ListRequest, age time.Duration) *apiv1.ListResponse {
	limit := int(r.GetLimit())
	if limit == 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	res := &apiv1.ListResponse{AgeNs: int64(age)}
	after, size := r.GetAfter(), 0
	for {
		const step = 16 // few enough that the largest locks do not pile up
		views, more := t.List(r.GetPrefix(), after, min(step, limit-len(res.Locks)))
		for _, v := range views {
			lock := lockMessage(v, t.Now())
			res.Locks = append(res.Locks, lock)
			size += proto.Size(lock)
			after = v.Name
		}
		if !more || len(views) == 0 {
			return res
		}
		if len(res.Locks) >= limit || size >= maxPageBytes {
			res.Next = after
			return res
		}
	}
}
