package mux

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// slow makes the node answer each operation after a time, or not at all.
func (f *fakeNode) slow(after func(*apiv1.Operation) (time.Duration, bool)) *fakeNode {
	f.on = func(op *apiv1.Operation) *apiv1.Answer {
		if d, ok := after(op); ok {
			answer := &apiv1.SessionResponse{Answers: []*apiv1.Answer{{Id: op.GetId()}}}
			time.AfterFunc(d, func() { f.answers <- answer })
		}
		return nil
	}
	return f
}

func TestWorkMayTakeAsLongAsItTakesWhilePingsAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newFakeNode(answersPings) // as a node without a majority
		conn, _ := start(t, node, Config{})
		conn.Start(&Call{Op: release(1), Done: ignore})
		time.Sleep(10 * time.Minute)
		if pings := node.pings.Load(); conn.Err() != nil || pings < 590 || pings > 610 {
			t.Errorf("after 10 minutes: error %v, %d pings; want none, and one a second", conn.Err(), pings)
		}
	})
}

// A node that fails while an operation is unanswered is left nearly as soon as one that failed
// before: pings go on.
func TestNodeThatFailsWithWorkIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failed atomic.Bool
		node := newFakeNode(nil).slow(func(op *apiv1.Operation) (time.Duration, bool) { return 0, !failed.Load() && op.GetRequest() == nil })
		conn, breaks := start(t, node, Config{})
		conn.Start(&Call{Op: release(1), Done: ignore})
		time.Sleep(time.Minute)
		failed.Store(true)
		begun := time.Now()
		b := <-breaks
		if took := time.Since(begun); took > 1800*time.Millisecond || !errors.Is(b.err, ErrStalled) {
			t.Errorf("left after %v with %v, want ErrStalled within 1.8 s", took, b.err)
		}
	})
}

// A node that is only slow is reached in the end, because its patience outlives the conn, and
// a conn with enough patience stays.
func TestSlowNodeIsReachedInTheEnd(t *testing.T) {
	for _, trip := range []time.Duration{800 * time.Millisecond, 1100 * time.Millisecond, 3 * time.Second, 6 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			patience := NewPatience(0)
			answered := make(chan *Conn, 1)
			opened := 0
			var try func([]*Call, error)
			try = func(calls []*Call, err error) {
				if errors.Is(err, ErrClosed) || t.Failed() {
					return
				}
				node := newFakeNode(nil).slow(func(*apiv1.Operation) (time.Duration, bool) { return trip, true })
				conn, err := Open(t.Context(), node, Config{Patience: patience, OnBreak: try})
				if err != nil {
					t.Error(err)
					return
				}
				opened++
				for _, call := range calls {
					call.Done = func(*apiv1.Answer) { answered <- conn }
					conn.Start(call)
				}
			}
			begun := time.Now()
			try([]*Call{{Op: release(1)}}, nil)
			var conn *Conn
			select {
			case conn = <-answered:
			case <-time.After(time.Minute):
				t.Fatalf("round trip %v: not answered within a minute, by %d conns", trip, opened)
			}
			t.Logf("round trip %v: answered after %v by conn %d, patience %v", trip, time.Since(begun), opened, patience.Limit())
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			for range 20 {
				if _, err := Do(ctx, conn.Start, release(2)); err != nil {
					t.Fatal(err)
				}
			}
			if conn.Err() != nil || opened > 5 {
				t.Errorf("round trip %v: conn %d broke with %v", trip, opened, conn.Err())
			}
			conn.Close()
			<-conn.Done()
			synctest.Wait()
		})
	}
}

// With OnSilent a conn breaks later, and not at all if the node was only slow.
func TestSilenceIsReportedBeforeItBreaksAConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reported := make(chan time.Time, 10)
		node := newFakeNode(silent)
		conn, breaks := start(t, node, Config{OnSilent: func() { reported <- time.Now() }})
		begun := time.Now()
		conn.Start(&Call{Op: release(1), Done: ignore})
		if took := (<-reported).Sub(begun); took != time.Second || !conn.Silent() {
			t.Errorf("reported after %v, silent: %v; want 1s and yes", took, conn.Silent())
		}
		time.Sleep(time.Second)
		node.answers <- &apiv1.SessionResponse{Answers: []*apiv1.Answer{{Id: 2}}} // to the ping
		synctest.Wait()
		if conn.Silent() || conn.Err() != nil {
			t.Errorf("after an answer: silent %v, error %v", conn.Silent(), conn.Err())
		}
		begun = time.Now()
		again := (<-reported).Sub(begun)
		b := <-breaks
		if took := time.Since(begun); took < 3*again*9/10 || took > 4*again || !errors.Is(b.err, ErrStalled) || len(reported) != 0 {
			t.Errorf("reported again after %v, broke after %v with %v; want about three times as much", again, took, b.err)
		}
	})
}

