package history

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// windowMoves is how many moves Porcupine gets at once, where the history has a
// place to be cut: its memory grows with the square of that.
const windowMoves = 2000

// maxMoves is how many moves Porcupine gets at most: that takes about 200 MB.
const maxMoves = 40_000

// window is a part of a lock's moves that can be searched by itself.
type window struct {
	begin state
	moves []*move
}

// searchLocks asks Porcupine about each exclusive lock.
func (c *checker) searchLocks() {
	byLock := c.moves()
	for _, lock := range slices.Sorted(maps.Keys(byLock)) {
		began := time.Now()
		c.searchLock(lock, byLock[lock])
		took := time.Since(began)
		c.report.Stats.Searched += took
		c.report.Stats.Longest = max(c.report.Stats.Longest, took)
	}
}

func (c *checker) searchLock(lock string, moves []*move) {
	if bad := slices.IndexFunc(moves, func(m *move) bool { return m.returned < m.call }); bad >= 0 {
		m := moves[bad]
		c.violate("FIFO", "porcupine", lock, "%s: asked for at %v, and cancelled or over by %v", m, m.call, m.returned)
		return
	}
	c.tighten(moves)
	moves = prune(moves)
	until := time.Now().Add(c.o.PorcupineTimeout)
	for _, w := range c.cut(moves) {
		if len(w.moves) > maxMoves {
			c.violate("none", "porcupine", lock, "undecided: %d operations with no place to cut them; at most %d can be searched", len(w.moves), maxMoves)
			continue
		}
		left := time.Until(until)
		if left <= 0 {
			left = time.Nanosecond // 0 would mean: without a limit
		}
		switch porcupine.CheckOperationsTimeout(c.model(w.begin), operations(w.moves), left) {
		case porcupine.Ok:
		case porcupine.Illegal:
			c.explain(lock, w)
			return
		default:
			c.violate("none", "porcupine", lock, "undecided: the search among %d operations took longer than %v", len(moves), c.o.PorcupineTimeout)
			return
		}
	}
}

func operations(moves []*move) []porcupine.Operation {
	clients := make(map[string]int)
	ops := make([]porcupine.Operation, len(moves))
	for i, m := range moves {
		name := "?"
		if m.op != nil {
			name = m.op.Client
		}
		id, ok := clients[name]
		if !ok {
			id = len(clients)
			clients[name] = id
		}
		ops[i] = porcupine.Operation{ClientId: id, Input: m, Call: int64(m.call), Return: int64(m.returned)}
	}
	return ops
}

// tighten narrows the times of the moves by the order of the grants, which the
// tokens tell: a grant comes after those before it, and after the earliest end
// of the last of them; what sees a token happens between its grant and the next.
// It takes no possible order away, and none that it takes away was possible. If
// it leaves no time for a move it changes nothing: the search will say why.
func (c *checker) tighten(moves []*move) {
	var grants []*move
	for _, m := range moves {
		if m.kind == moveGrant {
			grants = append(grants, m)
		}
	}
	slices.SortFunc(grants, func(a, b *move) int { return cmp.Compare(a.token, b.token) })
	from, to := make([]time.Duration, len(grants)), make([]time.Duration, len(grants))
	place := make(map[uint64]int, len(grants))
	for i, g := range grants {
		place[g.token] = i
		from[i] = g.call
		if i > 0 {
			before := grants[i-1]
			end := before.ends
			if before.ttl > 0 {
				end = min(end, c.after(from[i-1], before.ttl))
			}
			from[i] = max(from[i], from[i-1], end)
		}
	}
	for i := len(grants) - 1; i >= 0; i-- {
		to[i] = grants[i].returned
		if i < len(grants)-1 {
			to[i] = min(to[i], to[i+1])
		}
	}
	narrow := make([][2]time.Duration, len(moves))
	for k, m := range moves {
		narrow[k] = [2]time.Duration{m.call, m.returned}
		if i, ok := place[m.token]; ok {
			switch m.kind {
			case moveGrant:
				narrow[k] = [2]time.Duration{from[i], to[i]}
			case moveFree, moveSee, moveRenew:
				narrow[k][0] = max(m.call, from[i])
				if i < len(grants)-1 {
					narrow[k][1] = min(m.returned, to[i+1])
				}
			}
		}
		if narrow[k][0] > narrow[k][1] {
			return
		}
	}
	for k, m := range moves {
		m.call, m.returned = narrow[k][0], narrow[k][1]
	}
	slices.SortStableFunc(moves, func(a, b *move) int { return compare(a.call, b.call) })
}

