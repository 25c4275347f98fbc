package sim

import (
	"context"
	"fmt"
	"strings"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/proof/history"
)

// state is the table of a node at one moment.
type state struct {
	node          string
	broken        bool
	index, digest uint64
	hash          [32]byte // of all its bytes; zero if it was not asked for
}

// Same waits until all nodes that run have applied the same entries, and returns
// a violation if their tables then are not the same to the byte. If ctx ends
// first, the error says how far each of them is: nothing is known then.
func (c *Cluster) Same(ctx context.Context) (*history.Violation, error) {
	var states []state
	var found *history.Violation
	err := c.eventually(ctx, "all nodes have applied the same entries", func() bool {
		if states = c.states(false); !level(states) {
			return false
		}
		// The nodes may apply more between the two steps.
		if found = differ(states); found == nil {
			states = c.states(true)
			found = differ(states)
		}
		return level(states)
	})
	if err != nil {
		var at []string
		for _, s := range states {
			at = append(at, fmt.Sprintf("%s at %d", s.node, s.index))
		}
		return nil, fmt.Errorf("%w: %s", err, strings.Join(at, ", "))
	}
	return found, nil
}

func (c *Cluster) states(hash bool) (all []state) {
	for _, m := range c.nodes {
		m.mu.Lock()
		n, machine := m.node, m.machine
		m.mu.Unlock()
		if n == nil || ended(n) {
			continue
		}
		s := state{node: m.name}
		s.broken = !machine.View(func(t *fsm.Table) {
			s.digest, s.index = t.Digest()
			if hash {
				s.hash = t.Hash()
			}
		})
		all = append(all, s)
	}
	return all
}

// level reports whether all have applied the same entries, or never will.
func level(all []state) bool {
	for _, s := range all {
		if s.broken {
			return true
		}
		if s.index != all[0].index {
			return false
		}
	}
	return true
}

func differ(all []state) *history.Violation {
	violation := func(format string, args ...any) *history.Violation {
		return &history.Violation{Promise: "S9", Check: "tables", Text: fmt.Sprintf(format, args...)}
	}
	for _, s := range all {
		switch first := all[0]; {
		case s.broken:
			return violation("the table of %s is broken", s.node)
		case s.index != first.index: // not level any more
		case s.digest != first.digest:
			return violation("index %d: the tables of %s and %s have seen different entries", s.index, first.node, s.node)
		case s.hash != first.hash:
			return violation("index %d: the tables of %s and %s saw the same entries and differ", s.index, first.node, s.node)
		}
	}
	return nil
}
