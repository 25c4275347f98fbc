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
	portsPerNode = 4 // API, HTTP, Raft, gossip: consecutive

	// Below the range from which Linux takes the ports of outgoing connections,
	// so that a connection never sits on a port that a restarted node wants.
	lowestPort  = 10_000
	highestPort = 32_000
)

var errNoPorts = errors.New("no block of four consecutive free ports was found; is another cluster of tests running?")

// freeBases finds n blocks of consecutive ports that were free a moment ago.
// Nothing reserves them: whoever binds first has them, so callers try again
// with others when a node finds its ports taken.
func freeBases(n int) ([]int, error) {
	var held []func()
	defer func() {
		for _, release := range held {
			release()
		}
	}()
	var bases []int
	for try := 0; len(bases) < n; try++ {
		if try == 500 {
			return nil, errNoPorts
		}
		base := lowestPort + 10*rand.IntN((highestPort-lowestPort)/10)
		release, err := holdBlock(base)
		if err != nil {
			continue
		}
		held = append(held, release)
		bases = append(bases, base)
	}
	return bases, nil
}

// holdBlock listens on all ports of a block until release is called.
func holdBlock(base int) (release func(), err error) {
	var closers []interface{ Close() error }
	release = func() {
		for _, c := range closers {
			_ = c.Close() // listeners that never accepted: nothing can be lost
		}
	}
	for i := range portsPerNode {
		l, err := net.Listen("tcp", loopback(base+i))
		if err != nil {
			release()
			return nil, fmt.Errorf("hold port %d: %w", base+i, err)
		}
		closers = append(closers, l)
	}
	p, err := net.ListenPacket("udp", loopback(base+portsPerNode-1))
	if err != nil {
		release()
		return nil, fmt.Errorf("hold gossip port %d: %w", base+portsPerNode-1, err)
	}
	closers = append(closers, p)
	return release, nil
}

func loopback(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
