package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/address"
	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/membership"
	"github.com/locknode/locknode/internal/quote"
	"github.com/locknode/locknode/internal/seam"
	"github.com/locknode/locknode/internal/secure"
)

// Config describes one node. Its zero value, with a DataDir, is a node on
// loopback that waits until another node's gossip reaches it. [Open] copies it.
type Config struct {
	// ID names the node in the cluster for good: printable text of at most 64 bytes. If it
	// is empty, a new data directory gets a random one, and an old one keeps its own.
	// Opening a directory under another ID is an error once the node has taken part in a
	// cluster.
	ID string
	// DataDir holds the log, the snapshots and the node's identity. One node at a time can
	// use it. Required.
	DataDir string

	// Listen is the first of four consecutive ports, as host:port: API (gRPC), HTTP, Raft,
	// gossip. The port is at most 65532; with port 0 each gets a free one. Default
	// 127.0.0.1:7400.
	Listen string
	// APIAddr, HTTPAddr, RaftAddr and GossipAddr set one address alone, as
	// host:port. HTTPAddr "off" serves no HTTP. Default: the ports of Listen.
	APIAddr, HTTPAddr, RaftAddr, GossipAddr string
	// APIListener, HTTPListener and RaftListener are listeners for the node to use instead
	// of APIAddr, HTTPAddr and RaftAddr, which must be empty then: TCP, already listening,
	// for example from systemd or from a test that must know its port before. Other nodes
	// dial the API's and Raft's over TCP, and the node itself adds TLS. The node owns them: it closes them when it
	// ends, and an [Open] that fails closes them. There is none for gossip: it needs TCP and
	// UDP on one port, and memberlist opens both by itself.
	APIListener, HTTPListener, RaftListener net.Listener
	// AdvertiseHost is the host that others dial: a name or an IP address, without a port.
	// Default: the host of each address. It is required where that is unspecified
	// (0.0.0.0). A name that has no address yet is looked up until it has one; before that
	// no other node finds this one.
	AdvertiseHost string
	// Insecure allows plain text on addresses other than loopback: with [TLS.Mode] off, and with
	// permissive as long as the cluster is moved to TLS.
	Insecure bool
	// TLS encrypts what the node and its peers and clients send each other, and has nodes
	// prove who they are. The zero value is plain text.
	TLS TLS
	// Auth says whether callers have to prove who they are and need rights for what they
	// do. The zero value lets everybody do everything.
	Auth Auth

	// ClusterName keeps clusters apart that can reach each other, so that a node of one
	// does not join another: the same on all nodes of a cluster, 1 to 64 letters, digits,
	// dots, dashes and underscores. Empty: the cluster has no name.
	ClusterName string
	// Join lists seeds to start gossip from, host:port of their gossip address.
	Join []string
	// BootstrapExpect is how many fresh voters form the first configuration
	// together, 1 to 9. 0: never form a cluster, only join one.
	BootstrapExpect int
	// FeatureLevel is the highest feature level of the lock table that this node agrees to;
	// 0: the highest that this version knows. The table gets a level once all members agree
	// to it, and programs that do not know that level can then no longer run on it. To be
	// able to go back to an earlier version after an upgrade, set that version's level on
	// one node.
	FeatureLevel int

	// MaxNonvoters is how many nonvoters may join the cluster while this node leads, 1 to
	// 1,000. Each costs the leader a connection and sending the log once more. A node that
	// joins is a nonvoter until it votes. Default 64.
	MaxNonvoters int
	// Nonvoter makes a node that holds a copy of the table and never votes.
	// BootstrapExpect must be 0 then.
	Nonvoter bool
	// Zone is shown with this member in [Node.Members] of every node: printable text of at
	// most 64 bytes. It has no effect.
	Zone string
	// Version is the version of the program, shown with this member in [Node.Members] of
	// every node. Default "dev".
	Version string

	// Timing is the heartbeat and election timeout, from which other timeouts follow:
	// 20 ms to 10 s. Default 200 ms, right for one data centre.
	Timing time.Duration
	// Fast shortens the times for noticing and promoting members to what suits
	// one machine. For development and tests; which times it shortens is not stable.
	Fast bool
	// LogStore is "wal" or "boltdb". Default: what the data directory was made
	// with, wal for a new one. The other one is then an error of [Open].
	LogStore string
	// RemoveFailedAfter is how long a failed member stays in the configuration.
	// Default 72 h; negative: it is never removed.
	RemoveFailedAfter time.Duration
	// RemoveReplacedAfter is how long a failed voter stays in the configuration once
	// another one votes in its place: once the cluster without it tolerates as many failures
	// as with it. That is so if the number of voters is even and BootstrapExpect does not
	// require it. Default 10 min; negative: as RemoveFailedAfter.
	RemoveReplacedAfter time.Duration
	// LeaveOnStop makes Close leave the cluster for good, as [Node.Leave] does.
	LeaveOnStop bool
	// LeaveWait is how long a node that leaves waits at most while too few of the other
	// voters answer, or while a node is joining that will vote. After that it leaves if a
	// majority of the others answers, and stays a member otherwise. Default 25 s, 5 s with
	// Fast; negative: no time.
	LeaveWait time.Duration
	// StopWait is how long Close waits at most, without LeaveOnStop, for other voters to
	// come back while too few would be left for a majority. Default 5 s, no time with Fast;
	// negative: no time.
	StopWait time.Duration
	// GossipKey encrypts gossip: 16, 24 or 32 bytes, the same on all nodes. Where TLS is required
	// the nodes agree on one by themselves if it is empty; otherwise it is required if gossip's
	// address is not loopback, and with TLS permissive. The data directory keeps the keys, which an
	// operator may have replaced since: a GossipKey that was taken before has no effect then,
	// and another one is installed beside them, as by [Node.TakeGossipKey].
	GossipKey []byte
	// MaxConnections is how many connections of clients are open at most, of gRPC and of
	// HTTP each: 8 to 1,000,000. Default 10,000, or fewer where the process may open no more
	// files.
	MaxConnections int
	// MaxConnectionsPerAddress is how many of them come from one address at most, of IPv6
	// from one /64: 8 to 1,000,000. Default 2,048.
	MaxConnectionsPerAddress int
	// HTTPHosts are names under which HTTP is answered, besides IP addresses, localhost,
	// AdvertiseHost and the host of HTTPAddr: DNS names, or "*." and a DNS name for all names
	// below it. Requests under other names are refused: they may come from a web page that
	// reaches the node under its own name (DNS rebinding).
	HTTPHosts []string
	// Limits, where not zero, are written to the table when this node forms the cluster.
	// They have no effect later.
	Limits fsm.Limits

	// Audit records who has done what with force or admin, denials, and what happens to the
	// node and the members; the zero value records nothing.
	Audit Audit

	// Quota bounds what one caller may take of this node: one identity, or one address (of
	// IPv6 one /64) where there is none. Zero fields bound nothing.
	Quota Quota
	// Debug answers HTTP requests below /debug/ of callers with the right admin, such as a
	// handler with the profiles of net/http/pprof. nil: there is no such path.
	Debug http.Handler

	// Logger gets the log: info and above is for operators, debug for developers. Default:
	// silent.
	Logger *slog.Logger
	// Metrics gets the node's metrics, those of docs/operations.md, until the node is
	// closed, also without HTTP. The metrics of the process are not among them: the program
	// registers those itself. For several nodes in one process wrap it with a label for each
	// (prometheus.WrapRegistererWith): if it has the metrics already, [Open] fails. nil:
	// they are at /metrics only.
	Metrics prometheus.Registerer

	// Reload is called when an operator has the node read its files again (`locknode reload`): the
	// program reads what it has configured the node from, and returns what became of that. It has a
	// few seconds, and may be called by several goroutines at the same time. nil: the node reads its
	// certificates, if it has files for them.
	Reload func(context.Context) []client.ReloadedItem

	seams seam.Node
}

