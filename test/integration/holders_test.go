//go:build unix

package integration

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
)

// What happens to a lock when its holder dies, sleeps or is cut off.

const holderTTL = 2 * time.Second

func TestWaiterGetsTheLockOfAKilledHolderWithinItsTTLAndASecond(t *testing.T) {
	t.Parallel()
	endpoints := sharedCluster(t).Endpoints()
	name := t.Name()
	dead := startHolder(t, endpoints, name, holderTTL)
	arrivals := make(chan arrival, 1)
	standInLine(t, dial(t, endpoints), name, 1, arrivals)

	dead.signal(t, syscall.SIGKILL)
	killed := time.Now()
	got := arrive(t, arrivals)
	if took := got.at.Sub(killed); took > holderTTL+time.Second {
		t.Errorf("the waiter got the lock %v after its holder was killed, want at most %v", took, holderTTL+time.Second)
	}
	if got.grant.Token() <= dead.token {
		t.Errorf("token %d after %d, want it greater", got.grant.Token(), dead.token)
	}
	must(t, got.grant.Unlock())
}

func TestPausedHolderLearnsOfItsLossBeforeItsNextStep(t *testing.T) {
	t.Parallel()
	endpoints := sharedCluster(t).Endpoints()
	name := t.Name()
	h := startHolder(t, endpoints, name, holderTTL)
	h.ask(t, "held?")
	if got := h.read(t); got != "yes" {
		t.Fatalf("held? got %q, want yes", got)
	}
	other := dial(t, endpoints)
	arrivals := make(chan arrival, 1)
	standInLine(t, other, name, 1, arrivals)

	h.signal(t, syscall.SIGSTOP)
	paused := time.Now()
	got := arrive(t, arrivals)
	if took := got.at.Sub(paused); took > holderTTL+time.Second {
		t.Errorf("the waiter got the lock %v after its holder was paused, want at most %v", took, holderTTL+time.Second)
	}
	// These questions are there before the process goes on: the first is answered
	// by the first that it does.
	h.ask(t, "held?")
	h.ask(t, "told?")
	h.ask(t, "unlock")
	h.signal(t, syscall.SIGCONT)
	if got := h.read(t); !strings.HasPrefix(got, "no: ") || !strings.Contains(got, "lost") {
		t.Errorf("held? after the pause: got %q, want no, because it was lost", got)
	}
	if got := h.read(t); got != "yes" {
		t.Errorf("told? after the pause: got %q, want yes", got)
	}
	if got := h.read(t); !strings.Contains(got, "lost") {
		t.Errorf("unlock after the pause: got %q, want that it was lost", got)
	}
	// What the stale holder did has not touched its successor.
	must(t, got.grant.Err())
	heldWith(t, other, name, got.grant.Token())
	must(t, got.grant.Unlock())
}

// A holder without a network knows by its own clock when to stop, and nobody else
// has the lock before.
func TestHolderThatIsCutOffStopsBeforeAnotherBegins(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	name := t.Name()
	// The leader's status names no other address, so that all goes through here.
	p := startProxy(t, leaderOf(t, c).API())
	other := dial(t, c.Endpoints())
	g := lock(t, dial(t, []string{p.address()}, client.SessionTTL(holderTTL)), name)
	arrivals := make(chan arrival, 1)
	standInLine(t, other, name, 1, arrivals)

	p.stall()
	cut := time.Now()
	var believed, deadline time.Time
	for deadline = g.Deadline(); g.Err() == nil; time.Sleep(time.Millisecond) {
		at := time.Now()
		if d := g.Deadline(); g.Err() == nil {
			believed, deadline = at, d
		}
	}
	if believed.After(deadline) {
		t.Errorf("believed in the grant %v after its deadline", believed.Sub(deadline))
	}
	select {
	case <-g.Lost():
	case <-time.After(patience):
		t.Error("Lost is not closed")
	}
	got := arrive(t, arrivals)
	if !got.at.After(believed) {
		t.Errorf("the next had the lock %v before the holder stopped to believe in it", believed.Sub(got.at))
	}
	if took := got.at.Sub(cut); took > holderTTL+time.Second {
		t.Errorf("the waiter got the lock %v after its holder was cut off, want at most %v", took, holderTTL+time.Second)
	}
	p.mend()
	if err := g.Unlock(); err == nil {
		t.Error("Unlock of a lost grant: got nil, want that it was lost")
	}
	heldWith(t, other, name, got.grant.Token())
	must(t, got.grant.Unlock())
}

func TestHeldLockOutlivesItsTTLWhileItsHolderLives(t *testing.T) {
	t.Parallel()
	endpoints := sharedCluster(t).Endpoints()
	c := dial(t, endpoints, client.SessionTTL(time.Second))
	g := lock(t, c, t.Name())
	for began := time.Now(); time.Since(began) < 3*time.Second; {
		must(t, g.Err())
		heldWith(t, c, t.Name(), g.Token())
	}
	must(t, g.Unlock())
}
