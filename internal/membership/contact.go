package membership

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// Who counts as alive when a vote is taken, given or lost? In gossip a node that failed
// seconds ago is still alive. Suppose that a cluster of three loses one node and then
// another one is removed: it has a configuration of two of which one does not run. It
// commits nothing any more, not even the removal, and if the disk of the failed node is
// lost, nothing ever again. So before each change of the voters, the leader waits until a
// majority of those that will be voters after it has answered a request of its Raft that
// was sent after the check began. A voter that runs answers a heartbeat within a fraction
// of the election timeout. Gossip is not used.

// Contact is what the leader's Raft transport knows of its peers.
type Contact interface {
	// Answered is when the last request was sent that a peer has answered.
	Answered(id raft.ServerID) time.Time
	// Answers is false when the last request was not answered.
	Answers(id raft.ServerID) bool
}

// patience is how long a check waits for the voters' answers. A voter may have to answer
// the heartbeat that is on its way before, and the next one comes after half an election
// timeout at most.
func (m *Manager) patience() time.Duration { return 4 * m.cfg.Timing }

// answering counts the voters that answer this node's Raft. It returns once a majority
// of them has answered what was sent after the call, or that has not happened for
// patience, or ctx has ended.
func (m *Manager) answering(ctx context.Context, voters []string) int {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, m.patience())
	defer cancel()
	poll := time.NewTicker(max(time.Millisecond, m.cfg.Timing/50))
	defer poll.Stop()
	for {
		n := 0
		for _, id := range voters {
			if id == m.cfg.ID || !m.cfg.Contact().Answered(raft.ServerID(id)).Before(began) {
				n++
			}
		}
		if Majority(n, len(voters)) {
			return n
		}
		select {
		case <-ctx.Done():
			return n
		case <-poll.C:
		}
	}
}

// without counts the voters that would remain without a member, and those of them that
// answer.
func (m *Manager) without(ctx context.Context, servers []raft.Server, id string) (answering, voters int) {
	remaining := votersBut(servers, id)
	return m.answering(ctx, remaining), len(remaining)
}

// with counts the voters that there would be with another one, and those of them that
// answer.
func (m *Manager) with(ctx context.Context, servers []raft.Server, id string) (answering, voters int) {
	all := append(votersBut(servers, id), id)
	return m.answering(ctx, all), len(all)
}

// votersBut are the voters other than a member.
func votersBut(servers []raft.Server, id string) []string {
	return slices.DeleteFunc(votersIn(servers), func(v string) bool { return v == id })
}

// CanDoWithout reports whether a majority of the voters that would remain without a
// member answers.
func (m *Manager) CanDoWithout(ctx context.Context, id string) bool {
	r := m.cfg.Raft()
	return r != nil && Majority(m.without(ctx, Servers(r), id))
}

// Majority reports whether those that are alive are more than half of the voters. Without
// voters there is no majority.
func Majority(alive, voters int) bool { return voters > 0 && alive > voters/2 }

// tooFew refuses a change after which too few voters would answer.
func tooFew(what string, answering, voters int) error {
	return apiv1.NewError(apiv1.CodeDenied, "%s: of the %d voters that there would be, only %d answer the leader, which is no majority", what, voters, answering)
}

// silentAfter is how old a voter's last answer may be, in election timeouts, before it is
// said to be silent.
const silentAfter = 2

// hears reports whether a member has answered this node's Raft lately.
func (m *Manager) hears(id string) bool {
	c := m.cfg.Contact()
	return c.Answers(raft.ServerID(id)) && time.Since(c.Answered(raft.ServerID(id))) <= silentAfter*m.cfg.Timing
}
