package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
	// Meta describes the node to its peers at the start; NodeID cannot change.
	Meta Meta
	// Bind is the host:port to listen on, TCP and UDP. Port 0 takes a free one.
	Bind string
	// Listener replaces Bind: Start takes it over, and closes it on error.
	Listener *Listener
	// Advertise is the host:port that peers dial; a port of 0 or no port means
	// the bound one. Empty: the bound address. A name is resolved at the start; if
	// it has no address yet, gossip begins when it has one.
	Advertise string
	// Seeds are host:port of nodes to start gossip from. The host may be a name
	// with several addresses; names are resolved anew at each try. The node's
	// own address may be among them.
	Seeds []string
	// Known has the last known address of each member, by node ID. A member is contacted
	// there until gossip finds it or it is no member any more; see SetMembers.
	Known map[string]string
	// Label keeps clusters apart that share a network: packets with another
	// label are dropped unread. At most 255 bytes.
	Label string
	// Keys encrypt gossip: 16, 24 or 32 bytes each. The first one encrypts, all
	// of them decrypt. Empty: plaintext.
	Keys [][]byte
	// KeyExchange has the nodes agree on Keys. The zero value: the keys are the caller's to set.
	KeyExchange KeyExchange
	// Fast shortens all times for nodes on one machine: failures are noticed
	// within about a second instead of about five.
	Fast bool
	// Logger is silent if nil.
	Logger *slog.Logger

	// Admit returns why a connection is refused; nil accepts all.
	Admit func(net.Conn) error

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
	if cfg.Transport == nil && cfg.Listener == nil {
		if _, _, err := net.SplitHostPort(cfg.Bind); err != nil {
			errs = append(errs, fmt.Errorf("gossip bind address: is %q, must be host:port", cfg.Bind))
		}
	}
	if _, p, err := net.SplitHostPort(cfg.Advertise); err == nil {
		if n, err := strconv.Atoi(p); err != nil || n < 0 || n > 65535 {
			errs = append(errs, fmt.Errorf("gossip advertise address: is %q, must have a port from 0 to 65535", cfg.Advertise))
		}
	}
	for _, s := range cfg.Seeds {
		if _, _, err := splitSeed(s); err != nil {
			errs = append(errs, err)
		}
	}
	if len(cfg.Label) > memberlist.LabelMaxSize {
		errs = append(errs, fmt.Errorf("gossip label: is %d bytes long, must be at most %d", len(cfg.Label), memberlist.LabelMaxSize))
	}
	for i, k := range cfg.Keys {
		if err := memberlist.ValidateKey(k); err != nil {
			errs = append(errs, fmt.Errorf("gossip key %d: is %d bytes long, must be 16, 24 or 32", i, len(k)))
		}
	}
	return errors.Join(errs...)
}

// Cluster is a running participation in gossip. All methods are safe for
// concurrent use.
type Cluster struct {
	cfg      cfgFixed
	created  chan struct{}          // closed when ml runs
	ml       *memberlist.Memberlist // not before created
	table    *table
	circle   *circle
	delegate *delegate
	gate     *gate
	warn     *warner
	log      *slog.Logger
	keyring  *memberlist.Keyring // nil: plaintext
	keysMu   sync.Mutex          // held while the keys of keyring are changed
	timing   timing

	exchangeKeys KeyExchange

	metaMu sync.Mutex // orders SetMeta and Leave
	meta   Meta       // guarded by metaMu
	// sending holds a token while memberlist queues a meta or the departure, because a
	// later message about this node replaces an earlier one in the queue. It is no mutex,
	// because it is held while timers run.
	sending chan struct{}
	left    bool // guarded by sending; memberlist may have dropped this node since

	woken   chan struct{}   // capacity 1: the join loop should look again
	publish chan struct{}   // capacity 1: the meta has changed
	ctx     context.Context // of look-ups; ends with Close
	cancel  context.CancelFunc
	stop    chan struct{} // closed by Close
	begun   chan struct{} // closed when ml is created, or will not be
	wg      sync.WaitGroup

	stateMu  sync.Mutex
	addr     string // own gossip host:port
	unnamed  string // why gossip has not begun
	askAll   bool   // the next join round asks the alive peers, too
	settled  bool   // the seeds have been tried once
	conflict string // another address with this node's ID, seen in this join round
	taken    struct {
		since, last time.Time // when this node's ID was first and last seen at another address
		told        bool      // it was logged
	}

	leaveErr error // guarded by sending

	closeCalled atomic.Bool
	closed      chan struct{} // closed at the end of Close
	closeErr    error
}

