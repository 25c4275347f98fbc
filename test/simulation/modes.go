package simulation

import (
	"context"
	"fmt"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
)

// modes takes what the Go client does not offer: shared locks, permits of a
// semaphore, and several locks at once, over the protocol itself, as detached
// requests with a once ID that is sent until it is answered.
func (w *worker) modes(ctx context.Context, _ *client.Client) error {
	ttl := time.Second + time.Duration(w.rand.Int64N(int64(3*time.Second)))
	acquire := &apiv1.AcquireRequest{
		Id: &apiv1.RequestID{Once: w.onceID()}, TtlNs: int64(ttl), Holder: w.w.Name, Detached: true, Locks: w.wants(),
	}
	if w.rand.IntN(3) > 0 {
		acquire.WaitNs = w.rand.Int64N(int64(4 * time.Second))
	}
	l := w.line("")
	defer l.close()
	a := l.do(ctx, &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: acquire}})
	if a.GetAcquire() == nil {
		return nil
	}
	sleep(ctx, time.Duration(w.rand.Int64N(int64(ttl))))
	if w.rand.IntN(4) == 0 {
		return nil // left to run out
	}
	l.do(ctx, &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{
		Token: a.GetAcquire().GetToken(),
	}}})
	return nil
}

func (w *worker) wants() (wants []*apiv1.Want) {
	switch w.rand.IntN(3) {
	case 0:
		return []*apiv1.Want{{Name: w.name(), Mode: apiv1.Mode_MODE_SHARED}}
	case 1:
		return []*apiv1.Want{{Name: "permits", Mode: apiv1.Mode_MODE_PERMITS, Permits: 1 + w.rand.Uint32N(3), Limit: 4}}
	}
	for i := range w.r.p.Locks {
		if w.rand.IntN(2) == 0 || i == 0 {
			mode := apiv1.Mode_MODE_EXCLUSIVE
			if w.rand.IntN(3) == 0 {
				mode = apiv1.Mode_MODE_SHARED
			}
			wants = append(wants, &apiv1.Want{Name: fmt.Sprintf("lock/%d", i), Mode: mode})
		}
	}
	return wants
}
