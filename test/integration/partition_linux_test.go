package integration

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/proc"
)

// A network between the nodes that can be cut, link by link and in each
// direction: every node tells the others to reach it at advertiseHost, where
// proxies listen. What is cut stands still, as in a network: nothing is reset.
// Clients are not concerned; they reach every node all the time.
//
// The proxies learn from /proc which node has dialled, and 127.0.0.2 exists
// without further ado, on Linux only.

const advertiseHost = "127.0.0.2"

// mesh is that network.
type mesh struct {
	nodes []*proc.Node

	mu      sync.Mutex
	cut     map[[2]string]bool // from, to: node IDs
	changed chan struct{}      // closed and replaced when cut changes

	looking sync.Mutex        // guards dialled; held while /proc is read, which takes its time
	dialled map[string]string // connection, as /proc has it → node that made it
}

// startMesh puts a cluster into such a network.
func startMesh(t *testing.T, c *proc.Cluster) *mesh {
	t.Helper()
	m := &mesh{nodes: c.Nodes(), cut: map[[2]string]bool{}, changed: make(chan struct{}), dialled: map[string]string{}}
	moved := map[string]string{}
	for _, n := range m.nodes {
		for _, address := range []string{n.API(), n.Raft(), n.Gossip()} {
			p := newProxy(t, elsewhere(t, address), address)
			p.who = m.dialler
			p.blocked = func(who string, answers bool) <-chan struct{} {
				if answers {
					return m.blocked(n.ID, who)
				}
				return m.blocked(who, n.ID)
			}
			p.serve(t)
		}
		m.relayPackets(t, n)
		moved[n.ID] = elsewhere(t, n.API())
	}
	t.Cleanup(m.heal) // before the proxies end
	kill(t, m.nodes...)
	for _, n := range m.nodes {
		must(t, n.Start("--advertise-host", advertiseHost))
	}
	for _, n := range m.nodes {
		must(t, n.WaitReady(within(t, patience)))
	}
	awaitAddresses(t, dial(t, c.Endpoints()), moved)
	return m
}

// elsewhere is the address at which others are told to reach a node.
func elsewhere(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	must(t, err)
	return net.JoinHostPort(advertiseHost, port)
}

// sever cuts the ways from some nodes to others; what is cut stays cut.
func (m *mesh) sever(from, to []*proc.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range from {
		for _, o := range to {
			if f != o {
				m.cut[[2]string{f.ID, o.ID}] = true
			}
		}
	}
	m.changedLocked()
}

// heal opens all ways.
func (m *mesh) heal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.cut)
	m.changedLocked()
}

func (m *mesh) changedLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// blocked is nil, or what to wait for before looking again.
func (m *mesh) blocked(from, to string) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut[[2]string{from, to}] {
		return m.changed
	}
	return nil
}

// dialler is the node whose process has made a connection; "" is somebody else.
// Whoever waits for a look at /proc shares the next one.
func (m *mesh) dialler(conn net.Conn) string {
	key := procAddress(conn.RemoteAddr()) + " " + procAddress(conn.LocalAddr())
	m.looking.Lock()
	defer m.looking.Unlock()
	if _, ok := m.dialled[key]; !ok {
		m.look()
	}
	node := m.dialled[key]
	delete(m.dialled, key) // the same ports may be used again by another
	return node
}

// procAddress is an address as /proc/net/tcp has it.
func procAddress(a net.Addr) string {
	tcp := a.(*net.TCPAddr)
	ip := tcp.IP.To4()
	return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], tcp.Port)
}

// look finds out who has made all connections that there are. The connections
// are read before their owners, so that every one of them has its owner.
func (m *mesh) look() {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return
	}
	owners := map[string]string{} // "socket:[inode]" → node
	for _, n := range m.nodes {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", n.PID()))
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil {
				owners[to] = n.ID
			}
		}
	}
	clear(m.dialled)
	for lines := bufio.NewScanner(bytes.NewReader(table)); lines.Scan(); {
		const local, remote, inode = 1, 2, 9
		if f := strings.Fields(lines.Text()); len(f) > inode {
			m.dialled[f[local]+" "+f[remote]] = owners["socket:["+f[inode]+"]"]
		}
	}
}

