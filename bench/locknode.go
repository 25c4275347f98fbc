package main

import (
	"context"
	"errors"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
)

func buildLocknode(ctx context.Context, s *system, dir string) (err error) {
	s.program, err = build(ctx, "..", "./cmd/locknode", dir)
	return err
}

// locknode is a cluster of three processes, as `locknode bench` starts it, and its clients.
type locknode struct {
	nodes  *proc.Cluster
	dialed []*client.Client
}

func startLocknode(ctx context.Context, s *system, dir string) (cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := proc.Start(ctx, proc.Options{Binary: s.program, Dir: dir})
	if err != nil {
		return nil, err
	}
	if _, err := c.Leader(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &locknode{nodes: c}, nil
}

func (l *locknode) pids() []int {
	var pids []int
	for _, n := range l.nodes.Running() {
		pids = append(pids, n.PID())
	}
	return pids
}

// sessions all use one client: its documentation says that one is enough for a program.
func (l *locknode) sessions(ctx context.Context, n int) ([]session, error) {
	c, err := client.Dial(ctx, l.nodes.Endpoints(), client.Holder("bench"))
	if err != nil {
		return nil, err
	}
	l.dialed = append(l.dialed, c)
	all := make([]session, n)
	for i := range all {
		all[i] = locknodeSession{c}
	}
	return all, nil
}

func (l *locknode) close() error {
	for _, c := range l.dialed {
		_ = c.Close() // the cluster ends anyway
	}
	return l.nodes.Close()
}

type locknodeSession struct{ c *client.Client }

func (s locknodeSession) lock(ctx context.Context, name string) (func(context.Context) error, error) {
	g, err := s.c.Lock(ctx, name)
	if err != nil {
		return nil, err
	}
	return func(context.Context) error { return g.Unlock() }, nil
}

func (s locknodeSession) try(ctx context.Context, name string) (func(context.Context) error, error) {
	g, err := s.c.TryLock(ctx, name)
	switch {
	case errors.Is(err, client.ErrBusy):
		return nil, errHeld
	case err != nil:
		return nil, err
	}
	return func(context.Context) error { return g.Unlock() }, nil
}

func (s locknodeSession) hold(ctx context.Context, name string) error {
	_, err := s.c.TryLock(ctx, name)
	return err
}

func (s locknodeSession) locked(ctx context.Context, name string, stale bool) (bool, error) {
	if stale {
		return s.c.IsLocked(ctx, name, client.Stale(staleBound))
	}
	return s.c.IsLocked(ctx, name)
}
