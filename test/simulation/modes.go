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
//
// Now and then it changes the size of the semaphore. The others read the size first, and are
// refused if it changes after that.
func (w *worker) modes(ctx context.Context, c *client.Client) error {
	switch w.rand.IntN(16) {
	case 0:
		return c.Resize(ctx, semaphore, 1+w.rand.IntN(6))
	case 1:
		return w.resize(ctx)
	}
	ttl := time.Second + time.Duration(w.rand.Int64N(int64(3*time.Second)))
	acquire := &apiv1.AcquireRequest{
		Id: &apiv1.RequestID{Once: w.onceID()}, TtlNs: int64(ttl), Holder: w.w.Name, Detached: true, Locks: w.wants(ctx, c),
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

// semaphore is the only one. Its size is firstSize unless a worker has changed it.
const (
	semaphore = "permits"
	firstSize = 4
)

// resize changes the size without a session. If the outcome is unknown, it is sent again as
// another request.
func (w *worker) resize(ctx context.Context) error {
	l := w.line("")
	defer l.close()
	l.do(ctx, &apiv1.Operation{Request: &apiv1.Operation_Resize{Resize: &apiv1.ResizeRequest{
		Name: semaphore, Limit: 1 + w.rand.Uint32N(6),
	}}})
	return nil
}

// permits requests some of the semaphore's permits.
func (w *worker) permits(ctx context.Context, c *client.Client) *apiv1.Want {
	size := uint32(firstSize)
	if info, err := c.Get(ctx, semaphore, client.Stale(time.Second)); err == nil && info.Limit > 0 {
		size = uint32(info.Limit)
	}
	return &apiv1.Want{Name: semaphore, Mode: apiv1.Mode_MODE_PERMITS, Permits: 1 + w.rand.Uint32N(min(size, 3)), Limit: size}
}

func (w *worker) wants(ctx context.Context, c *client.Client) (wants []*apiv1.Want) {
	switch w.rand.IntN(3) {
	case 0:
		return []*apiv1.Want{{Name: w.name(), Mode: apiv1.Mode_MODE_SHARED}}
	case 1:
		return []*apiv1.Want{w.permits(ctx, c)}
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
