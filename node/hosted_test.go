package node_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/sim"
)

// world is a cluster of three in virtual time, with callers that have no session: they
// make unary calls.
type world struct {
	t         *testing.T
	c         *sim.Cluster
	conns     map[string]*grpc.ClientConn
	leader    string
	followers []string
}

func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		c, err := sim.New(ctx, sim.Options{})
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, c: c, conns: map[string]*grpc.ClientConn{}}
		t.Cleanup(func() {
			for _, cc := range w.conns {
				_ = cc.Close()
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		w.lookAround()
		f(w)
	})
}

// lookAround notes who leads.
func (w *world) lookAround() {
	w.t.Helper()
	leader, err := w.c.Leader(w.t.Context())
	w.must(err)
	w.leader, w.followers = leader, nil
	for _, name := range w.c.Nodes() {
		if name != leader {
			w.followers = append(w.followers, name)
		}
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// at returns the API of a node, over a new connection.
func (w *world) at(node string) apiv1.LocksClient {
	w.t.Helper()
	if w.conns[node] == nil {
		cc, err := w.c.Conn("caller", node)
		w.must(err)
		w.conns[node] = cc
	}
	return apiv1.NewLocksClient(w.conns[node])
}

// request is an acquire without a session; id is a request ID, or empty.
func request(name, holder string, ttl, wait time.Duration, id string) *apiv1.AcquireRequest {
	r := &apiv1.AcquireRequest{Locks: []*apiv1.Want{{Name: name}}, TtlNs: int64(ttl), WaitNs: int64(wait), Holder: holder}
	if id != "" {
		r.Id = &apiv1.RequestID{Once: fmt.Appendf(nil, "%-16s", id)}
	}
	return r
}

// take acquires a lock that is free.
func (w *world) take(node string, r *apiv1.AcquireRequest) uint64 {
	w.t.Helper()
	a, err := w.at(node).Acquire(w.t.Context(), r)
	w.must(err)
	return a.GetToken()
}

func (w *world) free(node, name string, token uint64) {
	w.t.Helper()
	_, err := w.at(node).Release(w.t.Context(), &apiv1.ReleaseRequest{Name: name, Token: token})
	w.must(err)
}

func (w *world) get(node, name string) *apiv1.Lock {
	w.t.Helper()
	a, err := w.at(node).Get(w.t.Context(), &apiv1.GetRequest{Name: name})
	w.must(err)
	return a.GetLock()
}

// holder returns the holder of a lock, empty if there is none.
func (w *world) holder(node, name string) string {
	w.t.Helper()
	if h := w.get(node, name).GetHolders(); len(h) > 0 {
		return h[0].GetHolder()
	}
	return ""
}

// waiting is a call under way.
type waiting struct {
	cancel context.CancelFunc
	done   chan struct{}
	token  uint64
	err    error
	took   time.Duration
}

func (w *waiting) code() apiv1.Code { return apiv1.CodeOf(w.err) }

func (w *waiting) over() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// wait sends an acquire, and returns when it had time to reach the table.
func (w *world) wait(node string, r *apiv1.AcquireRequest) *waiting {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	p := &waiting{cancel: cancel, done: make(chan struct{})}
	api, begun := w.at(node), time.Now()
	go func() {
		defer close(p.done)
		a, err := api.Acquire(ctx, r)
		p.token, p.err, p.took = a.GetToken(), err, time.Since(begun)
	}()
	w.t.Cleanup(cancel)
	time.Sleep(100 * time.Millisecond)
	return p
}

// stands checks how many wait for a lock.
func (w *world) stands(node, name string, waiters int, when string) {
	w.t.Helper()
	if got := w.get(node, name).GetWaiters(); got != uint32(waiters) {
		w.t.Fatalf("%d wait for %s %s, want %d", got, name, when, waiters)
	}
}

// TestLateCopyOfATryTakesNothingAway: a node is paused, its caller gives up after 0.3 s and
// retries through another node under the same request ID, which grants the lock. Then the
// first try arrives, and its caller is gone.
func TestLateCopyOfATryTakesNothingAway(t *testing.T) {
	inWorld(t, func(w *world) {
		for i := range 5 {
			name := fmt.Sprintf("x%d", i)
			late, other := w.followers[0], w.followers[1]
			w.free(late, "warm", w.take(late, request("warm", "", time.Minute, 0, ""))) // its session is open
			w.must(w.c.Pause(late))
			first := w.wait(late, request(name, "me", time.Minute, 0, name))
			time.Sleep(200 * time.Millisecond)
			first.cancel()
			<-first.done
			token := w.take(other, request(name, "me", time.Minute, 0, name))
			w.must(w.c.Resume(late))
			time.Sleep(10 * time.Second)
			if h := w.get(other, name).GetHolders(); len(h) != 1 || h[0].GetToken() != token {
				t.Errorf("10 s after the late try arrived %s is held by %v, want the caller with token %d", name, h, token)
			}
			w.free(other, name, token)
			w.lookAround()
		}
	})
}

// left returns the TTL that was left at the time of the answer.
func left(a *apiv1.Answer) time.Duration {
	got := a.GetAcquire()
	return time.Duration(got.GetDeadline() - max(got.GetGranted(), a.GetStamp()))
}

// ask sends an acquire in a batch, whose answer has a stamp.
func (w *world) ask(node string, r *apiv1.AcquireRequest) *apiv1.Answer {
	w.t.Helper()
	res, err := w.at(node).Batch(w.t.Context(), &apiv1.BatchRequest{Operations: []*apiv1.Operation{{Request: &apiv1.Operation_Acquire{Acquire: r}}}})
	w.must(err)
	return res.GetAnswers()[0]
}

func TestARepeatIsAnsweredAsOfNow(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.followers[0], w.leader
		mine := func() *apiv1.AcquireRequest { return request("x", "one", 10*time.Second, 0, "r-1") }
		first := w.ask(a, mine())
		if got := left(first); got != 10*time.Second {
			t.Errorf("%v are left at first, want 10 s", got)
		}
		time.Sleep(8 * time.Second)
		again := w.ask(b, mine())
		if got := left(again); got > 2100*time.Millisecond || got < 1900*time.Millisecond || again.GetAcquire().GetToken() != first.GetAcquire().GetToken() {
			t.Errorf("after 8 s the repeat is answered %v, with %v left; want the same token and 2 s", again, got)
		}
		time.Sleep(3 * time.Second)
		other := w.take(b, request("x", "two", time.Minute, 0, ""))
		for range 2 {
			e := w.ask(a, mine()).GetError()
			if apiv1.Code(e.GetCode()) != apiv1.CodeNotHeld || !strings.Contains(e.GetMessage(), fmt.Sprint(first.GetAcquire().GetToken())) || !strings.Contains(e.GetMessage(), "new ID") {
				t.Errorf("after its end the repeat is answered %v, want not_held, the token and what to do", e)
			}
		}
		w.free(a, "x", other)
		freed := w.take(a, request("x", "three", time.Minute, 0, "r-2"))
		w.free(b, "x", freed)
		if e := w.ask(a, request("x", "three", time.Minute, 0, "r-2")).GetError(); apiv1.Code(e.GetCode()) != apiv1.CodeNotHeld {
			t.Errorf("the repeat of a request whose grant was released is answered %v, want not_held", e)
		}
	})
}

