package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// intrude connects to a node of a network as somebody who speaks the protocol, knows the
// cluster's ID, and says that it is from. It listens nowhere unless at is not empty.
func intrude(t *testing.T, network *memNet, to, from, at string) (net.Conn, error) {
	t.Helper()
	l := &memLayer{net: network}
	c, err := l.Dial(raft.ServerAddress(to), time.Second)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	greeted, err := Greet(c, from, to, at, ClusterIdentity{ID: secretID})
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return greeted, c.SetDeadline(time.Time{})
}

// recordedBeat are the bytes of a heartbeat.
func recordedBeat(t *testing.T, from string, term uint64) []byte {
	t.Helper()
	return framesOf(t, func(trans *Transport) { _ = saysBeat(from, term)(trans, "x") })
}

// Heartbeats in the name and term of a dead leader, from somebody else, kept the
// survivors from electing for as long as they came.
func TestHeartbeatsInADeadLeadersNameKeepNobodyFromElecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		all := startCalledBack(t, network, "a", "b", "c")
		dead := leaderOf(t, all, time.Second)
		term := dead.raft.CurrentTerm()
		rest := without(all, dead)
		stop(t, []*member{dead})
		beat := recordedBeat(t, dead.id, term)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, m := range rest {
			wg.Go(func() {
				for ctx.Err() == nil {
					c, err := intrude(t, network, m.id, dead.id, "nowhere")
					for err == nil && ctx.Err() == nil {
						if _, err = c.Write(beat); err == nil {
							_, err = c.Read(make([]byte, 1024))
						}
						time.Sleep(20 * time.Millisecond)
					}
					time.Sleep(20 * time.Millisecond)
				}
			})
		}
		start := time.Now()
		leaderOf(t, rest, 5*time.Second)
		t.Logf("elected after %v of virtual time", time.Since(start))
		cancel()
		wg.Wait()
		stop(t, rest)
	})
}

func TestNobodyIsTakenAtItsWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		all := startCalledBack(t, network, "a", "b", "c")
		defer stop(t, all)
		leader := leaderOf(t, all, time.Second)
		follower := without(all, leader)[0]
		for name, from := range map[string]string{"the leader, which lives": leader.id, "nobody": "x"} {
			c, err := intrude(t, network, follower.id, from, "")
			if err == nil {
				_ = c.Close()
				t.Errorf("%s: it is let in", name)
			} else if !strings.Contains(err.Error(), "dialled") {
				t.Errorf("%s: it is told %v", name, err)
			}
		}
		// A node that nobody knows is asked where it says that it is.
		x := network.listen("x").stream(StreamOptions{Cluster: func() ClusterIdentity { return ClusterIdentity{ID: secretID} }})
		defer x.Close()
		c, err := x.Dial(MemberAddress(follower.id, follower.id), time.Second)
		if err != nil {
			t.Fatalf("a node that listens where it says: %v", err)
		}
		_ = c.Close()
		if c, err := intrude(t, network, follower.id, "x", "x"); err == nil {
			_ = c.Close()
			t.Error("somebody is let in as a node that has not dialled")
		}
	})
}

// A member is asked wherever it may be, and one place that swallows the question does not
// hold up the answer of another.
func TestAMemberIsAskedAtAllItsPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		silent := network.listen("silent")
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				if _, err := silent.Accept(); err != nil {
					return
				}
			}
		})
		a, b := network.listen("a").stream(StreamOptions{CallBack: true}), network.listen("b").stream(StreamOptions{CallBack: true})
		hints := &addresses{of: map[raft.ServerID][]string{"b": {"silent", "nowhere", "a", "b"}}}
		ta := NewTransport(a, TransportOptions{Addresses: hints})
		tb := NewTransport(b, TransportOptions{})
		start := time.Now()
		c, err := b.Dial("a@a", time.Second)
		if err != nil || time.Since(start) > 100*time.Millisecond {
			t.Errorf("Dial: %v after %v", err, time.Since(start))
		} else {
			_ = c.Close()
		}
		hints.of["b"] = []string{"silent"}
		_, err = b.Dial("a@a", 10*time.Second)
		if took := time.Since(start); err == nil || took > defaultHandshake || !strings.Contains(err.Error(), "firewall") {
			t.Errorf("where it does not answer: %v after %v, want a refusal that says what helps", err, took)
		}
		_ = errors.Join(ta.Close(), tb.Close(), silent.Close())
		wg.Wait()
	})
}

