package sim

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"regexp"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/proof/simnet"
)

// process is one client with a host of its own: a program beside the nodes.
type process struct {
	name  string
	clock clock
	pause pause
	drop  dropper

	mu     sync.Mutex // guards what follows
	client *client.Client
	opened *opened // by client, or by the one that was killed last
}

// opened has the sessions that one client has asked for. Another client may have the same
// holder.
type opened struct {
	mu  sync.Mutex // guards ids
	ids map[fsm.SessionID]bool
}

// intercept records the sessions that are asked for on a stream.
func (o *opened) intercept(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := streamer(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &openingStream{ClientStream: s, o: o}, nil
}

type openingStream struct {
	grpc.ClientStream
	o *opened
}

// SendMsg is part of grpc.ClientStream.
func (s *openingStream) SendMsg(m any) error {
	if q, ok := m.(*apiv1.SessionRequest); ok {
		s.o.mu.Lock()
		for _, op := range q.GetOperations() {
			if open := op.GetOpenSession(); open != nil {
				s.o.ids[fsm.SessionID(open.GetSession())] = true
			}
		}
		s.o.mu.Unlock()
	}
	return s.ClientStream.SendMsg(m)
}

// hasSession reports whether the cluster has a session of this client.
func (c *Cluster) hasSession(p *process) bool {
	p.mu.Lock()
	o := p.opened
	p.mu.Unlock()
	if o == nil {
		return false // nobody has dialled
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	for id := range o.ids {
		if c.sessions[id] {
			return true
		}
	}
	return false
}

// take removes the running client from the process.
func (p *process) take() *client.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	cl := p.client
	p.client = nil
	return cl
}

func (p *process) close() error {
	cl := p.take()
	if cl == nil {
		return nil
	}
	err := cl.Close()
	if errors.Is(err, client.ErrUnavailable) {
		return nil // it was told that its sessions have to run out
	}
	return err
}

// Client returns the client of this name, made with the options if there is none
// or if it was killed.
func (c *Cluster) Client(name string, opts ...client.Option) (*client.Client, error) {
	p, err := c.process(name)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil {
		return p.client, nil
	}
	host := c.net.Revive(name)
	own := &opened{ids: map[fsm.SessionID]bool{}}
	options := append([]client.Option{
		client.Holder(name),
		client.Logger(c.o.Logger.With("client", name)),
		client.Clock(p.clock.read),
		client.Trace(c.recorder.Trace(name)),
		client.GRPC(grpc.WithContextDialer(dialer(host))),
		client.GRPC(c.recorder.DialOptions(name)...),
		client.GRPC(grpc.WithChainStreamInterceptor(p.drop.intercept, own.intercept)),
	}, opts...)
	cl, err := client.Dial(context.Background(), c.endpoints(name), options...)
	if err != nil {
		return nil, fmt.Errorf("client %q: %w", name, err)
	}
	p.client, p.opened = cl, own
	return cl, nil
}

// endpoints returns the endpoints for a client of this name: two of three clients get only as
// many as are needed to include one of any majority, and have to learn the others.
func (c *Cluster) endpoints(name string) []string {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(name)) // never fails
	r := rand.New(rand.NewPCG(c.o.Seed, hash.Sum64()))
	var all []string
	for _, m := range c.nodes {
		all = append(all, c.address(m.name, apiPort))
	}
	if r.IntN(3) == 0 {
		return all
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:len(all)-len(all)/2]
}

func dialer(host *simnet.Host) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) { return host.Dial(ctx, addr) }
}

func (c *Cluster) isNode(name string) bool {
	for _, m := range c.nodes {
		if m.name == name {
			return true
		}
	}
	return false
}

// maxClients is how many hosts the network has room for, beside nodes.
const maxClients = 240

// process returns the client's process, and makes it if there is none.
func (c *Cluster) process(name string) (*process, error) {
	if c.isNode(name) {
		return nil, fmt.Errorf("client %q: a node has that name", name)
	}
	if len(name) > 64 || !clientName.MatchString(name) {
		return nil, fmt.Errorf("client name: is %q, must be 1 to 64 letters, digits, dots, dashes or underscores that begin with a letter", name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.clients {
		if p.name == name {
			return p, nil
		}
	}
	if c.closed {
		return nil, fmt.Errorf("client %q: the cluster is closed", name)
	}
	if len(c.clients) == maxClients {
		return nil, fmt.Errorf("client %q: there are %d already", name, maxClients)
	}
	c.net.Host(name)
	p := &process{name: name, clock: clock{now: c.Now}}
	c.clients = append(c.clients, p)
	return p, nil
}

var clientName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]*$`)

func (c *Cluster) noClient(name string) error {
	return fmt.Errorf("there is no client %q, only: %s", name, list(c.Clients()))
}

func (c *Cluster) findProcess(name string) *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.clients {
		if p.name == name {
			return p
		}
	}
	return nil
}

// Conn returns a connection from the host of a client to one node, recorded under
// the client's name: for protocols that the Go client does not speak. The caller
// closes it.
func (c *Cluster) Conn(name, node string) (*grpc.ClientConn, error) {
	if _, err := c.member(node); err != nil || c.isNode(name) {
		return nil, fmt.Errorf("connect client %q to %q: a client's and a node's name are needed", name, node)
	}
	if _, err := c.process(name); err != nil {
		return nil, err
	}
	options := append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(dialer(c.net.Revive(name))),
	}, c.recorder.DialOptions(name)...)
	return grpc.NewClient("passthrough:///"+c.address(node, apiPort), options...)
}

// KillClient ends a client as kill -9 ends a program: its sessions are left to
// run out. [Cluster.Client] starts another one of that name.
func (c *Cluster) KillClient(name string) error {
	p := c.findProcess(name)
	if p == nil {
		return fmt.Errorf("kill: %w", c.noClient(name))
	}
	cl := p.take()
	if cl == nil {
		return fmt.Errorf("kill client %q: it was killed already", name)
	}
	c.net.Kill(name)
	c.endPause(name, &p.pause)
	c.recorder.Fault("kill client "+name, c.Now(), 0)
	c.wg.Go(func() { _ = cl.Close() }) // reaches nobody any more
	return nil
}

// DropNextResponse drops the next answers to a client, with the stream that carries them.
func (c *Cluster) DropNextResponse(name string) error {
	p := c.findProcess(name)
	if p == nil {
		return fmt.Errorf("drop a response: %w", c.noClient(name))
	}
	p.drop.armed.Store(true)
	c.recorder.Fault("drop the next response to "+name, c.Now(), 0)
	return nil
}

// dropper drops answers.
type dropper struct{ armed atomic.Bool }

func (d *dropper) intercept(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, cancel := context.WithCancel(ctx)
	s, err := streamer(ctx, desc, cc, method, opts...)
	if err != nil {
		cancel()
		return nil, err
	}
	return &droppedStream{ClientStream: s, d: d, cancel: cancel}, nil
}

type droppedStream struct {
	grpc.ClientStream
	d      *dropper
	cancel context.CancelFunc
}

// RecvMsg is part of grpc.ClientStream.
func (s *droppedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		s.cancel()
		return err
	}
	if r, ok := m.(*apiv1.SessionResponse); ok && len(r.GetAnswers()) > 0 && s.d.armed.CompareAndSwap(true, false) {
		s.cancel()
		r.Reset()
		return io.ErrUnexpectedEOF
	}
	return nil
}
