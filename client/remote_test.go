package client

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

func TestDialChecksItsArguments(t *testing.T) {
	for name, try := range map[string]func() error{
		"no endpoints": func() error { _, err := Dial(t.Context(), nil); return err },
		"no port":      func() error { _, err := Dial(t.Context(), []string{"localhost"}); return err },
		"no host":      func() error { _, err := Dial(t.Context(), []string{":7400"}); return err },
		"too many":     func() error { _, err := Dial(t.Context(), make([]string, 100)); return err },
		"holder":       func() error { _, err := Dial(t.Context(), []string{"a:1"}, Holder("\xff")); return err },
		"cluster": func() error {
			_, err := Dial(t.Context(), []string{"a:1"}, ClusterID(strings.Repeat("x", maxID+1)))
			return err
		},
		"ttl":           func() error { _, err := Dial(t.Context(), []string{"a:1"}, SessionTTL(-1)); return err },
		"connect limit": func() error { _, err := Dial(t.Context(), []string{"a:1"}, ConnectTimeout(-1)); return err },
	} {
		if err := try(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	_, err := Dial(t.Context(), []string{"one", "two"})
	if !strings.Contains(err.Error(), "one") || !strings.Contains(err.Error(), "two") {
		t.Errorf("error %q does not name both faults", err)
	}
}

func TestRemoteGoesToTheLeader(t *testing.T) {
	r := newRing(t, 3)
	c := r.dial(r.nodes[1:2]) // knows only a follower
	g := mustLock(t, c, "a")
	if held, err := c.IsLocked(t.Context(), "a"); !held || err != nil {
		t.Errorf("IsLocked: %v, %v", held, err)
	}
	mustUnlock(t, g)
	direct, _, _ := r.nodes[0].counts()
	_, forward, _ := r.nodes[1].counts()
	if direct < 4 || forward != 0 {
		t.Errorf("the leader took %d operations, the follower forwarded %d", direct, forward)
	}
}

func TestRemoteSurvivesALeaderChange(t *testing.T) {
	t.Parallel()
	r := newRing(t, 3)
	c, other := r.dial(r.nodes), r.dial(r.nodes)
	g := mustLock(t, c, "a")
	has := make(chan *Grant, 1)
	go func() { has <- mustLock(t, other, "a") }()
	eventually(t, "a waiter", func() bool { return r.cluster.waiters("a") == 1 })

	r.lead(nil)
	r.nodes[0].stop()
	unlocked := make(chan error, 1)
	go func() { unlocked <- g.Unlock() }()
	time.Sleep(100 * time.Millisecond) // there is no leader for a while
	r.lead(r.nodes[2])
	if err := <-unlocked; err != nil {
		t.Errorf("Unlock: %v", err)
	}
	next := <-has
	if r.cluster.holder("a") != next.Token() {
		t.Errorf("holder %d, want %d", r.cluster.holder("a"), next.Token())
	}
	if n := r.cluster.stats(); n.Grants != 1 || n.LastToken != 2 {
		t.Errorf("%d grants, last token %d, want 1 and 2", n.Grants, n.LastToken)
	}
	mustUnlock(t, next)

	// The other way round: leadership moves, and both nodes run.
	r.nodes[0].start()
	mustUnlock(t, mustLock(t, c, "a"))
	r.lead(r.nodes[0])
	before, _, _ := r.nodes[0].counts()
	eventually(t, "the new leader is used", func() bool {
		mustUnlock(t, mustLock(t, c, "a"))
		after, _, _ := r.nodes[0].counts()
		return after >= before+2
	})
}

func TestRemoteLeavesANodeThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	r := newRing(t, 3)
	c := r.dial(r.nodes)
	mustUnlock(t, mustLock(t, c, "a"))
	r.nodes[0].setMute(true)
	r.lead(r.nodes[1])
	begin := time.Now()
	mustUnlock(t, mustLock(t, c, "a"))
	if d := time.Since(begin); d > 6*time.Second {
		t.Errorf("it took %v to leave it", d)
	}
}

func TestRemoteIsForwardedWhenTheLeaderCannotBeReached(t *testing.T) {
	t.Parallel()
	r := newRing(t, 2)
	c := r.dial(r.nodes[1:])
	r.show("127.0.0.1:1") // without a listener
	g := mustLock(t, c, "a")
	if _, forward, _ := r.nodes[1].counts(); forward == 0 {
		t.Error("the follower has forwarded nothing")
	}
	has := make(chan *Grant, 1)
	go func() { has <- mustLock(t, c, "a") }()
	eventually(t, "a waiter", func() bool { return r.cluster.waiters("a") == 1 })
	r.show("")
	eventually(t, "the leader is found", func() bool {
		direct, _, _ := r.nodes[0].counts()
		_, err := c.IsLocked(t.Context(), "x")
		return direct > 0 && err == nil
	})
	mustUnlock(t, g)
	mustUnlock(t, <-has)
}

// Followers report a leader that was deposed until there is another. It answers and does not
// lead, so that no node should forward: calls that are forwarded to it would wait there.
func TestNoNodeForwardsToALeaderThatWasDeposed(t *testing.T) {
	t.Parallel()
	r := newRing(t, 3)
	c := r.dial(r.nodes)
	mustUnlock(t, mustLock(t, c, "a"))
	r.show(r.nodes[0].addr)
	r.lead(nil)
	has := make(chan *Grant, 1)
	go func() { has <- mustLock(t, c, "a") }()
	time.Sleep(300 * time.Millisecond) // there is no leader for a while
	r.lead(r.nodes[1])
	mustUnlock(t, <-has)
	for _, n := range r.nodes {
		if _, forward, _ := n.counts(); forward != 0 {
			t.Errorf("%s was asked to forward %d operations", n.addr, forward)
		}
	}
}

func TestBriefStreamsAreOpenedAtGrowingIntervals(t *testing.T) {
	t.Parallel()
	r := newRing(t, 1)
	n := r.nodes[0]
	n.mu.Lock()
	n.breaks = true
	n.mu.Unlock()
	c := r.dial(r.nodes)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := c.Lock(ctx, "a")
	wantErr(t, "Lock", err, context.DeadlineExceeded)
	n.mu.Lock()
	streams := n.streams
	n.breaks = false
	n.mu.Unlock()
	if streams < 4 || streams > 20 {
		t.Errorf("%d streams in two seconds, want a few", streams)
	}
	mustUnlock(t, mustLock(t, c, "a"))
}

func TestErrorHasTheEndpointsThatWereTried(t *testing.T) {
	// Not parallel: a node of another test could listen where the one that is stopped did.
	r := newRing(t, 2)
	r.nodes[0].stop()
	r.lead(nil)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	c := r.dial(r.nodes)
	_, err := c.Lock(ctx, "a")
	wantErr(t, "Lock", err, ErrUnavailable)
	wantErr(t, "Lock", err, context.DeadlineExceeded)
	for _, want := range []string{r.nodes[0].addr, r.nodes[1].addr, "refused", "knows no leader"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not mention %q", err, want)
		}
	}
	if code := apiv1.CodeOf(err); code.ExitCode() != 69 {
		t.Errorf("code %v, exit code %d, want 69", code, code.ExitCode())
	}
}

