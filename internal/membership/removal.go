package membership

import (
	"slices"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/cluster"
)

// Which failed member is removed, and when? One that has failed for long, or for less long
// if the cluster tolerates as many failures without it. Gossip is no reason by itself: the
// time also runs from when Raft last heard the member, and one that answers Raft stays.

// removeDue removes the members that are gone for long enough: nonvoters first, and each
// only after the one before has left the committed configuration.
func (e *epoch) removeDue() {
	r := e.m.cfg.Raft()
	if r == nil {
		return
	}
	var due []raft.Server
	for _, s := range Servers(r) { // all of them: due starts their clocks
		if _, yes := e.due(string(s.ID)); yes && !e.alive(string(s.ID)) {
			due = append(due, s)
		}
	}
	slices.SortStableFunc(due, func(a, b raft.Server) int { return int(b.Suffrage) - int(a.Suffrage) }) // nonvoters are the greater ones
	for _, s := range due {
		id := string(s.ID)
		if err := e.remove(id); err != nil && e.ctx.Err() == nil {
			e.m.warnOnce("remove "+id, "member that is gone not removed", "peer", id, "err", err)
		}
	}
}

func (e *epoch) remove(id string) error {
	m := e.m
	return m.alter(e.ctx, func(r Raft, servers []raft.Server) (raft.IndexFuture, error) {
		why, due := e.due(id)
		if _, ok := Find(servers, id); !ok || !due || e.ctx.Err() != nil {
			return nil, nil // it was removed or came back meanwhile
		}
		if m.answering(e.ctx, []string{id}) > 0 {
			return nil, nil // gossip does not reach it and Raft does
		}
		if answering, voters := m.without(e.ctx, servers, id); !Majority(answering, voters) {
			return nil, tooFew("remove member "+strconv.Quote(id), answering, voters)
		}
		m.cfg.Logger.Info("member removed", "peer", id, "reason", why)
		return r.RemoveServer(raft.ServerID(id), 0, m.times.change), nil
	})
}

// due reports whether a member that is gone is to be removed now. It is gone while gossip
// does not see it alive, since then or since Raft last heard it, whichever is later. That
// it has left in gossip makes no difference, because a stranger can write that of any
// member: one that leaves requests its removal before.
func (e *epoch) due(id string) (why string, due bool) {
	p, seen := e.m.cfg.Gossip.Peer(id)
	if id == e.m.cfg.ID || seen && p.State == cluster.Alive {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.gone, id)
		return "", false
	}
	since := p.Since
	if !seen {
		since = e.goneSince(id)
	}
	if heard := e.m.cfg.Contact().Answered(raft.ServerID(id)); heard.After(since) {
		since = heard
	}
	gone := time.Since(since)
	switch {
	case e.m.cfg.RemoveFailedAfter >= 0 && gone >= e.m.cfg.RemoveFailedAfter:
		return "failed", true
	case e.m.cfg.RemoveReplacedAfter >= 0 && gone >= e.m.cfg.RemoveReplacedAfter && e.replaced(id):
		return "failed and was replaced", true
	}
	return "", false
}

// goneSince returns since when gossip does not know a member: it was not seen since this
// node started, so its time runs from when that was noticed.
func (e *epoch) goneSince(id string) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gone[id].IsZero() {
		e.gone[id] = time.Now()
	}
	return e.gone[id]
}

// replaced reports whether the cluster tolerates as many failures without a voter as with
// it, even if it came back: that is so if the number of voters is even, as it is after a
// replacement has got its vote. Three of four voters are a majority, and two of three;
// both tolerate one failure. If the nodes are configured to expect an even number of
// voters, that number is intended.
func (e *epoch) replaced(id string) bool {
	r := e.m.cfg.Raft()
	if r == nil {
		return false
	}
	ids := votersIn(Servers(r))
	if !slices.Contains(ids, id) {
		return false
	}
	voters := len(ids)
	expect := e.m.cfg.Gossip.Meta().Expect
	e.mu.Lock()
	for _, c := range e.reports {
		expect = max(expect, c.expect)
	}
	e.mu.Unlock()
	meant := expect%2 == 0 && voters <= expect
	return voters%2 == 0 && !meant
}
