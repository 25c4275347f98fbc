package membership

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/internal/network"
	"github.com/locknode/locknode/internal/peerapi"
)

// Which member gets a vote, and which loses it? The leader asks every member how it is,
// remembers since when each has been well, and makes a nonvoter a voter when that is long
// enough. A voter that says that it wants no vote loses it. Failed members are removed, see
// removal.go.
//
// What was seen is only a reason to check again: each change is decided, and made, in
// alter, on the configuration that is committed then.

// epoch is what is kept for one term of leadership. Each has health and clocks of its own,
// so that nothing observed in an earlier one has an effect.
type epoch struct {
	m      *Manager
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	health  map[string]health    // guarded by mu: member → how it was at the last look
	gone    map[string]time.Time // guarded by mu: member that gossip does not know → since when
	reports map[string]report    // guarded by mu: member → what it last said of itself
}

// health is how a member is, and since which look it has been so.
type health struct {
	well  bool
	since time.Time
}

// report is what a member has said of itself: whether it votes, how many voters it is
// configured to expect, and which feature level it agrees to.
type report struct {
	nonvoter bool
	expect   int
	level    uint32
}

// maxLag is how many entries a member may be behind and still count as caught up. Entries
// are batches; a busy leader writes a few hundred a second.
const maxLag = 512

// lookPause is the least time between two looks at what gossip has changed.
const lookPause = 50 * time.Millisecond

func (m *Manager) newEpoch(ctx context.Context) *epoch {
	e := &epoch{m: m, health: make(map[string]health), gone: make(map[string]time.Time), reports: make(map[string]report)}
	e.ctx, e.cancel = context.WithCancel(ctx)
	return e
}

// run looks after the configuration until the epoch is over. Each of its loops may have to
// wait for answers, and none is to wait for another's.
func (e *epoch) run() {
	m := e.m
	var loops sync.WaitGroup
	defer loops.Wait()
	loops.Go(func() {
		e.look()
		e.every(m.times.update, e.look)
	})
	loops.Go(func() { e.every(m.times.reconcile, e.reconcile) })
	loops.Go(func() { e.every(m.times.reconcile, e.removeDue) })
	loops.Go(func() { e.every(m.times.reconcile, e.raiseLevel) })

	tick := time.NewTicker(m.times.reconcile)
	defer tick.Stop()
	for {
		changes := m.cfg.Gossip.Changes()
		m.followAddresses(e.ctx)
		m.dropUnreached(e.ctx)
		select {
		case <-e.ctx.Done():
			return
		case <-changes:
			// A stranger that floods gossip changes it all the time.
			if pause(e.ctx, lookPause, nil) != nil {
				return
			}
		case <-tick.C:
		}
	}
}

// every calls f at intervals until the epoch is over.
func (e *epoch) every(interval time.Duration, f func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}

// look asks all members how they are. A member that does not say in time that it is well
// is not, whatever it said before.
func (e *epoch) look() {
	r := e.m.cfg.Raft()
	if r == nil {
		return
	}
	ctx, cancel := context.WithTimeout(e.ctx, e.m.times.update/2)
	defer cancel()
	servers, now := Servers(r), time.Now()
	term, last := r.CurrentTerm(), r.LastIndex() // before the members are asked for theirs
	well := make([]bool, len(servers))
	var asked sync.WaitGroup
	for i, s := range servers {
		if id := string(s.ID); id != e.m.cfg.ID && e.alive(id) {
			asked.Go(func() { well[i] = e.isWell(ctx, s, term, last) })
		}
	}
	asked.Wait()
	if e.ctx.Err() != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.health
	e.health = make(map[string]health, len(servers))
	for i, s := range servers {
		h, known := before[string(s.ID)]
		if !known || h.well != well[i] {
			h = health{well[i], now}
		}
		e.health[string(s.ID)] = h
	}
}

// alive reports whether a member is asked at all: gossip sees it, or it answers Raft.
func (e *epoch) alive(id string) bool {
	p, seen := e.m.cfg.Gossip.Peer(id)
	return seen && p.State == cluster.Alive || e.m.hears(id)
}

// isWell asks a member how it is. It is well if it answers as the member that the
// configuration has, follows this leader in this term, and has nearly all of the log.
// Whether gossip or Raft have heard it lately does not matter: it has just answered.
func (e *epoch) isWell(ctx context.Context, s raft.Server, term, last uint64) bool {
	id := string(s.ID)
	res, err := e.m.askMember(ctx, id)
	if err != nil {
		return false
	}
	e.hear(id, res)
	switch {
	case network.MemberAddress(id, res.GetRaftAddress()) != s.Address:
		return false // its new address comes first
	case res.GetLeaderId() != e.m.cfg.ID || res.GetTerm() != term:
		return false
	case res.GetVotesFrom() != 0:
		// It does not vote yet (disk.Identity.VotesFrom) and must not be relied on:
		// a cluster of one that grew to two would never elect a leader again if the
		// first node was restarted then.
		return false
	}
	return res.GetLastIndex()+maxLag >= last
}

