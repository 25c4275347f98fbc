package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// A read round makes reads linearizable without a log entry. After the reads
// have arrived, the leader notes how far the log is committed and asks the voters
// whether its term is still theirs. A majority of yes means that no later leader
// can have committed anything before the reads began. What was committed before
// then is within the commit index that was noted: this leader has committed it, or
// it was before the first entry of its term, and this node serves only after that.
// The reads are answered once the table has applied everything up to there. One
// round serves all the reads that were waiting when it began.
//
// What the table has applied when the round begins is not enough. A follower hears
// of a commit from the leader and may apply it before the leader's own table does:
// a read through this follower would see it, and one that begins after that, through
// the leader, would not.
//
// raft.VerifyLeader is not enough: it counts an answer to a heartbeat that was
// sent before the read, and after a pause of the process that answer is old.
//
// A follower's round asks the leader for the index that such a round has covered;
// its reads are answered once its own table is there. Neither round waits for a
// table: reads that do are in [reads], and the next round begins without them.

const (
	// freshEvery is how often a node runs a round that nobody asked for: stale
	// reads and readiness live on its age.
	freshEvery = time.Second
	// retryEvery is how soon after a round that failed, at first; see pause.
	retryEvery = 50 * time.Millisecond
)

// errOtherLeader is why a round is ended: what it asks is asked in vain.
var errOtherLeader = errors.New("the leader has changed")

// rounds runs one read round at a time. Its goroutine is run.
type rounds struct {
	// confirm returns the index of a command: a read that began before the call is
	// linearizable on a table that has applied it.
	confirm func(ctx context.Context) (uint64, error)
	// applied calls f once the table has applied an index, perhaps at once.
	applied func(index uint64, f func())
	mono    func() time.Duration
	wake    chan struct{}

	mu      sync.Mutex // guards what follows
	waiting []func(index uint64, err error)
	end     context.CancelCauseFunc // ends the round under way
	freshAt time.Duration           // mono when the last round began that the table has reached
	fresh   bool                    // there was one
	err     error                   // of the last round
}

func newRounds(confirm func(context.Context) (uint64, error), applied func(uint64, func()), mono func() time.Duration) *rounds {
	return &rounds{
		confirm: confirm, applied: applied, mono: mono, wake: make(chan struct{}, 1),
		end: func(error) {}, err: errors.New("no read round yet"),
	}
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

// restart ends the round under way, because whoever it asks is not the leader any
// more, and has another one run at once.
func (r *rounds) restart() {
	r.mu.Lock()
	r.end(errOtherLeader)
	r.mu.Unlock()
	r.nudge()
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
	t := time.NewTimer(0)
	defer t.Stop()
	good := r.mono()
	for {
		if err := r.round(ctx); err == nil {
			good = r.mono()
			t.Reset(freshEvery)
		} else {
			t.Reset(max(retryEvery, pause(r.mono()-good)))
		}
		select {
		case <-ctx.Done():
			_ = r.round(ctx) // fails what still waits
			return
		case <-r.wake:
		case <-t.C:
		}
	}
}

func (r *rounds) round(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	r.mu.Lock()
	batch := r.waiting
	r.waiting, r.end = nil, end
	r.mu.Unlock()
	began := r.mono()
	index, err := r.confirm(ctx)
	r.mu.Lock()
	r.err = err
	r.mu.Unlock()
	if err == nil {
		r.applied(index, func() { r.refreshed(began) })
	}
	for _, done := range batch {
		done(index, err)
	}
	return err
}

// refreshed says that the table has what a round covered that began at a time.
func (r *rounds) refreshed(at time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.freshAt, r.fresh = max(r.freshAt, at), true
}

// confirm is the node's side of a read round: the leader's or the follower's.
func (n *Node) confirm(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*n.cfg.Timing+100*time.Millisecond)
	defer cancel()
	if e := n.epoch.Load(); e != nil {
		return n.confirmHere(ctx, e)
	}
	peer, err := n.leaderPeer()
	if err != nil {
		return 0, err
	}
	res, err := peer.ReadIndex(ctx, &apiv1.ReadIndexRequest{})
	if err != nil {
		return 0, fmt.Errorf("ask the leader for a read index: %w", err)
	}
	return res.GetIndex(), nil
}

// confirmHere is the leader's side.
func (n *Node) confirmHere(ctx context.Context, e *epoch) (uint64, error) {
	index, err := n.lastCommand(n.raft.Load().CommitIndex())
	if err != nil {
		return 0, err
	}
	if err := n.confirmTerm(ctx, e.term); err != nil {
		return 0, err
	}
	if seen, ok := e.proposer.overdue(); ok {
		// A deadline has come and the entry that ends it is on its way: a read
		// that began after the deadline should not find the lock held.
		index = max(index, seen+1)
	}
	return index, nil
}

// lastCommand is the index of the last entry up to a committed one that the table
// applies; what Raft puts into the log for itself it never sees. Instead of one that
// it has applied already, the last that it has applied will do.
func (n *Node) lastCommand(committed uint64) (uint64, error) {
	applied := n.appliedIndex()
	for i := committed; i > applied; i-- {
		var l raft.Log
		if err := n.stores.Log.GetLog(i, &l); err != nil {
			if applied = n.appliedIndex(); i <= applied {
				break // a snapshot of it has taken the entry's place
			}
			return 0, fmt.Errorf("read entry %d of the log, which is committed: %w", i, err)
		}
		if l.Type == raft.LogCommand {
			return i, nil
		}
	}
	return applied, nil
}

// confirmTerm asks the voters whether term is still theirs.
//
// They are the voters of the latest configuration in this node's log, which may not
// be committed yet. That is enough while the configuration is being changed, because
// it is changed by one voter at a time: any majority of it has a voter in common with
// any majority of the one before. A leader of a later term was elected by a majority
// of the latest configuration in its own log. If it committed anything before this
// round began, it was elected before, with a log that had everything that was
// committed then; so the configuration that elected it was the latest committed one,
// or this node's latest. If this node has committed another change since, then a
// majority followed it after the round began, which those who elected a later leader
// would not have done.
//
// This node counts as one of the voters only if it is one. A leader whose removal is in
// its log leads on until that is committed, but the others elect without it: its own
// voice says nothing about them. (A leader does not remove itself, see removeMember;
// what is counted here does not depend on it.)
func (n *Node) confirmTerm(ctx context.Context, term uint64) error {
	r := n.raft.Load()
	voters, err := votersOf(r)
	if err != nil {
		return fmt.Errorf("confirm term %d: %w", term, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	votes := make(chan bool, len(voters))
	for _, id := range voters {
		if id == n.id {
			votes <- true // it leads, as is found out below
			continue
		}
		go func() {
			peer, err := n.peers.peer(id)
			if err != nil {
				votes <- false
				return
			}
			res, err := peer.Term(ctx, &apiv1.TermRequest{})
			votes <- err == nil && res.GetTerm() == term && res.GetNodeId() == id
		}()
	}
	need, yes := len(voters)/2+1, 0
	for range voters {
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
	return fmt.Errorf("confirm term %d: %d of %d voters said yes, %d are needed", term, yes, len(voters), need)
}
