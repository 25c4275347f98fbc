package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-redsync/redsync/v4"
	redsyncredis "github.com/go-redsync/redsync/v4/redis"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
)

// redlock is the algorithm of redis.io/docs/latest/develop/clients/patterns/distributed-locks,
// by redsync, over three nodes of Redis that do not know each other.
type redlock struct {
	*redisNodes
	sync *redsync.Redsync
}

// startRedlock starts the nodes with Redis's defaults, which save to disk now and then.
func startRedlock(ctx context.Context, s *system, dir string) (cluster, error) {
	nodes, err := startRedisNodes(ctx, s, dir, 3)
	if err != nil {
		return nil, err
	}
	var pools []redsyncredis.Pool
	for _, c := range nodes.clients {
		pools = append(pools, goredis.NewPool(c))
	}
	return &redlock{nodes, redsync.New(pools...)}, nil
}

func (r *redlock) sessions(_ context.Context, n int) ([]session, error) {
	all := make([]session, n)
	for i := range all {
		all[i] = redlockSession{r.sync}
	}
	return all, nil
}

type redlockSession struct{ sync *redsync.Redsync }

// lock tries 32 times, redsync's default, and then fails.
func (s redlockSession) lock(ctx context.Context, name string) (func(context.Context) error, error) {
	m := s.sync.NewMutex(name)
	if err := m.LockContext(ctx); err != nil {
		return nil, err
	}
	return release(m), nil
}

func (s redlockSession) try(ctx context.Context, name string) (func(context.Context) error, error) {
	m := s.sync.NewMutex(name)
	err := m.TryLockContext(ctx)
	var taken *redsync.ErrTaken
	switch {
	case errors.As(err, &taken):
		return nil, errHeld
	case err != nil:
		return nil, err
	}
	return release(m), nil
}

func release(m *redsync.Mutex) func(context.Context) error {
	return func(ctx context.Context) error {
		ok, err := m.UnlockContext(ctx)
		if err == nil && !ok {
			err = fmt.Errorf("%s was lost before its release", m.Name())
		}
		return err
	}
}

func (s redlockSession) hold(ctx context.Context, name string) error {
	return s.sync.NewMutex(name, redsync.WithExpiry(longHold)).TryLockContext(ctx)
}

func (redlockSession) locked(context.Context, string, bool) (bool, error) {
	return false, errors.New("redsync has no read")
}
