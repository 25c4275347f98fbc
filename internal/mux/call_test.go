package mux

import (
	"sync"
	"sync/atomic"
	"testing"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// TestOnAbandonRunsOnceWhenNoCallerGetsTheAnswer: the caller abandons the call while the node
// receives it, before the answer, or after it.
func TestOnAbandonRunsOnceWhenNoCallerGetsTheAnswer(t *testing.T) {
	for range 2000 {
		var left atomic.Int32
		c := &Call{Done: func(*apiv1.Answer) {}}
		var wg sync.WaitGroup
		wg.Go(func() {
			c.OnAbandon(func() { left.Add(1) })
			c.Done(&apiv1.Answer{})
		})
		wg.Go(c.Abandon)
		wg.Go(c.Abandon)
		wg.Wait()
		if left.Load() != 1 {
			t.Fatalf("OnAbandon ran %d times, want once", left.Load())
		}
	}
}

func TestACallThatWasAnsweredIsNotAbandoned(t *testing.T) {
	c := &Call{Done: func(*apiv1.Answer) {}}
	c.OnAbandon(func() { t.Error("OnAbandon ran") })
	c.Done(&apiv1.Answer{})
	if c.Abandoned() {
		t.Error("the call is abandoned")
	}
}
