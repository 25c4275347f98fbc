package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/locknode/locknode/node"
)

// EndedError is that a node has ended by itself, which nobody has asked it for.
type EndedError struct {
	Node string
	Err  error         // why, as [node.Node.Err] has it
	Seen time.Duration // when it was ended or started again, or asked for, after that
}

// Error is part of error.
func (e *EndedError) Error() string { return fmt.Sprintf("node %q ended by itself: %v", e.Node, e.Err) }

// Unwrap returns why.
func (e *EndedError) Unwrap() error { return e.Err }

// Ended are the ends of nodes that nobody has asked for, also of those that were
// killed, stopped or started since. What a node says after it was killed does not
// count. Whether a fault explains an end is for the caller to judge.
func (c *Cluster) Ended() []*EndedError {
	c.mu.Lock()
	all := append([]*EndedError(nil), c.ended...)
	c.mu.Unlock()
	for _, m := range c.nodes {
		if e := c.endOfRunning(m); e != nil {
			all = append(all, e)
		}
	}
	return all
}

// endedNow is a node that has ended by itself and that nobody has ended or started
// again since, or nil.
func (c *Cluster) endedNow() error {
	for _, m := range c.nodes {
		if e := c.endOfRunning(m); e != nil {
			return e
		}
	}
	return nil
}

// endOfRunning looks twice: one that is being killed says something, too.
func (c *Cluster) endOfRunning(m *member) *EndedError {
	n := m.running()
	if e := c.endOf(m.name, n); e != nil && m.running() == n {
		return e
	}
	return nil
}

// endOf is nil for a node that has not ended by itself, or that there is not. One
// that was removed and knows it has been asked to end.
func (c *Cluster) endOf(name string, n *node.Node) *EndedError {
	if n == nil || n.Err() == nil || c.IsRemoved(name) && errors.Is(n.Err(), node.ErrRemoved) {
		return nil
	}
	return &EndedError{Node: name, Err: n.Err(), Seen: c.Now()}
}

// take ends the node's being the one that runs, and keeps how it has ended if it
// has. Its life goes on: what is done to it comes afterwards.
func (c *Cluster) take(m *member) *node.Node {
	m.mu.Lock()
	n := m.node
	m.node = nil
	m.mu.Unlock()
	if e := c.endOf(m.name, n); e != nil {
		c.mu.Lock()
		c.ended = append(c.ended, e)
		c.mu.Unlock()
	}
	return n
}

// ended reports whether a node has ended by itself, or was closed.
func ended(n *node.Node) bool {
	select {
	case <-n.Done():
		return true
	default:
		return false
	}
}
