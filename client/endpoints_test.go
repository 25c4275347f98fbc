package client

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/proof/simnet"
)

func directoryOf(cluster string, index uint64, members ...string) *apiv1.Directory {
	d := &apiv1.Directory{ClusterId: cluster, Index: index}
	for _, m := range members {
		id, addr, _ := strings.Cut(m, "=")
		d.Members = append(d.Members, &apiv1.Place{Id: id, ApiAddress: addr})
	}
	return d
}

func TestBookKeepsTheLatestAddresses(t *testing.T) {
	type step struct {
		got  *apiv1.Directory
		used bool
		want string // addresses, in order
	}
	many := make([]string, 3*maxMembers)
	for i := range many {
		many[i] = fmt.Sprintf("m%03d=10.0.1.%d:1", i, i)
	}
	for name, steps := range map[string][]step{
		"a later one replaces, an earlier one changes nothing": {
			{directoryOf("c", 5, "n1=a:1", "n2=b:1"), false, "a:1 b:1"},
			{directoryOf("c", 4, "n1=a:1", "n9=old:1"), false, "a:1 b:1"},
			{directoryOf("c", 6, "n2=b:1", "n3=c:1"), false, "b:1 c:1"},
		},
		"the directory of the node in use counts, however late it is": {
			{directoryOf("c", 1<<60, "n1=wrong:1"), false, "wrong:1"},
			{directoryOf("c", 5, "n1=a:1"), false, "wrong:1"},
			{directoryOf("c", 5, "n1=a:1"), true, "a:1 wrong:1"},
			{directoryOf("c", 6, "n2=b:1"), false, "b:1"},
		},
		"a member whose address is not known keeps the one that it had": {
			{directoryOf("c", 1, "n1=a:1", "n2=b:1"), false, "a:1 b:1"},
			{directoryOf("c", 2, "n1=a:1", "n2=", "n3="), false, "a:1 b:1"},
		},
		"of a member that moves the one before is kept, and no more": {
			{directoryOf("c", 1, "n1=a:1"), false, "a:1"},
			{directoryOf("c", 1, "n1=b:1"), false, "b:1 a:1"},
			{directoryOf("c", 1, "n1=a:1"), false, "a:1 b:1"},
			{directoryOf("c", 2, "n1=c:1"), false, "c:1 a:1"},
		},
		"that of another cluster changes nothing, unless its node is used": {
			{directoryOf("c", 1, "n1=a:1"), false, "a:1"},
			{directoryOf("d", 9, "n1=b:1"), false, "a:1"},
			{directoryOf("d", 9, "n1=b:1"), true, "b:1"},
		},
		"an empty one changes nothing": {
			{directoryOf("c", 1, "n1=a:1"), true, "a:1"},
			{directoryOf("c", 2), true, "a:1"},
		},
		"no more than the bound": {
			{directoryOf("c", 1, many...), true, strings.Join(strings.Fields(strings.Join(addressesOf(many[:maxMembers]), " ")), " ")},
		},
		"an ID that is too long is left out": {
			{directoryOf("c", 1, strings.Repeat("x", maxID+1)+"=a:1", "n2=b:1"), true, "b:1"},
		},
		"an address that cannot be dialled is left out": {
			{directoryOf("c", 1, "a=", "b=x", "c=:1", "d=0.0.0.0:1", "e=[::]:1", "f=h:0", "g=h:http", "h=h:65536", "i=h:-1",
				"j="+strings.Repeat("x", 300)+":1", "k=224.0.0.1:1", "ok=[fd77::1]:65535"), true, "[fd77::1]:65535"},
		},
	} {
		var b book
		for i, s := range steps {
			before := b.addresses()
			changed := b.learn(s.got, s.used)
			after := b.addresses()
			if got := strings.Join(after, " "); got != s.want {
				t.Errorf("%s: step %d: %q, want %q", name, i, got, s.want)
			}
			if changed != !slices.Equal(before, after) {
				t.Errorf("%s: step %d: changed is %v, from %q to %q", name, i, changed, before, after)
			}
		}
	}
}

func addressesOf(members []string) (addrs []string) {
	for _, m := range members {
		_, addr, _ := strings.Cut(m, "=")
		addrs = append(addrs, addr)
	}
	return addrs
}

func TestClientKeepsItsLockWhileAllNodesAreReplaced(t *testing.T) {
	t.Parallel()
	r := newRing(t, 3)
	old := slices.Clone(r.nodes)
	members := []string{old[0].addr, old[1].addr, old[2].addr}
	r.name("c", 1, members...)
	c := r.dial(r.nodes[:1]) // with one endpoint
	g := mustLock(t, c, "a")
	for i, gone := range old {
		next := r.add("127.0.0.1:0")
		members = append(members[1:], next.addr)
		r.name("c", uint64(2+i), members...)
		eventually(t, "the client knows the new member", func() bool { return knows(c, next.addr) })
		r.lead(next)
		gone.stop()
		if held, err := c.IsLocked(t.Context(), "a"); err != nil || !held {
			t.Fatalf("IsLocked after %d replacements: %v, %v", i+1, held, err)
		}
	}
	if known := c.backend.(*remote).addresses(); len(known) != 4 || slices.Contains(known, old[1].addr) {
		t.Errorf("in the end it knows %q, want its endpoint and the three members %q", known, members)
	}
	if err := g.Err(); err != nil || r.cluster.holder("a") != g.Token() {
		t.Errorf("the grant: %v, and the holder is %d, want %d", err, r.cluster.holder("a"), g.Token())
	}
	mustUnlock(t, g)
}

