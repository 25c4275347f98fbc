//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/document"
	"github.com/locknode/locknode/internal/proof/proc"
)

// devPort finds the first port of free blocks of ten, one for each node.
func devPort(t *testing.T, nodes int) int {
	t.Helper()
	for range 200 {
		port := 10_000 + 100*rand.IntN(200)
		free := true
		for i := 0; free && i < nodes*portsPerBlock; i++ {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+i))
			if free = err == nil; free {
				_ = l.Close()
			}
		}
		if free {
			return port
		}
	}
	t.Fatal("no free ports")
	return 0
}

func startDev(t *testing.T, listen string, args ...string) (*running, []string) {
	t.Helper()
	r := start(t, command(t, "locknode", append([]string{"dev", "--listen", listen}, args...)...))
	var endpoints []string
	for _, id := range []string{"n1", "n2", "n3"} {
		fields := strings.Fields(r.await("  " + id + "  API "))
		endpoints = append(endpoints, fields[2])
	}
	if line := r.await("ready"); !strings.HasPrefix(line, "ready") {
		t.Errorf("got %q, want a line that begins with ready", line)
	}
	return r, endpoints
}

func TestDevServesAndFindsItsLocksAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a cluster")
	}
	t.Parallel()
	port, data := devPort(t, 3), t.TempDir()
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	r, endpoints := startDev(t, listen, "--data", data)
	for i, e := range endpoints {
		if want := fmt.Sprintf("127.0.0.1:%d", port+portsPerBlock*i); e != want {
			t.Errorf("node %d: got %s, want %s", i+1, e, want)
		}
	}
	// The last node accepts a write as soon as dev prints "ready".
	got := into[document.Grant](t, locknodeAt(t, endpoints[2:], "acquire", "kept", "--ttl", "5m", "--holder", "alice", "-o", "json"))
	r.signal(syscall.SIGINT)
	if code := r.wait(); code != 0 {
		t.Errorf("exit code after Ctrl-C: got %d, want 0", code)
	}
	r, endpoints = startDev(t, listen, "--data", data)
	l := into[document.Lock](t, locknodeAt(t, endpoints[:1], "get", "kept", "-o", "json"))
	if !l.Held || l.Holders[0].Token != got.Token || l.Holders[0].Holder != "alice" {
		t.Errorf("after the second start: got %+v, want alice with token %d", l, got.Token)
	}
	r.signal(syscall.SIGTERM)
	if code := r.wait(); code != 0 {
		t.Errorf("exit code after TERM: got %d, want 0", code)
	}
}

func TestDevWithTLSIsUsedWithItsCA(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a cluster")
	}
	cmd := command(t, "locknode", "dev", "--tls", "-o", "json", "--listen", fmt.Sprintf("127.0.0.1:%d", devPort(t, 3)))
	r := start(t, cmd)
	var out devJSON
	if err := json.Unmarshal([]byte(r.await(`"ready":true`)), &out); err != nil || out.TLSCA == "" || len(out.Nodes) != 3 {
		t.Fatalf("got %+v, %v, want three nodes and their CA", out, err)
	}
	at := []string{out.Nodes[0].API}
	into[document.Grant](t, locknodeAt(t, at, "acquire", "kept", "--ttl", "5m", "--tls-ca", out.TLSCA, "-o", "json"))
	if o := locknodeAt(t, at, "status", "--connect-timeout", "1s"); o.code != exitUnavailable || !strings.Contains(o.stderr, "TLS is spoken there") {
		t.Errorf("without the CA: %+v, want that TLS is spoken there", o)
	}
	if text := out.text(true); !strings.Contains(text, "export LOCKNODE_TLS_CA="+out.TLSCA) || !strings.Contains(text, "--cacert "+out.TLSCA+" https://") {
		t.Errorf("it prints:\n%s", text)
	}
	r.signal(syscall.SIGINT)
	if code := r.wait(); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
}

