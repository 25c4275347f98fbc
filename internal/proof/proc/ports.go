//go:build unix

package proc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

const (
	portsPerNode = 4  // API, HTTP, Raft, gossip: consecutive
	portsApart   = 10 // from one block to the next; the last of them is the claim

	// Below the range from which Linux takes the ports of outgoing connections,
	// so that a connection never uses a port that a restarted node needs.
	lowestPort  = 10_000
	highestPort = 32_000
)

var errNoPorts = errors.New("no block of four consecutive free ports was found; is another cluster of tests running?")

// Ports are four consecutive ports for a node. No other claim, of this process or another, gets
// them until they are released, also not while the node is down: otherwise other nodes would
// look for the node there, and find one of another cluster.
type Ports struct {
	base  int
	claim net.Listener // nobody dials it
}

// ClaimPorts claims ports for n nodes. They were free a moment ago; programs that do
// not claim theirs may still take one, so callers try again with others then.
func ClaimPorts(n int) (claimed []*Ports, err error) {
	defer func() {
		if err != nil {
			releaseAll(claimed)
			claimed = nil
		}
	}()
	for try := 0; len(claimed) < n; try++ {
		if try == 500 {
			return claimed, errNoPorts
		}
		p := &Ports{base: lowestPort + portsApart*rand.IntN((highestPort-lowestPort)/portsApart)}
		if p.claim, err = net.Listen("tcp", loopback(p.base+portsApart-1)); err != nil {
			continue
		}
		if err = p.tryAll(); err != nil {
			p.Release()
			continue
		}
		claimed = append(claimed, p)
	}
	return claimed, nil
}

// Address is the first of the ports on loopback.
func (p *Ports) Address() string { return loopback(p.base) }

// Release gives the ports back. What listens there goes on.
func (p *Ports) Release() {
	_ = p.claim.Close() // it never accepted anything: nothing can be lost
}

func releaseAll(all []*Ports) {
	for _, p := range all {
		p.Release()
	}
}

// tryAll listens on each of the ports for a moment.
func (p *Ports) tryAll() error {
	for i := range portsPerNode {
		l, err := net.Listen("tcp", loopback(p.base+i))
		if err != nil {
			return fmt.Errorf("port %d: %w", p.base+i, err)
		}
		_ = l.Close() // it never accepted anything
	}
	u, err := net.ListenPacket("udp", loopback(p.base+portsPerNode-1))
	if err != nil {
		return fmt.Errorf("gossip port %d: %w", p.base+portsPerNode-1, err)
	}
	return u.Close()
}

func loopback(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