func TestARefusalIsNotRememberedAgainstTheNextTry(t *testing.T) {
	inWorld(t, func(w *world) {
		node := w.followers[0]
		token := w.take(node, request("x", "alice", time.Minute, 0, ""))
		try := func(wait time.Duration) error {
			_, err := w.at(node).Acquire(w.t.Context(), request("x", "bob", time.Minute, wait, "r-1"))
			return err
		}
		if err := try(0); apiv1.CodeOf(err) != apiv1.CodeBusy {
			t.Errorf("a try while it is held: %v, want busy", err)
		}
		for range 2 {
			begun := time.Now()
			err := try(2 * time.Second)
			if took := time.Since(begun); apiv1.CodeOf(err) != apiv1.CodeTimeout || took < 2*time.Second || took > 3*time.Second {
				t.Errorf("a wait of 2 s ended with %v after %v", err, took)
			}
			if e := apiv1.AsError(err); len(e.GetHolders()) != 1 || e.GetHolders()[0].GetHolder() != "alice" {
				t.Errorf("a wait that timed out: %v, want it to name the holder", e)
			}
		}
		if _, err := w.at(node).Acquire(w.t.Context(), request("y", "bob", time.Minute, 0, "r-1")); err != nil {
			t.Errorf("after refusals the ID is free for another lock: %v", err)
		}
		w.free(node, "x", token)
		if _, err := w.at(node).Acquire(w.t.Context(), request("x", "bob", time.Minute, 0, "r-1")); apiv1.CodeOf(err) != apiv1.CodeInvalid || !strings.Contains(err.Error(), "locks") {
			t.Errorf("the ID of a grant of y for x: %v, want invalid and the field", err)
		}
	})
}

