//go:build unix

package integration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/stalls"
)

// crowd is many clients, each with a connection, a session, a lock that it acquires and
// releases all the time, and another one that it keeps.
type crowd struct {
	ctx    context.Context
	wg     sync.WaitGroup
	cycles atomic.Int64

	mu     sync.Mutex      // guards what follows
	took   []time.Duration // of cycles, since the last report
	errs   []error
	late   []error        // errors that a slow machine can cause
	broken map[string]int // streams that broke, by node
	why    map[string]int // the same, by time, node and reason
	begun  time.Time
}

const (
	crowdClients = 1000
	// crowdTTL is the TTL of the sessions: much longer than an election on a busy machine, and
	// shorter than the test goes on after the leader was killed, so that a client without
	// keep-alives loses its locks.
	crowdTTL  = 20 * time.Second
	crowdHold = 10 * time.Millisecond
	// crowdStall is longer than any pause of processes that have a machine to themselves.
	crowdStall = time.Second
)

// breaks counts the streams of clients that broke, from what the clients log.
type breaks struct {
	slog.Handler
	c *crowd
}

// Enabled is part of slog.Handler.
func (b breaks) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs is part of slog.Handler.
func (b breaks) WithAttrs([]slog.Attr) slog.Handler { return b }

// Handle is part of slog.Handler.
func (b breaks) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "stream broke" {
		return nil
	}
	var peer, why string
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "peer":
			peer = a.Value.String()
		case "err":
			why = a.Value.String()
		}
		return true
	})
	b.c.mu.Lock()
	defer b.c.mu.Unlock()
	b.c.broken[peer]++
	b.c.why[fmt.Sprintf("%3ds %s %s", int(time.Since(b.c.begun).Seconds())/5*5, peer, why)]++
	return nil
}

func (c *crowd) fail(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.errs) < 20 {
		c.errs = append(c.errs, fmt.Errorf(format, args...))
	}
}

// check records whether a client has lost something. That none of its keep-alives was answered
// within the TTL counts only where processes are not paused.
func (c *crowd) check(what string, err error) {
	var lost *client.LostError
	switch {
	case err == nil:
	case errors.As(err, &lost) && lost.Reason == client.LostDeadline:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.late = append(c.late, fmt.Errorf("%s: %w", what, err))
	default:
		c.fail("%s: %w", what, err)
	}
}

// lock acquires a lock, and waits for it as long as other tests wait.
func (c *crowd) lock(cl *client.Client, kind string, i int) (*client.Grant, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return cl.Lock(ctx, fmt.Sprintf("%s/%d", kind, i))
}

// use is what one client does.
func (c *crowd) use(i int, cl *client.Client) {
	defer func() { _ = cl.Close() }() // all at the same time, not one after the other
	kept, err := c.lock(cl, "kept", i)
	if err != nil {
		c.fail("client %d: the lock to keep: %w", i, err)
		return
	}
	for c.ctx.Err() == nil {
		begun := time.Now()
		g, err := c.lock(cl, "own", i)
		if err != nil {
			c.fail("client %d: %w", i, err)
			return
		}
		took := time.Since(begun)
		c.cycles.Add(1)
		c.mu.Lock()
		c.took = append(c.took, took)
		c.mu.Unlock()
		time.Sleep(crowdHold)
		c.check(fmt.Sprintf("client %d", i), g.Unlock())
	}
	c.check(fmt.Sprintf("client %d, of the lock that it kept", i), kept.Err())
}

// report logs how long a lock has taken since the last report. That every client is served
// again does not depend on the machine; how soon does.
func (c *crowd) report(t *testing.T, what string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.took)
	n := len(c.took)
	if n == 0 {
		t.Errorf("%s: no client got its lock", what)
		return
	}
	t.Logf("%s: %d locks acquired, median %v, 99%% %v, longest %v; streams that broke: %v",
		what, n, c.took[n/2].Round(time.Millisecond), c.took[n*99/100].Round(time.Millisecond), c.took[n-1].Round(time.Millisecond), c.broken)
	c.took = nil
}

// TestAThousandClientsSurviveAKillOfTheLeader, on one machine with all nodes: no client leaves
// a node that runs, and none loses its lock.
func TestAThousandClientsSurviveAKillOfTheLeader(t *testing.T) {
	slow(t, "a thousand clients, and each for twice its TTL")
	if raceDetector {
		t.Skip("is about load, which the race detector makes something else")
	}
	cluster := startCluster(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &crowd{begun: time.Now(), ctx: ctx, broken: map[string]int{}, why: map[string]int{}}
	ran := func() time.Duration { return time.Since(c.begun) }
	stood := stalls.New(ran)
	c.wg.Go(func() { stood.Watch(ctx) })
	log := client.Logger(slog.New(breaks{slog.DiscardHandler, c}))
	for i := range crowdClients {
		cl := dial(t, cluster.Endpoints(), client.Holder(fmt.Sprintf("client %d", i)), client.SessionTTL(crowdTTL), log)
		c.wg.Go(func() { c.use(i, cl) })
	}
	eventually(t, "every client has got a lock", func() bool { return c.cycles.Load() > 3*crowdClients })
	c.report(t, "at the beginning")
	time.Sleep(10 * time.Second)
	c.report(t, "before")
	leader := leaderOf(t, cluster)
	kill(t, leader)
	time.Sleep(10 * time.Second)
	c.report(t, "while the leader died")
	start(t, leader)
	time.Sleep(crowdTTL)
	c.report(t, "after")
	cancel()
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := errors.Join(c.errs...); err != nil {
		t.Error(err)
	}
	stalled := stood.Longest(0, ran())
	t.Logf("this process was paused for up to %v", stalled.Round(time.Millisecond))
	for peer, n := range c.broken {
		if peer != leader.API() {
			c.late = append(c.late, fmt.Errorf("%d streams to %s broke, which runs", n, peer))
		}
	}
	// Clients rightly leave a node that is paused for seconds.
	if late := errors.Join(c.late...); late != nil && stalled < crowdStall {
		t.Error(head(late.Error(), 20))
	} else if late != nil {
		t.Logf("this does not count, because the machine paused processes:\n%s", head(late.Error(), 20))
	}
	if len(c.late) > 0 || t.Failed() {
		for _, why := range slices.Sorted(maps.Keys(c.why)) {
			t.Logf("%4d %s", c.why[why], why)
		}
	}
}
