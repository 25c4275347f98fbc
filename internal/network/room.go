package network

import (
	"context"
	"net"
	"slices"
	"sync"
)

// How many connections may there be? Strangers must not use up the places of members, so
// connections are counted in groups:
//
//   - During the handshake: at most MaxHandshakes. One more closes the oldest of the host
//     that has most of them. A member's handshake takes a few round trips, a stranger's
//     lasts until its timeout. So a member is accepted beside any number of strangers that
//     wait, and beside new ones as long as fewer than MaxHandshakes come during its
//     handshake.
//   - After it: at most MaxPerMember for each member of the configuration. Raft uses up to
//     three at a time, and keeps three. One more closes the member's oldest, which is left
//     over from a network failure.
//   - Of all nodes together that are not in the configuration: at most MaxUnknown. One more
//     closes the oldest.
//
// So the total is at most MaxHandshakes + MaxUnknown + MaxPerMember × members.
const (
	defaultHandshakes = 64
	defaultPerMember  = 16
	defaultUnknown    = 64
)

// room has the accepted connections, the oldest of each first. The Stream's mutex guards it.
type room struct {
	shaking []*admitted
	settled map[string][]*admitted // node ID; those of nodes that are no members are under ""
}

// admitted is an accepted connection; closing it gives its place back.
type admitted struct {
	net.Conn
	s      *Stream
	host   string
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc
	once   sync.Once

	// Guarded by the Stream's mutex.
	owner     string // the key in settled
	shaken    bool
	displaced bool
}

// Close may be called twice and from any goroutine.
func (a *admitted) Close() error {
	err := a.Conn.Close()
	a.once.Do(func() {
		a.cancel()
		a.s.mu.Lock()
		defer a.s.mu.Unlock()
		a.s.leaveLocked(a)
	})
	return err
}

// admit gives a connection a place in its handshake, or refuses it and returns nil.
func (s *Stream) admit(c net.Conn) *admitted {
	from := c.RemoteAddr().String()
	if err := s.o.Admit(c); err != nil {
		_ = c.Close()
		s.refused(from, refusal{"no files are left", err.Error()})
		return nil
	}
	host, _, err := net.SplitHostPort(from)
	if err != nil {
		host = from
	}
	a := &admitted{Conn: c, s: s, host: host}
	a.ctx, a.cancel = context.WithCancel(s.dialling)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		a.cancel()
		_ = c.Close()
		return nil
	}
	if len(s.room.shaking) >= s.o.MaxHandshakes {
		s.displaceLocked(s.room.mostOf())
	}
	s.conns[a] = struct{}{}
	s.room.shaking = append(s.room.shaking, a)
	return a
}

// mostOf is the oldest handshake of the host that has most of them.
func (r *room) mostOf() (oldest *admitted) {
	count, most := map[string]int{}, 0
	for _, a := range r.shaking {
		count[a.host]++
		most = max(most, count[a.host])
	}
	for _, a := range r.shaking {
		if count[a.host] == most {
			return a
		}
	}
	return nil
}

// settle gives a connection whose handshake has succeeded the place of a member, or of a
// node that is none.
func (s *Stream) settle(a *admitted, id string, member bool) {
	most := s.o.MaxPerMember
	if !member {
		id, most = "", s.o.MaxUnknown
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, open := s.conns[a]; !open {
		return
	}
	s.leaveLocked(a)
	a.shaken, a.owner = true, id
	if s.room.settled == nil {
		s.room.settled = map[string][]*admitted{}
	}
	if of := s.room.settled[id]; len(of) >= most {
		s.displaceLocked(of[0])
	}
	s.conns[a] = struct{}{}
	s.room.settled[id] = append(s.room.settled[id], a)
}

// displaceLocked closes a connection whose place another one gets.
func (s *Stream) displaceLocked(a *admitted) {
	a.displaced = true
	s.leaveLocked(a)
	a.cancel()
	_ = a.Conn.Close() // not a.Close, which takes the mutex
}

// leaveLocked stops counting a connection.
func (s *Stream) leaveLocked(a *admitted) {
	if _, there := s.conns[a]; !there {
		return
	}
	delete(s.conns, a)
	same := func(other *admitted) bool { return other == a }
	if !a.shaken {
		s.room.shaking = slices.DeleteFunc(s.room.shaking, same)
		return
	}
	if rest := slices.DeleteFunc(s.room.settled[a.owner], same); len(rest) > 0 {
		s.room.settled[a.owner] = rest
	} else {
		delete(s.room.settled, a.owner)
	}
}
