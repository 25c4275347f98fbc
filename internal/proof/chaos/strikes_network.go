//go:build unix

package chaos

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/locknode/locknode/internal/proof/netns"
	"github.com/locknode/locknode/internal/proof/proc"
	"github.com/locknode/locknode/internal/proof/proxy"
)

// meshHost is where nodes and clients reach each other, through proxies. All of
// 127.0.0.0/8 is loopback on Linux.
const meshHost = "127.0.0.2"

// silentBound is the recovery bound where a node falls silent without its connections
// ending: a client notices that after up to two seconds.
const silentBound = 3 * time.Second

// forwardBound is for clients that do not reach the leader: they wait another second
// for its answer before they ask another node to forward.
const forwardBound = 5 * time.Second

// prober is the name of this process in the network: of probes and keeper.
const prober = "prober"

var networkKinds = []Kind{
	networkKind("isolate-leader", "the leader is cut off from the other nodes", true, func(n *netState) {
		n.cut(n.leader, n.others)
		n.cut(n.others, n.leader)
	}),
	networkKind("mute-leader", "the others receive nothing from the leader, and it receives everything", true, func(n *netState) { n.cut(n.leader, n.others) }),
	networkKind("deaf-leader", "the leader receives nothing from the others, and they receive everything", true, func(n *netState) { n.cut(n.others, n.leader) }),
	networkKind("isolate-follower", "a follower is cut off from the other nodes", true, func(n *netState) {
		n.cut(n.one, n.nodes)
		n.cut(n.nodes, n.one)
	}),
	networkKind("bridge", "the leader and a follower do not reach each other, the other nodes reach both", true, func(n *netState) {
		n.cut(n.leader, n.one)
		n.cut(n.one, n.leader)
	}),
	networkKind("ring", "each node reaches only one other, in a ring", false, func(n *netState) {
		for i, from := range n.nodes {
			for j, to := range n.nodes {
				if j != (i+1)%len(n.nodes) {
					n.cut([]string{from}, []string{to})
				}
			}
		}
	}),
	networkKind("split-all", "no node reaches another", false, func(n *netState) { n.cut(n.nodes, n.nodes) }),
	exchangedAndCut,
	byProxy(networkKind("half-open", "everything between the leader and the others is lost on open connections", true, func(n *netState) {
		n.mesh.Set(n.leader, n.others, proxy.Rule{Lose: true})
		n.mesh.Set(n.others, n.leader, proxy.Rule{Lose: true})
	})),
	byProxy(networkKind("delay", "everything between the nodes takes 40 ms longer", true, func(n *netState) {
		n.mesh.Set(n.nodes, n.nodes, proxy.Rule{Delay: 40 * time.Millisecond})
	})),
	byProxy(networkKind("reset", "all connections between nodes are reset", true, func(n *netState) {
		n.mesh.Reset(func(from, to string) bool { return slices.Contains(n.nodes, from) && slices.Contains(n.nodes, to) })
	})),
}

var clientNetworkKinds = []Kind{
	clientKind("clients-off-leader", "no client reaches the leader; all reach the other nodes, which forward", true, func(n *netState) {
		n.cut(n.clients, n.leader)
		n.cut(n.leader, n.clients)
	}),
	clientKind("client-off", "a client process reaches no node, for longer than its short sessions last", true, func(n *netState) {
		n.cut(n.client, n.nodes)
		n.cut(n.nodes, n.client)
	}),
	byProxy(clientKind("client-half-open", "all answers to a client process are lost", true, func(n *netState) {
		n.mesh.Set(n.nodes, n.client, proxy.Rule{Lose: true})
	})),
	byProxy(clientKind("clients-delay", "everything between clients and nodes takes 100 ms longer", true, func(n *netState) {
		n.mesh.Set(n.clients, n.nodes, proxy.Rule{Delay: 100 * time.Millisecond})
		n.mesh.Set(n.nodes, n.clients, proxy.Rule{Delay: 100 * time.Millisecond})
	})),
	byProxy(clientKind("clients-reset", "all connections of clients are reset", true, func(n *netState) {
		n.mesh.Reset(func(from, to string) bool { return slices.Contains(n.clients, from) && slices.Contains(n.nodes, to) })
	})),
}

// exchangedAndCut leaves the leader with less than half of the nodes while gossip does not
// have their new addresses yet: a node that is counted twice would make them a majority.
var exchangedAndCut = Kind{
	Name: "exchange-addresses-cut", Family: "network", Bound: silentBound, hold: span{time.Second, 3 * time.Second}, needs: needsNetwork,
	About: "two nodes are killed and come back at each other's addresses, and the leader is cut off with half of the others",
	strike: func(ctx context.Context, r *run, s strike) error {
		a, b := r.pair(s)
		if err := kill([]*proc.Node{a, b}); err != nil {
			return err
		}
		if err := r.exchange(a, b); err != nil {
			return err
		}
		if err := errors.Join(a.Start(), b.Start()); err != nil {
			return err
		}
		if _, err := r.listening([]*proc.Node{a, b}, 2); err != nil {
			return err
		}
		return r.breakNetwork(ctx, s, true, func(n *netState) {
			with := int(s.Pick>>32) % len(n.others)
			others := append(n.others[with:len(n.others):len(n.others)], n.others[:with]...)
			beside := (len(n.nodes)-1)/2 - 1
			few, most := append(slices.Clone(n.leader), others[:beside]...), others[beside:]
			n.cut(few, most)
			n.cut(most, few)
		})
	},
}

