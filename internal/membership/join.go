package membership

import (
	"context"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/network"
	"github.com/locknode/locknode/internal/peerapi"
	"github.com/locknode/locknode/internal/quote"
)

// Which nodes may join? Everyone that reaches a node can have it ask the leader to admit any
// ID at any address. The leader dials each of its members several times a second, and
// removes a member that is not there only after days. So a node is asked itself before it
// is admitted, the number of nonvoters is limited, a few are admitted at a time, and a node
// that Raft has not reached some minutes later is removed again.

const (
	// DefaultMaxNonvoters is enough for what is being replaced and for copies that serve
	// reads. Each costs the leader a connection and sending the log once more.
	DefaultMaxNonvoters = 64
	// maxMeeting bounds the nodes that are asked at one time.
	maxMeeting = 16
	// joinBurst nodes are admitted at once, and after that one in joinEvery.
	joinBurst = 8
	joinEvery = 500 * time.Millisecond
)

// RemoveHint is the command that frees a name or an address.
const RemoveHint = "locknode members remove"

// Join admits a fresh node as a nonvoter. It may be called again after any failure. A
// nonvoter may join as often as it needs, also with an empty disk, because nothing depends
// on what it remembers. A voter may not: with an empty disk it would vote again in terms in
// which it has voted.
//
// Codes: invalid and denied are final until someone changes something; all
// others may be tried again.
func (m *Manager) Join(ctx context.Context, req *peerapi.JoinRequest) (*peerapi.JoinResponse, error) {
	if err := checkJoin(req); err != nil {
		return nil, err
	}
	own := m.cfg.ClusterID()
	switch {
	case own == "":
		return nil, apiv1.NewError(apiv1.CodeNotReady, "join of node %q: the cluster has no ID yet", req.GetNodeId())
	case req.GetClusterId() != "" && req.GetClusterId() != own:
		return nil, apiv1.NewError(apiv1.CodeDenied, "join of node %q: cluster: is %q, must be %q", req.GetNodeId(), req.GetClusterId(), own)
	}
	if req.GetClusterName() != m.cfg.ClusterName {
		return nil, apiv1.NewError(apiv1.CodeDenied, "join of node %q: cluster_name: is %q, must be %q as in this cluster: "+
			"give the node the same one, or the addresses of its own cluster to join", req.GetNodeId(), req.GetClusterName(), m.cfg.ClusterName)
	}
	id, addr := raft.ServerID(req.GetNodeId()), network.MemberAddress(req.GetNodeId(), req.GetRaftAddress())
	if err := m.mayJoinNow(ctx, req, addr); err != nil {
		return nil, err
	}
	err := m.alterFor(ctx, "join of node "+req.GetNodeId(), func(r Raft, servers []raft.Server) (raft.IndexFuture, error) {
		known, err := m.mayJoin(req, servers)
		if err == nil {
			err = m.knowsLevel(req)
		}
		switch {
		case err != nil:
			return nil, err
		case known == addr:
			return nil, nil // a repeated request
		case !m.pace.take(time.Now()):
			return nil, apiv1.NewError(apiv1.CodeOverloaded, "join of node %q: many nodes join at the same time, and it is not its turn yet; it asks again", id)
		}
		m.cfg.Logger.Info("node joins the cluster", "peer", id, "raft", req.GetRaftAddress(), "version", req.GetVersion())
		m.noteJoined(req.GetNodeId())
		return r.AddNonvoter(id, addr, 0, m.times.change), nil
	})
	switch {
	case apiv1.CodeOf(err) == apiv1.CodeUnknownOutcome: // the one that joins asks again in any case
		return nil, apiv1.NewError(apiv1.CodeUnavailable, "%s; ask again", err.Error())
	case err != nil:
		return nil, err
	}
	res := &peerapi.JoinResponse{ClusterId: own}
	if r := m.cfg.Raft(); r != nil {
		res.Index = r.CommitIndex() // it is in the configuration by then
	}
	return res, nil
}

// checkJoin looks at the request alone.
func checkJoin(req *peerapi.JoinRequest) error {
	if err := checkTexts(req); err != nil {
		return err
	}
	if n := len(req.GetNodeId()); n == 0 || n > 128 {
		return apiv1.NewError(apiv1.CodeInvalid, "node_id: is %d bytes long, must be 1 to 128", n)
	}
	for _, a := range []struct{ name, value string }{{"raft_address", req.GetRaftAddress()}, {"api_address", req.GetApiAddress()}} {
		host, port, err := net.SplitHostPort(a.value)
		n, bad := strconv.Atoi(port)
		if err != nil || bad != nil || n < 1 || n > 65535 || host == "" || len(host) > 253 {
			return apiv1.NewError(apiv1.CodeInvalid, "%s: is %q, must be host:port", a.name, a.value)
		}
	}
	return nil
}

// mayJoinNow looks at what can be refused without a change, and asks the node itself.
func (m *Manager) mayJoinNow(ctx context.Context, req *peerapi.JoinRequest, addr raft.ServerAddress) error {
	r := m.cfg.Raft()
	if r == nil || r.State() != raft.Leader {
		return apiv1.NewError(apiv1.CodeNotLeader, "join of node %q: this node does not lead", req.GetNodeId())
	}
	known, err := m.mayJoin(req, Servers(r))
	if err != nil || known == addr {
		return err
	}
	return m.meet(ctx, req)
}

