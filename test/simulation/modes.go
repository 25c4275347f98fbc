package simulation

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// modes takes what the Go client does not offer: shared locks, permits of a
// semaphore, and several locks at once, over the protocol itself, as detached
// requests with a once ID that is sent until it is answered.
func (w *worker) modes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callLimit)
	defer cancel()
	ttl := time.Second + time.Duration(w.rand.Int64N(int64(3*time.Second)))
	acquire := &apiv1.AcquireRequest{
		Id: &apiv1.RequestID{Once: w.onceID()}, TtlNs: int64(ttl), Holder: w.w.Name, Detached: true, Locks: w.wants(),
	}
	if w.rand.IntN(3) > 0 {
		acquire.WaitNs = w.rand.Int64N(int64(4 * time.Second))
	}
	a := w.send(ctx, &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: acquire}}, time.Duration(acquire.WaitNs))
	if a.GetAcquire() == nil {
		return
	}
	sleep(ctx, time.Duration(w.rand.Int64N(int64(ttl))))
	if w.rand.IntN(4) == 0 {
		return // left to run out
	}
	w.send(ctx, &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{
		Id: &apiv1.RequestID{Once: w.onceID()}, Token: a.GetAcquire().GetToken(),
	}}}, 0)
}

func (w *worker) onceID() []byte {
	id := binary.LittleEndian.AppendUint64(nil, w.rand.Uint64())
	return binary.LittleEndian.AppendUint64(id, w.rand.Uint64())
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

// send sends an operation to one node after the other until it is answered for
// good or ctx ends; then the answer is nil.
func (w *worker) send(ctx context.Context, op *apiv1.Operation, wait time.Duration) *apiv1.Answer {
	nodes := w.r.c.Nodes()
	for ctx.Err() == nil {
		a := w.sendOnce(ctx, nodes[w.rand.IntN(len(nodes))], op, wait)
		switch apiv1.Code(a.GetError().GetCode()) {
		case apiv1.CodeNotLeader, apiv1.CodeUnavailable, apiv1.CodeNotReady, apiv1.CodeUnknownOutcome, apiv1.CodeOverloaded:
		default:
			if a != nil {
				return a
			}
		}
		sleep(ctx, 50*time.Millisecond)
	}
	return nil
}

func (w *worker) sendOnce(ctx context.Context, node string, op *apiv1.Operation, wait time.Duration) *apiv1.Answer {
	ctx, cancel := context.WithTimeout(ctx, wait+3*time.Second)
	defer cancel()
	cc, err := w.r.c.Conn(w.w.Name, node)
	if err != nil {
		return nil
	}
	defer func() { _ = cc.Close() }() // nothing is under way any more
	conn, err := mux.Open(ctx, cc, mux.Config{})
	if err != nil {
		return nil
	}
	defer func() {
		conn.Close()
		<-conn.Done()
	}()
	a, err := mux.Do(ctx, conn.Start, &apiv1.Operation{Request: op.GetRequest()})
	if err != nil {
		return nil
	}
	return a
}
