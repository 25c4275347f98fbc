//go:build unix

package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/locknode/locknode/client"
)

const (
	keptMost    = 500
	keptPrefix  = "kept/"
	keptSession = 10 * time.Minute
	keptTTL     = 24 * time.Hour
	keepEvery   = 250 * time.Millisecond
)

// keeper acquires new locks all the time and never gives them back: whatever is
// done to the nodes, what was acknowledged must still be there at the end.
type keeper struct {
	client *client.Client

	mu      sync.Mutex // guards what follows
	kept    map[string]uint64
	grants  []*client.Grant
	failure error
}

// startKeeper starts it; it ends with ctx. The client is closed by the caller.
func startKeeper(ctx context.Context, wg *sync.WaitGroup, endpoints []string) (*keeper, error) {
	c, err := client.Dial(ctx, endpoints, client.Holder("keeper"), client.SessionTTL(keptSession))
	if err != nil {
		return nil, err
	}
	k := &keeper{client: c, kept: map[string]uint64{}}
	wg.Go(func() {
		for i := 0; i < keptMost && ctx.Err() == nil; i++ {
			k.keep(ctx, i)
			select {
			case <-ctx.Done():
			case <-time.After(keepEvery):
			}
		}
	})
	return k, nil
}

// keep acquires one more lock: with the session, or without one.
func (k *keeper) keep(ctx context.Context, i int) {
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	name := fmt.Sprintf("%s%04d", keptPrefix, i)
	var g *client.Grant
	var token uint64
	var err error
	if i%2 == 0 {
		if g, err = k.client.TryLock(call, name); err == nil {
			token = g.Token()
		}
	} else {
		var d client.DetachedGrant
		d, err = k.client.Detached().Acquire(call, name, keptTTL)
		token = d.Token
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err == nil:
		k.kept[name] = token
		if g != nil {
			k.grants = append(k.grants, g)
		}
	case ctx.Err() == nil && k.failure == nil:
		k.failure = fmt.Errorf("acquire %s: %w", name, err)
	}
}

// count is how many locks are kept.
func (k *keeper) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.kept)
}

// missing reads all locks back that were acknowledged, and says which are not
// held as they were.
func (k *keeper) missing(ctx context.Context) ([]string, error) {
	k.mu.Lock()
	kept, grants, failure := map[string]uint64{}, slices.Clone(k.grants), k.failure
	for name, token := range k.kept {
		kept[name] = token
	}
	k.mu.Unlock()
	held := map[string]uint64{}
	for after, more := "", true; more; more = after != "" {
		page, err := k.client.List(ctx, keptPrefix, client.ListOptions{After: after, Limit: 1000})
		if err != nil {
			return nil, fmt.Errorf("read the kept locks back: %w", err)
		}
		for _, info := range page.Locks {
			if len(info.Holders) == 1 {
				held[info.Name] = info.Holders[0].Token
			}
		}
		after = page.Next
	}
	var missing []string
	for name, token := range kept {
		switch held[name] {
		case token:
		case 0:
			missing = append(missing, fmt.Sprintf("%s was given with token %d and is free now", name, token))
		default:
			missing = append(missing, fmt.Sprintf("%s was given with token %d and is held with %d now", name, token, held[name]))
		}
	}
	for _, g := range grants {
		if err := g.Err(); err != nil {
			missing = append(missing, fmt.Sprintf("%s: its holder was told: %v", g.Name(), err))
		}
	}
	if failure != nil {
		missing = append(missing, failure.Error())
	}
	slices.SortFunc(missing, strings.Compare)
	return missing, nil
}
