package client

import (
	"context"
	"sync"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// A try that is refused costs the cluster an entry of its log, written by a majority to its
// disks, for nothing. A program that polls a lock tries it again and again. So after a
// refusal the next tries of the same lock first look at it: a linearizable read, of which one
// round of the nodes answers many. If it is held, that is the answer. If it looks free, it is
// acquired as usual, and may turn out to be held after all.
//
// The look is a read of its own and no part of the acquire: a late copy of it takes no lock. A
// first try does not look, because looking at a free lock costs a round trip.
//
// Rejected: to have the leader look before it writes the entry of an acquire. A refusal that
// is in no entry is not remembered under its request ID, and a late copy of the request could
// be granted to nobody.

const (
	// looksFor is how long after a refusal tries look first: longer than most pollers pause.
	looksFor = 2 * time.Second
	// maxRefused bounds the locks that are remembered.
	maxRefused = 1024
)

// refusedTries remembers which locks were held lately. The zero value is ready, and safe for
// concurrent use.
type refusedTries struct {
	mu sync.Mutex
	at map[string]time.Duration // lock → when a try was refused last
}

func (r *refusedTries) note(lock string, now time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at == nil {
		r.at = make(map[string]time.Duration)
	}
	if _, known := r.at[lock]; !known && len(r.at) >= maxRefused {
		for other := range r.at { // any one: its next try costs an entry
			delete(r.at, other)
			break
		}
	}
	r.at[lock] = now
}

func (r *refusedTries) forget(lock string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.at, lock)
}

func (r *refusedTries) lately(lock string, now time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, known := r.at[lock]
	return known && now-at < looksFor
}

// look returns a BusyError if a try need not be made because the lock is held. Whatever else it
// finds, and whatever goes wrong, the try itself finds out.
func (c *Client) look(ctx context.Context, q *request) error {
	if !q.try || q.detached || !c.polled.lately(q.object, c.now()) {
		return nil
	}
	o := newGetting(c, q.object, 0)
	o.failFast = true
	a, err := c.await(ctx, q.what, &o.waited)
	if lock := a.GetGet().GetLock(); err == nil && lock.GetHolderCount() > 0 && lock.GetLimit() == 0 {
		for _, h := range lock.GetHolders() {
			h.Value, h.Labels = nil, nil // as in the answer to an acquire
		}
		c.polled.note(q.object, c.now())
		return newError(q.what, &apiv1.Error{Code: uint32(apiv1.CodeBusy), Holders: lock.GetHolders()})
	}
	c.polled.forget(q.object)
	if ctx.Err() != nil {
		return c.waitEnded(ctx, q, &o.op)
	}
	return nil
}
