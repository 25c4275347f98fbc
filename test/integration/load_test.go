//go:build unix

package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
)

// load is a crowd of clients that lock and unlock all the time, and record the answers. It
// accepts no error: whatever is done to the nodes, as long as a majority comes back, no call
// may fail and no lock may be lost.
type load struct {
	ledger
	watch  *client.Client // to read, and to hold the locks that are kept
	others []*client.Client
	opts   []client.Option
	cancel context.CancelFunc
	wg     sync.WaitGroup
	cycles atomic.Int64

	mu    sync.Mutex // guards what follows
	kept  map[string]*client.Grant
	errs  []error
	last  time.Time     // when a cycle ended last
	gap   time.Duration // longest time without the end of a cycle, see newGap
	limit time.Duration // how long one call may take
}

const (
	loadClients  = 3
	loadWorkers  = 3 // of each client: two with locks of their own, one for the lock of all
	loadKeptMost = 300
)

// startLoad starts a load on the cluster. Every single call must succeed within
// callLimit. It ends with the test, if finish does not end it before.
func startLoad(t *testing.T, c *proc.Cluster, callLimit time.Duration, opts ...client.Option) *load {
	t.Helper()
	opts = slices.Clip(opts)
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{
		watch: dial(t, c.Endpoints(), append(opts, client.Holder("keeper"))...), cancel: cancel,
		kept: map[string]*client.Grant{}, last: time.Now(), limit: callLimit, opts: opts,
	}
	t.Cleanup(l.stop)
	for i := range loadClients {
		cl := dial(t, c.Endpoints(), append(opts, client.Holder(fmt.Sprintf("client %d", i)))...)
		l.others = append(l.others, cl)
		for j := range loadWorkers {
			name := fmt.Sprintf("own/%d-%d", i, j)
			if j == 0 {
				name = "shared"
			}
			l.wg.Go(func() { l.work(ctx, cl, name, fmt.Sprintf("worker %d-%d", i, j)) })
		}
	}
	l.wg.Go(func() { l.keep(ctx) })
	return l
}

func (l *load) stop() {
	l.cancel()
	l.wg.Wait()
}

// leave closes the clients of a load that is finished, and with them the locks that it keeps.
func (l *load) leave(t *testing.T) {
	t.Helper()
	for _, c := range append(l.others, l.watch) {
		must(t, c.Close())
	}
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
}

func (l *load) cycled() {
	l.cycles.Add(1)
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gap = max(l.gap, now.Sub(l.last))
	l.last = now
}

// call bounds one call. The end of the load cancels none of them: all must succeed.
func (l *load) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), l.limit)
}

// work locks and unlocks until the load ends.
func (l *load) work(ctx context.Context, c *client.Client, name, who string) {
	for ctx.Err() == nil {
		if err := l.cycle(c, name, who); err != nil {
			l.fail(fmt.Errorf("%s: %w", who, err))
			return
		}
		l.cycled()
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond): // so that the load does not use up the machine
		}
	}
}

func (l *load) cycle(c *client.Client, name, who string) error {
	call, cancel := l.call()
	defer cancel()
	asked := time.Now()
	g, err := c.Lock(call, name)
	if err != nil {
		return err
	}
	claim := opened(g, who, asked)
	for range 3 {
		if !claim.extend(g) {
			return fmt.Errorf("lost right after it was acquired: %w", g.Err())
		}
		time.Sleep(300 * time.Microsecond) // the length of the work under the lock
	}
	claim.extend(g)
	l.add(claim)
	return g.Unlock()
}

// keep acquires new locks all the time, and never releases them.
func (l *load) keep(ctx context.Context) {
	for i := 0; ctx.Err() == nil && i < loadKeptMost; i++ {
		call, cancel := l.call()
		asked := time.Now()
		g, err := l.watch.TryLock(call, fmt.Sprintf("kept/%03d", i))
		cancel()
		if err != nil {
			l.fail(fmt.Errorf("keeper: %w", err))
			return
		}
		l.add(opened(g, "keeper", asked))
		l.mu.Lock()
		l.kept[g.Name()] = g
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// newGap begins to measure the longest time without the end of a cycle anew, and
// returns what it was so far.
func (l *load) newGap() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	gap := l.gap
	l.gap = 0
	return gap
}

// progress waits for that many more cycles, to see that the load goes on.
func (l *load) progress(t *testing.T, more int64) {
	t.Helper()
	want := l.cycles.Load() + more
	eventually(t, fmt.Sprintf("%d more cycles of the load", more), func() bool {
		return l.cycles.Load() >= want || l.failed() != nil
	})
	must(t, l.failed())
}

func (l *load) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errs...)
}

// finish ends the load and checks what it has recorded.
func (l *load) finish(t *testing.T) {
	t.Helper()
	l.stop()
	if err := errors.Join(l.failed(), l.contradiction()); err != nil {
		t.Error(err)
	}
	held := map[string]uint64{}
	for after, more := "", true; more; more = after != "" {
		page, err := l.watch.List(within(t, patience), "kept/", client.ListOptions{After: after, Limit: 1000})
		must(t, err)
		for _, info := range page.Locks {
			if len(info.Holders) == 1 {
				held[info.Name] = info.Holders[0].Token
			}
		}
		after = page.Next
	}
	for name, g := range l.kept {
		if g.Err() != nil || held[name] != g.Token() {
			t.Errorf("lock %s: acknowledged with token %d, now held with %d, its holder says: %v", name, g.Token(), held[name], g.Err())
		}
	}
	if len(held) != len(l.kept) {
		t.Errorf("%d locks are held that were kept, want %d", len(held), len(l.kept))
	}
	t.Logf("%d cycles, %d locks kept, longest time without the end of a cycle %v",
		l.cycles.Load(), len(l.kept), l.newGap().Round(time.Millisecond))
}
