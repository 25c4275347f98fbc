//go:build unix

package chaos

import (
	"fmt"
	"sync"
	"time"
)

// do says what is being done.
func (r *run) do(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doing = fmt.Sprintf(format, args...)
}

// tellProgress calls Options.Progress until stop is called.
func (r *run) tellProgress() (stop func()) {
	if r.o.Progress == nil {
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
				r.o.Progress(r.progress())
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

func (r *run) progress() Progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := Progress{Faults: len(r.result.Events), Operations: r.operationsLocked(), Violations: len(r.result.Broken) + len(r.result.Late()), Doing: r.doing}
	passed := r.clock.now() - r.checks
	switch {
	case r.o.Cycles == 0:
		p.Left = max(0, r.o.Duration-passed)
	case p.Faults == 0:
		p.Left = -1
	default:
		p.Left = passed / time.Duration(p.Faults) * time.Duration(max(0, r.o.Cycles-p.Faults))
	}
	return p
}
