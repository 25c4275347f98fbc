package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Config says how a node takes part in gossip. Only Meta.NodeID and, without a
// Transport, Bind are required.
type Config struct {
	// Meta is what the node says of itself at the start; NodeID stays.
	Meta Meta
	// Bind is the host:port to listen on, TCP and UDP. Port 0 takes a free one.
	Bind string
	// Advertise is the host:port that peers dial; a port of 0 or no port means
	// the bound one. Empty: the bound address. Names are resolved at the start.
	Advertise string
	// Seeds are host:port of nodes to start gossip from. The host may be a name
	// with several addresses; names are resolved anew at each try. The node's
	// own address may be among them.
	Seeds []string
	// Label keeps clusters apart that share a network: packets with another
	// label are dropped before they are looked at. At most 255 bytes.
	Label string
	// Keys encrypt gossip: 16, 24 or 32 bytes each. The first one encrypts, all
	// of them decrypt. Empty: plaintext.
	Keys [][]byte
	// Fast shortens all times for nodes on one machine: failures are noticed
	// within about a second instead of about five.
	Fast bool
	// Logger is silent if nil.
	Logger *slog.Logger

	// Transport replaces the network, for tests and simulation. Bind is then
	// not used and Advertise is passed on to it.
	Transport memberlist.Transport
	// LookupHost replaces the resolver, for tests.
	LookupHost func(ctx context.Context, host string) ([]string, error)
}

func (cfg Config) validate() error {
	var errs []error
	if _, err := cfg.Meta.encode(); err != nil {
		errs = append(errs, err)
	}
	if cfg.Transport == nil {
		if _, _, err := net.SplitHostPort(cfg.Bind); err != nil {
			errs = append(errs, fmt.Errorf("gossip bind address %q: host:port is needed", cfg.Bind))
		}
	}
	for _, s := range cfg.Seeds {
		if _, _, err := splitSeed(s); err != nil {
			errs = append(errs, err)
		}
	}
	if len(cfg.Label) > memberlist.LabelMaxSize {
		errs = append(errs, fmt.Errorf("gossip label of %d bytes: at most %d are allowed", len(cfg.Label), memberlist.LabelMaxSize))
	}
	for i, k := range cfg.Keys {
		if err := memberlist.ValidateKey(k); err != nil {
			errs = append(errs, fmt.Errorf("gossip key %d of %d bytes: 16, 24 or 32 are allowed", i, len(k)))
		}
	}
	return errors.Join(errs...)
}

// Cluster is a running participation in gossip. All methods are safe for
// concurrent use.
type Cluster struct {
	cfg      cfgFixed
	ml       *memberlist.Memberlist
	table    *table
	delegate *delegate
	warn     *warner
	log      *slog.Logger
	keyring  *memberlist.Keyring // nil: plaintext
	addr     string              // own gossip host:port
	timing   timing

	metaMu sync.Mutex // orders SetMeta and Leave
	meta   Meta       // guarded by metaMu
	// sending holds a token while memberlist takes in a meta or the departure: a
	// later message about this node throws an earlier one out of the queue. It is
	// no mutex, because who waits for it waits for timers.
	sending chan struct{}
	left    bool // guarded by sending; memberlist may have dropped this node since

	kick    chan struct{} // capacity 1: the join loop should look again
	publish chan struct{} // capacity 1: the meta has changed
	stop    chan struct{} // closed by Close
	wg      sync.WaitGroup

	stateMu  sync.Mutex
	settled  bool   // the seeds have been tried once
	conflict string // another address under our name, seen in this join round

	leaveErr error // guarded by sending

	closeCalled atomic.Bool
	closed      chan struct{} // closed at the end of Close
	closeErr    error
}

// cfgFixed is what stays of the Config after Start.
type cfgFixed struct {
	NodeID     string
	Seeds      []string
	LookupHost func(ctx context.Context, host string) ([]string, error)
}

// timing is what Fast changes.
type timing struct {
	retryMin, retryMax time.Duration // between tries of the seeds while alone
	steady             time.Duration // between tries of missing seeds and failed peers
	dial               time.Duration // for one connection
	leave              time.Duration // for the last words on Close
	close              time.Duration // Close gives up waiting after this
}

