package network

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/hashicorp/raft"
)

// Raft does not check what peers send. A request with an entry that is nil, of an unknown
// type, or with a configuration that cannot be decoded ends the process with a panic; one
// whose entries do not follow each other is a write that the log refuses, which stops the
// node. One flipped bit is enough, and Raft's own frames carry no checksum. So a request that
// no raft would send does not reach raft: it is answered with an error, as if it had been
// lost.

// unsound returns what is wrong with a request, or nil if raft can have sent it.
func unsound(command any) error {
	switch req := command.(type) {
	case *raft.AppendEntriesRequest:
		return unsoundEntries(req)
	case *raft.RequestVoteRequest:
		return unsoundCandidate(req.Term, req.LastLogIndex, req.LastLogTerm)
	case *raft.RequestPreVoteRequest:
		return unsoundCandidate(req.Term, req.LastLogIndex, req.LastLogTerm)
	case *raft.InstallSnapshotRequest:
		if req.SnapshotVersion != raft.SnapshotVersionMax || req.Size < 0 {
			return damagedf("snapshot of version %d with %d bytes: version %d is known", req.SnapshotVersion, req.Size, raft.SnapshotVersionMax)
		}
		if req.LastLogIndex == 0 || req.LastLogTerm > req.Term || req.ConfigurationIndex > req.LastLogIndex {
			return damagedf("snapshot of term %d up to entry %d of term %d, configuration of entry %d",
				req.Term, req.LastLogIndex, req.LastLogTerm, req.ConfigurationIndex)
		}
		return unsoundConfiguration(req.Configuration)
	}
	return nil
}

// damagedf is the refusal of a request that no member of this version sends.
func damagedf(format string, args ...any) error {
	return refusal{"it is damaged", fmt.Sprintf(format, args...)}
}

// unsoundCandidate checks that the last entry of a candidate is of an earlier term than the
// one that it asks votes for.
func unsoundCandidate(term, lastIndex, lastTerm uint64) error {
	if lastTerm >= term || lastTerm > lastIndex && lastIndex == 0 {
		return damagedf("candidate for term %d whose last entry, %d, is of term %d", term, lastIndex, lastTerm)
	}
	return nil
}

func unsoundEntries(req *raft.AppendEntriesRequest) error {
	term := req.PrevLogTerm
	if term > req.Term || req.PrevLogEntry == 0 && term != 0 || req.PrevLogEntry > math.MaxUint64-uint64(len(req.Entries)) {
		return damagedf("entries that follow entry %d of term %d, from a leader of term %d", req.PrevLogEntry, term, req.Term)
	}
	for i, l := range req.Entries {
		want := req.PrevLogEntry + 1 + uint64(i)
		switch {
		case l == nil || l.Index != want:
			return damagedf("entry %d is missing", want)
		case l.Term < term || l.Term > req.Term:
			return damagedf("entry %d is of term %d, between one of term %d and a leader of term %d", l.Index, l.Term, term, req.Term)
		}
		term = l.Term
		switch l.Type {
		case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
		case raft.LogConfiguration:
			if err := unsoundConfiguration(l.Data); err != nil {
				return damagedf("entry %d: %v", l.Index, err)
			}
		default:
			return damagedf("entry %d is of type %d, which is not known", l.Index, l.Type)
		}
	}
	return nil
}

// unsoundConfiguration checks what raft's leaders ensure.
func unsoundConfiguration(data []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("configuration: %v", p)
		}
	}()
	if err := (&wire{values: maxServers}).read(data); err != nil { // the request was checked with it as one value
		return fmt.Errorf("configuration: %w", err)
	}
	ids, addresses := map[raft.ServerID]bool{}, map[raft.ServerAddress]bool{}
	voters := 0
	for _, s := range raft.DecodeConfiguration(data).Servers {
		if s.ID == "" || s.Address == "" || ids[s.ID] || addresses[s.Address] || s.Suffrage > raft.Staging {
			return fmt.Errorf("configuration: server %q at %q, suffrage %d: each ID and address must occur once", s.ID, s.Address, s.Suffrage)
		}
		ids[s.ID], addresses[s.Address] = true, true
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	if voters == 0 {
		return errors.New("configuration: has no voter")
	}
	return nil
}

