package simulation

import (
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

// deeds are what a worker does, and how often.
var deeds = []struct {
	weight int
	do     func(w *worker, ctx context.Context, c *client.Client) error
}{
	{8, (*worker).lock}, {3, (*worker).try}, {3, (*worker).hardTTL}, {3, (*worker).read},
	{2, (*worker).detached}, {1, (*worker).force}, {1, (*worker).do}, {1, (*worker).impatient},
}

func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		w.deed(ctx)
		sleep(ctx, time.Duration(w.rand.ExpFloat64()*float64(w.w.Pace)))
		w.r.c.PausePoint(ctx, w.w.Name)
	}
}

func (w *worker) deed(ctx context.Context) {
	if w.w.Modes && w.rand.IntN(2) == 0 {
		w.modes(ctx)
		return
	}
	c, err := w.r.c.Client(w.w.Name, client.SessionTTL(w.w.TTL))
	if err != nil {
		w.r.violate("availability", "%s: %v", w.w.Name, err)
		return
	}
	sum := 0
	for _, d := range deeds {
		sum += d.weight
	}
	n := w.rand.IntN(sum)
	for _, d := range deeds {
		if n -= d.weight; n >= 0 {
			continue
		}
		// The end of the work interrupts no call: each has to end by itself.
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), callLimit)
		began := w.r.c.Now()
		err := d.do(w, call, c)
		cancel()
		if took := w.r.c.Now() - began; took > callLimit+maxHold+grace {
			w.r.violate("no hang", "%s: a deed took %v, its calls were limited to %v", w.w.Name, took, callLimit)
		}
		w.expect(err)
		return
	}
}

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
	var opts []client.AcquireOption
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

// force takes a lock from whoever holds it.
func (w *worker) force(ctx context.Context, c *client.Client) error {
	if w.rand.IntN(4) > 0 {
		return w.read(ctx, c)
	}
	name := w.name()
	info, err := c.Get(ctx, name)
	if err != nil || len(info.Holders) == 0 {
		return err
	}
	return c.ForceRelease(ctx, name, info.Holders[0].Token, "the simulation wants it")
}

func (w *worker) do(ctx context.Context, c *client.Client) error {
	return c.Do(ctx, w.name(), func(ctx context.Context, _ *client.Grant) error {
		sleep(ctx, w.holdFor())
		return nil
	}, client.Wait(4*time.Second))
}

// impatient gives up while it waits in line.
func (w *worker) impatient(ctx context.Context, c *client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(w.rand.Int64N(int64(time.Second))))
	defer cancel()
	g, err := c.Lock(ctx, w.name())
	if err != nil {
		return err
	}
	return g.Unlock()
}
