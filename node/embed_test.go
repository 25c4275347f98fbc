package node_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/node"
)

// names returns the metrics that a registry has, with how often it has each.
func names(t *testing.T, r *prometheus.Registry) map[string]int {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int{}
	for _, f := range families {
		all[f.GetName()] = len(f.GetMetric())
	}
	return all
}

func TestTheProgramsRegistryHasTheMetricsUntilTheNodeIsClosed(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	with := func(labels prometheus.Labels) func(*node.Config) {
		return func(cfg *node.Config) { cfg.Metrics = prometheus.WrapRegistererWith(labels, registry) }
	}
	n1 := single(t, with(nil))
	if err := n1.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := names(t, registry)
	if got["locknode_ready"] != 1 || got["locknode_entries_applied_total"] != 1 || got["go_goroutines"] != 0 {
		t.Errorf("the registry has %v; want those of the node, and not those of the process", got)
	}

	dir := t.TempDir()
	cfg := node.Config{DataDir: dir, Listen: "127.0.0.1:0", Metrics: registry}
	if _, err := node.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "WrapRegistererWith") {
		t.Fatalf("the same metrics twice: %v; want an error that says what to do", err)
	}
	if got := names(t, registry); got["locknode_ready"] != 1 {
		t.Errorf("after an Open that failed the registry has %v, want those of the first node", got)
	}
	cfg.Metrics = prometheus.WrapRegistererWith(prometheus.Labels{"node": "n2"}, prometheus.NewRegistry())
	second, err := node.Open(t.Context(), cfg) // the Open that failed has left the directory free
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(second.Close(), n1.Close()); err != nil {
		t.Fatal(err)
	}
	if got := names(t, registry); len(got) != 0 {
		t.Errorf("after Close the registry has %v, want nothing", got)
	}
}

// listeners are three that a program has opened.
func listeners(t *testing.T, cfg *node.Config) {
	t.Helper()
	for _, to := range []*net.Listener{&cfg.APIListener, &cfg.HTTPListener, &cfg.RaftListener} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		*to = l
	}
}

// closed reports whether a listener is closed.
func closed(l net.Listener) bool {
	return errors.Is(l.(*net.TCPListener).SetDeadline(time.Now()), net.ErrClosed)
}

func TestANodeListensWhereItsProgramDoes(t *testing.T) {
	t.Parallel()
	var cfg node.Config
	listeners(t, &cfg)
	n := single(t, func(c *node.Config) {
		c.HTTPAddr = ""
		c.APIListener, c.HTTPListener, c.RaftListener = cfg.APIListener, cfg.HTTPListener, cfg.RaftListener
	})
	for _, at := range []struct {
		got  string
		want net.Listener
	}{{n.APIAddr(), cfg.APIListener}, {n.HTTPAddr(), cfg.HTTPListener}, {n.RaftAddr(), cfg.RaftListener}} {
		if at.got != at.want.Addr().String() {
			t.Errorf("the node is at %s, want %s", at.got, at.want.Addr())
		}
	}
	if err := n.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(t.Context(), []string{cfg.APIListener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s, err := c.Status(t.Context()); err != nil || s.NodeID != n.ID() {
		t.Errorf("the API's listener: %+v, %v", s, err)
	}
	res, err := http.Get("http://" + cfg.HTTPListener.Addr().String() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Errorf("the HTTP listener answers %s", res.Status)
	}
	members, err := n.Members()
	if err != nil || members[0].RaftAddress != cfg.RaftListener.Addr().String() {
		t.Errorf("the members are %+v, %v; want Raft at %s", members, err, cfg.RaftListener.Addr())
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if !closed(cfg.APIListener) || !closed(cfg.HTTPListener) || !closed(cfg.RaftListener) {
		t.Error("a listener is open after Close")
	}
}

func TestListenersAreClosedWhenOpenFails(t *testing.T) {
	for name, spoil := range map[string]func(*node.Config){
		"a fault of the configuration": func(cfg *node.Config) { cfg.APIAddr = "127.0.0.1:1" },
		"a directory that is a file":   func(cfg *node.Config) { cfg.DataDir = "/dev/null" },
		"a gossip port that is taken":  func(cfg *node.Config) { cfg.GossipAddr = cfg.APIListener.Addr().String() },
	} {
		cfg := node.Config{DataDir: t.TempDir(), Listen: "127.0.0.1:0"}
		listeners(t, &cfg)
		spoil(&cfg)
		if n, err := node.Open(t.Context(), cfg); err == nil {
			_ = n.Close()
			t.Errorf("%s: Open worked", name)
		}
		if !closed(cfg.APIListener) || !closed(cfg.HTTPListener) || !closed(cfg.RaftListener) {
			t.Errorf("%s: a listener is open", name)
		}
	}
}

func TestAnAddressAndItsListenerAreTooMuch(t *testing.T) {
	cfg := node.Config{DataDir: t.TempDir(), APIAddr: "127.0.0.1:1", HTTPAddr: "off", RaftAddr: "127.0.0.1:1"}
	listeners(t, &cfg)
	err := cfg.Validate()
	for _, field := range []string{"api address", "http address", "raft address"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("Validate: %v; want a fault of the %s", err, field)
		}
	}
}

func TestWaitingForANodeEndsWithItsContext(t *testing.T) {
	n := single(t, func(cfg *node.Config) { cfg.BootstrapExpect = 0 })
	enough := errors.New("enough")
	for name, wait := range map[string]func(context.Context) error{"WaitReady": n.WaitReady, "WaitVoter": n.WaitVoter} {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, enough)
		err := wait(ctx)
		cancel()
		if !errors.Is(err, enough) || !strings.Contains(err.Error(), n.Status().NotReadyReason) {
			t.Errorf("%s: %v; want the cause of its context's end, and %q", name, err, n.Status().NotReadyReason)
		}
	}
	waits := make(chan error)
	go func() { waits <- n.WaitVoter(context.Background()) }()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waits; err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("a wait for a node that is closed: %v", err)
	}
}