func TestAWaiterWhoHangsUpHoldsNothingLater(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, node := range []string{w.leader, w.followers[0]} {
			token := w.take(node, request("x", "holder", time.Hour, 0, ""))
			gone := w.wait(node, request("x", "gone", time.Hour, 10*time.Minute, ""))
			w.stands(node, "x", 1, "at first")
			gone.cancel()
			time.Sleep(100 * time.Millisecond)
			w.stands(node, "x", 0, "after the waiter hung up")
			// The grant is on its way to the caller when that hangs up.
			gone = w.wait(node, request("x", "gone", time.Hour, 10*time.Minute, ""))
			go func() {
				_, _ = w.at(node).Release(w.t.Context(), &apiv1.ReleaseRequest{Name: "x", Token: token})
			}()
			gone.cancel()
			time.Sleep(100 * time.Millisecond)
			if h := w.holder(node, "x"); h != "" {
				t.Errorf("through %s: the lock is held by %q, who has hung up", node, h)
			}
		}
	})
}

func TestARepeatFindsItsPlaceThroughAnotherNode(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.followers[0], w.followers[1]
		token := w.take(a, request("x", "holder", time.Hour, 0, ""))
		first := w.wait(a, request("x", "named", time.Minute, 10*time.Minute, "r-1"))
		behind := w.wait(w.leader, request("x", "behind", time.Minute, 10*time.Minute, ""))
		first.cancel() // as if a proxy had cut it off
		time.Sleep(3 * time.Second)
		w.stands(b, "x", 2, "3 s after the first one was cut off")
		again := w.wait(b, request("x", "named", time.Minute, 10*time.Minute, "r-1"))
		time.Sleep(10 * time.Second) // the first try has been cancelled
		w.stands(b, "x", 2, "when the repeat waits")
		w.free(b, "x", token)
		time.Sleep(100 * time.Millisecond)
		if !again.over() || again.err != nil || behind.over() {
			t.Fatalf("the repeat: over %v, %v; the one behind it: over %v; want its grant and a wait", again.over(), again.err, behind.over())
		}
		time.Sleep(20 * time.Second)
		if h := w.holder(b, "x"); h != "named" {
			t.Errorf("20 s later the lock is held by %q", h)
		}
		w.free(a, "x", again.token)
		<-behind.done
		w.must(behind.err)
	})
}

func TestAPlaceInTheQueueWithoutARetryIsGivenUp(t *testing.T) {
	inWorld(t, func(w *world) {
		node := w.followers[0]
		token := w.take(node, request("x", "holder", time.Hour, 0, ""))
		first := w.wait(node, request("x", "named", time.Hour, 10*time.Minute, "r-1"))
		first.cancel()
		time.Sleep(4 * time.Second)
		w.stands(node, "x", 1, "after 4 s")
		w.free(node, "x", token) // and so it is granted, and no caller knows
		time.Sleep(100 * time.Millisecond)
		if h := w.holder(node, "x"); h != "named" {
			t.Errorf("held by %q, want the caller that may retry", h)
		}
		time.Sleep(2 * time.Second)
		if h := w.holder(node, "x"); h != "" {
			t.Errorf("6 s after the caller has gone the lock is held by %q", h)
		}
	})
}

// TestARefusedWaiterDoesNotGetTheLockLater: the majority is down for longer than the node
// waits for it.
func TestARefusedWaiterDoesNotGetTheLockLater(t *testing.T) {
	inWorld(t, func(w *world) {
		node, other := w.followers[0], w.followers[1]
		token := w.take(w.leader, request("x", "holder", 10*time.Minute, 0, ""))
		unnamed := w.wait(node, request("x", "unnamed", 20*time.Second, 10*time.Minute, ""))
		named := w.wait(node, request("x", "named", 20*time.Second, 10*time.Minute, "r-1"))
		w.stands(node, "x", 2, "at first")
		w.must(w.c.Kill(w.leader))
		w.must(w.c.Kill(other))
		<-unnamed.done
		<-named.done
		if unnamed.code() != apiv1.CodeUnavailable || unnamed.took > 10*time.Second || named.code() != apiv1.CodeUnavailable {
			t.Errorf("the waiters were answered %v after %v and %v, want unavailable within seconds", unnamed.err, unnamed.took, named.err)
		}
		time.Sleep(30 * time.Second)
		w.must(w.c.Start(w.leader))
		w.must(w.c.Start(other))
		w.must(w.c.WaitReady(w.t.Context()))
		w.lookAround()
		time.Sleep(time.Second)
		w.stands(node, "x", 0, "after the majority came back")
		w.free(node, "x", token)
		time.Sleep(500 * time.Millisecond)
		if h := w.holder(node, "x"); h != "" {
			t.Errorf("the lock is held by %q", h)
		}
	})
}