// mayJoin looks at the request beside the configuration, and returns where that has the
// node already.
func (m *Manager) mayJoin(req *peerapi.JoinRequest, servers []raft.Server) (known raft.ServerAddress, err error) {
	id := req.GetNodeId()
	s, ok := Find(servers, id)
	switch {
	case ok && s.Suffrage != raft.Nonvoter:
		return "", apiv1.NewError(apiv1.CodeDenied, "join of node %q: a voter of this ID exists, and one that lost its data must not vote again; "+
			"if that is what happened, run \"%s %s\" and start the node again", id, RemoveHint, id)
	case ok:
		return s.Address, nil
	}
	return "", m.roomForNonvoter(id, servers)
}

// checkTexts refuses texts that cannot be printed: they would stay in the configuration and
// be shown to people. Gossip refuses the same.
func checkTexts(req *peerapi.JoinRequest) error {
	for _, text := range []struct{ name, value string }{
		{"node_id", req.GetNodeId()}, {"raft_address", req.GetRaftAddress()}, {"version", req.GetVersion()},
	} {
		if !quote.Printable(text.value) {
			return apiv1.NewError(apiv1.CodeInvalid, "%s: is %.100q, must be printable text", text.name, text.value)
		}
	}
	return nil
}

// pace lets through a few at once, and the others one after the other. Its zero value
// works.
type pace struct {
	mu   sync.Mutex
	next time.Time // guarded by mu: when the burst has been made up for
}

// take reports whether one more is let through now.
func (p *pace) take(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.After(p.next) {
		p.next = now
	}
	if p.next.Sub(now) > (joinBurst-1)*joinEvery {
		return false
	}
	p.next = p.next.Add(joinEvery)
	return true
}

// meet asks a node that is to join, at the address of its API, whether it does: it has to
// answer under its ID, name the same Raft address, and have no data.
func (m *Manager) meet(ctx context.Context, req *peerapi.JoinRequest) error {
	defer m.meeting.Add(-1)
	if m.meeting.Add(1) > maxMeeting {
		return apiv1.NewError(apiv1.CodeOverloaded, "join of node %q: too many nodes want to join at the same time; it asks again", req.GetNodeId())
	}
	ctx, cancel := context.WithTimeout(ctx, m.times.call/2) // the one that joins waits for as long as call
	defer cancel()
	res, err := m.askSelf(ctx, req.GetNodeId(), req.GetApiAddress())
	switch {
	case err != nil:
		return apiv1.NewError(apiv1.CodeNotReady, "join of node %q: it does not answer the leader at its API address %s, which has to be reached from all members: %v",
			req.GetNodeId(), req.GetApiAddress(), err)
	case res.GetRaftAddress() != req.GetRaftAddress():
		return apiv1.NewError(apiv1.CodeNotReady, "join of node %q at Raft address %s: it says itself that its Raft address is %s",
			req.GetNodeId(), req.GetRaftAddress(), res.GetRaftAddress())
	case res.GetFormed():
		return apiv1.NewError(apiv1.CodeNotReady, "join of node %q: it has data, and says that it belongs to a cluster already", req.GetNodeId())
	}
	return nil
}

// roomForNonvoter returns why another nonvoter is refused, or nil.
func (m *Manager) roomForNonvoter(id string, servers []raft.Server) error {
	n, limit := 0, m.cfg.MaxNonvoters
	for _, s := range servers {
		if s.Suffrage != raft.Voter {
			n++
		}
	}
	if n < limit {
		return nil
	}
	return apiv1.NewError(apiv1.CodeLimit, "join of node %q: the cluster has %d nonvoters, at most %d are allowed (max_nonvoters of the leader): "+
		"remove those that are gone with \"%s\", or raise max_nonvoters", id, n, limit, RemoveHint)
}

// noteJoined starts the time in which Raft has to reach a node that was admitted.
func (m *Manager) noteJoined(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.joined[id]; !known && len(m.joined) < maxHomes {
		m.joined[id] = time.Now()
	}
}

// dropUnreached removes nonvoters that this node has admitted and that its Raft has not
// reached since. They may join again.
func (m *Manager) dropUnreached(ctx context.Context) {
	var late []string
	m.mu.Lock()
	for id, since := range m.joined {
		switch {
		case m.cfg.Contact().Answered(raft.ServerID(id)).After(since):
			delete(m.joined, id)
		case time.Since(since) >= m.times.reach:
			late = append(late, id)
		}
	}
	m.mu.Unlock()
	for _, id := range late {
		err := m.alter(ctx, func(r Raft, servers []raft.Server) (raft.IndexFuture, error) {
			s, ok := Find(servers, id)
			if !ok || s.Suffrage != raft.Nonvoter {
				return nil, nil
			}
			m.cfg.Logger.Warn("a node that has joined was never reached by Raft, and is removed again", "peer", id, "raft", Place(s), "after", m.times.reach)
			return r.RemoveServer(s.ID, 0, m.times.change), nil
		})
		if err != nil {
			return // it is tried again
		}
		m.mu.Lock()
		delete(m.joined, id)
		m.mu.Unlock()
	}
}
