package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/address"
	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/membership"
	"github.com/locknode/locknode/internal/quote"
	"github.com/locknode/locknode/internal/seam"
)

// Config describes one node. Its zero value, with a DataDir, is a node on
// loopback that waits for others to find it.
type Config struct {
	// ID names the node in the cluster, for ever. When it is empty a new data
	// directory gets a random one; an old directory keeps its own, and opening
	// it under another ID is an error, once the node has taken part in anything.
	ID string
	// DataDir holds the log, the snapshots and the node's identity. Required.
	DataDir string

	// Listen is the first of four consecutive ports: API (gRPC), HTTP, Raft,
	// gossip. Default 127.0.0.1:7400. With port 0 each gets a free one.
	Listen string
	// APIAddr, HTTPAddr, RaftAddr and GossipAddr set one address alone, as
	// host:port. HTTPAddr "off" serves no HTTP.
	APIAddr, HTTPAddr, RaftAddr, GossipAddr string
	// APIListener, HTTPListener and RaftListener are what the node listens on instead of
	// APIAddr, HTTPAddr and RaftAddr, which stay empty then: TCP, already listening, as
	// from systemd or from a test that must know its port before. The others dial Raft's
	// and the API's in plain TCP. The node owns them: they are closed with it, and by an
	// [Open] that fails. Gossip cannot have one: it needs TCP and UDP on one port, and
	// memberlist opens both by itself.
	APIListener, HTTPListener, RaftListener net.Listener
	// AdvertiseHost is the host that others are told to dial. Default: the host
	// of the address itself; needed where that is unspecified (0.0.0.0). A name
	// that has no address yet is looked up until it has one; the node is found by
	// nobody before.
	AdvertiseHost string
	// Insecure allows plain text on addresses other than loopback.
	Insecure bool

	// ClusterName keeps clusters apart that can reach each other, so that no node
	// of one is taken in by another: the same on all nodes of a cluster, 1 to 64
	// letters, digits, dots, dashes and underscores. Empty: it has no name.
	ClusterName string
	// Join lists seeds to start gossip from, host:port of their gossip address.
	Join []string
	// BootstrapExpect is how many fresh voters form the first configuration
	// together. 0: never form a cluster, only join one.
	BootstrapExpect int
	// FeatureLevel is the highest feature level of the lock table that this node agrees to;
	// 0: the highest that this version knows. The table comes to a level once all members
	// agree to it, and programs that do not know it cannot run on it any more: to be able to
	// go back to an earlier version after an upgrade, set that version's level on one node.
	FeatureLevel int

	// MaxNonvoters is how many nonvoters the cluster takes in while this node leads; each
	// costs the leader a connection, and the log in bytes once more. A node that joins is
	// one until it votes. Default 64; at most 1,000.
	MaxNonvoters int
	// Nonvoter nodes hold a copy of the table and never vote.
	Nonvoter bool
	// Zone is told to the others, for people.
	Zone string
	// Version is told to the others, for people.
	Version string

	// Timing is the heartbeat and election timeout, from which the others
	// follow. Default 200 ms, right for one data centre; at least 20 ms.
	Timing time.Duration
	// Fast shortens the times for noticing and promoting members to what suits
	// one machine. For development and tests; which times it shortens is not stable.
	Fast bool
	// LogStore is "wal" or "boltdb". Default: what the data directory was made
	// with, wal for a new one. Asking for the other one is an error.
	LogStore string
	// RemoveFailedAfter is how long a failed member stays in the configuration.
	// Default 72 h; negative: for ever.
	RemoveFailedAfter time.Duration
	// RemoveReplacedAfter is how long a failed voter stays in the configuration when
	// another one votes in its place: when there are as many voters besides it as bear
	// the same number of failures, which is so when the number of voters is even and
	// BootstrapExpect does not ask for it. Default 10 min; negative: RemoveFailedAfter.
	RemoveReplacedAfter time.Duration
	// LeaveOnStop makes Close leave the cluster for good, as [Node.Leave] does.
	LeaveOnStop bool
	// LeaveWait is how long a node that leaves waits first, while too few of the voters
	// that remain are there or a node is joining that will vote. After that it leaves if
	// a majority of the others is there, and otherwise stays a member. Default 25 s,
	// 5 s with Fast; negative: no time.
	LeaveWait time.Duration
	// StopWait is how long Close waits, without LeaveOnStop, for other voters to come
	// back when too few would be left for a majority. Default 5 s, no time with Fast;
	// negative: no time.
	StopWait time.Duration
	// GossipKey encrypts gossip: 16, 24 or 32 bytes, the same on all nodes.
	GossipKey []byte
	// MaxConnections is how many connections of clients are open at most, of gRPC and of
	// HTTP each. Default 10,000, or fewer where the process may open no more files.
	MaxConnections int
	// MaxConnectionsPerAddress is how many of them come from one address at most; of IPv6
	// from one /64. Default 2,048.
	MaxConnectionsPerAddress int
	// HTTPHosts are names under which HTTP is answered, besides IP addresses, localhost,
	// AdvertiseHost and the host of HTTPAddr: DNS names, or "*." and one, for all below it.
	// Under other names nobody but a web page of somebody else's would ask.
	HTTPHosts []string
	// Limits, where not zero, are written to the table when the cluster is
	// formed, and have no effect later.
	Limits fsm.Limits

	// Logger gets what an operator wants to know. Default: silent.
	Logger *slog.Logger
	// Metrics gets the node's metrics, those of docs/operations.md, until the node is
	// closed, with or without HTTP; those of the process are the program's own to register. For
	// several nodes in one process wrap it with a label for each
	// (prometheus.WrapRegistererWith): a registerer that has them already is an error of
	// [Open]. nil: they are at /metrics alone.
	Metrics prometheus.Registerer

	seams seam.Node
}

