package network

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/proof/rafttest"
)

// x has entries 6 to 9 of a leader of term 3 that was deposed, never committed. The
// leader of term 6 has the first five, too, and commits its own 6 and 7 with others
// while it prepares its first request to x: an empty one, after entry 5.
func TestTailOfADeposedLeaderIsNotCommittedByAnEmptyRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		s := mustOpen(t, disk.StoreOptions{NodeID: "x", Memory: memory()})
		x := NewTransport(network.listen("x"), TransportOptions{})
		applied := &rafttest.Machine{}
		r, err := NewRaft(rafttest.Config("x"), applied, s, x)
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
		send := func(term, prev, prevTerm, commit uint64, logs ...*raft.Log) {
			t.Helper()
			var got raft.AppendEntriesResponse
			if err := asker.AppendEntries("x", "x", &raft.AppendEntriesRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("c"), Addr: []byte("c")},
				Term:      term, PrevLogEntry: prev, PrevLogTerm: prevTerm, Entries: logs, LeaderCommitIndex: commit,
			}, &got); err != nil || !got.Success {
				t.Fatalf("AppendEntries = %+v, %v", got, err)
			}
			synctest.Wait()
		}
		want := func(from, to, term uint64) (all []string) {
			for _, l := range rafttest.Entries(from, to, term) {
				all = append(all, rafttest.Applied(l))
			}
			return all
		}
		conf := joining(1)
		send(3, 0, 0, 5, append(conf, rafttest.Entries(2, 9, 3)...)...)
		send(6, 5, 3, 7)
		if got := applied.All(); !slices.Equal(got, want(2, 5, 3)) || Committed(r, s) != 5 {
			t.Errorf("committed up to %d, applied %q; nothing after entry 5 was in a request of the leader of term 6", Committed(r, s), got)
		}
		// What it does say something of counts.
		send(6, 5, 3, 8, rafttest.Entries(6, 7, 6)...)
		if Committed(r, s) != 7 || len(applied.All()) != 6 {
			t.Errorf("committed up to %d, applied %q, want up to entry 7", Committed(r, s), applied.All())
		}
	})
}
