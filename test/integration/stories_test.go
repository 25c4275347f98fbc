//go:build unix

package integration

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
)

// Two stories of a lock, step by step.

// pace is how fast a story runs: as it was written, or slower on a slow machine.
type pace struct {
	wait, ttl time.Duration
	every     time.Duration // a second and a little: a lock may end late, never early
}

// tell runs a story, and again at half the pace if the machine was too slow for it.
func tell(t *testing.T, story func(name string, p pace) (timely bool)) {
	t.Helper()
	p := pace{4 * time.Second, 2 * time.Second, 1200 * time.Millisecond}
	for try := range 5 {
		if story(fmt.Sprintf("%s/%d", t.Name(), try), p) || t.Failed() {
			return
		}
		t.Logf("the machine is too slow to ask a question every %v", p.every)
		p = pace{2 * p.wait, 2 * p.ttl, 2 * p.every}
	}
	t.Fatal("the machine is too slow for any story")
}

// activeTwice checks at this pace whether the lock is held, until it is not, and reports
// whether it was held exactly twice. It was not if the machine was so slow that a check came
// late or the lock ended late. A lock that ends early fails the test at once.
func (p pace) activeTwice(t *testing.T, asked, acquired time.Time, locked func() bool) bool {
	t.Helper()
	active := 0
	for locked() {
		active++
		if time.Since(acquired) > p.ttl+patience {
			t.Fatalf("still locked %v after it was acquired for %v", time.Since(acquired), p.ttl)
		}
		time.Sleep(time.Until(acquired.Add(time.Duration(active) * p.every)))
	}
	if lived := time.Since(asked); lived < p.ttl {
		t.Fatalf("free %v after it was asked for, for %v", lived, p.ttl)
	}
	return active == 2
}

func TestStoryOfAnExpiredLock(t *testing.T) {
	t.Parallel()
	c := dial(t, sharedCluster(t).Endpoints())
	tell(t, func(name string, p pace) (timely bool) {
		options := []client.LockOption{client.Wait(p.wait), client.TTL(p.ttl)}
		var second *client.Grant
		asked := time.Now()
		err := c.Do(t.Context(), name, func(_ context.Context, first *client.Grant) error {
			timely = p.activeTwice(t, asked, time.Now(), func() bool { // "still active"
				locked, err := c.IsLocked(t.Context(), name)
				must(t, err)
				return locked
			})
			second = lock(t, c, name, options...) // the first is still in scope
			if second.Token() <= first.Token() {
				t.Errorf("the second token is %d, want more than the first, %d", second.Token(), first.Token())
			}
			if err := first.Err(); !errors.Is(err, client.ErrLost) {
				t.Errorf("Err of the expired grant: got %v, want ErrLost", err)
			}
			return nil
		}, options...)
		if !errors.Is(err, client.ErrLost) {
			t.Errorf("Do whose lock expired: got %v, want ErrLost", err)
		}
		if second == nil {
			return timely
		}
		// The end of the first scope has not changed the second, which may have
		// expired by now only if the machine was paused.
		info := get(t, c, name)
		if second.Err() != nil {
			return false
		}
		if len(info.Holders) != 1 || info.Holders[0].Token != second.Token() {
			t.Errorf("after the first scope was left: got %+v, want it held with token %d", info, second.Token())
		}
		_ = second.Unlock() // it may expire right now
		return timely
	})
}

func TestStoryOfAReleasedLock(t *testing.T) {
	t.Parallel()
	c := dial(t, sharedCluster(t).Endpoints())
	name := t.Name()
	options := []client.LockOption{client.Wait(4 * time.Second), client.TTL(time.Minute)}
	err := c.Do(t.Context(), name, func(_ context.Context, first *client.Grant) error {
		must(t, first.Unlock())
		locked, err := c.IsLocked(t.Context(), name)
		must(t, err)
		if locked {
			t.Error("IsLocked after Unlock: got true, want false")
		}
		second, err := c.TryLock(t.Context(), name, options[1:]...)
		must(t, err)
		defer func() { must(t, second.Unlock()) }()
		if second.Token() <= first.Token() || first.Err() == nil {
			t.Errorf("acquired again at once: token %d after %d, the first says %v", second.Token(), first.Token(), first.Err())
		}
		must(t, first.Unlock()) // a second time does nothing, also to the second grant
		heldWith(t, c, name, second.Token())
		return nil
	}, options...)
	must(t, err)
}

func TestStoryOfAnExpiredLockOnTheCommandLine(t *testing.T) {
	t.Parallel()
	slow(t, "tells a story of the client once more, by commands")
	endpoints := sharedCluster(t).Endpoints()
	tell(t, func(name string, p pace) bool {
		acquire := func(name string) grantView {
			return into[grantView](t, locknode(t, endpoints, "acquire", name, "--ttl", p.ttl.String(), "--wait", p.wait.String(), "-o", "json"))
		}
		asked := time.Now()
		first := acquire(name)
		timely := p.activeTwice(t, asked, time.Now(), func() bool {
			return into[lockView](t, locknode(t, endpoints, "get", name, "-o", "json")).Held
		})
		acquired := time.Now()
		second := acquire(name)
		if second.Token <= first.Token {
			t.Errorf("the second token is %d, want more than the first, %d", second.Token, first.Token)
		}
		// What the script does at its end: it releases what it has acquired.
		locknode(t, endpoints, "release", name, strconv.FormatUint(first.Token, 10)).ends(t, 1)
		renew := locknode(t, endpoints, "renew", name, strconv.FormatUint(second.Token, 10), "--ttl", "1m")
		if renew.wait(t) != 0 && time.Since(acquired) > p.ttl*99/100 {
			return false
		}
		renew.ends(t, 0) // or the stale release has ended it
		locknode(t, endpoints, "release", name, strconv.FormatUint(second.Token, 10)).ends(t, 0)
		return timely
	})
}

func TestStoryOfAReleasedLockOnTheCommandLine(t *testing.T) {
	t.Parallel()
	slow(t, "tells a story of the client once more, by commands")
	endpoints := sharedCluster(t).Endpoints()
	name := t.Name()
	var tokens []uint64
	for range 2 {
		g := into[grantView](t, locknode(t, endpoints, "acquire", name, "--ttl", "1m", "-o", "json"))
		tokens = append(tokens, g.Token)
		locknode(t, endpoints, "release", name, strconv.FormatUint(g.Token, 10)).ends(t, 0)
		if got := into[lockView](t, locknode(t, endpoints, "get", name, "-o", "json")); got.Held {
			t.Errorf("get after release: got %+v, want it free", got)
		}
	}
	if tokens[1] <= tokens[0] {
		t.Errorf("tokens %v, want them to grow", tokens)
	}
}
