package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/membership"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/proof/leaks"
	"github.com/locknode/locknode/internal/proof/racedetector"
	"github.com/locknode/locknode/internal/proof/testall"
)

// patience is how long a condition may take on a machine that is also busy.
const patience = 2 * time.Minute

// testCluster is a cluster of real nodes in this process, on loopback.
type testCluster struct {
	t     *testing.T
	nodes []*Node
	dirs  []string
}

func startCluster(t *testing.T, size int) *testCluster {
	t.Helper()
	return startClusterWith(t, size, func(*Config) {})
}

// startClusterWith lets the test change each node's configuration.
func startClusterWith(t *testing.T, size int, change func(*Config)) *testCluster {
	t.Helper()
	c := &testCluster{t: t}
	var seed []string
	for i := range size {
		dir := t.TempDir()
		cfg := Config{
			ID: fmt.Sprintf("n%d", i+1), DataDir: dir, Listen: "127.0.0.1:0",
			BootstrapExpect: size, Join: seed, Fast: true,
		}
		change(&cfg)
		n, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			closed := n.closing.Load() // by the test, which has checked its error
			if err := n.Close(); err != nil && !closed {
				t.Errorf("close %s: %v", n.ID(), err)
			}
		})
		seed = []string{n.GossipAddr()}
		c.nodes = append(c.nodes, n)
		c.dirs = append(c.dirs, dir)
	}
	c.awaitReady()
	return c
}

// awaitReady waits until every node that runs can serve.
func (c *testCluster) awaitReady() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	for _, n := range c.nodes {
		if n.closing.Load() {
			continue
		}
		if err := n.WaitReady(ctx); err != nil {
			c.t.Fatal(err)
		}
	}
}

// leader waits for a node that serves as leader.
func (c *testCluster) leader() *Node {
	c.t.Helper()
	var found *Node
	c.eventually("some node leads", func() bool {
		for _, n := range c.nodes {
			if n.epoch.Load() != nil {
				found = n
			}
		}
		return found != nil
	})
	return found
}

func (c *testCluster) follower() *Node {
	c.t.Helper()
	leader := c.leader()
	for _, n := range c.nodes {
		if n != leader && !n.closing.Load() {
			return n
		}
	}
	c.t.Fatal("no follower")
	return nil
}

func (c *testCluster) eventually(what string, cond func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			c.t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// addressesChange skips a test in which a member comes back at another address.
func addressesChange(t *testing.T) {
	t.Helper()
	if racedetector.ComplainsOfRaft() {
		t.Skip("the address of a member changes; see racedetector.ComplainsOfRaft")
	}
}

// client returns an embedded client that is closed before its node.
func (c *testCluster) client(n *Node, opts ...client.Option) *client.Client {
	cl := n.Client(opts...)
	c.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

func (c *testCluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	c.t.Cleanup(cancel)
	return ctx
}

func TestMain(m *testing.M) {
	racedetector.OneThread()
	atOnce := 4 // they mostly wait for elections
	if racedetector.On {
		atOnce = 2
	}
	testall.AtOnce(atOnce)
	os.Exit(leaks.Run(m))
}

func TestANodeThatDoesNotLeadForwards(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	follower := c.follower()
	g, err := c.client(follower).Lock(c.ctx(), "orders/42")
	if err != nil {
		t.Fatalf("Lock through a follower: %v", err)
	}
	for _, n := range c.nodes {
		held, err := c.client(n).IsLocked(c.ctx(), "orders/42")
		if err != nil || !held {
			t.Errorf("IsLocked on %s = %v, %v; want true", n.ID(), held, err)
		}
	}
	if err := g.Unlock(); err != nil {
		t.Fatalf("Unlock: %v", err)
	}
	for _, n := range c.nodes {
		held, err := c.client(n).IsLocked(c.ctx(), "orders/42")
		if err != nil || held {
			t.Errorf("IsLocked on %s after Unlock = %v, %v; want false", n.ID(), held, err)
		}
	}
}

func TestAFollowerNamesTheLeaderWhenAsked(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	leader := c.leader()
	op := &apiv1.Operation{Id: 7, Redirect: true, Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Token: 1}}}
	a, err := mux.Do(c.ctx(), wire{c.follower()}.Start, op)
	if err != nil {
		t.Fatal(err)
	}
	e := a.GetError()
	if apiv1.Code(e.GetCode()) != apiv1.CodeNotLeader || e.GetLeader() != leader.APIAddr() || a.GetId() != 7 {
		t.Fatalf("answer %v, want not_leader naming %s for operation 7", a, leader.APIAddr())
	}
}

