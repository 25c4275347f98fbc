package node

import (
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/seam"
)

// peers keeps one gRPC connection to each other node, by API address. Addresses
// come from gossip; connections to addresses that are gone are closed by prune.
type peers struct {
	// address returns the API address of a node ID, empty if it is not known.
	address func(id string) string
	dial    []grpc.DialOption

	mu     sync.Mutex
	conns  map[string]*grpc.ClientConn // API address → connection
	closed bool
}

// newPeers dials over network, over the real one if it is nil.
func newPeers(address func(id string) string, network seam.Network) *peers {
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second, // two round trips of what the longest timing allows
		}),
	}
	if network != nil {
		dial = append(dial, grpc.WithContextDialer(network.Dial))
	}
	return &peers{address: address, dial: dial, conns: make(map[string]*grpc.ClientConn)}
}

// conn returns the connection to an API address. It does not wait for it to be
// established.
func (p *peers) conn(api string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("connect to %s: node is stopping", api)
	}
	if cc := p.conns[api]; cc != nil {
		return cc, nil
	}
	cc, err := grpc.NewClient("passthrough:///"+api, p.dial...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", api, err)
	}
	p.conns[api] = cc
	return cc, nil
}

// peer returns the node-to-node service of a node.
func (p *peers) peer(id string) (apiv1.PeersClient, error) {
	api := p.address(id)
	if api == "" {
		return nil, fmt.Errorf("node %q: its API address is not known", id)
	}
	cc, err := p.conn(api)
	if err != nil {
		return nil, err
	}
	return apiv1.NewPeersClient(cc), nil
}

// prune closes connections to addresses that are not in keep.
func (p *peers) prune(keep map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for api, cc := range p.conns {
		if !keep[api] {
			_ = cc.Close()
			delete(p.conns, api)
		}
	}
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, cc := range p.conns {
		_ = cc.Close()
	}
	clear(p.conns)
}