func TestPatienceHasABoundAndIsGivenUpWhenTheNodeIsFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		patience := NewPatience(0)
		for _, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
			if got := patience.Limit(); got != want*time.Second {
				t.Errorf("patience is %v, want %v", got, want*time.Second)
			}
			conn, breaks := start(t, newFakeNode(silent), Config{Patience: patience})
			begun := time.Now()
			conn.Start(&Call{Op: release(1), Done: ignore})
			<-breaks
			if took := time.Since(begun); took > want*time.Second || took < want*time.Second*3/4 {
				t.Errorf("left after %v, want %v or a little less", took, want*time.Second)
			}
		}

		// It was busy and slow for a while, and is fast now: no ping is sent any more that
		// could measure it.
		var trip atomic.Int64 // negative: it does not answer
		trip.Store(int64(2 * time.Second))
		node := newFakeNode(nil).slow(func(*apiv1.Operation) (time.Duration, bool) {
			d := time.Duration(trip.Load())
			return d, d >= 0
		})
		conn, breaks := start(t, node, Config{Patience: patience})
		work := func(n int) {
			for range n {
				if _, err := Do(t.Context(), conn.Start, release(2)); err != nil {
					t.Fatal(err)
				}
			}
		}
		work(10)
		if got := patience.Limit(); got != 8*time.Second {
			t.Errorf("patience with a round trip of 2s is %v, want 8s", got)
		}
		time.Sleep(5 * time.Second) // the last ping is answered
		trip.Store(int64(time.Millisecond))
		work(20)
		trip.Store(-1)
		begun := time.Now()
		conn.Start(&Call{Op: release(1), Done: ignore})
		<-breaks
		if took := time.Since(begun); took != time.Second {
			t.Errorf("left after %v, want 1s", took)
		}
	})
}

func TestNodeThatCannotServeIsLeftAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, breaks := start(t, newFakeNode(func(op *apiv1.Operation) *apiv1.Answer {
			if op.GetRequest() != nil {
				return nil
			}
			return errorTo(op, apiv1.NewError(apiv1.CodeUnavailable, "disk is stalled"))
		}), Config{})
		begun := time.Now()
		conn.Start(&Call{Op: release(1), Done: ignore})
		b := <-breaks
		if took := time.Since(begun); took > 300*time.Millisecond || apiv1.CodeOf(b.err) != apiv1.CodeUnavailable || len(b.calls) != 1 {
			t.Errorf("left after %v with %v and %d calls, want the node's reason and the call with the first ping", took, b.err, len(b.calls))
		}
	})
}

func errorTo(op *apiv1.Operation, e *apiv1.Error) *apiv1.Answer {
	return &apiv1.Answer{Id: op.GetId(), Result: &apiv1.Answer_Error{Error: e}}
}

// gatedNode receives a message only when the test lets it.
type gatedNode struct {
	*fakeNode
	let chan struct{}

	mu       sync.Mutex
	messages [][]*apiv1.Operation
}

func (g *gatedNode) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	g.ctx = ctx
	return g, nil
}

func (g *gatedNode) SendMsg(m any) error {
	select {
	case <-g.let:
	case <-g.ctx.Done():
		return g.ctx.Err()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.messages = append(g.messages, m.(*apiv1.SessionRequest).GetOperations())
	return nil
}

func TestPingsAndKeepAlivesGoAheadOfWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := &gatedNode{fakeNode: newFakeNode(silent), let: make(chan struct{})}
		conn := open(t, node, Config{Patience: NewPatience(10 * time.Second), OnBreak: func([]*Call, error) {}})
		for range 3000 {
			conn.Start(&Call{Op: release(1), Done: ignore})
		}
		synctest.Wait() // the first message is being sent, and the node does not receive it
		conn.Start(&Call{Op: &apiv1.Operation{Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{}}}, Done: ignore})
		time.Sleep(3 * time.Second) // a ping is queued as well
		for range 2 {
			node.let <- struct{}{}
		}
		synctest.Wait()
		node.mu.Lock()
		defer node.mu.Unlock()
		if len(node.messages) != 2 {
			t.Fatalf("%d messages were sent, want 2", len(node.messages))
		}
		second := node.messages[1]
		if second[0].GetKeepAlive() == nil || second[1].GetRequest() != nil || second[2].GetRelease() == nil {
			t.Errorf("the second message of %d operations begins with %v, %v, %v; want the keep-alive, the ping, and then work",
				len(second), second[0], second[1], second[2])
		}
	})
}

// Flow control blocks the sender, and with it the ping.
func TestNodeThatTakesNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := &gatedNode{fakeNode: newFakeNode(silent), let: make(chan struct{})}
		breaks := make(chan broken, 1)
		conn := open(t, node, Config{OnBreak: func(calls []*Call, err error) { breaks <- broken{calls, err} }})
		begun := time.Now()
		for range 1000 {
			conn.Start(&Call{Op: release(1), Done: ignore})
		}
		if b := <-breaks; time.Since(begun) != time.Second || len(b.calls) != 1000 {
			t.Errorf("left after %v with %d calls, want 1s and all", time.Since(begun), len(b.calls))
		}
	})
}

// An operation that is refused before it is sent must not stop the timing of the next one.
func TestNodeIsWatchedAfterWhatWasNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, breaks := start(t, newFakeNode(silent), Config{})
		conn.Start(&Call{Op: get("a\xff"), Done: ignore})
		time.Sleep(time.Minute)
		begun := time.Now()
		conn.Start(&Call{Op: waitingAcquire("a"), Done: ignore})
		<-breaks
		if took := time.Since(begun); took != time.Second {
			t.Errorf("left after %v, want 1s", took)
		}
	})
}