// What dev prints can be pasted, and the data that is kept has the access token of the next start.
func TestDevWithRightsIsUsedWithItsToken(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a cluster")
	}
	data := t.TempDir()
	first := ""
	for range 2 {
		cmd := command(t, "locknode", "dev", "--tls", "--auth", "--data", data, "-o", "json", "--listen", fmt.Sprintf("127.0.0.1:%d", devPort(t, 3)))
		r := start(t, cmd)
		var out devJSON
		if err := json.Unmarshal([]byte(r.await(`"ready":true`)), &out); err != nil || out.Token == "" {
			t.Fatalf("got %+v, %v, want a file with an access token", out, err)
		}
		secret, open, err := readTokenFile(out.Token)
		if err != nil || open || first != "" && secret != first {
			t.Errorf("the file with the access token: %v, open %v, another one %v", err, open, secret != first)
		}
		first = secret
		at := []string{out.Nodes[0].API}
		who := into[document.Identity](t, locknodeAt(t, at, "auth", "whoami", "--tls-ca", out.TLSCA, "--token-file", out.Token, "-o", "json"))
		if who.Identity != "token:root" || !who.Enforced {
			t.Errorf("whoami: %+v", who)
		}
		if o := locknodeAt(t, at, "ls", "--tls-ca", out.TLSCA); o.code != exitDenied || !strings.Contains(o.stderr, "--token-file") {
			t.Errorf("without the access token: %+v, want exit code 77 and what to do", o)
		}
		if text := out.text(false); !strings.Contains(text, "export LOCKNODE_TOKEN_FILE="+out.Token) || strings.Contains(text, secret) {
			t.Errorf("it prints:\n%s", text)
		}
		r.signal(syscall.SIGINT)
		if code := r.wait(); code != 0 {
			t.Errorf("exit code: got %d, want 0", code)
		}
	}
}

func TestDevLeavesNothingBehind(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a cluster")
	}
	t.Parallel()
	temp := t.TempDir()
	cmd := command(t, "locknode", "dev", "-o", "json", "--nodes", "1", "--listen", fmt.Sprintf("127.0.0.1:%d", devPort(t, 1)))
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	r := start(t, cmd)
	var out devJSON
	if err := json.Unmarshal([]byte(r.await(`"ready":true`)), &out); err != nil || out.Leader != "n1" || len(out.Nodes) != 1 {
		t.Errorf("got %+v, %v, want one node that leads", out, err)
	}
	if !strings.HasPrefix(out.Data, temp) {
		t.Errorf("data in %s, want it in %s", out.Data, temp)
	}
	r.signal(syscall.SIGINT)
	if code := r.wait(); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
	if left, _ := filepath.Glob(filepath.Join(temp, "*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestDevOnTakenPortsSaysSo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	o := locknodeAt(t, nil, "dev", "--nodes", "1", "--listen", l.Addr().String())
	if o.code != 1 || !strings.Contains(o.stderr, "address already in use") || !strings.Contains(o.stderr, "--listen") {
		t.Errorf("got %+v, want exit code 1, the reason and what to do", o)
	}
}

func TestDemoKeepsItsPromises(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a cluster")
	}
	t.Parallel()
	out := into[demoJSON](t, locknodeAt(t, nil, "demo", "-o", "json"))
	stories := map[string]int{}
	active := 0
	for _, s := range out.Steps {
		stories[s.Story]++
		if s.Step == "still active" {
			active++
		}
		if !s.OK || s.Step == "" {
			t.Errorf("step %+v: want it to succeed", s)
		}
	}
	if !out.OK || active != 2 || stories["expiry"] == 0 || stories["release"] == 0 || stories["failover"] == 0 || out.Seconds > 30 {
		t.Errorf("got %+v, want three stories, the lock still active twice, in less than 30 s", out)
	}
}

