package network

import (
	"github.com/hashicorp/raft"
)

// How a heartbeat is answered. Raft's fast path handles it on the connection's goroutine,
// because its main goroutine may be busy with the disk; but there it changes the term while
// the leader loop runs (hashicorp/raft #695). To send every heartbeat to the main goroutine
// is safe, but on a disk whose writes take longer than the leader's lease the followers then
// answer too late, and no leader stays in office. So:
//
//   - every heartbeat goes to the main goroutine, and only there it changes raft;
//   - one that cannot change anything, because this node already follows its sender in its
//     term, is answered at once. The main goroutine gets it when it has time, and only the
//     newest of them.
//
// The answer says only that this node still follows. While a write to the disk hangs, the
// gate is closed and the answer is not sent.

// SetHeartbeatHandler does nothing, on purpose: the handler is raft's fast path.
func (t *Transport) SetHeartbeatHandler(func(raft.RPC)) {}

// Consumer returns the requests for raft's main goroutine. Raft calls it when it starts, and
// NewRaft has set before what pump needs.
func (t *Transport) Consumer() <-chan raft.RPC {
	t.asking.Do(func() { close(t.asked) })
	return t.toRaft
}

// heartbeat runs on the connection's goroutine.
func (t *Transport) heartbeat(rpc raft.RPC) {
	if !t.awaitRaft() {
		rpc.Respond(nil, raft.ErrTransportShutdown)
		return
	}
	if err := t.unfit(rpc.Command); err != nil {
		t.refuse(rpc, err)
		return
	}
	t.heard(rpc.Command)
	req, ok := rpc.Command.(*raft.AppendEntriesRequest)
	if !ok || !t.follows(req) {
		select {
		case t.toRaft <- rpc:
		case <-t.done:
			rpc.Respond(nil, raft.ErrTransportShutdown)
		}
		return
	}
	header := raft.RPCHeader{ProtocolVersion: req.ProtocolVersion}
	rpc.Respond(&raft.AppendEntriesResponse{RPCHeader: header, Term: req.Term, LastLog: t.member.Load().LastIndex(), Success: true}, nil)
	unheard := make(chan raft.RPCResponse, 1) // raft's answer, which is dropped
	select {
	case t.beats <- raft.RPC{Command: req, RespChan: unheard}:
	default: // another one is queued
	}
}

// follows reports whether raft would answer the heartbeat with success and change nothing.
func (t *Transport) follows(req *raft.AppendEntriesRequest) bool {
	m := t.member.Load()
	if m == nil || m.State() != raft.Follower || m.CurrentTerm() != req.Term {
		return false
	}
	_, leader := m.LeaderWithID()
	return leader != "" && string(leader) == string(req.ID)
}

// awaitRaft waits until raft runs, because requests are compared with raft's state. It
// returns false when the transport was closed.
func (t *Transport) awaitRaft() bool {
	select {
	case <-t.asked:
	case <-t.done:
		return false
	}
	running := t.running.Load()
	if running == nil {
		return true
	}
	select {
	case <-*running:
		return true
	case <-t.done:
		return false
	}
}

// pump passes requests to raft, except those that must not reach it; see refuse.go.
func (t *Transport) pump() {
	if !t.awaitRaft() {
		return
	}
	from := t.NetworkTransport.Consumer()
	for {
		var rpc raft.RPC
		select {
		case rpc = <-from:
			if err := t.unfit(rpc.Command); err != nil {
				t.refuse(rpc, err)
				continue
			}
			vouched(rpc.Command)
			if err := t.settle(rpc.Command); err != nil {
				t.refuse(rpc, err)
				continue
			}
			if t.answersVote(rpc) {
				continue
			}
			t.heard(rpc.Command)
			rpc = t.undefended(rpc)
		case rpc = <-t.beats:
		case <-t.done:
			return
		}
		select {
		case t.toRaft <- rpc:
		case <-t.done:
			return
		}
	}
}