// Audit says what a node records of what was done, one JSON object on each line; the page
// docs/operations.md has the format. Each node records what has entered the cluster through
// it, and the leader what the table did.
type Audit struct {
	// To gets the lines: whole ones, several in one Write, from one goroutine, until the node
	// is closed. nil: nothing is recorded. The node does not close it.
	To io.Writer
	// Grants records each grant and its end as well.
	Grants bool
	// Refuse has each operation that needs force or admin refused if it cannot be recorded
	// before it is done. Otherwise it is done all the same, and the line that is missing is
	// counted by locknode_audit_lost_total.
	Refuse bool
}

// Quota says how much one caller may have of a node, besides what all callers share. A zero
// field is no bound.
type Quota struct {
	// Connections is on how many connections it may have something under way.
	Connections int
	// Streams is how many calls, streams and HTTP requests it may have under way; twice as
	// many of those that free something or keep it alive.
	Streams int
	// OpsPerSecond is how many operations it may send a second, besides those that free
	// something or keep it alive. After a pause it may send those of a second at once.
	OpsPerSecond int
	// UnsentBytes is how many bytes of answers may wait because it does not read them:
	// beyond that reads are refused.
	UnsentBytes int64
}

// TLS says whether a node uses TLS, and has its files, all in PEM. They are read again within
// a minute after they have changed, and by [Node.ReloadCertificates]. Only TLS 1.3 is spoken.
type TLS struct {
	// Mode is "off", "permissive" or "required"; empty is off. With required, the ports of the
	// API, HTTP and Raft take only TLS, and so does the node where it dials others. With
	// permissive they take plain text as well, and other nodes that do not speak TLS yet are
	// called in plain text: so a running cluster is moved to TLS, node by node. Permissive
	// protects from nothing.
	Mode string
	// CAFile has the certificates of the CAs that sign those of nodes, and of clients if
	// there is no ClientCAFile. Required with TLS.
	CAFile string
	// CertFile has the node's certificate, which names the node's ID and ClusterName, and
	// KeyFile its private key: `locknode tls` makes both. Required with TLS.
	CertFile, KeyFile string
	// ClientCAFile has the certificates of the CAs that sign those of clients. With it every
	// client needs a certificate, but for /healthz and /readyz. Empty: clients need none.
	ClientCAFile string
	// Config is in place of the files, which must be empty then: for a program that gets its
	// certificates from elsewhere. The node takes from it the certificate (GetCertificate, or the
	// first of Certificates), RootCAs, which have the CAs that sign the certificates of nodes, and
	// ClientCAs, which are to ClientCAFile what RootCAs are to CAFile; nil: clients need no
	// certificate. Nothing else of it has an effect: the node decides the versions, and verifies as
	// with files whom a certificate names. GetCertificate is asked every ten seconds and by
	// [Node.ReloadCertificates]. To replace CAs set GetConfigForClient, which is asked at the same
	// times: what it returns takes the place of Config.
	Config *tls.Config
}