// A question that comes when the dial is over is answered no, and is not somebody else's use
// of the name.
func TestALateQuestionIsNotBlamedOnAStranger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		var log bytes.Buffer
		a := network.listen("a").stream(StreamOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		ta := NewTransport(a, TransportOptions{})
		a.dials("nonce", "b")()
		b := network.listen("b").stream(StreamOptions{})
		tb := NewTransport(b, TransportOptions{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for nonce, want := range map[string]string{"nonce": "any more", "other": "has not dialled"} {
			err := b.ask(ctx, "a", preface{from: "a", nonce: nonce})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("a question about %q is answered %v, want no: %s", nonce, err, want)
			}
		}
		synctest.Wait()
		if err := errors.Join(ta.Close(), tb.Close()); err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "somebody has used this node's name"); n != 1 {
			t.Errorf("strangers are blamed %d times, want once:\n%s", n, &log)
		}
	})
}

// Each waits for the other's answer and has to answer the other's question meanwhile.
func TestTwoNodesMayDialEachOtherAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		a, b := network.listen("a").stream(StreamOptions{CallBack: true}), network.listen("b").stream(StreamOptions{CallBack: true})
		ta, tb := NewTransport(a, TransportOptions{}), NewTransport(b, TransportOptions{})
		var wg sync.WaitGroup
		for range 20 { // with their questions fewer than there are places for handshakes
			for from, to := range map[*Stream]raft.ServerAddress{a: "b@b", b: "a@a"} {
				wg.Go(func() {
					c, err := from.Dial(to, time.Second)
					if err != nil {
						t.Errorf("Dial: %v", err)
						return
					}
					_ = c.Close()
				})
			}
		}
		wg.Wait()
		if err := errors.Join(ta.Close(), tb.Close()); err != nil {
			t.Error(err)
		}
		if len(a.dialled)+len(b.dialled) > 0 {
			t.Errorf("%d and %d dials are remembered", len(a.dialled), len(b.dialled))
		}
	})
}

// A node that nobody knows may make this node dial any address, but not many at a time.
func TestFewUnknownNodesAreAskedAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		silent := network.listen("silent")
		all := startCalledBack(t, network, "a", "b", "c")
		var wg sync.WaitGroup
		var open, most int
		var mu sync.Mutex
		count := func(by int) {
			mu.Lock()
			defer mu.Unlock()
			open += by
			most = max(most, open)
		}
		wg.Go(func() {
			for {
				c, err := silent.Accept()
				if err != nil {
					return
				}
				count(1)
				wg.Go(func() {
					_, _ = io.Copy(io.Discard, c)
					count(-1)
				})
			}
		})
		var strangers sync.WaitGroup
		for i := range 10 * maxUnheardOf {
			strangers.Go(func() { _, _ = intrude(t, network, "a", fmt.Sprint("x", i), "silent") })
		}
		strangers.Wait()
		_ = silent.Close()
		stop(t, all)
		wg.Wait()
		if most != maxUnheardOf {
			t.Errorf("up to %d were asked at a time, want %d", most, maxUnheardOf)
		}
	})
}

// While as many strangers as like hold connections, members get in, and a leader is
// elected.
func TestIdleStrangersKeepNoMemberOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		var wg sync.WaitGroup
		stranger := &memLayer{net: network}
		hold := func(to string) { // and come again when they are thrown out
			for range 512 {
				wg.Go(func() {
					for {
						c, err := stranger.Dial(raft.ServerAddress(to), time.Second)
						if err != nil {
							return
						}
						_, _ = c.Read(make([]byte, 1))
						_ = c.Close()
						time.Sleep(100 * time.Millisecond)
					}
				})
			}
		}
		all := startCalledBack(t, network, "a", "b", "c")
		for _, m := range all {
			hold(m.id)
		}
		time.Sleep(time.Second)
		leader := leaderOf(t, all, time.Second)
		rest := without(all, leader)
		stop(t, []*member{leader})
		next := leaderOf(t, rest, 5*time.Second)
		if err := next.raft.Apply([]byte("x"), time.Second).Error(); err != nil {
			t.Error(err)
		}
		for _, m := range rest {
			s := m.trans.streams.StreamLayer.(*Stream)
			s.mu.Lock()
			if n := len(s.room.shaking); n > defaultHandshakes {
				t.Errorf("%s has %d connections in their handshake", m.id, n)
			}
			s.mu.Unlock()
		}
		stop(t, rest)
		wg.Wait()
	})
}

