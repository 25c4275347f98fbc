package client

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/locknode/locknode/internal/mux"
)

const (
	// longestProbe bounds the time that a node gets to say who leads.
	longestProbe = 10 * time.Second
	// maxPeers bounds the nodes of which something is remembered.
	maxPeers = 4 * maxEndpoints
)

// peer is one node as this client knows it: how to reach it, and how slow it is. The
// latter outlives streams and connections.
type peer struct {
	patience *mux.Patience    // with its streams
	cc       *grpc.ClientConn // nil: not connected. Guarded by remote.mu
	late     atomic.Int32     // questions in a row that were not answered in time
}

// peer returns the node at addr with its connection, which grpc makes and makes again.
func (r *remote) peer(addr string) (*peer, *grpc.ClientConn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nil, ErrClosed
	}
	p := r.peers[addr]
	if p == nil {
		p = &peer{patience: mux.NewPatience(0)}
		r.peers[addr] = p
	}
	if p.cc == nil {
		cc, err := grpc.NewClient(addr, slices.Concat(dialOptions(p), r.dial)...)
		if err != nil {
			return nil, nil, fmt.Errorf("connect to %s: %w", addr, err)
		}
		p.cc = cc
	}
	return p, p.cc, nil
}

func (p *peer) close() {
	if p.cc != nil {
		_ = p.cc.Close() // nobody uses it
		p.cc = nil
	}
}

// prune closes connections that are neither to endpoints nor in use.
func (r *remote) prune(used string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for addr, p := range r.peers {
		if addr == used || slices.Contains(r.endpoints, addr) {
			continue
		}
		p.close()
		if len(r.peers) > maxPeers {
			delete(r.peers, addr)
		}
	}
}

// probeLimit is how long the node may take to answer a simple question: as long as it
// may be silent on a stream, and twice as long after each that was in vain. Otherwise
// a client far away would never learn who leads.
func (p *peer) probeLimit() time.Duration {
	return min(p.patience.Limit()<<min(p.late.Load(), 4), longestProbe)
}

// answered notes whether an answer came in time.
func (p *peer) answered(err error) {
	if status.Code(err) == codes.DeadlineExceeded {
		p.late.Add(1)
	} else {
		p.late.Store(0)
	}
}

// dialOptions say how to reach a node.
func dialOptions(p *peer) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// Nodes allow a ping every 5 s, also without a stream. Streams have pings of
		// their own: these are for connections on which nothing is asked.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 20 * time.Second, PermitWithoutStream: true}),
		// The search has its own pace, and a node that restarts is found soon.
		// ResetConnectBackoff at each search was tried: it can crash the process
		// (grpc-go #9155, a map that is read while another goroutine writes it).
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 100 * time.Millisecond},
			// Until the node has said hello, which takes two round trips.
			MinConnectTimeout: 2 * longestProbe,
		}),
		// The first of them has a bound that grows: TCP itself repeats its first packet
		// ever more seldom, and a node that is back would be found late.
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, 2*p.probeLimit())
			defer cancel()
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(32 << 20)),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
	}
}
