//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
)

// demoLimit bounds the whole demo, stepLimit each wait in it.
const (
	demoLimit = 30 * time.Second
	stepLimit = 8 * time.Second
)

func (a *app) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "demo",
		Short:   "watch a cluster work and survive the loss of its leader",
		GroupID: groupNode,
		Long: `Demo starts a temporary cluster of three processes on free loopback ports and shows
what a lock does: it expires, it is released explicitly, and it stays held while the
leader is killed with kill -9. Every step is checked; the exit code is not 0 if one of
them failed.`,
		Example: `  locknode demo`,
		Args:    arguments(0, 0, ""),
		RunE:    func(c *cobra.Command, _ []string) error { return a.demo(c.Context()) },
	}
}

// demo is one run of the demo. Its steps are printed as they happen, or with -o json at the
// end.
type demo struct {
	a       *app
	started time.Time
	cluster *proc.Cluster
	steps   []stepJSON
	failed  int
}

type stepJSON struct {
	Story   string  `json:"story"`
	Step    string  `json:"step"`
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds"` // since the demo began
}

type demoJSON struct {
	OK      bool       `json:"ok"`
	Seconds float64    `json:"seconds"`
	Steps   []stepJSON `json:"steps"`
}

func (a *app) demo(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, demoLimit, fmt.Errorf("the demo took longer than %v", demoLimit))
	defer cancel()
	d := &demo{a: a, started: time.Now()}
	d.title("start", "Three nodes start, each a process of its own on free loopback ports.")
	if d.cluster, err = proc.Start(ctx, proc.Options{Args: []string{"--fast"}}); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() { err = errors.Join(err, d.cluster.Close()) }()
	leader, err := d.cluster.Leader(ctx)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	d.check(true, "ready after %.1f s, %s leads", time.Since(d.started).Seconds(), leader.ID)

	for _, story := range []func(context.Context, *demo) error{storyOfExpiry, storyOfRelease, storyOfFailover} {
		if err := story(ctx, d); err != nil {
			d.check(false, "%v", err)
			return d.finish(fmt.Errorf("demo: %w", err))
		}
	}
	return d.finish(nil)
}

func (d *demo) finish(err error) error {
	took := time.Since(d.started).Seconds()
	if d.failed > 0 && err == nil {
		err = fmt.Errorf("demo: %d steps failed", d.failed)
	}
	if d.a.json {
		return errors.Join(d.a.printJSON(demoJSON{d.failed == 0, took, d.steps}), err)
	}
	if err != nil {
		return hinted(err, "please report this with the output above")
	}
	return d.a.printf("\nAll %d steps succeeded, in %.1f s. To try more: locknode dev\n", len(d.steps), took)
}

// title starts a story.
func (d *demo) title(story, text string) {
	d.steps = append(d.steps, stepJSON{Story: story}) // its first check replaces this entry
	if !d.a.json {
		_ = d.a.printf("\n%s\n", text) // finish prints to the same file and returns the error
	}
}

// check prints a step and records whether it succeeded.
func (d *demo) check(ok bool, format string, args ...any) {
	step := stepJSON{Step: fmt.Sprintf(format, args...), OK: ok, Seconds: time.Since(d.started).Seconds()}
	last := &d.steps[len(d.steps)-1]
	step.Story = last.Story
	if last.Step == "" {
		*last = step
	} else {
		d.steps = append(d.steps, step)
	}
	mark := "ok  "
	if !ok {
		mark = "NOT "
		d.failed++
	}
	if !d.a.json {
		_ = d.a.printf("  %5.1f s  %s %s\n", step.Seconds, mark, step.Step) // see title
	}
}

func (d *demo) client(ctx context.Context, holder string) (*client.Client, error) {
	return client.Dial(ctx, d.cluster.Endpoints(), client.Holder(holder))
}

// storyOfExpiry: a lock that is held for too long expires, and its late release does no harm.
func storyOfExpiry(ctx context.Context, d *demo) error {
	const name = "demo/expiry"
	d.title("expiry", "A lock that expires: acquired for 2 s, with a wait of up to 4 s, and looked at every second.")
	c, err := d.client(ctx, "alice")
	if err != nil {
		return err
	}
	defer closeQuietly(c)
	options := []client.LockOption{client.Wait(4 * time.Second), client.TTL(2 * time.Second)}
	first, err := c.Lock(ctx, name, options...)
	if err != nil {
		return err
	}
	d.check(first.Token() > 0, "acquired, token %d", first.Token())
	active, err := d.countActive(ctx, c, name)
	if err != nil {
		return err
	}
	d.check(active == 2, "expired; it was still active at %d looks, want 2", active)
	second, err := c.Lock(ctx, name, options...)
	if err != nil {
		return err
	}
	d.check(second.Token() > first.Token(), "acquired again while the first grant is still in scope, token %d", second.Token())
	d.check(errors.Is(first.Err(), client.ErrLost), "the first grant reports its loss: %v", first.Err())
	_ = first.Unlock() // the end of its scope; the loss was checked above
	info, err := c.Get(ctx, name)
	if err != nil {
		return err
	}
	d.check(len(info.Holders) == 1 && info.Holders[0].Token == second.Token() && second.Err() == nil,
		"releasing the first grant leaves the second one alone")
	return second.Unlock()
}

