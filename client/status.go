package client

import (
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// Status is how a node is, as it sees itself at one moment. Of the table it says what the
// node has applied. Fields may be added.
type Status struct {
	NodeID    string // in its configuration, or as it was drawn
	ClusterID string // of the cluster for as long as it exists, for [ClusterID]; empty: the node belongs to none yet
	Version   string // of the node's program
	LogStore  string // which store the node's log is in, as in its configuration

	State NodeState // in Raft
	// Ready: the node serves, and its table is up to date: somebody leads, and a
	// majority confirmed it at most a few seconds ago.
	Ready          bool
	NotReadyReason string // for people; empty if Ready

	LeaderID      string // empty: the node knows of no leader
	LeaderAddress string // where the leader's API is, host:port; empty: not known
	HTTPAddress   string // where the node's HTTP is, host:port; empty: it serves none

	Term         uint64 // Raft's; 0: the node belongs to no cluster yet
	CommitIndex  uint64 // of Raft's log: what is decided, as far as the node knows
	AppliedIndex uint64 // of Raft's log: what the table has; at most CommitIndex, or about to be
	// VotesFrom is the index that has to be committed before a node that has joined
	// votes. 0: it votes if it is a voter.
	VotesFrom uint64

	// Voters is how many members vote, by the latest committed configuration, and
	// VotersHealthy how many of those answer the leader, itself included; as the leader
	// said at most a few seconds ago. 0: not known, as while the node is not Ready.
	Voters, VotersHealthy int
	Voter                 bool // the node is one of Voters, and votes
	Nonvoter              bool // the node is configured not to vote
	// VoterReady: the next node may be stopped, as far as this one knows: it is Ready and
	// votes, or is a Nonvoter, and the cluster has a majority of its voters without any
	// one of them, or all answer.
	VoterReady  bool
	VoterReason string // for people: why not VoterReady, or what is to be said besides

	LastToken   uint64        // the greatest fencing token given so far; 0: none
	ClusterTime time.Duration // the cluster's own clock, from its beginning, at AppliedIndex
	Locks       int           // that are held, waited for or delayed
	Grants      int           // that are held
	Waiters     int           // places in line
	Sessions    int           // open ones
	Owners      int           // addresses that have anything in the table
	// TopOwners are those that take most of TableBytes, the greatest first; at most 5.
	TopOwners       []OwnerUse
	TableBytes      int64 // what the table takes, by the cluster's own count, which is the same on all nodes
	TableBytesLimit int64 // beyond which it takes nothing new; 0: not known yet
	// FeatureLevel says which commands of later versions the cluster uses: 1 or more, 0 if
	// the asked node does not say. FeatureLevelKnown is the highest that its program knows.
	FeatureLevel, FeatureLevelKnown int

	// Digest is that of the table at DigestIndex: two nodes that differ at one index are an
	// alarm. How it is made is not stable: it may differ between releases.
	Digest      uint64
	DigestIndex uint64 // of Raft's log
}

// NodeState is what a node is in Raft.
type NodeState string

// The states. Others may be added.
const (
	StateStarting  NodeState = "starting" // it belongs to no cluster yet
	StateFollower  NodeState = "follower"
	StateCandidate NodeState = "candidate" // it knows of no leader, and wants to be it
	StateLeader    NodeState = "leader"    // it was elected; it serves as the leader when it is Ready
	StateStopped   NodeState = "stopped"
)

// OwnerUse is what one owner has in the table: the sessions that were opened from there,
// and the requests that came from there without a session.
type OwnerUse struct {
	Owner    string // an IP address, of IPv6 the /64; or "node " and an ID: what a node does itself
	Sessions int    // open ones
	Grants   int    // that are held
	Waiters  int    // places in line
	// RequestIDs and EndedSessions are how many of these the table remembers: those of
	// detached acquires, and those of clients that may not know of it yet.
	RequestIDs, EndedSessions int
	Bytes                     int64 // of [Status].TableBytes
}

// Member is a node as another one sees it.
type Member struct {
	ID string // of the node
	// The addresses are host:port, as others dial them. Empty: not known, or, of HTTP,
	// not served.
	APIAddress, HTTPAddress, RaftAddress, GossipAddress string
	Role                                                MemberRole   // by the configuration that the asked node has
	Health                                              MemberHealth // by the gossip that the asked node hears
	Version                                             string       // of its program; empty: not known
	Zone                                                string       // as it is configured, for people; empty: none, or not known
	FeatureLevel                                        int          // the highest that the node agrees to, see Status; 0: not known
}

// MemberRole is what a node is in Raft's configuration.
type MemberRole string

// The roles. Others may be added.
const (
	RoleLeader   MemberRole = "leader" // a voter, too
	RoleVoter    MemberRole = "voter"
	RoleNonvoter MemberRole = "nonvoter" // it has the table and does not vote, or not yet
	RoleNone     MemberRole = "none"     // it is no member: gossip sees it
)

// MemberHealth is what gossip knows of a node. It is a hint: no lock depends on it.
type MemberHealth string

// What gossip knows. Others may be added.
const (
	HealthAlive   MemberHealth = "alive"
	HealthFailed  MemberHealth = "failed"
	HealthLeft    MemberHealth = "left" // it has said that it ends
	HealthUnknown MemberHealth = "unknown"
)

func statusOf(s *apiv1.StatusResponse) Status {
	out := Status{
		NodeID: s.GetNodeId(), ClusterID: s.GetClusterId(), Version: s.GetVersion(), LogStore: s.GetLogStore(),
		State: NodeState(s.GetState()), Ready: s.GetReady(), NotReadyReason: s.GetNotReadyReason(),
		LeaderID: s.GetLeaderId(), LeaderAddress: s.GetLeaderAddress(), HTTPAddress: s.GetHttpAddress(),
		Term: s.GetTerm(), CommitIndex: s.GetCommitIndex(), AppliedIndex: s.GetAppliedIndex(), VotesFrom: s.GetVotesFrom(),
		Voters: int(s.GetVoters()), VotersHealthy: int(s.GetVotersHealthy()), Voter: s.GetVoter(), Nonvoter: s.GetNonvoter(),
		VoterReady: s.GetVoterReady(), VoterReason: s.GetVoterReason(),
		LastToken: s.GetLastToken(), ClusterTime: time.Duration(s.GetClusterTime()),
		Locks: int(s.GetLocks()), Grants: int(s.GetGrants()), Waiters: int(s.GetWaiters()), Sessions: int(s.GetSessions()),
		Owners: int(s.GetOwners()), TableBytes: s.GetTableBytes(), TableBytesLimit: s.GetTableBytesLimit(),
		FeatureLevel: int(s.GetFeatureLevel()), FeatureLevelKnown: int(s.GetFeatureLevelKnown()),
		Digest: s.GetDigest(), DigestIndex: s.GetDigestIndex(),
	}
	for _, o := range s.GetTopOwners() {
		out.TopOwners = append(out.TopOwners, OwnerUse{
			Owner: o.GetOwner(), Sessions: int(o.GetSessions()), Grants: int(o.GetGrants()), Waiters: int(o.GetWaiters()),
			RequestIDs: int(o.GetOnceRemembered()), EndedSessions: int(o.GetEndedRemembered()), Bytes: o.GetTableBytes(),
		})
	}
	return out
}

func membersOf(r *apiv1.MembersResponse) []Member {
	var out []Member
	for _, m := range r.GetMembers() {
		out = append(out, Member{
			ID: m.GetId(), APIAddress: m.GetApiAddress(), HTTPAddress: m.GetHttpAddress(),
			RaftAddress: m.GetRaftAddress(), GossipAddress: m.GetGossipAddress(),
			Role: MemberRole(m.GetRole()), Health: MemberHealth(m.GetHealth()), Version: m.GetVersion(), Zone: m.GetZone(), FeatureLevel: int(m.GetFeatureLevel()),
		})
	}
	return out
}