// One more handshake than there is room for ends the oldest of who has most.
func TestWhoHasMostHandshakesGivesWay(t *testing.T) {
	r := room{}
	for i, host := range []string{"member", "x", "y", "x", "y", "x"} {
		r.shaking = append(r.shaking, &admitted{host: host, owner: fmt.Sprint(i)})
	}
	if got := r.mostOf(); got.owner != "1" {
		t.Errorf("connection %s of %s has to go, want the oldest of x", got.owner, got.host)
	}
}

// A member has room for so many connections, and a new one ends its oldest.
func TestAMembersOldestConnectionGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		s := network.listen("a").stream(StreamOptions{MaxPerMember: 3})
		trans := NewTransport(s, TransportOptions{})
		serve(t, trans, accept)
		of := map[string][]net.Conn{}
		for _, id := range []string{"b", "c"} {
			client := network.listen(raft.ServerAddress(id)).stream(StreamOptions{})
			defer client.Close()
			for range 5 {
				c, err := client.Dial("a@a", time.Second)
				if err != nil {
					t.Fatal(err)
				}
				of[id] = append(of[id], c)
			}
		}
		synctest.Wait()
		for id, conns := range of {
			for i, c := range conns {
				_ = c.SetReadDeadline(time.Now().Add(time.Second))
				var timeout net.Error
				_, err := c.Read(make([]byte, 1))
				if open := errors.As(err, &timeout) && timeout.Timeout(); open != (i >= 2) {
					t.Errorf("connection %d of %s: %v", i, id, err)
				}
				_ = c.Close()
			}
		}
	})
}

// Who does not know the cluster is told nothing of it, neither by who is dialled nor by
// who dials.
func TestStrangersLearnNothingOfTheCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		own := ClusterIdentity{ID: secretID, Founders: "founders-x", Name: "name-x"}
		s := network.listen("node-a").stream(StreamOptions{API: "api-x:1", Cluster: func() ClusterIdentity { return own }})
		defer s.Close()
		ask := func(p preface) string {
			c, err := (&memLayer{net: network}).Dial("node-a", time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = c.Write([]byte(p.line()))
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			answer, _ := io.ReadAll(c)
			return string(answer)
		}
		for _, say := range []string{sayHello, sayAsk} {
			got := ask(preface{say: say, cluster: ClusterIdentity{ID: "other"}.hashed("1"), from: "x", to: "y", nonce: "1"})
			if !strings.HasPrefix(got, prefaceStart+sayNo) {
				t.Errorf("%s is answered %q", say, got)
			}
			for _, secret := range []string{own.ID, own.Founders, own.Name, "node-a", "api-x"} {
				if strings.Contains(got, secret) {
					t.Errorf("%s is answered %q, which tells %s", say, got, secret)
				}
			}
		}
		// And a stranger who is dialled.
		trap := network.listen("trap")
		defer trap.Close()
		heard := make(chan []byte, 1)
		go func() {
			c, err := trap.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			b := make([]byte, prefaceMax)
			n, _ := c.Read(b)
			heard <- b[:n]
		}()
		if _, err := s.Dial("b@trap", time.Second); err == nil {
			t.Error("a trap is taken for a member")
		}
		line := <-heard
		for _, secret := range []string{own.ID, own.Founders, own.Name} {
			if bytes.Contains(line, []byte(secret)) {
				t.Errorf("who is dialled hears %q, which tells %s", line, secret)
			}
		}
	})
}

// BenchmarkReconnect is a new connection on loopback, with its first request: what a
// candidate pays for each voter.
func BenchmarkReconnect(b *testing.B) {
	for _, calledBack := range []bool{false, true} {
		b.Run(fmt.Sprintf("called_back=%v", calledBack), func(b *testing.B) {
			on := func(id string) (*Stream, *Transport) {
				s, err := ListenTCP("127.0.0.1:0", StreamOptions{Member: id, CallBack: calledBack})
				if err != nil {
					b.Fatal(err)
				}
				return s, NewTransport(s, TransportOptions{})
			}
			sa, ta := on("a")
			sb, tb := on("b")
			defer ta.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					select {
					case rpc := <-tb.Consumer():
						accept(rpc)
					case <-tb.done:
						return
					}
				}
			}()
			req := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("a")}, Term: 1}
			for b.Loop() {
				if err := ta.AppendEntries("b", MemberAddress("b", sb.Addr().String()), req, &raft.AppendEntriesResponse{}); err != nil {
					b.Fatal(err)
				}
				ta.CloseStreams()
			}
			_ = sa
			_ = tb.Close()
			<-done
		})
	}
}
