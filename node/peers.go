package node

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/network"
	"github.com/locknode/locknode/internal/peerapi"
	"github.com/locknode/locknode/internal/seam"
	"github.com/locknode/locknode/internal/secure"
)

// place is a node and an API address at which it may be reached.
type place struct{ id, api string }

// peers keeps one gRPC connection to each other node at each of its addresses.
// Addresses come from gossip and are hints: every call names the node that it is meant
// for, and another node refuses it. After a refusal, and when there is no answer, the next
// known address of the node is tried. prune closes connections to addresses that are no
// longer known.
type peers struct {
	peersConfig
	dial   []grpc.DialOption
	places network.Places

	mu     sync.Mutex // guards what follows
	conns  map[place]*grpc.ClientConn
	closed bool
}

type peersConfig struct {
	self place // this node; its address is known when it listens
	// addresses returns those at which a node may be reached, the likeliest first.
	addresses func(id string) []string
	// cluster returns the ID of this node's cluster, empty if it is not known. nil: it is
	// never known.
	cluster func() string
	// key returns the key by which the nodes of the cluster know each other, empty if it is
	// not known. nil: it is never known.
	key     func() string
	network seam.Network   // nil is the real one
	dialer  *secure.Dialer // nil: plain text
}

func newPeers(c peersConfig) *peers {
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second, // two round trips of what the longest timing allows
		}),
	}
	if c.cluster == nil {
		c.cluster = func() string { return "" }
	}
	if c.key == nil {
		c.key = func() string { return "" }
	}
	return &peers{peersConfig: c, dial: dial, conns: make(map[place]*grpc.ClientConn)}
}

// find returns the address to try now for a node, empty if none is known.
func (p *peers) find(id string) place {
	hints := p.addresses(id)
	if len(hints) == 0 {
		return place{id: id}
	}
	return place{id, p.places.Choose(id, hints)}
}

// conn returns the connection to a node at an API address. It does not wait for it to
// be established.
func (p *peers) conn(id, api string) (*grpc.ClientConn, error) {
	at := place{id, api}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, fmt.Errorf("connect to node %q at %s: this node is stopping", id, api)
	case id == p.self.id || api == p.self.api:
		p.places.Failed(id, api)
		return nil, fmt.Errorf("connect to node %q at %s: that is this node, %q", id, api, p.self.id)
	}
	if cc := p.conns[at]; cc != nil {
		return cc, nil
	}
	last := &lastDial{over: dialTCP}
	if p.network != nil {
		last.over = p.network.Dial
	}
	if p.dialer != nil {
		last.over = func(ctx context.Context, addr string) (net.Conn, error) {
			return p.dialer.Dial(ctx, addr, id, dialTCP)
		}
	}
	cc, err := grpc.NewClient("passthrough:///"+api, append(slices.Clip(p.dial), grpc.WithContextDialer(last.dial),
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			var trailer metadata.MD
			err := invoke(p.meant(ctx, at), method, req, reply, cc, append(slices.Clip(opts), grpc.Trailer(&trailer))...)
			p.note(at, cc, err, trailer)
			return plainly(at, err, last.trouble())
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			s, err := open(p.meant(ctx, at), desc, cc, method, opts...)
			if err != nil {
				p.note(at, cc, err, nil)
				return nil, plainly(at, err, last.trouble())
			}
			return &meantStream{ClientStream: s, p: p, at: at, cc: cc, last: last}, nil
		}))...)
	if err != nil {
		return nil, fmt.Errorf("connect to node %q at %s: %w", id, api, err)
	}
	p.conns[at] = cc
	return cc, nil
}

func dialTCP(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// meantStream notes how a stream ends.
type meantStream struct {
	grpc.ClientStream
	p    *peers
	at   place
	cc   *grpc.ClientConn
	last *lastDial

	heard bool // something came; only RecvMsg uses it
}

// RecvMsg is part of grpc.ClientStream.
func (s *meantStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	switch {
	case err == nil:
		s.heard = true
	case !s.heard:
		s.p.places.Failed(s.at.id, s.at.api) // for example it was given up without an answer
	default:
		s.p.note(s.at, s.cc, err, s.Trailer())
	}
	return plainly(s.at, err, s.last.trouble())
}

// meant adds to ctx the node and the cluster that a call is meant for, and this node's key.
func (p *peers) meant(ctx context.Context, at place) context.Context {
	ctx = metadata.AppendToOutgoingContext(ctx, mux.MemberHeader, at.id)
	if id := p.cluster(); id != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, mux.ClusterHeader, id)
	}
	if key := p.key(); key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, mux.PeerHeader, key)
	}
	return ctx
}

// note has another address of a node tried if the end of a call shows that the node is not
// at this one.
func (p *peers) note(at place, cc *grpc.ClientConn, err error, trailer metadata.MD) {
	switch {
	case err == nil:
	case len(trailer.Get(mux.WrongNodeTrailer)) > 0,
		// A connection whose other end has moved while the network was cut seems to work:
		// nothing arrives that would end it.
		status.Code(err) == codes.DeadlineExceeded,
		status.Code(err) != codes.Canceled && cc.GetState() != connectivity.Ready:
		p.places.Failed(at.id, at.api)
	}
}

// peer returns the node-to-node service of a node.
func (p *peers) peer(id string) (peerapi.PeersClient, error) {
	at := p.find(id)
	if at.api == "" {
		return nil, fmt.Errorf("node %q: its API address is not known", id)
	}
	cc, err := p.conn(at.id, at.api)
	if err != nil {
		return nil, err
	}
	return peerapi.NewPeersClient(cc), nil
}

// prune closes connections to places that are not in keep.
func (p *peers) prune(keep map[place]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for at, cc := range p.conns {
		if !keep[at] {
			_ = cc.Close()
			delete(p.conns, at)
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