// Auth says whether callers need rights. Who may do what is in the lock table, as access
// tokens and policies, and the same for all nodes; whether this node asks is its own setting.
type Auth struct {
	// Mode is "off", "log" or "required"; empty is off. With off nobody is asked who he is.
	// With required everybody may do what a policy allows him, and nothing else. With log
	// nothing is refused, and what required would refuse is logged and counted.
	Mode string
	// Open lists what is answered without rights in mode required: "metrics", "status",
	// "members" and "reflection". /healthz, /readyz and the health service of gRPC always are.
	Open []string
	// Authorizer, if not nil, is asked for each operation and call that came over a connection
	// and that the policies allow, in all modes but off. An error that it returns refuses the
	// operation; the caller gets no more of it than that it was denied. It is called from many
	// goroutines and must not block: streams wait for it.
	Authorizer func(context.Context, Access) error
}

// Access is what a caller wants to do.
type Access struct {
	// Identity is who calls: token:NAME, cert:NAME, node:ID or anonymous.
	Identity string
	// Address is the IP address of the connection, of IPv6 the /64.
	Address string
	// Operation is the name of the operation in locknode.proto, such as "acquire", or of the
	// call, such as "SetLimits".
	Operation string
	// Right is what the operation needs: "read", "lock", "force", "admin", or empty if it
	// needs no more than that the caller is known.
	Right string
	// Names are those of the locks, as far as the operation names any. A List has its prefix.
	Names []string
}

