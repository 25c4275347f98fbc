package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	redisTTL = 15 * time.Second // of a lock, as of a session of Locknode
	longHold = time.Hour        // of a lock that is held throughout a measurement
)

// unlockScript deletes the key if it has still the value of its holder
// (redis.io/docs/latest/commands/set).
var unlockScript = redis.NewScript(`if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) else return 0 end`)

// redisNodes are redis-server processes and the clients of them.
type redisNodes struct {
	*group
	clients []*redis.Client // one of each node
}

// startRedis starts one node with these arguments.
func startRedis(args ...string) func(context.Context, *system, string) (cluster, error) {
	return func(ctx context.Context, s *system, dir string) (cluster, error) {
		return startRedisNodes(ctx, s, dir, 1, args...)
	}
}

func startRedisNodes(ctx context.Context, s *system, dir string, n int, args ...string) (*redisNodes, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	g, err := newGroup(dir, n)
	if err != nil {
		return nil, err
	}
	r := &redisNodes{group: g}
	for i := range n {
		if err := r.startNode(ctx, s, i, args...); err != nil {
			return nil, errors.Join(err, r.close())
		}
	}
	return r, nil
}

func (r *redisNodes) startNode(ctx context.Context, s *system, i int, args ...string) error {
	name := fmt.Sprintf("redis%d", i)
	data := filepath.Join(r.dir, name)
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	host, port := hostPort(r.address(i, 0))
	if err := r.start(name, s.program, append([]string{"--bind", host, "--port", port, "--dir", data}, args...)...); err != nil {
		return err
	}
	c := redis.NewClient(&redis.Options{Addr: r.address(i, 0)})
	r.clients = append(r.clients, c)
	for c.Ping(ctx).Err() != nil {
		if err := errors.Join(r.exited(), sleep(ctx, 20*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}

// sessions share one client, which has a pool of connections.
func (r *redisNodes) sessions(_ context.Context, n int) ([]session, error) {
	all := make([]session, n)
	for i := range all {
		all[i] = redisSession{r.clients[0]}
	}
	return all, nil
}

func (r *redisNodes) close() error {
	for _, c := range r.clients {
		_ = c.Close() // the nodes end anyway
	}
	return r.group.close()
}

type redisSession struct{ c *redis.Client }

// lock polls, because Redis has no queue, and waits as long as redsync does by default.
func (s redisSession) lock(ctx context.Context, name string) (func(context.Context) error, error) {
	for {
		release, err := s.try(ctx, name)
		if !errors.Is(err, errHeld) {
			return release, err
		}
		n, err := rand.Int(rand.Reader, big.NewInt(200))
		if err != nil {
			return nil, err
		}
		if err := sleep(ctx, 50*time.Millisecond+time.Duration(n.Int64())*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func (s redisSession) try(ctx context.Context, name string) (func(context.Context) error, error) {
	value := rand.Text()
	if err := s.set(ctx, name, value, redisTTL); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		deleted, err := unlockScript.Run(ctx, s.c, []string{name}, value).Int()
		if err == nil && deleted != 1 {
			err = fmt.Errorf("%s was lost before its release", name)
		}
		return err
	}, nil
}

// set is SET name value NX with a time to live.
func (s redisSession) set(ctx context.Context, name, value string, ttl time.Duration) error {
	err := s.c.SetArgs(ctx, name, value, redis.SetArgs{Mode: "NX", TTL: ttl}).Err()
	if errors.Is(err, redis.Nil) {
		return errHeld
	}
	return err
}

func (s redisSession) hold(ctx context.Context, name string) error {
	return s.set(ctx, name, rand.Text(), longHold)
}

func (s redisSession) locked(ctx context.Context, name string, _ bool) (bool, error) {
	n, err := s.c.Exists(ctx, name).Result()
	return n == 1, err
}
