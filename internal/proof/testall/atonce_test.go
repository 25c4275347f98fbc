package testall

import (
	"flag"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	AtOnce(many)
	os.Exit(m.Run())
}

// many is more than there are processors, or the test below shows nothing.
const many = 40

func TestMoreTestsRunAtOnceThanThereAreProcessors(t *testing.T) {
	if got := flag.Lookup("test.parallel").Value.String(); got != strconv.Itoa(many) {
		t.Skipf("-parallel %s was given", got)
	}
	var (
		waiting atomic.Int32
		all     = make(chan struct{})
	)
	t.Run("group", func(t *testing.T) {
		for range many {
			t.Run("waits for all others", func(t *testing.T) {
				t.Parallel()
				if waiting.Add(1) == many {
					close(all)
				}
				select {
				case <-all:
				case <-time.After(2 * time.Minute):
					t.Error("not all of them run")
				}
			})
		}
	})
}
