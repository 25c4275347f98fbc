package history

import (
	"cmp"
	"slices"
	"time"
)

// This file makes the search smaller where the result is known without it. It allows no order
// that was impossible before, and excludes none that was possible.

// tighten narrows the times of the moves by the order of the grants, which is that of their
// tokens: a grant comes after those before it, and after the earliest end of the last of them;
// a move that sees a token comes between its grant and the next; and a grant that was seen
// did not expire before, nor at all if it was released. If that leaves no time for a move
// there is no order: the move is returned, with the time that is left, and the moves stay as
// they are.
func (c *checker) tighten(moves []*move) (stuck *move, left [2]time.Duration) {
	n := newNarrowing(moves)
	c.forwards(n)
	for i := len(n.grants) - 2; i >= 0; i-- {
		n.to[i] = min(n.to[i], n.to[i+1])
	}
	narrow := make([][2]time.Duration, len(moves))
	for k, m := range moves {
		narrow[k] = n.times(m)
		if narrow[k][0] > narrow[k][1] {
			return m, narrow[k]
		}
	}
	for k, m := range moves {
		m.call, m.returned = narrow[k][0], narrow[k][1]
	}
	slices.SortStableFunc(moves, func(a, b *move) int { return compare(a.call, b.call) })
	return nil, left
}

// narrowing is what is known of the times of the grants on a lock.
type narrowing struct {
	grants   []*move // by token
	place    map[uint64]int
	from, to []time.Duration // when each grant was made
	stamped  []time.Duration // when its entry was stamped at the earliest
	freed    []time.Duration // when the release was called that ended it; Never: there was none
}

func newNarrowing(moves []*move) *narrowing {
	n := &narrowing{place: make(map[uint64]int)}
	for _, m := range moves {
		if m.kind == moveGrant {
			n.grants = append(n.grants, m)
		}
	}
	slices.SortFunc(n.grants, func(a, b *move) int { return cmp.Compare(a.token, b.token) })
	n.from, n.to = make([]time.Duration, len(n.grants)), make([]time.Duration, len(n.grants))
	n.freed, n.stamped = make([]time.Duration, len(n.grants)), make([]time.Duration, len(n.grants))
	for i, g := range n.grants {
		n.place[g.token] = i
		n.from[i], n.to[i], n.freed[i] = g.call, g.returned, Never
		if g.op != nil {
			n.stamped[i] = g.asked
		}
		g.keeps = 0
	}
	for _, m := range moves {
		i, ok := n.place[m.token]
		switch {
		case !ok:
		case m.kind == moveFree:
			n.freed[i] = min(n.freed[i], m.call)
			n.grants[i].keeps = Never
		case m.kind == moveSee || m.kind == moveRenew:
			n.grants[i].keeps = max(n.grants[i].keeps, m.call)
		}
	}
	return n
}

// forwards lets each grant come after the one before and its earliest end.
func (c *checker) forwards(n *narrowing) {
	for i := 1; i < len(n.grants); i++ {
		g := n.grants[i-1]
		end, seen := n.freed[i-1], time.Duration(0)
		if end == Never { // it can have expired
			end, seen = g.ends, g.keeps
			if g.ttl > 0 {
				end = min(end, c.after(n.stamped[i-1], g.ttl))
			}
		}
		n.stamped[i] = max(n.stamped[i], n.stamped[i-1], end)
		n.from[i] = max(n.from[i], n.from[i-1], end, seen)
	}
}

// times returns between when a move can be placed.
func (n *narrowing) times(m *move) [2]time.Duration {
	t := [2]time.Duration{m.call, m.returned}
	i, ok := n.place[m.token]
	if !ok {
		return t
	}
	switch m.kind {
	case moveGrant:
		t[0], t[1] = max(t[0], n.from[i]), min(t[1], n.to[i])
	case moveFree, moveSee, moveRenew:
		t[0] = max(t[0], n.from[i])
		if i < len(n.grants)-1 {
			t[1] = min(t[1], n.to[i+1])
		}
	}
	return t
}

// prune leaves out a move that only looks if another one like it began and ended while it was
// under way: wherever that one can be placed, this one can be placed beside it.
func prune(moves []*move) []*move {
	type look struct {
		kind  moveKind
		token uint64
	}
	least := make(map[look]time.Duration) // the earliest return of those that were called later
	kept := make([]*move, 0, len(moves))
	for _, m := range slices.Backward(moves) {
		if m.kind == moveSee || m.kind == moveEmpty || m.kind == moveGone {
			key := look{m.kind, m.token}
			if returned, ok := least[key]; ok && returned <= m.returned {
				continue
			}
			least[key] = m.returned
		}
		kept = append(kept, m)
	}
	slices.Reverse(kept)
	return kept
}

// windowMoves is how many moves are searched at once, where the history can be cut: the memory
// of Porcupine grows with the square of that.
const windowMoves = 2000

// window is a part of a lock's moves that can be searched by itself.
type window struct {
	begin state
	moves []*move
}

// cut divides the moves at places where nothing is under way and the state is
// known: the last grant has been released, or is seen to hold the lock later. Of
// what is known of times the least is kept, which excludes nothing that was possible. A part
// has at least size moves.
func (c *checker) cut(moves []*move, size int) []window {
	shown := make(map[uint64]int) // token → the last move that sees it hold the lock
	for i, m := range moves {
		if m.kind == moveSee || m.kind == moveFree || m.kind == moveRenew {
			shown[m.token] = i
		}
	}
	var windows []window
	begin, start := state{}, 0
	latest := time.Duration(-1) // return of all before
	last, freed := (*move)(nil), make(map[uint64]bool)
	for i, m := range moves {
		if i-start >= size && latest < m.call {
			var token uint64
			next := state{}
			if last != nil {
				token = last.token
				next = c.hold(state{now: last.call, stamped: last.asked}, last)
			}
			if freed[token] || token == 0 {
				next = next.drop()
			}
			if freed[token] || token == 0 || shown[token] >= i {
				windows = append(windows, window{begin, moves[start:i]})
				begin, start = next, i
			}
		}
		latest = max(latest, m.returned)
		switch {
		case m.kind == moveGrant && (last == nil || m.token > last.token):
			last = m
		case m.kind == moveFree:
			freed[m.token] = true
		}
	}
	return append(windows, window{begin, moves[start:]})
}
