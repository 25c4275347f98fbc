package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Leadership is handed over here and not by raft.LeadershipTransfer, which can leave a
// leader that refuses every Apply (hashicorp/raft #696). Raft's transfer asks the target's
// replication goroutine to bring it up to date, through a channel with room for one request.
// When the target hangs, the transfer gives up and leaves its request in the channel. The
// next transfer blocks on the full channel until the target answers, and has set the flag
// that refuses every Apply. If leadership is lost meanwhile, the replication goroutine ends,
// nobody reads the channel again, and the flag stays set: whenever this node is elected
// again it refuses every Apply. Only a new process clears the flag.
//
// HandOver does what the transfer does, without the channel and the flag: it watches how far
// the target's log has got, asks the caller to hold back new entries once the target is
// almost up to date, and then sends it TimeoutNow, on which it holds an election at once.

// levelWithin is how many entries a successor may lack when new entries begin to
// be held back: about what replicates in one round.
const levelWithin = 16

// handOverPoll is how often HandOver looks.
const handOverPoll = time.Millisecond

// progress is how far each peer's log is known to agree with this node's.
type progress struct {
	mu    sync.Mutex               // guards what follows
	term  uint64                   // in which it was learnt
	index map[raft.ServerID]uint64 // peer → index of the last entry in common
}

func (p *progress) note(id raft.ServerID, term, index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if term > p.term {
		p.term, p.index = term, map[raft.ServerID]uint64{}
	}
	if term == p.term {
		p.index[id] = max(p.index[id], index)
	}
}

// of is zero while nothing is known in this term.
func (p *progress) of(id raft.ServerID, term uint64) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if term != p.term {
		return 0
	}
	return p.index[id]
}

// HandOver gives leadership to another voter, so that clients see a gap of
// milliseconds and not of an election timeout: to the one named, or, when to is
// empty, to each that answers in turn, the most up to date first.
//
// Once a successor is level, hold is called; it must keep entries from being
// handed to r until release, and wait for the one that is under way, at most
// until its context ends. Entries are held back for about two election timeouts
// at most. A nil hold does nothing; the successor may then lose its election.
//
// HandOver returns nil once r does not lead, at once if it does not lead now;
// otherwise it returns the reason, and r may still lead, and takes entries as
// before. It ends when ctx does.
func HandOver(ctx context.Context, r *raft.Raft, t *Transport, to raft.ServerID, hold func(context.Context) (release func(), err error)) error {
	h := handOver{r: r, t: t, term: r.CurrentTerm(), hold: hold}
	if !h.leads() {
		return nil
	}
	successors, err := h.successors(to)
	if err != nil {
		return fmt.Errorf("hand leadership over: %w", err)
	}
	var errs []error
	for _, s := range successors {
		err := h.try(ctx, s)
		if !h.leads() {
			return nil
		}
		if errs = append(errs, fmt.Errorf("to %s: %w", s.ID, err)); ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("hand leadership over: %w", errors.Join(errs...))
}

// handOver is one attempt to give the leadership of a term away.
type handOver struct {
	r    *raft.Raft
	t    *Transport
	term uint64
	hold func(context.Context) (func(), error)
}

func (h *handOver) leads() bool {
	return h.r.State() == raft.Leader && h.r.CurrentTerm() == h.term
}

// successors lists who may lead next, the most up to date first.
func (h *handOver) successors(to raft.ServerID) ([]raft.Server, error) {
	conf := h.r.GetConfiguration()
	if err := conf.Error(); err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	_, self := h.r.LeaderWithID() // not by its address, which may just have changed
	var all []raft.Server
	for _, s := range conf.Configuration().Servers {
		switch {
		case s.Suffrage != raft.Voter || s.ID == self:
		case to == "" && h.t.reach.answers(s.ID), to == s.ID:
			all = append(all, s)
		}
	}
	switch {
	case len(all) == 0 && to == "":
		return nil, errors.New("no other voter answers")
	case len(all) == 0:
		return nil, fmt.Errorf("%s is not another voter", to)
	}
	slices.SortStableFunc(all, func(a, b raft.Server) int {
		return -cmp.Compare(h.t.progress.of(a.ID, h.term), h.t.progress.of(b.ID, h.term))
	})
	return all, nil
}

// try hands leadership to one successor.
func (h *handOver) try(ctx context.Context, s raft.Server) error {
	timeout := h.r.ReloadableConfig().ElectionTimeout
	level := func(within uint64) func() bool {
		return func() bool { return h.t.progress.of(s.ID, h.term)+within >= h.r.LastIndex() }
	}
	if err := h.await(ctx, timeout, level(levelWithin)); err != nil {
		return fmt.Errorf("it is behind: %w", err)
	}
	if h.hold != nil {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		release, err := h.hold(ctx)
		if err != nil {
			return err
		}
		defer release()
	}
	if err := h.await(ctx, timeout, level(0)); err != nil {
		return fmt.Errorf("it is behind: %w", err)
	}
	return h.elect(ctx, s, timeout)
}

// elect has the successor hold an election and waits for what comes of it. The
// call may outlive it: the transport ends it.
func (h *handOver) elect(ctx context.Context, s raft.Server, timeout time.Duration) error {
	_, self := h.r.LeaderWithID()
	req := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax,
		ID:              []byte(self),
		Addr:            h.t.EncodePeer(self, h.t.LocalAddr()),
	}}
	answer := make(chan error, 1)
	go func() { answer <- h.t.TimeoutNow(s.ID, s.Address, req, &raft.TimeoutNowResponse{}) }()
	var refused error
	err := h.await(ctx, timeout, func() bool {
		select {
		case refused = <-answer:
		default:
		}
		return refused != nil
	})
	return errors.Join(err, refused)
}

// await polls until ok, at most for limit, while r leads the term.
func (h *handOver) await(ctx context.Context, limit time.Duration, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	poll := time.NewTicker(handOverPoll)
	defer poll.Stop()
	for !ok() {
		if !h.leads() {
			return errors.New("leadership is lost")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", limit, context.Cause(ctx))
		case <-poll.C:
		}
	}
	return nil
}
