package mux

import (
	"sync"
	"sync/atomic"
	"testing"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// TestOnAbandonRunsOnceWhenNoCallerGetsTheAnswer: the caller goes away while
// the node takes the call in, before the answer, or when it has come already.
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
			t.Fatalf("told %d times that nobody got the answer, want once", left.Load())
		}
	}
}

func TestACallThatWasAnsweredIsNotAbandoned(t *testing.T) {
	c := &Call{Done: func(*apiv1.Answer) {}}
	c.OnAbandon(func() { t.Error("told that nobody got the answer") })
	c.Done(&apiv1.Answer{})
	if c.Abandoned() {
		t.Error("the call is abandoned")
	}
}
