//go:build unix

package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
	"github.com/locknode/locknode/internal/proof/stalls"
	"github.com/locknode/locknode/internal/proof/testall"
)

// patience is how long a test waits for a condition that must come. It says nothing about
// speed: the machine may be busy.
const patience = 2 * time.Minute

// stores are the two stores of the Raft log, which are tested alike.
var stores = []string{"wal", "boltdb"}

// forEachStore runs a test once with each log store.
func forEachStore(t *testing.T, f func(t *testing.T, store string)) {
	for i, store := range stores {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			if i > 0 {
				testall.Only(t, "the same with the other log store, which internal/disk tests")
			}
			f(t, store)
		})
	}
}

// slow leaves a test to make test-all.
func slow(t *testing.T, why string) {
	t.Helper()
	testall.Only(t, why)
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// timing is how long followers wait for a silent leader: the default, and more with the race
// detector, which makes everything several times slower.
func timing() time.Duration {
	if raceDetector {
		return 500 * time.Millisecond
	}
	return 200 * time.Millisecond
}

// options returns the options of all clusters of these tests. Only discovery and promotion of
// members are faster than in a real cluster.
func options(dir string, nodes int, args ...string) proc.Options {
	return proc.Options{
		Binary: program, Nodes: nodes, Dir: dir, Args: append([]string{"--fast", "--timing", timing().String()}, args...),
		Env: cleanEnvironment("GORACE=exitcode=0"), // see complaints
	}
}

// startCluster starts three nodes that end with the test.
func startCluster(t *testing.T, args ...string) *proc.Cluster {
	t.Helper()
	return startClusterOf(t, 3, args...)
}

func startClusterOf(t *testing.T, nodes int, args ...string) *proc.Cluster {
	t.Helper()
	return startClusterIn(t, t.TempDir(), nodes, args...)
}

func startClusterIn(t *testing.T, dir string, nodes int, args ...string) *proc.Cluster {
	t.Helper()
	c, err := proc.Start(within(t, patience), options(dir, nodes, args...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), complaints(c)); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			for _, n := range c.Nodes() {
				t.Logf("the end of what %s printed:\n%s", n.ID, tail(n.Logs(), 60))
			}
		}
	})
	return c
}

// complaints returns what the nodes have printed and no node may ever print.
func complaints(c *proc.Cluster) error {
	var errs []error
	for _, n := range c.Nodes() {
		logs := n.Logs()
		for _, bad := range []string{"panic: ", "fatal error: "} {
			if at := strings.Index(logs, bad); at >= 0 {
				errs = append(errs, fmt.Errorf("node %s printed:\n%s", n.ID, head(logs[at:], 60)))
			}
		}
		for _, race := range races(logs) {
			errs = append(errs, fmt.Errorf("node %s printed:\n%s", n.ID, race))
		}
	}
	return errors.Join(errs...)
}

// races returns the reports of the race detector, except a known one in hashicorp/raft: when
// the address of a member changes, the leader writes the member with a lock held that its
// replication does not take to read it. What is read there is the member's ID, which is the
// same before and after.
func races(logs string) (reports []string) {
	const begin, end = "WARNING: DATA RACE", "\n=================="
	for at := strings.Index(logs, begin); at >= 0; at = strings.Index(logs, begin) {
		report := logs[at:]
		if to := strings.Index(report, end); to >= 0 {
			report = report[:to]
		}
		logs = logs[at+len(report):]
		if !strings.Contains(report, "raft.updateLastAppended()") || !strings.Contains(report, "raft.(*Raft).startStopReplication()") {
			reports = append(reports, report)
		}
	}
	return reports
}

func head(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[:min(lines, len(all))], "\n")
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// shared is the cluster of the tests without faults.
var shared struct {
	once    sync.Once
	cluster *proc.Cluster
	err     error
}

func sharedCluster(t *testing.T) *proc.Cluster {
	t.Helper()
	shared.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		shared.cluster, shared.err = proc.Start(ctx, options("", 3))
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.cluster
}

// closeShared is called when all tests are done.
func closeShared() error {
	if shared.cluster == nil {
		return nil
	}
	return errors.Join(complaints(shared.cluster), shared.cluster.Close())
}

func leaderOf(t *testing.T, c *proc.Cluster) *proc.Node {
	t.Helper()
	leader, err := c.Leader(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	return leader
}

func followersOf(t *testing.T, c *proc.Cluster) []*proc.Node {
	t.Helper()
	followers, err := c.Followers(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	return followers
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stop ends nodes in good order.
func stop(t *testing.T, nodes ...*proc.Node) {
	t.Helper()
	for _, n := range nodes {
		must(t, n.Stop(within(t, patience)))
	}
}

// kill ends nodes with SIGKILL, all at once.
func kill(t *testing.T, nodes ...*proc.Node) {
	t.Helper()
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = n.Kill() })
	}
	wg.Wait()
	must(t, errors.Join(errs...))
}

// start starts nodes that do not run and waits until all of them are ready.
func start(t *testing.T, nodes ...*proc.Node) {
	t.Helper()
	for _, n := range nodes {
		must(t, n.Start())
	}
	for _, n := range nodes {
		must(t, n.WaitReady(within(t, patience)))
	}
}

// dial makes a client that is closed with the test. Its session TTL is long, so that a busy
// machine does not end its locks; tests about that set their own.
func dial(t *testing.T, endpoints []string, opts ...client.Option) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), endpoints, append([]client.Option{client.SessionTTL(time.Minute)}, opts...)...)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() }) // what it could not release expires
	return c
}

