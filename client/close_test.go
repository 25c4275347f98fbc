package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestCloseReleasesEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		a := mustLock(t, c, "a")
		mustLock(t, c, "b")
		blocked := mustLock(t, k.client(t), "c")
		failed := make(chan error, 1)
		go func() {
			_, err := c.Lock(t.Context(), "c")
			failed <- err
		}()
		time.Sleep(time.Second)
		begin := time.Now()
		if err := c.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
		if d := time.Since(begin); d > 10*time.Millisecond {
			t.Errorf("Close took %v", d)
		}
		wantErr(t, "waiting Lock", <-failed, ErrClosed)
		s := k.stats()
		if s.Grants != 1 || s.Waiters != 0 || s.Sessions != 1 {
			t.Errorf("left: %+v, want only the other client's", s)
		}
		var lost *LostError
		if err := a.Unlock(); !errors.As(err, &lost) || lost.Reason != LostClosed {
			t.Errorf("Unlock after Close: %v, want a loss by close", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		_, err := c.Lock(t.Context(), "a")
		wantErr(t, "Lock", err, ErrClosed)
		_, err = c.IsLocked(t.Context(), "a")
		wantErr(t, "IsLocked", err, ErrClosed)
		mustUnlock(t, blocked)
	})
}

func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		mustLock(t, c, "a")
		reads := make(chan error, 1)
		k.setDown(true)
		go func() {
			_, err := c.IsLocked(t.Context(), "a")
			reads <- err
		}()
		locks := make(chan error, 1)
		go func() {
			_, err := c.Lock(t.Context(), "b")
			locks <- err
		}()
		time.Sleep(time.Second)
		begin := time.Now()
		wantErr(t, "Close", c.Close(), ErrUnavailable)
		if d := time.Since(begin); d != closeWait {
			t.Errorf("Close took %v, want %v", d, closeWait)
		}
		wantErr(t, "read under way", <-reads, ErrClosed)
		wantErr(t, "Lock under way", <-locks, ErrClosed)
		k.mu.Lock()
		for _, call := range k.waiting {
			if !call.Abandoned() {
				t.Errorf("%v is still on its way", call.Op)
			}
		}
		k.mu.Unlock()
		k.setDown(false)
		time.Sleep(11 * time.Second)
		if k.holder("a") != 0 {
			t.Error("the session of a closed client lives on")
		}
	})
}

func TestCloseOfAnUnusedClientSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		k.setDown(true)
		c := k.client(t)
		begin := time.Now()
		if err := c.Close(); err != nil || time.Since(begin) != 0 {
			t.Errorf("Close: %v after %v", err, time.Since(begin))
		}
	})
}

// operations are all that a client can be asked, by name.
func operations(c *Client) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Lock":    func(ctx context.Context) error { _, err := c.Lock(ctx, "x"); return err },
		"TryLock": func(ctx context.Context) error { _, err := c.TryLock(ctx, "x"); return err },
		"Do": func(ctx context.Context) error {
			return c.Do(ctx, "x", func(context.Context, *Grant) error { return nil })
		},
		"Acquire": func(ctx context.Context) error {
			_, err := c.Detached().Acquire(ctx, "x", time.Minute)
			return err
		},
		"waiting Acquire": func(ctx context.Context) error {
			_, err := c.Detached().Acquire(ctx, "x", time.Minute, Wait(time.Minute))
			return err
		},
		"Renew":        func(ctx context.Context) error { _, err := c.Detached().Renew(ctx, "x", 1, time.Minute); return err },
		"Release":      func(ctx context.Context) error { return c.Detached().Release(ctx, "x", 1) },
		"ForceRelease": func(ctx context.Context) error { return c.ForceRelease(ctx, "x", 1, "") },
		"IsLocked":     func(ctx context.Context) error { _, err := c.IsLocked(ctx, "x"); return err },
		"List":         func(ctx context.Context) error { _, err := c.List(ctx, "", ListOptions{}); return err },
	}
}

// TestClosedClientSaysSo: whatever is asked, and however the caller's context is.
func TestClosedClientSaysSo(t *testing.T) {
	for how, end := range map[string]func(*cluster, *Client){
		"closed":      func(_ *cluster, c *Client) { _ = c.Close() },
		"node ended":  func(k *cluster, _ *Client) { k.stop() },
		"both":        func(k *cluster, c *Client) { k.stop(); _ = c.Close() },
		"close, then": func(k *cluster, c *Client) { _ = c.Close(); k.stop() },
	} {
		synctest.Test(t, func(t *testing.T) {
			k := newCluster(t)
			c := k.client(t)
			mustUnlock(t, mustLock(t, c, "a")) // there is a session
			end(k, c)
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			for name, ask := range operations(c) {
				for range 10 {
					for _, ctx := range []context.Context{t.Context(), gone} {
						begin := time.Now()
						if err := ask(ctx); !errors.Is(err, ErrClosed) || errors.Is(err, ErrUnavailable) {
							t.Fatalf("%s: %s: %v, want ErrClosed alone", how, name, err)
						}
						if d := time.Since(begin); d > 0 {
							t.Fatalf("%s: %s took %v", how, name, d)
						}
					}
				}
			}
		})
	}
}

// TestEndOfTheNodeEndsWhatItsClientsDo: its clients can ask nobody else.
func TestEndOfTheNodeEndsWhatItsClientsDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		mustLock(t, k.client(t), "x")
		g := mustLock(t, c, "a")
		ctx, lost := g.Context(), g.Lost()
		failed := make(map[string]chan error)
		for name, ask := range operations(c) {
			if name == "Lock" || name == "waiting Acquire" {
				failed[name] = make(chan error, 1)
				go func() { failed[name] <- ask(context.Background()) }()
			}
		}
		time.Sleep(time.Second)
		k.setDown(true) // so that reads are not answered
		read := make(chan error, 1)
		failed["IsLocked"] = read
		go func() { _, err := c.IsLocked(context.Background(), "a"); read <- err }()
		time.Sleep(time.Second)

		begin := time.Now()
		k.stop()
		<-lost
		<-ctx.Done()
		for name, err := range failed {
			wantErr(t, name, <-err, ErrClosed)
		}
		var why *LostError
		if !errors.As(g.Unlock(), &why) || why.Reason != LostClosed {
			t.Errorf("Unlock: %v, want that the node has ended", g.Unlock())
		}
		if err := c.Close(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("Close: %v, want ErrUnavailable: the lock is held for the session's TTL", err)
		}
		if d := time.Since(begin); d > 0 {
			t.Errorf("it took %v, want nothing", d)
		}
	})
}

// TestCloseThatTheNodeCutsShortSaysSo: the node ends while the client is being closed.
func TestCloseThatTheNodeCutsShortSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		mustLock(t, c, "a")
		k.setDown(true)
		time.AfterFunc(time.Second, k.stop)
		begin := time.Now()
		wantErr(t, "Close", c.Close(), ErrUnavailable)
		if d := time.Since(begin); d != time.Second {
			t.Errorf("Close took %v, want 1s: until the node had ended", d)
		}
		if !ended(c.Done()) {
			t.Error("Done is not closed")
		}
	})
}
