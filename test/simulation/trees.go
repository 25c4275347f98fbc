package simulation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
)

// trees locks places in a tree, several at a time in one session: all that is above
// a place shared, and the place itself exclusively, so that it is taken with all
// that is below it.
func (w *worker) trees(ctx context.Context, _ *client.Client) error {
	l := w.line("")
	defer l.close()
	s := w.openRaw(ctx, l)
	if s == nil {
		return nil
	}
	var wg sync.WaitGroup
	for range 5 + w.rand.IntN(25) {
		p := &climber{s: s, rand: rand.New(rand.NewPCG(w.rand.Uint64(), 2))}
		wg.Go(func() { p.climb(ctx) })
	}
	wg.Wait()
	s.finish(ctx)
	return nil
}

// climber is who locks a place of the tree.
type climber struct {
	s    *raw
	rand *rand.Rand
}

func (p *climber) climb(ctx context.Context) {
	id := p.s.sign()
	defer p.s.answered(id)
	sleep(ctx, time.Duration(p.rand.Int64N(int64(2*time.Second))))
	a := p.s.do(ctx, &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{
		Id: id, Locks: p.path(), WaitNs: p.rand.Int64N(int64(8 * time.Second)),
	}}})
	if a.GetAcquire() == nil {
		return
	}
	sleep(ctx, time.Duration(p.rand.Int64N(int64(200*time.Millisecond))))
	p.s.release(ctx, a.GetAcquire().GetToken())
}

// path returns a place of the tree with all that is above it, in any order.
func (p *climber) path() (wants []*apiv1.Want) {
	name := "tree"
	for range p.rand.IntN(5) {
		wants = append(wants, &apiv1.Want{Name: name, Mode: apiv1.Mode_MODE_SHARED})
		name += fmt.Sprintf("/%d", p.rand.IntN(2))
	}
	mode := apiv1.Mode_MODE_EXCLUSIVE
	if p.rand.IntN(3) == 0 {
		mode = apiv1.Mode_MODE_SHARED
	}
	wants = append(wants, &apiv1.Want{Name: name, Mode: mode})
	p.rand.Shuffle(len(wants), func(i, j int) { wants[i], wants[j] = wants[j], wants[i] })
	return wants
}