// cfgFixed is what stays of the Config after Start.
type cfgFixed struct {
	NodeID     string
	Seeds      []string
	Known      map[string]string
	LookupHost func(ctx context.Context, host string) ([]string, error)
}

// timing is what Fast changes.
type timing struct {
	retryMin, retryMax time.Duration // between tries of the seeds while alone
	// quiet is how long another address with this node's ID must not be seen until it counts
	// as gone.
	quiet  time.Duration
	steady time.Duration // between tries of missing seeds and failed peers
	dial   time.Duration // for one connection
	forget time.Duration // until a peer that is gone and no member is forgotten
	leave  time.Duration // for the announcement on Close
	close  time.Duration // Close gives up waiting after this
}

// Start listens, announces this node to seeds and peers and begins to learn about
// others. It does not wait for any of them. On error nothing is left running.
func Start(cfg Config) (*Cluster, error) {
	c, err := begin(cfg)
	if err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	return c, nil
}

func begin(cfg Config) (*Cluster, error) {
	if err := cfg.validate(); err != nil {
		return nil, errors.Join(err, cfg.abandon())
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.LookupHost == nil {
		cfg.LookupHost = net.DefaultResolver.LookupHost
	}
	c := &Cluster{
		cfg:    cfgFixed{NodeID: cfg.Meta.NodeID, Seeds: cfg.Seeds, Known: maps.Clone(cfg.Known), LookupHost: cfg.LookupHost},
		table:  newTable(cfg.Meta.NodeID),
		circle: newCircle(cfg),
		warn:   newWarner(cfg.Logger),
		log:    cfg.Logger,

		exchangeKeys: cfg.KeyExchange,

		meta:    cfg.Meta,
		woken:   make(chan struct{}, 1),
		publish: make(chan struct{}, 1),
		stop:    make(chan struct{}),
		created: make(chan struct{}),
		begun:   make(chan struct{}),
		sending: make(chan struct{}, 1),
		closed:  make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.delegate = &delegate{c: c}
	buf, err := cfg.Meta.encode()
	if err != nil {
		return nil, errors.Join(err, cfg.abandon())
	}
	c.delegate.setMeta(buf)
	c.table.setOwn(cfg.Meta)

	mc, err := c.memberlistConfig(cfg)
	if err != nil {
		return nil, errors.Join(err, cfg.abandon())
	}
	if c.gate, err = c.attach(mc, cfg); err != nil {
		return nil, err
	}
	if err := c.advertise(mc, cfg.Advertise); err != nil {
		c.wait(mc, cfg.Advertise, err)
		return c, nil
	}
	defer close(c.begun)
	if err := c.create(mc); err != nil {
		c.gate.abandon()
		return nil, err
	}
	return c, nil
}

// abandon closes the Listener that Start would have taken over.
func (cfg Config) abandon() error {
	if cfg.Listener != nil {
		return cfg.Listener.Close()
	}
	return nil
}

// advertise resolves the address that peers get.
func (c *Cluster) advertise(mc *memberlist.Config, hostport string) error {
	if hostport == "" {
		return nil
	}
	ip, port, err := resolveOne(c.ctx, hostport, c.cfg.LookupHost)
	if err != nil {
		return err
	}
	mc.AdvertiseAddr = ip
	if port != 0 || mc.AdvertisePort == 0 {
		mc.AdvertisePort = port
	}
	return nil
}

// wait begins gossip once the advertised name has an address.
func (c *Cluster) wait(mc *memberlist.Config, hostport string, why error) {
	c.setUnnamed(hostport, why)
	c.log.Warn("the advertised name has no address yet; gossip begins when it has one", "advertise", hostport, "err", why)
	c.wg.Go(func() {
		defer close(c.begun)
		for pause := c.timing.retryMin; ; pause = min(2*pause, c.timing.retryMax) {
			timer := time.NewTimer(pause)
			select {
			case <-c.stop:
				timer.Stop()
				return
			case <-timer.C:
			}
			err := c.advertise(mc, hostport)
			if err == nil {
				err = c.create(mc)
			}
			if err == nil {
				c.setUnnamed("", nil)
				c.log.Info("the advertised name has an address; gossip begins", "advertise", hostport, "gossip", c.Addr())
				return
			}
			c.setUnnamed(hostport, err)
		}
	})
}

// setUnnamed notes why gossip has not begun; the address is a name until it has.
func (c *Cluster) setUnnamed(hostport string, why error) {
	c.stateMu.Lock()
	if c.unnamed = ""; why != nil {
		c.addr = hostport
		c.unnamed = fmt.Sprintf("gossip has not begun: the advertised name has no address: %v", why)
	}
	c.stateMu.Unlock()
	c.table.touch()
}

// create starts memberlist on its network.
func (c *Cluster) create(mc *memberlist.Config) error {
	ml, err := memberlist.Create(mc)
	if err != nil {
		return err
	}
	c.stateMu.Lock()
	c.addr = ml.LocalNode().Address()
	c.stateMu.Unlock()
	c.ml = ml
	close(c.created)
	c.gate.open()
	c.wg.Add(2)
	go c.joinLoop()
	go c.publishLoop()
	return nil
}

// running is nil until memberlist runs.
func (c *Cluster) running() *memberlist.Memberlist {
	select {
	case <-c.created:
		return c.ml
	default:
		return nil
	}
}

// memberlistConfig also sets c.keyring and c.timing.
func (c *Cluster) memberlistConfig(cfg Config) (*memberlist.Config, error) {
	mc := memberlist.DefaultLANConfig()
	c.timing = timing{
		retryMin: 100 * time.Millisecond, retryMax: 3 * time.Second, steady: 10 * time.Second, quiet: 8 * time.Second,
		forget: time.Minute, dial: 2 * time.Second, leave: time.Second, close: 4 * time.Second,
	}
	mc.TCPTimeout = c.timing.dial
	mc.GossipInterval = 100 * time.Millisecond
	if cfg.Fast {
		c.timing = timing{
			retryMin: 20 * time.Millisecond, retryMax: 300 * time.Millisecond, steady: 500 * time.Millisecond, quiet: time.Second,
			forget: 10 * time.Second, dial: time.Second, leave: 500 * time.Millisecond, close: 3 * time.Second,
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
	mc.EnableCompression = false // compressed messages are refused; see checkmessages.go
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

// attach gives mc its network, which it binds if that has not been done.
func (c *Cluster) attach(mc *memberlist.Config, cfg Config) (_ *gate, err error) {
	mc.BindAddr, mc.BindPort, mc.AdvertisePort = "", 0, 0
	transport := cfg.Transport
	if transport == nil {
		l := cfg.Listener
		if l == nil {
			ip, port, err := resolveOne(c.ctx, cfg.Bind, cfg.LookupHost)
			if err != nil {
				return nil, fmt.Errorf("gossip bind address: %w", err)
			}
			bound, err := listen(ip, port, c.warn)
			if err != nil {
				return nil, err
			}
			l = &Listener{transport: bound, ip: ip}
		}
		transport, mc.BindAddr, mc.BindPort = l.transport, l.ip, l.transport.GetAutoBindPort()
		mc.AdvertisePort = mc.BindPort
	}
	refused := func(from net.Addr, why error) { c.warn.refused(fmt.Sprint(from), why) }
	admit := cfg.Admit
	if admit != nil {
		admit = func(conn net.Conn) error {
			err := cfg.Admit(conn)
			if err != nil {
				c.warn.once("connection", "gossip connection refused", "gossip", fmt.Sprint(conn.RemoteAddr()), "err", err)
			}
			return err
		}
	}
	g := newGate(transport, c.keyring != nil, refused, admit)
	g.answerKeys = cfg.KeyExchange.Answer
	mc.Transport = g
	return g, nil
}

// Addr is the host:port under which peers reach this node's gossip.
// It is the advertised name as long as that has no address.
func (c *Cluster) Addr() string {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	return c.addr
}

// Peers returns the other nodes that gossip knows, sorted by node ID: those
// alive, and those that failed or left since this node started and are members, or
// went a short time ago (the last 1024 of them). Peers of another cluster are not among them.
func (c *Cluster) Peers() []Peer { return c.table.list() }

// Peer returns the one of Peers that has the node ID, if there is one.
func (c *Cluster) Peer(id string) (Peer, bool) { return c.table.peer(id) }

// SetMembers says who belongs to the cluster, by node ID. From then on a peer that
// has failed or left and is no member is forgotten after a minute: another process may
// have its address by now. Before the first call nobody is forgotten.
func (c *Cluster) SetMembers(ids []string) { c.table.setMembers(ids) }

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
// ID and that the peers still see alive, or "". After a restart at another
// address it names the old address until the peers notice that it is gone.
func (c *Cluster) Conflict() string {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	return c.conflict
}

// Meta returns the present description of the node.
func (c *Cluster) Meta() Meta {
	c.metaMu.Lock()
	defer c.metaMu.Unlock()
	return c.meta
}

// SetMeta changes the description of the node; peers get it within a few
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
		return fmt.Errorf("set meta: node ID: is %q, must stay %q", m.NodeID, c.cfg.NodeID)
	}
	buf, err := m.encode()
	if err != nil {
		return fmt.Errorf("set meta: %w", err)
	}
	c.meta = m
	c.table.setOwn(m)
	if c.delegate.setMeta(buf) && !m.Leaving {
		wake(c.publish)
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

// AskAll has this node exchange its keys, and then its state, with all peers soon.
func (c *Cluster) AskAll() { c.askAgain() }

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
			return fmt.Errorf("set gossip keys: key %d: is %d bytes long, must be 16, 24 or 32", i, len(k))
		}
	}
	return c.setKeys(keys)
}

// Leave announces to the peers that this node leaves for good, so that membership may
// remove it, and ends its part in gossip. It waits until a peer has the announcement. If ctx
// ends first it returns ctx's error, and some peers may have the announcement nevertheless.
// The node must be closed afterwards: it cannot return.
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
	if c.running() == nil {
		c.left = true // nobody knows this node
		return nil
	}
	if forGood {
		// The meta that says so has to arrive before the departure itself, which
		// replaces it in the queue: so it goes to each peer directly, too.
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

// Close stops gossip. It announces that the node stops, so that peers need not probe it,
// and not that it leaves: it may come back under its ID, also at another address. Close waits for the goroutines of this package, at most about
// five seconds, and returns an error if some were left then; memberlist's last
// probe may go on for the seconds that it takes. Close may be called again.
func (c *Cluster) Close() error {
	if c.closeCalled.CompareAndSwap(false, true) {
		close(c.stop)
		c.cancel()
		<-c.begun
		_ = c.sayLeave(false)
		c.warn.closed.Store(true)
		var err error
		if ml := c.running(); ml != nil {
			err = ml.Shutdown()
		} else {
			c.gate.abandon()
		}
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

// wake has the goroutine that receives from woken look again.
func wake(woken chan struct{}) {
	select {
	case woken <- struct{}{}:
	default:
	}
}
