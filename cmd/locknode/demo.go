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

// demoLimit bounds the whole demo, and stepLimit everything in it that waits.
const (
	demoLimit = 30 * time.Second
	stepLimit = 8 * time.Second
)

func (a *app) demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "demo",
		Short:   "see a cluster work, and survive the loss of its leader",
		GroupID: groupNode,
		Long: `Demo starts a throw-away cluster of three processes of this program on free loopback
ports and shows what a lock does: it expires, it is released by hand, and it stays
held while the leader is killed with kill -9. Every step is checked; the exit code is
not 0 if any of them was not as promised.`,
		Example: `  locknode demo`,
		Args:    arguments(0, 0, ""),
		RunE:    func(c *cobra.Command, _ []string) error { return a.demo(c.Context()) },
	}
}

// demo is the performance. Its steps are told as they happen and remembered for -o json.
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
	d.title("start", "Three nodes start, as processes of their own on free loopback ports.")
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
		err = fmt.Errorf("demo: %d steps were not as promised", d.failed)
	}
	if d.a.json {
		return errors.Join(d.a.printJSON(demoJSON{d.failed == 0, took, d.steps}), err)
	}
	if err != nil {
		return hinted(err, "please report it with this output")
	}
	return d.a.printf("\nAll %d steps were as promised, in %.1f s. To try more: locknode dev\n", len(d.steps), took)
}

// title begins a story.
func (d *demo) title(story, text string) {
	d.steps = append(d.steps, stepJSON{Story: story}) // its first check takes this place
	if !d.a.json {
		_ = d.a.printf("\n%s\n", text) // finish would fail in the same way, and is checked
	}
}

// check tells a step and remembers whether it was as promised.
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

// storyOfExpiry: a hold that is too long loses its lock, and leaving it does no harm.
func storyOfExpiry(ctx context.Context, d *demo) error {
	const name = "demo/expiry"
	d.title("expiry", "A lock that expires: taken for 2 s, ready to wait 4 s for it, and asked about every second.")
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
	d.check(first.Token() > 0, "taken, token %d", first.Token())
	active, err := d.countActive(ctx, c, name)
	if err != nil {
		return err
	}
	d.check(active == 2, "expired; it was still active %d times, promised were 2", active)
	second, err := c.Lock(ctx, name, options...)
	if err != nil {
		return err
	}
	d.check(second.Token() > first.Token(), "taken again while the first hold is still in scope, token %d", second.Token())
	d.check(errors.Is(first.Err(), client.ErrLost), "the first hold knows that it is lost: %v", first.Err())
	_ = first.Unlock() // leaving the scope; that it is lost was said above
	info, err := c.Get(ctx, name)
	if err != nil {
		return err
	}
	d.check(len(info.Holders) == 1 && info.Holders[0].Token == second.Token() && second.Err() == nil,
		"leaving the first scope does not touch the second hold")
	return second.Unlock()
}

// askEvery is how long the asking waits after an answer. A lock never ends early,
// but on a busy machine it may end late, and so may the questions come: with a
// second and a little, two fall well before the end and the third well after it.
const askEvery = 1300 * time.Millisecond

// countActive asks again and again until the lock is free.
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

// storyOfRelease: released by hand inside its scope, and taken again at once.
func storyOfRelease(ctx context.Context, d *demo) error {
	const name = "demo/release"
	d.title("release", "A lock that is released by hand.")
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
	d.check(true, "taken, token %d", first.Token())
	if err := first.Unlock(); err != nil {
		return err
	}
	locked, err := c.IsLocked(ctx, name)
	if err != nil {
		return err
	}
	d.check(!locked, "released inside its scope; is it locked? %v", locked)
	second, err := c.TryLock(ctx, name, client.TTL(2*time.Second))
	if err != nil {
		return err
	}
	d.check(second.Token() > first.Token(), "taken again at once, token %d", second.Token())
	return second.Unlock()
}

// storyOfFailover: the leader dies with kill -9, the lock does not.
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
	waiter := d.waitInLine(ctx, bob, name)
	if err := d.awaitWaiter(ctx, alice, name); err != nil {
		return err
	}
	d.check(true, "bob waits in line")
	if err := d.killLeader(ctx, alice); err != nil {
		return err
	}
	info, err := bob.Get(ctx, name)
	if err != nil {
		return err
	}
	d.check(held.Err() == nil && len(info.Holders) == 1 && info.Holders[0].Token == held.Token(),
		"alice still holds it, token %d", held.Token())
	d.check(info.Waiters == 1 && len(waiter) == 0, "bob still waits in line")
	released := time.Now()
	if err := held.Unlock(); err != nil {
		return err
	}
	got := <-waiter
	if got.err != nil {
		return got.err
	}
	d.check(got.grant.Token() > held.Token(), "alice releases it, bob has it %.0f ms later, token %d",
		float64(got.at.Sub(released).Microseconds())/1000, got.grant.Token())
	return got.grant.Unlock()
}

// arrival is the end of a wait in line.
type arrival struct {
	grant *client.Grant
	err   error
	at    time.Time
}

func (d *demo) waitInLine(ctx context.Context, c *client.Client, name string) <-chan arrival {
	arrivals := make(chan arrival, 1)
	go func() {
		g, err := c.Lock(ctx, name, client.Wait(stepLimit))
		arrivals <- arrival{g, err, time.Now()}
	}()
	return arrivals
}

// awaitWaiter waits until somebody waits for the lock.
func (d *demo) awaitWaiter(ctx context.Context, c *client.Client, name string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stepLimit, errors.New("nobody stands in line"))
	defer cancel()
	for {
		info, err := c.Get(ctx, name)
		if err != nil || info.Waiters > 0 {
			return err
		}
	}
}

// killLeader kills it and waits until the cluster takes locks again.
func (d *demo) killLeader(ctx context.Context, c *client.Client) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stepLimit, errors.New("the cluster did not come back"))
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
	d.check(next != leader, "%s is killed with kill -9; %s leads now, and takes locks again after %.0f ms",
		leader.ID, next.ID, float64(gap.Microseconds())/1000)
	return probe.Unlock()
}
