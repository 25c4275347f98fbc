package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/locknode/locknode/node"
)

// EndedError means that a node has ended by itself, without being asked to.
type EndedError struct {
	Node string
	Err  error         // why, as [node.Node.Err] has it
	Seen time.Duration // when it was ended or started again, or asked for, after that
}

// Error is part of error.
func (e *EndedError) Error() string { return fmt.Sprintf("node %q ended by itself: %v", e.Node, e.Err) }

// Unwrap returns why.
func (e *EndedError) Unwrap() error { return e.Err }

// Ended returns which nodes have ended without being asked to, also those that were killed,
// stopped or started since. Errors after a kill do not count. Whether a fault explains an end
// is for the caller to judge.
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

// endedNow returns the error of a node that has ended by itself and was not started again
// since, or nil.
func (c *Cluster) endedNow() error {
	for _, m := range c.nodes {
		if e := c.endOfRunning(m); e != nil {
			return e
		}
	}
	return nil
}

// endOfRunning checks twice, because a node that is being killed has an error, too.
func (c *Cluster) endOfRunning(m *member) *EndedError {
	n := m.running()
	if e := c.endOf(m.name, n); e != nil && m.running() == n {
		return e
	}
	return nil
}

// endOf returns nil for no node, and for one that has not ended by itself. A node that was
// removed and has ended because of it has been asked to.
func (c *Cluster) endOf(name string, n *node.Node) *EndedError {
	if n == nil || n.Err() == nil || c.IsRemoved(name) && errors.Is(n.Err(), node.ErrRemoved) {
		return nil
	}
	return &EndedError{Node: name, Err: n.Err(), Seen: c.Now()}
}

// take removes the running node from the member, and records its end if it has ended by
// itself. It does not end the node, which the caller does.
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
