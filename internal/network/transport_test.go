package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/hclogs"
	"github.com/locknode/locknode/internal/proof/rafttest"
)

// gate is a switch for TransportOptions.Gate.
type gate struct {
	mu  sync.Mutex
	err error
}

func (g *gate) set(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
}

func (g *gate) get() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// serve answers every RPC of trans until it is closed, and counts them.
func serve(t *testing.T, trans *Transport, answer func(raft.RPC)) {
	t.Helper()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case rpc := <-trans.Consumer():
				answer(rpc)
			case <-done:
				return
			}
		}
	})
	t.Cleanup(func() {
		_ = trans.Close()
		close(done)
		wg.Wait()
	})
}

func accept(rpc raft.RPC) {
	if rpc.Reader != nil {
		_, _ = io.Copy(io.Discard, rpc.Reader)
		rpc.Respond(&raft.InstallSnapshotResponse{Success: true}, nil)
		return
	}
	rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
}

// header is that of a request of the member whose stream a transport uses.
func (t *Transport) header() raft.RPCHeader {
	s, ok := t.streams.StreamLayer.(*Stream)
	if !ok {
		return raft.RPCHeader{}
	}
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(s.o.Member)}
}

// appendTo sends the entries as those that follow entry 1.
func appendTo(trans *Transport, addr raft.ServerAddress, logs ...*raft.Log) error {
	for i, l := range logs {
		l.Index, l.Term = 2+uint64(i), 1
	}
	var resp raft.AppendEntriesResponse
	return trans.AppendEntries("b", addr, &raft.AppendEntriesRequest{RPCHeader: trans.header(), Term: 1, PrevLogEntry: 1, PrevLogTerm: 1, Entries: logs}, &resp)
}

func TestPipeliningIsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trans := NewTransport(newMemNet().listen("a"), TransportOptions{})
		defer trans.Close()
		if _, err := trans.AppendEntriesPipeline("b", "b"); err != raft.ErrPipelineReplicationNotSupported { //nolint:errorlint // raft compares with !=
			t.Errorf("AppendEntriesPipeline = %v, want ErrPipelineReplicationNotSupported itself", err)
		}
	})
}

// A follower that refuses an entry now and then is what starts the deadlock of
// hashicorp/raft #612 in a pipeline: nothing reaches it for the rest of the term,
// and Shutdown never returns. With raft's default of two requests in flight this
// schedule hung in 30 of 30 runs (the stuck goroutines outlive the test, so the
// failing half is not kept).
func TestFollowerThatRefusesEntriesIsStillFed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fed, ended := feedRefusingFollower(t, func(s raft.StreamLayer) raft.Transport { return NewTransport(s, TransportOptions{}) })
		if !fed {
			t.Error("the follower gets nothing any more")
		}
		if !ended {
			t.Error("Shutdown ran into its deadline")
		}
	})
}

// feedRefusingFollower lets a leader replicate to b, which refuses every tenth
// request with entries, and reports whether b still gets entries after that and
// whether the leader's raft could be shut down.
func feedRefusingFollower(t *testing.T, wrap func(raft.StreamLayer) raft.Transport) (fed, ended bool) {
	network := newMemNet()
	c := newPuppet(network, "c")
	defer c.close()
	var mu sync.Mutex
	var last uint64
	requests := 0
	b := NewTransport(network.listen("b"), TransportOptions{})
	serve(t, b, func(rpc raft.RPC) {
		switch req := rpc.Command.(type) {
		case *raft.RequestPreVoteRequest:
			rpc.Respond(&raft.RequestPreVoteResponse{Term: req.Term, Granted: true}, nil)
		case *raft.RequestVoteRequest:
			rpc.Respond(&raft.RequestVoteResponse{Term: req.Term, Granted: true}, nil)
		case *raft.AppendEntriesRequest:
			mu.Lock()
			defer mu.Unlock()
			ok := true
			if n := len(req.Entries); n > 0 {
				if requests++; requests%10 == 0 {
					ok = false
				} else {
					last = req.Entries[n-1].Index
				}
			}
			rpc.Respond(&raft.AppendEntriesResponse{Term: req.Term, LastLog: last, Success: ok, NoRetryBackoff: true}, nil)
		}
	})
	trans := wrap(network.listen("a"))
	r, _ := startAmong(t, trans, rafttest.Config("a"), &rafttest.Machine{})
	rafttest.WaitFor(t, "leader", 5*time.Second, func() bool { return r.State() == raft.Leader })
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 250 {
				_ = r.Apply([]byte("x"), time.Second).Error()
			}
		})
	}
	wg.Wait()
	time.Sleep(2 * time.Second)
	mu.Lock()
	fed = last == r.LastIndex()
	mu.Unlock()
	ended = Shutdown(r, 10*time.Second) == nil
	_ = trans.(raft.WithClose).Close()
	return fed, ended
}

