package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// A read round makes reads linearizable without a log entry. After the reads
// have arrived, the leader asks the voters whether its term is still theirs. A
// majority of yes means that no later leader can have committed anything before
// the reads began; whatever was acknowledged until then, this leader has
// acknowledged or found in its log, and so has applied. One round serves all
// the reads that were waiting when it began.
//
// raft.VerifyLeader is not enough: it counts an answer to a heartbeat that was
// sent before the read, and after a pause of the process that answer is old.
//
// A follower's round asks the leader for an index that such a round has covered
// and waits until it has applied it.

// freshEvery is how often a node runs a round that nobody asked for: stale
// reads and readiness live on its age.
const freshEvery = time.Second

// rounds runs one read round at a time. Its goroutine is run.
type rounds struct {
	// confirm returns an applied index at which a read that began before the
	// call is linearizable.
	confirm func(ctx context.Context) (uint64, error)
	mono    func() time.Duration
	wake    chan struct{}

	mu      sync.Mutex
	waiting []func(index uint64, err error)
	freshAt time.Duration // mono when the last good round began
	fresh   bool          // a round was good once
	err     error         // of the last round
}

func newRounds(confirm func(context.Context) (uint64, error), mono func() time.Duration) *rounds {
	return &rounds{confirm: confirm, mono: mono, wake: make(chan struct{}, 1), err: errors.New("no read round yet")}
}

// join has done called at the end of the next round, on its goroutine.
func (r *rounds) join(done func(index uint64, err error)) {
	r.mu.Lock()
	r.waiting = append(r.waiting, done)
	r.mu.Unlock()
	r.nudge()
}

// nudge has a round run soon.
func (r *rounds) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// age says how old the node's table may be, at most; ok is false if no round
// was good yet.
func (r *rounds) age() (age time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mono() - r.freshAt, r.fresh
}

// lastErr is why the last round failed, nil if it did not.
func (r *rounds) lastErr() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *rounds) run(ctx context.Context) {
	t := time.NewTicker(freshEvery)
	defer t.Stop()
	for {
		r.round(ctx)
		select {
		case <-ctx.Done():
			r.round(ctx) // fails what still waits
			return
		case <-r.wake:
		case <-t.C:
		}
	}
}

func (r *rounds) round(ctx context.Context) {
	r.mu.Lock()
	batch := r.waiting
	r.waiting = nil
	r.mu.Unlock()
	began := r.mono()
	index, err := r.confirm(ctx)
	r.mu.Lock()
	r.err = err
	if err == nil {
		r.freshAt, r.fresh = began, true
	}
	r.mu.Unlock()
	for _, done := range batch {
		done(index, err)
	}
}

// confirm is the node's side of a read round: the leader's or the follower's.
func (n *Node) confirm(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*n.cfg.Timing+100*time.Millisecond)
	defer cancel()
	if e := n.epoch.Load(); e != nil {
		index := n.appliedIndex.Load()
		if err := n.confirmTerm(ctx, e.term); err != nil || !e.proposer.overdue() {
			return index, err
		}
		// A deadline has come and the entry that ends it is on its way: a read
		// that began after the deadline should not find the lock held.
		index = n.appliedIndex.Load() + 1
		return index, n.waitApplied(ctx, index)
	}
	peer, err := n.leaderPeer()
	if err != nil {
		return 0, err
	}
	res, err := peer.ReadIndex(ctx, &apiv1.ReadIndexRequest{})
	if err != nil {
		return 0, fmt.Errorf("ask the leader for a read index: %w", err)
	}
	return res.GetIndex(), n.waitApplied(ctx, res.GetIndex())
}

// confirmTerm asks the other voters whether term is still theirs.
func (n *Node) confirmTerm(ctx context.Context, term uint64) error {
	r := n.raft.Load()
	others, voters := n.otherVoters(r)
	need := voters/2 + 1
	yes := 0
	if got, leading := leads(r); leading && got == term {
		yes++
	}
	if yes == 0 {
		return fmt.Errorf("confirm term %d: this node leads it no more", term)
	}
	if yes >= need {
		return nil
	}
	votes := make(chan bool, len(others))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, id := range others {
		go func() {
			peer, err := n.peers.peer(string(id))
			if err != nil {
				votes <- false
				return
			}
			res, err := peer.Term(ctx, &apiv1.TermRequest{})
			votes <- err == nil && res.GetTerm() == term && res.GetNodeId() == string(id)
		}()
	}
	for range others {
		if <-votes {
			yes++
		}
		if yes >= need {
			if got, leading := leads(r); !leading || got != term {
				return fmt.Errorf("confirm term %d: this node leads it no more", term)
			}
			return nil
		}
	}
	return fmt.Errorf("confirm term %d: %d of %d voters said yes, %d are needed", term, yes, voters, need)
}

// waitApplied waits until this node has applied index.
func (n *Node) waitApplied(ctx context.Context, index uint64) error {
	for n.appliedIndex.Load() < index {
		select {
		case <-n.appliedMore:
		case <-ctx.Done():
			return fmt.Errorf("wait for index %d, applied is %d: %w", index, n.appliedIndex.Load(), context.Cause(ctx))
		}
	}
	return nil
}

// isRead reports whether op only reads, and how old its answer may be.
func isRead(op *apiv1.Operation) (maxStale time.Duration, read bool) {
	switch r := op.GetRequest().(type) {
	case *apiv1.Operation_Get:
		return time.Duration(r.Get.GetMaxStaleNs()), true
	case *apiv1.Operation_List:
		return time.Duration(r.List.GetMaxStaleNs()), true
	}
	return 0, false
}

// Bounds of one List answer.
const (
	defaultPage  = 100
	maxPage      = 1000
	maxPageBytes = 512 << 10
)

// readNow answers a read from the table as it is on this node.
func (n *Node) readNow(op *apiv1.Operation, age time.Duration) *apiv1.Answer {
	a := &apiv1.Answer{Id: op.GetId()}
	intact := n.machine.View(func(t *fsm.Table) {
		now := t.Now()
		_, a.Index = t.Digest()
		a.Stamp = now
		switch r := op.GetRequest().(type) {
		case *apiv1.Operation_Get:
			a.Result = &apiv1.Answer_Get{Get: &apiv1.GetResponse{
				Lock: lockMessage(t.Lock(r.Get.GetName()), now), AgeNs: int64(age),
			}}
		case *apiv1.Operation_List:
			a.Result = &apiv1.Answer_List{List: listLocks(t, r.List, age)}
		}
	})
	if !intact {
		return errorAnswer(op, apiv1.NewError(apiv1.CodeInternal, "node %q: its lock table is broken and the node is stopping; ask another one", n.id))
	}
	return a
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