// relayPackets passes on the gossip packets to a node. They come from the port on
// which their sender gossips.
func (m *mesh) relayPackets(t *testing.T, n *proc.Node) {
	t.Helper()
	senders := map[string]string{} // address → node
	for _, o := range m.nodes {
		senders[o.Gossip()] = o.ID
	}
	target, err := net.ResolveUDPAddr("udp", n.Gossip())
	must(t, err)
	conn, err := net.ListenPacket("udp", elsewhere(t, n.Gossip()))
	must(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		packet := make([]byte, 64<<10)
		for {
			size, from, err := conn.ReadFrom(packet)
			if err != nil {
				return
			}
			if m.blocked(senders[from.String()], n.ID) == nil {
				_, _ = conn.WriteTo(packet[:size], target) // packets may be lost
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-ended
	})
}

func TestClusterRidesOutPartitions(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	m := startMesh(t, c)
	l := startLoad(t, c, patience)
	l.webLoad(t, c)
	all := c.Nodes()
	for _, phase := range []struct {
		what    string
		deposed bool // whether another must lead meanwhile
		behind  bool // whether a follower hears nothing meanwhile
		cut     func(leader *proc.Node, followers []*proc.Node)
	}{
		{"the leader is alone", true, false, func(leader *proc.Node, _ []*proc.Node) {
			m.sever([]*proc.Node{leader}, all)
			m.sever(all, []*proc.Node{leader})
		}},
		{"the leader is not heard", true, false, func(leader *proc.Node, _ []*proc.Node) { m.sever([]*proc.Node{leader}, all) }},
		{"the leader hears nothing", true, false, func(leader *proc.Node, _ []*proc.Node) { m.sever(all, []*proc.Node{leader}) }},
		{"a follower is alone", false, true, func(_ *proc.Node, followers []*proc.Node) {
			m.sever(followers[:1], all)
			m.sever(all, followers[:1])
		}},
		{"the leader and a follower do not reach one another", false, false, func(leader *proc.Node, followers []*proc.Node) {
			m.sever([]*proc.Node{leader}, followers[:1])
			m.sever(followers[:1], []*proc.Node{leader})
		}},
	} {
		l.progress(t, 50)
		t.Logf("%s", phase.what)
		leader, followers := leaderOf(t, c), followersOf(t, c)
		phase.cut(leader, followers)
		if phase.deposed {
			// Until its lease is over it may lead on, and a quick machine does much in that time.
			eventually(t, phase.what+": another leads", func() bool { return leaderOf(t, c) != leader })
		}
		l.progress(t, 200)
		if s := status(t, followers[0]); phase.behind && s.GetLastToken()+50 > lastToken(t, c) {
			t.Errorf("%s: it has followed to token %d: the cut has not cut", phase.what, s.GetLastToken())
		}
		m.heal()
		must(t, c.WaitReady(within(t, patience)))
	}
	l.progress(t, 50)
	l.finish(t)
	agree(t, c)
}

// A leader that is alone does not know it, and is asked by clients that do not
// know it either.
func TestLeaderThatIsAloneAnswersNothing(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	m := startMesh(t, c)
	name := t.Name()
	alone := leaderOf(t, c)
	var others []string
	for _, n := range followersOf(t, c) {
		others = append(others, n.API())
	}
	m.sever([]*proc.Node{alone}, c.Nodes())
	m.sever(c.Nodes(), []*proc.Node{alone})

	api := browse(t, alone.HTTP())
	ask := func(path string, body any) webAnswer { // it may wait for a leader longer than we do
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		a, err := api.try(ctx, path, body)
		if err != nil {
			return webAnswer{}
		}
		return a
	}
	arrivals := make(chan arrival, 1)
	watch, ctx := dial(t, others), within(t, patience)
	go func() {
		g, err := watch.Lock(ctx, name)
		arrivals <- arrival{1, g, err, time.Now()}
	}()
	// Asked all the time, from before it is deposed until after.
	for len(arrivals) == 0 {
		ask(lockPath(name), nil)
	}
	token := arrive(t, arrivals).grant.Token()
	for range 5 {
		if a := ask(lockPath(name), nil); a.status == 200 {
			t.Errorf("the lock is held with token %d at the majority, the node that is alone says %s", token, a.body)
		}
		if a := ask("/v1/acquire", object{"name": name}); a.status == 200 {
			t.Errorf("the lock is held with token %d at the majority, the node that is alone gave it away: %s", token, a.body)
		}
	}
	m.heal()
	must(t, alone.WaitReady(within(t, patience)))
	if got := answered[lockView](t, api.do(t, lockPath(name), nil), 200); !got.Held || got.Holders[0].Token != token {
		t.Errorf("after it came back: got %+v, want it held with token %d", got, token)
	}
	agree(t, c)
}