// hear remembers what a member has said of itself.
func (e *epoch) hear(id string, res *peerapi.SelfResponse) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reports[id] = report{nonvoter: res.GetNonvoter(), expect: int(res.GetExpect()), level: agreesTo(res)}
}

// wantsNoVote reports whether a member has said that it wants no vote; as long as it has
// said nothing, it stays what it is.
func (e *epoch) wantsNoVote(s raft.Server) bool {
	id := string(s.ID)
	e.mu.Lock()
	defer e.mu.Unlock()
	if w, ok := e.reports[id]; ok {
		return w.nonvoter
	}
	return s.Suffrage != raft.Voter
}

// isStable reports whether a member has been well for long enough in this epoch to get a
// vote. So a node that comes and goes gets none right after a change of leaders.
func (e *epoch) isStable(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.health[id]
	return h.well && time.Since(h.since) >= e.m.times.stable
}

// reconcile gives and takes votes, one after the other, in the order of the configuration.
// In a round in which a vote is given none is taken, so that the effect of one is seen
// before the other. The leader keeps its vote until another one leads.
func (e *epoch) reconcile() {
	r := e.m.cfg.Raft()
	if r == nil {
		return
	}
	servers, promoted := Servers(r), false
	for _, s := range servers {
		if s.Suffrage == raft.Nonvoter && !e.wantsNoVote(s) && e.isStable(string(s.ID)) {
			promoted = true
			if e.warn("promote", s.ID, e.promote(s.ID, s.Address)) != nil {
				return
			}
		}
	}
	if promoted {
		return
	}
	for _, s := range servers {
		if id := string(s.ID); s.Suffrage == raft.Voter && id != e.m.cfg.ID && e.wantsNoVote(s) && e.alive(id) {
			if e.warn("demote", s.ID, e.demote(s.ID)) != nil {
				return
			}
		}
	}
}

// warn logs a change that was not made while this node leads.
func (e *epoch) warn(what string, id raft.ServerID, err error) error {
	cause := what + " " + string(id)
	switch {
	case err == nil:
		e.m.warnAgain(cause)
	case e.ctx.Err() == nil:
		e.m.warnOnce(cause, "member's vote not changed", "change", what, "peer", id, "err", err)
	}
	return err
}

// promote makes a nonvoter a voter, unless no majority of the voters that there would be
// answers: a cluster of one would wait for a second one that does not come. For Raft to
// promote is to add, so a member that was removed a moment ago must not be promoted.
func (e *epoch) promote(id raft.ServerID, addr raft.ServerAddress) error {
	m := e.m
	return m.alter(e.ctx, func(r Raft, servers []raft.Server) (raft.IndexFuture, error) {
		s, ok := Find(servers, string(id))
		if !ok || s.Suffrage != raft.Nonvoter || s.Address != addr || e.ctx.Err() != nil {
			return nil, nil // it was removed, promoted or has moved meanwhile
		}
		if answering, voters := m.with(e.ctx, servers, string(id)); !Majority(answering, voters) {
			return nil, tooFew("promote member "+strconv.Quote(string(id)), answering, voters)
		}
		m.cfg.Logger.Info("member becomes a voter", "peer", id, "raft", Place(s))
		return r.AddVoter(id, addr, 0, m.times.change), nil
	})
}

// demote makes a voter that wants no vote a nonvoter, unless no majority of the voters that
// remain answers.
func (e *epoch) demote(id raft.ServerID) error {
	m := e.m
	return m.alter(e.ctx, func(r Raft, servers []raft.Server) (raft.IndexFuture, error) {
		s, ok := Find(servers, string(id))
		if !ok || s.Suffrage != raft.Voter || e.ctx.Err() != nil {
			return nil, nil
		}
		if res, err := m.askMember(e.ctx, string(id)); err != nil || !res.GetNonvoter() {
			return nil, nil // it does not say so now
		}
		if answering, voters := m.without(e.ctx, servers, string(id)); !Majority(answering, voters) {
			return nil, tooFew("demote member "+strconv.Quote(string(id)), answering, voters)
		}
		m.cfg.Logger.Info("member becomes a nonvoter", "peer", id)
		return r.DemoteVoter(id, 0, m.times.change), nil
	})
}
