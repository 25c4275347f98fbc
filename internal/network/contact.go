package network

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// contacts records when each peer was last known to run: the time at which the latest
// request that it has answered was sent, not the time of the answer, because the peer ran at
// some time after the sending. Gossip reports a node as alive for seconds after it was
// killed; a change of the voters that relies on that may remove the wrong one.
type contacts struct {
	mu   sync.Mutex // guards what follows
	sent map[raft.ServerID]time.Time
}

const (
	// maxContacts bounds the memory of peers that are no longer members.
	maxContacts = 256
	oldContact  = time.Minute
)

// note records an answer to a request that was sent at a time.
func (c *contacts) note(id raft.ServerID, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.sent[id]; !known && len(c.sent) >= maxContacts {
		for other, was := range c.sent {
			if at.Sub(was) > oldContact {
				delete(c.sent, other)
			}
		}
	}
	if c.sent == nil {
		c.sent = map[raft.ServerID]time.Time{}
	}
	if at.After(c.sent[id]) {
		c.sent[id] = at
	}
}

// Answered returns when the latest request was sent that a peer has answered as a follower
// of this node: the peer ran after that. It is the zero time if there was none.
// A leader sends each voter a heartbeat at least every fifth of the heartbeat timeout,
// and one that did not answer is asked again after half of it.
func (t *Transport) Answered(id raft.ServerID) time.Time {
	t.contacts.mu.Lock()
	defer t.contacts.mu.Unlock()
	return t.contacts.sent[id]
}

// Answers reports whether the last request to a peer was answered; true if there was none.
func (t *Transport) Answers(id raft.ServerID) bool { return t.reach.answers(id) }