// Validate returns an error that names every fault of the configuration, each with what is
// allowed. [Open] checks the same, and also the data directory and the addresses
// themselves. Validate touches neither.
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
			fault = fmt.Errorf("advertise host: is %q, %w", c.AdvertiseHost, fault)
		} else {
			c.AdvertiseHost = host // without brackets
		}
		err = errors.Join(err, fault)
	}
	return c, errors.Join(err, c.validate())
}

// takeListeners sets the addresses of the listeners in the configuration.
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
			faults = append(faults, fmt.Errorf("%s address: is %q, must be empty because there is a listener for it", l.name, *l.addr))
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
		return fmt.Errorf("listen: is %q, must be host:port: %w", c.Listen, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil || port < 0 || port > 65535-3 {
		return fmt.Errorf("listen: is %q, must have a port from 0 to 65532, which three more follow", c.Listen)
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
		bad("data dir: is empty, must be a directory that survives restarts")
	}
	for _, text := range []struct{ name, value string }{{"id", c.ID}, {"zone", c.Zone}} {
		switch {
		case len(text.value) > 64:
			bad("%s: is %q of %d bytes, must be at most 64 bytes", text.name, text.value, len(text.value))
		case !quote.Printable(text.value):
			bad("%s: is %q, must be printable text", text.name, text.value)
		}
	}
	for _, seed := range c.Join {
		if err := address.Dial(seed); err != nil {
			bad("join: is %q, %w", seed, err)
		}
	}
	for _, name := range c.HTTPHosts {
		if err := address.Name(name); err != nil {
			bad("http host: is %q, %w", name, err)
		}
	}
	if err := checkClusterName(c.ClusterName); err != nil {
		faults = append(faults, err)
	}
	if c.BootstrapExpect < 0 || c.BootstrapExpect > 9 {
		bad("bootstrap expect: is %d, must be 0 to 9", c.BootstrapExpect)
	}
	if c.FeatureLevel < 0 || c.FeatureLevel > fsm.Level {
		bad("feature level: is %d, must be 1 to %d, or 0 for the highest", c.FeatureLevel, fsm.Level)
	}
	if c.MaxNonvoters < 1 || c.MaxNonvoters > 1000 {
		bad("max nonvoters: is %d, must be 1 to 1000, or 0 for the default", c.MaxNonvoters)
	}
	if c.Nonvoter && c.BootstrapExpect > 0 {
		bad("nonvoter with bootstrap expect %d: bootstrap expect must be 0, because a nonvoter only joins", c.BootstrapExpect)
	}
	if c.Timing < 20*time.Millisecond || c.Timing > 10*time.Second {
		bad("timing: is %v, must be 20ms to 10s", c.Timing)
	}
	switch c.LogStore {
	case "", disk.LogStoreWAL, disk.LogStoreBolt:
	default:
		bad("log store: is %q, must be %q or %q", c.LogStore, disk.LogStoreWAL, disk.LogStoreBolt)
	}
	switch len(c.GossipKey) {
	case 0, 16, 24, 32:
	default:
		bad("gossip key: is %d bytes long, must be 16, 24 or 32", len(c.GossipKey))
	}
	for _, m := range []struct {
		name  string
		value int
	}{{"max connections", c.MaxConnections}, {"max connections per address", c.MaxConnectionsPerAddress}} {
		if m.value != 0 && (m.value < minConnections || m.value > maxConnections) {
			bad("%s: is %d, must be %d to %d, or 0 for the default", m.name, m.value, minConnections, maxConnections)
		}
	}
	for _, q := range []struct {
		name  string
		value int64
	}{
		{"connections", int64(c.Quota.Connections)}, {"streams", int64(c.Quota.Streams)},
		{"ops per second", int64(c.Quota.OpsPerSecond)}, {"unsent bytes", c.Quota.UnsentBytes},
	} {
		if q.value < 0 {
			bad("quota %s: is %d, must be 0 or more", q.name, q.value)
		}
	}
	if c.Audit.To == nil && (c.Audit.Grants || c.Audit.Refuse) {
		bad("audit: there is no writer for it, must be one with Grants and Refuse")
	}
	if err := c.Limits.Validate(); err != nil {
		faults = append(faults, err)
	}
	mode := c.checkTLS(bad)
	c.Auth.check(bad)
	var plain []string
	for _, a := range []struct{ name, addr string }{
		{"api address", c.APIAddr}, {"http address", c.HTTPAddr}, {"raft address", c.RaftAddr}, {"gossip address", c.GossipAddr},
	} {
		if a.addr == "off" && a.name == "http address" {
			continue
		}
		if err := c.checkAddress(a.addr); err != nil {
			bad("%s: is %q, %w", a.name, a.addr, err)
		}
		if !isLoopback(a.addr) && !c.Insecure && mode != secure.Required {
			plain = append(plain, a.addr)
		}
	}
	if len(plain) > 0 {
		what := "traffic is plain text: use TLS (tls.mode: required), or set insecure to allow it, on a network that you trust"
		if mode == secure.Permissive {
			what = "tls.mode permissive also takes plain text: set insecure as long as the cluster is moved to TLS"
		}
		bad("%s: not loopback, and %s", strings.Join(plain, ", "), what)
	}
	if len(c.GossipKey) == 0 && mode == secure.Permissive {
		bad("gossip key: is missing, must be set with tls.mode permissive: nodes without TLS cannot get one from the others; " +
			"give all nodes the same gossip_key (gossip_key_file). `locknode gossip-key generate` makes one")
	} else if len(c.GossipKey) == 0 && !mode.On() && !isLoopback(c.GossipAddr) && c.seams.Network == nil {
		bad("gossip address: is %q, not loopback, and there is no gossip key: every host that can send a datagram there could mislead the cluster; "+
			"give all nodes the same gossip_key (gossip_key_file), also with insecure. `locknode gossip-key generate` makes one", c.GossipAddr)
	}
	return errors.Join(faults...)
}

