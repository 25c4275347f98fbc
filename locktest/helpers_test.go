package locktest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/proof/leaks"
	"github.com/locknode/locknode/locktest"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bubble runs f with a cluster of three in virtual time, and checks its history.
func bubble(t *testing.T, f func(t *testing.T, c *locktest.Cluster), opts ...locktest.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := locktest.New(t, 3, opts...)
		f(t, c)
		c.CheckHistory()
	})
}

// short is a session's TTL for tests that wait for its end.
func short() client.Option { return client.SessionTTL(2 * time.Second) }

func lock(t testing.TB, c *client.Client, name string, opts ...client.LockOption) *client.Grant {
	t.Helper()
	g, err := c.Lock(t.Context(), name, opts...)
	must(t, err)
	return g
}

func isLocked(t testing.TB, c *client.Client, name string) bool {
	t.Helper()
	locked, err := c.IsLocked(t.Context(), name)
	must(t, err)
	return locked
}

// within fails the test if f takes longer.
func within(t testing.TB, most time.Duration, what string, f func()) {
	t.Helper()
	begin := time.Now()
	f()
	if took := time.Since(begin); took > most {
		t.Errorf("%s took %v, want %v at most", what, took, most)
	} else {
		t.Logf("%s took %v", what, took)
	}
}

// waiting waits until the lock has n waiters.
func waiting(t testing.TB, c *locktest.Cluster, asks *client.Client, name string, n int) {
	t.Helper()
	c.Eventually(fmt.Sprintf("%d wait for %s", n, name), func() bool {
		info, err := asks.Get(t.Context(), name)
		must(t, err)
		return info.Waiters == n
	})
}

// granted counts the grants of a lock in the log.
func granted(c *locktest.Cluster, name string) int {
	tokens := make(map[uint64]bool)
	for _, e := range c.History().Entries {
		for _, event := range e.Applied.Events {
			if event.Kind == fsm.EventGranted && len(event.Wants) > 0 && event.Wants[0].Lock == name {
				tokens[event.Token] = true
			}
		}
	}
	return len(tokens)
}

// judge is a test that collects its failures instead of failing.
type judge struct {
	testing.TB
	mu    sync.Mutex
	texts []string
}

// judged runs f with a test that does not fail, on a goroutine of its own, and
// returns what it would have failed with.
func judged(t *testing.T, f func(t *judge)) []string {
	t.Helper()
	j := &judge{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(j)
	}()
	<-done
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.texts
}

func (j *judge) note(text string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.texts = append(j.texts, text)
}

func (j *judge) Error(args ...any)            { j.note(fmt.Sprint(args...)) }
func (j *judge) Errorf(f string, args ...any) { j.note(fmt.Sprintf(f, args...)) }
func (j *judge) Fatal(args ...any)            { j.note(fmt.Sprint(args...)); runtime.Goexit() }
func (j *judge) Fatalf(f string, args ...any) { j.note(fmt.Sprintf(f, args...)); runtime.Goexit() }

// reports reports whether one of the texts has all the words.
func reports(texts []string, words ...string) bool {
	for _, text := range texts {
		all := true
		for _, w := range words {
			all = all && strings.Contains(text, w)
		}
		if all {
			return true
		}
	}
	return false
}

// lost waits for the loss of a grant, and returns it.
func lost(t testing.TB, g *client.Grant) *client.LostError {
	t.Helper()
	<-g.Lost()
	var l *client.LostError
	if !errors.As(context.Cause(g.Context()), &l) {
		t.Fatalf("the cause of the context's end is %v, want a *client.LostError", context.Cause(g.Context()))
	}
	return l
}