// askEvery is the pause between an answer and the next look at the lock. A lock never ends
// early, but on a busy machine it may end late, and the looks may come late as well. With
// 1.3 s, two looks come well before the end and the third well after it.
const askEvery = 1300 * time.Millisecond

// countActive looks at the lock until it is free, and returns how often it was active.
func (d *demo) countActive(ctx context.Context, c *client.Client, name string) (int, error) {
	for active := 0; ; active++ {
		locked, err := c.IsLocked(ctx, name)
		if err != nil || !locked || active == 5 {
			return active, err
		}
		d.check(true, "still active")
		select {
		case <-time.After(askEvery):
		case <-ctx.Done():
			return active, context.Cause(ctx)
		}
	}
}

// storyOfRelease: a lock is released before the end of its scope, and acquired again at once.
func storyOfRelease(ctx context.Context, d *demo) error {
	const name = "demo/release"
	d.title("release", "A lock that is released explicitly.")
	c, err := d.client(ctx, "alice")
	if err != nil {
		return err
	}
	defer closeQuietly(c)
	options := []client.LockOption{client.Wait(4 * time.Second), client.TTL(2 * time.Second)}
	first, err := c.Lock(ctx, name, options...)
	if err != nil {
		return err
	}
	d.check(true, "acquired, token %d", first.Token())
	if err := first.Unlock(); err != nil {
		return err
	}
	locked, err := c.IsLocked(ctx, name)
	if err != nil {
		return err
	}
	d.check(!locked, "released within its scope; is it locked? %v", locked)
	second, err := c.TryLock(ctx, name, client.TTL(2*time.Second))
	if err != nil {
		return err
	}
	d.check(second.Token() > first.Token(), "acquired again at once, token %d", second.Token())
	return second.Unlock()
}

// storyOfFailover: a lock and the queue for it survive the kill of the leader.
func storyOfFailover(ctx context.Context, d *demo) error {
	const name = "demo/failover"
	d.title("failover", "The leader is killed while a lock is held.")
	alice, err := d.client(ctx, "alice")
	if err != nil {
		return err
	}
	defer closeQuietly(alice)
	bob, err := d.client(ctx, "bob")
	if err != nil {
		return err
	}
	defer closeQuietly(bob)
	held, err := alice.Lock(ctx, name)
	if err != nil {
		return err
	}
	d.check(true, "alice holds it, token %d", held.Token())
	waiter := d.waitInQueue(ctx, bob, name)
	if err := d.awaitWaiter(ctx, alice, name); err != nil {
		return err
	}
	d.check(true, "bob waits in the queue")
	if err := d.killLeader(ctx, alice); err != nil {
		return err
	}
	info, err := bob.Get(ctx, name)
	if err != nil {
		return err
	}
	d.check(held.Err() == nil && len(info.Holders) == 1 && info.Holders[0].Token == held.Token(),
		"alice still holds it, token %d", held.Token())
	d.check(info.Waiters == 1 && len(waiter) == 0, "bob still waits in the queue")
	released := time.Now()
	if err := held.Unlock(); err != nil {
		return err
	}
	got := <-waiter
	if got.err != nil {
		return got.err
	}
	d.check(got.grant.Token() > held.Token(), "alice releases it, bob holds it %.0f ms later, token %d",
		float64(got.at.Sub(released).Microseconds())/1000, got.grant.Token())
	return got.grant.Unlock()
}

// arrival is the end of a wait in the queue.
type arrival struct {
	grant *client.Grant
	err   error
	at    time.Time
}

func (d *demo) waitInQueue(ctx context.Context, c *client.Client, name string) <-chan arrival {
	arrivals := make(chan arrival, 1)
	go func() {
		g, err := c.Lock(ctx, name, client.Wait(stepLimit))
		arrivals <- arrival{g, err, time.Now()}
	}()
	return arrivals
}

// awaitWaiter waits until somebody waits for the lock.
func (d *demo) awaitWaiter(ctx context.Context, c *client.Client, name string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stepLimit, errors.New("the queue stayed empty"))
	defer cancel()
	for {
		info, err := c.Get(ctx, name)
		if err != nil || info.Waiters > 0 {
			return err
		}
	}
}

// killLeader kills the leader and waits until the cluster grants locks again.
func (d *demo) killLeader(ctx context.Context, c *client.Client) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stepLimit, fmt.Errorf("the cluster did not recover within %v", stepLimit))
	defer cancel()
	leader, err := d.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	killed := time.Now()
	if err := leader.Kill(); err != nil {
		return err
	}
	probe, err := c.Lock(ctx, "demo/probe")
	if err != nil {
		return err
	}
	gap := time.Since(killed)
	next, err := d.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	d.check(next != leader, "%s is killed with kill -9; %s leads now, and locks are granted again after %.0f ms",
		leader.ID, next.ID, float64(gap.Microseconds())/1000)
	return probe.Unlock()
}