// clusterNames matches valid cluster names. A name is in a line of the Raft handshake and
// before every gossip packet.
var clusterNames = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func checkClusterName(name string) error {
	if name != "" && !clusterNames.MatchString(name) {
		return fmt.Errorf("cluster name: is %q, must be 1 to 64 letters, digits, dots, dashes and underscores", name)
	}
	return nil
}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err != nil || host == "localhost" || ip != nil && ip.IsLoopback()
}

// hosts returns all names under which HTTP is answered.
func (c *Config) hosts() []string {
	all := append(slices.Clone(c.HTTPHosts), c.AdvertiseHost, hostOf(c.HTTPAddr))
	return slices.DeleteFunc(all, func(name string) bool { return address.Name(name) != nil })
}

func (c *Config) checkAddress(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("must be host:port: %w", err)
	}
	if port == "0" && c.AdvertiseHost != "" {
		return errors.New("must have a port other than 0 with an advertise host: others need to know it")
	}
	ip := net.ParseIP(host)
	if (host == "" || ip != nil && ip.IsUnspecified()) && c.AdvertiseHost == "" {
		return errors.New("must be an address that others can dial, or have an advertise host")
	}
	return nil
}

// advertised replaces the host of a bound address with the one that others dial.
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

// SetHTTPHosts replaces [Config.HTTPHosts] for all requests from now on. Names that
// [Config.Validate] would refuse are left out. It waits for nothing.
func (n *Node) SetHTTPHosts(names []string) {
	cfg := n.cfg
	cfg.HTTPHosts = names
	n.server.SetHosts(cfg.hosts())
}
