package server

import (
	"slices"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// edition is a directory as it is sent to streams.
type edition struct {
	number    uint64 // grows when the directory has to be sent again
	directory *apiv1.Directory
}

// SetDirectory sets where the members are reached. Every stream gets the directory when it
// begins, and again when anything but its index has changed: so a connected client learns
// of each replaced member while the members that it knew before still run. d must not be
// changed afterwards. nil is ignored: the node does not know the members.
func (s *Server) SetDirectory(d *apiv1.Directory) {
	if d == nil {
		return
	}
	s.mu.Lock()
	before := s.edition.Load()
	next := &edition{number: 1, directory: d}
	if before != nil {
		next.number = before.number
	}
	changed := before == nil || !sameMembers(before.directory, d)
	if changed && before != nil {
		next.number++
	}
	s.edition.Store(next)
	var streams []*stream
	if changed {
		for st := range s.streams {
			streams = append(streams, st)
		}
	}
	s.mu.Unlock()
	for _, st := range streams {
		st.wake()
	}
}

func sameMembers(a, b *apiv1.Directory) bool {
	return a.GetClusterId() == b.GetClusterId() && slices.EqualFunc(a.GetMembers(), b.GetMembers(), func(x, y *apiv1.Place) bool {
		return x.GetId() == y.GetId() && x.GetApiAddress() == y.GetApiAddress()
	})
}

// unsentLocked returns the directory if it has to be sent on the stream, and marks it as
// sent.
func (st *stream) unsentLocked() *apiv1.Directory {
	e := st.server.edition.Load()
	if e == nil || st.quiet || !st.known || e.number == st.sent {
		return nil
	}
	st.sent = e.number
	return e.directory
}
