package simulation

import (
	"context"
	"fmt"

	"github.com/locknode/locknode/client"
)

// values sets the value of a lock more often than the cluster remembers answers of a
// session, while the same session waits for another lock. The lock must be free soon after
// it is unlocked, however long the wait takes.
func (w *worker) values(ctx context.Context, c *client.Client) error {
	boss, err := w.second("boss")
	if err != nil {
		return err
	}
	line, job := fmt.Sprintf("values/%s/line", w.w.Name), fmt.Sprintf("values/%s/job", w.w.Name)
	first, err := boss.Lock(ctx, line, client.Wait(maxHold))
	if err != nil {
		return err
	}
	defer func() { w.expect(first.Unlock()) }()
	waiting, leave := context.WithCancel(ctx)
	left := make(chan error, 1)
	go func() {
		g, err := c.Lock(waiting, line)
		if err == nil {
			err = g.Unlock()
		}
		left <- err
	}()
	defer func() {
		leave()
		w.expect(<-left)
	}()
	w.soon(ctx, "a client waits in the queue", func(ctx context.Context) bool {
		l, err := c.Get(ctx, line)
		return first.Err() != nil || len(left) > 0 || err == nil && l.Waiters > 0
	})
	g, err := c.Lock(ctx, job, client.Wait(maxHold))
	if err != nil {
		return err
	}
	for i := range w.r.p.answers() * 11 / 10 {
		if err := g.SetValue(ctx, fmt.Append(nil, i)); err != nil {
			w.expect(err)
			break
		}
	}
	if err := g.Unlock(); err != nil {
		return err
	}
	// A client that is killed before its release has arrived leaves the lock to the end
	// of its session.
	w.soonIn(ctx, w.w.TTL, fmt.Sprintf("token %d, which was unlocked at %v, is free", g.Token(), w.r.c.Now()), func(ctx context.Context) bool {
		l, err := boss.Get(ctx, job)
		return err == nil && (len(l.Holders) == 0 || l.Holders[0].Token != g.Token())
	})
	return nil
}

// answers returns how many answers the cluster remembers of a session.
func (p *Plan) answers() int {
	if p.Window == 0 {
		return 10_000
	}
	return p.Window
}
