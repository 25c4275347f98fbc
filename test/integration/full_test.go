//go:build unix

package integration

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
)

// A node with a table of at most 100 MB and a memory limit of 350 MiB survives a client that
// uses up all limits that it can, and other clients still acquire and release locks. The test
// takes a minute, or longer as -flood says. The limit is set for the garbage collector; the
// most that the system has counted is compared with it.
func TestAFullTableLeavesRoomForOthers(t *testing.T) {
	if *besideTime < time.Minute {
		t.Skip("needs -flood of a minute or more")
	}
	const limit = 350 << 20
	t.Setenv("GOMEMLIMIT", fmt.Sprint(limit*9/10))
	c := startCluster(t, "--log-level", "warn", "--limits.table-bytes", "100000000")
	polite := dial(t, c.Endpoints(), client.SessionTTL(10*time.Second), client.Holder("polite"))
	held := lock(t, polite, "polite/held")

	var filled, refused atomic.Int64
	end := time.Now().Add(*besideTime)
	var wg sync.WaitGroup
	labels := map[string]string{}
	for i := range 31 {
		labels[fmt.Sprintf("label-%02d", i)] = strings.Repeat("x", 240)
	}
	for worker := range 32 {
		greedy := dial(t, c.Endpoints(), client.SessionTTL(10*time.Minute), client.Labels(labels), client.Holder("greedy"))
		wg.Go(func() {
			for n := 0; time.Now().Before(end); n++ {
				_, err := greedy.TryLock(within(t, patience), fmt.Sprintf("full/%d/%d", worker, n), client.Value([]byte(strings.Repeat("\x01", 4096))))
				if err == nil {
					filled.Add(1)
				} else if refused.Add(1); errors.Is(err, client.ErrLimit) {
					time.Sleep(5 * time.Millisecond)
				}
			}
		})
	}
	worked, failed, most := 0, 0, map[string]int64{}
	for time.Now().Before(end) {
		g, err := polite.Lock(within(t, 10*time.Second), "polite/again")
		if err == nil {
			err = g.Unlock()
		}
		if err == nil {
			worked++
		} else {
			failed++
			t.Logf("the other client: %v", err)
		}
		for _, n := range c.Running() {
			most[n.ID] = max(most[n.ID], residentOf(n.PID(), "VmHWM"))
		}
		time.Sleep(100 * time.Millisecond)
	}
	wg.Wait()
	t.Logf("%v: %d grants and %d refusals; the other client locked %d times and failed %d times; at most resident %s",
		*besideTime, filled.Load(), refused.Load(), worked, failed, megabytes(most))
	if err := held.Err(); err != nil {
		t.Errorf("the other client's lock: %v", err)
	}
	if len(c.Running()) != 3 {
		t.Errorf("%d nodes run", len(c.Running()))
	}
	if worked == 0 || failed > worked/10 {
		t.Errorf("the other client locked %d times and failed %d times", worked, failed)
	}
	for id, bytes := range most {
		if bytes > limit {
			t.Errorf("node %s: used %d MiB, want at most %d MiB", id, bytes>>20, limit>>20)
		}
	}
}