func TestConnectTimeoutEndsOperationsThatReachNoNode(t *testing.T) {
	t.Parallel()
	r := newRing(t, 2)
	c := r.dial(r.nodes, ConnectTimeout(500*time.Millisecond))
	g := mustLock(t, c, "a")
	r.lead(nil)
	for name, try := range map[string]func() error{
		"IsLocked": func() error { _, err := c.IsLocked(t.Context(), "a"); return err },
		"Lock":     func() error { _, err := c.Lock(t.Context(), "b"); return err },
		"Acquire":  func() error { _, err := c.Detached().Acquire(t.Context(), "b", time.Minute); return err },
	} {
		begin := time.Now()
		err := try()
		wantErr(t, name, err, ErrUnavailable)
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v is the end of a context", name, err)
		}
		if d := time.Since(begin); d < 500*time.Millisecond || d > 5*time.Second {
			t.Errorf("%s: took %v, want 500ms", name, d)
		}
	}
	// A wait that is given up after it was queued leaves the queue.
	r.lead(r.nodes[0])
	gone := make(chan error, 1)
	go func() { _, err := c.Lock(t.Context(), "a"); gone <- err }()
	eventually(t, "a waiter", func() bool { return r.cluster.waiters("a") == 1 })
	r.nodes[0].stop()
	r.lead(nil)
	wantErr(t, "Lock", <-gone, ErrUnavailable)
	// A release is not given up.
	if err := g.Unlock(); err != nil {
		t.Errorf("Unlock: %v", err)
	}
	r.lead(r.nodes[1])
	eventually(t, "the release", func() bool { return r.cluster.holder("a") == 0 })
	eventually(t, "no wait and no grant is left of the calls that were given up", func() bool {
		s := r.cluster.stats()
		return s.Grants == 0 && s.Waiters == 0
	})
}

func TestConnectTimeoutOfTheFirstLock(t *testing.T) {
	t.Parallel()
	r := newRing(t, 1)
	r.lead(nil)
	c := r.dial(r.nodes, ConnectTimeout(300*time.Millisecond))
	for range 2 {
		_, err := c.Lock(t.Context(), "a")
		wantErr(t, "Lock", err, ErrUnavailable)
	}
	r.lead(r.nodes[0])
	mustUnlock(t, mustLock(t, c, "a"))
}

