package node

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/cluster"
)

// form runs formOrJoin and then Raft, as a node does.
func (n *memberNode) form(ctx context.Context) (membershipStart, error) {
	s, err := n.m.formOrJoin(ctx)
	if err == nil {
		n.start(s.bootstrap)
	}
	return s, err
}

func TestFreshNodesFormOneCluster(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		starts := make(chan membershipStart, 3)
		for _, id := range []string{"n3", "n1", "n2"} {
			n := w.fresh(id, memberExpecting(3))
			go func() {
				s, err := n.form(t.Context())
				if err != nil {
					t.Error(err)
				}
				starts <- s
			}()
			time.Sleep(time.Second) // the others come later
		}
		for range 3 {
			s := <-starts
			if len(s.bootstrap) != 3 || s.bootstrap[0].ID != "n1" || s.bootstrap[1].ID != "n2" || s.bootstrap[2].Address != "n3:2" {
				t.Errorf("a founder starts with %+v", s.bootstrap)
			}
		}
		for _, id := range []string{"n1", "n2", "n3"} {
			w.await(id, "voter", time.Second)
		}
		// A fourth one that expects three finds the cluster and is taken in.
		n4 := w.fresh("n4", memberExpecting(3))
		s, err := n4.form(t.Context())
		if err != nil || s.bootstrap != nil || s.clusterID != "c1" {
			t.Fatalf("n4 starts with %+v, %v", s, err)
		}
		w.await("n4", "voter", time.Minute)
	})
}

func TestFormOrJoinEndsWithItsContext(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		n := w.fresh("a", memberExpecting(3))
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, errors.New("enough"))
		defer cancel()
		if _, err := n.m.formOrJoin(ctx); err == nil || !strings.Contains(err.Error(), "enough") {
			t.Errorf("error is %v", err)
		}
		if last := n.reasons[len(n.reasons)-1]; last != "1 of 3 fresh voters are seen" {
			t.Errorf("waited for %q", last)
		}
		if got := n.log.count("1 of 3 fresh voters are seen"); got != 1 {
			t.Errorf("logged %d times in an hour what it waits for", got)
		}
	})
}

func TestUnwrittenPromiseIsNotAdvertised(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		n := w.fresh("a", func(m *cluster.Meta, cfg *membershipConfig) {
			m.Expect = 1
			cfg.keepPromise = func([]cluster.Founder) error { return errors.New("disk full") }
		})
		if _, err := n.m.formOrJoin(t.Context()); err == nil || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("error is %v", err)
		}
		if p := n.gossip.Meta().Promise; p != "" {
			t.Errorf("promise %q is advertised", p)
		}
	})
}

func TestPromiseOnDiskIsKeptAfterRestart(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		list := []cluster.Founder{{NodeID: "a", Raft: "old:2"}, {NodeID: "b", Raft: "b:2"}}
		a := w.fresh("a", func(m *cluster.Meta, cfg *membershipConfig) { m.Expect, cfg.promised = 2, list })
		w.fresh("b", func(m *cluster.Meta, _ *membershipConfig) { m.Expect, m.Promise = 2, cluster.Hash(list) })
		s, err := a.m.formOrJoin(t.Context())
		if err != nil || len(s.bootstrap) != 2 || s.bootstrap[0].Address != "old:2" {
			t.Errorf("a starts with %+v, %v; its address at the time of the promise was old:2", s, err)
		}
		if a.promised != nil {
			t.Errorf("a promised %v once more", a.promised)
		}
	})
}

func TestNodeWhoseIDIsInUseWaits(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		n := w.fresh("a", memberExpecting(1))
		n.gossip.conflict = "elsewhere:3"
		done := make(chan error, 1)
		go func() { _, err := n.m.formOrJoin(t.Context()); done <- err }()
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("a went on under a name that is in use: %v", err)
		default:
		}
		if last := n.reasons[len(n.reasons)-1]; !strings.Contains(last, "elsewhere:3") {
			t.Errorf("waited for %q", last)
		}
		w.mu.Lock()
		n.gossip.conflict = ""
		w.mu.Unlock()
		w.show("a", func(*cluster.Peer) {})
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The cluster has no leader when the node asks.
func TestJoinIsTriedUntilThereIsALeader(t *testing.T) {
	inMemberWorld(t, func(t *testing.T, w *memberWorld) {
		w.voters("a", "b", "c")
		w.leader()
		w.mu.Lock()
		for _, tr := range w.trans {
			tr.DisconnectAll()
		}
		w.mu.Unlock()
		d := w.fresh("d", nil)
		done := make(chan error, 1)
		go func() { _, err := d.form(t.Context()); done <- err }()
		time.Sleep(time.Minute)
		select {
		case err := <-done:
			t.Fatalf("joined without a leader: %v", err)
		default:
		}
		w.mu.Lock()
		for a, tr := range w.trans {
			for b, other := range w.trans {
				if a != b {
					tr.Connect(b, other)
				}
			}
		}
		w.mu.Unlock()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		w.await("d", "voter", time.Minute)
	})
}

// A founder gets the Raft address that a member of another cluster had, under the same
// ID: the leader there looks for its member and finds one that knows of no cluster yet.
func TestAFounderTakesNothingFromTheLeaderOfAnotherCluster(t *testing.T) {
	old := startCluster(t, 3)
	held, err := old.client(old.leader()).Lock(old.ctx(), "line")
	if err != nil {
		t.Fatal(err)
	}
	gone := old.follower()
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	fresh := startClusterWith(t, 3, func(cfg *Config) {
		if cfg.ID == gone.ID() {
			cfg.RaftAddr = gone.raftAddr
		}
	})
	if a, b := old.leader().clusterID(), fresh.leader().clusterID(); a == b {
		t.Fatalf("both clusters have the ID %s", a)
	}
	g, err := fresh.client(fresh.leader()).TryLock(fresh.ctx(), "line")
	if err != nil {
		t.Fatalf("the lock that is held in the other cluster: %v", err)
	}
	for _, c := range []*testCluster{old, fresh} {
		for _, n := range c.nodes {
			if n != gone && n.clusterID() != c.leader().clusterID() {
				t.Errorf("%s has the state of cluster %s, want that of %s", n.ID(), n.clusterID(), c.leader().clusterID())
			}
		}
	}
	if err := errors.Join(held.Unlock(), g.Unlock()); err != nil {
		t.Error(err)
	}
}

func TestALateFounderLearnsTheIDFromTheOthers(t *testing.T) {
	formed := cluster.Peer{State: cluster.Alive}
	formed.Promise, formed.Formed, formed.ClusterID = "founders", true, "id"
	early, elsewhere, joined := formed, formed, formed
	early.ClusterID, elsewhere.Promise, joined.Promise = "", "others", ""
	for _, row := range []struct {
		promise string
		peers   []cluster.Peer
		want    string
	}{
		{"founders", []cluster.Peer{joined, elsewhere, early, formed}, "id"},
		{"founders", []cluster.Peer{joined, elsewhere, early}, ""},
		{"", []cluster.Peer{joined, formed}, ""}, // it promised nothing: it is told when it is taken in
	} {
		if got := foundersCluster(row.promise, row.peers); got != row.want {
			t.Errorf("promise %q: got %q, want %q", row.promise, got, row.want)
		}
	}
}
