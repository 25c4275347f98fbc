package membership

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
func (n *member) form(ctx context.Context) (Start, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // otherwise it waits for ever, and the test with it
	defer cancel()
	s, err := n.m.FormOrJoin(ctx)
	if err == nil {
		n.start(s.Bootstrap)
	}
	return s, err
}

func TestFreshNodesFormOneCluster(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		starts := make(chan Start, 3)
		for _, id := range []string{"n3", "n1", "n2"} {
			n := w.fresh(id, expecting(3))
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
			if len(s.Bootstrap) != 3 || s.Bootstrap[0].ID != "n1" || s.Bootstrap[1].ID != "n2" || Place(s.Bootstrap[2]) != "n3:2" {
				t.Errorf("a founder starts with %+v", s.Bootstrap)
			}
		}
		for _, id := range []string{"n1", "n2", "n3"} {
			w.await(id, "voter", time.Second)
		}
		// A fourth one that expects three finds the cluster and is taken in.
		n4 := w.fresh("n4", expecting(3))
		s, err := n4.form(t.Context())
		if err != nil || s.Bootstrap != nil || s.ClusterID != "c1" {
			t.Fatalf("n4 starts with %+v, %v", s, err)
		}
		w.await("n4", "voter", time.Minute)
	})
}

func TestFormOrJoinEndsWithItsContext(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		n := w.fresh("a", expecting(3))
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, errors.New("enough"))
		defer cancel()
		if _, err := n.m.FormOrJoin(ctx); err == nil || !strings.Contains(err.Error(), "enough") {
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
	inWorld(t, func(t *testing.T, w *world) {
		n := w.fresh("a", func(m *cluster.Meta, cfg *Config) {
			m.Expect = 1
			cfg.KeepPromise = func(cluster.Founders) error { return errors.New("disk full") }
		})
		if _, err := n.m.FormOrJoin(t.Context()); err == nil || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("error is %v", err)
		}
		if p := n.gossip.Meta().Promise; p != "" {
			t.Errorf("promise %q is advertised", p)
		}
	})
}

func TestPromiseOnDiskIsKeptAfterRestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		list := cluster.Founders{"a": "old:2", "b": "b:2"}
		a := w.fresh("a", func(m *cluster.Meta, cfg *Config) { m.Expect, cfg.Promised = 2, list })
		w.fresh("b", func(m *cluster.Meta, _ *Config) { m.Expect, m.Promise = 2, list.Hash() })
		s, err := a.m.FormOrJoin(t.Context())
		if err != nil || len(s.Bootstrap) != 2 || Place(s.Bootstrap[0]) != "old:2" {
			t.Errorf("a starts with %+v, %v; its address at the time of the promise was old:2", s, err)
		}
		if a.promised != nil {
			t.Errorf("a promised %v once more", a.promised)
		}
	})
}

func TestNodeWhoseIDIsInUseWaits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		n := w.fresh("a", expecting(1))
		n.gossip.conflict = "elsewhere:3"
		done := make(chan error, 1)
		go func() { _, err := n.m.FormOrJoin(t.Context()); done <- err }()
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
	inWorld(t, func(t *testing.T, w *world) {
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

// What it writes down for good it has asked for: gossip may say anything.
func TestALateFounderLearnsTheIDFromTheOthers(t *testing.T) {
	founders := cluster.Founders{"a": "a:2", "b": "b:2", "late": "late:2"}
	hash := founders.Hash()
	for name, row := range map[string]struct {
		is, shown func(*cluster.Meta)
		want      string
	}{
		"formed":         {func(m *cluster.Meta) { m.Promise, m.Formed = hash, true }, func(m *cluster.Meta) { m.ClusterID = "c1" }, "c1"},
		"another ID":     {func(m *cluster.Meta) { m.Promise, m.Formed = hash, true }, func(m *cluster.Meta) { m.ClusterID = "false" }, "c1"},
		"has not formed": {func(m *cluster.Meta) { m.Promise, m.Formed = hash, false }, func(m *cluster.Meta) { m.ClusterID, m.Formed = "false", true }, ""},
		"promised others": {func(m *cluster.Meta) { m.Promise, m.Formed = "others", true },
			func(m *cluster.Meta) { m.ClusterID, m.Promise = "false", hash }, ""},
		"promised nothing": {func(m *cluster.Meta) { m.Formed = true }, func(m *cluster.Meta) { m.ClusterID = "c1" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.voters("a")
				w.leader()
				w.show("a", func(p *cluster.Peer) { row.is(&p.Meta) })
				w.lie("a", func(p *cluster.Peer) { row.shown(&p.Meta) })
				late := w.fresh("late", nil)
				w.mu.Lock()
				asked := late.m.cfg.ClusterID
				w.mu.Unlock()
				late.m.cfg.ClusterID = func() string { return "" }
				if got := late.m.FoundersCluster(t.Context(), founders); got != row.want {
					t.Errorf("the ID is %q, want %q", got, row.want)
				}
				late.m.cfg.ClusterID = asked
			})
		})
	}
}
