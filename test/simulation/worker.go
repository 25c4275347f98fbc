package simulation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/locknode/locknode/client"
)

const (
	// callLimit is how long a worker waits for anything.
	callLimit = 20 * time.Second
	// grace is how much later than its context a call may return.
	grace = 2 * time.Second
	// maxHold bounds the TTL of every grant and session, so that everything is
	// over some time after the last deed.
	maxHold = 10 * time.Second
)

// worker is one line of work of a client.
type worker struct {
	r    *runner
	w    Worker
	rand *rand.Rand
}

func newWorker(r *runner, w Worker, line int) *worker {
	var name uint64
	for _, b := range []byte(w.Name) {
		name = name*31 + uint64(b)
	}
	return &worker{r: r, w: w, rand: rand.New(rand.NewPCG(r.p.Seed, name<<8+uint64(line)))}
}

// deed is one thing that a worker does, and how often.
type deed struct {
	weight int
	do     func(w *worker, ctx context.Context, c *client.Client) error
	limit  time.Duration // 0: callLimit
}

// deedsOf returns what a worker with a job does.
func deedsOf(job string) []deed {
	switch job {
	case "modes":
		return []deed{{weight: 1, do: (*worker).modes}, {weight: 1, do: (*worker).any}}
	case "scripts":
		return []deed{{weight: 6, do: (*worker).scripts, limit: 2 * scriptHold}, {weight: 1, do: (*worker).any}}
	case "masses":
		return []deed{{weight: 1, do: (*worker).masses, limit: time.Minute}}
	case "values":
		return []deed{{weight: 1, do: (*worker).values, limit: 2 * time.Minute}}
	case "crowd":
		return []deed{{weight: 1, do: (*worker).crowd, limit: 2 * time.Minute}}
	case "trees":
		return []deed{{weight: 3, do: (*worker).trees}, {weight: 1, do: (*worker).any}}
	case "embedded":
		return []deed{{weight: 2, do: (*worker).embedded, limit: scriptHold}, {weight: 1, do: (*worker).any}}
	case "greedy":
		return []deed{{weight: 1, do: (*worker).greedy, limit: 2 * time.Minute}}
	case "rights":
		return []deed{
			{weight: 2, do: (*worker).withdraw, limit: 2 * callLimit}, {weight: 2, do: (*worker).revoke, limit: 2 * callLimit}, {weight: 1, do: (*worker).rotate},
			{weight: 2, do: (*worker).thieve}, {weight: 4, do: (*worker).lock}, {weight: 2, do: (*worker).try}, {weight: 3, do: (*worker).detached},
		}
	case "reads":
		return []deed{{weight: 1, do: (*worker).reads}}
	case "delays":
		return []deed{{weight: 4, do: (*worker).delays, limit: 30 * time.Second}, {weight: 1, do: (*worker).any}}
	}
	return []deed{
		{weight: 8, do: (*worker).lock}, {weight: 3, do: (*worker).try}, {weight: 3, do: (*worker).hardTTL},
		{weight: 3, do: (*worker).read}, {weight: 2, do: (*worker).detached}, {weight: 1, do: (*worker).force},
		{weight: 1, do: (*worker).do}, {weight: 1, do: (*worker).impatient},
	}
}

func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		w.deed(ctx)
		sleep(ctx, time.Duration(w.rand.ExpFloat64()*float64(w.w.Pace)))
		w.r.c.PausePoint(ctx, w.w.Name)
	}
}

// client returns the worker's client: another one once it was killed.
func (w *worker) client() (*client.Client, error) {
	return w.r.client(w.w.Name, client.SessionTTL(w.w.TTL))
}

func (w *worker) deed(ctx context.Context) {
	c, err := w.client()
	if err != nil {
		w.r.violate("availability", "%s: %v", w.w.Name, err)
		return
	}
	d := w.draw(w.w.Job)
	limit := cmp.Or(d.limit, callLimit)
	// The end of the work interrupts no call: each has to end by itself.
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	began := w.r.c.Now()
	err = d.do(w, call, c)
	cancel()
	if took := w.r.c.Now() - began; took > limit+maxHold+grace {
		w.r.violate("no hang", "%s: a deed took %v, its calls were limited to %v", w.w.Name, took, limit)
	}
	w.expect(err)
}

// draw chooses one of a job's deeds.
func (w *worker) draw(job string) deed {
	all, sum := deedsOf(job), 0
	for _, d := range all {
		sum += d.weight
	}
	n := w.rand.IntN(sum)
	for _, d := range all {
		if n -= d.weight; n < 0 {
			return d
		}
	}
	panic("a weight is negative")
}

// any does what workers without a job do.
func (w *worker) any(ctx context.Context, c *client.Client) error { return w.draw("").do(w, ctx, c) }

