package node

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/membership"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/peerapi"
)

// voice is a voter that answers read rounds.
type voice struct {
	peerapi.UnimplementedPeersServer
	says atomic.Pointer[peerapi.TermResponse]
}

func (v *voice) Term(context.Context, *peerapi.TermRequest) (*peerapi.TermResponse, error) {
	return v.says.Load(), nil
}

func (v *voice) listen(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	peerapi.RegisterPeersServer(s, v)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	return l.Addr().String()
}

// TestAReadRoundNeedsAMajorityInItsTerm runs rounds at a leader of Raft that does not know
// the terms of the others yet.
func TestAReadRoundNeedsAMajorityInItsTerm(t *testing.T) {
	all := startRafts(t)
	leader := all.leader()
	r := all.raft[leader]
	term := r.CurrentTerm()

	var others []*voice
	var ids []string
	addrs := make(map[string]string)
	for i := range all.raft {
		if i != leader {
			v, id := &voice{}, string(rune('0'+i))
			others, ids = append(others, v), append(ids, id)
			addrs[id] = v.listen(t)
		}
	}
	peers := newPeers(peersConfig{addresses: func(id string) []string { return []string{addrs[id]} }})
	defer peers.close()
	round := leaderRound{
		raft: r, self: string(rune('0' + leader)), peer: peers.peer,
		lastCommand: func(committed uint64) (uint64, error) { return committed, nil },
	}

	for _, tt := range []struct {
		name string
		asks uint64    // the term in which the node serves
		says [2]uint64 // the term of each of the others
		ids  []string  // who they say they are
		want bool
	}{
		{"both are in the term", term, [2]uint64{term, term}, ids, true},
		{"one is", term, [2]uint64{term + 1, term}, ids, true},
		{"the other is", term, [2]uint64{term, term + 1}, ids, true},
		{"both have a newer leader", term, [2]uint64{term + 1, term + 1}, ids, false},
		{"both are behind", term, [2]uint64{term - 1, term - 1}, ids, false},
		{"both are somebody else", term, [2]uint64{term, term}, []string{"x", "y"}, false},
		{"the node serves a term that it no longer leads", term - 1, [2]uint64{term - 1, term - 1}, ids, false},
	} {
		for i, v := range others {
			v.says.Store(&peerapi.TermResponse{Term: tt.says[i], NodeId: tt.ids[i]})
		}
		serving := &epoch{term: tt.asks, proposer: &proposer{}}
		if _, err := round.confirm(t.Context(), serving); (err == nil) != tt.want {
			t.Errorf("%s: confirm = %v, want an answer: %v", tt.name, err, tt.want)
		}
	}
}

// TestALeaderThatIsNoVoterAnyMoreNeedsTheOthers: its own removal is in its log, and perhaps
// in another one's, and the other two may have elected another leader.
func TestALeaderThatIsNoVoterAnyMoreNeedsTheOthers(t *testing.T) {
	for range 20 {
		if confirmedWithoutAVote(t) {
			return
		}
	}
	t.Fatal("it never led long enough for a round")
}

// confirmedWithoutAVote runs a round at a leader that is no voter, and reports whether it
// still led after it.
func confirmedWithoutAVote(t *testing.T) bool {
	all := startRafts(t)
	leader := all.leader()
	r, term := all.raft[leader], all.raft[leader].CurrentTerm()
	addrs := make(map[string]string)
	for i := range all.raft {
		if i != leader {
			v, id := &voice{}, string(rune('0'+i))
			addrs[id] = v.listen(t)
			says := term // one of them; the other has a newer leader
			if len(addrs) == 2 {
				says++
			}
			v.says.Store(&peerapi.TermResponse{Term: says, NodeId: id})
		}
	}
	self, peers := string(rune('0'+leader)), newPeers(peersConfig{addresses: func(id string) []string { return []string{addrs[id]} }})
	defer peers.close()
	all.transport[leader].DisconnectAll()
	r.RemoveServer(raft.ServerID(self), 0, time.Second)
	for len(membership.Servers(r)) == 3 {
		if _, leading := leads(r); !leading {
			return false
		}
		time.Sleep(time.Millisecond)
	}
	err := leaderRound{raft: r, self: self, peer: peers.peer}.confirmTerm(t.Context(), term)
	if _, leading := leads(r); !leading && err != nil {
		return false
	}
	if err == nil || !strings.Contains(err.Error(), "1 of 2 voters said yes, must be at least 2") {
		t.Errorf("confirmTerm with one of two voters = %v", err)
	}
	return true
}

// slowNode is a node that applies nothing more until the test lets it.
type slowNode struct {
	*Node
	slow  chan struct{} // closed once it applies nothing more
	catch chan struct{} // closed by the test
}

// startWithSlowFollower starts a cluster in which one follower has not applied
// the acquire of "late", which was acknowledged.
func startWithSlowFollower(t *testing.T) (*testCluster, slowNode) {
	t.Helper()
	s := slowNode{slow: make(chan struct{}), catch: make(chan struct{})}
	var arm atomic.Pointer[string] // the ID of the node to be slowed down
	c := startClusterWith(t, 3, func(cfg *Config) {
		id := cfg.ID
		cfg.seams.Applied = func(fsm.Applied) {
			if slow := arm.Load(); slow != nil && *slow == id && arm.CompareAndSwap(slow, nil) {
				close(s.slow)
				<-s.catch
			}
		}
	})
	s.Node = c.follower()
	id := s.ID()
	arm.Store(&id)
	for _, name := range []string{"early", "late"} {
		a, err := mux.Do(c.ctx(), wire{c.leader()}.Start, detachedOp(name, time.Hour))
		if err != nil || a.GetAcquire() == nil {
			t.Fatalf("acquire of %q = %v, %v", name, a, err)
		}
		if name == "early" {
			<-s.slow
		}
	}
	return c, s
}

// readLate reads "late" through the slow node, and returns the answer once there is one.
// Until that node has caught up the answer must not be that the lock is free.
func (s slowNode) readLate(t *testing.T, c *testCluster) {
	t.Helper()
	answers := make(chan *apiv1.Answer, 1)
	op := &apiv1.Operation{Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: "late"}}}
	wire{s.Node}.Start(&mux.Call{Op: op, Done: func(a *apiv1.Answer) { answers <- a }})
	var early *apiv1.Answer
	select {
	case early = <-answers:
	case <-time.After(300 * time.Millisecond): // enough time to answer too early
	}
	close(s.catch)
	if early != nil && early.GetGet() != nil && early.GetGet().GetLock().GetHolderCount() != 1 {
		t.Fatalf("a node that has not applied the acquire answered a read: %v", early)
	}
	c.eventually("the read finds the holder", func() bool {
		a, err := mux.Do(c.ctx(), wire{s.Node}.Start, op)
		return err == nil && a.GetGet().GetLock().GetHolderCount() == 1
	})
}

func TestAFollowerThatIsBehindAnswersNoReadBeforeItHasCaughtUp(t *testing.T) {
	t.Parallel()
	c, slow := startWithSlowFollower(t)
	slow.readLate(t, c)
}

func TestANewLeaderServesNothingBeforeItHasAppliedTheLog(t *testing.T) {
	t.Parallel()
	c, slow := startWithSlowFollower(t)
	before := c.leader()
	c.eventually("Raft makes it leader", func() bool {
		_ = before.transfer(t.Context(), before.raft.Load(), slow.ID()) // retried until it is done
		_, leading := leads(slow.raft.Load())
		return leading
	})
	slow.readLate(t, c)
}