// Start listens, tells seeds and peers about this node and begins to learn of
// others. It does not wait for any of them. On error nothing is left running.
func Start(cfg Config) (*Cluster, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.LookupHost == nil {
		cfg.LookupHost = net.DefaultResolver.LookupHost
	}
	c := &Cluster{
		cfg:     cfgFixed{NodeID: cfg.Meta.NodeID, Seeds: cfg.Seeds, LookupHost: cfg.LookupHost},
		table:   newTable(cfg.Meta.NodeID),
		warn:    newWarner(cfg.Logger),
		log:     cfg.Logger,
		meta:    cfg.Meta,
		kick:    make(chan struct{}, 1),
		publish: make(chan struct{}, 1),
		stop:    make(chan struct{}),
		sending: make(chan struct{}, 1),
		closed:  make(chan struct{}),
	}
	c.delegate = &delegate{c: c}
	buf, err := cfg.Meta.encode()
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	c.delegate.setMeta(buf)
	c.table.setCluster(cfg.Meta.ClusterID)

	mc, err := c.memberlistConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	gate, err := c.attach(mc, cfg)
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	if c.ml, err = memberlist.Create(mc); err != nil {
		gate.abandon()
		return nil, fmt.Errorf("start gossip on %q: %w", cfg.Bind, err)
	}
	c.addr = c.ml.LocalNode().Address()
	gate.open()
	c.wg.Add(2)
	go c.joinLoop()
	go c.publishLoop()
	return c, nil
}

// memberlistConfig also sets c.keyring and c.timing.
func (c *Cluster) memberlistConfig(cfg Config) (*memberlist.Config, error) {
	mc := memberlist.DefaultLANConfig()
	c.timing = timing{
		retryMin: 100 * time.Millisecond, retryMax: 3 * time.Second, steady: 10 * time.Second,
		dial: 2 * time.Second, leave: time.Second, close: 4 * time.Second,
	}
	mc.TCPTimeout = c.timing.dial
	mc.GossipInterval = 100 * time.Millisecond
	if cfg.Fast {
		c.timing = timing{
			retryMin: 20 * time.Millisecond, retryMax: 300 * time.Millisecond, steady: 500 * time.Millisecond,
			dial: time.Second, leave: 500 * time.Millisecond, close: 3 * time.Second,
		}
		mc.TCPTimeout = c.timing.dial
		mc.GossipInterval = 15 * time.Millisecond
		mc.ProbeInterval = 200 * time.Millisecond
		mc.ProbeTimeout = 100 * time.Millisecond
		mc.AwarenessMaxMultiplier = 3
		mc.PushPullInterval = 2 * time.Second
		mc.GossipToTheDeadTime = 5 * time.Second
	}
	mc.Name = cfg.Meta.NodeID
	mc.Label = cfg.Label
	mc.EnableCompression = false // packed messages are not taken in plain text; see plain.go
	mc.LogOutput, mc.Logger = nil, memberlistLogger(c.warn)
	mc.Delegate, mc.Events, mc.Alive, mc.Merge, mc.Conflict = c.delegate, c.delegate, c.delegate, c.delegate, c.delegate
	mc.DelegateProtocolMin, mc.DelegateProtocolMax, mc.DelegateProtocolVersion = metaVersion, metaVersion, metaVersion
	// A node that failed may come back at another address at once. Until its
	// failure is noticed the new address is refused; the join loop of the
	// restarted node sees that and tries again.
	mc.DeadNodeReclaimTime = time.Millisecond

	if len(cfg.Keys) > 0 {
		ring, err := memberlist.NewKeyring(cfg.Keys, cfg.Keys[0])
		if err != nil {
			return nil, err
		}
		c.keyring, mc.Keyring = ring, ring
	}
	return mc, nil
}