// Validate reports every fault of the configuration at once, each with what is
// allowed. [Open] does the same; what is wrong with the data directory or the
// addresses themselves only Open can tell.
func (c Config) Validate() error {
	_, err := c.withDefaults()
	return err
}

// minConnections and maxConnections bound what may be set as a limit of connections.
const (
	minConnections = 8
	maxConnections = 1_000_000
)

const defaultListen = "127.0.0.1:7400"

// withDefaults returns a copy with every zero field that has a default set.
func (c Config) withDefaults() (Config, error) {
	if c.Listen == "" {
		c.Listen = defaultListen
	}
	if c.Timing == 0 {
		c.Timing = 200 * time.Millisecond
	}
	if c.RemoveFailedAfter == 0 {
		c.RemoveFailedAfter = 72 * time.Hour
	}
	if c.RemoveReplacedAfter == 0 {
		c.RemoveReplacedAfter = 10 * time.Minute
	}
	if c.LeaveWait == 0 {
		c.LeaveWait = 25 * time.Second
		if c.Fast {
			c.LeaveWait = 5 * time.Second
		}
	}
	if c.StopWait == 0 && !c.Fast {
		c.StopWait = 5 * time.Second
	}
	if c.MaxNonvoters == 0 {
		c.MaxNonvoters = membership.DefaultMaxNonvoters
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Version == "" {
		c.Version = "dev"
	}
	if c.seams.Mono == nil {
		start := time.Now()
		c.seams.Mono = func() time.Duration { return time.Since(start) }
	}
	if c.seams.Wall == nil {
		c.seams.Wall = time.Now
	}
	err := errors.Join(c.takeListeners(), c.fillAddresses())
	if c.AdvertiseHost != "" {
		host, fault := address.Host(c.AdvertiseHost)
		if fault != nil {
			fault = fmt.Errorf("advertise host %q: %w", c.AdvertiseHost, fault)
		} else {
			c.AdvertiseHost = host // without brackets
		}
		err = errors.Join(err, fault)
	}
	return c, errors.Join(err, c.validate())
}

// takeListeners sets the addresses of listeners that the program has handed over.
func (c *Config) takeListeners() error {
	var faults []error
	for _, l := range []struct {
		name     string
		listener net.Listener
		addr     *string
	}{{"api", c.APIListener, &c.APIAddr}, {"http", c.HTTPListener, &c.HTTPAddr}, {"raft", c.RaftListener, &c.RaftAddr}} {
		switch {
		case l.listener == nil:
		case *l.addr != "":
			faults = append(faults, fmt.Errorf("%s address %q: there is a listener, too: leave one of them out", l.name, *l.addr))
		default:
			*l.addr = l.listener.Addr().String()
		}
	}
	return errors.Join(faults...)
}

// fillAddresses derives the addresses that are not given from Listen.
func (c *Config) fillAddresses() error {
	host, portText, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen %q: want host:port: %w", c.Listen, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil || port < 0 || port > 65535-3 {
		return fmt.Errorf("listen %q: port must be 0 or 1 to 65532, three more follow it", c.Listen)
	}
	for i, addr := range []*string{&c.APIAddr, &c.HTTPAddr, &c.RaftAddr, &c.GossipAddr} {
		if *addr != "" {
			continue
		}
		p := 0
		if port != 0 {
			p = port + i
		}
		*addr = net.JoinHostPort(host, strconv.Itoa(p))
	}
	return nil
}

