//go:build unix

package proc

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// The tests run clusters of this test binary: called with "serve" it is a node
// that knows nothing but its status.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		os.Exit(serve(os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}

type seeds []string

func (s *seeds) String() string     { return strings.Join(*s, ",") }
func (s *seeds) Set(v string) error { *s = append(*s, v); return nil }

type fakeNode struct {
	apiv1.UnimplementedLocksServer
	id, dir string
	ready   bool
}

// Status names as leader the node and term in the file "leader" beside the data
// directory, n1 in term 1 if there is none.
func (f *fakeNode) Status(context.Context, *apiv1.StatusRequest) (*apiv1.StatusResponse, error) {
	leader, term := "n1", uint64(1)
	if b, err := os.ReadFile(filepath.Join(f.dir, "..", "leader")); err == nil {
		if _, err := fmt.Sscan(string(b), &leader, &term); err != nil {
			return nil, err
		}
	}
	s := &apiv1.StatusResponse{NodeId: f.id, State: "follower", Term: term, Ready: f.ready, NotReadyReason: "told not to be"}
	if f.id == leader {
		s.State = "leader"
	}
	return s, nil
}

func serve(args []string) int {
	var join seeds
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	node := &fakeNode{}
	flags.StringVar(&node.id, "node-id", "", "")
	flags.StringVar(&node.dir, "data-dir", "", "")
	listen := flags.String("listen", "", "")
	flags.Int("bootstrap-expect", 0, "")
	flags.Var(&join, "join", "")
	notReady := flags.Bool("not-ready", false, "")
	broken := flags.String("broken", "", "")
	deaf := flags.Bool("deaf", false, "")
	taken := flags.String("taken", "", "")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	fmt.Println("node", node.id, "join", join.String(), "env", os.Getenv("LOCKNODE_LISTEN"))
	if *broken == node.id {
		fmt.Println("the disk is on fire")
		return 3
	}
	if *taken != "" && os.Remove(*taken) == nil {
		fmt.Println("listen:", syscall.EADDRINUSE)
		return 1
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	node.ready = !*notReady
	server := grpc.NewServer()
	apiv1.RegisterLocksServer(server, node)
	go func() { _ = server.Serve(l) }()
	for range terminated {
		if !*deaf {
			break
		}
		fmt.Println("heard nothing")
	}
	server.Stop()
	return 0
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func startCluster(t *testing.T, o Options) *Cluster {
	t.Helper()
	c, err := Start(within(t, time.Minute), o)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return c
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestStartedClusterIsReadyAndKnowsItself(t *testing.T) {
	t.Setenv("LOCKNODE_LISTEN", "10.0.0.1:1")
	c := startCluster(t, Options{})
	if got := len(c.Endpoints()); got != 3 {
		t.Fatalf("Endpoints: got %d, want 3", got)
	}
	for i, n := range c.Nodes() {
		if want := "n" + strconv.Itoa(i+1); n.ID != want || c.Node(want) != n {
			t.Errorf("node %d: got ID %q, want %q", i, n.ID, want)
		}
		if !n.Running() || n.ExitCode() != -1 || !alive(n.PID()) {
			t.Errorf("node %s: running %v, exit code %d; want it running", n.ID, n.Running(), n.ExitCode())
		}
		if status, err := n.Status(t.Context()); err != nil || status.GetNodeId() != n.ID {
			t.Errorf("Status of %s: got %v, %v", n.ID, status, err)
		}
	}
	n1, n2, n3 := c.Node("n1"), c.Node("n2"), c.Node("n3")
	want := fmt.Sprintf("node n1 join %s,%s env \n", n2.Gossip(), n3.Gossip())
	if got := n1.Logs(); got != want {
		t.Errorf("Logs of n1: got %q, want %q (seeds are the others, LOCKNODE_* is not inherited)", got, want)
	}
}

func TestPortsOfANodeAreConsecutive(t *testing.T) {
	var o Options
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	n, err := newNode(t.TempDir(), "n1", "n1", &Ports{base: 12340}, &o)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{n.API(), n.HTTP(), n.Raft(), n.Gossip()}
	want := []string{"127.0.0.1:12340", "127.0.0.1:12341", "127.0.0.1:12342", "127.0.0.1:12343"}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("address %d: got %s, want %s", i, got[i], want[i])
		}
	}
}

func TestClaimedPortsAreFreeAndOnesOwn(t *testing.T) {
	claimed, err := ClaimPorts(20)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range claimed {
		if seen[p.base] {
			t.Errorf("%d twice", p.base)
		}
		seen[p.base] = true
		if p.base < lowestPort || p.base+portsApart > highestPort {
			t.Errorf("%d is out of range", p.base)
		}
		if err := p.tryAll(); err != nil {
			t.Errorf("not free: %v", err)
		}
		if l, err := net.Listen("tcp", loopback(p.base+portsApart-1)); err == nil {
			_ = l.Close()
			t.Errorf("%d can be claimed a second time", p.base)
		}
		p.Release()
		l, err := net.Listen("tcp", loopback(p.base+portsApart-1))
		if err != nil {
			t.Fatalf("%d cannot be claimed again: %v", p.base, err)
		}
		_ = l.Close()
	}
}

// TestPortsOfANodeThatIsDownAreNotGivenAway: others look for it there.
func TestPortsOfANodeThatIsDownAreNotGivenAway(t *testing.T) {
	c := startCluster(t, Options{Nodes: 1})
	n := c.Nodes()[0]
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	claim := loopback(n.where.ports.base + portsApart - 1)
	if l, err := net.Listen("tcp", claim); err == nil {
		_ = l.Close()
		t.Error("the ports of a node that is down can be claimed")
	}
	if err := c.Discard(n); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", claim)
	if err != nil {
		t.Fatalf("the ports of a node that was discarded: %v", err)
	}
	_ = l.Close()
}

func TestKilledNodeIsReapedAndComesBackAtItsAddress(t *testing.T) {
	c := startCluster(t, Options{Nodes: 2})
	n := c.Node("n2")
	pid, api := n.PID(), n.API()
	if err := n.Kill(); err != nil {
		t.Fatalf("Kill: %v", err)
	}
	if n.Running() || alive(pid) {
		t.Error("Kill returned before the process was gone")
	}
	if _, err := n.Status(t.Context()); err == nil {
		t.Error("Status of a killed node: want an error")
	}
	if err := n.Kill(); err == nil {
		t.Error("Kill of a node that is not running: want an error")
	}
	if err := n.Restart(within(t, time.Minute)); err != nil {
		t.Fatalf("Restart: %v", err)
	}
	if n.PID() == pid || n.API() != api {
		t.Errorf("after Restart: process %d at %s, want a new one at %s", n.PID(), n.API(), api)
	}
	if got := strings.Count(n.Logs(), "node n2"); got != 2 {
		t.Errorf("Logs: got %d lives, want both", got)
	}
	if err := n.Start(); err == nil {
		t.Error("Start of a running node: want an error")
	}
}

func TestStopLetsTheProcessEndByItself(t *testing.T) {
	c := startCluster(t, Options{Nodes: 1})
	n := c.Nodes()[0]
	if err := n.Stop(within(t, time.Minute)); err != nil {
		t.Fatalf("Stop: %v", err)
	}
	if n.Running() || n.ExitCode() != 0 {
		t.Errorf("after Stop: running %v, exit code %d, want a clean end", n.Running(), n.ExitCode())
	}
}

func TestStopOfADeafProcessEndsWithItsContext(t *testing.T) {
	c := startCluster(t, Options{Nodes: 1, Args: []string{"--deaf"}})
	n := c.Nodes()[0]
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // the proof that the signal arrived, not the time, ends the wait
		for !strings.Contains(n.Logs(), "heard nothing") {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if err := n.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Stop: got %v, want context.Canceled", err)
	}
	if !n.Running() {
		t.Error("the deaf process ended")
	}
}

func TestPausedNodeDoesNotAnswerAndIsNotTheLeader(t *testing.T) {
	c := startCluster(t, Options{})
	ctx := within(t, time.Minute)
	leader, err := c.Leader(ctx)
	if err != nil || leader.ID != "n1" {
		t.Fatalf("Leader: got %v, %v, want n1", leader, err)
	}
	if err := leader.Pause(); err != nil {
		t.Fatalf("Pause: %v", err)
	}
	if !leader.Running() {
		t.Error("a paused process counts as not running")
	}
	if err := os.WriteFile(filepath.Join(c.Dir, "leader"), []byte("n3 2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if next, err := c.Leader(ctx); err != nil || next.ID != "n3" {
		t.Errorf("Leader with n1 paused: got %v, %v, want n3", next, err)
	}
	if err := leader.Resume(); err != nil {
		t.Fatalf("Resume: %v", err)
	}
	if err := leader.WaitReady(ctx); err != nil {
		t.Errorf("WaitReady after Resume: %v", err)
	}
	followers, err := c.Followers(ctx)
	if err != nil || len(followers) != 2 || followers[0].ID != "n1" || followers[1].ID != "n2" {
		t.Errorf("Followers: got %v, %v, want n1 and n2", followers, err)
	}
}

func TestLeaderWaitsUntilThereIsOne(t *testing.T) {
	c := startCluster(t, Options{})
	if err := os.WriteFile(filepath.Join(c.Dir, "leader"), []byte("nobody 2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Leader(within(t, 100*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Leader: got %v, %v, want DeadlineExceeded", n, err)
	}
}

func TestNodeThatEndsEarlyIsReportedWithItsLastWords(t *testing.T) {
	dir := t.TempDir()
	c, err := Start(within(t, time.Minute), Options{Dir: dir, Args: []string{"--broken", "n2", "--not-ready"}})
	if err == nil {
		_ = c.Close()
		t.Fatal("Start with a broken node: want an error")
	}
	var exited *ExitedError
	if !errors.As(err, &exited) || exited.Node != "n2" || !strings.Contains(err.Error(), "the disk is on fire") {
		t.Errorf("Start: got %v, want n2's last words", err)
	}
}

func TestNodeThatIsNeverReadySaysWhy(t *testing.T) {
	_, err := Start(within(t, time.Second), Options{Nodes: 1, Dir: t.TempDir(), Args: []string{"--not-ready"}})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "told not to be") {
		t.Errorf("Start: got %v, want DeadlineExceeded and the node's reason", err)
	}
}

func TestTakenPortsAreTriedAgainElsewhere(t *testing.T) {
	dir := t.TempDir()
	once := filepath.Join(dir, "once")
	if err := os.WriteFile(once, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := startCluster(t, Options{Nodes: 1, Dir: dir, Args: []string{"--taken", once}})
	if got := strings.Count(c.Nodes()[0].Logs(), "node n1"); got != 2 {
		t.Errorf("got %d starts, want 2", got)
	}
	if err := os.WriteFile(once, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := c.Add(within(t, time.Minute))
	if err != nil || n.ID != "n2" || len(c.Nodes()) != 2 {
		t.Errorf("Add: got %v, %v and %d nodes, want n2 as the second", n, err, len(c.Nodes()))
	}
}

func TestNodesThatExchangedAddressesAreFoundThere(t *testing.T) {
	c := startCluster(t, Options{})
	a, b := c.Nodes()[0], c.Nodes()[1]
	if err := c.Exchange(a, b); err == nil {
		t.Error("two nodes that run were made to exchange their addresses")
	}
	before := [2]string{a.API(), b.API()}
	for _, n := range []*Node{a, b} {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Exchange(a, b); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*Node{a, b} {
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if after := [2]string{b.API(), a.API()}; after != before || a.Place() != b.ID || b.Place() != a.ID {
		t.Errorf("they were at %v and are at %v, in the places %s and %s", before, after, a.Place(), b.Place())
	}
	if err := c.WaitReady(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*Node{a, b} {
		if s, err := n.Status(t.Context()); err != nil || s.GetNodeId() != n.ID {
			t.Errorf("node %s: the status is of %q, %v", n.ID, s.GetNodeId(), err)
		}
	}
}

func TestAddedNodeJoinsTheOthers(t *testing.T) {
	c := startCluster(t, Options{Nodes: 1})
	first := c.Nodes()[0]
	n, err := c.Add(within(t, time.Minute))
	if err != nil {
		t.Fatalf("Add: %v", err)
	}
	want := fmt.Sprintf("node %s join %s env \n", n.ID, first.Gossip())
	if n.ID != "n2" || n.Logs() != want {
		t.Errorf("Add: got %s with %q, want n2 with %q", n.ID, n.Logs(), want)
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	c, err := Start(within(t, time.Minute), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Nodes()[0].Pause(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	for _, n := range c.Nodes() {
		if n.Running() || alive(n.PID()) {
			t.Errorf("node %s still runs after Close", n.ID)
		}
	}
	if _, err := os.Stat(c.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary directory is still there: %v", err)
	}
}

func TestCloseKeepsADirectoryThatWasGiven(t *testing.T) {
	c := startCluster(t, Options{Nodes: 1, Dir: t.TempDir()})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.Nodes()[0].LogPath()); err != nil {
		t.Errorf("the log is gone: %v", err)
	}
}
