package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
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
			t.Error("the session of a closed client has not ended")
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

// operations are all calls of a client, by name.
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
		"ForceRelease": func(ctx context.Context) error { _, err := c.ForceRelease(ctx, "x", 1, ""); return err },
		"Resize":       func(ctx context.Context) error { return c.Resize(ctx, "x", 1) },
		"IsLocked":     func(ctx context.Context) error { _, err := c.IsLocked(ctx, "x"); return err },
		"List":         func(ctx context.Context) error { _, err := c.List(ctx, "", ListOptions{}); return err },
	}
}

// TestClosedClientReturnsErrClosed: from every call, whatever the caller's context is.
func TestClosedClientReturnsErrClosed(t *testing.T) {
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

// TestEndOfTheNodeEndsOperationsOfItsClients: its clients have no other node.
func TestEndOfTheNodeEndsOperationsOfItsClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		mustLock(t, k.client(t), "x")
		g := mustLock(t, c, "a")
		ctx, lost := g.Context(), g.Lost()
		failed := make(map[string]chan error)
		for name, ask := range operations(c) {
			if name == "Lock" || name == "waiting Acquire" {
				ended := make(chan error, 1)
				failed[name] = ended
				go func() { ended <- ask(context.Background()) }()
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
			select {
			case err := <-err:
				wantErr(t, name, err, ErrClosed)
			case <-time.After(time.Second):
				t.Fatalf("%s goes on, and the node has ended", name)
			}
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

// TestCloseCutShortByTheNodeReturnsAnError: the node ends while the client is being closed.
func TestCloseCutShortByTheNodeReturnsAnError(t *testing.T) {
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

// TestCloseReleasesGrantsThatNoCallerGot closes clients at any moment of detached
// acquires: a lock is held afterwards if and only if its grant was returned to a caller.
func TestCloseReleasesGrantsThatNoCallerGot(t *testing.T) {
	var returned, released int
	for seed := range uint64(400) {
		synctest.Test(t, func(t *testing.T) {
			got, left := closeAtAnyMoment(t, rand.New(rand.NewPCG(seed, 3)))
			returned += got
			released += left
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d grants were returned, and %d were given by the cluster and not returned", returned, released)
	if returned < 50 || released < 50 {
		t.Error("the test does not test much")
	}
}

func closeAtAnyMoment(t *testing.T, random *rand.Rand) (returned, released int) {
	k := newCluster(t)
	c, other := k.client(t), k.client(t)
	var mu sync.Mutex // guards what follows
	upTo := func(n int64) int64 {
		mu.Lock()
		defer mu.Unlock()
		return random.Int64N(n)
	}
	// Few moments, so that many things happen at the same one.
	millis := func(n int64) time.Duration { return time.Duration(upTo(n)) * time.Millisecond }
	got := map[uint64]string{} // token → lock
	k.fault(func(*apiv1.Operation) fate { return fate{delayAnswer: millis(10)} })
	blocked := mustLock(t, other, "blocked")
	mustUnlock(t, mustLock(t, c, "open")) // there is a session
	time.AfterFunc(millis(30), func() { _ = blocked.Unlock() })

	names := []string{"a", "b", "blocked"}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			time.Sleep(millis(20))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if upTo(4) == 0 {
				time.AfterFunc(millis(20), cancel)
			}
			g, err := c.Detached().Acquire(ctx, names[i%3], time.Minute, Wait(time.Duration(upTo(2))*time.Minute))
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			got[g.Token] = g.Name
		})
	}
	time.Sleep(millis(40))
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	wg.Wait()
	time.Sleep(time.Second)
	for _, name := range names {
		if token := k.holder(name); token != 0 && token != blocked.Token() && got[token] != name {
			t.Errorf("%q is held with token %d, which was not returned; returned were %v", name, token, got)
		}
		if n := k.waiters(name); n != 0 {
			t.Errorf("%d wait for %q", n, name)
		}
	}
	for token, name := range got {
		if k.holder(name) != token {
			t.Errorf("token %d of %q was returned, and %d holds it", token, name, k.holder(name))
		}
	}
	const others = 2 // "blocked" of the other client and "open"
	return len(got), int(k.stats().LastToken) - others - len(got)
}

// TestDelayAfterLossOutlastsClose: a holder that has not unlocked has lost the lock, and
// what it has sent may arrive later.
func TestDelayAfterLossOutlastsClose(t *testing.T) {
	const delay = 20 * time.Second
	for how, faults := range map[string]func(*apiv1.Operation) fate{
		"nothing goes wrong":        nil,
		"the release comes late":    first[*apiv1.Operation_Release](fate{loseRequest: true}),
		"its answer is lost":        first[*apiv1.Operation_Release](fate{loseAnswer: true}),
		"it is refused once":        first[*apiv1.Operation_Release](fate{refuse: apiv1.NewError(apiv1.CodeLimit, "no room")}),
		"the release never comes":   every[*apiv1.Operation_Release](fate{loseRequest: true}),
		"the session's end is lost": first[*apiv1.Operation_EndSession](fate{loseRequest: true}),
	} {
		for _, lostBefore := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				k := newCluster(t)
				c := k.client(t)
				mustLock(t, c, "plain")
				mustLock(t, c, "b", DelayAfterLoss(delay))
				if lostBefore { // and it is released as lost while the client is closed
					mustLock(t, c, "a", DelayAfterLoss(delay), TTL(2*time.Second))
				} else {
					mustLock(t, c, "a", DelayAfterLoss(delay))
				}
				unlocked := mustLock(t, c, "c", DelayAfterLoss(delay))
				mustUnlock(t, unlocked)
				k.fault(faults)
				if lostBefore {
					time.Sleep(1975 * time.Millisecond)
				}
				begin := time.Now()
				_ = c.Close()
				if d := time.Since(begin); d > closeWait {
					t.Errorf("%s: Close took %v", how, d)
				}
				other := k.client(t)
				for _, name := range []string{"a", "b"} {
					mustLock(t, other, name)
					if d := time.Since(begin); d < delay-10*time.Millisecond || d > delay+12*time.Second {
						t.Errorf("%s: the next one got %q %v after Close, in spite of a delay of %v", how, name, d, delay)
					}
				}
				if _, err := other.TryLock(t.Context(), "c"); err != nil {
					t.Errorf("%s: a lock that was unlocked: %v", how, err)
				}
			})
		}
	}
}

// TestAnswerThatComesDuringCloseIsNotReturned: the answer has arrived before Close, and its
// caller runs after it.
func TestAnswerThatComesDuringCloseIsNotReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		c := k.client(t)
		mustUnlock(t, mustLock(t, c, "open"))
		s, q := current(c), request{what: what{"acquire", "a"}, try: true, detached: true}
		q.ttl = time.Minute
		a := newAcquiring(c, &q)
		if err := s.begin(a); err != nil {
			t.Fatal(err)
		}
		c.send(&a.op)
		answer := <-a.answers
		if k.holder("a") != answer.GetAcquire().GetToken() {
			t.Fatalf("the answer is %v", answer)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := s.answered(t.Context(), t.Context(), &q, a, answer); !errors.Is(err, errAgain) {
			t.Errorf("the caller gets %+v, %v, and the lock is held by %d", got.detached, err, k.holder("a"))
		}
		if k.holder("a") != 0 {
			t.Error("the lock is held by a grant that no caller has")
		}
	})
}
