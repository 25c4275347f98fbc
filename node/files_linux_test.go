package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestReserveGrowsWithTheLimitOfFiles(t *testing.T) {
	for limit, want := range map[uint64]uint64{0: 0, 64: 32, 128: 64, 256: 64, 1024: 256, 4096: 1024, 1 << 20: 1024, 1 << 63: 1024} {
		if got := reserve(limit); got != want {
			t.Errorf("reserve(%d) = %d, want %d", limit, got, want)
		}
	}
}

// crowded is a node in a process of its own that may open few files. It reads commands from
// its standard input, one a line.
type crowded struct {
	t                       *testing.T
	in                      io.Writer
	out                     *bufio.Reader
	API, HTTP, Raft, Gossip string
}

const fewFiles = 160

// startCrowded runs the test again in another process and returns the node there. In that
// process it runs the node, and returns nil once that has ended.
func startCrowded(t *testing.T) *crowded {
	t.Helper()
	const mark = "NODE_TEST_CROWDED"
	if dir := os.Getenv(mark); dir != "" {
		beCrowded(t, dir)
		return nil
	}
	c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=2m")
	c.Env = append(os.Environ(), mark+"="+t.TempDir())
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	p := &crowded{t: t, in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, p.out)
		if err := c.Wait(); err != nil {
			t.Errorf("the node's process: %v", err)
		}
	})
	if err := json.Unmarshal([]byte(p.line()), p); err != nil {
		t.Fatal(err)
	}
	return p
}

// line returns the next line that the process writes.
func (c *crowded) line() string {
	c.t.Helper()
	line, err := c.out.ReadString('\n')
	if err != nil {
		c.t.Fatalf("the node's process: %v (%q)", err, line)
	}
	return strings.TrimSpace(line)
}

func (c *crowded) do(what string) {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.in, what); err != nil {
		c.t.Fatal(err)
	}
	if got := c.line(); got != "ok" {
		c.t.Errorf("%s: %s", what, got)
	}
}

func beCrowded(t *testing.T, dir string) {
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: fewFiles, Max: fewFiles}); err != nil {
		t.Fatal(err)
	}
	n, err := Open(t.Context(), Config{DataDir: dir, Listen: "127.0.0.1:0", BootstrapExpect: 1, Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := n.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	addresses, err := json.Marshal(crowded{API: n.APIAddr(), HTTP: n.HTTPAddr(), Raft: n.RaftAddr(), Gossip: n.GossipAddr()})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(string(addresses))
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		switch s.Text() {
		case "lock":
			err = lockAndRelease(ctx, n)
		case "open":
			err = openReserve()
		}
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println("ok")
	}
}

func lockAndRelease(ctx context.Context, n *Node) error {
	c := n.Client()
	l, err := c.TryLock(ctx, "a")
	if err != nil {
		return errors.Join(err, n.Err())
	}
	return errors.Join(l.Unlock(), c.Close())
}

// openReserve opens as many files as are kept for the log and snapshots, less a few: each
// listener has accepted a connection that it has not checked yet.
func openReserve() error {
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	for range reserve(fewFiles)/2 - 6 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return fmt.Errorf("after %d files: %w", len(files), err)
		}
		files = append(files, f)
	}
	return nil
}

// crowd opens many connections at once, which stay open and idle until the end of the test,
// and returns how many of them are not closed soon.
func crowd(t *testing.T, addr string, many int) (taken int) {
	t.Helper()
	var conns []net.Conn
	for i := range many {
		conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
		if err != nil {
			t.Fatalf("connection %d to %s: %v", i, addr, err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		conns = append(conns, conn)
	}
	var open atomic.Int64
	var looking sync.WaitGroup
	soon := time.Now().Add(500 * time.Millisecond)
	for _, conn := range conns {
		looking.Go(func() {
			err := conn.SetReadDeadline(soon)
			var b [64]byte
			for err == nil { // the server's preface of HTTP/2
				_, err = conn.Read(b[:])
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				open.Add(1)
			}
		})
	}
	looking.Wait()
	return int(open.Load())
}

// Connections that fill all listeners, whatever the limits of each, leave the node the files
// that it needs for its log.
func TestConnectionsLeaveFilesToTheNode(t *testing.T) {
	t.Parallel()
	p := startCrowded(t)
	if p == nil {
		return
	}
	p.do("lock")
	taken := map[string]int{}
	for _, l := range []struct{ name, addr string }{{"gossip", p.Gossip}, {"raft", p.Raft}, {"http", p.HTTP}, {"grpc", p.API}} {
		taken[l.name] = crowd(t, l.addr, 150)
		p.do("open")
		p.do("lock")
	}
	t.Logf("accepted: %v", taken)
	if taken["raft"] > 10 {
		t.Errorf("accepted %v: gossip has used up the share of strangers, and Raft accepted more", taken)
	}
	if taken["gossip"]+taken["raft"] < 64 { // Raft accepts no more than 64 silent ones
		t.Errorf("accepted %v: too few for the test to show anything", taken)
	}
}

// Connections of strangers to the ports of clients keep no peer from connecting.
func TestConnectionsOfClientsLeaveRoomForPeers(t *testing.T) {
	t.Parallel()
	p := startCrowded(t)
	if p == nil {
		return
	}
	clients := crowd(t, p.API, fewFiles) + crowd(t, p.HTTP, fewFiles)
	if clients < 32 {
		t.Errorf("only %d connections of clients were accepted", clients)
	}
	if peers := crowd(t, p.Raft, 10); peers != 10 {
		t.Errorf("%d of 10 connections to Raft were accepted beside %d of clients", peers, clients)
	}
	p.do("open")
	p.do("lock")
}

func TestLimitsOfConnectionsAreChecked(t *testing.T) {
	err := Config{DataDir: "d", MaxConnections: 7, MaxConnectionsPerAddress: -1}.Validate()
	for _, want := range []string{"max connections: is 7, must be 8 to 1000000", "max connections per address: is -1, must be 8 to"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate() = %v, want %q in it", err, want)
		}
	}
	if err := (Config{DataDir: "d", MaxConnections: 8, MaxConnectionsPerAddress: 1_000_000}).Validate(); err != nil {
		t.Errorf("Validate() = %v, want nil", err)
	}
}
