package server

import (
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/mux"
)

// newBraked returns a stream whose operations are answered by the test, and its calls.
func newBraked(t *testing.T, inFlight int) (st *stream, calls *[]*mux.Call) {
	t.Helper()
	st, _ = newStream(t, Config{Limits: Limits{InFlight: inFlight}})
	st.brake, st.shares = newBrake(inFlight), map[fair.Owner]int{}
	calls = new([]*mux.Call)
	st.server.backend.(*fakeNode).on = func(c *mux.Call) bool { *calls = append(*calls, c); return true }
	return st, calls
}

func took(f func()) time.Duration {
	begun := time.Now()
	f()
	return time.Since(begun)
}

func TestAStreamWithTooMuchUnansweredIsNotReadForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, calls := newBraked(t, 20)
		for i := range uint64(9) {
			st.accept(getOp(i, "a"), time.Now())
		}
		if d := took(func() { st.slowDown(1) }); d != 0 {
			t.Errorf("with 9 of 20 operations unanswered the stream is not read for %v", d)
		}
		st.accept(getOp(9, "a"), time.Now())
		if d := took(func() { st.slowDown(1) }); d != maxPause {
			t.Errorf("with 10 of 20 operations unanswered the stream is not read for %v, want %v", d, maxPause)
		}
		time.AfterFunc(10*time.Millisecond, func() {
			(*calls)[0].Done(errorAnswer(0, apiv1.NewError(apiv1.CodeBusy, "busy")))
		})
		time.AfterFunc(20*time.Millisecond, func() { // the answer has been sent
			st.mu.Lock()
			defer st.mu.Unlock()
			st.countLocked(st.out[0], -1)
		})
		if d := took(func() { st.slowDown(1) }); d != 20*time.Millisecond {
			t.Errorf("the stream is read again after %v, want as soon as an answer has been sent, 20ms", d)
		}
		st.end()
	})
}

func TestAStreamIsSlowedDownWhileItIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, calls := newBraked(t, 100)
		last := time.Duration(0)
		for i := range uint64(20) {
			st.accept(getOp(i, "a"), time.Now())
			(*calls)[i].Done(errorAnswer(i, apiv1.NewError(apiv1.CodeOverloaded, "too much")))
			d := took(func() { st.slowDown(1) })
			if d < last || d == 0 {
				t.Fatalf("refusal %d: the stream is not read for %v, after %v the last time", i, d, last)
			}
			last = d
		}
		if last != maxPause {
			t.Errorf("after 20 refusals the stream is not read for %v, want %v", last, maxPause)
		}
		if d := took(func() { st.slowDown(1) }); d != 0 {
			t.Errorf("without a refusal the stream is not read for %v", d)
		}
		st.peer = true
		for range 10 {
			st.brake.refused++
			last = took(func() { st.slowDown(1) })
		}
		if last != maxPeerPause {
			t.Errorf("a stream of another node is not read for %v, want %v", last, maxPeerPause)
		}
		st.end()
	})
}

func TestOneClientOfANodeDoesNotUseUpItsStream(t *testing.T) {
	st, calls := newBraked(t, 100)
	st.peer = true
	send := func(from string, n int) (refused int) {
		before := len(*calls)
		for range n {
			op := getOp(1, "a")
			op.Owner, op.Connection = from, 7
			st.accept(op, time.Now())
		}
		st.unsent = mux.Load{} // the refusals have been sent
		return n - (len(*calls) - before)
	}
	if refused := send("10.0.0.1", 200); refused != 150 {
		t.Errorf("%d of 200 operations of one client were refused, want 150: half of the places are for others", refused)
	}
	if refused := send("10.0.0.2", 20); refused != 0 {
		t.Errorf("%d of 20 operations of another client were refused", refused)
	}
	for _, c := range *calls {
		c.Done(errorAnswer(0, apiv1.NewError(apiv1.CodeBusy, "busy")))
	}
	if len(st.shares) != 0 {
		t.Errorf("after all were answered: %v are still counted, want none", st.shares)
	}
	if st.peer = false; send("10.0.0.1", 1) != 1 && len(st.shares) != 0 {
		t.Error("a client's own stream is counted by the owners that it claims, want by its connection")
	}
	st.end()
}

func TestARefusedCallerIsAnsweredAfterAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newFakeNode()
		node.on = func(c *mux.Call) bool {
			c.Done(errorAnswer(0, apiv1.NewError(apiv1.CodeOverloaded, "too much")))
			return true
		}
		s, err := New(Config{Backend: node})
		if err != nil {
			t.Fatal(err)
		}
		for _, road := range []Road{RoadUnary, RoadHTTP} {
			var refusal error
			if d := took(func() { _, refusal = s.do(t.Context(), road, getOp(1, "a")) }); d != refusedPause || apiv1.CodeOf(refusal) != apiv1.CodeOverloaded {
				t.Errorf("%s: %v after %v, want overloaded after %v", road, refusal, d, refusedPause)
			}
		}
	})
}
