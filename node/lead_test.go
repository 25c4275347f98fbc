package node

import (
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// TestALeaderThatComesBackStartsItsClockAtTheTable hands leadership from a node to another
// and back, and moves the clock of the first by an hour meanwhile. No clock moves while its
// node leads, so cluster time must not move either.
func TestALeaderThatComesBackStartsItsClockAtTheTable(t *testing.T) {
	t.Parallel()
	var clocks []*atomic.Int64
	c := startClusterWith(t, 3, func(cfg *Config) {
		at := &atomic.Int64{}
		at.Store(int64(len(clocks)) * int64(time.Hour))
		clocks = append(clocks, at)
		cfg.seams.Mono = func() time.Duration { return time.Duration(at.Load()) }
	})
	acquire := func(name string) int64 {
		t.Helper()
		a, err := mux.Do(c.ctx(), wire{c.leader()}.Start, detachedOp(name, time.Minute))
		if err != nil || a.GetAcquire() == nil {
			t.Fatalf("acquire of %q = %v, %v", name, a, err)
		}
		return a.GetStamp()
	}
	first := c.leader()
	before := acquire("before")
	other := c.follower()
	c.transferTo(other)
	between := acquire("between")
	for i, n := range c.nodes {
		if n == first {
			clocks[i].Add(int64(time.Hour))
		}
	}
	c.transferTo(first)
	if after := acquire("after"); between != before || after != before {
		t.Errorf("stamps are %d, %d from another leader and %d from the first one again: no clock has moved while its node led",
			before, between, after)
	}
}

// transferTo hands leadership to a node and waits until it serves.
func (c *testCluster) transferTo(n *Node) {
	c.t.Helper()
	c.eventually(n.ID()+" leads", func() bool {
		if n.epoch.Load() != nil {
			return true
		}
		_, _ = wire{c.leader()}.TransferLeadership(c.ctx(), &apiv1.TransferLeadershipRequest{To: n.ID()})
		return n.epoch.Load() != nil
	})
}

// TestTheErrorOfAnEntrySaysWhetherItMayStillTakeEffect cuts a leader off while an entry is
// on its way: it may be in the log of the next leader. An entry that Raft has not accepted
// cannot.
func TestTheErrorOfAnEntrySaysWhetherItMayStillTakeEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rafts := startRafts(t)
		leader := rafts.leader()
		rafts.transport[leader].DisconnectAll()
		if _, err := commit(rafts.raft[leader], []byte("on its way")); !errors.Is(err, errOutcomeUnknown) || errors.Is(err, errNotProposed) {
			t.Errorf("commit by a leader that is cut off: %v, want %v", err, errOutcomeUnknown)
		}
		if _, err := commit(rafts.raft[leader], []byte("too late")); !errors.Is(err, errNotProposed) || errors.Is(err, errOutcomeUnknown) {
			t.Errorf("commit by a node that no longer leads: %v, want %v", err, errNotProposed)
		}
	})
}

// rafts are three Raft nodes in memory, named 0, 1 and 2, without anything of
// this package around them.
type rafts struct {
	raft      [3]*raft.Raft
	transport [3]*raft.InmemTransport
	log       [3]raft.LogStore
}

func startRafts(t *testing.T) *rafts {
	t.Helper()
	var all rafts
	var servers []raft.Server
	for i := range all.raft {
		name := string(rune('0' + i))
		_, all.transport[i] = raft.NewInmemTransportWithTimeout(raft.ServerAddress(name), 100*time.Millisecond)
		servers = append(servers, raft.Server{ID: raft.ServerID(name), Address: raft.ServerAddress(name)})
	}
	for _, from := range all.transport {
		for _, to := range all.transport {
			from.Connect(to.LocalAddr(), to)
		}
	}
	for i := range all.raft {
		c := raft.DefaultConfig()
		c.LocalID, c.Logger = servers[i].ID, hclog.NewNullLogger()
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 200*time.Millisecond, 200*time.Millisecond, 150*time.Millisecond
		store, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
		if err := raft.BootstrapCluster(c, store, store, snapshots, all.transport[i], raft.Configuration{Servers: servers}); err != nil {
			t.Fatal(err)
		}
		r, err := raft.NewRaft(c, nothing{}, store, store, snapshots, all.transport[i])
		if err != nil {
			t.Fatal(err)
		}
		all.raft[i], all.log[i] = r, store
		t.Cleanup(func() {
			if err := r.Shutdown().Error(); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
		})
	}
	return &all
}

// leader waits for the node that leads.
func (r *rafts) leader() int {
	for {
		for i, one := range r.raft {
			if _, ok := leads(one); ok {
				return i
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// nothing is a state machine.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nil, io.ErrUnexpectedEOF }
func (nothing) Restore(r io.ReadCloser) error       { return r.Close() }
