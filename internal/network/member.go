package network

import (
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/raft"
)

// The addresses in Raft's configuration name the member, too: "n1@10.0.0.1:7402". So the
// pool of connections, the dial and the handshake are per member. And two members may have
// one host and port in the configuration, which refuses equal addresses, while one of them
// is about to give it to the other.
//
// An address is only a hint, wherever it comes from: the handshake has to confirm that the
// member is there.

// MemberAddress returns Raft's address for the member with this ID; hostport is what is
// dialled.
func MemberAddress(id, hostport string) raft.ServerAddress {
	return raft.ServerAddress(id + "@" + hostport)
}

// SplitMember is the reverse of [MemberAddress]. Of an address that names no member
// the ID is empty.
func SplitMember(addr raft.ServerAddress) (id, hostport string) {
	i := strings.LastIndexByte(string(addr), '@') // IDs may contain one
	if i < 0 {
		return "", string(addr)
	}
	return string(addr[:i]), string(addr[i+1:])
}

// Addresses knows where members may be.
type Addresses interface {
	// RaftAddresses returns where the member may be, as host:port, the likeliest first. It may be empty: then the address in raft's configuration is dialled.
	RaftAddresses(id raft.ServerID) []string
}

// Places remembers at which address each member was not found last. Its zero value is ready
// to use, and its methods are safe for concurrent use.
type Places struct {
	mu   sync.Mutex        // guards vain
	vain map[string]string // node ID → host:port
}

// Choose returns the address, of at least one, to try next for a member: the one after that
// where it was not found, round robin.
func (p *Places) Choose(id string, hints []string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(hints, p.vain[id]); i >= 0 {
		return hints[(i+1)%len(hints)]
	}
	return hints[0]
}

// Failed records that a member was not found at an address.
func (p *Places) Failed(id, hostport string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.vain == nil {
		p.vain = make(map[string]string)
	}
	p.vain[id] = hostport
}

// at returns what the streams dial for a member; addr is its address in raft.
func (t *Transport) at(id raft.ServerID, addr raft.ServerAddress) raft.ServerAddress {
	_, hostport := SplitMember(addr)
	var hints []string
	if t.addresses != nil {
		hints = t.addresses.RaftAddresses(id)
	}
	if hostport != "" && !slices.Contains(hints, hostport) {
		hints = append(slices.Clip(hints), hostport)
	}
	if len(hints) == 0 {
		return MemberAddress(string(id), "")
	}
	return MemberAddress(string(id), t.places.Choose(string(id), hints))
}

// EncodePeer returns what a candidate or leader sends as its address. Raft compares it with
// the leader's and stores a vote under it. It is the ID, because addresses change hands:
// otherwise a node that has voted for a candidate could vote again, in the same term, for
// the node that got the candidate's address.
func (t *Transport) EncodePeer(id raft.ServerID, _ raft.ServerAddress) []byte { return []byte(id) }

// RequestVote asks a peer for its vote.
func (t *Transport) RequestVote(id raft.ServerID, addr raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	err := t.NetworkTransport.RequestVote(id, t.at(id, addr), req, resp)
	return t.answered(id, err, resp.Term, 0)
}

// RequestPreVote asks a peer whether it would vote.
func (t *Transport) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	err := t.NetworkTransport.RequestPreVote(id, t.at(id, addr), req, resp)
	return t.answered(id, err, resp.Term, 0)
}

// TimeoutNow makes a peer hold an election.
func (t *Transport) TimeoutNow(id raft.ServerID, addr raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.NetworkTransport.TimeoutNow(id, t.at(id, addr), req, resp)
}

// appendEntries sends entries to a peer.
func (t *Transport) appendEntries(id raft.ServerID, addr raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	t.lowerCommit(req)
	return t.NetworkTransport.AppendEntries(id, t.at(id, addr), req, resp)
}

// installSnapshot sends a snapshot to a peer.
func (t *Transport) installSnapshot(id raft.ServerID, addr raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.NetworkTransport.InstallSnapshot(id, t.at(id, addr), req, resp, data)
}