func TestDemoThatFailsSaysSo(t *testing.T) {
	var stdout, stderr strings.Builder
	d := &demo{a: &app{program: program{stdout: &stdout, stderr: &stderr}}}
	d.title("story", "A story.")
	d.check(true, "one")
	d.check(false, "two")
	err := d.finish(nil)
	if err == nil || exitCode(err) == 0 || !strings.Contains(stdout.String(), "NOT  two") {
		t.Errorf("got %v and %q, want a failure", err, stdout.String())
	}
	if len(d.steps) != 2 || d.steps[0].Story != "story" || d.steps[1].Story != "story" || d.steps[1].OK {
		t.Errorf("steps: got %+v", d.steps)
	}
}

func TestBenchPrintsItsOneObject(t *testing.T) {
	endpoints := strings.Join(sharedCluster(t).Endpoints(), ",")
	for _, w := range workloads {
		if w.name == "failover" {
			continue
		}
		longer(t, 300*time.Millisecond, func(duration time.Duration) string {
			o := locknodeAt(t, nil, "bench", "--workload", w.name, "--workers", "4", "--duration", duration.String(), "--warmup", "50ms",
				"--endpoints", endpoints, "-o", "json").succeeds(t)
			var keys map[string]any
			if err := json.Unmarshal([]byte(o.stdout), &keys); err != nil {
				t.Fatalf("%s: %v in %q", w.name, err, o.stdout)
			}
			if len(keys) != 5 {
				t.Errorf("%s: got %v, want workload, workers, ops_per_second, latency_ms and errors", w.name, keys)
			}
			out := into[benchJSON](t, o)
			if out.OpsPerSecond == 0 {
				return fmt.Sprintf("%s: no cycle was finished: %+v", w.name, out)
			}
			if out.Workload != w.name || out.Workers != 4 || out.OpsPerSecond < 0 || out.Errors != 0 ||
				out.LatencyMS.P50 <= 0 || out.LatencyMS.P50 > out.LatencyMS.P95 || out.LatencyMS.P95 > out.LatencyMS.P99 || out.LatencyMS.P99 > out.LatencyMS.Max {
				t.Errorf("%s: got %+v", w.name, out)
			}
			return ""
		})
	}
}

