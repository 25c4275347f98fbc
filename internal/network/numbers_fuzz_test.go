package network

import (
	"bytes"
	"context"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/proof/fuzz"
)

// near picks a number that is, or is close to, one that means something to a node that has
// come to own.
func near(c *fuzz.Bytes, own uint64) uint64 {
	base := []uint64{0, own, own + nearTerms, own + nearEntries, own + farAhead, 1 << 60, math.MaxUint64, 1 << 31, 1 << 32, 1 << 63, c.Uint64()}[c.Pick(11)]
	return base + uint64(c.Pick(5)) - 2 //nolint:gosec // it may wrap
}

// speak makes a request out of choices, from a node of some name.
func speak(c *fuzz.Bytes, from string, term, last uint64) (say says, kind string) {
	kinds := []string{"heartbeat", "entries", "vote", "pre-vote", "snapshot", "timeout now"}
	switch kind = kinds[c.Pick(len(kinds))]; kind {
	case "heartbeat":
		return saysBeat(from, near(c, term)), kind
	case "entries":
		req := raft.AppendEntriesRequest{Term: near(c, term), PrevLogEntry: near(c, last), PrevLogTerm: near(c, term), LeaderCommitIndex: near(c, last)}
		for range c.Pick(4) {
			req.Entries = append(req.Entries, &raft.Log{Index: near(c, last), Term: near(c, term), Type: raft.LogType(c.Pick(8)), Data: c.Take()})
		}
		return saysEntries(from, req), kind
	case "vote":
		return saysVote(from, near(c, term), near(c, last), near(c, term)), kind
	case "pre-vote":
		return saysPreVote(from, near(c, term), near(c, last), near(c, term)), kind
	case "snapshot":
		return saysSnapshot(from, raft.InstallSnapshotRequest{
			Term: near(c, term), LastLogIndex: near(c, last), LastLogTerm: near(c, term), ConfigurationIndex: near(c, last),
		}), kind
	}
	return func(trans *Transport, to raft.ServerAddress) error {
		return trans.TimeoutNow("", to, &raft.TimeoutNowRequest{RPCHeader: header(from)}, &raft.TimeoutNowResponse{})
	}, kind
}

// FuzzRaftNumbers sends requests whose terms and indexes are near the true ones, or near a
// bound. No term and no index goes farther ahead than one request may take it, one at most
// leaps, none goes back, and nobody but the leader has the follower elected.
func FuzzRaftNumbers(f *testing.F) {
	f.Add([]byte{0, 0, 6, 2})                   // the last term
	f.Add([]byte{0, 0, 4, 2, 0, 0, 4, 2})       // one that is far, twice
	f.Add([]byte{0, 4, 1, 2, 6, 2, 1, 2, 0, 2}) // a snapshot up to the last index
	f.Add([]byte{0, 5})
	f.Add([]byte{1, 1, 1, 3, 1, 2, 1, 2, 1, 2, 1, 1, 3, 1, 3, 0, 1, 'x'})
	f.Add([]byte{2, 2, 6, 2, 1, 2, 1, 2})
	f.Fuzz(func(t *testing.T, choices []byte) {
		defer fuzz.Watch()()
		v := startVictim(t)
		defer v.stop(t)
		c := &fuzz.Bytes{Data: choices}
		leaps := map[string]int{}
		for range 8 {
			if c.Empty() {
				break
			}
			from := []string{"b", "c", "x", "a"}[c.Pick(4)]
			term, last := v.raft.CurrentTerm(), v.raft.LastIndex()
			_, leader := v.raft.LeaderWithID()
			say, kind := speak(c, from, term, last)
			frames := framesOf(t, func(trans *Transport) { _ = say(trans, "x") })
			v.feedAs(from, frames)
			now := v.raft.CurrentTerm()
			if v.raft.State() != raft.Follower {
				if kind != "timeout now" || string(leader) != from {
					t.Fatalf("%s of %s made it a %v", kind, from, v.raft.State())
				}
				return
			}
			if ahead := now - term; now < term || ahead > farAhead {
				t.Fatalf("%s of %s took the term from %d to %d", kind, from, term, now)
			} else if ahead > nearTerms {
				leaps["term"]++
			}
			switch after := v.raft.LastIndex(); {
			case after > last && after-last > farAhead:
				t.Fatalf("%s of %s took the log from %d to %d", kind, from, last, after)
			case after > last && after-last > nearEntries:
				leaps["index"]++
			}
		}
		if leaps["term"] > 1 || leaps["index"] > 1 {
			t.Errorf("numbers leapt %v times", leaps)
		}
		select {
		case err := <-v.failed:
			t.Errorf("a write failed: %v", err)
		default:
		}
	})
}

// FuzzHandshake sends bytes to a port that calls back, in the name of members that exist
// and have not dialled. Nobody is let in, and nobody is told the cluster's ID.
func FuzzHandshake(f *testing.F) {
	own := ClusterIdentity{ID: secretID, Founders: "f1", Name: "lab"}
	for _, p := range []preface{
		{say: sayHello, from: "b", to: "a"}, {say: sayHello, from: "x", to: "a", raft: "b:1"}, {say: sayHello, from: "a", to: "a"},
		{say: sayHello, from: "b", to: "c"}, {say: sayAsk, from: "b", to: "a"}, {say: sayNo, reason: "x"}, {say: sayYes},
	} {
		p.cluster, p.nonce = own.hashed("1"), "1"
		f.Add([]byte(p.line()))
		f.Add(append([]byte(p.line()), beatFrame(f)...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		defer fuzz.Watch()()
		port := newPort()
		s := NewStream(port, StreamOptions{
			Member: "a", CallBack: true, Cluster: func() ClusterIdentity { return own },
			// Each member that is asked denies the dial.
			Dial: func(context.Context, string) (net.Conn, error) {
				return scripted{says: bytes.NewReader([]byte(preface{say: sayNo, reason: "b"}.line()))}, nil
			},
		})
		s.bind(func(id string) ([]string, bool) {
			if strings.Contains("bc", id) {
				return []string{id + ":1"}, true
			}
			return nil, false
		}, nil)
		var let sync.WaitGroup
		let.Go(func() {
			if c, err := s.Accept(); err == nil {
				t.Errorf("%q was let in", b)
				_ = c.Close()
			}
		})
		ours, theirs := fuzz.Pipe()
		port.in <- theirs
		let.Go(func() {
			_, _ = ours.Write(b)
			_ = ours.CloseWrite()
		})
		said, _ := io.ReadAll(ours)
		for _, secret := range []string{secretID, "lab"} {
			if bytes.Contains(said, []byte(secret)) && !bytes.Contains(b, []byte(secret)) {
				t.Errorf("%q is told %q", b, said)
			}
		}
		_ = ours.Close()
		_ = s.Close()
		let.Wait()
	})
}
