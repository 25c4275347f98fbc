package network

import (
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/proof/rafttest"
)

// as is a transport from which another one of the cluster seems to speak.
func (m *member) as(t *testing.T, name string) *Transport {
	t.Helper()
	network := m.trans.streams.StreamLayer.(*memLayer).net
	trans := NewTransport(network.listen(raft.ServerAddress("as "+name)), TransportOptions{})
	t.Cleanup(func() { _ = trans.Close() })
	return trans
}

// says sends one request to a member. What becomes of it the caller sees.
type says func(trans *Transport, to raft.ServerAddress) error

func saysBeat(from string, term uint64) says {
	return func(trans *Transport, to raft.ServerAddress) error {
		req := &raft.AppendEntriesRequest{RPCHeader: header(from), Term: term}
		return trans.AppendEntries("", to, req, &raft.AppendEntriesResponse{})
	}
}

func saysEntries(from string, req raft.AppendEntriesRequest) says {
	return func(trans *Transport, to raft.ServerAddress) error {
		req.RPCHeader = header(from)
		return trans.AppendEntries("", to, &req, &raft.AppendEntriesResponse{})
	}
}

func saysVote(from string, term, index, lastTerm uint64) says {
	return func(trans *Transport, to raft.ServerAddress) error {
		req := &raft.RequestVoteRequest{RPCHeader: header(from), Term: term, LastLogIndex: index, LastLogTerm: lastTerm, LeadershipTransfer: true}
		return trans.RequestVote("", to, req, &raft.RequestVoteResponse{})
	}
}

func saysPreVote(from string, term, index, lastTerm uint64) says {
	return func(trans *Transport, to raft.ServerAddress) error {
		req := &raft.RequestPreVoteRequest{RPCHeader: header(from), Term: term, LastLogIndex: index, LastLogTerm: lastTerm}
		return trans.RequestPreVote("", to, req, &raft.RequestPreVoteResponse{})
	}
}

func saysSnapshot(from string, req raft.InstallSnapshotRequest) says {
	return func(trans *Transport, to raft.ServerAddress) error {
		req.RPCHeader, req.SnapshotVersion, req.Size = header(from), 1, 5
		req.Configuration = raft.EncodeConfiguration(fuzzedVoters)
		return trans.InstallSnapshot("", to, &req, &raft.InstallSnapshotResponse{}, strings.NewReader("state"))
	}
}

// standing is what must be as it was.
type standing struct {
	leader string
	term   uint64
	last   uint64
}

func standingOf(m *member) standing {
	_, leader := m.raft.LeaderWithID()
	return standing{string(leader), m.raft.CurrentTerm(), m.raft.LastIndex()}
}

// Each of these requests was the end of a cluster for good, or of its leader, when one of
// them came.
func TestImplausibleNumbersLeaveTheClusterAsItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		defer stop(t, all)
		leader := leaderOf(t, all, time.Second)
		from := without(all, leader)[0].id
		now, last := leader.raft.CurrentTerm(), leader.raft.LastIndex()
		follow := func(term, prevTerm uint64, logs ...*raft.Log) raft.AppendEntriesRequest {
			return raft.AppendEntriesRequest{Term: term, PrevLogEntry: last, PrevLogTerm: prevTerm, Entries: logs, LeaderCommitIndex: math.MaxUint64}
		}
		const most = math.MaxUint64
		for name, say := range map[string]says{
			"heartbeat of the last term":         saysBeat(from, most),
			"heartbeat of a term beyond all":     saysBeat(from, now+farAhead+1),
			"entries of the last term":           saysEntries(from, follow(most, now, &raft.Log{Index: last + 1, Term: most})),
			"nothing of the last term":           saysEntries(from, follow(most, now)),
			"entry before it of a later term":    saysEntries(from, follow(now, now+1)),
			"entry of a later term":              saysEntries(from, follow(now, now, &raft.Log{Index: last + 1, Term: now + 1})),
			"entries past the last index":        saysEntries(from, raft.AppendEntriesRequest{Term: now, PrevLogEntry: most, PrevLogTerm: now, Entries: []*raft.Log{{Term: now}}}),
			"vote in the last term":              saysVote(from, most, last, now),
			"vote for a log of the last term":    saysVote(from, most, last, most),
			"vote for a log of a later term":     saysVote(from, now+1, last, now+1),
			"pre-vote in the last term":          saysPreVote(from, most, last, now),
			"pre-vote for a log of a later term": saysPreVote(from, now+1, last, now+1),
			"snapshot of the last term":          saysSnapshot(from, raft.InstallSnapshotRequest{Term: most, LastLogIndex: last, LastLogTerm: now}),
			"snapshot of a later term":           saysSnapshot(from, raft.InstallSnapshotRequest{Term: now, LastLogIndex: last, LastLogTerm: now + 1}),
			"snapshot up to the last index":      saysSnapshot(from, raft.InstallSnapshotRequest{Term: now, LastLogIndex: most, LastLogTerm: now}),
			"snapshot whose voters come later":   saysSnapshot(from, raft.InstallSnapshotRequest{Term: now, LastLogIndex: last, LastLogTerm: now, ConfigurationIndex: most}),
		} {
			before := standingOf(leader)
			for _, m := range all {
				trans := m.as(t, name)
				for range 3 { // repeating it makes it no better
					if err := say(trans, raft.ServerAddress(m.id)); err == nil {
						t.Errorf("%s: %s has not refused it", name, m.id)
					}
				}
				_ = trans.Close()
			}
			time.Sleep(time.Second)
			for _, m := range all {
				if got := standingOf(m); got != before {
					t.Errorf("%s: %s is at %+v, it was at %+v", name, m.id, got, before)
				}
			}
		}
		if err := leader.raft.Apply([]byte("x"), time.Second).Error(); err != nil {
			t.Errorf("Apply after all of them: %v", err)
		}
	})
}