func lock(t *testing.T, c *client.Client, name string, opts ...client.LockOption) *client.Grant {
	t.Helper()
	g, err := c.Lock(within(t, patience), name, opts...)
	must(t, err)
	return g
}

func get(t *testing.T, c *client.Client, name string) client.LockInfo {
	t.Helper()
	info, err := c.Get(within(t, patience), name)
	must(t, err)
	return info
}

// awaitWaiters waits until the queue has exactly this many waiters.
func awaitWaiters(t *testing.T, c *client.Client, name string, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d waiters of %s", want, name), func() bool { return get(t, c, name).Waiters == want })
}

// holder returns the only holder of a lock.
func holder(t *testing.T, c *client.Client, name string) client.HolderInfo {
	t.Helper()
	info := get(t, c, name)
	if len(info.Holders) != 1 {
		t.Fatalf("lock %s: got %d holders, want one: %+v", name, len(info.Holders), info)
	}
	return info.Holders[0]
}

// heldWith fails the test unless the lock is held with exactly this token.
func heldWith(t *testing.T, c *client.Client, name string, token uint64) {
	t.Helper()
	if h := holder(t, c, name); h.Token != token {
		t.Errorf("lock %s: held with token %d by %q, want token %d", name, h.Token, h.Holder, token)
	}
}

// arrival is the end of a wait in the queue.
type arrival struct {
	waiter int
	grant  *client.Grant
	err    error
	at     time.Time
}

// queueUp acquires the lock in the background, and returns when the waiter is in the queue,
// behind the others.
func queueUp(t *testing.T, c *client.Client, name string, number int, arrivals chan<- arrival, opts ...client.LockOption) {
	t.Helper()
	before := get(t, c, name).Waiters
	ctx := within(t, patience)
	go func() {
		g, err := c.Lock(ctx, name, opts...)
		arrivals <- arrival{number, g, err, time.Now()}
	}()
	awaitWaiters(t, c, name, before+1)
}

// arrive waits for the next arrival.
func arrive(t *testing.T, arrivals <-chan arrival) arrival {
	t.Helper()
	select {
	case a := <-arrivals:
		if a.err != nil {
			t.Fatalf("waiter %d: %v", a.waiter, a.err)
		}
		return a
	case <-time.After(patience):
		t.Fatalf("no waiter got the lock within %v", patience)
		return arrival{}
	}
}

// agree waits until all running nodes have applied the same log, and fails if two
// of them were in different states at the same index.
func agree(t *testing.T, c *proc.Cluster) {
	t.Helper()
	must(t, c.Agree(within(t, patience)))
}

// status returns the status of a node, nil if it does not answer.
func status(t *testing.T, n *proc.Node) *apiv1.StatusResponse {
	t.Helper()
	s, err := n.Status(t.Context())
	if err != nil {
		return nil
	}
	return s
}

// lastToken returns the greatest token that the cluster has given so far.
func lastToken(t *testing.T, c *proc.Cluster) uint64 {
	t.Helper()
	var last uint64
	for _, n := range c.Running() {
		last = max(last, status(t, n).GetLastToken())
	}
	return last
}

// members returns the nodes in Raft's configuration, by their role: leader, voter or
// nonvoter. ask is the node that is asked.
func members(t *testing.T, ask *proc.Node) map[string]*apiv1.Member {
	t.Helper()
	conn, err := ask.Conn()
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	res, err := apiv1.NewLocksClient(conn).Members(ctx, &apiv1.MembersRequest{})
	if err != nil {
		return nil
	}
	in := map[string]*apiv1.Member{}
	for _, m := range res.GetMembers() {
		if m.GetRole() != "none" {
			in[m.GetId()] = m
		}
	}
	return in
}

// awaitVoters waits until exactly these nodes are voters, the leader among them.
func awaitVoters(t *testing.T, ask *proc.Node, want ...string) {
	t.Helper()
	slices.Sort(want)
	eventually(t, fmt.Sprintf("the voters are %v", want), func() bool {
		var got []string
		led := false
		for id, m := range members(t, ask) {
			if m.GetRole() == "nonvoter" {
				return false
			}
			led = led || m.GetRole() == "leader"
			got = append(got, id)
		}
		slices.Sort(got)
		return led && slices.Equal(got, want)
	})
}

// whileCalm makes an attempt that measures how long something takes, and repeats it if there
// was an unexpected election meanwhile or this process was paused: on such a machine nodes do
// not send their heartbeats in time, and the promise that is measured is for a cluster whose
// majority can talk.
func whileCalm(t *testing.T, c *proc.Cluster, attempt func(name string) error) {
	t.Helper()
	const stall = 55 * time.Millisecond
	began := time.Now()
	now := func() time.Duration { return time.Since(began) }
	stood := stalls.New(now)
	go stood.Watch(t.Context())
	var err error
	for try := range 10 {
		before, from := term(t, c), now()
		err = attempt(fmt.Sprintf("%s/%d", t.Name(), try))
		stalled, after := stood.Longest(from, now()), term(t, c)
		if err == nil || after == before && stalled < stall {
			break
		}
		t.Logf("terms %d to %d, and this process was paused for up to %v, so this does not count: %v", before, after, stalled, err)
	}
	must(t, err)
}

// term returns the latest term of any node.
func term(t *testing.T, c *proc.Cluster) uint64 {
	t.Helper()
	var latest uint64
	for _, n := range c.Running() {
		if s := status(t, n); s != nil {
			latest = max(latest, s.GetTerm())
		}
	}
	return latest
}
