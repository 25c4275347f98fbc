package mux

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// fakeNode is a node without a network, for virtual time: on decides which
// answers an operation gets, now or later through answers.
type fakeNode struct {
	grpc.ClientStream
	ctx     context.Context
	on      func(*apiv1.Operation) *apiv1.Answer
	answers chan *apiv1.SessionResponse
	pings   atomic.Int32
}

func newFakeNode(on func(*apiv1.Operation) *apiv1.Answer) *fakeNode {
	return &fakeNode{on: on, answers: make(chan *apiv1.SessionResponse, 100)}
}

func (f *fakeNode) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	return errors.New("no unary calls here")
}

func (f *fakeNode) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	f.ctx = ctx
	return f, nil
}

func (f *fakeNode) Context() context.Context     { return f.ctx }
func (f *fakeNode) Header() (metadata.MD, error) { return nil, nil }

func (f *fakeNode) SendMsg(m any) error {
	var resp apiv1.SessionResponse
	for _, op := range m.(*apiv1.SessionRequest).GetOperations() {
		if op.GetRequest() == nil {
			f.pings.Add(1)
		}
		if a := f.on(op); a != nil {
			a.Id = op.GetId()
			resp.Answers = append(resp.Answers, a)
		}
	}
	if len(resp.Answers) > 0 {
		f.answers <- &resp
	}
	return nil
}

func (f *fakeNode) RecvMsg(m any) error {
	select {
	case resp := <-f.answers:
		dst := m.(*apiv1.SessionResponse)
		dst.Answers, dst.Notices = resp.GetAnswers(), resp.GetNotices()
		return nil
	case <-f.ctx.Done():
		return io.ErrUnexpectedEOF
	}
}

func silent(*apiv1.Operation) *apiv1.Answer { return nil }

// answersPings answers pings only.
func answersPings(op *apiv1.Operation) *apiv1.Answer {
	if op.GetRequest() == nil {
		return &apiv1.Answer{}
	}
	return nil
}

// start opens a conn to the node and returns it with what it hands over.
func start(t *testing.T, node *fakeNode, cfg Config) (*Conn, <-chan broken) {
	t.Helper()
	breaks := make(chan broken, 10)
	cfg.OnBreak = func(calls []*Call, err error) { breaks <- broken{calls, err} }
	return open(t, node, cfg), breaks
}

func ignore(*apiv1.Answer) {}

func TestSilentNodeIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, breaks := start(t, newFakeNode(silent), Config{Patience: NewPatience(700 * time.Millisecond)})
		time.Sleep(time.Hour) // silence while nothing is unanswered is no stall
		begun := time.Now()
		call := &Call{Op: release(1), Done: ignore}
		conn.Start(call)
		b := <-breaks
		if took := time.Since(begun); took < 700*time.Millisecond || took > time.Second {
			t.Errorf("given up after %v, want 700 ms to 1 s", took)
		}
		if !errors.Is(b.err, ErrStalled) || len(b.calls) != 1 || b.calls[0] != call {
			t.Errorf("handed over %d calls with %v, want the call and ErrStalled", len(b.calls), b.err)
		}
	})
}

func TestNodeThatAnswersOthersIsNotGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newFakeNode(func(op *apiv1.Operation) *apiv1.Answer {
			if op.GetGet() != nil {
				return &apiv1.Answer{}
			}
			return nil
		})
		conn, _ := start(t, node, Config{})
		conn.Start(&Call{Op: release(1), Done: ignore})
		for range 100 {
			time.Sleep(700 * time.Millisecond)
			if _, err := Do(t.Context(), conn.Start, get("a")); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.Err(); err != nil {
			t.Errorf("Err() = %v though the node answers", err)
		}
	})
}

func TestAcquireWaitsAsLongAsPingsAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mute atomic.Bool
		node := newFakeNode(func(op *apiv1.Operation) *apiv1.Answer {
			if mute.Load() {
				return nil
			}
			return answersPings(op)
		})
		conn, breaks := start(t, node, Config{})
		conn.Start(&Call{Op: waitingAcquire("a"), Done: ignore})
		time.Sleep(100*time.Second + time.Millisecond)
		if pings := node.pings.Load(); conn.Err() != nil || pings < 90 || pings > 101 {
			t.Errorf("after 100 s: error %v, %d pings; want none, about 100", conn.Err(), pings)
		}
		mute.Store(true)
		begun := time.Now()
		b := <-breaks
		if took := time.Since(begun); took > 2100*time.Millisecond || !errors.Is(b.err, ErrStalled) || len(b.calls) != 1 {
			t.Errorf("handed over %d calls after %v with %v, want 1 within 2 s with ErrStalled", len(b.calls), took, b.err)
		}
	})
}

func TestIdleConnSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newFakeNode(func(*apiv1.Operation) *apiv1.Answer { return &apiv1.Answer{} })
		conn, _ := start(t, node, Config{})
		if _, err := Do(t.Context(), conn.Start, get("a")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if pings := node.pings.Load(); pings != 0 || conn.Err() != nil {
			t.Errorf("an idle hour: %d pings, error %v", pings, conn.Err())
		}
	})
}

func TestPauseOfTheProcessDoesNotBreakTheConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, _ := start(t, newFakeNode(silent), Config{})
		conn.Start(&Call{Op: release(1), Done: ignore})
		time.Sleep(300 * time.Millisecond) // it was asked
		synctest.Wait()
		// The timer fires five seconds late, as after SIGSTOP and SIGCONT.
		now := conn.due.Add(5 * time.Second)
		if _, over := conn.silent(now); over {
			t.Error("the node was given up right after a pause of this process")
		} else if want := 750 * time.Millisecond; !conn.due.Equal(now.Add(want)) {
			t.Errorf("next check at %v after the pause, want %v", conn.due.Sub(now), want)
		}
	})
}
