package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/membership"
	"github.com/locknode/locknode/internal/peerapi"
)

// A read round makes reads linearizable without a log entry. After the reads
// have arrived, the leader notes how far the log is committed and asks the voters
// whether its term is still theirs. If a majority says yes, no later leader can have
// committed anything before the reads began. What was committed before they began is
// within the commit index that was noted: this leader has committed it, or it is before
// the first entry of its term, and this node serves only after that entry.
// The reads are answered once the table has applied everything up to there. One
// round serves all the reads that were waiting when it began.
//
// What the leader's table has applied when the round begins is not enough. A follower
// learns of a commit from the leader and may apply it before the leader's own table does:
// a read through this follower would see it, and a later read through the leader would
// not.
//
// raft.VerifyLeader is not enough: it counts an answer to a heartbeat that was
// sent before the read, and after a pause of the process that answer is old.
//
// A follower's round asks the leader for the index that such a round has covered;
// its reads are answered once its own table is there. Neither round waits for a
// table: reads that do are in [reads], and the next round begins without them.

const (
	// freshEvery is how often a node runs a round without a read: the age of its last round
	// decides about stale reads and readiness.
	freshEvery = time.Second
	// retryEvery is the pause after the first round that fails; see pause.
	retryEvery = 50 * time.Millisecond

	// maxReads is how many reads of clients may wait for a round, of which one connection
	// gets a third.
	maxReads = 192 << 10
	// roundCost is the cost of the reads of clients that one round serves: about
	// microseconds.
	roundCost = 10_000
	getCost   = 10
	listCost  = 1000
)

// errOtherLeader is why a round is ended early: it asks a node that no longer leads.
var errOtherLeader = errors.New("the leader has changed")

// rounds runs one read round at a time. Its goroutine is run.
type rounds struct {
	// confirm returns the read index: a read that began before the call is linearizable on
	// a table that has applied the command at this index.
	confirm func(ctx context.Context) (uint64, error)
	// reach calls do once the table has applied an index, perhaps at once, or with false if
	// that takes too long.
	reach func(index uint64, do func(reached bool))
	// busy reports whether reads of clients have to wait.
	busy  func() bool
	mono  func() time.Duration
	woken chan struct{}

	mu      sync.Mutex                      // guards what follows
	waiting []func(index uint64, err error) // of the node and its peers: the next round serves them all
	clients fair.Queue[func(index uint64, err error)]
	end     context.CancelCauseFunc // ends the round under way
	freshAt time.Duration           // mono when the last round began whose read index the table has applied
	fresh   bool                    // there was such a round
	err     error                   // of the last round
}

func newRounds(confirm func(context.Context) (uint64, error), reach func(uint64, func(bool)), mono func() time.Duration) *rounds {
	return &rounds{
		confirm: confirm, reach: reach, mono: mono, woken: make(chan struct{}, 1),
		busy: func() bool { return false }, end: func(error) {}, err: errors.New("no read round yet"),
	}
}

// join has done called at the end of the next round, on the goroutine of run.
func (r *rounds) join(done func(index uint64, err error)) {
	r.mu.Lock()
	r.waiting = append(r.waiting, done)
	r.mu.Unlock()
	r.wake()
}

// joinFor is join for a read of a client. It returns false if the owner's share of the
// queue is used up. A round serves reads of at most roundCost, and owners take turns, so
// that answering them takes a short time.
func (r *rounds) joinFor(o fair.Owner, cost int, done func(index uint64, err error)) bool {
	r.mu.Lock()
	ok := r.clients.Push(o, done, cost, fair.Room{Items: maxReads, Bytes: maxReads * listCost})
	r.mu.Unlock()
	if ok {
		r.wake()
	}
	return ok
}

// takeLocked removes what the next round serves. It leaves reads of clients beyond
// roundCost for later rounds, and all of them while busy.
func (r *rounds) takeLocked() (batch []func(index uint64, err error)) {
	batch, r.waiting = r.waiting, nil
	if r.busy() {
		return batch
	}
	for cost := 0; cost < roundCost; {
		done, c, ok := r.clients.Pop()
		if !ok {
			break
		}
		batch = append(batch, done)
		cost += c
	}
	return batch
}

// allLocked removes all reads of clients.
func (r *rounds) allLocked() (all []func(index uint64, err error)) {
	for {
		done, _, ok := r.clients.Pop()
		if !ok {
			return all
		}
		all = append(all, done)
	}
}

// wake has run start a round soon.
func (r *rounds) wake() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// restart ends the round under way, because the leader has changed, and starts another at
// once.
func (r *rounds) restart() {
	r.mu.Lock()
	r.end(errOtherLeader)
	r.mu.Unlock()
	r.wake()
}

