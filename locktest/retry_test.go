package locktest_test

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/locktest"
)

// TestALostAnswerTakesEffectOnce: the cluster has carried out the request, the client
// does not know, retries it, and gets the first answer.
func TestALostAnswerTakesEffectOnce(t *testing.T) {
	var log logged
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		c := cluster.Client("a")
		first := lock(t, c, "x") // from here on there is a session
		const rounds = 5
		for range rounds {
			cluster.DropNextResponse("a")
			must(t, first.Unlock())
			cluster.DropNextResponse("a")
			next := lock(t, c, "x")
			if next.Token() != first.Token()+1 {
				t.Errorf("tokens %d and %d of two locks in a row: there was a grant between them", first.Token(), next.Token())
			}
			first = next
		}
		must(t, first.Unlock())
		if n := granted(cluster, "x"); n != rounds+1 {
			t.Errorf("%d grants for %d locks", n, rounds+1)
		}
		if n := log.count("calls sent again"); n < 2*rounds {
			t.Errorf("%d calls were sent again after %d lost answers", n, 2*rounds)
		}
	}, locktest.Logger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
}

// logged is a log to be searched.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logged) count(words string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), words)
}

// TestAClientThatIsKilledLeavesItsLockForItsTTL: its session is not ended, and the next
// client waits until it expires.
func TestAClientThatIsKilledLeavesItsLockForItsTTL(t *testing.T) {
	bubble(t, func(t *testing.T, cluster *locktest.Cluster) {
		lock(t, cluster.Client("a", short()), "x")
		cluster.KillClient("a")
		begin := time.Now()
		g := lock(t, cluster.Client("b"), "x")
		// The session may have been kept alive just before, or not for a third of its TTL.
		if took := time.Since(begin); took < time.Second || took > 3*time.Second {
			t.Errorf("the lock of a killed client with a TTL of 2s was free after %v", took)
		}
		must(t, g.Unlock())
		must(t, lock(t, cluster.Client("a", client.SessionTTL(5*time.Second)), "x").Unlock()) // it is started again
	})
}
