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

// The two stories from which the project comes, step for step.

const (
	storyTTL   = 2 * time.Second
	storyWait  = 4 * time.Second
	storyEvery = time.Second + 50*time.Millisecond // a lock may end a little late, never early
)

// countActive asks once a second whether the lock is held, until it is not, and
// returns how often it was. It returns false where the machine was so slow that a
// question was not asked in the second that was meant for it.
func countActive(t *testing.T, acquired time.Time, locked func() bool) (active int, timely bool) {
	t.Helper()
	for {
		time.Sleep(time.Until(acquired.Add(time.Duration(active) * storyEvery)))
		asked := time.Since(acquired)
		held := locked()
		late := time.Since(acquired)
		if held && asked > storyTTL+time.Second {
			t.Fatalf("still locked %v after it was acquired for %v", asked, storyTTL)
		}
		if !held && late < storyTTL*99/100 {
			t.Fatalf("free %v after it was acquired for %v", late, storyTTL)
		}
		if !held {
			return active, late < time.Duration(active+1)*storyEvery
		}
		active++
	}
}

// tell tells a story again if the machine was too slow for it.
func tell(t *testing.T, story func(name string) (timely bool)) {
	t.Helper()
	for try := range 10 {
		if story(fmt.Sprintf("%s/%d", t.Name(), try)) || t.Failed() {
			return
		}
	}
	t.Fatal("the machine is too slow to ask a question every second")
}

func TestStoryOfAnExpiredLock(t *testing.T) {
	t.Parallel()
	c := dial(t, sharedCluster(t).Endpoints())
	options := []client.AcquireOption{client.Wait(storyWait), client.TTL(storyTTL)}
	tell(t, func(name string) (timely bool) {
		var second *client.Grant
		asked := time.Now()
		err := c.Do(t.Context(), name, func(_ context.Context, first *client.Grant) error {
			var active int
			active, timely = countActive(t, asked, func() bool { // "still active"
				locked, err := c.IsLocked(t.Context(), name)
				must(t, err)
				return locked
			})
			if timely && active != 2 {
				t.Errorf("still active %d times, want 2", active)
			}
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
		// Leaving the scope of the first has not touched the second, which may
		// have expired by now only if the machine has slept.
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
	options := []client.AcquireOption{client.Wait(storyWait), client.TTL(time.Minute)}
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
		must(t, first.Unlock()) // twice is once, and does not touch the second
		heldWith(t, c, name, second.Token())
		return nil
	}, options...)
	must(t, err)
}

func TestStoryOfAnExpiredLockOnTheCommandLine(t *testing.T) {
	t.Parallel()
	endpoints := sharedCluster(t).Endpoints()
	acquire := func(name string) grantView {
		return into[grantView](t, locknode(t, endpoints, "acquire", name, "--ttl", "2s", "--wait", "4s", "-o", "json"))
	}
	tell(t, func(name string) bool {
		asked := time.Now()
		first := acquire(name)
		active, timely := countActive(t, asked, func() bool {
			return into[lockView](t, locknode(t, endpoints, "get", name, "-o", "json")).Held
		})
		if timely && active != 2 {
			t.Errorf("still active %d times, want 2", active)
		}
		acquired := time.Now()
		second := acquire(name)
		if second.Token <= first.Token {
			t.Errorf("the second token is %d, want more than the first, %d", second.Token, first.Token)
		}
		// What the script does at its end: it releases what it has acquired.
		locknode(t, endpoints, "release", name, strconv.FormatUint(first.Token, 10)).ends(t, 1)
		renew := locknode(t, endpoints, "renew", name, strconv.FormatUint(second.Token, 10), "--ttl", "1m")
		if renew.wait(t) != 0 && time.Since(acquired) > storyTTL*99/100 {
			return false
		}
		renew.ends(t, 0) // or the stale release has touched it
		locknode(t, endpoints, "release", name, strconv.FormatUint(second.Token, 10)).ends(t, 0)
		return timely
	})
}

func TestStoryOfAReleasedLockOnTheCommandLine(t *testing.T) {
	t.Parallel()
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