// age returns how old the node's table may be, at most. ok is false if no round has
// succeeded yet.
func (r *rounds) age() (age time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mono() - r.freshAt, r.fresh
}

// lastErr returns why the last round failed, nil if it did not.
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
			r.mu.Lock()
			rest := r.allLocked()
			r.mu.Unlock()
			for _, done := range rest {
				done(0, context.Cause(ctx))
			}
			return
		case <-r.woken:
		case <-t.C:
		}
	}
}

func (r *rounds) round(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	r.mu.Lock()
	batch := r.takeLocked()
	r.end = end
	r.mu.Unlock()
	began := r.mono()
	index, err := r.confirm(ctx)
	r.mu.Lock()
	r.err = err
	if err != nil { // the other reads would find no leader either
		batch = append(batch, r.allLocked()...)
	}
	more := r.clients.Len() > 0 && !r.busy()
	r.mu.Unlock()
	if more {
		r.wake()
	}
	if err == nil {
		r.reach(index, func(reached bool) {
			if reached {
				r.refreshed(began)
			}
		})
	}
	for _, done := range batch {
		done(index, err)
	}
	return err
}

// refreshed is called once the table has applied the read index of a round that began at
// a time.
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
		return leaderRound{n.raft.Load(), n.id, n.peers.peer, n.lastCommand}.confirm(ctx, e)
	}
	peer, err := n.leaderPeer()
	if err != nil {
		return 0, err
	}
	asked := n.cfg.seams.Mono()
	res, err := peer.ReadIndex(ctx, &peerapi.ReadIndexRequest{})
	if err != nil {
		return 0, fmt.Errorf("ask the leader for a read index: %w", err)
	}
	n.reported.Store(&reportedElectorate{membership.Electorate{Voters: res.GetVoters(), Silent: res.GetSilent()}, asked})
	return res.GetIndex(), nil
}

// leaderRound is what the leader's side of a read round needs of its node.
type leaderRound struct {
	raft *raft.Raft
	self string // the node's ID
	// peer returns the node-to-node service of another node.
	peer func(id string) (peerapi.PeersClient, error)
	// lastCommand is that of the node.
	lastCommand func(committed uint64) (uint64, error)
}

// confirm returns the read index, once a majority of the voters has confirmed that the term
// of e is still theirs.
func (l leaderRound) confirm(ctx context.Context, e *epoch) (uint64, error) {
	index, err := l.lastCommand(l.raft.CommitIndex())
	if err != nil {
		return 0, err
	}
	if err := l.confirmTerm(ctx, e.term); err != nil {
		return 0, err
	}
	if seen, ok := e.proposer.overdue(); ok {
		// A deadline has come and the entry that ends it follows: a read that began
		// after the deadline should not find the lock held.
		index = max(index, seen+1)
	}
	return index, nil
}

// lastCommand returns the index of the last entry, up to a committed one, that is a
// command: the table never sees entries that Raft writes for itself. If the table has
// applied that entry already, it returns the last one that the table has applied.
func (n *Node) lastCommand(committed uint64) (uint64, error) {
	applied := n.appliedIndex()
	for i := committed; i > applied; i-- {
		var l raft.Log
		if err := n.stores.Log.GetLog(i, &l); err != nil {
			if applied = n.appliedIndex(); i <= applied {
				break // a snapshot has replaced the entry
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
// its log leads until that is committed, but the others elect without it, so its own
// vote says nothing about them. (A leader does not remove itself, see removeMember; the
// count does not depend on that.)
func (l leaderRound) confirmTerm(ctx context.Context, term uint64) error {
	voters, err := membership.Voters(l.raft)
	if err != nil {
		return fmt.Errorf("confirm term %d: %w", term, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	votes := make(chan bool, len(voters))
	for _, id := range voters {
		if id == l.self {
			votes <- true // checked below: it leads the term
			continue
		}
		go func() {
			peer, err := l.peer(id)
			if err != nil {
				votes <- false
				return
			}
			res, err := peer.Term(ctx, &peerapi.TermRequest{})
			votes <- err == nil && res.GetTerm() == term && res.GetNodeId() == id
		}()
	}
	need, yes := len(voters)/2+1, 0
	for range voters {
		if <-votes {
			yes++
		}
		if yes >= need {
			if got, leading := leads(l.raft); !leading || got != term {
				return fmt.Errorf("confirm term %d: this node no longer leads it", term)
			}
			return nil
		}
	}
	return fmt.Errorf("confirm term %d: %d of %d voters said yes, must be at least %d", term, yes, len(voters), need)
}