func knows(c *Client, addr string) bool {
	return slices.Contains(c.backend.(*remote).addresses(), addr)
}

// A client without calls also learns of new members, and searches for another node when its
// own has ended.
func TestIdleClientFindsTheNodesThatWereReplaced(t *testing.T) {
	bubble(t, func(t *testing.T, network *simnet.Network) {
		r := newLabRing(t, network, 1)
		r.name("c", 1, r.nodes[0].addr)
		c := labClient(t, network, []string{r.nodes[0].addr})
		if _, err := c.IsLocked(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			gone, next := r.nodes[i], r.add(fmt.Sprintf("m%d:7400", i))
			r.name("c", uint64(2+i), next.addr)
			time.Sleep(time.Second)
			r.lead(next)
			gone.stop()
			time.Sleep(10 * time.Second)
			if l := c.backend.(*remote).link.Load(); l == nil || l.addr != next.addr {
				t.Fatalf("after replacement %d the client has not found the new node", i)
			}
		}
		if _, err := c.IsLocked(t.Context(), "a"); err != nil {
			t.Errorf("IsLocked: %v", err)
		}
	})
}

// At the address of a member, and at an endpoint, there is a node of another cluster now: in
// its table the lock is free.
func TestNodeOfAnotherClusterIsNotUsed(t *testing.T) {
	r, other := newRing(t, 2), newRing(t, 1)
	r.name("first", 1, r.nodes[0].addr, r.nodes[1].addr)
	other.name("second", 100, other.nodes[0].addr)
	c := r.dial(r.nodes[:1])
	g := mustLock(t, c, "a")
	for _, n := range r.nodes {
		n.stop()
		taken := other.add(n.addr)
		other.lead(taken)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := c.Lock(ctx, "b")
	wantErr(t, "Lock", err, ErrUnavailable)
	for _, want := range []string{r.nodes[0].addr, r.nodes[1].addr, "first", "second"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not mention %q", err, want)
		}
	}
	_, err = c.Members(t.Context())
	wantErr(t, "Members", err, ErrUnavailable)
	for _, n := range other.nodes {
		if direct, forward, refused := n.counts(); direct+forward+refused > 0 {
			t.Errorf("the other cluster was sent %d operations", direct+forward+refused)
		}
	}
	if knows(c, other.nodes[0].addr) {
		t.Error("the client has learned the addresses of the other cluster")
	}
	if err := g.Err(); err != nil {
		t.Errorf("the grant: %v", err)
	}
	// A node of its own cluster comes back.
	other.nodes[1].stop()
	r.nodes[0].start()
	mustUnlock(t, g)
	mustUnlock(t, mustLock(t, c, "b"))
}

// One endpoint is of another cluster when the client begins.
func TestClientWithAClusterIDUsesNoOtherCluster(t *testing.T) {
	t.Parallel()
	r, other := newRing(t, 1), newRing(t, 1)
	r.name("first", 1, r.nodes[0].addr)
	other.name("second", 1, other.nodes[0].addr)
	both := []*testNode{r.nodes[0], other.nodes[0]}
	r.lead(nil)
	c := r.dial(both, ClusterID("first"))
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := c.Lock(ctx, "a")
	wantErr(t, "Lock", err, ErrUnavailable)
	r.lead(r.nodes[0])
	mustUnlock(t, mustLock(t, c, "a"))
	if direct, forward, refused := other.nodes[0].counts(); direct+forward+refused > 0 {
		t.Errorf("the other cluster was sent %d operations", direct+forward+refused)
	}
}

// Another node gets the address between the call of Status and the stream.
func TestStreamToAnotherClusterIsLeft(t *testing.T) {
	r := newRing(t, 2)
	r.name("first", 1, r.nodes[0].addr, r.nodes[1].addr)
	c := r.dial(r.nodes)
	mustUnlock(t, mustLock(t, c, "a"))
	link := c.backend.(*remote).link.Load()
	c.backend.(*remote).onDirectory(link, directoryOf("second", 9, "n1=10.0.0.1:1"))
	if c.backend.(*remote).link.Load() == link {
		t.Error("the stream is still used")
	}
	if knows(c, "10.0.0.1:1") {
		t.Error("the directory of the other cluster was adopted")
	}
	mustUnlock(t, mustLock(t, c, "a"))
}