// A peer that answers with such a number is as good as silent.
func TestImplausibleAnswersLeaveTheLeaderAsItWas(t *testing.T) {
	for name, answer := range map[string]raft.AppendEntriesResponse{
		"term":  {Term: math.MaxUint64},
		"index": {LastLog: math.MaxUint64, NoRetryBackoff: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			network := newMemNet()
			c := newPuppet(network, "c")
			defer c.close()
			b := NewTransport(network.listen("b"), TransportOptions{})
			serve(t, b, func(rpc raft.RPC) {
				switch rpc.Command.(type) {
				case *raft.RequestPreVoteRequest:
					rpc.Respond(&raft.RequestPreVoteResponse{Term: math.MaxUint64}, nil)
				case *raft.RequestVoteRequest:
					rpc.Respond(&raft.RequestVoteResponse{Term: math.MaxUint64}, nil)
				case *raft.AppendEntriesRequest:
					rpc.Respond(&answer, nil)
				}
			})
			trans := NewTransport(network.listen("a"), TransportOptions{})
			r, _ := startAmong(t, trans, rafttest.Config("a"), &rafttest.Machine{})
			defer func() {
				_ = trans.Close()
				if err := Shutdown(r, 5*time.Second); err != nil {
					t.Error(err)
				}
			}()
			rafttest.WaitFor(t, "a leads with c's vote", 5*time.Second, func() bool { return r.State() == raft.Leader })
			term := r.CurrentTerm()
			time.Sleep(2 * time.Second)
			if got := r.CurrentTerm(); got != term || term > nearTerms {
				t.Errorf("%s: the term is %d, it was %d", name, got, term)
			}
			if trans.Answers("b") {
				t.Errorf("%s: b is said to answer", name)
			}
		})
	}
}

// Who was away for long, or has just joined, is told of large numbers by members that
// say them again.
func TestWhoWasAwayCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		trans := NewTransport(network.listen("a"), TransportOptions{})
		conf := rafttest.Config("a")
		conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = time.Hour, time.Hour, time.Hour
		r, _ := startAmong(t, trans, conf, &rafttest.Machine{})
		defer func() { _ = Stop(r, trans, 0, 5*time.Second) }()
		leader := NewTransport(network.listen("b"), TransportOptions{})
		defer leader.Close()
		const term, last = 1 << 33, 1 << 38
		beat := func(term uint64) error { return saysBeat("b", term)(leader, "a") }
		if err := beat(term); err == nil || !strings.Contains(err.Error(), "term 8589934592, this node is at 1") {
			t.Errorf("the first time: %v, want it refused, with both numbers", err)
		}
		if err := beat(term + 1); err != nil || r.CurrentTerm() != term+1 {
			t.Errorf("the second time: %v, in term %d", err, r.CurrentTerm())
		}
		// As a leader does, it looks for the end of the log before it sends a snapshot.
		_ = saysEntries("b", raft.AppendEntriesRequest{Term: term + 1, PrevLogEntry: last + 3, PrevLogTerm: term})(leader, "a")
		snapshot := saysSnapshot("b", raft.InstallSnapshotRequest{Term: term + 1, LastLogIndex: last, LastLogTerm: term})
		_ = snapshot(leader, "a")
		if err := snapshot(leader, "a"); err != nil || r.LastIndex() != last {
			t.Errorf("snapshot: %v, the last entry is %d", err, r.LastIndex())
		}
		// It cannot be had at once again, neither by another one.
		for range 3 {
			if err := beat(term + 1<<34); err == nil {
				t.Error("the term leaps again")
			}
		}
		if err := beat(term + 2); err != nil {
			t.Errorf("the next term: %v", err)
		}
		time.Sleep(leapEvery)
		if err := beat(term + 1<<34); err != nil {
			t.Errorf("after %v: %v", leapEvery, err)
		}
	})
}

