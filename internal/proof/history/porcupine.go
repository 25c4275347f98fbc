package history

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// maxMoves bounds the moves of one search of Porcupine, which then takes about 200 MB.
const maxMoves = 40_000

// searchLocks has Porcupine search an order for each exclusive lock.
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
		c.violate("FIFO", "porcupine", lock, "%s: requested at %v, and cancelled or over by %v", m, m.call, m.returned)
		return
	}
	if m, left := c.tighten(moves); m != nil {
		c.violate(m.promise(), "porcupine", lock, "no order of the operations explains the answers: by the order of the tokens, %q by %s, from %v to %v, came not before %v and not after %v",
			m, m.client(), m.call, m.returned, left[0], left[1])
		return
	}
	moves = prune(moves)
	until := time.Now().Add(c.o.PorcupineTimeout)
	for _, w := range c.cut(moves, windowMoves) {
		if len(w.moves) > maxMoves {
			c.violate("none", "porcupine", lock, "undecided: %d operations that cannot be cut into parts; at most %d can be searched", len(w.moves), maxMoves)
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

// explainTime bounds the search for how far any order goes, which is slower than
// the one that found that none goes to the end.
const explainTime = 2 * time.Second

// explain reports the operation that fits into no order.
func (c *checker) explain(lock string, w window) {
	_, info := porcupine.CheckOperationsVerbose(c.model(w.begin), operations(w.moves), min(c.o.PorcupineTimeout, explainTime))
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
	c.violate(stuck.promise(), "porcupine", lock, "no order of the operations explains the answers: after %d of %d of them the state is %q, and %q by %s, from %v to %v, is not possible",
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
	windows := []window{{state{}, moves}}
	if m, _ := c.tighten(moves); m == nil {
		windows = c.cut(moves, windowMoves)
	}
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