func TestClosedGateLetsNothingInOrOut(t *testing.T) {
	for _, side := range []string{"sender", "receiver"} {
		t.Run(side, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newMemNet()
				var gates [2]gate
				a := NewTransport(network.listen("a"), TransportOptions{Gate: gates[0].get})
				defer a.Close()
				b := NewTransport(network.listen("b"), TransportOptions{Gate: gates[1].get})
				var mu sync.Mutex
				got := 0
				serve(t, b, func(rpc raft.RPC) {
					mu.Lock()
					got++
					mu.Unlock()
					accept(rpc)
				})
				if err := appendTo(a, "b"); err != nil {
					t.Fatal(err)
				}
				g := &gates[0]
				if side == "receiver" {
					g = &gates[1]
				}
				g.set(disk.ErrStalled)
				for range 2 { // on the pooled connection, then on a new one
					if err := appendTo(a, "b"); err == nil {
						t.Error("an RPC went through a closed gate")
					}
				}
				if mu.Lock(); got != 1 {
					t.Errorf("b handled %d RPCs, want 1", got)
				}
				mu.Unlock()
				g.set(nil)
				if err := appendTo(a, "b"); err != nil {
					t.Errorf("after the gate opened: %v", err)
				}
			})
		})
	}
}

// The gate closes while the request is being handled: the answer must not leave.
func TestAnswerIsHeldWhenTheGateCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		var g gate
		a := NewTransport(network.listen("a"), TransportOptions{})
		defer a.Close()
		b := NewTransport(network.listen("b"), TransportOptions{Gate: g.get})
		serve(t, b, func(rpc raft.RPC) {
			g.set(disk.ErrFailed)
			rpc.Respond(&raft.RequestVoteResponse{Term: 7, Granted: true}, nil)
		})
		var resp raft.RequestVoteResponse
		err := a.RequestVote("b", "b", &raft.RequestVoteRequest{Term: 7}, &resp)
		if err == nil || resp.Granted {
			t.Errorf("RequestVote = %+v, %v; want no answer from a failed node", resp, err)
		}
	})
}

func TestFrameLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		a := NewTransport(network.listen("a"), TransportOptions{})
		defer a.Close()
		b := NewTransport(network.listen("b"), TransportOptions{MaxFrame: 64 << 10})
		serve(t, b, accept)
		if err := appendTo(a, "b", &raft.Log{Data: make([]byte, 32<<10)}); err != nil {
			t.Errorf("a frame within the limit: %v", err)
		}
		if err := appendTo(a, "b", &raft.Log{Data: make([]byte, 65<<10)}); err == nil {
			t.Error("a frame above the limit was taken")
		}
		// A snapshot may be larger.
		req := &raft.InstallSnapshotRequest{
			SnapshotVersion: 1, Term: 1, LastLogIndex: 1, LastLogTerm: 1, Size: 1 << 20,
			Configuration: raft.EncodeConfiguration(fuzzedVoters),
		}
		var resp raft.InstallSnapshotResponse
		if err := a.InstallSnapshot("b", "b", req, &resp, bytes.NewReader(make([]byte, 1<<20))); err != nil || !resp.Success {
			t.Errorf("InstallSnapshot = %+v, %v", resp, err)
		}
	})
}

func TestUnknownRequestKindEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		b := NewTransport(network.listen("b"), TransportOptions{})
		serve(t, b, accept)
		c, err := network.listen("x").Dial("b", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte{99}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the connection goes on after an unknown request")
		}
	})
}

// slowLink passes n bytes per tick.
type slowLink struct {
	net.Conn
	n    int
	tick time.Duration
}

func (s slowLink) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		time.Sleep(s.tick)
		m, err := s.Conn.Write(b[:min(s.n, len(b))])
		n += m
		if err != nil {
			return n, err
		}
		b = b[m:]
	}
	return n, nil
}

type slowLayer struct{ *memLayer }

func (l slowLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	c, err := l.memLayer.Dial(addr, timeout)
	if err != nil {
		return nil, err
	}
	return slowLink{c, 1024, 50 * time.Millisecond}, nil // 20 kB/s
}

func TestSlowLinkIsNotADeadOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		a := NewTransport(slowLayer{network.listen("a")}, TransportOptions{Timeout: time.Second})
		defer a.Close()
		b := NewTransport(network.listen("b"), TransportOptions{Timeout: time.Second})
		serve(t, b, accept)
		start := time.Now()
		if err := appendTo(a, "b", &raft.Log{Data: make([]byte, 256<<10)}); err != nil {
			t.Errorf("a large entry on a slow link: %v after %v", err, time.Since(start))
		}
		if took := time.Since(start); took < 5*time.Second {
			t.Errorf("the link was not slow: %v", took)
		}
	})
}

func TestSilentPeerTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		a := NewTransport(network.listen("a"), TransportOptions{Timeout: time.Second})
		defer a.Close()
		b := NewTransport(network.listen("b"), TransportOptions{})
		defer b.Close() // nobody consumes
		start := time.Now()
		if err := appendTo(a, "b"); err == nil {
			t.Error("an RPC without answer succeeded")
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("gave up after %v, want about 1 s", took)
		}
	})
}

// A follower that was away for a minute gets entries again with the next
// heartbeats, not after raft's backoff of 10 s.
func TestReturningFollowerIsFedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		leader := leaderOf(t, all, time.Second)
		away := without(all, leader)[0]
		away.link.set(errors.New("cut off"))
		for range 60 {
			time.Sleep(time.Second)
			if err := leader.raft.Apply([]byte("x"), time.Second).Error(); err != nil {
				t.Fatal(err)
			}
		}
		away.link.set(nil)
		start := time.Now()
		rafttest.WaitFor(t, "the follower has caught up", 20*time.Second, func() bool { return len(away.fsm.All()) >= 60 })
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("caught up after %v", took)
		} else {
			t.Logf("caught up after %v of virtual time", took)
		}
		stop(t, all)
	})
}

// While a replication RPC waits for a dead peer, stepping down, removing the
// peer and stopping must not wait for it.
func TestWaitingForADeadPeerEnds(t *testing.T) {
	dead := func(t *testing.T, all []*member, leader *member) *member {
		m := without(all, leader)[0]
		stop(t, []*member{m})
		time.Sleep(2 * time.Second)
		return m
	}
	beats := func(tr *Transport) int { // heartbeats that go on show a replication goroutine that does
		tr.streams.mu.Lock()
		defer tr.streams.mu.Unlock()
		return tr.streams.dials
	}
	t.Run("removed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			all := startCluster(t, "a", "b", "c")
			defer stop(t, all)
			leader := leaderOf(t, all, time.Second)
			m := dead(t, all, leader)
			if err := leader.raft.RemoveServer(raft.ServerID(m.id), 0, time.Second).Error(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			before := beats(leader.trans)
			time.Sleep(10 * time.Second)
			if after := beats(leader.trans); after != before {
				t.Errorf("%d dials to a removed peer", after-before)
			}
		})
	})
	t.Run("stepped down", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			all := startCluster(t, "a", "b", "c")
			defer stop(t, all)
			leader := leaderOf(t, all, time.Second)
			m := dead(t, all, leader)
			other := without(without(all, leader), m)[0]
			if err := leader.raft.LeadershipTransferToServer(raft.ServerID(other.id), raft.ServerAddress(other.id)).Error(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			before := beats(leader.trans)
			time.Sleep(10 * time.Second)
			if after := beats(leader.trans); after != before {
				t.Errorf("%d dials by a node that does not lead", after-before)
			}
		})
	})
}

func TestShutdownHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		store := newFaulty()
		s := mustOpen(t, disk.StoreOptions{NodeID: "a", Memory: &disk.Memory{Log: store, Stable: store, Snapshots: raft.NewInmemSnapshotStore()}})
		_, trans := raft.NewInmemTransport("a")
		conf := rafttest.Config("a")
		if err := raft.BootstrapCluster(conf, s.Log, s.Stable, s.Snapshots, trans, raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}); err != nil {
			t.Fatal(err)
		}
		r, err := NewRaft(conf, &rafttest.Machine{}, s, trans)
		if err != nil {
			t.Fatal(err)
		}
		rafttest.WaitFor(t, "leader", 5*time.Second, func() bool { return r.State() == raft.Leader })
		store.set(func(f *faulty) { f.hang = release })
		hung := r.Apply([]byte("x"), time.Second)
		synctest.Wait()
		start := time.Now()
		if err := Shutdown(r, 3*time.Second); !errors.Is(err, ErrShutdownTimeout) {
			t.Errorf("Shutdown with a hung write = %v, want ErrShutdownTimeout", err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("Shutdown took %v, want 3 s", took)
		}
		if err := s.Close(); !errors.Is(err, disk.ErrStalled) {
			t.Errorf("Close with a hung write = %v, want ErrStalled", err)
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("Shutdown and Close took %v, want %v", took, 5*time.Second)
		}
		close(release)
		_ = hung.Error()
	})
}

func TestStopHandsLeadershipOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		old := leaderOf(t, all, time.Second)
		rest := without(all, old)
		start := time.Now()
		if err := Stop(old.raft, old.trans, 2*time.Second, 5*time.Second); err != nil {
			t.Errorf("Stop: %v", err)
		}
		leaderOf(t, rest, time.Second)
		if took := time.Since(start); took > 150*time.Millisecond {
			t.Errorf("the next leader after %v; the handover cannot have worked", took)
		} else {
			t.Logf("the next leader after %v of virtual time", took)
		}
		stop(t, rest)
	})
}

// Raft's own choice may be the dead voter.
func TestLeadershipIsHandedToAVoterThatAnswers(t *testing.T) {
	for range 5 {
		synctest.Test(t, func(t *testing.T) {
			all := startCluster(t, "a", "b", "c")
			defer stop(t, all)
			leader := leaderOf(t, all, time.Second)
			stop(t, without(all, leader)[:1])
			time.Sleep(time.Second)
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if err := HandOver(ctx, leader.raft, leader.trans, "", nil); err != nil {
				t.Errorf("HandOver with a dead voter: %v after %v", err, time.Since(start))
			}
		})
	}
}

func TestTransportKeepsTheOptionalInterfaces(t *testing.T) {
	var trans raft.Transport = &Transport{}
	if _, ok := trans.(raft.WithPreVote); !ok {
		t.Error("no pre-vote")
	}
	if _, ok := trans.(raft.WithClose); !ok {
		t.Error("no close")
	}
}

func TestRaftLoggerSpeaksLikeTheRest(t *testing.T) {
	var b strings.Builder
	l := hclogs.RaftLogger(rafttest.Logger(&b)).Named("raft").With("server-id", "a")
	l.Error("failed to do", "error", errEIO, "servers", hclog.Fmt("%d of %d", 1, 3))
	l.Error("failed to heartbeat to", "peer", "b", "error", fmt.Errorf("read: %w", io.EOF))
	l.Debug("not shown")
	l.Error("a stop ends connections: not shown", "error", &net.OpError{Op: "read", Net: "tcp", Err: net.ErrClosed})
	want := "level=WARN msg=\"failed to do\" server_id=a err=\"input/output error\" servers=\"1 of 3\"\n" +
		"level=WARN msg=\"failed to heartbeat to\" server_id=a peer=b err=\"the other end closed the connection\"\n"
	if got := b.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
