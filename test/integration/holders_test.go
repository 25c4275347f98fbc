//go:build unix

package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
)

// What happens to a lock when its holder is killed, paused or cut off.

const holderTTL = 2 * time.Second

// tooLate is an error if a waiter got the lock of a lost holder later than promised.
func tooLate(got arrival, what string, lost time.Time) error {
	if took := got.at.Sub(lost); took > holderTTL+time.Second {
		return fmt.Errorf("the waiter got the lock %v after its holder was %s, want at most %v", took, what, holderTTL+time.Second)
	}
	return nil
}

func TestWaiterGetsTheLockOfAKilledHolderWithinItsTTLAndASecond(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	whileCalm(t, c, func(name string) error {
		dead := startHolder(t, c.Endpoints(), name, holderTTL)
		arrivals := make(chan arrival, 1)
		queueUp(t, dial(t, c.Endpoints()), name, 1, arrivals)

		dead.signal(t, syscall.SIGKILL)
		killed := time.Now()
		got := arrive(t, arrivals)
		if got.grant.Token() <= dead.token {
			t.Errorf("token %d after %d, want it greater", got.grant.Token(), dead.token)
		}
		must(t, got.grant.Unlock())
		return tooLate(got, "killed", killed)
	})
}

func TestPausedHolderLearnsOfItsLossBeforeItsNextStep(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	other := dial(t, c.Endpoints())
	whileCalm(t, c, func(name string) error {
		h := startHolder(t, c.Endpoints(), name, holderTTL)
		h.ask(t, "held?")
		if got := h.read(t); got != "yes" {
			t.Fatalf("held? got %q, want yes", got)
		}
		arrivals := make(chan arrival, 1)
		queueUp(t, other, name, 1, arrivals)

		h.signal(t, syscall.SIGSTOP)
		paused := time.Now()
		got := arrive(t, arrivals)
		// These questions arrive before the process goes on, and it answers the first one
		// first of all.
		h.ask(t, "held?")
		h.ask(t, "notified?")
		h.ask(t, "unlock")
		h.signal(t, syscall.SIGCONT)
		if got := h.read(t); !strings.HasPrefix(got, "no: ") || !strings.Contains(got, "lost") {
			t.Errorf("held? after the pause: got %q, want no, because it was lost", got)
		}
		if got := h.read(t); got != "yes" {
			t.Errorf("notified? after the pause: got %q, want yes", got)
		}
		if got := h.read(t); !strings.Contains(got, "lost") {
			t.Errorf("unlock after the pause: got %q, want that it was lost", got)
		}
		// What the stale holder did has not changed the grant of the next one.
		must(t, got.grant.Err())
		heldWith(t, other, name, got.grant.Token())
		must(t, got.grant.Unlock())
		return tooLate(got, "paused", paused)
	})
}

// A holder without a network knows by its own clock when to stop, and no other client gets
// the lock earlier.
func TestHolderThatIsCutOffStopsBeforeAnotherBegins(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	other := dial(t, c.Endpoints())
	whileCalm(t, c, func(name string) error {
		// It learns the addresses of all nodes, so all of them must be unreachable.
		way := newClientNetwork(t, c)
		g := lock(t, dial(t, c.Endpoints(), client.SessionTTL(holderTTL), way.option()), name)
		arrivals := make(chan arrival, 1)
		queueUp(t, other, name, 1, arrivals)

		way.stall()
		cut := time.Now()
		valid := validUntil(t, g)
		got := arrive(t, arrivals)
		if !got.at.After(valid) {
			t.Errorf("the next waiter had the lock %v before it was lost for the holder", valid.Sub(got.at))
		}
		way.mend()
		if err := g.Unlock(); err == nil {
			t.Error("Unlock of a lost grant: got nil, want that it was lost")
		}
		heldWith(t, other, name, got.grant.Token())
		must(t, got.grant.Unlock())
		return tooLate(got, "cut off", cut)
	})
}

// validUntil waits until a grant is lost, and returns until when it was valid.
func validUntil(t *testing.T, g *client.Grant) (until time.Time) {
	t.Helper()
	deadline, giveUp := g.Deadline(), time.Now().Add(patience)
	for ; g.Err() == nil; time.Sleep(time.Millisecond) {
		at := time.Now()
		if at.After(giveUp) {
			t.Fatalf("the grant is not lost within %v", patience)
		}
		if d := g.Deadline(); g.Err() == nil {
			until, deadline = at, d
		}
	}
	if until.After(deadline) {
		t.Errorf("the grant was valid %v after its deadline", until.Sub(deadline))
	}
	select {
	case <-g.Lost():
	case <-time.After(patience):
		t.Error("Lost is not closed")
	}
	return until
}

func TestHeldLockOutlivesItsTTLWhileItsHolderRuns(t *testing.T) {
	t.Parallel()
	c := sharedCluster(t)
	whileCalm(t, c, func(name string) error {
		holder := dial(t, c.Endpoints(), client.SessionTTL(holderTTL))
		g := lock(t, holder, name)
		for began := time.Now(); time.Since(began) < holderTTL*3/2; {
			if info := get(t, holder, name); g.Err() != nil || len(info.Holders) != 1 || info.Holders[0].Token != g.Token() {
				return fmt.Errorf("%v after it was acquired for a session of %v: %+v, the grant says: %w",
					time.Since(began), holderTTL, info, g.Err())
			}
		}
		return g.Unlock()
	})
}
