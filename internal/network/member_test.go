package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/proof/rafttest"
)

// A node that has the address of another member is not taken for it, and both sides
// log who it is.
func TestAnotherMemberIsNotTakenForTheOneMeant(t *testing.T) {
	ours, _ := listen(t, StreamOptions{Member: "n3"})
	theirs, log := listen(t, StreamOptions{Member: "n2"})
	conn, err := ours.Dial(MemberAddress("n1", theirs.Addr().String()), time.Second)
	if err == nil {
		_ = conn.Close()
		t.Fatal("n2 was taken for n1")
	}
	if want := `the node there is "n2", not "n1"`; !strings.Contains(err.Error(), want) {
		t.Errorf("Dial = %v, want %s", err, want)
	}
	const want = `it looks for node \"n1\", this is \"n2\"`
	rafttest.WaitFor(t, "the other side logs it", time.Second, func() bool { return strings.Contains(log.String(), want) })
}

func TestNodeWithThisNodesNameIsRefused(t *testing.T) {
	ours, _ := listen(t, StreamOptions{Member: "n1"})
	theirs, log := listen(t, StreamOptions{Member: "n1"})
	// The dialling side does not do it by itself.
	c, err := net.Dial("tcp", theirs.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := greetAs(c, "n1", "n1"); err == nil || !strings.Contains(err.Error(), "must not have one ID") {
		t.Errorf("it is answered %v", err)
	}
	rafttest.WaitFor(t, "it is logged", time.Second, func() bool { return strings.Contains(log.String(), "must not have one ID") })
	if c, err := ours.Dial(theirs.server(), time.Second); err == nil {
		_ = c.Close()
		t.Error("a node dials itself")
	}
}

// A node that has got the address of a dead member does not look for that member at
// its own door.
func TestNoMemberIsLookedForAtTheOwnAddress(t *testing.T) {
	s := NewStream(newMemNet().listen("a:1"), StreamOptions{Member: "a", Advertise: "host-a:1", Dial: func(context.Context, string) (net.Conn, error) {
		t.Error("it was dialled")
		return nil, errors.New("no")
	}})
	defer s.Close()
	for _, target := range []raft.ServerAddress{"b@a:1", "b@host-a:1", "a@b:1", "b:1"} {
		if c, err := s.Dial(target, time.Second); err == nil {
			_ = c.Close()
			t.Errorf("Dial(%s) succeeded", target)
		}
	}
}

// Raft keeps a vote under what the candidate calls itself. If that were its address,
// the one that gets this address next could ask for the vote again.
func TestVoteForACandidateIsNoVoteForTheNextAtItsAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		x := NewTransport(network.listen("x"), TransportOptions{})
		stores := mustOpen(t, disk.StoreOptions{NodeID: "x", Memory: memory()})
		conf := rafttest.Config("x")
		conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = time.Hour, time.Hour, time.Hour
		voters := raft.Configuration{Servers: []raft.Server{{ID: "x", Address: "x"}, {ID: "b", Address: "b"}, {ID: "c", Address: "c"}}}
		if err := raft.BootstrapCluster(conf, stores.Log, stores.Stable, stores.Snapshots, x, voters); err != nil {
			t.Fatal(err)
		}
		r, err := NewRaft(conf, &rafttest.Machine{}, stores, x)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = Stop(r, x, 0, time.Second) }()
		ask := func(candidate raft.ServerID) bool {
			trans := NewTransport(network.listen("same:1"), TransportOptions{})
			defer trans.Close()
			header := raft.RPCHeader{ProtocolVersion: 3, ID: []byte(candidate), Addr: trans.EncodePeer(candidate, trans.LocalAddr())}
			var resp raft.RequestVoteResponse
			req := &raft.RequestVoteRequest{RPCHeader: header, Term: 7, LastLogIndex: 9, LastLogTerm: 6}
			if err := trans.RequestVote("x", "x", req, &resp); err != nil {
				t.Fatal(err)
			}
			return resp.Granted
		}
		if got := []bool{ask("b"), ask("c"), ask("b")}; !slices.Equal(got, []bool{true, false, true}) {
			t.Errorf("votes for b, for c at the same address, and again for b: %v, want the first and the last", got)
		}
	})
}

// addresses are hints that change.
type addresses struct{ of map[raft.ServerID][]string }

func (a *addresses) RaftAddresses(id raft.ServerID) []string { return a.of[id] }

// Hints may be wrong: each is tried after the one before it has failed, and the
// address in raft's configuration last.
func TestEveryPlaceOfAMemberIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		hints := &addresses{of: map[raft.ServerID][]string{"b": {"wrong", "wrong too"}}}
		a := NewTransport(network.listen("a"), TransportOptions{Addresses: hints})
		defer a.Close()
		serve(t, NewTransport(network.listen("right"), TransportOptions{}), accept)
		for range 2 {
			if err := appendTo(a, "b@right"); err == nil {
				t.Error("an answer came from where nobody is")
			}
		}
		for range 3 {
			if err := appendTo(a, "b@right"); err != nil {
				t.Errorf("the place of raft's configuration: %v", err)
			}
		}
		hints.of["b"] = []string{"right"}
		if err := appendTo(a, "b@wrong"); err != nil {
			t.Errorf("the only hint is right: %v", err)
		}
	})
}

func TestMemberAddressesAreReadAsWritten(t *testing.T) {
	for _, c := range []struct{ id, hostport string }{{"n1", "10.0.0.1:7402"}, {"a@b", "[::1]:1"}, {"", "x:1"}} {
		if id, hostport := SplitMember(MemberAddress(c.id, c.hostport)); id != c.id || hostport != c.hostport {
			t.Errorf("%+v: read as %q at %q", c, id, hostport)
		}
	}
	if id, hostport := SplitMember("10.0.0.1:7402"); id != "" || hostport != "10.0.0.1:7402" {
		t.Errorf("a plain address: %q at %q", id, hostport)
	}
}

func TestBothEndsSayWhereTheirAPIIs(t *testing.T) {
	a, _ := listen(t, StreamOptions{Member: "a", API: "10.0.0.1:7400"})
	b, _ := listen(t, StreamOptions{Member: "b", API: "10.0.0.2:7400"})
	c, err := a.Dial(MemberAddress("b", b.Addr().String()), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := a.API("b"); got != "10.0.0.2:7400" {
		t.Errorf("who dialled has heard %q", got)
	}
	rafttest.WaitFor(t, "who was dialled hears it", time.Second, func() bool { return b.API("a") == "10.0.0.1:7400" })
	if got := a.API("c"); got != "" {
		t.Errorf("of a node that was never met it has heard %q", got)
	}
	for i := range 2 * maxAPIs {
		a.noteAPI(preface{from: fmt.Sprint(i), api: "x:1"})
	}
	if n := len(a.apis); n > maxAPIs {
		t.Errorf("%d addresses are remembered, at most %d are allowed", n, maxAPIs)
	}
}
