package network

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/proof/rafttest"
)

// puppet is a peer that the test controls: it votes for every candidate and accepts
// every entry.
type puppet struct {
	*raft.NetworkTransport
	stop chan struct{}
}

func newPuppet(network *memNet, addr raft.ServerAddress) *puppet {
	p := &puppet{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: network.listen(addr), MaxPool: 3, Timeout: time.Second, Logger: hclog.NewNullLogger(),
		}),
		stop: make(chan struct{}),
	}
	go p.serve()
	return p
}

func (p *puppet) serve() {
	for {
		select {
		case rpc := <-p.Consumer():
			switch req := rpc.Command.(type) {
			case *raft.RequestPreVoteRequest:
				rpc.Respond(&raft.RequestPreVoteResponse{Term: req.Term, Granted: true}, nil)
			case *raft.RequestVoteRequest:
				rpc.Respond(&raft.RequestVoteResponse{Term: req.Term, Granted: true}, nil)
			case *raft.AppendEntriesRequest:
				rpc.Respond(&raft.AppendEntriesResponse{Term: req.Term, Success: true}, nil)
			}
		case <-p.stop:
			return
		}
	}
}

func (p *puppet) close() {
	close(p.stop)
	_ = p.Close()
	p.CloseStreams()
}

// lead sends entries to addr as the leader of a term.
func (p *puppet) lead(t *testing.T, addr raft.ServerAddress, req raft.AppendEntriesRequest) *raft.AppendEntriesResponse {
	t.Helper()
	req.RPCHeader = raft.RPCHeader{ProtocolVersion: 3, ID: []byte("b"), Addr: []byte("b")}
	var resp raft.AppendEntriesResponse
	if err := p.AppendEntries("a", addr, &req, &resp); err != nil {
		t.Fatalf("AppendEntries: %v", err)
	}
	return &resp
}

// outcome is what the schedule of hashicorp/raft #695 leaves behind.
type outcome struct {
	applyErr error // of the client's command
	stored   *raft.Log
	applied  []string
}

// heartbeatRace plays the schedule: a leads term T and sleeps in its leader
// loop; b, elected for T+1 by others, sends a heartbeat; a client's Apply reaches
// a before anything else wakes it; b replicates its own command at that index.
func heartbeatRace(t *testing.T, wrap func(raft.StreamLayer) raft.Transport) outcome {
	network := newMemNet()
	b, c := newPuppet(network, "b"), newPuppet(network, "c")
	defer b.close()
	defer c.close()
	trans := wrap(network.listen("a"))
	fsm := &rafttest.Machine{}
	r, s := startAmong(t, trans, rafttest.Config("a"), fsm)
	defer func() {
		_ = trans.(raft.WithClose).Close()
		if err := Shutdown(r, 5*time.Second); err != nil {
			t.Error(err)
		}
	}()
	rafttest.WaitFor(t, "leader", 5*time.Second, func() bool { return r.State() == raft.Leader })
	if err := r.Barrier(time.Second).Error(); err != nil {
		t.Fatal(err)
	}
	synctest.Wait() // the leader loop sleeps
	last, term := r.LastIndex(), r.CurrentTerm()

	b.lead(t, "a", raft.AppendEntriesRequest{Term: term + 1}) // a heartbeat
	synctest.Wait()
	apply := r.Apply([]byte("client"), time.Second)
	synctest.Wait()
	var o outcome
	var l raft.Log
	if err := s.Log.GetLog(last+1, &l); err == nil {
		o.stored = &l
	}
	resp := b.lead(t, "a", raft.AppendEntriesRequest{
		Term: term + 1, PrevLogEntry: last, PrevLogTerm: term, LeaderCommitIndex: last + 1,
		Entries: []*raft.Log{{Index: last + 1, Term: term + 1, Type: raft.LogCommand, Data: []byte("leader")}},
	})
	if !resp.Success {
		t.Fatal("a refused the entry of the leader")
	}
	synctest.Wait()
	o.applyErr = apply.Error()
	o.applied = fsm.All()
	if o.stored != nil && o.stored.Term != term+1 {
		t.Fatalf("entry %d was stored under term %d; the schedule is about %d", last+1, o.stored.Term, term+1)
	}
	return o
}

