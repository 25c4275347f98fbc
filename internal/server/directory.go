package server

import (
	"slices"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// edition is a directory as streams are told of it.
type edition struct {
	number    uint64 // grows when a client has to be told
	directory *apiv1.Directory
}

// SetDirectory says where the members are reached. Every stream is told when it begins,
// and again when something but the index has changed: a client that is connected hears
// of each replacement while the nodes that it knew before are still there. The
// directory must not be changed afterwards. nil is ignored: the node does not know.
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
		st.wakeSender()
	}
}

func sameMembers(a, b *apiv1.Directory) bool {
	return a.GetClusterId() == b.GetClusterId() && slices.EqualFunc(a.GetMembers(), b.GetMembers(), func(x, y *apiv1.Place) bool {
		return x.GetId() == y.GetId() && x.GetApiAddress() == y.GetApiAddress()
	})
}

// untoldLocked is the directory if the stream's client has to be told of it, and notes
// that it was.
func (st *stream) untoldLocked() *apiv1.Directory {
	e := st.server.edition.Load()
	if e == nil || st.quiet || e.number == st.told {
		return nil
	}
	st.told = e.number
	return e.directory
}
