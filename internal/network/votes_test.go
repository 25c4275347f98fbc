package network

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/proof/rafttest"
)

// A node that was removed, lost its data and is taken in again under its old ID
// has an empty log, and raft votes for everybody then: also for a candidate that
// had its vote before, or should not have it. See votes.go.
func TestNodeThatJoinedVotesOnlyOnceItHasItsJoining(t *testing.T) {
	const joined = 5 // index of the configuration that took the node in
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("c"), Addr: []byte("c")}
	for _, c := range []struct {
		votesFrom, entries, committed uint64
		granted                       bool
	}{
		{joined, 0, 0, false},
		{joined, joined - 1, joined - 1, false},
		{joined, joined + 4, joined - 1, false},
		{joined, joined, joined, true},
		{0, 0, 0, true}, // what raft does by itself, and a founder may
	} {
		t.Run(fmt.Sprintf("from=%d/entries=%d/committed=%d", c.votesFrom, c.entries, c.committed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newMemNet()
				store := newFaulty()
				s := mustOpen(t, disk.StoreOptions{NodeID: "x", Memory: &disk.Memory{
					Log: store, Stable: store, Snapshots: raft.NewInmemSnapshotStore(),
					Identity: disk.Identity{Version: 1, NodeID: "x", LogStore: disk.LogStoreWAL, VotesFrom: c.votesFrom},
				}})
				x := NewTransport(network.listen("x"), TransportOptions{})
				r, err := NewRaft(rafttest.Config("x"), &rafttest.Machine{}, s, x)
				if err != nil {
					t.Fatal(err)
				}
				asker := NewTransport(network.listen("c"), TransportOptions{})
				defer func() {
					_ = asker.Close()
					if err := Stop(r, x, 0, time.Second); err != nil {
						t.Error(err)
					}
				}()
				if c.entries > 0 {
					var got raft.AppendEntriesResponse
					if err := asker.AppendEntries("x", "x", &raft.AppendEntriesRequest{
						RPCHeader: header, Term: 3, Entries: joining(c.entries), LeaderCommitIndex: c.committed,
					}, &got); err != nil || !got.Success {
						t.Fatalf("AppendEntries = %+v, %v", got, err)
					}
					time.Sleep(10 * time.Second) // until the leader is forgotten
				}
				var pre raft.RequestPreVoteResponse
				if err := asker.RequestPreVote("x", "x", &raft.RequestPreVoteRequest{
					RPCHeader: header, Term: 7, LastLogIndex: 9, LastLogTerm: 3}, &pre); err != nil || pre.Granted != c.granted {
					t.Errorf("RequestPreVote = %+v, %v; want granted %v", pre, err, c.granted)
				}
				var vote raft.RequestVoteResponse
				if err := asker.RequestVote("x", "x", &raft.RequestVoteRequest{
					RPCHeader: header, Term: 7, LastLogIndex: 9, LastLogTerm: 3}, &vote); err != nil || vote.Granted != c.granted {
					t.Errorf("RequestVote = %+v, %v; want granted %v", vote, err, c.granted)
				}
			})
		})
	}
}

// A request may be there before raft is: the port is open from the start of the node.
func TestNodeThatJoinedDoesNotVoteWhileItStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		store := newFaulty()
		s := mustOpen(t, disk.StoreOptions{NodeID: "x", Memory: &disk.Memory{
			Log: store, Stable: store, Snapshots: raft.NewInmemSnapshotStore(),
			Identity: disk.Identity{Version: 1, NodeID: "x", LogStore: disk.LogStoreWAL, VotesFrom: 5},
		}})
		x := NewTransport(network.listen("x"), TransportOptions{})
		asker := NewTransport(network.listen("c"), TransportOptions{})
		answered := make(chan error, 1)
		var vote raft.RequestVoteResponse
		go func() {
			answered <- asker.RequestVote("x", "x", &raft.RequestVoteRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("c"), Addr: []byte("c")},
				Term:      7, LastLogIndex: 9, LastLogTerm: 3,
			}, &vote)
		}()
		synctest.Wait() // the request waits
		r, err := NewRaft(rafttest.Config("x"), &rafttest.Machine{}, s, x)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-answered; err != nil || vote.Granted {
			t.Errorf("RequestVote = %+v, %v; want no vote", vote, err)
		}
		_ = asker.Close()
		if err := Stop(r, x, 0, time.Second); err != nil {
			t.Error(err)
		}
	})
}

// x was removed at entry 4, lost its data and was taken in anew at entry 5, by a leader
// of term 6. A leader of term 3, deposed and paused since, has entries 2 to 9 that were
// never committed, and x among its voters. It goes on for a moment before x has heard
// of the new leader. Then x must not vote: its log has not got to its joining.
func TestLongLogOfADeposedLeaderIsNotTheJoining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		store := newFaulty()
		s := mustOpen(t, disk.StoreOptions{NodeID: "x", Memory: &disk.Memory{
			Log: store, Stable: store, Snapshots: raft.NewInmemSnapshotStore(),
			Identity: disk.Identity{Version: 1, NodeID: "x", LogStore: disk.LogStoreWAL, VotesFrom: 5},
		}})
		x := NewTransport(network.listen("x"), TransportOptions{})
		r, err := NewRaft(rafttest.Config("x"), &rafttest.Machine{}, s, x)
		if err != nil {
			t.Fatal(err)
		}
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("c"), Addr: []byte("c")}
		asker := NewTransport(network.listen("c"), TransportOptions{})
		defer func() {
			_ = asker.Close()
			if err := Stop(r, x, 0, time.Second); err != nil {
				t.Error(err)
			}
		}()
		conf := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "c", Address: "c"}, {ID: "x", Address: "x"}, {ID: "y", Address: "y"}}})
		logs := []*raft.Log{{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: conf}}
		for i := uint64(2); i <= 9; i++ {
			logs = append(logs, &raft.Log{Index: i, Term: 3, Type: raft.LogNoop})
		}
		var got raft.AppendEntriesResponse
		if err := asker.AppendEntries("x", "x", &raft.AppendEntriesRequest{
			RPCHeader: header, Term: 3, Entries: logs, LeaderCommitIndex: 1,
		}, &got); err != nil || !got.Success {
			t.Fatalf("AppendEntries = %+v, %v", got, err)
		}
		var vote raft.RequestVoteResponse
		if err := asker.RequestVote("x", "x", &raft.RequestVoteRequest{
			RPCHeader: header, Term: 6, LastLogIndex: 9, LastLogTerm: 3}, &vote); err != nil || vote.Granted {
			t.Errorf("RequestVote = %+v, %v; want no vote: only entry 1 of x's log is committed, its joining is entry 5", vote, err)
		}
	})
}

// joining are the first entries of a log; all but the first are without meaning.
func joining(n uint64) []*raft.Log {
	conf := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{
		{ID: "c", Address: "c"}, {ID: "x", Address: "x", Suffrage: raft.Nonvoter}}})
	logs := []*raft.Log{{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: conf}}
	for i := uint64(2); i <= n; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: 3, Type: raft.LogNoop})
	}
	return logs
}