func TestWaitersKeepTheirOrderThroughATransferOfLeadership(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	holder, err := c.client(c.leader()).Lock(c.ctx(), "line")
	if err != nil {
		t.Fatal(err)
	}
	const waiters = 6
	var (
		mu    sync.Mutex
		order []int
		wg    sync.WaitGroup
	)
	for i := range waiters {
		cl := c.client(c.nodes[i%len(c.nodes)])
		wg.Add(1)
		go func() {
			defer wg.Done()
			g, err := cl.Lock(c.ctx(), "line")
			if err != nil {
				t.Errorf("waiter %d: %v", i, err)
				return
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			if err := g.Unlock(); err != nil {
				t.Errorf("waiter %d: Unlock: %v", i, err)
			}
		}()
		c.eventually(fmt.Sprintf("waiter %d is in the queue", i), func() bool {
			info, err := cl.Get(c.ctx(), "line")
			return err == nil && info.Waiters == i+1
		})
	}
	old := c.leader()
	if _, err := (wire{old}).TransferLeadership(c.ctx(), &apiv1.TransferLeadershipRequest{}); err != nil {
		t.Fatalf("TransferLeadership: %v", err)
	}
	c.eventually("another node leads", func() bool { return c.leader() != old })
	if err := holder.Unlock(); err != nil {
		t.Fatalf("Unlock after the transfer: %v", err)
	}
	wg.Wait()
	for i := range order {
		if order[i] != i {
			t.Fatalf("order of grants %v, want the order of arrival", order)
		}
	}
	if len(order) != waiters {
		t.Fatalf("%d waiters were granted, want %d", len(order), waiters)
	}
}

func TestAllNodesGoThroughTheSameStates(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	var wg sync.WaitGroup
	for i := range 8 {
		cl := c.client(c.nodes[i%3])
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range 25 {
				g, err := cl.Lock(c.ctx(), fmt.Sprintf("l%d", j%3))
				if err != nil {
					t.Errorf("Lock: %v", err)
					return
				}
				if err := g.Unlock(); err != nil {
					t.Errorf("Unlock: %v", err)
				}
			}
		}()
	}
	wg.Wait()
	c.eventually("equal digests at one index", func() bool {
		a, b, d := c.nodes[0].state.Load(), c.nodes[1].state.Load(), c.nodes[2].state.Load()
		if a.DigestIndex != b.DigestIndex || b.DigestIndex != d.DigestIndex {
			return false
		}
		if a.Digest != b.Digest || b.Digest != d.Digest {
			t.Fatalf("digests differ at index %d: %x %x %x", a.DigestIndex, a.Digest, b.Digest, d.Digest)
		}
		return true
	})
}

func TestAStaleReadSaysHowOldItMayBe(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	n := c.follower()
	if _, err := c.client(n).Lock(c.ctx(), "old"); err != nil {
		t.Fatal(err)
	}
	op := func(maxStale time.Duration) *apiv1.Operation {
		return &apiv1.Operation{Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: "old", MaxStaleNs: int64(maxStale)}}}
	}
	fresh, err := mux.Do(c.ctx(), wire{n}.Start, op(0))
	if err != nil || fresh.GetGet().GetLock().GetHolderCount() != 1 || fresh.GetGet().GetAgeNs() != 0 {
		t.Fatalf("linearizable Get = %v, %v; want one holder and no age", fresh, err)
	}
	stale, err := mux.Do(c.ctx(), wire{n}.Start, op(time.Hour))
	if err != nil || stale.GetGet().GetLock().GetHolderCount() != 1 || stale.GetGet().GetAgeNs() <= 0 {
		t.Fatalf("stale Get = %v, %v; want one holder and an age", stale, err)
	}
}

