package client

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/proof/simnet"
)

// asking counts the calls of Status, by the node that they go to.
type asking struct {
	mu    sync.Mutex
	now   map[string]int
	most  int // to one node at the same time
	total int
}

func (a *asking) option() Option {
	a.now = map[string]int{}
	return GRPC(grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if !strings.HasSuffix(method, "/Status") {
			return invoke(ctx, method, req, reply, cc, opts...)
		}
		a.mu.Lock()
		a.total++
		a.now[cc.Target()]++
		a.most = max(a.most, a.now[cc.Target()])
		a.mu.Unlock()
		defer func() {
			a.mu.Lock()
			a.now[cc.Target()]--
			a.mu.Unlock()
		}()
		return invoke(ctx, method, req, reply, cc, opts...)
	}))
}

func (a *asking) counts() (total, most int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total, a.most
}

func TestSearchAsksOneNodeAndTheLeaderItReports(t *testing.T) {
	bubble(t, func(t *testing.T, network *simnet.Network) {
		r := newLabRing(t, network, 3)
		for range 5 {
			var a asking
			c := labClient(t, network, []string{r.nodes[0].addr, r.nodes[1].addr, r.nodes[2].addr}, a.option())
			mustUnlock(t, mustLock(t, c, "a"))
			if total, _ := a.counts(); total > 2 {
				t.Errorf("%d calls of Status to find the leader of three nodes, want one or two", total)
			}
		}
	})
}

func TestSearchAsksNoNodeTwiceAtATime(t *testing.T) {
	t.Parallel()
	r := newRing(t, 3)
	for _, n := range r.nodes {
		n.setMute(true)
	}
	var a asking
	c := r.dial(r.nodes, a.option())
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	_, err := c.Lock(ctx, "a")
	wantErr(t, "Lock", err, ErrUnavailable)
	if total, most := a.counts(); most != 1 || total < 3 || total > 9 {
		t.Errorf("%d calls of Status to three nodes that do not answer, up to %d to one at the same time; want one each and again after a second", total, most)
	}
}

// A slow node answers long after the round in which it was asked.
func TestLateAnswerLeadsToTheLeader(t *testing.T) {
	t.Parallel()
	r := newRing(t, 1)
	delayed := GRPC(grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		time.Sleep(4 * roundLimit) // the call is under way
		return invoke(ctx, method, req, reply, cc, opts...)
	}))
	var a asking
	c := r.dial(r.nodes, a.option(), delayed)
	mustUnlock(t, mustLock(t, c, "a"))
	if total, _ := a.counts(); total != 1 {
		t.Errorf("a node that answers late was asked %d times, want once", total)
	}
}

func TestPauseOfASearchGrowsWhileNothingChanges(t *testing.T) {
	r := newRemote([]string{"a:1", "b:1"}, newConfig(nil), func() {})
	defer r.cancel()
	s := r.newSearch()
	for elapsed, want := range map[time.Duration]time.Duration{
		0: leastPause, 40 * time.Millisecond: leastPause, 400 * time.Millisecond: 100 * time.Millisecond,
		4 * time.Second: mostPause, time.Hour: mostPause,
	} {
		for range 100 {
			if got := s.pause(s.changed.Add(elapsed)); got < want/2 || got > want {
				t.Errorf("the pause after %v is %v, want %v to %v", elapsed, got, want/2, want)
			}
		}
	}
	begun := s.changed
	noLeader := probe{addr: "a:1", status: &apiv1.StatusResponse{State: "follower", Term: 1}}
	candidate := probe{addr: "a:1", status: &apiv1.StatusResponse{State: "candidate", Term: 2}}
	leader := probe{addr: "a:1", status: &apiv1.StatusResponse{State: "follower", Term: 2, LeaderAddress: "b:1"}}
	for _, step := range []struct {
		got     probe
		changes bool
	}{
		{noLeader, true}, {noLeader, false}, {candidate, false}, {leader, true}, {leader, false},
		{probe{addr: "a:1", err: errors.New("refused")}, true}, {probe{addr: "a:1", err: errors.New("timeout")}, false}, {noLeader, true},
	} {
		s.changed = begun
		s.note(step.got)
		if changed := !s.changed.Equal(begun); changed != step.changes {
			t.Errorf("%v: the pause starts from the least again: %v, want %v", step.got, changed, step.changes)
		}
	}
}

// A slow leader is not left as long as the others report it as the leader: otherwise all
// clients would send it all of their calls again.
func TestSlowLeaderIsNotLeft(t *testing.T) {
	t.Parallel()
	r := newRing(t, 3)
	var a asking
	c := r.dial(r.nodes, a.option())
	mustUnlock(t, mustLock(t, c, "a"))
	before, _ := a.counts()
	leader := r.nodes[0]
	leader.setHangs(true)
	got := make(chan *Grant, 1)
	go func() { got <- mustLock(t, c, "a") }()
	eventually(t, "the client asks others about the leader", func() bool {
		now, _ := a.counts()
		return now >= before+2
	})
	time.Sleep(300 * time.Millisecond) // more answers report it as the leader
	leader.setHangs(false)
	mustUnlock(t, <-got)
	leader.mu.Lock()
	defer leader.mu.Unlock()
	if leader.streams != 1 {
		t.Errorf("%d streams to the leader, want the first one still", leader.streams)
	}
}
