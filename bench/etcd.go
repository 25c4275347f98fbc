package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	etcdclient "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
)

func etcdVersion() string { return version.Version }

func buildEtcd(ctx context.Context, s *system, dir string) (err error) {
	s.program, err = build(ctx, ".", "./cmd/etcd", dir)
	return err
}

// etcd is a cluster of three members, and its clients.
type etcd struct {
	*group
	endpoints []string
	dialed    []*etcdclient.Client
}

func startEtcd(ctx context.Context, s *system, dir string) (cluster, error) {
	const members = 3
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	g, err := newGroup(dir, members)
	if err != nil {
		return nil, err
	}
	e := &etcd{group: g}
	var initial []string
	for i := range members {
		initial = append(initial, fmt.Sprintf("m%d=http://%s", i, g.address(i, 1)))
		e.endpoints = append(e.endpoints, g.address(i, 0))
	}
	for i := range members {
		name, api, peer := fmt.Sprintf("m%d", i), "http://"+g.address(i, 0), "http://"+g.address(i, 1)
		err := g.start(name, s.program, "--name", name, "--data-dir", filepath.Join(dir, name),
			"--listen-client-urls", api, "--advertise-client-urls", api,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-state", "new")
		if err != nil {
			return nil, errors.Join(err, e.close())
		}
	}
	if err := e.ready(ctx); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// ready waits until every member knows a leader.
func (e *etcd) ready(ctx context.Context) error {
	c, err := e.dial()
	if err != nil {
		return err
	}
	for _, endpoint := range e.endpoints {
		for {
			once, cancel := context.WithTimeout(ctx, time.Second)
			status, err := c.Status(once, endpoint)
			cancel()
			if err == nil && status.Leader != 0 {
				break
			}
			if err := errors.Join(e.exited(), sleep(ctx, 20*time.Millisecond)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *etcd) dial() (*etcdclient.Client, error) {
	c, err := etcdclient.New(etcdclient.Config{Endpoints: e.endpoints, Logger: zap.NewNop()})
	if err == nil {
		e.dialed = append(e.dialed, c)
	}
	return c, err
}

// sessions use one client, which is safe for concurrent use. Each has a lease of its own:
// etcd's mutex is held by a session, so two workers with the same one would share a lock.
func (e *etcd) sessions(ctx context.Context, n int) ([]session, error) {
	c, err := e.dial()
	if err != nil {
		return nil, err
	}
	all := make([]session, n)
	for i := range all {
		lease, err := c.Grant(ctx, 60) // as NewSession does by default, but it ends with ctx
		if err != nil {
			return nil, err
		}
		s, err := concurrency.NewSession(c, concurrency.WithLease(lease.ID))
		if err != nil {
			return nil, err
		}
		all[i] = etcdSession{s}
	}
	return all, nil
}

func (e *etcd) close() error {
	for _, c := range e.dialed {
		_ = c.Close() // the members end anyway
	}
	return e.group.close()
}

type etcdSession struct{ s *concurrency.Session }

func (s etcdSession) lock(ctx context.Context, name string) (func(context.Context) error, error) {
	m := concurrency.NewMutex(s.s, name)
	if err := m.Lock(ctx); err != nil {
		return nil, err
	}
	return m.Unlock, nil
}

func (s etcdSession) try(ctx context.Context, name string) (func(context.Context) error, error) {
	m := concurrency.NewMutex(s.s, name)
	err := m.TryLock(ctx)
	switch {
	case errors.Is(err, concurrency.ErrLocked):
		return nil, errHeld
	case err != nil:
		return nil, err
	}
	return m.Unlock, nil
}

func (s etcdSession) hold(ctx context.Context, name string) error {
	_, err := s.try(ctx, name)
	return err
}

// locked asks for the oldest key under the lock's name, which is the holder's.
func (s etcdSession) locked(ctx context.Context, name string, stale bool) (bool, error) {
	options := etcdclient.WithFirstCreate()
	if stale {
		options = append(options, etcdclient.WithSerializable())
	}
	r, err := s.s.Client().Get(ctx, name+"/", options...)
	if err != nil {
		return false, err
	}
	return len(r.Kvs) > 0, nil
}
