package membership

import (
	"fmt"
	"slices"
	"strings"

	"github.com/locknode/locknode/cluster"
)

// Electorate is who votes, as a leader reports it. It is empty if that is not known.
type Electorate struct {
	Voters []string // of the latest committed configuration
	Silent []string // those of them that do not answer the leader's Raft
}

// Electorate returns who votes and which voters do not answer. It is empty while the latest
// configuration is not committed. Only a leader whose epoch has begun may call it.
func (m *Manager) Electorate() (e Electorate) {
	r := m.cfg.Raft()
	if r == nil {
		return e
	}
	voters, err := Voters(r)
	if err != nil || m.unsettled.Load() { // in this order: what is unsettled was read before or is seen
		return e
	}
	e.Voters = voters
	for _, id := range voters {
		if id != m.cfg.ID && !m.hears(id) {
			e.Silent = append(e.Silent, id)
		}
	}
	return e
}

// Has reports whether a member votes.
func (e Electorate) Has(id string) bool { return slices.Contains(e.Voters, id) }

// Answer is how many voters answer the leader, itself included.
func (e Electorate) Answer() int { return len(e.Voters) - len(e.Silent) }

// Spare reports whether all voters answer, or those that do are a majority without any
// one of them.
func (e Electorate) Spare() bool {
	return len(e.Silent) == 0 || Majority(e.Answer()-1, len(e.Voters))
}

// Silence names the voters that do not answer, as the end of a sentence.
func (e Electorate) Silence() string {
	if len(e.Silent) == 1 {
		return fmt.Sprintf("%q does not answer the leader", e.Silent[0])
	}
	return fmt.Sprintf("\"%s\" do not answer the leader", strings.Join(e.Silent, "\", \""))
}

// Without is the electorate without a member.
func (e Electorate) Without(id string) Electorate {
	but := func(ids []string) []string {
		return slices.DeleteFunc(slices.Clone(ids), func(v string) bool { return v == id })
	}
	return Electorate{Voters: but(e.Voters), Silent: but(e.Silent)}
}

// Candidate names a node that is alive, is configured to vote and is no voter yet.
func (m *Manager) Candidate(e Electorate) (id string, ok bool) {
	own := m.cfg.ClusterID()
	for _, p := range m.cfg.Gossip.Peers() {
		ours := p.ClusterID == own || p.ClusterID == "" && !p.Formed
		if p.State == cluster.Alive && !p.Nonvoter && !p.Leaving && ours && !e.Has(p.NodeID) {
			return p.NodeID, true
		}
	}
	return "", false
}

// HasCompany reports whether gossip sees another node alive.
func (m *Manager) HasCompany() bool {
	for _, p := range m.cfg.Gossip.Peers() {
		if p.State == cluster.Alive && !p.Leaving {
			return true
		}
	}
	return false
}