// netState is who there is when the network is broken. Nodes have the names of their
// places, which stay where they are when nodes exchange their addresses.
type netState struct {
	mesh    *proxy.Mesh // or
	lab     *netns.Lab
	err     error // of the lab
	nodes   []string
	leader  []string // one
	others  []string // nodes but the leader
	one     []string // of others
	clients []string // processes, this one included
	client  []string // one, not this one
}

func (n *netState) cut(from, to []string) {
	if n.lab == nil {
		n.mesh.Cut(from, to)
		return
	}
	n.err = errors.Join(n.err, n.lab.Cut(from, to))
}

// networkKind breaks the network between nodes. If it leaves clients a majority
// that can talk, they are to be served meanwhile.
func networkKind(name, about string, served bool, breaks func(*netState)) Kind {
	return Kind{Name: name, Family: "network", About: about, Bound: silentBound, hold: span{time.Second, 3 * time.Second}, needs: needsNetwork,
		strike: func(ctx context.Context, r *run, s strike) error { return r.breakNetwork(ctx, s, served, breaks) }}
}

// byProxy makes a kind one that only proxies can do.
func byProxy(k Kind) Kind {
	k.needs = needsProxies
	return k
}

// clientKind breaks the network between clients and nodes.
func clientKind(name, about string, served bool, breaks func(*netState)) Kind {
	k := networkKind(name, about, served, breaks)
	k.Family, k.Bound, k.hold = "client", forwardBound, span{1500 * time.Millisecond, 4 * time.Second}
	return k
}

// needsProxies is for faults of single connections, which a network cannot have.
func needsProxies(r *run) error {
	if r.lab != nil {
		return errors.New("only proxies can do it, and the nodes are in network namespaces")
	}
	return needsNetwork(r)
}

// needsNetwork is for ways that are cut.
func needsNetwork(r *run) error {
	if r.lab != nil {
		return nil
	}
	if runtime.GOOS != "linux" {
		return errors.New("the proxies find out in /proc who has dialled, which only Linux has")
	}
	return nil
}

func (r *run) breakNetwork(ctx context.Context, s strike, served bool, breaks func(*netState)) error {
	n, err := r.netState(s)
	if err != nil {
		return err
	}
	from := r.clock.now()
	breaks(n)
	defer func() { _ = r.heal() }() // if it was not done below, there is another error
	if n.err != nil {
		return n.err
	}
	if served {
		if err := r.recovered(s, sinceFault, from, r.clock.now()); err != nil {
			return err
		}
	}
	_ = sleep(ctx, s.held()-(r.clock.now()-from)) // the end of ctx ends the fault
	if err := r.heal(); err != nil {
		return err
	}
	lifted := r.clock.now()
	return r.recovered(s, sinceLift, lifted, lifted)
}

// heal opens all ways.
func (r *run) heal() error {
	if r.lab != nil {
		return r.lab.Heal()
	}
	r.mesh.Heal()
	return nil
}

func (r *run) netState(s strike) (*netState, error) {
	leader, err := r.leader()
	if err != nil {
		return nil, err
	}
	n := &netState{mesh: r.mesh, lab: r.lab, leader: []string{leader.Place()}, clients: []string{prober}}
	for _, node := range r.cluster.Running() {
		n.nodes = append(n.nodes, node.Place())
		if node != leader {
			n.others = append(n.others, node.Place())
		}
	}
	n.one = []string{n.others[s.Pick%uint64(len(n.others))]}
	for _, c := range r.clients {
		n.clients = append(n.clients, c.Name)
	}
	n.client = []string{n.clients[1+s.Pick%uint64(len(r.clients))]}
	return n, nil
}

// wantsMesh reports whether any of the kinds breaks the network.
func wantsMesh(kinds []string) bool {
	return slices.ContainsFunc(slices.Concat(networkKinds, clientNetworkKinds), func(k Kind) bool { return slices.Contains(kinds, k.Name) })
}

// startMesh prepares the network in which proxies stand before the nodes.
func (r *run) startMesh() {
	r.mesh = proxy.NewMesh(meshHost, func() map[int]string {
		pids := map[int]string{os.Getpid(): prober}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, n := range r.nodes {
			pids[n.PID()] = n.Place()
		}
		for _, c := range r.clients {
			pids[c.PID()] = c.Name
		}
		return pids
	})
}

// startLab puts this process, the nodes and the client processes into network
// namespaces: this one is in its own already.
func (r *run) startLab() error {
	if !r.o.Netns {
		return nil
	}
	var err error
	r.lab, err = netns.New(prober)
	return err
}

// place is how a client process gets to where it is to be.
func (r *run) place(name string) (enter func() error, err error) {
	if r.lab == nil {
		return nil, nil
	}
	_, err = r.lab.Host(name)
	return func() error { return r.lab.Enter(name) }, err
}

// front puts proxies before a node.
func (r *run) front(n *proc.Node) error {
	r.mu.Lock()
	r.nodes = append(r.nodes, n)
	r.mu.Unlock()
	return r.mesh.Front(n.Place(), []string{n.API(), n.Raft(), n.Gossip()}, n.Gossip())
}

// unfront takes the proxies away from a node that is gone for good.
func (r *run) unfront(n *proc.Node) error {
	if r.mesh == nil {
		return nil
	}
	r.mu.Lock()
	r.nodes = slices.DeleteFunc(r.nodes, func(o *proc.Node) bool { return o == n })
	r.mu.Unlock()
	return r.mesh.Withdraw(n.Place())
}
