package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/proof/simnet"
	"github.com/locknode/locknode/internal/proof/testall"
)

// names is a name service that can fail in several ways.
type names struct {
	mu    sync.Mutex
	ips   map[string][]string
	fails error
	made  func() []string // not nil: the addresses of every name
	hangs bool
	count int
}

var errNameService = errors.New("the name service is down")

func (n *names) lookup(ctx context.Context, host string) ([]string, error) {
	n.mu.Lock()
	n.count++
	ips, fails, hangs := n.ips[host], n.fails, n.hangs
	if n.made != nil {
		ips = n.made()
	}
	n.mu.Unlock()
	time.Sleep(5 * time.Millisecond) // the round trip
	switch {
	case hangs:
		<-ctx.Done()
		return nil, ctx.Err()
	case fails != nil:
		return nil, fails
	case ips == nil:
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return ips, nil
}

func (n *names) set(host string, nodes ...*testNode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ips == nil {
		n.ips = map[string][]string{}
	}
	n.ips[host] = []string{}
	for _, node := range nodes {
		ip, _, _ := net.SplitHostPort(node.addr)
		n.ips[host] = append(n.ips[host], ip)
	}
}

// change changes the name service.
func (n *names) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

func (n *names) lookups() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.count
}

const locks = "locks.example:7400"

// The node comes back at another address, which the name service returns after some
// seconds. A grpc resolver would wait for half a minute, and the lock would be lost.
func TestNameIsLookedUpAgainAtOnceWhenItsNodeIsLost(t *testing.T) {
	bubble(t, func(t *testing.T, network *simnet.Network) {
		r := newLabRing(t, network, 1)
		var dns names
		dns.set("locks.example", r.nodes[0])
		c := labClient(t, network, []string{locks}, Resolver(dns.lookup))
		g := mustLock(t, c, "a")
		for i := range 3 {
			time.Sleep(time.Minute)
			if n := dns.lookups(); n > 20*(i+1) {
				t.Errorf("%d lookups until loss %d", n, i+1)
			}
			r.nodes[i].stop()
			next := r.add(fmt.Sprintf("m%d:7400", i))
			r.lead(next)
			time.Sleep(3 * time.Second)
			dns.set("locks.example", next)
			time.Sleep(20 * time.Second) // twice the TTL of the session
			if err := g.Err(); err != nil {
				t.Fatalf("after loss %d: %v", i+1, err)
			}
		}
		mustUnlock(t, g)
	})
}

func TestNamesAreNotLookedUpWhileThereIsANode(t *testing.T) {
	bubble(t, func(t *testing.T, network *simnet.Network) {
		r := newLabRing(t, network, 1)
		var dns names
		dns.set("locks.example", r.nodes[0])
		c := labClient(t, network, []string{locks}, Resolver(dns.lookup))
		g := mustLock(t, c, "a")
		time.Sleep(time.Hour)
		if n := dns.lookups(); n != 1 {
			t.Errorf("%d lookups, want one", n)
		}
		mustUnlock(t, g)
	})
}

func TestEachAddressBehindANameIsAnEndpoint(t *testing.T) {
	bubble(t, func(t *testing.T, network *simnet.Network) {
		r := newLabRing(t, network, 5)
		r.show("10.1.0.99:1") // followers report a leader that does not exist
		var dns names
		dns.set("locks.example", r.nodes...)
		r.lead(r.nodes[3])
		c := labClient(t, network, []string{locks}, Resolver(dns.lookup))
		mustUnlock(t, mustLock(t, c, "a"))
		if direct, _, _ := r.nodes[3].counts(); direct == 0 {
			t.Error("the leader behind the name was not found")
		}
	})
}

// The address of a member may have a host name: a pod has a new IP address at every start.
func TestNameOfAMemberIsLookedUp(t *testing.T) {
	bubble(t, func(t *testing.T, network *simnet.Network) {
		r := newLabRing(t, network, 2)
		var dns names
		dns.set("pod-1.example", r.nodes[1])
		r.name("c", 1, "n1="+r.nodes[0].addr, "n2=pod-1.example:7400")
		c := labClient(t, network, []string{r.nodes[0].addr}, Resolver(dns.lookup))
		g := mustLock(t, c, "a")
		r.nodes[0].stop()
		r.lead(r.nodes[1])
		time.Sleep(time.Minute)
		mustUnlock(t, g)
	})
}

