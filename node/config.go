package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/guard"
	"github.com/locknode/locknode/internal/seam"
)

// Config describes one node. Its zero value, with a DataDir, is a node on
// loopback that waits for others to find it.
type Config struct {
	// ID names the node in the cluster, for ever. When it is empty a new data
	// directory gets a random one; an old directory keeps its own, and opening
	// it under another ID is an error.
	ID string
	// DataDir holds the log, the snapshots and the node's identity. Required.
	DataDir string

	// Listen is the first of four consecutive ports: API (gRPC), HTTP, Raft,
	// gossip. Default 127.0.0.1:7400. With port 0 each gets a free one.
	Listen string
	// APIAddr, HTTPAddr, RaftAddr and GossipAddr set one address alone, as
	// host:port. HTTPAddr "off" serves no HTTP.
	APIAddr, HTTPAddr, RaftAddr, GossipAddr string
	// AdvertiseHost is the host that others are told to dial. Default: the host
	// of the address itself; needed where that is unspecified (0.0.0.0).
	AdvertiseHost string
	// Insecure allows plain text on addresses other than loopback.
	Insecure bool

	// Join lists seeds to start gossip from, host:port of their gossip address.
	Join []string
	// BootstrapExpect is how many fresh voters form the first configuration
	// together. 0: never form a cluster, only join one.
	BootstrapExpect int
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
	// one machine. For development and tests.
	Fast bool
	// LogStore is "wal" or "boltdb". Default: what the data directory was made
	// with, wal for a new one. Asking for the other one is an error.
	LogStore string
	// RemoveFailedAfter is how long a failed member stays in the configuration.
	// Default 72 h; negative: for ever.
	RemoveFailedAfter time.Duration
	// LeaveOnStop makes Close leave the cluster for good, as [Node.Leave] does.
	LeaveOnStop bool
	// GossipKey encrypts gossip: 16, 24 or 32 bytes, the same on all nodes.
	GossipKey []byte
	// Limits, where not zero, are written to the table when the cluster is
	// formed, and have no effect later.
	Limits fsm.Limits

	// Logger gets what an operator wants to know. Default: silent.
	Logger *slog.Logger

	seams seam.Node
}

// Validate reports every fault of the configuration at once, each with what is
// allowed. [Open] does the same; what is wrong with the data directory or the
// addresses themselves only Open can tell.
func (c Config) Validate() error {
	_, err := c.withDefaults()
	return err
}

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
	err := c.fillAddresses()
	return c, errors.Join(err, c.validate())
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
	if len(c.ID) > 64 {
		bad("id %q: at most 64 bytes are allowed, it has %d", c.ID, len(c.ID))
	}
	if c.BootstrapExpect < 0 || c.BootstrapExpect > 9 {
		bad("bootstrap expect %d: 0 to 9 are allowed", c.BootstrapExpect)
	}
	if c.Nonvoter && c.BootstrapExpect > 0 {
		bad("nonvoter with bootstrap expect %d: a nonvoter only joins, leave bootstrap expect at 0", c.BootstrapExpect)
	}
	if c.Timing < 20*time.Millisecond || c.Timing > 10*time.Second {
		bad("timing %v: 20ms to 10s are allowed", c.Timing)
	}
	switch c.LogStore {
	case "", guard.LogStoreWAL, guard.LogStoreBolt:
	default:
		bad("log store %q: %q or %q are allowed", c.LogStore, guard.LogStoreWAL, guard.LogStoreBolt)
	}
	switch len(c.GossipKey) {
	case 0, 16, 24, 32:
	default:
		bad("gossip key has %d bytes: 16, 24 or 32 are allowed", len(c.GossipKey))
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
	return errors.Join(faults...)
}

func isHostPort(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	return err == nil && host != "" && port != ""
}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err != nil || host == "localhost" || ip != nil && ip.IsLoopback()
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