func TestBenchComparesTLSWithPlainText(t *testing.T) {
	if testing.Short() {
		t.Skip("needs two clusters")
	}
	t.Parallel()
	temp := t.TempDir()
	cmd := command(t, "locknode", "bench", "--tls", "--pairs", "1", "--nodes", "1", "--workers", "2", "--duration", "1s", "-o", "json")
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	r := start(t, cmd)
	var out pairsJSON
	if err := json.Unmarshal([]byte(r.await(`"median_ratio"`)), &out); err != nil || len(out.Pairs) != 1 {
		t.Fatalf("got %+v, %v, want one pair", out, err)
	}
	if p := out.Pairs[0]; p.Plain.OpsPerSecond <= 0 || p.TLS.OpsPerSecond <= 0 || p.Plain.Errors+p.TLS.Errors != 0 || out.MedianRatio != p.Ratio {
		t.Errorf("got %+v", out)
	}
	if code := r.wait(); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
	if left, _ := filepath.Glob(filepath.Join(temp, "*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestBenchStartsAndRemovesItsOwnCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a cluster")
	}
	t.Parallel()
	temp := t.TempDir()
	cmd := command(t, "locknode", "bench", "--workload", "failover", "--workers", "2", "--duration", "1ms", "--warmup", "100ms", "-o", "json")
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	r := start(t, cmd)
	var out benchJSON
	if err := json.Unmarshal([]byte(r.await(`"workload":"failover"`)), &out); err != nil || out.Failover == nil || out.Failover.Kills != 1 ||
		out.Failover.GapMaxMS <= 0 || out.Errors != 0 {
		t.Errorf("got %+v, %v, want one kill, its gap and no errors", out, err)
	}
	if code := r.wait(); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
	if left, _ := filepath.Glob(filepath.Join(temp, "*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestInterruptedBenchLeavesNothingBehind(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a cluster")
	}
	t.Parallel()
	temp := t.TempDir()
	cmd := command(t, "locknode", "bench", "--duration", "1h")
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	r := start(t, cmd)
	eventually(t, "a node has started", func() bool {
		logs, _ := filepath.Glob(filepath.Join(temp, "*", "n3.log"))
		return len(logs) > 0
	})
	r.signal(syscall.SIGINT)
	if code := r.wait(); code != 130 {
		t.Errorf("exit code: got %d, want 130", code)
	}
	if left, _ := filepath.Glob(filepath.Join(temp, "*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestServeStopsInGoodOrderAndComesBack(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a cluster")
	}
	t.Parallel()
	c := startCluster(t, clusterOptions())
	ctx := within(t, generous)
	leader, err := c.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := into[document.Grant](t, locknodeAt(t, c.Endpoints(), "acquire", "kept", "--ttl", "5m", "-o", "json"))
	if err := leader.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	l := into[document.Lock](t, locknodeAt(t, c.Endpoints(), "get", "kept", "-o", "json"))
	if !l.Held || l.Holders[0].Token != got.Token {
		t.Errorf("without its first leader: got %+v, want token %d", l, got.Token)
	}
	if err := leader.Restart(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestStatusMembersAndLeadership(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a cluster")
	}
	c := startCluster(t, clusterOptions())
	ctx := within(t, generous)
	leader, err := c.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	at := func(args ...string) outcome { t.Helper(); return locknodeAt(t, c.Endpoints(), args...) }
	status := into[map[string][]nodeJSON](t, at("status", "-o", "json"))["nodes"]
	leaders := 0
	for _, s := range status {
		if s.State == "leader" {
			leaders++
		}
		if !s.Ready || s.LeaderID != leader.ID {
			t.Errorf("status: got %+v, want it ready and led by %s", s, leader.ID)
		}
	}
	if len(status) != 3 || leaders != 1 {
		t.Errorf("status: got %d nodes and %d leaders, want 3 and 1", len(status), leaders)
	}
	members := into[map[string][]document.Member](t, at("members", "-o", "json"))["members"]
	if len(members) != 3 {
		t.Errorf("members: got %+v, want 3", members)
	}
	followers, err := c.Followers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	next, other := followers[0], followers[1]
	if o := at("transfer-leadership", next.ID).succeeds(t); o.stdout != next.ID+" leads\n" {
		t.Errorf("transfer-leadership: got %+v, want %s", o, next.ID)
	}
	if now, err := c.Leader(ctx); err != nil || now != next {
		t.Errorf("leader: got %v, %v, want %s", now, err, next.ID)
	}
	var nobody outcome
	eventually(t, "the new leader answers", func() bool { // until it serves, no leader is known
		nobody = at("transfer-leadership", "nobody")
		return nobody.code != exitUnavailable
	})
	if nobody.code != 1 || !strings.Contains(nobody.stderr, "nobody") {
		t.Errorf("transfer to nobody: got %+v, want exit code 1", nobody)
	}
	removeStopped(t, c, at, other)
}

// removeStopped kills a node, checks that it is listed as unreachable, and removes it.
func removeStopped(t *testing.T, c *proc.Cluster, at func(...string) outcome, n *proc.Node) {
	t.Helper()
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	text := at("status").succeeds(t).stdout
	table, _, _ := strings.Cut(text+"\n", "\n\n") // a note about the feature level may follow
	if !strings.Contains(table, "unreachable") || strings.Count(table, "\n") != 3 {
		t.Errorf("status with %s killed: got\n%s", n.ID, text)
	}
	at("members", "remove", n.ID).succeeds(t)
	eventually(t, n.ID+" is no voter", func() bool {
		for _, m := range into[map[string][]document.Member](t, at("members", "-o", "json"))["members"] {
			if m.ID == n.ID && m.Role != "none" {
				return false
			}
		}
		return true
	})
	if o := at("members", "remove", "nobody"); o.code != 1 || !strings.Contains(o.stderr, "locknode members") {
		t.Errorf("remove nobody: got %+v, want exit code 1 and what to do", o)
	}
	if got := len(c.Running()); got != 2 {
		t.Errorf("%d nodes run, want 2", got)
	}
}