// A wait may be over while the session is still being opened.
func TestWaitThatIsOverBeforeThereIsASessionIsATimeout(t *testing.T) {
	t.Parallel()
	r := newRing(t, 1)
	c := r.dial(r.nodes)
	if _, err := c.IsLocked(t.Context(), "a"); err != nil { // it is connected
		t.Fatal(err)
	}
	r.nodes[0].setMute(true)
	_, err := c.Lock(t.Context(), "a", Wait(100*time.Millisecond))
	wantErr(t, "Lock", err, ErrTimeout)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = c.Lock(ctx, "a")
	wantErr(t, "Lock with a deadline", err, ErrTimeout)
	wantErr(t, "Lock with a deadline", err, context.DeadlineExceeded)
}

func TestStaleReadsNeedNoLeader(t *testing.T) {
	t.Parallel()
	r := newRing(t, 2)
	r.nodes[0].stop()
	r.lead(nil)
	c := r.dial(r.nodes)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	info, err := c.Get(t.Context(), "a", Stale(5*time.Second))
	if err != nil || !info.Held() || info.Age != time.Second {
		t.Errorf("stale Get: %+v, %v", info, err)
	}
	_, err = c.Get(ctx, "a")
	wantErr(t, "linearizable Get", err, ErrUnavailable)
}

func TestForcedReleaseIsPushedOverAnyStream(t *testing.T) {
	r := newRing(t, 2)
	c, admin := r.dial(r.nodes), r.dial(r.nodes, Holder("root"))
	for _, leader := range []*testNode{r.nodes[0], r.nodes[1]} {
		r.lead(leader)
		begin := time.Now()
		g := mustLock(t, c, "a")
		eventually(t, "the node knows the session", func() bool {
			r.cluster.mu.Lock()
			defer r.cluster.mu.Unlock()
			return r.cluster.watchers[g.s.id] != nil
		})
		if d := time.Since(begin); d > 3*time.Second {
			t.Errorf("a new node knew the session after %v; the next keep-alive is due after 3.3s", d)
		}
		if _, err := admin.ForceRelease(t.Context(), "a", g.Token(), "test"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-g.Lost():
		case <-time.After(10 * time.Second):
			t.Fatal("the grant of the holder is not lost")
		}
		var lost *LostError
		if !errors.As(g.Err(), &lost) || lost.Who != "root" {
			t.Errorf("Err is %v", g.Err())
		}
	}
}

func TestCloseEndsQueuedCalls(t *testing.T) {
	r := newRing(t, 1)
	r.nodes[0].stop()
	c := r.dial(r.nodes)
	errs := make(chan error, 3)
	go func() { _, err := c.Lock(t.Context(), "a"); errs <- err }()
	go func() { _, err := c.IsLocked(t.Context(), "a"); errs <- err }()
	go func() { _, err := c.Detached().Acquire(t.Context(), "a", time.Minute); errs <- err }()
	eventually(t, "the read and the opening of a session are queued", func() bool {
		b := c.backend.(*remote)
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.queue) == 2
	})
	go func() { _ = c.Close() }()
	for range 3 {
		wantErr(t, "operation under way", <-errs, ErrClosed)
	}
	_ = c.Close()
	_, err := c.Status(t.Context())
	wantErr(t, "Status", err, ErrClosed)
}

func TestOperatorCalls(t *testing.T) {
	r := newRing(t, 3)
	c := r.dial(r.nodes[1:])
	r.nodes[1].stop()
	status, err := c.Status(t.Context())
	if err != nil || status.NodeID != r.nodes[2].addr {
		t.Errorf("Status: %v, %v; want the one that runs", status, err)
	}
	members, err := c.Members(t.Context())
	if err != nil || len(members) != 3 {
		t.Errorf("Members: %v, %v", members, err)
	}
	if err := c.RemoveMember(t.Context(), "known"); err != nil {
		t.Errorf("RemoveMember: %v", err) // the follower names the leader
	}
	if err := c.RemoveMember(t.Context(), "unknown"); apiv1.CodeOf(err) != apiv1.CodeNoMember {
		t.Errorf("RemoveMember of an unknown ID: %v", err)
	}
	wantErr(t, "RemoveMember of an empty ID", c.RemoveMember(t.Context(), ""), ErrInvalid)
	if leader, err := c.TransferLeadership(t.Context(), ""); err != nil || leader == "" {
		t.Errorf("TransferLeadership: %q, %v", leader, err)
	}
	r.nodes[2].stop()
	_, err = c.Status(t.Context())
	wantErr(t, "Status without a node", err, ErrUnavailable)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Members(ctx)
	wantErr(t, "Members", err, context.Canceled)
}