// Without the guard the schedule ends in divergence. If this fails, raft has
// learned better, and the guard can go.
func TestHeartbeatFastPathDiverges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := heartbeatRace(t, func(s raft.StreamLayer) raft.Transport {
			return rawTransport{newGatedStream(s, TransportOptions{Timeout: time.Second, MaxFrame: 1 << 20})}.open()
		})
		if o.stored == nil || string(o.stored.Data) != "client" {
			t.Fatalf("stored under the other leader's term: %+v; expected the client's command", o.stored)
		}
		if len(o.applied) != 1 || o.applied[0][len(o.applied[0])-6:] != "client" {
			t.Fatalf("applied %q; expected the client's command in place of the leader's", o.applied)
		}
	})
}

func TestHeartbeatsOnTheMainGoroutineDoNotDiverge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := heartbeatRace(t, func(s raft.StreamLayer) raft.Transport {
			return NewTransport(s, TransportOptions{})
		})
		if !errors.Is(o.applyErr, raft.ErrNotLeader) {
			t.Errorf("the client got %v, want ErrNotLeader", o.applyErr)
		}
		if o.stored != nil {
			t.Errorf("a stored %q under a term it does not lead", o.stored.Data)
		}
		if !slices.ContainsFunc(o.applied, func(s string) bool { return s[len(s)-6:] == "leader" }) || len(o.applied) != 1 {
			t.Errorf("a applied %q, want the leader's command only", o.applied)
		}
	})
}

// Only a heartbeat that can change nothing is answered beside raft.
func TestOnlyAFollowerInTheSameTermAnswersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		defer stop(t, all)
		leader := leaderOf(t, all, time.Second)
		rest := without(all, leader)
		term := leader.raft.CurrentTerm()
		beat := func(term uint64, from string) *raft.AppendEntriesRequest {
			return &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ID: []byte(from)}, Term: term}
		}
		for _, c := range []struct {
			at   *member
			req  *raft.AppendEntriesRequest
			want bool
		}{
			{rest[0], beat(term, leader.id), true},
			{rest[0], beat(term+1, leader.id), false},
			{rest[0], beat(term-1, leader.id), false},
			{rest[0], beat(term, rest[1].id), false},
			{rest[0], beat(term, ""), false},
			{leader, beat(term, leader.id), false},
		} {
			if got := c.at.trans.follows(c.req); got != c.want {
				t.Errorf("%s, led by %s in term %d: answers %s in term %d at once = %v, want %v",
					c.at.id, leader.id, term, c.req.ID, c.req.Term, got, c.want)
			}
		}
	})
}

// A heartbeat that was answered at once still reaches raft: it is what keeps a
// follower from holding an election.
func TestAnsweredHeartbeatsKeepFollowersCalm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		b := newPuppet(network, "b")
		defer b.close()
		trans := NewTransport(network.listen("a"), TransportOptions{})
		r, _ := startAmong(t, trans, rafttest.Config("a"), &rafttest.Machine{})
		for range 200 { // heartbeats only, for 4 s
			if resp := b.lead(t, "a", raft.AppendEntriesRequest{Term: 7}); !resp.Success || resp.Term != 7 {
				t.Fatalf("heartbeat: %+v", resp)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if r.State() != raft.Follower || r.CurrentTerm() != 7 {
			t.Errorf("a is %v in term %d, want a follower in term 7", r.State(), r.CurrentTerm())
		}
		_ = trans.Close()
		if err := Shutdown(r, time.Second); err != nil {
			t.Error(err)
		}
	})
}

// rawTransport is raft's own transport, fast path and all, with connections that
// end at Close.
type rawTransport struct{ s *gatedStream }

type closingTransport struct {
	*raft.NetworkTransport
	s *gatedStream
}

func (r rawTransport) open() raft.Transport {
	return &closingTransport{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: r.s, MaxPool: 3, MaxRPCsInFlight: 1, Timeout: time.Second, Logger: hclog.NewNullLogger(),
	}), r.s}
}

func (c *closingTransport) Close() error {
	err := c.NetworkTransport.Close()
	c.s.closeConns()
	return err
}
