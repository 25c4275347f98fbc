package node_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/proof/testall"
	"github.com/locknode/locknode/node"
)

// answered holds the grants that callers without a session know: token → lock.
type answered struct {
	mu    sync.Mutex
	grant map[uint64]string
	count int
}

func (k *answered) add(token uint64, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.grant[token] == "" {
		k.count++
	}
	k.grant[token] = name
}

func (k *answered) drop(token uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.grant, token)
}

// TestEveryGrantWasDeliveredToACaller: callers hang up at any moment and retry under their
// request IDs through other nodes, and nodes are cut off for longer than the TTL of their
// sessions. In the end every grant that is held was delivered to its caller, and the queues
// are empty. The callers run in the processes of the nodes, so that it is certain what was
// delivered.
//
// There is one exception. A try under a request ID was granted the lock at once, its caller
// has hung up, and the session of its node ended before the try was cancelled: the grant may
// have been delivered to another try, so it is left to its TTL.
func TestEveryGrantWasDeliveredToACaller(t *testing.T) {
	for seed := range testall.Pick[uint64](6, 2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inWorld(t, func(w *world) {
				random := rand.New(rand.NewPCG(seed, 1))
				k := &answered{grant: map[uint64]string{}}
				ctx, stop := context.WithTimeout(w.t.Context(), time.Minute)
				defer stop()
				var callers sync.WaitGroup
				for i := range 12 {
					own := rand.New(rand.NewPCG(seed, uint64(100+i)))
					callers.Go(func() {
						for n := 0; ctx.Err() == nil; n++ {
							w.call(own, k, fmt.Sprintf("%d/%d", i, n))
						}
					})
				}
				w.trouble(ctx, random)
				callers.Wait()
				w.c.Heal()
				time.Sleep(time.Minute)
				w.lookAround()
				w.checkAnswered(k)
			})
		})
	}
}

// trouble cuts off one node after the other until ctx ends.
func (w *world) trouble(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil {
		nodes := w.c.Nodes()
		victim := nodes[random.IntN(len(nodes))]
		for _, other := range nodes {
			if other != victim {
				_ = w.c.Cut(victim, other)
				_ = w.c.Cut(other, victim)
			}
		}
		time.Sleep(time.Duration(random.Int64N(int64(8 * time.Second))))
		w.c.Heal()
		time.Sleep(time.Duration(random.Int64N(int64(4 * time.Second))))
	}
}

// call is one caller: it acquires, gets the answer or hangs up, and mostly releases.
func (w *world) call(random *rand.Rand, k *answered, id string) {
	r := request(fmt.Sprintf("lock%d", random.IntN(4)), "caller "+id, time.Hour, time.Duration(random.Int64N(int64(6*time.Second))), "")
	patience := time.Duration(random.Int64N(int64(7 * time.Second)))
	named := random.IntN(3) == 0
	if named {
		r.Id, r.Holder = request("", "", 0, 0, id).GetId(), "named caller "+id
	}
	var token uint64
	for try := 0; try == 0 || named; try++ {
		if try > 0 {
			time.Sleep(time.Duration(random.Int64N(int64(3 * time.Second))))
		}
		a := w.start(random, patience, &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: r}})
		token = a.GetAcquire().GetToken()
		if token != 0 {
			k.add(token, r.GetLocks()[0].GetName())
			break
		}
		if a != nil && apiv1.Code(a.GetError().GetCode()) != apiv1.CodeUnavailable {
			return
		}
		patience += time.Second // a caller with an ID retries until there is an answer
	}
	if token == 0 {
		return
	}
	time.Sleep(time.Duration(random.Int64N(int64(time.Second))))
	if random.IntN(60) == 0 {
		return // it keeps the lock
	}
	for {
		a := w.start(random, time.Minute, &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{
			Name: r.GetLocks()[0].GetName(), Token: token,
		}}})
		switch code := apiv1.Code(a.GetError().GetCode()); {
		case a.GetRelease() != nil, code == apiv1.CodeNotHeld:
			k.drop(token)
			return
		}
	}
}

// start has one of the nodes run op, and returns nil if the caller has hung up.
func (w *world) start(random *rand.Rand, patience time.Duration, op *apiv1.Operation) *apiv1.Answer {
	nodes := w.c.Nodes()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	a, err := mux.Do(ctx, node.Wire(w.c.Node(nodes[random.IntN(len(nodes))])).Start, op)
	if err != nil {
		return nil
	}
	return a
}

func (w *world) checkAnswered(k *answered) {
	w.t.Helper()
	held := 0
	for i := range 4 {
		lock := w.get(w.leader, fmt.Sprintf("lock%d", i))
		if lock.GetWaiters() != 0 {
			w.t.Errorf("%d wait for %s, want none", lock.GetWaiters(), lock.GetName())
		}
		for _, h := range lock.GetHolders() {
			switch {
			case k.grant[h.GetToken()] == lock.GetName():
				held++
			case strings.HasPrefix(h.GetHolder(), "named "):
				w.t.Logf("%s is left to %s until its TTL", lock.GetName(), h.GetHolder())
			default:
				w.t.Errorf("%s is held by %s with token %d, which was delivered to no caller", lock.GetName(), h.GetHolder(), h.GetToken())
			}
		}
	}
	if held != len(k.grant) {
		w.t.Errorf("%d grants are held, and callers have %d", held, len(k.grant))
	}
	w.t.Logf("%d grants were delivered, %d are held", k.count, held)
}
