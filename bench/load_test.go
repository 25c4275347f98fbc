package main

import (
	"context"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a lock service in memory that may give wrong answers.
type fake struct {
	mu     sync.Mutex
	taken  map[string]chan struct{} // closed by the release
	heldAt time.Time

	grantsAll, saysFree, fails bool
	hidden                     time.Duration // after which reads see that the lock is held
}

func (f *fake) pids() []int  { return nil }
func (f *fake) close() error { return nil }
func (f *fake) sessions(_ context.Context, n int) ([]session, error) {
	all := make([]session, n)
	for i := range all {
		all[i] = f
	}
	return all, nil
}

func (f *fake) lock(ctx context.Context, name string) (func(context.Context) error, error) {
	time.Sleep(10 * time.Millisecond) // virtual
	for {
		release, held := f.take(name)
		if release != nil {
			return release, nil
		}
		select {
		case <-held:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take returns what releases the lock, or a channel that is closed when somebody does.
func (f *fake) take(name string) (func(context.Context) error, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if held := f.taken[name]; held != nil && !f.grantsAll {
		return nil, held
	}
	done := make(chan struct{})
	f.taken[name] = done
	return func(context.Context) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.taken, name)
		close(done)
		return nil
	}, nil
}

func (f *fake) try(_ context.Context, name string) (func(context.Context) error, error) {
	time.Sleep(10 * time.Millisecond)
	if f.fails {
		return nil, errors.New("no leader")
	}
	if release, _ := f.take(name); release != nil {
		return release, nil
	}
	return nil, errHeld
}

func (f *fake) hold(_ context.Context, name string) error {
	f.heldAt = time.Now()
	f.take(name)
	return nil
}

func (f *fake) locked(context.Context, string, bool) (bool, error) {
	time.Sleep(10 * time.Millisecond)
	return !f.saysFree && time.Since(f.heldAt) >= f.hidden, nil
}

// measured is one measurement of 3 s of the workload, in virtual time.
func measured(t *testing.T, name string, f *fake) (got sample, err error) {
	t.Helper()
	picked, err := pickWorkloads(workloads(), name)
	if err != nil || len(picked) != 1 {
		t.Fatalf("pickWorkloads(%q) = %d workloads, %v", name, len(picked), err)
	}
	f.taken = make(map[string]chan struct{})
	synctest.Test(t, func(t *testing.T) {
		got, err = measure(t.Context(), f, picked[0], time.Second, 3*time.Second)
	})
	return got, err
}

// Each fake step takes 10 ms.
func TestRateIsOfAllWorkersInTheWindow(t *testing.T) {
	for name, want := range map[string]float64{"uncontended-1": 100, "uncontended-16": 1600, "handoff": 1600, "try": 6400, "read": 6400, "stale": 6400} {
		got, err := measured(t, name, &fake{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Rate < want*0.9 || got.Rate > want*1.1 || got.Failed != 0 {
			t.Errorf("%s: %.0f steps/s, %d failed, want %.0f and 0", name, got.Rate, got.Failed, want)
		}
	}
}

func TestWrongAnswersAreFound(t *testing.T) {
	for _, c := range []struct {
		name, workload string
		fake           *fake
		want           string
	}{
		{"a lock that two have", "handoff", &fake{grantsAll: true}, "bench/handoff is held by"},
		{"a held lock that is granted", "try", &fake{grantsAll: true}, "bench/held was granted"},
		{"a held lock that is free", "read", &fake{saysFree: true}, "reported free"},
		{"a held lock that is free for a moment", "read", &fake{hidden: 20 * time.Millisecond}, "reported free"},
		{"an answer that is too old", "stale", &fake{hidden: staleBound + time.Second}, "reported free"},
	} {
		if _, err := measured(t, c.workload, c.fake); !errors.Is(err, errWrong) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a wrong answer: %s", c.name, err, c.want)
		}
	}
}

func TestAnswersMayBeAsOldAsTheBound(t *testing.T) {
	if _, err := measured(t, "stale", &fake{hidden: staleBound - 100*time.Millisecond}); err != nil {
		t.Error(err)
	}
}

func TestErrorsAreNoSteps(t *testing.T) {
	_, err := measured(t, "try", &fake{fails: true})
	if err == nil || errors.Is(err, errWrong) || !strings.Contains(err.Error(), "no leader") {
		t.Errorf("%v, want that nothing was finished, with the error", err)
	}
}

// One worker alone gets the lock again and again: no handoff, though a cycle.
func TestGettingALockBackIsNoHandoff(t *testing.T) {
	f := &fake{taken: make(map[string]chan struct{})}
	own, all := &guarded{name: "own"}, &guarded{name: "all"}
	if err := handedOver(t.Context(), f, own, all); err != nil {
		t.Errorf("the first: %v", err)
	}
	if err := handedOver(t.Context(), f, own, all); !errors.Is(err, errSame) {
		t.Errorf("the same again: %v, want %v", err, errSame)
	}
	if err := handedOver(t.Context(), f, &guarded{name: "other"}, all); err != nil {
		t.Errorf("another: %v", err)
	}
}

// fakeSystem notes in order when it is started.
func fakeSystem(name string, f func() *fake, order *[]string) *system {
	return &system{name: name, title: name, start: func(context.Context, *system, string) (cluster, error) {
		*order = append(*order, name)
		c := f()
		c.taken = make(map[string]chan struct{})
		return c, nil
	}}
}

func TestRoundsAlternateBetweenTheSystems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		right := func() *fake { return &fake{} }
		p := &plan{rounds: 2, duration: time.Second, dir: t.TempDir(), progress: io.Discard, workloads: workloads()[:2],
			systems: []*system{fakeSystem("a", right, &order), fakeSystem("b", right, &order), fakeSystem("c", right, &order)}}
		r, err := p.run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(order, ""); got != "abcabc"+"bcabca" {
			t.Errorf("order is %s", got)
		}
		for _, s := range p.systems {
			if all := r.rates(s.name, p.workloads[1]); len(known(all)) != 2 {
				t.Errorf("%s has the rates %v, want one of each round", s.name, all)
			}
		}
		if left, err := os.ReadDir(p.dir); err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
}

// One wrong answer fails the run, and what was measured is shown nevertheless.
func TestAWrongAnswerFailsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		p := &plan{rounds: 1, duration: time.Second, progress: io.Discard, workloads: workloads()[6:7],
			systems: []*system{
				fakeSystem("right", func() *fake { return &fake{} }, &order),
				fakeSystem("wrong", func() *fake { return &fake{saysFree: true} }, &order),
			}}
		var out strings.Builder
		err := compare(t.Context(), p, "", false, &out)
		if !errors.Is(err, errWrong) || !strings.Contains(err.Error(), "wrong") {
			t.Errorf("%v, want a wrong answer", err)
		}
		if !regexp.MustCompile(`reads/s +[1-9],\d{3} +–`).MatchString(out.String()) {
			t.Errorf("no rate in %s", out.String())
		}
	})
}