// attach gives mc its network: it resolves the addresses and binds.
func (c *Cluster) attach(mc *memberlist.Config, cfg Config) (_ *gate, err error) {
	mc.BindAddr, mc.BindPort, mc.AdvertisePort = "", 0, 0
	if cfg.Advertise != "" {
		if mc.AdvertiseAddr, mc.AdvertisePort, err = c.resolveOne(cfg.Advertise); err != nil {
			return nil, fmt.Errorf("gossip advertise address: %w", err)
		}
	}
	transport := cfg.Transport
	if transport == nil {
		ip, port, err := c.resolveOne(cfg.Bind)
		if err != nil {
			return nil, fmt.Errorf("gossip bind address: %w", err)
		}
		bound, err := c.listen(ip, port)
		if err != nil {
			return nil, err
		}
		transport, mc.BindAddr, mc.BindPort = bound, ip, bound.GetAutoBindPort()
		if mc.AdvertisePort == 0 {
			mc.AdvertisePort = mc.BindPort
		}
	}
	var refused func(net.Addr, error)
	if c.keyring == nil {
		refused = func(from net.Addr, why error) {
			c.warn.once("message", "gossip message refused", "gossip", fmt.Sprint(from), "err", why)
		}
	}
	g := newGate(transport, refused)
	mc.Transport = g
	return g, nil
}

// resolveOne turns host:port into one IP address and a port, as memberlist
// wants it for binding and advertising. No host means every interface.
func (c *Cluster) resolveOne(hostport string) (ip string, port int, err error) {
	host, p, err := net.SplitHostPort(hostport)
	if err != nil {
		host, p = hostport, "0"
	}
	if port, err = strconv.Atoi(p); err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%q: port must be 0 to 65535", hostport)
	}
	if host == "" {
		return "0.0.0.0", port, nil
	}
	if net.ParseIP(host) != nil {
		return host, port, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	addrs, err := c.cfg.LookupHost(ctx, host)
	if err != nil {
		return "", 0, fmt.Errorf("%q: %w", hostport, err)
	}
	for _, a := range addrs { // IPv4 first: that is what "localhost" peers use
		if parsed := net.ParseIP(a); parsed != nil && parsed.To4() != nil {
			return a, port, nil
		}
	}
	if len(addrs) == 0 {
		return "", 0, fmt.Errorf("%q: no address", hostport)
	}
	return addrs[0], port, nil
}

// Addr is the host:port under which peers reach this node's gossip.
func (c *Cluster) Addr() string { return c.addr }

// Peers returns the other nodes that gossip knows, sorted by node ID: those
// alive, and those that failed or left since this node started (the last 1024
// of them). Peers of another cluster are not among them.
func (c *Cluster) Peers() []Peer { return c.table.list() }

// Peer returns the one of Peers that has the node ID, if there is one.
func (c *Cluster) Peer(id string) (Peer, bool) { return c.table.peer(id) }

// Changes returns a channel that is closed at the next change of what Peers,
// Settled and Conflict return. Take the channel first, then look, then wait:
// no change is missed, and any number of goroutines may do so.
func (c *Cluster) Changes() <-chan struct{} { return c.table.changes() }

// Settled is true once every seed has been tried, reached or not. A node
// without seeds is settled from the start.
func (c *Cluster) Settled() bool {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	return c.settled
}

// Conflict returns the gossip address of another process that uses this node's
// ID and that the peers believe to be alive, or "". After a restart at another
// address it names the old address until the peers notice that it is gone.
func (c *Cluster) Conflict() string {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	return c.conflict
}

// Meta returns what the node says of itself now.
func (c *Cluster) Meta() Meta {
	c.metaMu.Lock()
	defer c.metaMu.Unlock()
	return c.meta
}

// SetMeta changes what the node says of itself; peers learn of it within a few
// gossip rounds. It does not wait for them. On error (another node ID, or a
// meta that is too long) the old meta stays. After Leave it changes nothing.
func (c *Cluster) SetMeta(m Meta) error {
	c.metaMu.Lock()
	defer c.metaMu.Unlock()
	if c.meta.Leaving {
		return nil
	}
	m.Leaving = false
	return c.setMetaLocked(m)
}

