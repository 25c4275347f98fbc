package sim

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/client"
)

// reaches reports whether a client gets an answer within some seconds.
func reaches(t *testing.T, cl *client.Client) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := cl.IsLocked(ctx, "any")
	return err == nil
}

// TestEndOfOneFaultDoesNotEndAnother: a node that is cut off for two reasons stays cut off
// until both have ended.
func TestEndOfOneFaultDoesNotEndAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Options{})
		a := mustClient(t, c, "a", client.SessionTTL(2*time.Second))
		g, err := a.Lock(t.Context(), "x")
		must(t, err)
		for _, step := range []struct {
			what string
			do   func() error
			want bool
		}{
			{"isolate", func() error { return c.Isolate("a") }, false},
			{"pause", func() error { return c.Pause("a") }, false},
			{"resume", func() error { return c.Resume("a") }, false},
			{"expire", func() error { return c.Expire(t.Context(), "a") }, false},
			{"isolate again", func() error { return c.Isolate("a") }, false},
			{"pause too", func() error { return c.Pause("a") }, false},
			{"rejoin", func() error { return c.Rejoin("a") }, false},
			{"resume too", func() error { return c.Resume("a") }, true},
			{"heal", func() error { c.Heal(); return nil }, true},
			{"pause again", func() error { return c.Pause("a") }, false},
			{"heal again", func() error { c.Heal(); return nil }, false},
			{"resume again", func() error { return c.Resume("a") }, true},
		} {
			must(t, step.do())
			if got := reaches(t, a); got != step.want {
				t.Errorf("after %s: the client reaches the cluster: %v, want %v", step.what, got, step.want)
			}
		}
		if !errors.Is(g.Err(), client.ErrLost) {
			t.Errorf("the session was expired, the grant says %v", g.Err())
		}
	})
}

// TestPauseDoesNotOutliveItsProcess: what is killed while it is paused starts
// with a network.
func TestPauseDoesNotOutliveItsProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Options{})
		mustClient(t, c, "a")
		for _, name := range []string{"a", "n1"} {
			must(t, c.Pause(name))
		}
		must(t, c.KillClient("a"))
		must(t, c.Kill("n1"))
		must(t, c.Start("n1"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		must(t, c.WaitReady(ctx))
		if !reaches(t, mustClient(t, c, "a")) {
			t.Error("the client does not reach the cluster")
		}
	})
}

func TestNodeThatEndedByItselfCanBeStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Options{})
		leader, err := c.Leader(t.Context())
		must(t, err)
		disk, err := c.Disk(leader)
		must(t, err)
		disk.Fail(errors.New("no space left"), -1)
		n := c.Node(leader)
		if err := mustClient(t, c, "a").Do(t.Context(), "x", func(context.Context, *client.Grant) error { return nil }); err != nil {
			t.Errorf("a failed disk of the leader: %v", err)
		}
		<-n.Done()
		disk.Fail(nil, 0)
		must(t, c.Start(leader))
		must(t, c.WaitReady(t.Context()))
		if v, err := c.Same(t.Context()); v != nil || err != nil {
			t.Error(v, err)
		}
	})
}

// TestALaggingNodeIsNotADifferentOne: a node that is cut off has an old table,
// and that breaks no promise.
func TestALaggingNodeIsNotADifferentOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Options{})
		leader, err := c.Leader(t.Context())
		must(t, err)
		follower := "n1"
		if leader == follower {
			follower = "n2"
		}
		must(t, c.Isolate(follower))
		g, err := mustClient(t, c, "a").Lock(t.Context(), "x")
		must(t, err)
		must(t, g.Unlock())
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if v, err := c.Same(ctx); v != nil || err == nil || !strings.Contains(err.Error(), follower+" at ") {
			t.Errorf("Same with %s cut off: %v, %v, want an error that says how far it is", follower, v, err)
		}
		c.Heal()
		if v, err := c.Same(t.Context()); v != nil || err != nil {
			t.Error(v, err)
		}
	})
}

// TestADifferentTableIsFound changes the table of one node behind its back.
func TestADifferentTableIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Options{})
		g, err := mustClient(t, c, "a").Lock(t.Context(), "x")
		must(t, err)
		must(t, g.Unlock())
		time.Sleep(time.Second)
		snapshot, err := c.nodes[0].machine.Snapshot()
		must(t, err)
		g, err = mustClient(t, c, "a").Lock(t.Context(), "x")
		must(t, err)
		must(t, g.Unlock())
		r, w := io.Pipe()
		go func() {
			_, err := snapshot.(io.WriterTo).WriteTo(w)
			_ = w.CloseWithError(err)
		}()
		must(t, c.nodes[0].machine.Restore(r))
		time.Sleep(time.Second)
		g, err = mustClient(t, c, "a").Lock(t.Context(), "x")
		must(t, err)
		must(t, g.Unlock())
		if v, err := c.Same(t.Context()); v == nil || err != nil {
			t.Errorf("Same: %v, %v, want a violation", v, err)
		}
	})
}

func TestWrongNamesAreErrorsThatSayWhatThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Options{})
		mustClient(t, c, "worker")
		for what, err := range map[string]error{
			"kill":    c.Kill("n4"),
			"isolate": c.Isolate("nobody"),
			"rejoin":  c.Rejoin("nobody"),
			"pause":   c.Pause("nobody"),
			"skew":    c.SkewClock("nobody", 1),
			"cut":     c.Cut("n1", "nobody"),
		} {
			if err == nil || !strings.Contains(err.Error(), "n1, n2, n3") {
				t.Errorf("%s: %v, want an error that lists the nodes", what, err)
			}
		}
		for what, err := range map[string]error{
			"kill client": c.KillClient("n1"),
			"drop":        c.DropNextResponse("nobody"),
			"expire":      c.Expire(t.Context(), "nobody"),
		} {
			if err == nil || !strings.Contains(err.Error(), "worker") {
				t.Errorf("%s: %v, want an error that lists the clients", what, err)
			}
		}
		for _, name := range []string{"", "n1", "a b", "a:1", "10.1.0.1", strings.Repeat("x", 65)} {
			if _, err := c.Client(name); err == nil {
				t.Errorf("a client can be called %q", name)
			}
		}
	})
}
