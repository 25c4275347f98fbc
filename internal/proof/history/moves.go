package history

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// moves returns what the operations do to each exclusive lock, ordered by call. Locks that are
// shared or counted are left to the other checks.
func (c *checker) moves() map[string][]*move {
	b := &mover{c: c, byLock: make(map[string][]*move), other: make(map[string]bool), held: make(map[string][]string)}
	for i := range c.ops {
		for _, w := range c.ops[i].Wants {
			if c.ops[i].Kind == Acquire && w.Mode != exclusive {
				b.other[w.Lock] = true
			}
		}
	}
	for _, token := range slices.Sorted(maps.Keys(c.facts.grants)) {
		b.grant(token, c.facts.grants[token])
		b.again(c.facts.grants[token])
	}
	for i := range c.ops {
		b.op(&c.ops[i])
	}
	for lock := range b.other {
		delete(b.byLock, lock)
	}
	for lock, moves := range b.byLock {
		moves = append(moves, c.seenOnly(lock, moves)...)
		for _, m := range moves {
			m.asked = m.call
		}
		slices.SortStableFunc(moves, func(a, b *move) int { return compare(a.call, b.call) })
		b.byLock[lock] = moves
	}
	return b.byLock
}

// mover translates operations to moves.
type mover struct {
	c      *checker
	byLock map[string][]*move
	other  map[string]bool     // locks that are not, or not only, exclusive
	held   map[string][]string // session → locks that it held
}

func (b *mover) add(lock string, m move) {
	b.byLock[lock] = append(b.byLock[lock], &m)
}

func (b *mover) grant(token uint64, g *grant) {
	o := g.op
	m := move{
		kind: moveGrant, token: token, ttl: o.TTL, ends: g.mayEnd,
		call: o.Call, returned: min(o.Return, g.cancelled), op: o,
	}
	if g.session != nil {
		m.ends = min(m.ends, b.c.sessionEnds(g.session))
	}
	for _, w := range o.Wants {
		b.add(w.Lock, m)
		if o.Session != "" && !slices.Contains(b.held[o.Session], w.Lock) {
			b.held[o.Session] = append(b.held[o.Session], w.Lock)
		}
	}
}

// again adds the moves of later acquires that were answered with the same grant: the grant
// holds its locks.
func (b *mover) again(g *grant) {
	if len(g.answered) < 2 {
		return
	}
	for _, o := range g.answered {
		for _, w := range o.Wants {
			b.add(w.Lock, move{kind: moveSee, token: o.Token, call: o.Call, returned: o.Return, op: o})
		}
	}
}

func (b *mover) op(o *Op) {
	if o.Outcome == Unknown || o.refused() {
		return
	}
	m := move{token: o.Token, session: o.Session, ttl: o.TTL, call: o.Call, returned: o.Return, op: o}
	switch o.Kind {
	case Acquire:
		// A wait shows nothing about the holder.
		if o.Outcome == Busy && len(o.Wants) == 1 && len(o.Holders) == 1 {
			m.kind, m.token = moveSee, o.Holders[0]
			b.add(o.Wants[0].Lock, m)
		}
	case Get:
		b.get(o, m)
	case Release, Renew:
		b.shown(o, m)
	case Cancel:
		b.cancel(o, m)
	case ForceRelease:
		b.force(o, m)
	case End, KeepAlive:
		m.kind = moveEnd
		if o.Kind == KeepAlive {
			m.kind = moveLost
			if o.Outcome != NoSess {
				return
			}
		}
		for _, lock := range b.held[o.Session] {
			b.add(lock, m)
		}
	}
}

func (b *mover) get(o *Op, m move) {
	switch {
	case o.Stale != 0 || len(o.Wants) != 1 || len(o.Holders) > 1:
		return
	case len(o.Holders) == 1:
		m.kind, m.token = moveSee, o.Holders[0]
	default:
		m.kind = moveEmpty
	}
	b.add(o.Wants[0].Lock, m)
}

// shown adds the moves of an operation that names a token.
func (b *mover) shown(o *Op, m move) {
	g := b.c.facts.grants[o.Token]
	locks := o.Wants
	if g != nil {
		if g.op.Session != "" && o.Session != g.op.Session {
			return // "not held" whether it is or not: see checkOwners
		}
		locks = g.op.Wants
	}
	switch {
	case o.Outcome == NotHeld:
		m.kind = moveGone
	case o.Outcome == NoSess && g != nil && g.op.Detached:
		return // it does not end with the session, and an earlier try may have run
	case o.Outcome == NoSess && o.Kind == Release:
		m.kind = moveDrop // by the session's end, or by an earlier try
	case o.Outcome == NoSess:
		m.kind = moveGone
	case o.Kind == Renew:
		m.kind = moveRenew
	default:
		m.kind = moveFree
	}
	for _, w := range locks {
		b.add(w.Lock, m)
	}
}

func (b *mover) cancel(o *Op, m move) {
	acquire := b.c.facts.byTry[o.Target]
	if acquire == nil || acquire.Outcome != OK {
		return
	}
	m.kind, m.token = moveDrop, acquire.Token
	if o.Outcome == NotHeld {
		if isOnce(acquire.Request) {
			return // other callers may know it
		}
		m.kind = moveGone
	}
	for _, w := range acquire.Wants {
		b.add(w.Lock, m)
	}
}

func (b *mover) force(o *Op, m move) {
	if len(o.Wants) == 0 {
		return
	}
	lock := o.Wants[0].Lock
	switch {
	case o.Outcome == NoSess:
		return // the lock was not checked, and an earlier try may have run
	case o.Outcome == OK && len(o.Holders) > 0:
		m.kind = moveFree
		for _, m.token = range o.Holders {
			g := b.c.facts.grants[m.token]
			if g == nil {
				b.add(lock, m)
				continue
			}
			for _, w := range g.op.Wants {
				b.add(w.Lock, m)
			}
		}
		return
	case o.Outcome == OK:
		m.kind = moveDrop
	case o.Token == 0:
		m.kind = moveEmpty
	default:
		m.kind = moveGone
	}
	b.add(lock, m)
}

// seenOnly returns the grants that no acquire was answered with, but whose token was seen:
// each was made by one of the unanswered acquires, before it was first seen, and may have
// ended at any time.
func (c *checker) seenOnly(lock string, moves []*move) []*move {
	seen := make(map[uint64]*move)
	for _, m := range moves {
		if m.kind != moveSee && m.kind != moveFree && m.kind != moveRenew || c.facts.grants[m.token] != nil {
			continue
		}
		g := seen[m.token]
		if g == nil {
			g = &move{kind: moveGrant, token: m.token, returned: Never}
			seen[m.token] = g
		}
		g.returned = min(g.returned, m.returned)
	}
	if len(seen) == 0 {
		return nil
	}
	first := c.firstUnanswered(lock)
	grants := slices.SortedFunc(maps.Values(seen), func(a, b *move) int { return cmp.Compare(a.token, b.token) })
	for _, g := range grants {
		g.call = min(first, g.returned)
	}
	return grants
}

// firstUnanswered returns when the first acquire of a lock that has no answer was called; 0 if
// the history has none.
func (c *checker) firstUnanswered(lock string) time.Duration {
	first := Never
	for i := range c.ops {
		o := &c.ops[i]
		if o.Kind != Acquire || o.Outcome != Unknown && o.Outcome != NoSess {
			continue
		}
		for _, w := range o.Wants {
			if w.Lock == lock {
				first = min(first, o.Call)
			}
		}
	}
	if first == Never {
		return 0
	}
	return first
}
