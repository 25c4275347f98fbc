package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/proof/testall"
)

// TestOneGrantIsValidAtATime runs clients with good and bad clocks against a cluster that
// loses, delays and refuses requests, and stands still; one lock in five is taken detached.
// At no moment are two grants of one lock valid, tokens only grow, and in the end nothing is
// left. In every third run operators release locks by force, so that grants may be valid for
// a moment longer.
func TestOneGrantIsValidAtATime(t *testing.T) {
	seeds := 60
	if !testall.On() {
		seeds = 10
	}
	total := 0
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) { total += runWithFaults(t, uint64(seed)) })
	}
	if total < 50*seeds {
		t.Errorf("only %d grants in %d runs: the test does not test much", total, seeds)
	}
}

// ledger has the grants that clients hold.
type ledger struct {
	mu     sync.Mutex
	held   map[string][]heldGrant
	tokens map[string]uint64
	grants int
	forced bool // an operator may have ended a grant that is still valid for its client
}

// heldGrant is a grant that a client holds.
type heldGrant struct {
	token uint64
	held  func() bool
}

// add notes a grant, and checks that no other one of the lock is valid.
func (b *ledger) add(t *testing.T, name string, c heldGrant) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.grants++
	if last := b.tokens[name]; c.token <= last && !b.forced {
		t.Errorf("%q: token %d after %d", name, c.token, last)
	}
	b.tokens[name] = c.token
	kept := []heldGrant{c}
	for _, other := range b.held[name] {
		if !b.forced && other.held() {
			t.Errorf("%q: token %d is valid while token %d was granted", name, other.token, c.token)
			kept = append(kept, other)
		}
	}
	b.held[name] = kept
}

func runWithFaults(t *testing.T, seed uint64) (grants int) {
	random := rand.New(rand.NewPCG(seed, 7))
	k := newCluster(t)
	b := &ledger{held: map[string][]heldGrant{}, tokens: map[string]uint64{}, forced: seed%3 == 0}
	var mu sync.Mutex // guards random
	roll := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
	k.fault(func(op *apiv1.Operation) fate { return randomFate(roll) })
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	var wg sync.WaitGroup
	for i := range 4 {
		rate := 1 + float64(roll(11)-5)/1000
		began := time.Now()
		c := k.client(t, SessionTTL(time.Duration(2+roll(8))*time.Second), Holder(fmt.Sprint(i)), Clock(func() time.Duration {
			return time.Duration(float64(time.Since(began)) * rate)
		}))
		for range 2 {
			wg.Go(func() { work(ctx, t, c, b, roll) })
		}
	}
	wg.Go(func() { operate(ctx, k, b.forced, roll) })
	wg.Wait()

	k.setDown(false)
	k.fault(nil)
	time.Sleep(30 * time.Second) // idle clients may keep their sessions
	if s := k.stats(); s.Grants != 0 || s.Waiters != 0 {
		t.Errorf("seed %d: %d grants and %d waiters are left", seed, s.Grants, s.Waiters)
	}
	return b.grants
}

func randomFate(roll func(int) int) fate {
	switch roll(40) {
	case 0:
		return fate{loseRequest: true}
	case 1:
		return fate{loseAnswer: true}
	case 2:
		return fate{delayAnswer: time.Duration(roll(8000)) * time.Millisecond}
	case 3:
		return fate{refuse: apiv1.NewError([]apiv1.Code{
			apiv1.CodeUnavailable, apiv1.CodeOverloaded, apiv1.CodeUnknownOutcome, apiv1.CodeNotReady,
		}[roll(4)], "fault")}
	}
	return fate{}
}

// work locks and unlocks.
func work(ctx context.Context, t *testing.T, c *Client, b *ledger, roll func(int) int) {
	for ctx.Err() == nil {
		var opts []LockOption
		if roll(3) == 0 {
			opts = append(opts, TTL(time.Duration(1+roll(5))*time.Second))
		}
		var detached []DetachedOption
		if roll(3) == 0 {
			wait := Wait(time.Duration(1+roll(6)) * time.Second)
			opts, detached = append(opts, wait), append(detached, wait)
		}
		try, cancel := ctx, func() {}
		if roll(3) == 0 {
			try, cancel = context.WithTimeout(ctx, time.Duration(1+roll(5000))*time.Millisecond)
		}
		name := []string{"a", "b"}[roll(2)]
		hold := func() { time.Sleep(time.Duration(roll(4000)) * time.Millisecond) }
		var err error
		if roll(5) == 0 {
			err = workDetached(try, t, c, b, name, time.Duration(1+roll(5))*time.Second, detached, hold)
		} else {
			lock := c.Lock
			if roll(4) == 0 {
				lock = c.TryLock
			}
			var g *Grant
			if g, err = lock(try, name, opts...); err == nil {
				b.add(t, name, heldGrant{g.Token(), func() bool { return g.Err() == nil }})
				hold()
				if err := g.Unlock(); err != nil && !errors.Is(err, ErrLost) {
					t.Errorf("unexpected error of Unlock: %v", err)
				}
			}
		}
		cancel()
		if err != nil {
			if !expectable(err) {
				t.Errorf("unexpected error: %v", err)
			}
			time.Sleep(time.Duration(1+roll(300)) * time.Millisecond)
		}
	}
}

// workDetached locks for a time, and mostly releases before that.
func workDetached(ctx context.Context, t *testing.T, c *Client, b *ledger, name string, ttl time.Duration, opts []DetachedOption, hold func()) error {
	g, err := c.Detached().Acquire(ctx, name, ttl, opts...)
	if err != nil {
		return err
	}
	if g.ExpiresIn > ttl {
		t.Errorf("%q: a grant of %v is certain for %v", name, ttl, g.ExpiresIn)
	}
	until := c.now() + g.ExpiresIn
	var released atomic.Bool
	b.add(t, name, heldGrant{g.Token, func() bool { return !released.Load() && c.now() < until }})
	hold()
	released.Store(true)
	if err := c.Detached().Release(ctx, name, g.Token); err != nil && !errors.Is(err, ErrNotHeld) {
		return err
	}
	return nil
}

func expectable(err error) bool {
	for _, e := range []error{ErrTimeout, ErrBusy, ErrLost, ErrUnavailable, ErrOverloaded, context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// operate makes outages and, with force, force-releases.
func operate(ctx context.Context, k *cluster, force bool, roll func(int) int) {
	for ctx.Err() == nil {
		time.Sleep(time.Duration(roll(10_000)) * time.Millisecond)
		choice := roll(4)
		if !force {
			choice = 0
		}
		switch choice {
		case 0:
			k.setDown(true)
			time.Sleep(time.Duration(roll(15_000)) * time.Millisecond)
			k.setDown(false)
		case 1:
			k.mu.Lock()
			k.noNotice = !k.noNotice
			k.mu.Unlock()
		case 2:
			k.do(fsm.ForceRelease{Lock: []string{"a", "b"}[roll(2)], Who: "root", Reason: "fault"})
		case 3:
			k.killHolder()
		}
	}
}
