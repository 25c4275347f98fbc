//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/proof/history"
)

// role is what one goroutine of a client process does again and again.
type role struct {
	name  string
	count int
	short bool // with the client whose session is short
	step  func(ctx context.Context, h *hand) error
}

// sharedLocks is how many locks the clients compete for at a time.
const sharedLocks = 3

var allRoles = []role{
	{"cycles a shared lock", 2, false, func(ctx context.Context, h *hand) error { return h.cycle(ctx, h.shared()) }},
	{"cycles a shared lock", 2, true, func(ctx context.Context, h *hand) error { return h.cycle(ctx, h.shared()) }},
	{"cycles its own lock", 1, false, func(ctx context.Context, h *hand) error { return h.cycle(ctx, h.own()) }},
	{"cycles its own lock", 1, true, func(ctx context.Context, h *hand) error { return h.cycle(ctx, h.own()) }},
	{"waits with a limit", 1, true, func(ctx context.Context, h *hand) error {
		return h.cycle(ctx, h.shared(), client.Wait(time.Duration(50+h.rng.IntN(500))*time.Millisecond))
	}},
	{"tries", 1, false, func(ctx context.Context, h *hand) error {
		g, err := h.client.TryLock(ctx, h.shared())
		return h.use(ctx, g, err, 5*time.Millisecond)
	}},
	{"lets a lock expire", 1, true, func(ctx context.Context, h *hand) error {
		g, err := h.client.Lock(ctx, h.name("expiring"), client.TTL(time.Duration(1000+h.rng.IntN(500))*time.Millisecond))
		return h.use(ctx, g, err, 2*time.Second)
	}},
	{"takes detached locks", 2, false, func(ctx context.Context, h *hand) error { return h.detached(ctx) }},
	{"reads", 2, false, func(ctx context.Context, h *hand) error {
		h.operations.Add(1)
		_, err := h.client.Get(ctx, h.shared())
		return late(ctx, err)
	}},
}

// name is the name of a lock in the present window of time.
func (h *hand) name(what string) string {
	return fmt.Sprintf("%s/%d", what, h.clock.now()/nameWindow)
}

func (h *hand) shared() string { return h.name(fmt.Sprintf("shared-%d", h.rng.IntN(sharedLocks))) }
func (h *hand) own() string    { return h.name("own-" + h.id) }

// errLate is a call that took callLimit.
var errLate = errors.New("the call had no answer in time")

// late makes an error of a call errLate if the end of ctx is what ended it.
func late(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: after %v: %w", errLate, callLimit, err)
	}
	return err
}

// cycle acquires a lock, holds it for a moment and releases it.
func (h *hand) cycle(ctx context.Context, name string, options ...client.LockOption) error {
	g, err := h.client.Lock(ctx, name, options...)
	return h.use(ctx, g, err, 5*time.Millisecond)
}

// use holds a grant for up to d while it is valid, records how long it was valid for certain,
// and releases it.
func (h *hand) use(ctx context.Context, g *client.Grant, err error, d time.Duration) error {
	h.operations.Add(1)
	if err != nil {
		return late(ctx, err)
	}
	// Each check is later than the time that is recorded for it: so a pause of the process
	// between the two does not lengthen the belief.
	b := history.Belief{Client: h.id, Wants: []history.Want{{Lock: g.Name(), Mode: fsm.Exclusive}}, Token: g.Token()}
	look := func() bool {
		at := h.clock.now()
		if err := g.Err(); err != nil {
			b.Lost, b.Told = history.LostWord(err), h.clock.now()
			return false
		}
		if b.From == 0 {
			b.From = at
		}
		b.Until = at
		return true
	}
	end := h.clock.now() + time.Duration(h.rng.Float64()*float64(d))
	for look() && h.clock.now() < end && !h.over() {
		h.sleep(min(5*time.Millisecond, d))
	}
	if b.From > 0 {
		h.mu.Lock()
		h.beliefs = append(h.beliefs, b)
		h.mu.Unlock()
	}
	h.operations.Add(1)
	return g.Unlock()
}

// detached takes a lock without a session, renews it or not, and releases it or
// leaves it to its TTL.
func (h *hand) detached(ctx context.Context) error {
	d, name := h.client.Detached(), h.name(fmt.Sprintf("detached-%d", h.rng.IntN(2)))
	ttl := time.Duration(1000+h.rng.IntN(1000)) * time.Millisecond
	h.operations.Add(1)
	g, err := d.Acquire(ctx, name, ttl, client.Wait(time.Duration(h.rng.IntN(2))*time.Second))
	if err != nil {
		return late(ctx, err)
	}
	for range h.rng.IntN(4) {
		h.sleep(ttl / 2)
		h.operations.Add(1)
		if _, err := d.Renew(ctx, name, g.Token, ttl); err != nil {
			return late(ctx, err)
		}
	}
	if h.rng.IntN(4) == 0 {
		return nil // it ends by time
	}
	h.operations.Add(1)
	return late(ctx, d.Release(ctx, name, g.Token))
}