// prune leaves out what only looks, and while it was under way another one of its
// kind began and ended: wherever that can be placed, this can be placed beside it.
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

// cut divides the moves at places where nothing is under way and the state is
// known: the last grant has been released, or is seen to hold the lock later. Of
// what is known of times the least is kept, which allows no less.
func (c *checker) cut(moves []*move) []window {
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
		if i-start >= windowMoves && latest < m.call {
			var token uint64
			next := state{}
			if last != nil {
				token = last.token
				next = c.beside(last)
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

// beside is the state after a grant, as far as it is known whenever one looks.
func (c *checker) beside(m *move) state {
	s := state{holder: m.token, last: m.token, now: m.call, own: Never, ends: m.ends}
	if m.ttl > 0 {
		s.own = c.after(m.call, m.ttl)
	}
	return s
}

// explain tells what could not be put into any order.
func (c *checker) explain(lock string, w window) {
	_, info := porcupine.CheckOperationsVerbose(c.model(w.begin), operations(w.moves), c.o.PorcupineTimeout)
	longest := 0
	var placed []int
	for _, p := range info.PartialLinearizations() {
		for _, ids := range p {
			if len(ids) > longest {
				longest, placed = len(ids), ids
			}
		}
	}
	in := make([]bool, len(w.moves))
	s := w.begin
	for _, id := range placed {
		in[id] = true
		s, _ = c.step(s, w.moves[id])
	}
	stuck := w.moves[0]
	first := true
	for i, m := range w.moves {
		if !in[i] && (first || m.returned < stuck.returned) {
			stuck, first = m, false
		}
	}
	c.violate(stuck.promise(), "porcupine", lock, "no order of the operations explains what was answered: after %d of %d of them the state is %q, and %q by %s, from %v to %v, is not possible",
		longest, len(w.moves), s, stuck, stuck.client(), stuck.call, stuck.returned)
}

// promise says which promise is most likely broken if a move is not possible.
func (m *move) promise() string {
	switch m.kind {
	case moveGrant:
		return "S1"
	case moveSee, moveEmpty:
		return "S8"
	}
	return "S2"
}

func (m *move) client() string {
	if m.op == nil {
		return "somebody"
	}
	return m.op.Client
}

// Picture writes an HTML page that shows the operations on an exclusive lock and
// an order that explains them, or how far any order goes. Of a long history it
// shows the part that cannot be explained, or the first one.
func (h *History) Picture(w io.Writer, lock string) error {
	c := newChecker(h, Options{})
	c.gather()
	moves := c.moves()[lock]
	if len(moves) == 0 {
		return fmt.Errorf("picture of lock %q: no operation on it, or it is not only taken exclusively", lock)
	}
	c.tighten(moves)
	windows := c.cut(moves)
	shown := windows[0]
	for _, part := range windows {
		if porcupine.CheckOperationsTimeout(c.model(part.begin), operations(part.moves), c.o.PorcupineTimeout) != porcupine.Ok {
			shown = part
			break
		}
	}
	model := c.model(shown.begin)
	_, info := porcupine.CheckOperationsVerbose(model, operations(shown.moves), c.o.PorcupineTimeout)
	if err := porcupine.Visualize(model, info, w); err != nil {
		return errors.Join(fmt.Errorf("picture of lock %q", lock), err)
	}
	return nil
}
