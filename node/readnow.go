package node

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/mux"
)

// reads holds what waits for the table: reads whose read index the table has not applied
// yet, and reads that came while an entry was being applied. An entry may take long, and
// neither a round nor a stream may wait for it. Its goroutine is run.
type reads struct {
	applied func() uint64 // index of the last command applied
	mono    func() time.Duration
	woken   chan struct{} // holds a token when there may be something to do

	waiting atomic.Int32 // length of queue
	// freed is called when few reads wait again; see busy.
	freed func()

	mu     sync.Mutex    // guards what follows
	queue  []waitingRead // by index
	closed bool
}

// waitingRead is a function to call once the table has applied an index.
type waitingRead struct {
	index uint64
	until time.Duration // mono when the wait has been too long
	do    func(reached bool)
}

// readsPoll is how often reads that have waited too long are looked for.
const readsPoll = 100 * time.Millisecond

func newReads(applied func() uint64, mono func() time.Duration) *reads {
	return &reads{applied: applied, mono: mono, freed: func() {}, woken: make(chan struct{}, 1)}
}

// add has do called on the goroutine of run once the table has applied index, or with false
// if it has not within noLeaderPatience or the node is stopping.
func (r *reads) add(index uint64, do func(reached bool)) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		do(false)
		return
	}
	w := waitingRead{index: index, until: r.mono() + noLeaderPatience, do: do}
	at, _ := slices.BinarySearchFunc(r.queue, index+1, func(w waitingRead, i uint64) int { return cmp.Compare(w.index, i) })
	r.queue = slices.Insert(r.queue, at, w)
	r.waiting.Store(int32(len(r.queue)))
	r.mu.Unlock()
	r.wake()
}

// reach calls do once the table has applied index: at once if it has, otherwise as add does.
func (r *reads) reach(index uint64, do func(reached bool)) {
	if r.applied() >= index {
		do(true)
		return
	}
	r.add(index, do)
}

// wake has run serve soon what can be served. It is called after every entry.
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
	t := time.NewTimer(readsPoll)
	defer t.Stop()
	for {
		if more := r.serve(); more {
			t.Reset(readsPoll)
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

// fewReads is how many reads may wait for the table before it is busy.
const fewReads = 256

// busy reports whether so many reads wait that rounds should not add more.
func (r *reads) busy() bool { return r.waiting.Load() > fewReads }

// serve calls the functions whose wait is over, and reports whether others still wait.
func (r *reads) serve() (more bool) {
	r.mu.Lock()
	applied, now := r.applied(), r.mono()
	n := 0
	for n < len(r.queue) && r.queue[n].index <= applied {
		n++
	}
	ready := slices.Clone(r.queue[:n])
	r.queue = slices.Delete(r.queue, 0, n)
	var late []waitingRead
	r.queue = slices.DeleteFunc(r.queue, func(w waitingRead) bool {
		if w.until <= now {
			late = append(late, w)
		}
		return w.until <= now
	})
	more = len(r.queue) > 0
	freed := r.busy() && len(r.queue) <= fewReads
	r.waiting.Store(int32(len(r.queue)))
	r.mu.Unlock()
	for _, w := range ready {
		w.do(true)
	}
	for _, w := range late {
		w.do(false)
	}
	if freed {
		r.freed()
	}
	return more
}

// close ends all waits, and lets no other begin.
func (r *reads) close() {
	r.mu.Lock()
	r.closed = true
	rest := r.queue
	r.queue = nil
	r.mu.Unlock()
	for _, w := range rest {
		w.do(false)
	}
}

// answerRead answers a read once the table has applied index: at once, if no entry is being
// applied at the moment.
func (n *Node) answerRead(call *mux.Call, index uint64, age time.Duration) {
	var a *apiv1.Answer
	show := func(t *fsm.Table) { a = readNow(t, call, age) }
	if n.appliedIndex() >= index {
		if ran, intact := n.machine.TryView(show); ran {
			call.Done(n.shown(call, a, intact))
			return
		}
	}
	since := n.cfg.seams.Mono()
	n.reads.add(index, func(reached bool) {
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

// shown returns the answer to a read, or an error if the table is broken.
func (n *Node) shown(call *mux.Call, a *apiv1.Answer, intact bool) *apiv1.Answer {
	if !intact {
		return errorAnswer(call.Op, apiv1.NewError(apiv1.CodeInternal, "node %q: its lock table is broken and the node is stopping; ask another one", n.id))
	}
	return a
}

// behind returns why a read was not answered whose read index is known.
func (n *Node) behind(index uint64) *apiv1.Error {
	if n.ctx.Err() != nil {
		return apiv1.NewError(apiv1.CodeUnavailable, "node %q is stopping", n.id)
	}
	return apiv1.NewError(apiv1.CodeUnavailable, "node %q is behind: it has applied the log up to entry %d, and the read needs entry %d", n.id, n.appliedIndex(), index)
}

// readCost returns about what a read costs: see roundCost.
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

// readNow answers a read from the table, which does not change meanwhile.
func readNow(t *fsm.Table, call *mux.Call, age time.Duration) *apiv1.Answer {
	op := call.Op
	now := t.Now()
	_, index := t.Digest()
	a := &apiv1.Answer{Id: op.GetId(), Index: index, Stamp: int64(now)}
	if f := parts[op.Kind()].read; f != nil {
		if err := f(t, call, a, age); err != nil {
			return errorAnswer(op, err)
		}
	}
	return a
}

// checkName refuses names that no lock can have. To answer that such a lock is free would
// be true, and would hide a mistake.
func checkName(name string, most int) *apiv1.Error {
	if name == "" || len(name) > most || !fsm.Plain(name) {
		return apiv1.NewError(apiv1.CodeInvalid, "name: is %.100q of %d bytes, must be UTF-8 of 1 to %d bytes, without control characters", name, len(name), most)
	}
	return nil
}

// listLocks builds one page: as many locks as were requested, or as fit.
func listLocks(t *fsm.Table, r *apiv1.ListRequest, readable []struct{ From, To string }, age time.Duration) *apiv1.ListResponse {
	limit := int(r.GetLimit())
	if limit == 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	res := &apiv1.ListResponse{AgeNs: int64(age)}
	after, size := r.GetAfter(), 0
	for {
		const step = 16 // few enough that the largest locks do not pile up
		views, more := locksAfter(t, readable, r.GetPrefix(), after, min(step, limit-len(res.Locks)))
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

// locksAfter is [fsm.Table.List] for a caller who may see only what is readable; nil: everything.
// What he may not see is skipped without looking at it, and nothing of the answer depends on it.
func locksAfter(t *fsm.Table, readable []struct{ From, To string }, prefix, after string, limit int) (views []fsm.LockView, more bool) {
	if readable == nil {
		return t.List(prefix, after, limit)
	}
	for _, span := range readable {
		if span.To != "" && span.To <= max(prefix, after) {
			continue
		}
		if span.From > prefix && !strings.HasPrefix(span.From, prefix) {
			break
		}
		if span.From > after && span.From >= prefix {
			if v := t.Lock(span.From); v.HolderCount+v.Waiters > 0 || v.DelayUntil != 0 { // List would begin behind it
				if len(views) >= limit {
					return views, true
				}
				views = append(views, v)
			}
			after = span.From
		}
		some, _ := t.List(prefix, after, limit-len(views)+1)
		for _, v := range some {
			if span.To != "" && v.Name >= span.To {
				break
			}
			if len(views) >= limit {
				return views, true
			}
			views, after = append(views, v), v.Name
		}
	}
	return views, false
}
