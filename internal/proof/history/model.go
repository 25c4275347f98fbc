package history

import (
	"fmt"
	"strconv"
	"time"

	"github.com/anishathalye/porcupine"
)

// The sequential model of one exclusive lock, for Porcupine.
//
// Expiry is not modelled as an operation. A grant has the earliest real time at which it can
// be gone without an operation that ends it, and a step that sees it gone moves the time to
// that: later steps must not have returned before it. A grant can be gone once
//   - its own TTL is over since its grant or a renewal that was placed before
//     was stamped: see state.stamped,
//   - its session can have ended by time: see sessionEnds, or
//   - its end was requested, and the request was not answered or is not in this model:
//     see grant.mayEnd.
//
// So operations with unknown outcomes need no place in the order. One that may end a grant
// only makes it possible that the grant is gone. One that may acquire the lock matters only
// if its token was seen, and then it is known to have taken effect. The search does not grow
// with their number.
//
// Tokens rise in the order of the grants, which decides most of the rest.

type moveKind uint8

const (
	moveGrant moveKind = iota // the lock is free, or can be; token holds it then
	moveFree                  // token holds it, and not afterwards
	moveDrop                  // if token holds it, 0: any token, then not afterwards
	moveGone                  // token does not hold it
	moveSee                   // token holds it
	moveEmpty                 // it has no holder
	moveRenew                 // token holds it; its TTL begins again
	moveEnd                   // if a grant of the session holds it, then not afterwards
	moveLost                  // no grant of the session holds it
)

// move is what one operation does to, or sees of, one lock.
type move struct {
	kind     moveKind
	token    uint64
	session  string
	ttl      time.Duration // moveGrant, moveRenew: of the grant itself; 0: none
	ends     time.Duration // moveGrant: when it can be gone, other than by its TTL
	keeps    time.Duration // moveGrant: it cannot be gone by itself before; see tighten
	asked    time.Duration // call, as the client made it
	call     time.Duration
	returned time.Duration
	op       *Op // for messages; nil: the acquire was not answered, but its token was seen
}

// state of the lock. It is comparable.
type state struct {
	holder uint64 // token; 0: none
	last   uint64 // token granted last
	now    time.Duration
	own    time.Duration // when the holder's own TTL can be over; Never: it has none
	ends   time.Duration // when the holder can be gone otherwise
	keeps  time.Duration // it is not seen to be gone by itself before

	// stamped is the least time at which the last entry was stamped. A TTL counts from
	// there, and that may be long before a majority has the entry: a read in the meantime
	// returns the state before it. So a read advances now and not stamped, while entries
	// are stamped in their order and after their requests.
	stamped time.Duration
}

// free removes the holder, whose time is over.
func (s state) free() state {
	if s.holder != 0 {
		s.stamped = max(s.stamped, min(s.own, s.ends))
		s.now = max(s.now, s.stamped, s.keeps)
	}
	return s.drop()
}

// drop removes the holder, whose grant an operation has ended.
func (s state) drop() state {
	s.holder, s.own, s.ends, s.keeps = 0, 0, 0, 0
	return s
}

// step returns the state after a move and whether it is possible.
func (c *checker) step(s state, m *move) (state, bool) {
	s.now = max(s.now, m.call)
	if m.op != nil && m.op.Kind != Get && m.op.Kind != KeepAlive {
		s.stamped = max(s.stamped, m.asked)
	}
	possible := true
	switch m.kind {
	case moveGrant:
		s = s.free()
		possible = m.token > s.last
		s = c.hold(s, m)
	case moveFree:
		possible = s.holder == m.token
		s = s.drop()
	case moveDrop:
		if m.token == 0 || s.holder == m.token {
			s = s.drop()
		}
	case moveGone:
		if s.holder == m.token {
			s = s.free()
		}
	case moveSee:
		possible = s.holder == m.token
	case moveEmpty:
		s = s.free()
	case moveRenew:
		possible = s.holder == m.token
		if s.own != Never {
			s.own = max(s.own, c.after(s.stamped, m.ttl))
		}
	case moveEnd:
		if c.sessionOf(s.holder) == m.session {
			s = s.drop()
		}
	case moveLost:
		if c.sessionOf(s.holder) == m.session {
			s = s.free()
		}
	}
	return s, possible && m.returned >= s.now
}

// hold returns the state in which a grant holds the lock.
func (c *checker) hold(s state, m *move) state {
	s.holder, s.last, s.own, s.ends, s.keeps = m.token, m.token, Never, m.ends, m.keeps
	if m.ttl > 0 {
		s.own = c.after(s.stamped, m.ttl)
	}
	return s
}

// sessionOf returns the session of a grant, "" if it has none or is not known.
func (c *checker) sessionOf(token uint64) string {
	if g := c.facts.grants[token]; g != nil {
		return g.op.Session
	}
	return ""
}

// model returns the lock's model with a first state.
func (c *checker) model(begin state) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return begin },
		Step: func(s, in, _ any) (bool, any) {
			next, ok := c.step(s.(state), in.(*move))
			return ok, next
		},
		Hash: func(s any) uint64 {
			v := s.(state)
			return v.holder*0x9e3779b97f4a7c15 ^ uint64(v.now)
		},
		DescribeOperation: func(in, _ any) string { return in.(*move).String() },
		DescribeState:     func(s any) string { return s.(state).String() },
	}
}

func (s state) String() string {
	if s.holder == 0 {
		return fmt.Sprintf("free, since %v or later", s.now)
	}
	text := fmt.Sprintf("token %d holds it", s.holder)
	if at := max(min(s.own, s.ends), s.keeps); at != Never {
		text += fmt.Sprintf(", until %v at least", max(at, 0))
	}
	return text
}

func (m *move) String() string {
	if m.op == nil {
		return fmt.Sprintf("acquire, not answered: seen with token %d", m.token)
	}
	text := string(m.op.Kind)
	if m.op.Kind == Acquire {
		if m.ttl > 0 {
			text += " for " + m.ttl.String()
		}
	} else if m.op.Token != 0 {
		text += " token " + strconv.FormatUint(m.op.Token, 10)
	}
	switch m.kind {
	case moveGrant:
		return text + fmt.Sprintf(": token %d", m.token)
	case moveSee:
		return text + fmt.Sprintf(": token %d holds it", m.token)
	case moveEmpty:
		return text + ": nobody holds it"
	}
	return text + ": " + string(m.op.Outcome)
}
