package integration

import (
	"context"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/proof/proc"
	network "github.com/locknode/locknode/internal/proof/proxy"
)

// A network between the nodes that can be cut, link by link and in each direction: every node
// advertises an address at advertiseHost, where proxies listen. Clients reach every node all
// the time.
//
// The proxies learn from /proc which node has dialled, and 127.0.0.2 exists
// without further ado, on Linux only.

const advertiseHost = "127.0.0.2"

// mesh is that network.
type mesh struct{ *network.Mesh }

// startMesh puts a cluster into such a network.
func startMesh(t *testing.T, c *proc.Cluster) *mesh {
	t.Helper()
	m := &mesh{network.NewMesh(advertiseHost, func() map[int]string {
		pids := map[int]string{}
		for _, n := range c.Nodes() {
			pids[n.PID()] = n.ID
		}
		return pids
	})}
	t.Cleanup(func() { must(t, m.Close()) })
	moved := map[string]string{}
	for _, n := range c.Nodes() {
		must(t, m.Front(n.ID, []string{n.API(), n.Raft(), n.Gossip()}, n.Gossip()))
		elsewhere, err := m.Elsewhere(n.API())
		must(t, err)
		moved[n.ID] = elsewhere
	}
	kill(t, c.Nodes()...)
	for _, n := range c.Nodes() {
		must(t, n.Start("--advertise-host", advertiseHost))
	}
	for _, n := range c.Nodes() {
		must(t, n.WaitReady(within(t, patience)))
	}
	awaitAddresses(t, dial(t, c.Endpoints()), moved)
	return m
}

// sever cuts the links from some nodes to others; those that were cut before stay cut.
func (m *mesh) sever(from, to []*proc.Node) { m.Cut(ids(from), ids(to)) }

func ids(nodes []*proc.Node) (all []string) {
	for _, n := range nodes {
		all = append(all, n.ID)
	}
	return all
}

func TestClusterSurvivesPartitions(t *testing.T) {
	t.Parallel()
	slow(t, "cuts real processes apart for a while; locktest and simulations do it in virtual time")
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
			// Until its lease is over it may go on leading, and a fast machine does much in that time.
			eventually(t, phase.what+": another leads", func() bool { return leaderOf(t, c) != leader })
		}
		l.progress(t, 200)
		if s := status(t, followers[0]); phase.behind && s.GetLastToken()+50 > lastToken(t, c) {
			t.Errorf("%s: it has applied token %d: the link is not cut", phase.what, s.GetLastToken())
		}
		m.Heal()
		must(t, c.WaitReady(within(t, patience)))
	}
	l.progress(t, 50)
	l.finish(t)
	agree(t, c)
}

// A leader that is cut off does not know it, and neither do its clients.
func TestALeaderThatIsCutOffAnswersNothing(t *testing.T) {
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
	ask := func(path string, body any) webAnswer { // it may wait longer for a leader than the test does
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
	// Requests all the time, from before it is deposed until after that.
	for len(arrivals) == 0 {
		ask(lockPath(name), nil)
	}
	token := arrive(t, arrivals).grant.Token()
	for range 5 {
		if a := ask(lockPath(name), nil); a.status == 200 {
			t.Errorf("the lock is held with token %d at the majority, the node that is cut off answers %s", token, a.body)
		}
		if a := ask("/v1/acquire", object{"name": name}); a.status == 200 {
			t.Errorf("the lock is held with token %d at the majority, the node that is cut off granted it: %s", token, a.body)
		}
	}
	m.Heal()
	must(t, alone.WaitReady(within(t, patience)))
	if got := answered[lockView](t, api.do(t, lockPath(name), nil), 200); !got.Held || got.Holders[0].Token != token {
		t.Errorf("after it came back: got %+v, want it held with token %d", got, token)
	}
	agree(t, c)
}
