package locktest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/locktest"
)

// store is what the worker writes to. That it compares tokens is the one thing
// that no lock service can do for it.
type store struct {
	token  uint64 // the largest that was seen
	writes int
}

var errOldToken = errors.New("token is older than one that was seen")

func (s *store) write(token uint64) error {
	if token < s.token {
		return errOldToken
	}
	s.token, s.writes = token, s.writes+1
	return nil
}

// work is the program under test: it does a job under a lock. beforeWrite is
// called between the last look at the lock and the write; in production it does
// nothing.
func work(ctx context.Context, locks *client.Client, s *store, beforeWrite func()) error {
	return locks.Do(ctx, "job", func(ctx context.Context, g *client.Grant) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		beforeWrite()
		return s.write(g.Token())
	})
}

func TestAWorkerThatWasPausedForAMinuteDoesNotWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, s := locktest.New(t, 3), &store{}
		err := work(t.Context(), cluster.Client("worker"), s, func() {
			cluster.Pause("worker")
			time.Sleep(30 * time.Second)
			if err := work(t.Context(), cluster.Client("other"), s, func() {}); err != nil {
				t.Errorf("the lock of a worker that is paused was not free in time: %v", err)
			}
			time.Sleep(30 * time.Second)
			cluster.Resume("worker")
		})
		if !errors.Is(err, client.ErrLost) || !errors.Is(err, errOldToken) || s.writes != 1 {
			t.Errorf("the worker says %v, and there are %d writes, want a lost lock and the other's write alone", err, s.writes)
		}
		cluster.CheckHistory()
	})
}
