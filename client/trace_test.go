package client

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestTraceReportsBeginAndEndOfEachGrantOnce: of one that is unlocked, and one that is lost by
// time.
func TestTraceReportsBeginAndEndOfEachGrantOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		var mu sync.Mutex
		var calls []string
		note := func(what string, g *Grant) {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, fmt.Sprint(what, " ", g.Name(), " ", k.holder(g.Name()) == g.Token()))
		}
		c := k.client(t, Trace(GrantTrace{
			Granted: func(g *Grant) { note("granted", g) },
			Ended: func(g *Grant, err error) {
				switch {
				case err == nil:
					note("unlocked", g)
				case errors.Is(err, ErrLost):
					note("lost", g)
				default:
					note(err.Error(), g)
				}
			},
		}))
		g := mustLock(t, c, "a")
		mustUnlock(t, g)
		mustUnlock(t, g)
		short := mustLock(t, c, "b", TTL(2*time.Second))
		<-short.Lost()
		synctest.Wait()
		_ = short.Unlock() // returns the loss
		want := []string{"granted a true", "unlocked a true", "granted b true", "lost b true"}
		if !slices.Equal(calls, want) {
			t.Errorf("calls are %q, want %q: a grant ends for the client before the release is sent", calls, want)
		}
	})
}

func TestEachTraceIsCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls []string
		note := func(what string) { calls = append(calls, what) }
		c := newCluster(t).client(t,
			Trace(GrantTrace{Granted: func(*Grant) { note("first granted") }}),
			Trace(GrantTrace{Ended: func(*Grant, error) { note("second ended") }}),
			Trace(GrantTrace{
				Granted: func(*Grant) { note("third granted") },
				Ended:   func(*Grant, error) { note("third ended") },
			}))
		mustUnlock(t, mustLock(t, c, "a"))
		want := []string{"first granted", "third granted", "second ended", "third ended"}
		if !slices.Equal(calls, want) {
			t.Errorf("calls are %q, want %q", calls, want)
		}
	})
}