func (c *Cluster) setMetaLocked(m Meta) error {
	if m.NodeID != c.cfg.NodeID {
		return fmt.Errorf("set meta: node ID %q: it stays %q", m.NodeID, c.cfg.NodeID)
	}
	buf, err := m.encode()
	if err != nil {
		return fmt.Errorf("set meta: %w", err)
	}
	c.meta = m
	c.table.setCluster(m.ClusterID)
	if c.delegate.setMeta(buf) && !m.Leaving {
		signal(c.publish)
	}
	return nil
}

// publishLoop hands each new meta to memberlist, which takes its own lock and
// calls back into this package: nobody else should wait for that.
func (c *Cluster) publishLoop() {
	defer c.wg.Done()
	for {
		select {
		case <-c.stop:
			return
		case <-c.publish:
			// The wait is for the last of the retransmissions, which nobody here
			// needs: the message is queued by then.
			c.sending <- struct{}{}
			if !c.left {
				_ = c.ml.UpdateNode(time.Millisecond)
			}
			<-c.sending
		}
	}
}

// SetKeys replaces the gossip keys: the first encrypts from now on, all of them
// decrypt. To rotate without loss, give every node the new key as a second one,
// then as the first, then without the old one. A cluster that was started in
// plaintext cannot be given keys, and one with keys cannot lose its last.
func (c *Cluster) SetKeys(keys [][]byte) error {
	if c.keyring == nil || len(keys) == 0 {
		return errors.New("set gossip keys: encryption is chosen at start and stays")
	}
	for i, k := range keys {
		if err := memberlist.ValidateKey(k); err != nil {
			return fmt.Errorf("set gossip keys: key %d of %d bytes: 16, 24 or 32 are allowed", i, len(k))
		}
	}
	return c.setKeys(keys)
}

// Leave tells the peers that this node leaves for good, so that membership may
// remove it, and stops being one of them. It waits until a peer was told or ctx
// ends, and returns ctx's error then; some peers may have been told all the
// same. The node must be closed afterwards: it cannot return.
func (c *Cluster) Leave(ctx context.Context) error {
	c.metaMu.Lock()
	m := c.meta
	m.Leaving = true
	err := c.setMetaLocked(m)
	c.metaMu.Unlock()
	if err != nil {
		return fmt.Errorf("leave gossip: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- c.sayLeave(true) }() // ends within 2 × timing.leave and what tellAll began
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("leave gossip: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("leave gossip: %w", context.Cause(ctx))
	}
}

// sayLeave announces the departure once; later calls return the first result.
func (c *Cluster) sayLeave(forGood bool) error {
	c.sending <- struct{}{}
	defer func() { <-c.sending }()
	if c.left {
		return c.leaveErr
	}
	if forGood {
		// The meta that says so has to arrive before the departure itself, which
		// takes its place in the queue: so it goes to each peer directly, too.
		_ = c.ml.UpdateNode(time.Millisecond)
		c.tellAll()
	}
	c.left = true
	c.leaveErr = c.ml.Leave(c.timing.leave)
	return c.leaveErr
}

// tellAll hands this node's state to every peer, and waits for that at most
// timing.leave.
func (c *Cluster) tellAll() {
	var addrs []string
	for _, p := range c.table.list() {
		if p.State == Alive {
			addrs = append(addrs, p.Gossip)
		}
	}
	done := make(chan struct{})
	go func() { c.exchange(addrs); close(done) }()
	select {
	case <-done:
	case <-time.After(c.timing.leave):
	}
}

// Close stops gossip. Peers are told that the node stops, so that they need
// not probe it, but not that it leaves: it may come back under its ID, also at
// another address. Close waits for the goroutines of this package, at most about
// five seconds, and returns an error if some were left then; memberlist's last
// probe may go on for the seconds that it takes. Close may be called again.
func (c *Cluster) Close() error {
	if c.closeCalled.CompareAndSwap(false, true) {
		close(c.stop)
		_ = c.sayLeave(false)
		c.warn.closed.Store(true)
		err := c.ml.Shutdown()
		done := make(chan struct{})
		go func() { c.wg.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(c.timing.close):
			err = errors.Join(err, errors.New("goroutines are still running"))
		}
		if err != nil {
			c.closeErr = fmt.Errorf("close gossip: %w", err)
		}
		close(c.closed)
	}
	<-c.closed
	return c.closeErr
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