// TestWaitersOfADeadNodeBlockNobody: one of them may be granted the lock before the
// cluster has noticed. It is gone with the node's session, and so are the others.
func TestWaitersOfADeadNodeBlockNobody(t *testing.T) {
	for name, c := range map[string]struct {
		freed time.Duration // after the node was killed
		most  time.Duration
	}{
		"freed before it is noticed": {time.Second, 7 * time.Second},
		"freed later":                {7 * time.Second, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				token := w.take(w.leader, request("x", "holder", time.Hour, 0, ""))
				for i := range 5 {
					w.wait(w.followers[0], request("x", fmt.Sprintf("of the dead node %d", i), time.Hour, 10*time.Minute, ""))
				}
				w.must(w.c.Kill(w.followers[0]))
				time.Sleep(c.freed)
				w.free(w.leader, "x", token)
				begun := time.Now()
				w.take(w.leader, request("x", "alive", 10*time.Second, 5*time.Minute, ""))
				if took := time.Since(begun); took > c.most {
					t.Errorf("a live waiter got the free lock after %v, want %v at most", took, c.most)
				}
			})
		})
	}
}

// TestAGrantOutOfAWaitOutlivesItsNode: the node is killed after the grant was delivered.
func TestAGrantOutOfAWaitOutlivesItsNode(t *testing.T) {
	inWorld(t, func(w *world) {
		node := w.followers[0]
		token := w.take(w.leader, request("x", "holder", time.Hour, 0, ""))
		waits := w.wait(node, request("x", "waiter", time.Minute, 10*time.Minute, ""))
		w.free(w.leader, "x", token)
		<-waits.done
		w.must(waits.err)
		w.must(w.c.Kill(node))
		time.Sleep(50 * time.Second)
		if h := w.holder(w.leader, "x"); h != "waiter" {
			t.Errorf("50 s into a TTL of a minute the lock is held by %q", h)
		}
	})
}

func TestAStopKeepsThePlacesOfRequestIDsAndNoOthers(t *testing.T) {
	for name, leads := range map[string]bool{"follower": false, "leader": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				node, rest := w.followers[0], w.followers[1]
				if leads {
					node = w.leader
				}
				token := w.take(rest, request("x", "holder", time.Hour, 0, ""))
				w.take(node, request("y", "holder", time.Hour, 0, ""))
				named := w.wait(node, request("x", "named", time.Minute, 10*time.Minute, "r-1"))
				other := w.wait(node, request("y", "other", time.Minute, 10*time.Minute, ""))
				behind := w.wait(rest, request("x", "behind", time.Minute, 10*time.Minute, ""))
				w.must(w.c.Stop(node))
				<-named.done
				<-other.done
				if named.code() != apiv1.CodeUnavailable || !strings.Contains(named.err.Error(), "same request ID") || other.code() != apiv1.CodeUnavailable {
					t.Errorf("the waiters were answered %v and %v, want unavailable, and what to do", named.err, other.err)
				}
				w.stands(rest, "y", 0, "when the node has ended, without a request ID")
				time.Sleep(2 * time.Second)
				w.stands(rest, "x", 2, "when the node has ended, one under a request ID")
				again := w.wait(rest, request("x", "named", time.Minute, 10*time.Minute, "r-1"))
				time.Sleep(10 * time.Second) // the session of the node has expired
				w.free(rest, "x", token)
				<-again.done
				if again.err != nil || behind.over() {
					t.Errorf("the repeat: %v; the one behind it: over %v; want its grant and a wait", again.err, behind.over())
				}
			})
		})
	}
}

// TestAStopWithoutKeptPlacesEndsTheNodesSession, and with it all its waits.
func TestAStopWithoutKeptPlacesEndsTheNodesSession(t *testing.T) {
	inWorld(t, func(w *world) {
		node := w.followers[0]
		w.take(node, request("x", "holder", time.Hour, 0, ""))
		for range 20 {
			w.wait(node, request("x", "other", time.Minute, 10*time.Minute, ""))
		}
		w.stands(w.leader, "x", 20, "at first")
		w.must(w.c.Stop(node))
		w.stands(w.leader, "x", 0, "when the node has ended")
		st, err := w.at(w.leader).Status(w.t.Context(), &apiv1.StatusRequest{})
		if err != nil || st.GetSessions() != 0 {
			t.Errorf("%d sessions are open, %v; want none", st.GetSessions(), err)
		}
	})
}

