package node

import (
	"fmt"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// membershipChanges is the Raft that autopilot sees: it can look at everything,
// but what it changes is checked against the present configuration and made one
// change at a time. It needs only promotion and demotion.
type membershipChanges struct{ t *membershipTerm }

// AddVoter promotes a nonvoter; nothing else is a reason for autopilot to call
// it.
func (c membershipChanges) AddVoter(id raft.ServerID, addr raft.ServerAddress, _ uint64, _ time.Duration) raft.IndexFuture {
	m := c.t.m
	err := m.alter(c.t.ctx, func(r membershipRaft, servers []raft.Server) (raft.IndexFuture, error) {
		s, ok := membershipFind(servers, string(id))
		if !ok || s.Suffrage != raft.Nonvoter || s.Address != addr || c.t.ctx.Err() != nil {
			return nil, nil // it was removed, promoted or has moved meanwhile
		}
		m.cfg.log.Info("member becomes a voter", "peer", id, "raft", addr)
		return r.AddVoter(id, addr, 0, m.times.change), nil
	})
	c.tell("promote", id, err)
	return membershipDone{err}
}

// tell warns of a change that was not made while this node leads.
func (c membershipChanges) tell(what string, id raft.ServerID, err error) {
	cause := what + " " + string(id)
	switch {
	case err == nil:
		c.t.m.warnAgain(cause)
	case c.t.ctx.Err() == nil:
		c.t.m.warnOnce(cause, "member's vote not changed", "change", what, "peer", id, "err", err)
	}
}

// AddNonvoter is not autopilot's business here.
func (c membershipChanges) AddNonvoter(id raft.ServerID, _ raft.ServerAddress, _ uint64, _ time.Duration) raft.IndexFuture {
	return membershipRefused("add nonvoter", id)
}

// DemoteVoter takes the vote of a member that wants none, unless the voters that
// remain and are alive would be no majority.
func (c membershipChanges) DemoteVoter(id raft.ServerID, _ uint64, _ time.Duration) raft.IndexFuture {
	m := c.t.m
	err := m.alter(c.t.ctx, func(r membershipRaft, servers []raft.Server) (raft.IndexFuture, error) {
		s, ok := membershipFind(servers, string(id))
		p, seen := m.cfg.gossip.Peer(string(id))
		if !ok || s.Suffrage != raft.Voter || !seen || !p.Nonvoter || c.t.ctx.Err() != nil {
			return nil, nil
		}
		if alive, voters := m.without(servers, string(id)); !membershipMajority(alive, voters) {
			return nil, apiv1.NewError(apiv1.CodeDenied, "of the %d voters that would remain only %d are alive", voters, alive)
		}
		m.cfg.log.Info("member becomes a nonvoter", "peer", id)
		return r.DemoteVoter(id, 0, m.times.change), nil
	})
	c.tell("demote", id, err)
	return membershipDone{err}
}

// RemoveServer is not autopilot's business here: see RemoveFailedServer.
func (c membershipChanges) RemoveServer(id raft.ServerID, _ uint64, _ time.Duration) raft.IndexFuture {
	return membershipRefused("remove server", id)
}

// LeadershipTransferToServer is not autopilot's business here.
func (c membershipChanges) LeadershipTransferToServer(id raft.ServerID, _ raft.ServerAddress) raft.Future {
	return membershipRefused("transfer leadership", id)
}

// GetConfiguration is Raft's own.
func (c membershipChanges) GetConfiguration() raft.ConfigurationFuture {
	if r := c.t.m.cfg.raft(); r != nil {
		return r.GetConfiguration()
	}
	return membershipNoConfiguration{membershipDone{raft.ErrRaftShutdown}}
}

// LastIndex is Raft's own.
func (c membershipChanges) LastIndex() uint64 {
	if r := c.t.m.cfg.raft(); r != nil {
		return r.LastIndex()
	}
	return 0
}

// Leader is Raft's own.
func (c membershipChanges) Leader() raft.ServerAddress {
	if r := c.t.m.cfg.raft(); r != nil {
		addr, _ := r.LeaderWithID()
		return addr
	}
	return ""
}

// State is Raft's own.
func (c membershipChanges) State() raft.RaftState {
	if r := c.t.m.cfg.raft(); r != nil {
		return r.State()
	}
	return raft.Shutdown
}

// Stats is Raft's own.
func (c membershipChanges) Stats() map[string]string {
	if r := c.t.m.cfg.raft(); r != nil {
		return r.Stats()
	}
	return nil
}

func membershipLastTerm(r membershipRaft) (uint64, error) {
	term, err := strconv.ParseUint(r.Stats()["last_log_term"], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("last term of the log: %w", err)
	}
	return term, nil
}

// membershipDone is a future of something that is over.
type membershipDone struct{ err error }

// Error implements [raft.Future].
func (d membershipDone) Error() error { return d.err }

// Index implements [raft.IndexFuture]; autopilot does not ask.
func (d membershipDone) Index() uint64 { return 0 }

type membershipNoConfiguration struct{ membershipDone }

// Configuration implements [raft.ConfigurationFuture].
func (membershipNoConfiguration) Configuration() raft.Configuration { return raft.Configuration{} }

func membershipRefused(what string, id raft.ServerID) membershipDone {
	return membershipDone{apiv1.NewError(apiv1.CodeInternal, "autopilot wants to %s of %q", what, id)}
}
