package locktest_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/locktest"
)

// store is what the worker writes to. It compares tokens: that is the one line
// that no lock service can write for it.
type store struct {
	mu     sync.Mutex
	token  uint64
	writes []string
}

var errOldToken = errors.New("the token is older than one that was seen")

func (s *store) write(token uint64, text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if token < s.token {
		return errOldToken
	}
	s.token, s.writes = token, append(s.writes, text)
	return nil
}

// work is the program under test: it does a job under a lock. beforeWrite does
// nothing in production.
func work(ctx context.Context, locks *client.Client, s *store, text string, beforeWrite func()) error {
	return locks.Do(ctx, "job", func(ctx context.Context, g *client.Grant) error {
		if err := ctx.Err(); err != nil {
			return err // the last look
		}
		beforeWrite()
		return s.write(g.Token(), text)
	})
}

// TestAWorkerThatIsPausedForAMinuteDoesNotWriteAfterwards is a user's test. Meanwhile
// somebody else does the job.
func TestAWorkerThatIsPausedForAMinuteDoesNotWriteAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, s := locktest.New(t, 3), &store{}
		paused := make(chan error)
		go func() {
			paused <- work(t.Context(), cluster.Client("worker"), s, "late", func() { cluster.PauseFor("worker", time.Minute) })
		}()
		time.Sleep(time.Second) // until the worker is in the middle of its job
		if err := work(t.Context(), cluster.Client("other"), s, "other", func() {}); err != nil {
			t.Error(err)
		}
		if err := <-paused; !errors.Is(err, client.ErrLost) || !errors.Is(err, errOldToken) {
			t.Errorf("the worker says %v, want that its lock was lost and its write refused", err)
		}
		if len(s.writes) != 1 || s.writes[0] != "other" {
			t.Errorf("written: %q, want what the other wrote and nothing else", s.writes)
		}
		cluster.CheckHistory()
	})
}
