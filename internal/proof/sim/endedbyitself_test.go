package sim

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestEndIsKnownWhateverIsDoneToTheNodeAfterwards: what a node says after it was
// killed is no such end.
func TestEndIsKnownWhateverIsDoneToTheNodeAfterwards(t *testing.T) {
	defect := errors.New("a defect")
	for what, do := range map[string]func(c *Cluster) error{
		"nothing":   func(*Cluster) error { return nil },
		"kill":      func(c *Cluster) error { return c.Kill("n2") },
		"power off": func(c *Cluster) error { return c.LoseUnsynced("n2") },
		"stop": func(c *Cluster) error {
			if err := c.Stop("n2"); !errors.Is(err, defect) || errors.Is(err, ErrUnclean) {
				t.Errorf("Stop of a node that has ended by itself: %v, want why it did", err)
			}
			return nil
		},
		"start": func(c *Cluster) error { return c.Start("n2") },
		"close": func(c *Cluster) error { return c.Close() },
	} {
		synctest.Test(t, func(t *testing.T) {
			c := start(t, Options{})
			must(t, c.Kill("n1"))
			must(t, c.Start("n1"))
			if all := c.Ended(); len(all) != 0 {
				t.Errorf("after a kill and a start %v have ended by themselves", all)
			}
			disk, err := c.Disk("n2")
			must(t, err)
			disk.Fail(defect, 1)
			a := mustClient(t, c, "a")
			g, err := a.Lock(t.Context(), "x")
			must(t, err)
			must(t, g.Unlock())
			<-c.Node("n2").Done()
			must(t, do(c))
			if all := c.Ended(); len(all) != 1 || all[0].Node != "n2" || !errors.Is(all[0], defect) {
				t.Errorf("%s: %v have ended by themselves, want n2, because of %v", what, all, defect)
			}
		})
	}
}

// TestStopSaysThatANodeDidNotEndInGoodOrder: that it does not run is another
// matter. A pause ends with the node.
func TestStopSaysThatANodeDidNotEndInGoodOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Options{})
		disk, err := c.Disk("n1")
		must(t, err)
		disk.Hang()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := mustClient(t, c, "a").Lock(ctx, "x"); err != nil && ctx.Err() == nil {
			t.Error(err) // it may take longer if n1 leads
		}
		if err := c.Stop("n1"); !errors.Is(err, ErrUnclean) {
			t.Errorf("Stop of a node whose disk hangs: %v, want %v", err, ErrUnclean)
		}
		if err := c.Stop("n1"); err == nil || errors.Is(err, ErrUnclean) {
			t.Errorf("Stop of a node that does not run: %v, want another error than %v", err, ErrUnclean)
		}
		disk.Release()
		must(t, c.Start("n1"))
		must(t, c.WaitReady(t.Context()))
		leader, err := c.Leader(t.Context())
		must(t, err)
		must(t, c.Pause(leader))
		must(t, c.Stop(leader))
		must(t, c.Start(leader))
		must(t, c.WaitReady(t.Context()))
	})
}

// Whoever made a disk hang may be the one that ends another node next, and only then
// releases the disk.
func TestNodeThatOpensOnADiskThatHangsHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Options{})
		disk, err := c.Disk("n1")
		must(t, err)
		must(t, c.Kill("n1"))
		disk.Hang()
		opened := make(chan error, 1)
		go func() { opened <- c.Start("n1") }()
		synctest.Wait()
		must(t, c.Kill("n2"))
		must(t, <-opened)
		must(t, c.Start("n2"))
		must(t, c.WaitReady(t.Context()))
	})
}

func TestCloseHasALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Cluster{start: time.Now()}
		closed := func(after time.Duration, err error) func() error {
			return func() error { time.Sleep(after); return err }
		}
		defect := errors.New("a defect")
		must(t, c.inOrder(closed(closeLimit, nil)))
		for _, err := range []error{c.inOrder(closed(closeLimit+1, nil)), c.inOrder(closed(0, defect)), c.inOrder(closed(closeLimit+1, defect))} {
			if !errors.Is(err, ErrUnclean) {
				t.Errorf("Close that fails or takes too long: %v, want %v", err, ErrUnclean)
			}
		}
	})
}
