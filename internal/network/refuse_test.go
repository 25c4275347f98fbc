package network

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/proof/fuzz"
	"github.com/locknode/locknode/internal/proof/rafttest"
)

// Each of these, sent to a follower, ended the process with a panic of raft or
// the node with a write that its log refuses.
func TestDamagedRequestDoesNotReachRaft(t *testing.T) {
	one := func(l *raft.Log) []byte { return appendFrames(t, l) }
	cases := map[string][]byte{
		"entry is nil":                  appendFrames(t, nil),
		"type is unknown":               one(&raft.Log{Index: 2, Term: 2, Type: 77}),
		"entries leave a gap":           appendFrames(t, rafttest.Entries(3, 4, 2)...),
		"entries are there twice":       appendFrames(t, append(rafttest.Entries(2, 3, 2), rafttest.Entries(3, 4, 2)...)...),
		"term falls":                    appendFrames(t, append(rafttest.Entries(2, 2, 2), rafttest.Entries(3, 3, 1)...)...),
		"term of the future":            appendFrames(t, rafttest.Entries(2, 2, 9)...),
		"configuration is empty":        one(&raft.Log{Index: 2, Term: 2, Type: raft.LogConfiguration}),
		"configuration takes 4 GiB":     one(&raft.Log{Index: 2, Term: 2, Type: raft.LogConfiguration, Data: []byte("\x81\xa1x" + hugeExtension)}),
		"configuration is cut off":      one(&raft.Log{Index: 2, Term: 2, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(fuzzedVoters)[:20]}),
		"configuration without a voter": one(&raft.Log{Index: 2, Term: 2, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(raft.Configuration{})}),
		"server is there twice": one(&raft.Log{Index: 2, Term: 2, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(raft.Configuration{
			Servers: []raft.Server{{ID: "a", Address: "a:1"}, {ID: "a", Address: "a:1"}},
		})}),
		"snapshot without configuration": framesOf(t, func(trans *Transport) {
			req := &raft.InstallSnapshotRequest{RPCHeader: header("b"), SnapshotVersion: 1, Term: 2, LastLogIndex: 9, LastLogTerm: 1, Size: 5}
			_ = trans.InstallSnapshot("a", "a:1", req, &raft.InstallSnapshotResponse{}, strings.NewReader("state"))
		}),
	}
	for name, frames := range cases {
		t.Run(name, func(t *testing.T) {
			v := startVictim(t)
			defer v.stop(t)
			before := v.raft.LastIndex()
			// What follows on the same connection is understood.
			var answers []byte
			if n := fuzz.Allocated(func() { answers = v.feed(append(bytes.Clone(frames), beatFrame(t)...)) }); n > 4<<20 {
				t.Errorf("%d bytes allocated", n)
			}
			if got := v.raft.LastIndex(); got != before || v.raft.State() != raft.Follower {
				t.Errorf("last index %d, want %d; state %v", got, before, v.raft.State())
			}
			if n := bytes.Count(answers, []byte("LastLog")); n != 1 {
				t.Errorf("%d requests were answered after the damaged one, want 1: %q", n, answers)
			}
			select {
			case err := <-v.failed:
				t.Errorf("a write failed: %v", err)
			default:
			}
		})
	}
}

// What leaders do send is taken; the cases above would prove nothing otherwise.
func TestSoundRequestsReachRaft(t *testing.T) {
	for name, want := range map[string]uint64{"entries": 4, "config": 2, "snapshot": 9, "heartbeat": 1, "vote": 1} {
		t.Run(name, func(t *testing.T) {
			v := startVictim(t)
			defer v.stop(t)
			answers := v.feed(everyFrame(t)[name])
			if got := v.raft.LastIndex(); got != want || len(answers) < 2 {
				t.Errorf("last index is %d, want %d; answered %q", got, want, answers)
			}
		})
	}
	if err := unsound(&raft.AppendEntriesRequest{Term: 1, Entries: []*raft.Log{{Index: 1, Term: 1}, {Index: 2, Term: 1, Type: raft.LogBarrier}}}); err != nil {
		t.Errorf("the first entries of a log: %v", err)
	}
}
