package membership

import (
	"context"
	"strings"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/peerapi"
)

// When may commands be written that only later versions know? When the table is at their
// feature level (see fsm/level.go). The leader raises it to the highest one that all members
// agree to, voters or not, as each of them has just said itself. That happens under the same
// lock as changes of the configuration, after a barrier: no member is added meanwhile, and
// a node that does not know the table's level is not admitted.

// Levels are the feature levels of a node.
type Levels struct {
	// Table is that of the table, 0 while there is none.
	Table func() uint32
	// Known is the highest that this program can apply, and Agreed the highest that the node
	// agrees to. It is lower where an operator keeps a downgrade possible.
	Known, Agreed uint32
	// Raise writes a higher one into the log, on the leader.
	Raise func(ctx context.Context, to uint32) error
	// Version is the first version of Locknode that knows the level of the table.
	Version func() string
}

// agreesTo is the highest level that a member agrees to. Every version knows level 1.
func agreesTo(res *peerapi.SelfResponse) uint32 { return max(1, res.GetFeatureLevel()) }

// raiseLevel raises the table's level as far as all members agree. While this node agrees to
// more, it logs once which members do not, or do not answer.
func (e *epoch) raiseLevel() {
	m := e.m
	levels := &m.cfg.Levels
	r := m.cfg.Raft()
	if r == nil || levels.Agreed <= levels.Table() {
		return
	}
	// What was said at the last look only decides whether to ask now.
	to, behind := e.commonLevel(Servers(r), e.lastLevel)
	var err error
	if to > levels.Table() {
		err = m.alter(e.ctx, func(_ Raft, servers []raft.Server) (raft.IndexFuture, error) {
			if to, behind = e.commonLevel(servers, e.askLevel); to <= levels.Table() || e.ctx.Err() != nil {
				return nil, nil
			}
			m.cfg.Logger.Info("raising the feature level: all members know it", "from", levels.Table(), "to", to)
			return nil, levels.Raise(e.ctx, to)
		})
	}
	const cause, message = "feature level", "feature level not raised"
	switch {
	case e.ctx.Err() != nil:
	case err != nil:
		m.warnOnce(cause, message, "err", err)
	case len(behind) > 0:
		m.warnOnce(cause, message+" as far as this node knows: members do not know the next one, do not agree to it (feature_level), or do not answer",
			"level", levels.Table(), "members", strings.Join(behind, ", "))
	default:
		m.warnAgain(cause)
	}
}

// commonLevel returns the highest level that all servers agree to, where of returns that of
// the others, and the members that keep it from being as high as this node's.
func (e *epoch) commonLevel(servers []raft.Server, of func(id string) uint32) (level uint32, behind []string) {
	level = e.m.cfg.Levels.Agreed
	for _, s := range servers {
		id := string(s.ID)
		if id == e.m.cfg.ID {
			continue
		}
		l := of(id)
		if l < e.m.cfg.Levels.Agreed {
			behind = append(behind, id)
		}
		level = min(level, l)
	}
	return level, behind
}

// askLevel asks a member for the level that it agrees to, 0 if it does not answer.
func (e *epoch) askLevel(id string) uint32 {
	res, err := e.m.askMember(e.ctx, id)
	if err != nil {
		return 0
	}
	return agreesTo(res)
}

// lastLevel is the level that a member has agreed to at the last look, 0 if none.
func (e *epoch) lastLevel(id string) uint32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reports[id].level
}

// knowsLevel refuses a node that does not know the table's level.
func (m *Manager) knowsLevel(req *peerapi.JoinRequest) error {
	if table, known := m.cfg.Levels.Table(), max(1, req.GetFeatureLevel()); known < table {
		return apiv1.NewError(apiv1.CodeDenied, "join of node %q: it knows feature level %d at most, and the cluster's table is at level %d: "+
			"run Locknode %s or a later version on it", req.GetNodeId(), known, table, m.cfg.Levels.Version())
	}
	return nil
}