func TestHorizonKeepsItsSize(t *testing.T) {
	h := horizon{what: "term", near: 10}
	for i := range 10 * maxSaid {
		h.note(strings.Repeat("x", i), 1<<20)
	}
	if len(h.said) > maxSaid {
		t.Errorf("%d are remembered", len(h.said))
	}
}

// Who does not lead gives no leadership away.
func TestOnlyTheLeaderHasOthersElected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		defer stop(t, all)
		leader := leaderOf(t, all, time.Second)
		rest := without(all, leader)
		before := standingOf(leader)
		trans := rest[0].as(t, "x")
		defer trans.Close()
		err := trans.TimeoutNow("", raft.ServerAddress(rest[1].id), &raft.TimeoutNowRequest{RPCHeader: header(rest[0].id)}, &raft.TimeoutNowResponse{})
		time.Sleep(time.Second)
		if got := standingOf(leader); err == nil || got != before {
			t.Errorf("TimeoutNow = %v; the leader is at %+v, it was at %+v", err, got, before)
		}
	})
}

// A node that is not in the configuration cannot lead one that is led; one that hears
// nobody may have missed that it was taken in.
func TestUnknownNodeLeadsNobodyWhoIsLed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		defer stop(t, all)
		leader := leaderOf(t, all, time.Second)
		follower := without(all, leader)[0]
		before := standingOf(leader)
		trans := follower.as(t, "x")
		defer trans.Close()
		at := raft.ServerAddress(follower.id)
		for _, say := range []says{
			saysBeat("x", before.term+1), saysEntries("x", raft.AppendEntriesRequest{Term: before.term + 1, PrevLogEntry: before.last, PrevLogTerm: before.term}),
			saysSnapshot("x", raft.InstallSnapshotRequest{Term: before.term + 1, LastLogIndex: before.last + 1, LastLogTerm: before.term}),
		} {
			if err := say(trans, at); err == nil {
				t.Error("it is heard")
			}
		}
		time.Sleep(time.Second)
		if got := standingOf(follower); got != before {
			t.Errorf("the follower is at %+v, it was at %+v", got, before)
		}
		for _, m := range without(all, follower) {
			m.link.set(errors.New("cut off"))
		}
		time.Sleep(time.Second)
		for i := range 3 { // more than one: it is led by this one now
			if err := saysBeat("x", before.term+5)(trans, at); err != nil {
				t.Errorf("heartbeat %d to a node that hears nobody: %v", i, err)
			}
		}
		if _, led := follower.raft.LeaderWithID(); led != "x" {
			t.Errorf("it follows %q", led)
		}
		_ = trans.Close()
		for _, m := range all {
			m.link.set(nil)
		}
	})
}

// What comes of an earlier term defends no leader: recorded heartbeats of one that is
// gone do not hold up an election.
func TestHeartbeatsOfAnEarlierTermDefendNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := startCluster(t, "a", "b", "c")
		leader := leaderOf(t, all, time.Second)
		m := without(all, leader)[0]
		old := leader.raft.CurrentTerm()
		if old > 1 {
			old--
		}
		for _, o := range without(all, m) {
			o.link.set(errors.New("cut off"))
		}
		trans := m.as(t, "x")
		defer trans.Close()
		deadline := time.Now().Add(time.Second)
		for time.Now().Before(deadline) {
			_ = saysBeat(leader.id, old-1)(trans, raft.ServerAddress(m.id))
			time.Sleep(20 * time.Millisecond)
		}
		if !m.trans.silent() {
			t.Error("the leader of an earlier term counts as heard")
		}
		_ = trans.Close()
		for _, o := range all {
			o.link.set(nil)
		}
		stop(t, all)
	})
}