// unfit returns why a request must not reach raft, or nil: it is damaged, a number in it is
// implausible, or its sender may not send it.
func (t *Transport) unfit(command any) error {
	if err := unsound(command); err != nil {
		return err
	}
	switch req := command.(type) {
	case *raft.AppendEntriesRequest:
		// A leader that has so many entries may send a snapshot of them next.
		t.indexes.note(string(req.ID), req.PrevLogEntry)
		if err := t.notLeader(req.ID); err != nil {
			return err
		}
		return t.term(string(req.ID), req.Term)
	case *raft.InstallSnapshotRequest:
		if err := t.notLeader(req.ID); err != nil {
			return err
		}
		if err := t.term(string(req.ID), req.Term); err != nil {
			return err
		}
		return t.index(string(req.ID), req.LastLogIndex)
	case *raft.RequestVoteRequest:
		return t.term(string(req.ID), req.Term)
	case *raft.RequestPreVoteRequest:
		return t.term(string(req.ID), req.Term)
	case *raft.TimeoutNowRequest:
		return t.notOurLeader(req.ID)
	}
	return nil
}

// notLeader refuses a leader that is not in this node's configuration while a member of the
// configuration leads it. If the configuration has changed while this node was away, its
// next leader may be one that it does not know; but then none of those that it knows leads.
func (t *Transport) notLeader(id []byte) error {
	m := t.member.Load()
	if m == nil || t.silent() {
		return nil
	}
	led := t.ledBy.Load()
	if led == nil || *led == string(id) || t.inConfiguration(string(id)) || !t.inConfiguration(*led) {
		return nil
	}
	return refusal{"it is from a node that is no member", fmt.Sprintf(
		"node %q is not in this node's configuration, and %q, which is, leads: if it has just joined, this passes", id, *led)}
}

// unwelcome refuses a connection of a node that has proved who it is and is not in this
// node's configuration, while a member of the configuration leads: a certificate outlives the
// membership. Without a leader such a node is let in, because the members may have been
// replaced while this one was away, and notLeader bounds what it may do.
func (t *Transport) unwelcome(id string) error {
	m := t.member.Load()
	if m == nil || t.inConfiguration(id) {
		return nil
	}
	led := t.ledBy.Load()
	if m.State() != raft.Leader && (t.silent() || led == nil || *led == id || !t.inConfiguration(*led)) {
		return nil
	}
	return refusal{"it is no member", fmt.Sprintf("node %q has a certificate of this cluster and is not in its configuration: was it removed? "+
		"A node that is to join asks at the API", id)}
}

// notOurLeader refuses TimeoutNow, which makes this node hold an election at once, from a
// node that does not lead it.
func (t *Transport) notOurLeader(id []byte) error {
	m := t.member.Load()
	if m == nil {
		return nil
	}
	if _, leader := m.LeaderWithID(); string(leader) != string(id) {
		return refusal{"it is from a node that does not lead", fmt.Sprintf("node %q hands leadership over, but this node's leader is %q", id, leader)}
	}
	return nil
}

// inConfiguration reports whether a node is in this node's latest configuration. It is true
// for all while there is none.
func (t *Transport) inConfiguration(id string) bool {
	m := t.member.Load()
	if m == nil {
		return true
	}
	servers := m.GetConfiguration().Configuration().Servers
	return len(servers) == 0 || slices.ContainsFunc(servers, func(s raft.Server) bool { return string(s.ID) == id })
}

// warnRefused logs a refusal. Its cause is part of the message, so that lines are limited by
// cause, whatever a stranger puts into the rest.
func (t *Transport) warnRefused(what, from string, err error) {
	var r refusal
	if errors.As(err, &r) {
		what += ": " + r.cause
	}
	t.streams.o.Logger.Warn(what, "from", from, "err", err)
}

// refuse answers a request that does not reach raft. The bytes of a snapshot are read before
// that, because otherwise they would be read as the next request.
func (t *Transport) refuse(rpc raft.RPC, cause error) {
	from := ""
	if h, ok := rpc.Command.(raft.WithRPCHeader); ok {
		from = string(h.GetRPCHeader().ID)
	}
	t.warnRefused("refused a raft request", from, cause)
	if rpc.Reader == nil {
		rpc.Respond(nil, cause)
		return
	}
	t.pumped.Go(func() {
		_, _ = io.Copy(io.Discard, rpc.Reader)
		rpc.Respond(nil, cause)
	})
}