func TestWithoutAMajorityNothingIsServedAndStaleReadsStillAre(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	last := c.leader()
	if _, err := c.client(last).Lock(c.ctx(), "survivor"); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		if n != last {
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.eventually("the last node stops leading", func() bool { return last.epoch.Load() == nil })
	read := func(maxStale time.Duration) *apiv1.Answer {
		op := &apiv1.Operation{Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: "survivor", MaxStaleNs: int64(maxStale)}}}
		a, err := mux.Do(c.ctx(), wire{last}.Start, op)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := read(0); apiv1.Code(a.GetError().GetCode()) != apiv1.CodeUnavailable {
		t.Errorf("linearizable Get without a majority = %v, want unavailable", a)
	}
	if a := read(time.Hour); a.GetGet().GetLock().GetHolderCount() != 1 {
		t.Errorf("stale Get without a majority = %v, want the holder", a)
	}
	if err := last.readiness(); err == nil {
		t.Error("the node is ready without a majority")
	}
}

func detachedOp(name string, ttl time.Duration) *apiv1.Operation {
	return &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{
		Locks: []*apiv1.Want{{Name: name}}, TtlNs: int64(ttl), Holder: "tester",
	}}}
}

func TestARemovedNodeEndsAndSaysWhy(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	gone := c.follower()
	if _, err := (wire{c.leader()}).RemoveMember(c.ctx(), &apiv1.RemoveMemberRequest{Id: gone.ID()}); err != nil {
		t.Fatalf("RemoveMember: %v", err)
	}
	select {
	case <-gone.Done():
	case <-time.After(patience):
		t.Fatal("the removed node still runs")
	}
	if err := gone.Err(); !errors.Is(err, ErrRemoved) {
		t.Fatalf("Err() = %v, want %v", err, ErrRemoved)
	}
}

func TestLeavingTakesTheNodeOutOfTheConfiguration(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	leader := c.leader()
	if err := leader.Leave(c.ctx()); err != nil {
		t.Fatalf("Leave: %v", err)
	}
	rest := c.follower()
	c.eventually("two voters are left", func() bool {
		return len(membership.Servers(rest.raft.Load())) == 2
	})
	if _, err := c.client(rest).Lock(c.ctx(), "after"); err != nil {
		t.Fatalf("Lock after a node left: %v", err)
	}
}

