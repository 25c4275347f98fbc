package locktest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/locktest"
)

// The two stories that the project started from, step for step. In virtual time
// "exactly twice" is exact.

func TestStoryOfAnExpiredLock(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		c := cluster.Client("alice")
		report := c.Mutex("report", client.Wait(4*time.Second), client.TTL(2*time.Second))
		var second *client.Grant
		active := 0
		err := report.Do(t.Context(), func(_ context.Context, first *client.Grant) error {
			for isLocked(t, c, "report") {
				active++
				time.Sleep(time.Second)
			}
			var err error
			second, err = report.Lock(t.Context()) // the first is still in scope
			must(t, err)
			if second.Token() <= first.Token() {
				t.Errorf("the second token is %d, want more than the first, %d", second.Token(), first.Token())
			}
			return nil
		})
		if !errors.Is(err, client.ErrLost) {
			t.Errorf("Do whose lock expired: %v, want ErrLost", err)
		}
		if active != 2 {
			t.Errorf("the lock was still active %d times, want 2", active)
		}
		if !isLocked(t, c, "report") || second.Err() != nil {
			t.Errorf("leaving the scope of the first hold has ended the second: %v", second.Err())
		}
		must(t, second.Unlock())
	})
}

func TestStoryOfAReleasedLock(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		c := cluster.Client("alice")
		report := c.Mutex("report", client.Wait(4*time.Second), client.TTL(2*time.Second))
		must(t, report.Do(t.Context(), func(_ context.Context, g *client.Grant) error {
			must(t, g.Unlock())
			if isLocked(t, c, "report") {
				t.Error("it is locked after it was released by hand")
			}
			begin := time.Now()
			again, err := report.TryLock(t.Context())
			must(t, err)
			if took := time.Since(begin); took > 10*time.Millisecond {
				t.Errorf("it was acquired again after %v, want at once", took)
			}
			return again.Unlock()
		}))
	})
}
