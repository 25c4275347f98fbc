package client

import (
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// Status is the state of a node at one moment, as the node reports it. Numbers of the lock
// table are those of the entries that the node has applied. Fields may be added.
type Status struct {
	NodeID    string // as configured, or chosen at random
	ClusterID string // for [ClusterID], never changes; empty: the node belongs to no cluster yet
	Version   string // of the node's program
	LogStore  string // the kind of store that has the node's log, as configured

	State NodeState // in Raft
	// Ready: the node serves, and its table is up to date: there is a leader, which a
	// majority confirmed at most a few seconds ago.
	Ready          bool
	NotReadyReason string // for people; empty if Ready

	LeaderID      string // empty: the node knows of no leader
	LeaderAddress string // of the leader's API, host:port; empty: not known
	HTTPAddress   string // of the node's HTTP, host:port; empty: it serves none

	Term         uint64 // Raft's; 0: the node belongs to no cluster yet
	CommitIndex  uint64 // the last index of Raft's log that is committed, as far as the node knows
	AppliedIndex uint64 // the last index that is applied; it may be greater than CommitIndex for a moment
	// VotesFrom is the index that has to be committed before a node that has joined
	// votes. 0: it votes if it is a voter.
	VotesFrom uint64

	// Voters is the number of voters in the latest committed configuration, and
	// VotersHealthy how many of them answer the leader, itself included; as the leader
	// reported at most a few seconds ago. 0: not known, for example while the node is not Ready.
	Voters, VotersHealthy int
	Voter                 bool // the node is one of Voters, and votes
	Nonvoter              bool // the node is configured not to vote
	// VoterReady: the next node may be stopped, as far as this one knows: it is Ready and
	// votes, or is a Nonvoter, and either a majority of the voters remains without any one
	// of them, or all answer.
	VoterReady  bool
	VoterReason string // for people: why not VoterReady, or a remark

	LastToken   uint64        // the greatest fencing token given so far; 0: none
	ClusterTime time.Duration // at AppliedIndex, since the cluster was formed
	Locks       int           // that are held, waited for or delayed
	Grants      int           // that there are
	Waiters     int           // places in queues
	Sessions    int           // that are open
	Owners      int           // that have anything in the table
	// TopOwners are those that use most of TableBytes, the greatest first; at most 5.
	TopOwners       []OwnerUse
	TableBytes      int64 // memory of the table, as the cluster counts it: the same on all nodes
	TableBytesLimit int64 // beyond which new requests are refused; 0: not known yet
	// FeatureLevel is which commands of later versions the cluster uses: 1 or more; 0: the
	// node does not report it. FeatureLevelKnown is the highest that its program knows.
	FeatureLevel, FeatureLevelKnown int
	AuthMode                        string // auth.mode of the node: off, log or required; empty: it does not report it
	AuthEnforced                    bool   // the node refuses what the caller has no right to
	AuthNote                        string // for people: why it does not although AuthMode is required

	// Digest is that of the table at DigestIndex: two nodes that differ at one index have
	// diverged. How it is made is not stable: it may differ between releases.
	Digest      uint64
	DigestIndex uint64 // of Raft's log
}

// NodeState is what a node is in Raft.
type NodeState string

// The states. Others may be added.
const (
	StateStarting  NodeState = "starting" // it belongs to no cluster yet
	StateFollower  NodeState = "follower"
	StateCandidate NodeState = "candidate" // it knows no leader, and asks for votes
	StateLeader    NodeState = "leader"    // it was elected; it serves as the leader once it is Ready
	StateStopped   NodeState = "stopped"
)

// OwnerUse is what one owner has in the table, by sessions that were opened from its address
// and requests that came from there without a session.
type OwnerUse struct {
	Owner    string // an IP address, of IPv6 the /64; or "node " and an ID: requests of a node itself
	Sessions int    // that are open
	Grants   int    // that there are
	Waiters  int    // places in queues
	// RequestIDs is how many IDs of detached acquires the table remembers, and EndedSessions
	// how many sessions whose clients may not know yet that they have ended.
	RequestIDs, EndedSessions int
	Bytes                     int64 // its part of [Status].TableBytes
}

// Member is a member of the cluster, or a peer that only gossip sees, as one node knows it.
type Member struct {
	ID string // of the node
	// The addresses are host:port, as others dial them. Empty: not known; of HTTP also: not
	// served.
	APIAddress, HTTPAddress, RaftAddress, GossipAddress string
	Role                                                MemberRole   // in the Raft configuration of the asked node
	Health                                              MemberHealth // by the gossip of the asked node
	Version                                             string       // of its program; empty: not known
	Zone                                                string       // as configured, for people; empty: none, or not known
	FeatureLevel                                        int          // the highest that the node supports; see [Status]; 0: not known
	TLS                                                 string       // off, permissive or required, as the node says itself; empty: not known
}

// MemberRole is what a node is in Raft's configuration.
type MemberRole string

// The roles. Others may be added.
const (
	RoleLeader   MemberRole = "leader" // also a voter
	RoleVoter    MemberRole = "voter"
	RoleNonvoter MemberRole = "nonvoter" // it has the table and does not vote, or not yet
	RoleNone     MemberRole = "none"     // it is no member: only gossip sees it
)

// MemberHealth is the state of a node by gossip. It is a hint: no lock depends on it.
type MemberHealth string

// The states by gossip. Others may be added.
const (
	HealthAlive   MemberHealth = "alive"
	HealthFailed  MemberHealth = "failed"
	HealthLeft    MemberHealth = "left" // it was stopped in order
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
		AuthMode: s.GetAuthMode(), AuthEnforced: s.GetAuthEnforced(), AuthNote: s.GetAuthNote(),
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
			TLS: m.GetTls(),
		})
	}
	return out
}
