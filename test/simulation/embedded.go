package simulation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/sim"
)

// embedded uses a node's own client, and closes things in any order: the client while
// it asks for a lock without its session, or the node before its client.
func (w *worker) embedded(ctx context.Context, c *client.Client) error {
	nodes := w.r.c.Nodes()
	name := nodes[w.rand.IntN(len(nodes))]
	n := w.r.c.Node(name)
	if n == nil {
		return nil
	}
	cl := n.Client(client.SessionTTL(w.w.TTL))
	switch w.rand.IntN(4) {
	case 0:
		w.closeAsking(ctx, c, cl)
		return nil
	case 1:
		select {
		case w.r.closing <- struct{}{}: // one node at a time
			defer func() { <-w.r.closing }()
			return w.closeNode(ctx, c, cl, name)
		default:
		}
	}
	return errors.Join(w.lock(ctx, cl), ignoreUnavailable(cl.Close()))
}

// ignoreUnavailable is for a Close that cannot tell the cluster: the session runs out.
func ignoreUnavailable(err error) error {
	if errors.Is(err, client.ErrUnavailable) {
		return nil
	}
	return err
}

// closeAsking closes a client while it asks for a lock without its session. If Close
// says that all is well, nothing is left of that, though the TTL is long.
func (w *worker) closeAsking(ctx context.Context, c, cl *client.Client) {
	name := w.ownName("asked")
	g, err := c.Lock(ctx, name, client.Wait(maxHold))
	if err != nil {
		w.expect(err)
		return
	}
	asked := make(chan error, 1)
	go func() {
		_, err := cl.Detached().Acquire(ctx, name, scriptHold, client.Wait(maxHold))
		asked <- err
	}()
	sleep(ctx, time.Duration(w.rand.Int64N(int64(20*time.Millisecond))))
	if w.rand.IntN(2) == 0 {
		w.expect(g.Unlock())
		sleep(ctx, time.Duration(w.rand.Int64N(int64(20*time.Millisecond))))
	}
	closed := cl.Close()
	got := <-asked
	w.expect(got)
	w.expect(ignoreLost(g.Unlock()))
	if closed != nil || got == nil {
		w.expect(ignoreUnavailable(closed))
		return // it has the lock, or was told that something may be left
	}
	// A client that was killed meanwhile leaves what it held to the end of its session.
	w.free(ctx, w.w.TTL, name)
}

func ignoreLost(err error) error {
	if errors.Is(err, client.ErrNotHeld) {
		return nil // also after Unlock
	}
	return err
}

func (w *worker) ownName(what string) string { return fmt.Sprintf("%s/%s", what, w.w.Name) }

// free waits until a lock of the worker's own is not held and its queue is empty. more is
// added to the bound for operations that do not wait.
func (w *worker) free(ctx context.Context, more time.Duration, name string) {
	w.soonIn(ctx, more, fmt.Sprintf("nothing is left on %q", name), func(ctx context.Context) bool {
		l, err := w.look(ctx, name)
		return err == nil && len(l.Holders) == 0 && l.Waiters == 0
	})
}

// closeNode closes a node while its embedded client holds one lock and waits for another.
// When the node is closed, the client's grant is lost, its locks are free soon, and its wait
// has ended.
func (w *worker) closeNode(ctx context.Context, c, cl *client.Client, node string) error {
	has, wants := w.ownName("has"), w.ownName("wants")
	first, err := c.Lock(ctx, wants, client.Wait(maxHold))
	if err != nil {
		return errors.Join(err, ignoreUnavailable(cl.Close()))
	}
	defer func() { w.expect(first.Unlock()) }()
	g, err := cl.Lock(ctx, has, client.Wait(maxHold))
	if err != nil {
		return errors.Join(err, ignoreUnavailable(cl.Close()))
	}
	waited := make(chan error, 1)
	go func() {
		g, err := cl.Lock(context.WithoutCancel(ctx), wants)
		if err == nil {
			err = g.Unlock()
		}
		waited <- err
	}()
	sleep(ctx, time.Duration(w.rand.Int64N(int64(time.Second))))
	calm := w.r.calmFor() >= 0
	err = w.r.c.Stop(node)
	if errors.Is(err, sim.ErrUnclean) && calm && w.r.calmFor() >= 0 {
		w.r.violate("close", "%v", err)
	}
	if err == nil && g.Err() == nil {
		w.r.violate("close", "%s: node %q is closed, and its client's grant with token %d is still valid", w.w.Name, node, g.Token())
	}
	if !w.within(waited, grace) && err == nil {
		w.r.violate("close", "%s: node %q is closed, and %v later its client waits for a lock", w.w.Name, node, grace)
	}
	w.expect(ignoreUnavailable(cl.Close()))
	_ = w.r.c.Start(node) // an episode may have started it, or have broken its disk, and will mend that
	w.free(ctx, 0, has)
	return nil
}

// within reports whether somebody returned in time, and judges what it returned.
func (w *worker) within(returned <-chan error, limit time.Duration) bool {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case err := <-returned:
		w.expect(err)
		return true
	case <-t.C:
		return false
	}
}
