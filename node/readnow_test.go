package node

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/peerapi"
	"github.com/locknode/locknode/internal/proof/simnet"
	"github.com/locknode/locknode/internal/seam"
)

func getOp(name string, stale time.Duration) *apiv1.Operation {
	return &apiv1.Operation{Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: name, MaxStaleNs: int64(stale)}}}
}

// isHeld reads a lock through a node.
func (c *testCluster) isHeld(n *Node, name string) bool {
	c.t.Helper()
	a, err := mux.Do(c.ctx(), wire{n}.Start, getOp(name, 0))
	if err != nil || a.GetGet() == nil {
		c.t.Fatalf("Get of %q through %s = %v, %v", name, n.ID(), a, err)
	}
	return a.GetGet().GetLock().GetHolderCount() > 0
}

// TestReadsThroughAFollowerAndTheLeaderDoNotGoBack: the leader has committed a grant and not
// applied it yet, and a follower has applied it. After a read through the follower has seen
// it, a read through the leader must see it, too.
func TestReadsThroughAFollowerAndTheLeaderDoNotGoBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New(1, simnet.Options{Latency: 200 * time.Microsecond})
		defer network.Close()
		var late atomic.Pointer[string] // the ID of the node that applies late
		const usual = 200 * time.Millisecond
		c := openSimulatedWith(t, network, func(id string, world *seam.Node) {
			world.Applying = func(uint64) {
				if slow := late.Load(); slow != nil && *slow == id {
					time.Sleep(500 * time.Millisecond)
				}
			}
		}, usual, usual, usual)
		defer c.closeSimulated(network)
		leader, follower := c.leader(), c.follower()
		c.grow(leader, 1) // it has a session for such requests from then on
		late.Store(&leader.id)
		answered := make(chan struct{})
		wire{leader}.Start(&mux.Call{Op: detachedOp("x", time.Hour), Done: func(*apiv1.Answer) { close(answered) }})
		begin := time.Now()
		for !c.isHeld(follower, "x") {
			time.Sleep(time.Millisecond)
		}
		seen := time.Since(begin)
		if !c.isHeld(leader, "x") {
			t.Errorf("a read through %s saw the lock held, and one through the leader that began after it did not", follower.ID())
		}
		if seen > 100*time.Millisecond {
			t.Errorf("the follower's reads have waited for the leader's table: %v", seen)
		}
		<-answered
	})
}

// TestAReadAfterAChangeOfTheConfigurationNeedsNoCommand: the last committed entry is one
// that no table applies, and nothing is written.
func TestAReadAfterAChangeOfTheConfigurationNeedsNoCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New(1, simnet.Options{Latency: 200 * time.Microsecond})
		defer network.Close()
		const usual = 200 * time.Millisecond
		c := openSimulated(t, network, usual, usual, usual)
		defer c.closeSimulated(network)
		leader, follower := c.leader(), c.follower()
		var gone *Node
		for _, n := range c.nodes {
			if n != leader && n != follower {
				gone = n
			}
		}
		if _, err := (wire{leader}).RemoveMember(c.ctx(), &apiv1.RemoveMemberRequest{Id: gone.ID()}); err != nil {
			t.Fatal(err)
		}
		if commit, applied := leader.raft.Load().CommitIndex(), leader.appliedIndex(); commit <= applied {
			t.Fatalf("committed up to %d, commands up to %d: want a change of the configuration last, or the test shows nothing", commit, applied)
		}
		for _, n := range []*Node{leader, follower} {
			begin := time.Now()
			if c.isHeld(n, "x") {
				t.Error("x is held")
			}
			if took := time.Since(begin); took > 100*time.Millisecond {
				t.Errorf("a read through %s took %v", n.ID(), took)
			}
		}
	})
}

// TestRequestsThatNeedNoEntryDoNotWaitForOne: to apply an entry may take seconds. Probes,
// clients that search for a node, other nodes that ask for the last entry of this one, and a
// stream that starts a read do not wait for it.
func TestRequestsThatNeedNoEntryDoNotWaitForOne(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	n := c.leader()
	before := n.appliedIndex()
	release := make(chan struct{})
	inside := make(chan struct{})
	var busy sync.WaitGroup
	busy.Go(func() {
		n.machine.View(func(*fsm.Table) {
			close(inside)
			<-release
		})
	})
	<-inside
	wire{n}.Start(&mux.Call{Op: detachedOp("x", time.Hour), Done: func(*apiv1.Answer) {}})
	c.eventually("the entry is committed", func() bool { return n.raft.Load().CommitIndex() > before })
	c.eventually("it is being applied", func() bool { // it waits for the table, as other callers would after it
		ran, _ := n.machine.TryView(func(*fsm.Table) {})
		return !ran
	})
	reads := make(chan *apiv1.Answer, 2)
	asked := make(chan string)
	go func() {
		ctx := c.t.Context()
		_ = n.Status()
		asked <- "Status"
		_ = n.readiness()
		asked <- "readiness"
		n.metrics.handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", nil))
		asked <- "metrics"
		_, _ = n.Members()
		asked <- "Members"
		_, _ = wire{n}.Digests(ctx, &peerapi.DigestsRequest{})
		asked <- "Digests"
		_ = n.clusterIdentity()
		asked <- "the preface of a connection"
		_, _ = wire{n}.ReadIndex(ctx)
		asked <- "ReadIndex"
		for _, stale := range []time.Duration{0, time.Hour} {
			wire{n}.Start(&mux.Call{Op: getOp("x", stale), Done: func(a *apiv1.Answer) { reads <- a }})
			asked <- fmt.Sprintf("the start of a read that may be %v old", stale)
		}
		close(asked)
	}()
	for last := "nothing"; last != ""; {
		select {
		case last = <-asked:
		case <-time.After(patience):
			t.Error("what comes after " + last + " has waited for the entry")
			last = ""
		}
	}
	if got := n.appliedIndex(); got != before {
		t.Errorf("entry %d has been applied, although the test holds it up", got)
	}
	close(release)
	busy.Wait()
	for range 2 {
		select {
		case a := <-reads:
			if a.GetGet() == nil {
				t.Errorf("a read was answered %v", a)
			}
		case <-time.After(patience):
			t.Fatal("a read is not answered")
		}
	}
}

// TestReadsThatWaitForTheTableAreServedInOrderOrFail: in the order of their index; each gets
// an answer even if the table does not reach its index or the node stops.
func TestReadsThatWaitForTheTableAreServedInOrderOrFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var applied atomic.Uint64
		r := newReads(applied.Load, func() time.Duration { return time.Since(begin) })
		ctx, cancel := context.WithCancel(t.Context())
		go r.run(ctx)
		var mu sync.Mutex // guards results
		var told []string
		park := func(index uint64) {
			r.add(index, func(reached bool) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, fmt.Sprint(index, " ", reached))
			})
		}
		want := func(all ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(told, all) {
				t.Errorf("after %v with %d applied: got %q, want %q", time.Since(begin), applied.Load(), told, all)
			}
			told = nil
		}
		for _, index := range []uint64{3, 1, 0, 2, 2} {
			park(index)
		}
		want("0 true")
		applied.Store(2)
		r.wake()
		want("1 true", "2 true", "2 true")
		time.Sleep(noLeaderPatience + readsPoll)
		want("3 false")
		park(4)
		cancel()
		want("4 false")
		park(1)
		want("1 false")
	})
}