// expect judges an error: of those that may come, none is a fault.
func (w *worker) expect(err error) {
	for _, fine := range []error{
		nil, client.ErrBusy, client.ErrTimeout, client.ErrLost, client.ErrNotHeld, client.ErrClosed,
		client.ErrSession, client.ErrUnavailable, context.DeadlineExceeded, context.Canceled,
	} {
		if errors.Is(err, fine) {
			return
		}
	}
	if w.r.p.Profile == "modes" && errors.Is(err, client.ErrKind) {
		return
	}
	if w.w.Job == "rights" && (errors.Is(err, client.ErrDenied) || errors.Is(err, client.ErrUnauthenticated)) {
		return
	}
	w.r.violate("typed errors", "%s: %v", w.w.Name, err)
}

func (w *worker) name() string { return fmt.Sprintf("lock/%d", w.rand.IntN(w.r.p.Locks)) }

// hold works under a grant, for up to d.
func (w *worker) hold(ctx context.Context, g *client.Grant, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, min(d, maxHold))
	defer cancel()
	select {
	case <-g.Context().Done():
	case <-ctx.Done():
	}
}

func (w *worker) holdFor() time.Duration {
	switch w.rand.IntN(4) {
	case 0:
		return 0
	case 1:
		return time.Duration(w.rand.Int64N(int64(2 * w.w.TTL)))
	}
	return time.Duration(w.rand.Int64N(int64(500 * time.Millisecond)))
}

func (w *worker) lock(ctx context.Context, c *client.Client) error {
	var opts []client.LockOption
	if w.rand.IntN(3) > 0 {
		opts = append(opts, client.Wait(time.Duration(w.rand.Int64N(int64(8*time.Second)))))
	}
	if w.rand.IntN(8) == 0 {
		opts = append(opts, client.DelayAfterLoss(time.Duration(w.rand.Int64N(int64(2*time.Second)))))
	}
	g, err := c.Lock(ctx, w.name(), opts...)
	if err != nil {
		return err
	}
	w.hold(ctx, g, w.holdFor())
	if w.rand.IntN(6) == 0 {
		if err := g.SetValue(ctx, []byte(w.w.Name)); err != nil {
			return errors.Join(err, g.Unlock())
		}
	}
	if w.rand.IntN(10) == 0 {
		go func() { _ = g.Unlock() }() // twice at once
	}
	return g.Unlock()
}

func (w *worker) try(ctx context.Context, c *client.Client) error {
	g, err := c.TryLock(ctx, w.name())
	if err != nil {
		return err
	}
	w.hold(ctx, g, w.holdFor())
	return g.Unlock()
}

// hardTTL holds a grant with a TTL of its own, sometimes beyond its end.
func (w *worker) hardTTL(ctx context.Context, c *client.Client) error {
	ttl := time.Second + time.Duration(w.rand.Int64N(int64(2*time.Second)))
	g, err := c.Lock(ctx, w.name(), client.TTL(ttl), client.Wait(3*time.Second))
	if err != nil {
		return err
	}
	w.hold(ctx, g, time.Duration(w.rand.Int64N(int64(2*ttl))))
	return g.Unlock()
}

func (w *worker) read(ctx context.Context, c *client.Client) error {
	var opts []client.ReadOption
	if w.rand.IntN(3) == 0 {
		opts = append(opts, client.Stale(time.Duration(1+w.rand.Int64N(int64(5*time.Second)))))
	}
	_, err := c.Get(ctx, w.name(), opts...)
	return err
}

func (w *worker) detached(ctx context.Context, c *client.Client) error {
	name, d := w.name(), c.Detached()
	g, err := d.Acquire(ctx, name, time.Second+time.Duration(w.rand.Int64N(int64(3*time.Second))), client.Wait(2*time.Second))
	if err != nil {
		return err
	}
	for w.rand.IntN(2) == 0 {
		sleep(ctx, time.Duration(w.rand.Int64N(int64(2*time.Second))))
		if _, err := d.Renew(ctx, name, g.Token, time.Second+time.Duration(w.rand.Int64N(int64(3*time.Second)))); err != nil {
			return err
		}
	}
	if w.rand.IntN(3) == 0 {
		return nil // left to run out
	}
	return d.Release(ctx, name, g.Token)
}

// force releases a lock by force.
func (w *worker) force(ctx context.Context, c *client.Client) error {
	if w.rand.IntN(4) > 0 {
		return w.read(ctx, c)
	}
	name := w.name()
	info, err := c.Get(ctx, name)
	if err != nil || len(info.Holders) == 0 {
		return err
	}
	_, err = c.ForceRelease(ctx, name, info.Holders[0].Token, "the simulation wants it")
	return err
}

func (w *worker) do(ctx context.Context, c *client.Client) error {
	return c.Do(ctx, w.name(), func(ctx context.Context, _ *client.Grant) error {
		sleep(ctx, w.holdFor())
		return nil
	}, client.Wait(4*time.Second))
}

// impatient gives up while it waits in the queue.
func (w *worker) impatient(ctx context.Context, c *client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(w.rand.Int64N(int64(time.Second))))
	defer cancel()
	g, err := c.Lock(ctx, w.name())
	if err != nil {
		return err
	}
	return g.Unlock()
}
