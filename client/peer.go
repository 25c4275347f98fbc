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
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

const (
	// longestProbe bounds how long a search waits for the status of a node.
	longestProbe = 10 * time.Second
	// maxPeers bounds the nodes that are remembered.
	maxPeers = 2 * maxAddresses
)

// peer is one node as this client knows it: how to reach it, and how slow it is. The
// latter outlives streams and connections.
type peer struct {
	patience *mux.Patience // of its streams
	conn     *conn         // nil: there is none. Guarded by remote.mu
	late     atomic.Int32  // calls in a row that were not answered in time
	warned   string        // the other cluster that was logged last. Guarded by remote.mu
	warnedAt time.Time     // when. Guarded by remote.mu

	trouble atomic.Pointer[trouble] // why there is no connection; nil: there is one, or none was tried
	greeted atomic.Int32            // open connections on which the node has sent its settings
	hellos  atomic.Int64            // how many connections it has sent them on
}

// conn is a connection to a node, or the attempt to make one. It is closed once the peer
// has another one and no call or stream uses it. Its fields are guarded by remote.mu.
type conn struct {
	*grpc.ClientConn
	peer *peer
	uses int // by calls and streams
	made time.Time
}

// leastAttempt is the least time between two attempts to connect to a node. A search asks
// more often than that when it begins, and a thousand clients in one process do so at once.
const leastAttempt = 200 * time.Millisecond

// failed reports whether the attempt has failed, and another one is due.
func (c *conn) failed() bool {
	return c.GetState() == connectivity.TransientFailure && time.Since(c.made) > leastAttempt
}

// hold returns the node at addr with its connection, which is made when it is used, and
// replaced when it has failed. The caller releases it.
func (r *remote) hold(addr string) (*peer, *conn, error) {
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
	if p.conn != nil && p.conn.failed() {
		p.close() // a new one connects at once
	}
	if p.conn == nil {
		options := dialOptions(p, r.tls)
		if name := r.authorityLocked(addr); name != "" {
			options = append(options, grpc.WithAuthority(name))
		}
		if r.credential != nil {
			r.credential.again()
			options = append(options, grpc.WithPerRPCCredentials(newBearer(r.credential, addr, r.plainToken)))
		}
		options = append(options, grpc.WithChainUnaryInterceptor(r.addressed))
		cc, err := grpc.NewClient("passthrough:///"+addr, slices.Concat(options, r.dial)...)
		if err != nil {
			return nil, nil, fmt.Errorf("connect to %s: %w", addr, err)
		}
		p.conn = &conn{ClientConn: cc, peer: p, made: time.Now()}
	}
	p.conn.uses++
	return p, p.conn, nil
}

// addressed adds to a call which cluster it is meant for. Status is answered by the nodes of
// any cluster.
func (r *remote) addressed(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if method != apiv1.Locks_Status_FullMethodName {
		r.mu.Lock()
		cluster := r.cluster
		r.mu.Unlock()
		ctx = meantFor(ctx, cluster)
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

// release ends a use of a connection.
func (r *remote) release(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.releaseLocked()
}

func (c *conn) releaseLocked() {
	if c.uses--; c.uses == 0 && c.peer.conn != c {
		_ = c.Close() // the error says nothing: it is not used any more
	}
}

// close takes the node's connection from it. It is closed once no call uses it.
func (p *peer) close() {
	c := p.conn
	if p.conn = nil; c != nil && c.uses == 0 {
		_ = c.Close() // as above
	}
}

// prune closes unused connections that are not to a known address; with unconnected also those
// that have not been made: grpc would go on dialling every address at which no node is
// any more, and every client would do that. What was learned of a node is kept as
// long as its address is known.
func (r *remote) prune(unconnected bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.addressesLocked()
	for addr, p := range r.peers {
		listed := slices.Contains(known, addr)
		c := p.conn
		if c != nil && c.uses > 0 || listed && (c == nil || !unconnected || c.GetState() == connectivity.Ready) {
			continue
		}
		p.close()
		if !listed && len(r.peers) > maxPeers {
			delete(r.peers, addr)
		}
	}
}

// probeLimit is how long the node may take to answer a call from memory: as long as it
// may be silent on a stream, and twice as long after each call that it did not answer in
// time. Otherwise a client far away would never find the leader.
func (p *peer) probeLimit() time.Duration {
	return min(p.patience.Limit()<<min(p.late.Load(), 4), longestProbe)
}

// answered notes whether a call was answered in time.
func (p *peer) answered(err error) {
	if status.Code(err) == codes.DeadlineExceeded {
		p.late.Add(1)
	} else {
		p.late.Store(0)
	}
}

// dialOptions returns the options of the connections to a node.
func dialOptions(p *peer, s *security) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(listening{s.credentials(), p, s}),
		// Nodes allow a ping every 5 s, also without a stream. Streams have pings of
		// their own: these are for connections without calls.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 20 * time.Second, PermitWithoutStream: true}),
		// The search makes another connection when it asks a node again that could not be
		// reached. grpc's own attempts would go on in the pauses of the search, and
		// after it. ResetConnectBackoff at each search was tried: it can crash the process
		// (grpc-go #9155, a map that is read while another goroutine writes it).
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: time.Minute, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Minute},
			// Until the node has sent its settings, which takes two round trips.
			MinConnectTimeout: 2 * longestProbe,
		}),
		// The dial has a limit of its own, which grows: TCP repeats its first packet at
		// growing intervals, so that a node that is back would be found late.
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, 2*p.probeLimit())
			defer cancel()
			var d net.Dialer
			conn, err := d.DialContext(ctx, "tcp", addr)
			p.dialled(ctx, err)
			return conn, err
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(32 << 20)),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
	}
}
