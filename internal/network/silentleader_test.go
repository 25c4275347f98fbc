package network

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/proof/rafttest"
)

// votes are what a follower answers to a candidate.
type votes struct{ pre, real bool }

// voteOf asks a for its vote in the term after this one.
func (p *puppet) voteOf(t *testing.T, term, last uint64) (v votes) {
	t.Helper()
	header := raft.RPCHeader{ProtocolVersion: 3, ID: []byte("c"), Addr: []byte("c")}
	var pre raft.RequestPreVoteResponse
	if err := p.RequestPreVote("a", "a", &raft.RequestPreVoteRequest{RPCHeader: header, Term: term + 1, LastLogIndex: last, LastLogTerm: term}, &pre); err != nil {
		t.Fatalf("RequestPreVote: %v", err)
	}
	var real raft.RequestVoteResponse
	if err := p.RequestVote("a", "a", &raft.RequestVoteRequest{RPCHeader: header, Term: term + 1, LastLogIndex: last, LastLogTerm: term}, &real); err != nil {
		t.Fatalf("RequestVote: %v", err)
	}
	return votes{pre.Granted, real.Granted}
}

// candidacy has b lead a, which holds an entry of it, and c ask a for its vote when b
// has been silent for a while. Raft itself would follow b for ten seconds or more.
func candidacy(t *testing.T, silent time.Duration, last uint64, wrap func(raft.StreamLayer) raft.Transport) (v votes) {
	const term = 7
	network := newMemNet()
	b, c := newPuppet(network, "b"), newPuppet(network, "c")
	defer b.close()
	defer c.close()
	trans := wrap(network.listen("a"))
	conf := rafttest.Config("a")
	conf.HeartbeatTimeout, conf.ElectionTimeout = 10*time.Second, 10*time.Second
	r, _ := startAmong(t, trans, conf, &rafttest.Machine{})
	defer func() {
		_ = trans.(raft.WithClose).Close()
		if err := Shutdown(r, 5*time.Second); err != nil {
			t.Error(err)
		}
	}()
	if guarded, ok := trans.(*Transport); ok {
		guarded.patience.Store(int64(time.Second))
	}
	b.lead(t, "a", raft.AppendEntriesRequest{
		Term: term, PrevLogEntry: 1, PrevLogTerm: 1, Entries: []*raft.Log{{Index: 2, Term: term, Type: raft.LogCommand, Data: []byte("entry")}},
	})
	time.Sleep(time.Second)
	b.lead(t, "a", raft.AppendEntriesRequest{Term: term}) // a heartbeat
	time.Sleep(silent)
	if leader, _ := r.LeaderWithID(); leader != "b" || r.State() != raft.Follower {
		t.Fatalf("a is a %v and follows %q, want it to follow b", r.State(), leader)
	}
	return c.voteOf(t, term, last)
}

func guarded(s raft.StreamLayer) raft.Transport { return NewTransport(s, TransportOptions{}) }

func TestLeaderIsDefendedForAnElectionTimeout(t *testing.T) {
	for name, c := range map[string]struct {
		silent time.Duration
		last   uint64
		want   votes
	}{
		"heard a moment ago":                {900 * time.Millisecond, 2, votes{false, false}},
		"silent":                            {1100 * time.Millisecond, 2, votes{true, true}},
		"silent, but the log is too short":  {1100 * time.Millisecond, 1, votes{false, false}},
		"silent, and the log is longer yet": {1100 * time.Millisecond, 9, votes{true, true}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := candidacy(t, c.silent, c.last, guarded); got != c.want {
					t.Errorf("votes before and at the election: got %v, want %v", got, c.want)
				}
			})
		})
	}
}

// Without the guard a follower defends its leader for up to two election timeouts. If
// this fails, raft has learned better, and the guard can go.
func TestRaftDefendsALeaderThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := candidacy(t, 1100*time.Millisecond, 2, func(s raft.StreamLayer) raft.Transport {
			return rawTransport{newGatedStream(s, TransportOptions{Timeout: time.Second, MaxFrame: 1 << 20})}.open()
		})
		if got != (votes{false, false}) {
			t.Errorf("votes: got %v, want none", got)
		}
	})
}