func TestFailingNameServiceForgetsNoAddress(t *testing.T) {
	for name, breaks := range map[string]func(*names){
		"fails": func(n *names) { n.fails = errNameService },
		"hangs": func(n *names) { n.hangs = true },
		"empty": func(n *names) { n.made = func() []string { return []string{} } },
		"waste": func(n *names) { n.made = func() []string { return []string{"no address", ""} } },
	} {
		bubble(t, func(t *testing.T, network *simnet.Network) {
			r := newLabRing(t, network, 1)
			var dns names
			dns.set("locks.example", r.nodes[0])
			c := labClient(t, network, []string{locks}, Resolver(dns.lookup))
			mustUnlock(t, mustLock(t, c, "a"))
			dns.change(func() { breaks(&dns) })
			r.lead(nil)
			r.nodes[0].stop()
			time.Sleep(time.Minute)
			r.nodes[0].start()
			r.lead(r.nodes[0])
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if g, err := c.Lock(ctx, "a"); err != nil {
				t.Errorf("%s: Lock: %v", name, err)
			} else {
				mustUnlock(t, g)
			}
		})
	}
}

// A name with other addresses at every lookup, of which none answers, causes a bounded number
// of lookups and connections, and once an address is right it is used.
func TestNameWithChangingAddressesIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, network *simnet.Network) {
		r := newLabRing(t, network, 1)
		var dns names
		dns.set("locks.example", r.nodes[0])
		c := labClient(t, network, []string{locks}, Resolver(dns.lookup), SessionTTL(12*time.Hour))
		b := c.backend.(*remote)
		g := mustLock(t, c, "a")
		dns.change(func() {
			dns.made = func() (ips []string) {
				for range 40 {
					ips = append(ips, fmt.Sprintf("10.9.%d.%d", rand.IntN(256), rand.IntN(256)))
				}
				return ips
			}
		})
		r.lead(nil)
		r.nodes[0].stop()
		unlocked := make(chan error, 1)
		go func() { _, err := c.IsLocked(t.Context(), "a"); unlocked <- err }()
		before := dns.lookups()
		outage := testall.Pick(5*time.Minute, 2*time.Minute)
		for range outage / (10 * time.Second) {
			time.Sleep(10 * time.Second)
			b.mu.Lock()
			peers := len(b.peers)
			b.mu.Unlock()
			if peers > maxPeers+maxPerName {
				t.Fatalf("%d nodes are remembered, want at most %d", peers, maxPeers)
			}
			if n := time.Duration(dns.lookups() - before); n > 20+outage/(2500*time.Millisecond) {
				t.Fatalf("%d lookups, want some at first and then one in 2.5 to 5 s", n)
			}
		}
		if n := time.Duration(dns.lookups() - before); n < outage/(10*time.Second) {
			t.Errorf("%d lookups in %v, want one in 2.5 to 5 s", n, outage)
		}
		dns.change(func() { dns.made = nil })
		r.nodes[0].start()
		r.lead(r.nodes[0])
		time.Sleep(30 * time.Second)
		select {
		case err := <-unlocked:
			if err != nil {
				t.Errorf("IsLocked: %v", err)
			}
		default:
			t.Error("the node was not found")
		}
		mustUnlock(t, g)
	})
}

// A name service that hangs delays neither operations of a client with another endpoint, nor
// Close.
func TestHangingLookupDelaysNoOperation(t *testing.T) {
	bubble(t, func(t *testing.T, network *simnet.Network) {
		r := newLabRing(t, network, 1)
		dns := names{hangs: true}
		c := labClient(t, network, []string{locks, r.nodes[0].addr}, Resolver(dns.lookup))
		begun := time.Now()
		mustUnlock(t, mustLock(t, c, "a"))
		if d := time.Since(begun); d > 100*time.Millisecond {
			t.Errorf("a lock took %v", d)
		}
		if _, err := c.Status(t.Context()); err != nil {
			t.Errorf("Status: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if d := time.Since(begun); d > 2*time.Second {
			t.Errorf("all together took %v", d)
		}
	})
}

func TestErrorHasTheUnknownHostName(t *testing.T) {
	bubble(t, func(t *testing.T, network *simnet.Network) {
		var dns names
		c := labClient(t, network, []string{locks}, Resolver(dns.lookup), ConnectTimeout(time.Second))
		for name, call := range map[string]func() error{
			"Lock":   func() error { _, err := c.Lock(t.Context(), "a"); return err },
			"Status": func() error { _, err := c.Status(t.Context()); return err },
		} {
			err := call()
			wantErr(t, name, err, ErrUnavailable)
			if !strings.Contains(err.Error(), locks+": ") || !strings.Contains(err.Error(), "is not known") {
				t.Errorf("%s: error %q does not say that the name is not known", name, err)
			}
		}
	})
}

// A certificate is for the name of the endpoint, not for its IP address.
func TestNodeIsAddressedByTheNameOfItsEndpoint(t *testing.T) {
	bubble(t, func(t *testing.T, network *simnet.Network) {
		r := newLabRing(t, network, 1)
		var dns names
		dns.set("locks.example", r.nodes[0])
		c := labClient(t, network, []string{locks}, Resolver(dns.lookup))
		mustUnlock(t, mustLock(t, c, "a"))
		n := r.nodes[0]
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.authority != locks {
			t.Errorf("the node was addressed as %q, want %q", n.authority, locks)
		}
	})
}
