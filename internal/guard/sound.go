package guard

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"
)

// Raft believes its peers. A request with an entry that is nil, of an unknown
// type, or with a configuration that cannot be decoded ends the process with a
// panic; one whose entries do not follow each other is a write that the log
// refuses, which stops the node. One flipped bit on the way is enough, and
// frames carry no checksum. So what no raft would send does not reach raft: it is
// answered with an error, as if it had been lost.

// unsound says what is wrong with a request; nil if raft can have sent it.
func unsound(command any) error {
	switch req := command.(type) {
	case *raft.AppendEntriesRequest:
		return unsoundEntries(req)
	case *raft.InstallSnapshotRequest:
		if req.SnapshotVersion != raft.SnapshotVersionMax || req.Size < 0 {
			return fmt.Errorf("snapshot of version %d with %d bytes: version %d is known", req.SnapshotVersion, req.Size, raft.SnapshotVersionMax)
		}
		if req.LastLogIndex == 0 || req.LastLogTerm > req.Term || req.ConfigurationIndex > req.LastLogIndex {
			return fmt.Errorf("snapshot of term %d up to entry %d of term %d, configuration of entry %d",
				req.Term, req.LastLogIndex, req.LastLogTerm, req.ConfigurationIndex)
		}
		return unsoundConfiguration(req.Configuration)
	}
	return nil
}

func unsoundEntries(req *raft.AppendEntriesRequest) error {
	term := req.PrevLogTerm
	for i, l := range req.Entries {
		want := req.PrevLogEntry + 1 + uint64(i)
		switch {
		case l == nil || l.Index != want:
			return fmt.Errorf("entry %d is missing", want)
		case l.Term < term || l.Term > req.Term:
			return fmt.Errorf("entry %d is of term %d, between one of term %d and a leader of term %d", l.Index, l.Term, term, req.Term)
		}
		term = l.Term
		switch l.Type {
		case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
		case raft.LogConfiguration:
			if err := unsoundConfiguration(l.Data); err != nil {
				return fmt.Errorf("entry %d: %w", l.Index, err)
			}
		default:
			return fmt.Errorf("entry %d is of type %d, which is not known", l.Index, l.Type)
		}
	}
	return nil
}

// unsoundConfiguration demands what raft's leaders see to.
func unsoundConfiguration(data []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("configuration: %v", p)
		}
	}()
	if err := (&wire{}).read(data); err != nil { // they were one value on the wire
		return fmt.Errorf("configuration: %w", err)
	}
	ids, addresses := map[raft.ServerID]bool{}, map[raft.ServerAddress]bool{}
	voters := 0
	for _, s := range raft.DecodeConfiguration(data).Servers {
		if s.ID == "" || s.Address == "" || ids[s.ID] || addresses[s.Address] || s.Suffrage > raft.Staging {
			return fmt.Errorf("configuration: server %q at %q, suffrage %d: IDs and addresses must be there once", s.ID, s.Address, s.Suffrage)
		}
		ids[s.ID], addresses[s.Address] = true, true
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	if voters == 0 {
		return errors.New("configuration: no voter is in it")
	}
	return nil
}

// refuse answers a request that does not reach raft. A snapshot's bytes are
// taken first, or they would be read as the next request.
func (t *Transport) refuse(rpc raft.RPC, cause error) {
	if now := time.Now(); now.Sub(t.warned) > warnEvery {
		t.warned = now
		t.streams.o.Logger.Warn("refused a raft request that is damaged", "err", cause)
	}
	if rpc.Reader == nil {
		rpc.Respond(nil, cause)
		return
	}
	t.pumped.Go(func() {
		_, _ = io.Copy(io.Discard, rpc.Reader)
		rpc.Respond(nil, cause)
	})
}