// validate reports every fault at once.
func (c *Config) validate() error {
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.DataDir == "" && c.seams.Memory == nil {
		bad("data dir is empty: name a directory that survives restarts")
	}
	for _, text := range []struct{ name, value string }{{"id", c.ID}, {"zone", c.Zone}} {
		switch {
		case len(text.value) > 64:
			bad("%s %q: at most 64 bytes are allowed, it has %d", text.name, text.value, len(text.value))
		case !quote.Printable(text.value):
			bad("%s %q: text that can be printed is allowed", text.name, text.value)
		}
	}
	for _, seed := range c.Join {
		if err := address.Dial(seed); err != nil {
			bad("join %q: %w", seed, err)
		}
	}
	for _, name := range c.HTTPHosts {
		if err := address.Name(name); err != nil {
			bad("http host %q: %w", name, err)
		}
	}
	if err := checkClusterName(c.ClusterName); err != nil {
		faults = append(faults, err)
	}
	if c.BootstrapExpect < 0 || c.BootstrapExpect > 9 {
		bad("bootstrap expect %d: 0 to 9 are allowed", c.BootstrapExpect)
	}
	if c.FeatureLevel < 0 || c.FeatureLevel > fsm.Level {
		bad("feature level %d: 1 to %d are allowed, and 0 for the highest", c.FeatureLevel, fsm.Level)
	}
	if c.MaxNonvoters < 1 || c.MaxNonvoters > 1000 {
		bad("max nonvoters %d: 1 to 1000 are allowed, and 0 for the default", c.MaxNonvoters)
	}
	if c.Nonvoter && c.BootstrapExpect > 0 {
		bad("nonvoter with bootstrap expect %d: a nonvoter only joins, leave bootstrap expect at 0", c.BootstrapExpect)
	}
	if c.Timing < 20*time.Millisecond || c.Timing > 10*time.Second {
		bad("timing %v: 20ms to 10s are allowed", c.Timing)
	}
	switch c.LogStore {
	case "", disk.LogStoreWAL, disk.LogStoreBolt:
	default:
		bad("log store %q: %q or %q are allowed", c.LogStore, disk.LogStoreWAL, disk.LogStoreBolt)
	}
	switch len(c.GossipKey) {
	case 0, 16, 24, 32:
	default:
		bad("gossip key has %d bytes: 16, 24 or 32 are allowed", len(c.GossipKey))
	}
	for _, m := range []struct {
		name  string
		value int
	}{{"max connections", c.MaxConnections}, {"max connections per address", c.MaxConnectionsPerAddress}} {
		if m.value != 0 && (m.value < minConnections || m.value > maxConnections) {
			bad("%s %d: %d to %d are allowed, and 0 for the default", m.name, m.value, minConnections, maxConnections)
		}
	}
	if err := c.Limits.Validate(); err != nil {
		faults = append(faults, err)
	}
	var plain []string
	for _, a := range []struct{ name, addr string }{
		{"api address", c.APIAddr}, {"http address", c.HTTPAddr}, {"raft address", c.RaftAddr}, {"gossip address", c.GossipAddr},
	} {
		if a.addr == "off" && a.name == "http address" {
			continue
		}
		if err := c.checkAddress(a.addr); err != nil {
			bad("%s %q: %w", a.name, a.addr, err)
		}
		if !isLoopback(a.addr) && !c.Insecure {
			plain = append(plain, a.addr)
		}
	}
	if len(plain) > 0 {
		bad("%s: not loopback, and traffic is plain text: set insecure to allow it, on a network that you trust", strings.Join(plain, ", "))
	}
	if len(c.GossipKey) == 0 && !isLoopback(c.GossipAddr) && c.seams.Network == nil {
		bad("gossip address %q: not loopback, and there is no gossip key: anybody who can send a datagram there could mislead the cluster; "+
			"give all nodes the same gossip_key (gossip_key_file), also with insecure. This makes one: head -c 32 /dev/urandom | base64", c.GossipAddr)
	}
	return errors.Join(faults...)
}

// clusterNames is what may be a cluster's name: it stands in a line of the Raft
// handshake and before every gossip packet.
var clusterNames = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func checkClusterName(name string) error {
	if name != "" && !clusterNames.MatchString(name) {
		return fmt.Errorf("cluster name %q: 1 to 64 letters, digits, dots, dashes and underscores are allowed", name)
	}
	return nil
}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err != nil || host == "localhost" || ip != nil && ip.IsLoopback()
}

// hosts are all the names under which HTTP is answered.
func (c *Config) hosts() []string {
	all := append(slices.Clone(c.HTTPHosts), c.AdvertiseHost, hostOf(c.HTTPAddr))
	return slices.DeleteFunc(all, func(name string) bool { return address.Name(name) != nil })
}

func (c *Config) checkAddress(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("want host:port: %w", err)
	}
	if port == "0" && c.AdvertiseHost != "" {
		return errors.New("with an advertise host the port cannot be 0: others need to know it")
	}
	ip := net.ParseIP(host)
	if (host == "" || ip != nil && ip.IsUnspecified()) && c.AdvertiseHost == "" {
		return errors.New("others cannot dial it: set the advertise host")
	}
	return nil
}

// advertised replaces the host of a bound address by what others should dial.
func (c *Config) advertised(bound string) string {
	if c.AdvertiseHost == "" {
		return bound
	}
	_, port, err := net.SplitHostPort(bound)
	if err != nil {
		return bound
	}
	return net.JoinHostPort(c.AdvertiseHost, port)
}

// SetHTTPHosts replaces Config.HTTPHosts while the node runs. Names that [Config.Validate]
// would refuse are answered to by nobody.
func (n *Node) SetHTTPHosts(names []string) {
	cfg := n.cfg
	cfg.HTTPHosts = names
	n.server.SetHosts(cfg.hosts())
}
