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

// TestTraceReportsBeginAndEndOfEachGrantOnce: unlocked, lost by time, and never
// believed in because the answer came too late.
func TestTraceReportsBeginAndEndOfEachGrantOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(t)
		var mu sync.Mutex
		var told []string
		tell := func(what string, g *Grant) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprint(what, " ", g.Name(), " ", k.holder(g.Name()) == g.Token()))
		}
		c := k.client(t, Trace(GrantTrace{
			Granted: func(g *Grant) { tell("granted", g) },
			Ended: func(g *Grant, err error) {
				switch {
				case err == nil:
					tell("unlocked", g)
				case errors.Is(err, ErrLost):
					tell("lost", g)
				default:
					tell(err.Error(), g)
				}
			},
		}))
		g := mustLock(t, c, "a")
		mustUnlock(t, g)
		mustUnlock(t, g)
		short := mustLock(t, c, "b", TTL(2*time.Second))
		<-short.Lost()
		synctest.Wait()
		_ = short.Unlock() // says that it was lost
		want := []string{"granted a true", "unlocked a true", "granted b true", "lost b true"}
		if !slices.Equal(told, want) {
			t.Errorf("the trace was told %q, want %q: a belief ends before the cluster may know", told, want)
		}
	})
}

func TestEachTraceIsCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		tell := func(what string) { told = append(told, what) }
		c := newCluster(t).client(t,
			Trace(GrantTrace{Granted: func(*Grant) { tell("first granted") }}),
			Trace(GrantTrace{Ended: func(*Grant, error) { tell("second ended") }}),
			Trace(GrantTrace{
				Granted: func(*Grant) { tell("third granted") },
				Ended:   func(*Grant, error) { tell("third ended") },
			}))
		mustUnlock(t, mustLock(t, c, "a"))
		want := []string{"first granted", "third granted", "second ended", "third ended"}
		if !slices.Equal(told, want) {
			t.Errorf("the traces were told %q, want %q", told, want)
		}
	})
}