// TestWaitersOfANodeThatWasCutOffAreQueuedAgain: the cluster has ended the session of the
// node, and the callers still wait.
func TestWaitersOfANodeThatWasCutOffAreQueuedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		node, rest := w.followers[0], w.followers[1]
		token := w.take(rest, request("x", "holder", time.Hour, 0, ""))
		waits := w.wait(node, request("x", "patient", time.Minute, 30*time.Second, ""))
		for _, other := range []string{w.leader, rest} {
			w.must(w.c.Cut(node, other))
			w.must(w.c.Cut(other, node))
		}
		time.Sleep(5500 * time.Millisecond)
		w.stands(rest, "x", 0, "after the node was cut off for its session's TTL")
		w.c.Heal()
		time.Sleep(2 * time.Second)
		w.lookAround()
		w.stands(w.leader, "x", 1, "after the node came back")
		if waits.over() {
			t.Fatalf("the waiter was answered %v", waits.err)
		}
		<-waits.done
		if waits.code() != apiv1.CodeTimeout || waits.took < 29*time.Second || waits.took > 32*time.Second {
			t.Errorf("a wait of 30 s ended after %v with %v", waits.took, waits.err)
		}
		w.free(rest, "x", token)
	})
}

func TestAnIdleClusterWritesNothingThoughItHadCallersWithoutASession(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, node := range w.c.Nodes() {
			w.free(node, node, w.take(node, request(node, "", time.Minute, 0, "r-"+node)))
		}
		applied := func() uint64 {
			st, err := w.at(w.leader).Status(w.t.Context(), &apiv1.StatusRequest{})
			w.must(err)
			return st.GetAppliedIndex()
		}
		time.Sleep(2 * time.Minute)
		before := applied()
		time.Sleep(5 * time.Minute)
		if after := applied(); after != before {
			t.Errorf("%d entries were written in five minutes without a request", after-before)
		}
	})
}

// TestASessionsGrantIsNotForOthers: they are answered whose it is, and what would end it.
func TestASessionsGrantIsNotForOthers(t *testing.T) {
	inWorld(t, func(w *world) {
		cl, err := w.c.Client("owner", client.SessionTTL(10*time.Second))
		w.must(err)
		g, err := cl.Lock(w.t.Context(), "x")
		w.must(err)
		node := w.followers[0]
		for verb, do := range map[string]func() error{
			"release": func() error {
				_, err := w.at(node).Release(w.t.Context(), &apiv1.ReleaseRequest{Name: "x", Token: g.Token()})
				return err
			},
			"renew": func() error {
				_, err := w.at(node).Renew(w.t.Context(), &apiv1.RenewRequest{Name: "x", Token: g.Token(), TtlNs: int64(time.Minute)})
				return err
			},
			"set value": func() error {
				_, err := w.at(node).SetValue(w.t.Context(), &apiv1.SetValueRequest{Name: "x", Token: g.Token(), Value: []byte("v")})
				return err
			},
		} {
			err := do()
			if apiv1.CodeOf(err) != apiv1.CodeNotHeld || !strings.Contains(err.Error(), "belongs to a session") || !strings.Contains(err.Error(), "force-release") {
				t.Errorf("%s: %v, want not_held, whose it is and what would end it", verb, err)
			}
		}
		if h := w.get(node, "x").GetHolders(); len(h) != 1 || len(h[0].GetValue()) != 0 || g.Err() != nil {
			t.Errorf("afterwards it is held by %v, and its client says %v", h, g.Err())
		}
		w.must(g.Unlock())
	})
}

func TestReadsRefuseNamesThatNoLockCanHave(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, node := range []string{w.leader, w.followers[0]} {
			for _, stale := range []int64{0, int64(time.Hour)} {
				for _, name := range []string{"", strings.Repeat("x", 513)} {
					_, err := w.at(node).Get(w.t.Context(), &apiv1.GetRequest{Name: name, MaxStaleNs: stale})
					if apiv1.CodeOf(err) != apiv1.CodeInvalid || status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "name") || !strings.Contains(err.Error(), "512") {
						t.Errorf("Get of a name of %d bytes through %s: %v, want invalid, the field and the limit", len(name), node, err)
					}
				}
				if _, err := w.at(node).Get(w.t.Context(), &apiv1.GetRequest{Name: strings.Repeat("x", 512), MaxStaleNs: stale}); err != nil {
					t.Errorf("Get of a name of 512 bytes: %v", err)
				}
			}
		}
	})
}
