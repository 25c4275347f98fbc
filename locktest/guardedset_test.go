package locktest_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/locktest"
)

var adds = flag.Int("adds", 500, "how many adds the guarded set gets, with tokens compared and without")

const (
	addClients   = 8
	addsPerRound = 5000 // each round has a cluster of its own
	pauseOneIn   = 50   // holders, between the last check and the write
)

// item is an element of a set that is read, changed and written as a whole. As an immutable
// list it costs the same whatever its length.
type item struct {
	number int
	next   *item
}

// guardedSet is a store that keeps one set. It can compare tokens.
type guardedSet struct {
	compare bool

	mu      sync.Mutex // guards what follows
	items   *item
	token   uint64 // the largest that was seen
	refused int
}

func (s *guardedSet) read() *item {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.items
}

func (s *guardedSet) write(token uint64, items *item) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.compare && token < s.token {
		s.refused++
		return errOldToken
	}
	s.items, s.token = items, max(s.token, token)
	return nil
}

// drill is the result of some adds.
type drill struct {
	acknowledged, present, paused, refused int
	virtual                                time.Duration
}

func (d *drill) lost() int { return d.acknowledged - d.present }

// adder is one client that adds numbers until there are enough.
type adder struct {
	name    string
	cluster *locktest.Cluster
	set     *guardedSet
	rand    *rand.Rand
	paused  int
}

// add adds one number under the lock; it returns nil if the store has accepted it.
func (a *adder) add(ctx context.Context, number int) (err error) {
	_ = a.cluster.Client(a.name).Do(ctx, "set", func(ctx context.Context, g *client.Grant) error {
		items := a.set.read()
		if err = ctx.Err(); err != nil {
			return err // the last check: the lock is held
		}
		if a.rand.IntN(pauseOneIn) == 0 {
			a.paused++
			a.cluster.PauseFor(a.name, 2*time.Second+time.Duration(a.rand.IntN(int(2*time.Second))))
		}
		err = a.set.write(g.Token(), &item{number, items})
		return err
	})
	return err // whether the lock was lost does not matter any more
}

// addAll lets clients add n numbers to a set, in a cluster of their own.
func addAll(t *testing.T, n int, compare bool, seed uint64) (d drill) {
	cluster := locktest.New(t, 3, locktest.Seed(seed))
	set := &guardedSet{compare: compare}
	adders := make([]adder, addClients)
	var next atomic.Int64
	var wg sync.WaitGroup
	for i := range adders {
		a := &adders[i]
		*a = adder{name: fmt.Sprint("c", i), cluster: cluster, set: set, rand: rand.New(rand.NewPCG(seed, uint64(i)))}
		cluster.Client(a.name, short())
		wg.Go(func() {
			for number := int(next.Add(1)); number <= n; number = int(next.Add(1)) {
				err := a.add(t.Context(), number)
				for err != nil && t.Context().Err() == nil {
					if !errors.Is(err, errOldToken) && !errors.Is(err, context.Canceled) {
						t.Error(err)
						return
					}
					err = a.add(t.Context(), number)
				}
			}
		})
	}
	wg.Wait()
	cluster.CheckHistory()
	seen := make(map[int]bool, n)
	for i := set.items; i != nil; i = i.next {
		if seen[i.number] {
			t.Errorf("%d is in the set twice", i.number)
		}
		seen[i.number] = true
	}
	for i := range adders {
		d.paused += adders[i].paused
	}
	d.acknowledged, d.present, d.refused, d.virtual = n, len(seen), set.refused, cluster.Now()
	return d
}

// TestGuardedSet lets clients add numbers to a set under a lock, and pauses
// holders at the worst moment, for longer than the TTL of their sessions. No lock
// service can keep those from writing what they had read; tokens can.
func TestGuardedSet(t *testing.T) {
	for _, compare := range []bool{true, false} {
		name := map[bool]string{true: "tokens compared", false: "tokens ignored"}[compare]
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			var all drill
			for left, seed := *adds, uint64(1); left > 0; left, seed = left-addsPerRound, seed+1 {
				var d drill
				synctest.Test(t, func(t *testing.T) { d = addAll(t, min(left, addsPerRound), compare, seed) })
				all.acknowledged += d.acknowledged
				all.present += d.present
				all.paused += d.paused
				all.refused += d.refused
				all.virtual += d.virtual
			}
			t.Logf("%s: %d adds acknowledged, %d in the set, %d lost; %d holders paused, %d late writes refused; %v in %v",
				name, all.acknowledged, all.present, all.lost(), all.paused, all.refused,
				all.virtual.Round(time.Second), time.Since(begin).Round(time.Second))
			switch {
			case compare && all.lost() != 0:
				t.Errorf("%d adds that the store had acknowledged are gone", all.lost())
			case compare && all.refused == 0, !compare && all.lost() == 0:
				t.Error("no holder wrote late: the drill shows nothing")
			}
		})
	}
}
