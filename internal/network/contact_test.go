package network

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/proof/rafttest"
)

// What is told of a peer is when it was asked, not when its answer came: between the two
// it may have died.
func TestAnsweredIsWhenTheRequestWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		a := NewTransport(network.listen("a"), TransportOptions{Timeout: time.Second})
		defer a.Close()
		term := uint64(1)
		b := NewTransport(network.listen("b"), TransportOptions{})
		serve(t, b, func(rpc raft.RPC) {
			time.Sleep(300 * time.Millisecond)
			rpc.Respond(&raft.AppendEntriesResponse{Term: term, Success: true}, nil)
		})
		if at := a.Answered("b"); !at.IsZero() {
			t.Errorf("b, which was never asked, has answered what was sent at %v", at)
		}
		time.Sleep(time.Minute)
		sent := time.Now()
		if err := appendTo(a, "b"); err != nil {
			t.Fatal(err)
		}
		if at := a.Answered("b"); !at.Equal(sent) || !a.Answers("b") {
			t.Errorf("b has answered what was sent %v after the request, answers: %v", at.Sub(sent), a.Answers("b"))
		}
		term = 2 // b follows somebody else now
		time.Sleep(time.Minute)
		if err := appendTo(a, "b"); err != nil {
			t.Fatal(err)
		}
		if at := a.Answered("b"); !at.Equal(sent) {
			t.Error("an answer of another term counts")
		}
	})
}

func TestAPeerThatIsCutOffHasNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		defer stop(t, all)
		leader := leaderOf(t, all, time.Second)
		away := without(all, leader)[0]
		recent := func() bool {
			return time.Since(leader.trans.Answered(raft.ServerID(away.id))) < rafttest.Config("a").HeartbeatTimeout
		}
		for range 100 {
			time.Sleep(50 * time.Millisecond)
			if !recent() {
				t.Fatal("a follower that is there has not answered for a heartbeat timeout")
			}
		}
		away.link.set(errors.New("cut off"))
		time.Sleep(time.Second)
		if recent() || leader.trans.Answers(raft.ServerID(away.id)) {
			t.Error("a follower that is cut off answers")
		}
		away.link.set(nil)
		rafttest.WaitFor(t, "the follower answers again", time.Second, recent)
	})
}

func TestContactsOfFormerPeersAreForgotten(t *testing.T) {
	var c contacts
	begin := time.Now()
	for i := range 10 * maxContacts {
		c.note(raft.ServerID(fmt.Sprint(i)), begin.Add(time.Duration(i)*time.Second))
	}
	if n := len(c.sent); n > maxContacts {
		t.Errorf("%d peers are remembered, want at most %d", n, maxContacts)
	}
}