func TestAnOperationWaitsForALeaderNoLongerThanPatience(t *testing.T) {
	t.Parallel()
	n, err := Open(t.Context(), Config{DataDir: t.TempDir(), Listen: "127.0.0.1:0", BootstrapExpect: 3, Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := mux.Do(ctx, wire{n}.Start, detachedOp("a", time.Minute))
	if err != nil || apiv1.Code(a.GetError().GetCode()) != apiv1.CodeUnavailable {
		t.Fatalf("acquire on a node without a cluster = %v, %v; want unavailable", a, err)
	}
}

func TestAnEmbeddedClientOfTheLeaderTouchesNoNetwork(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	n := c.nodes[0]
	cl := c.client(n)
	g, err := cl.Lock(c.ctx(), "local")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Unlock(); err != nil {
		t.Fatal(err)
	}
	n.peers.mu.Lock()
	defer n.peers.mu.Unlock()
	if len(n.peers.conns) != 0 || n.router.conn != nil {
		t.Fatalf("%d connections were opened, want none", len(n.peers.conns))
	}
}

func TestEveryFaultOfAConfigIsReported(t *testing.T) {
	_, err := Open(t.Context(), Config{
		Listen: "10.0.0.1:80", BootstrapExpect: -1, Timing: time.Hour, LogStore: "paper", GossipKey: []byte("short"),
		Limits: fsm.Limits{NameBytes: -1},
	})
	if err == nil {
		t.Fatal("Open accepted a faulty config")
	}
	for _, want := range []string{"data dir", "bootstrap expect: is -1", "timing: is 1h", `"paper"`, "gossip key: is 5 bytes long", "limits.name_bytes -1", "plain text", "10.0.0.1:80"} {
		if !containsText(err, want) {
			t.Errorf("Open error lacks %q:\n%v", want, err)
		}
	}
}

func containsText(err error, text string) bool { return strings.Contains(err.Error(), text) }

func TestAListIsReadInPagesAndMissesNothing(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	n := c.nodes[0]
	const locks = 60
	for i := range locks {
		op := detachedOp(fmt.Sprintf("page/%03d", i), time.Hour)
		op.GetAcquire().Value = make([]byte, 4096)
		if a, err := mux.Do(c.ctx(), (wire{n}).Start, op); err != nil || a.GetAcquire() == nil {
			t.Fatalf("acquire %d = %v, %v", i, a, err)
		}
	}
	var names []string
	after := ""
	for {
		op := &apiv1.Operation{Request: &apiv1.Operation_List{List: &apiv1.ListRequest{Prefix: "page/", After: after, Limit: 25}}}
		a, err := mux.Do(c.ctx(), wire{n}.Start, op)
		if err != nil || a.GetList() == nil {
			t.Fatalf("List after %q = %v, %v", after, a, err)
		}
		if got := len(a.GetList().GetLocks()); got > 25 {
			t.Fatalf("a page has %d locks, 25 were requested", got)
		}
		for _, l := range a.GetList().GetLocks() {
			names = append(names, l.GetName())
		}
		if after = a.GetList().GetNext(); after == "" {
			break
		}
	}
	if len(names) != locks {
		t.Fatalf("pages have %d locks in all, want %d", len(names), locks)
	}
	for i, name := range names {
		if want := fmt.Sprintf("page/%03d", i); name != want {
			t.Fatalf("lock %d is %q, want %q", i, name, want)
		}
	}
}

// A test of T3 with Raft itself: a leader stamps an entry and stalls before it hands the
// entry to Raft; leadership goes to another node and comes back; then Raft, which knows
// nothing of stamps, stores the old entry under the new term. Without the check in the table
// the old stamp would be applied.
func TestAnEntryStampedTwoElectionsAgoChangesNothing(t *testing.T) {
	t.Parallel()
	var (
		stall   atomic.Bool
		stalled = make(chan struct{})
		resume  = make(chan struct{})
		refused atomic.Int32
	)
	c := startClusterWith(t, 3, func(cfg *Config) {
		cfg.seams.Stamped = func(uint64) {
			if stall.CompareAndSwap(true, false) {
				close(stalled)
				<-resume
			}
		}
		cfg.seams.Applied = func(a fsm.Applied) {
			if a.Refused == fsm.StaleStamp {
				refused.Add(1)
			}
		}
	})
	a := c.leader()
	stall.Store(true)
	answers := make(chan *apiv1.Answer, 1)
	wire{a}.Start(&mux.Call{Op: detachedOp("slept", time.Hour), Done: func(ans *apiv1.Answer) { answers <- ans }})
	<-stalled
	move := func(from *Node, to string) {
		c.eventually("leadership goes to "+to, func() bool {
			_ = from.transfer(c.ctx(), from.raft.Load(), to) // retried until it is done
			for _, n := range c.nodes {
				if _, leading := leads(n.raft.Load()); leading && n.ID() == to {
					return true
				}
			}
			return false
		})
	}
	b := c.nodes[0]
	if b == a {
		b = c.nodes[1]
	}
	move(a, b.ID())
	c.eventually("the other node serves", func() bool { return b.epoch.Load() != nil })
	if ans, err := mux.Do(c.ctx(), (wire{b}).Start, detachedOp("between", time.Hour)); err != nil || ans.GetAcquire() == nil {
		t.Fatalf("acquire in the term between = %v, %v", ans, err)
	}
	move(b, a.ID())
	close(resume)
	select {
	case ans := <-answers:
		if ans.GetAcquire().GetToken() == 0 {
			t.Fatalf("the operation was answered %v, want its grant after all", ans)
		}
	case <-time.After(patience):
		t.Fatal("the operation was never answered")
	}
	c.eventually("every node has refused the old entry", func() bool { return refused.Load() == 3 })
}

func TestADeadLeaderCanBeRemovedAtOnce(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	leader, follower := c.leader(), c.follower()
	// It fails without a handover, and without leaving gossip.
	leader.fail(errors.New("the test ends it"))
	<-leader.Done()
	if _, err := (wire{follower}).RemoveMember(c.ctx(), &apiv1.RemoveMemberRequest{Id: leader.ID()}); err != nil {
		t.Fatalf("RemoveMember of the leader that has just failed: %v", err)
	}
}

// For some seconds after a node has failed gossip still has it as alive.
// If the other follower were removed then, the two that remain would commit nothing.
func TestALiveMemberIsNotRemovedWhileAnotherOneIsDead(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	dead, leader := c.follower(), c.leader()
	dead.fail(errors.New("the test ends it"))
	<-dead.Done()
	alive := c.follower()
	_, err := wire{alive}.RemoveMember(c.ctx(), &apiv1.RemoveMemberRequest{Id: alive.ID()})
	if apiv1.CodeOf(err) != apiv1.CodeDenied || !strings.Contains(err.Error(), "only 1 answer") {
		t.Errorf("RemoveMember of the last follower = %v, want it refused", err)
	}
	if _, err := (wire{alive}).RemoveMember(c.ctx(), &apiv1.RemoveMemberRequest{Id: dead.ID()}); err != nil {
		t.Errorf("RemoveMember of the dead node: %v", err)
	}
	if leader.epoch.Load() == nil {
		t.Error("the leader has stepped down")
	}
}

// The answer comes before the caller's deadline, also through another node, and says that
// the outcome of the removal is unknown.
func TestARemovalThatIsNotDoneInTimeMayHaveBeenDone(t *testing.T) {
	t.Parallel()
	var hangs atomic.Value // string: the node that applies nothing more, and so no barrier
	hangs.Store("")
	hung, resume := make(chan struct{}), make(chan struct{})
	c := startClusterWith(t, 3, func(cfg *Config) {
		id := cfg.ID
		cfg.seams.Applying = func(uint64) {
			if hangs.CompareAndSwap(id, "") {
				close(hung)
				<-resume
			}
		}
	})
	leader, follower := c.leader(), c.follower()
	defer close(resume)
	hangs.Store(leader.ID())
	wire{leader}.Start(&mux.Call{Op: detachedOp("line", time.Hour), Done: func(*apiv1.Answer) {}})
	<-hung
	for _, asked := range []*Node{leader, follower} {
		ctx, cancel := context.WithTimeout(c.t.Context(), 3*time.Second)
		defer cancel()
		_, err := wire{asked}.RemoveMember(ctx, &apiv1.RemoveMemberRequest{Id: follower.ID()})
		if apiv1.CodeOf(err) != apiv1.CodeUnknownOutcome || !strings.Contains(err.Error(), "may have been done") ||
			!strings.Contains(err.Error(), "locknode members") || ctx.Err() != nil {
			t.Errorf("RemoveMember at %s = %v, want outcome unknown, in time", asked.ID(), err)
		}
	}
}

// Raft can shut itself down when it applies its own removal. A node without Raft answers
// nothing and does not know why. So Raft stays, as a follower, until the other members have
// answered the node that it was removed.
func TestARemovedLeadersRaftGoesOnUntilTheNodeEnds(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	gone := c.leader()
	if _, err := (wire{gone}).RemoveMember(c.ctx(), &apiv1.RemoveMemberRequest{Id: gone.ID()}); err != nil {
		t.Fatalf("RemoveMember of the leader by itself: %v", err)
	}
	for deadline := time.After(patience); ; {
		select {
		case <-gone.Done():
			if err := gone.Err(); !errors.Is(err, ErrRemoved) {
				t.Errorf("Err() = %v, want %v", err, ErrRemoved)
			}
			return
		case <-deadline:
			t.Fatal("the removed node still runs")
		case <-time.After(time.Millisecond):
		}
		if down := gone.raft.Load().State() == raft.Shutdown; down && !gone.closing.Load() && gone.Err() == nil {
			t.Fatal("Raft has shut itself down before the node")
		}
	}
}
