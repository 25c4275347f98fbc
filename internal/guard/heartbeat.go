package guard

import (
	"github.com/hashicorp/raft"
)

// The way of a heartbeat. Raft's fast path handles it on the connection's
// goroutine, because its main goroutine may be busy with the disk; but there it
// changes the term under the leader loop (hashicorp/raft #695). Sending every
// heartbeat to the main goroutine is safe and makes a disk whose writes take
// longer than the leader's lease fatal: the followers answer too late, and no
// leader lasts. So:
//
//   - every heartbeat goes to the main goroutine, and only there is raft changed;
//   - one that could change nothing, because this node follows its sender in its
//     term already, is answered at once; the main goroutine gets it when it has
//     time, and the newest is enough.
//
// The answer says only that this node still follows. A disk that hangs closes the
// gate, which holds the answer back.

// SetHeartbeatHandler does nothing, on purpose: the handler is raft's fast path.
func (t *Transport) SetHeartbeatHandler(func(raft.RPC)) {}

// Consumer returns what arrives for raft's main goroutine. Raft asks for it when it
// starts, and NewRaft has said by then what pump needs to know.
func (t *Transport) Consumer() <-chan raft.RPC {
	t.asking.Do(func() { close(t.asked) })
	return t.toRaft
}

// heartbeat runs on the connection's goroutine.
func (t *Transport) heartbeat(rpc raft.RPC) {
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
	unheard := make(chan raft.RPCResponse, 1) // raft's answer, of no use any more
	select {
	case t.beats <- raft.RPC{Command: req, RespChan: unheard}:
	default: // one is waiting already
	}
}

// follows reports whether raft would answer the heartbeat with nothing but a yes.
func (t *Transport) follows(req *raft.AppendEntriesRequest) bool {
	m := t.member.Load()
	if m == nil || m.State() != raft.Follower || m.CurrentTerm() != req.Term {
		return false
	}
	_, leader := m.LeaderWithID()
	return leader != "" && string(leader) == string(req.ID)
}

// pump hands requests to raft, except those that would end it.
func (t *Transport) pump() {
	select {
	case <-t.asked:
	case <-t.done:
		return
	}
	from := t.NetworkTransport.Consumer()
	for {
		var rpc raft.RPC
		select {
		case rpc = <-from:
			if err := unsound(rpc.Command); err != nil {
				t.refuse(rpc, err)
				continue
			}
			vouched(rpc.Command)
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
