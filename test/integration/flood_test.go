//go:build unix

package integration

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/proof/proc"
	"github.com/locknode/locknode/internal/proof/stalls"
)

// besideTime is how long each flood lasts.
var besideTime = flag.Duration("flood", 2*time.Second, "how long each flood of TestFloodsTakeNobodysLocks lasts")

// aLongFlood is the length from which a flood is expected to run on a machine of its own.
const aLongFlood = 20 * time.Second

// besideMemory bounds the memory of a node in each flood.
const besideMemory = 1 << 30

// While a client requests more than the cluster can serve, no other client loses a lock, and
// with -flood 60s the cluster does not lose its leader. How long keep-alives take is printed
// and not judged, because it depends on the machine.
func TestFloodsTakeNobodysLocks(t *testing.T) {
	slow(t, "six kindsOfFlood, each for some seconds")
	c := startCluster(t, "--log-level", "warn")
	polite := dial(t, c.Endpoints(), client.SessionTTL(10*time.Second), client.Holder("polite"))
	// A value that makes lists and unread answers long: it is six times as long in JSON.
	for i := range 200 {
		lock(t, polite, fmt.Sprintf("long/%d", i), client.Value([]byte(strings.Repeat("\x01", 4000))))
	}
	pulse := openPulse(t, leaderOf(t, c))
	for _, name := range []string{"acquires", "unknown keep-alives", "session opens", "linearizable lists", "idle connections", "unread answers"} {
		t.Run(name, func(t *testing.T) { besideFlood(t, c, polite, pulse, name) })
	}
	agree(t, c)
}

func besideFlood(t *testing.T, c *proc.Cluster, polite *client.Client, pulse *pulse, name string) {
	began := time.Now()
	now := func() time.Duration { return time.Since(began) }
	stood := stalls.New(now)
	watching, unwatch := context.WithCancel(t.Context())
	defer unwatch()
	go stood.Watch(watching)
	var grants []*client.Grant
	for i := range 50 {
		grants = append(grants, lock(t, polite, fmt.Sprintf("polite/%s/%d", name, i)))
	}
	before, from := term(t, c), now()

	f := launchFlooder(t, c, name)
	most := map[string]int64{}
	var took []time.Duration
	for end := time.Now().Add(*besideTime); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		took = append(took, pulse.beat(t))
		for id, bytes := range resident(t, c) {
			most[id] = max(most[id], bytes)
		}
	}
	f.stop(t)
	after, stalled := term(t, c), stood.Longest(from, now())

	slices.Sort(took)
	t.Logf("%v of %s: keep-alives p50 %v, p99 %v, of %d; at most resident %s; terms %d to %d; this process was paused for up to %v\n%s",
		*besideTime, name, took[len(took)/2], took[len(took)*99/100], len(took), megabytes(most), before, after, stalled, f.printed())
	for _, g := range grants {
		if err := g.Err(); err != nil && stalled < 2*time.Second {
			t.Fatalf("the lock of another client is lost: %v", err)
		}
	}
	// Where this process is paused a leader may be, too; and on a machine that runs other
	// tests this is not checked.
	if after != before && stalled < 55*time.Millisecond && *besideTime >= aLongFlood {
		t.Errorf("terms %d to %d: the leader was lost", before, after)
	}
	for id, bytes := range most {
		if bytes > besideMemory {
			t.Errorf("node %s has %d MiB, want at most %d", id, bytes>>20, besideMemory>>20)
		}
	}
	for _, g := range grants {
		must(t, g.Unlock())
	}
}

// pulse is a session whose keep-alives are timed.
type pulse struct {
	conn    *mux.Conn
	session []byte
}

func openPulse(t *testing.T, n *proc.Node) *pulse {
	t.Helper()
	cc, err := grpc.NewClient(n.API(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	conn, err := mux.Open(t.Context(), cc, mux.Config{Patience: mux.NewPatience(patience)})
	must(t, err)
	t.Cleanup(func() { conn.Close(); _ = cc.Close() })
	p := &pulse{conn, randomSession()}
	a, err := mux.Do(within(t, patience), conn.Start, &apiv1.Operation{Request: &apiv1.Operation_OpenSession{
		OpenSession: &apiv1.OpenSessionRequest{Session: p.session, TtlNs: int64(10 * time.Second)},
	}})
	must(t, err)
	if a.GetError() != nil {
		t.Fatal(a.GetError().GetMessage())
	}
	return p
}

// beat returns how long one keep-alive takes, whatever its answer.
func (p *pulse) beat(t *testing.T) time.Duration {
	t.Helper()
	begun := time.Now()
	a, err := mux.Do(within(t, patience), p.conn.Start, &apiv1.Operation{Request: &apiv1.Operation_KeepAlive{
		KeepAlive: &apiv1.KeepAliveRequest{Session: p.session},
	}})
	must(t, err)
	if code := apiv1.Code(a.GetError().GetCode()); code == apiv1.CodeNoSession {
		t.Errorf("the session of another client has ended: %v", a.GetError().GetMessage())
	}
	return time.Since(begun)
}

// resident returns how much memory each node uses, in bytes.
func resident(t *testing.T, c *proc.Cluster) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	for _, n := range c.Running() {
		all[n.ID] = residentOf(n.PID(), "VmRSS")
	}
	return all
}

// residentOf returns a value of /proc, in bytes; 0 where there is none.
func residentOf(pid int, key string) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}

func megabytes(of map[string]int64) string {
	var parts []string
	for id, bytes := range of {
		parts = append(parts, fmt.Sprintf("%s %d MiB", id, bytes>>20))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// strangerProcess is a flooder that runs.
type strangerProcess struct {
	cmd  *exec.Cmd
	end  func() error
	said *strings.Builder
}

func launchFlooder(t *testing.T, c *proc.Cluster, name string) *strangerProcess {
	t.Helper()
	var api, http []string
	for _, n := range c.Running() {
		api, http = append(api, n.API()), append(http, n.HTTP())
	}
	cmd := exec.Command(os.Args[0], name, strings.Join(api, ","), strings.Join(http, ","))
	cmd.Env = cleanEnvironment(actAs + "=" + strangerRole)
	f := &strangerProcess{cmd: cmd, said: &strings.Builder{}}
	in, err := cmd.StdinPipe()
	must(t, err)
	f.end = in.Close
	cmd.Stdout, cmd.Stderr = f.said, os.Stderr
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }) // it has ended, unless the test failed
	return f
}

func (f *strangerProcess) stop(t *testing.T) {
	t.Helper()
	must(t, f.end())
	must(t, f.cmd.Wait())
}

func (f *strangerProcess) printed() string { return f.said.String() }