// Calls carry the ID of the cluster that they are meant for, so that another node refuses them.
func TestCallsNameTheCluster(t *testing.T) {
	r := newRing(t, 1)
	r.name("first", 1, r.nodes[0].addr)
	c := r.dial(r.nodes)
	mustUnlock(t, mustLock(t, c, "a"))
	if _, err := c.Members(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := r.nodes[0]
	n.mu.Lock()
	defer n.mu.Unlock()
	if want := []string{"/Session first", "/Members first"}; !slices.Equal(n.meant, want) {
		t.Errorf("calls are meant for %q, want %q", n.meant, want)
	}
}

// bubble runs f in a bubble with a network, and closes the network after it.
func bubble(t *testing.T, f func(t *testing.T, network *simnet.Network)) {
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New(1, simnet.Options{Latency: time.Millisecond})
		t.Cleanup(network.Close)
		f(t, network)
	})
}

// labClient is a client on a host of the network.
func labClient(t *testing.T, network *simnet.Network, endpoints []string, opts ...Option) *Client {
	t.Helper()
	began := time.Now()
	c, err := Dial(t.Context(), endpoints, append([]Option{
		Clock(func() time.Duration { return time.Hour + time.Since(began) }),
		GRPC(grpc.WithContextDialer(network.Host("client").Dial)),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// grpc would dial an address without a listener ten times a second for as long as there is a
// connection to it, and every client of a program would do that.
func TestAddressesWithoutANodeAreNotDialledWhileAnotherIsUsed(t *testing.T) {
	bubble(t, func(t *testing.T, network *simnet.Network) {
		r := newLabRing(t, network, 1)
		unused := []string{"10.1.0.200:7400", "10.1.0.201:7400"}
		for i := range 2 {
			network.Host(fmt.Sprintf("unused%d", i))
			unused[i] = network.Host(fmt.Sprintf("unused%d", i)).IP().String() + ":7400"
		}
		r.name("c", 1, r.nodes[0].addr, unused[0], unused[1])
		c := labClient(t, network, append([]string{r.nodes[0].addr}, unused...))
		mustUnlock(t, mustLock(t, c, "a"))
		r.lead(nil) // so that the others are asked
		r.nodes[0].stop()
		time.Sleep(time.Minute)
		r.nodes[0].start()
		r.lead(r.nodes[0])
		mustUnlock(t, mustLock(t, c, "a"))
		before := network.Stats()
		time.Sleep(10 * time.Minute)
		mustUnlock(t, mustLock(t, c, "a"))
		if after := network.Stats(); after.Refused > before.Refused {
			t.Errorf("%d connections were refused while the client had a node", after.Refused-before.Refused)
		}
	})
}

// A connection that failed is made again when the node is asked, also while other calls use
// it all the time.
func TestConnectionThatFailedIsMadeAgainWhileOthersUseIt(t *testing.T) {
	bubble(t, func(t *testing.T, network *simnet.Network) {
		r := newLabRing(t, network, 1)
		n := r.nodes[0]
		n.stop()
		b := labClient(t, network, []string{n.addr}).backend.(*remote)
		_, first, err := b.hold(n.addr)
		if err != nil {
			t.Fatal(err)
		}
		if p := b.probe(t.Context(), n.addr); p.err == nil {
			t.Fatal("a node that does not run has answered")
		}
		before := network.Stats().Refused
		for range 1000 {
			_ = b.probe(t.Context(), n.addr)
		}
		if refused := network.Stats().Refused - before; refused > 1 {
			t.Errorf("%d connections for a thousand questions at once, want at most one", refused)
		}
		n.start()
		time.Sleep(2 * leastAttempt)
		if p := b.probe(t.Context(), n.addr); p.err != nil {
			t.Errorf("a node that runs again was not reached: %v", p.err)
		}
		b.release(first)
		if state := first.GetState(); state != connectivity.Shutdown {
			t.Errorf("the connection that failed is %v after its last use", state)
		}
	})
}

// A client without calls also searches for a cluster that is down, at growing intervals.
func TestIdleClientSearchesAtGrowingIntervals(t *testing.T) {
	bubble(t, func(t *testing.T, network *simnet.Network) {
		r := newLabRing(t, network, 1)
		c := labClient(t, network, []string{r.nodes[0].addr})
		if _, err := c.IsLocked(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		r.lead(nil)
		r.nodes[0].stop()
		time.Sleep(10 * time.Minute)
		before := network.Stats().Refused
		time.Sleep(time.Hour)
		if n := network.Stats().Refused - before; n < 30 || n > 300 {
			t.Errorf("%d connections in an hour without a node and without a call, want one or two a minute", n)
		}
		// A call ends the long pause.
		r.nodes[0].start()
		r.lead(r.nodes[0])
		begun := time.Now()
		mustUnlock(t, mustLock(t, c, "a"))
		if d := time.Since(begun); d > time.Second {
			t.Errorf("a lock took %v", d)
		}
	})
}
