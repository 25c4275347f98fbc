package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/address"
	"github.com/locknode/locknode/node"
)

// serveConfig is the configuration of `locknode serve`.
type serveConfig struct {
	node      node.Config
	logLevel  slog.Level
	logFormat string

	audit auditConfig
	pprof bool // serve profiles

	gossipKeyGiven bool   // gossip_key is set
	gossipKeyFile  string // gossip_key_file, from which the key was read
}

// setting is one setting, which can be given in three places: under its name in the file,
// as a flag with dashes in the name, and as an environment variable with the name in
// capitals after LOCKNODE_. No setting may be called "name", "fencing_token" or "held",
// which `locknode run` sets for its child, or "token" or "token_file", which every command reads.
type setting struct {
	key    string
	kind   string // the type of the value, shown in the help
	usage  string
	def    string // the default, as text
	list   bool   // takes several values
	secret bool   // never printed
	tuning bool   // left out of the help
	set    func(c *serveConfig, values []string) error
}

func (s *setting) flag() string { return strings.ReplaceAll(s.key, "_", "-") }

func (s *setting) environment() string {
	return "LOCKNODE_" + strings.ToUpper(strings.ReplaceAll(s.key, ".", "_"))
}

// settings returns all settings of `locknode serve`, in the order in which they are printed.
func settings() []*setting {
	all := []*setting{
		text("node_id", "permanent ID of the node in its cluster; not set: a new data directory gets a random one", "",
			func(c *serveConfig) *string { return &c.node.ID }, atMost(64), onlyText),
		text("data_dir", "directory for the log, the snapshots and the node's identity; required", "",
			func(c *serveConfig) *string { return &c.node.DataDir }),
		text("listen", "address to listen on: the first of four consecutive ports, for API, HTTP, Raft and gossip", "127.0.0.1:7400",
			func(c *serveConfig) *string { return &c.node.Listen }, bind),
		text("api_addr", "address of the gRPC API, instead of the one that follows from listen", "",
			func(c *serveConfig) *string { return &c.node.APIAddr }, bind),
		text("http_addr", "address of HTTP (JSON, health, metrics), likewise; \"off\" for none", "",
			func(c *serveConfig) *string { return &c.node.HTTPAddr }, addressOr("off")),
		text("raft_addr", "address of Raft, likewise", "",
			func(c *serveConfig) *string { return &c.node.RaftAddr }, bind),
		text("gossip_addr", "address of gossip, TCP and UDP, likewise", "",
			func(c *serveConfig) *string { return &c.node.GossipAddr }, bind),
		text("advertise_host", "host that others dial, if it differs from the one in listen", "",
			func(c *serveConfig) *string { return &c.node.AdvertiseHost }, host),
		{key: "http_hosts", kind: "name", list: true,
			usage: "host name that HTTP requests may have, besides IP addresses, localhost and advertise_host; *.NAME for all names below it; SIGHUP reloads it",
			set: func(c *serveConfig, values []string) error {
				c.node.HTTPHosts = values
				return each(values, address.Name)
			}},
		text("cluster_name", "separates clusters that can reach each other: the same on all nodes of a cluster", "",
			func(c *serveConfig) *string { return &c.node.ClusterName }, matching(`^[A-Za-z0-9._-]{1,64}$`, "1 to 64 letters, digits, dots, dashes and underscores")),
		{key: "join", kind: "host:port", list: true,
			usage: "gossip address of another node, to find the cluster; may be given several times",
			set: func(c *serveConfig, values []string) error {
				c.node.Join = values
				return each(values, dial)
			}},
		number("bootstrap_expect", "number of new voters that form the cluster together; 0: only join an existing cluster", 0, 0, 9,
			func(c *serveConfig) *int { return &c.node.BootstrapExpect }),
		truth("nonvoter", "keep a copy of the lock table and never vote",
			func(c *serveConfig) *bool { return &c.node.Nonvoter }),
		text("zone", "where the node is; shown in members, no other effect", "",
			func(c *serveConfig) *string { return &c.node.Zone }, atMost(64), onlyText),
		duration("timing", "heartbeat and election timeout, from which other timeouts follow", "200ms",
			func(c *serveConfig) *time.Duration { return &c.node.Timing }, between(20*time.Millisecond, 10*time.Second)),
		text("log_store", "store of the Raft log: wal or boltdb; not set: the one that the data directory was made with, wal for a new one", "",
			func(c *serveConfig) *string { return &c.node.LogStore }, oneOf("wal", "boltdb")),
		duration("remove_failed_after", "how long a failed node stays a member; negative: for ever", "72h",
			func(c *serveConfig) *time.Duration { return &c.node.RemoveFailedAfter }),
		duration("remove_replaced_after", "how long a failed voter stays a member when another one votes in its place; negative: remove_failed_after", "10m",
			func(c *serveConfig) *time.Duration { return &c.node.RemoveReplacedAfter }),
		truth("leave_on_stop", "leave the cluster for good whenever the node stops",
			func(c *serveConfig) *bool { return &c.node.LeaveOnStop }),
		unset(duration("leave_wait", "how long a node that leaves waits until the others have a majority without it; negative: do not wait; not set: 25s, 5s with fast", "",
			func(c *serveConfig) *time.Duration { return &c.node.LeaveWait })),
		unset(duration("stop_wait", "how long a stop waits for other voters to come back, if too few would be left; negative: do not wait; not set: 5s, none with fast", "",
			func(c *serveConfig) *time.Duration { return &c.node.StopWait })),
		number("max_connections", "open connections of clients at most, for gRPC and for HTTP each; fewer if the process may open no more files", 10_000, 8, 1_000_000,
			func(c *serveConfig) *int { return &c.node.MaxConnections }),
		number("max_connections_per_address", "open connections from one address at most; of IPv6 from one /64", 2048, 8, 1_000_000,
			func(c *serveConfig) *int { return &c.node.MaxConnectionsPerAddress }),
		number("max_nonvoters", "nonvoters that the cluster accepts while this node leads; a node that joins is one until it votes", 64, 1, 1000,
			func(c *serveConfig) *int { return &c.node.MaxNonvoters }),
		number("feature_level", "highest feature level that this node agrees to; 0: the highest that this version knows; during an upgrade, the level of the previous version keeps a downgrade possible", 0, 0, int(fsm.Level),
			func(c *serveConfig) *int { return &c.node.FeatureLevel }),
		truth("insecure", "allow plain text on addresses other than loopback",
			func(c *serveConfig) *bool { return &c.node.Insecure }),
		{key: "gossip_key", kind: "base64", secret: true,
			usage: "key that encrypts gossip: 16, 24 or 32 bytes in base64, the same on all nodes; only in a file or the environment; required beyond loopback unless tls.mode is required",
			set:   setGossipKey},
		{key: "gossip_key_file", kind: "path",
			usage: "file with the gossip_key; only the node's user should be able to read it; SIGHUP installs a changed one",
			set:   setGossipKeyFile},
		truth("fast", "use short times for detecting and promoting members, for clusters on one machine",
			func(c *serveConfig) *bool { return &c.node.Fast }),
		{key: "log_level", kind: "string", def: "info", usage: "lowest level that is logged: debug, info, warn or error; SIGHUP reloads it",
			set: func(c *serveConfig, values []string) error {
				if err := oneOf("debug", "info", "warn", "error")(values[0]); err != nil {
					return err
				}
				return c.logLevel.UnmarshalText([]byte(values[0]))
			}},
		text("log_format", "format of log lines: text or json", "text",
			func(c *serveConfig) *string { return &c.logFormat }, oneOf("text", "json")),
	}
	return slices.Concat(all, tlsSettings(), authSettings(), auditSettings(), quotaSettings(), debugSettings(), limitSettings())
}

// limitSettings returns the limits of what grows in the lock table. The first leader of a
// new cluster writes them into the table; 0 stands for the table's default. After that only
// `locknode limits set` changes them.
func limitSettings() []*setting {
	count := func(key, usage string, field func(*serveConfig) *int) *setting {
		s := number("limits."+key, usage, 0, 0, 1<<31-1, field)
		s.tuning = true
		return s
	}
	span := func(key, usage string, field func(*serveConfig) *int64) *setting {
		return &setting{key: "limits." + key, kind: "duration", usage: usage, def: "0s", tuning: true,
			set: func(c *serveConfig, values []string) error {
				d, err := parseDuration(values[0])
				if err == nil && d < 0 {
					err = errors.New("must be 0 or more")
				}
				*field(c) = int64(d)
				return err
			}}
	}
	return []*setting{
		count("name_bytes", "length of a lock's name", func(c *serveConfig) *int { return &c.node.Limits.NameBytes }),
		count("value_bytes", "length of a lock's value", func(c *serveConfig) *int { return &c.node.Limits.ValueBytes }),
		count("holder_bytes", "length of a holder's name", func(c *serveConfig) *int { return &c.node.Limits.HolderBytes }),
		count("labels", "labels of a session or grant", func(c *serveConfig) *int { return &c.node.Limits.Labels }),
		count("label_bytes", "length of one label, key and value together", func(c *serveConfig) *int { return &c.node.Limits.LabelBytes }),
		count("locks_per_request", "locks in one request", func(c *serveConfig) *int { return &c.node.Limits.LocksPerRequest }),
		count("waiters_per_lock", "waiters in one queue", func(c *serveConfig) *int { return &c.node.Limits.WaitersPerLock }),
		count("waiters", "waiters in all queues", func(c *serveConfig) *int { return &c.node.Limits.Waiters }),
		count("grants_per_session", "grants and places in queues of one session", func(c *serveConfig) *int { return &c.node.Limits.GrantsPerSession }),
		count("requests_window", "answers remembered for each session", func(c *serveConfig) *int { return &c.node.Limits.RequestsWindow }),
		count("sessions", "sessions in all", func(c *serveConfig) *int { return &c.node.Limits.Sessions }),
		count("grants", "grants and places in queues, in all", func(c *serveConfig) *int { return &c.node.Limits.Grants }),
		count("once_remembered", "request IDs of detached acquires that are remembered", func(c *serveConfig) *int { return &c.node.Limits.OnceRemembered }),
		count("ended_remembered", "sessions remembered after their end", func(c *serveConfig) *int { return &c.node.Limits.EndedRemembered }),
		span("once_for", "how long both are remembered", func(c *serveConfig) *int64 { return &c.node.Limits.OnceNanos }),
		span("min_ttl", "shortest TTL", func(c *serveConfig) *int64 { return &c.node.Limits.MinTTL }),
		span("max_ttl", "longest TTL", func(c *serveConfig) *int64 { return &c.node.Limits.MaxTTL }),
		span("max_wait", "longest wait of a detached acquire", func(c *serveConfig) *int64 { return &c.node.Limits.MaxWait }),
		span("max_delay", "longest delay after a loss", func(c *serveConfig) *int64 { return &c.node.Limits.MaxDelay }),
		count("reason_bytes", "length of the reason of a force-release", func(c *serveConfig) *int { return &c.node.Limits.ReasonBytes }),
		count("expiries_per_entry", "expiries in one log entry; the rest waits for the next entry", func(c *serveConfig) *int { return &c.node.Limits.ExpiriesPerEntry }),
		{key: "limits.table_bytes", kind: "size", usage: "memory of the table; 0: a quarter of what the node that forms the cluster may use", def: "0", tuning: true,
			set: func(c *serveConfig, values []string) (err error) {
				c.node.Limits.TableBytes, err = parseBytes(values[0])
				return err
			}},
	}
}

// The kinds of settings. A check returns an error that says what the value must be.

func text(key, usage, def string, field func(*serveConfig) *string, checks ...func(string) error) *setting {
	return &setting{key: key, kind: "string", usage: usage, def: def, set: func(c *serveConfig, values []string) error {
		*field(c) = values[0]
		if values[0] == "" {
			return nil // not set
		}
		for _, check := range checks {
			if err := check(values[0]); err != nil {
				return err
			}
		}
		return nil
	}}
}

func number(key, usage string, def, least, most int, field func(*serveConfig) *int) *setting {
	return &setting{key: key, kind: "int", usage: usage, def: strconv.Itoa(def), set: func(c *serveConfig, values []string) error {
		n, err := strconv.Atoi(values[0])
		if err != nil || n < least || n > most {
			return fmt.Errorf("must be a whole number from %d to %d", least, most)
		}
		*field(c) = n
		return nil
	}}
}

func truth(key, usage string, field func(*serveConfig) *bool) *setting {
	return &setting{key: key, kind: "bool", usage: usage, def: "false", set: func(c *serveConfig, values []string) error {
		if err := oneOf("true", "false")(values[0]); err != nil {
			return err
		}
		*field(c) = values[0] == "true"
		return nil
	}}
}

func duration(key, usage, def string, field func(*serveConfig) *time.Duration, checks ...func(time.Duration) error) *setting {
	return &setting{key: key, kind: "duration", usage: usage, def: def, set: func(c *serveConfig, values []string) error {
		d, err := parseDuration(values[0])
		if err != nil {
			return err
		}
		for _, check := range checks {
			if err := check(d); err != nil {
				return err
			}
		}
		*field(c) = d
		return nil
	}}
}

// unset makes a setting optional: if it is empty, the node uses its own default.
func unset(s *setting) *setting {
	set := s.set
	s.set = func(c *serveConfig, values []string) error {
		if values[0] == "" {
			return nil
		}
		return set(c, values)
	}
	return s
}

// The checks.

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err == nil:
		return d, nil
	case durationPattern.MatchString(s):
		return 0, fmt.Errorf("must be at most %v", time.Duration(math.MaxInt64).Truncate(time.Hour))
	default:
		return 0, errors.New("must be a duration with its unit, such as 200ms, 30s or 72h")
	}
}

// durationPattern matches a duration, even if it is too long for time.Duration.
var durationPattern = regexp.MustCompile(`^[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`)

func between(least, most time.Duration) func(time.Duration) error {
	return func(d time.Duration) error {
		if d < least || d > most {
			return fmt.Errorf("must be between %v and %v", least, most)
		}
		return nil
	}
}

func atMost(bytes int) func(string) error {
	return func(s string) error {
		if len(s) > bytes {
			return fmt.Errorf("must have at most %d bytes, has %d", bytes, len(s))
		}
		return nil
	}
}

func matching(pattern, allowed string) func(string) error {
	p := regexp.MustCompile(pattern)
	return func(s string) error {
		if !p.MatchString(s) {
			return errors.New("must be " + allowed)
		}
		return nil
	}
}

func oneOf(allowed ...string) func(string) error {
	return func(s string) error {
		for _, a := range allowed {
			if s == a {
				return nil
			}
		}
		return errors.New("must be " + either(allowed))
	}
}

// either lists words, the last after "or".
func either(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// host checks a host that others dial.
func host(s string) error {
	_, err := address.Host(s)
	return err
}

// dial checks an address of another node.
func dial(s string) error { return address.Dial(s) }

// bind checks an address to listen on.
func bind(s string) error {
	if _, port, err := net.SplitHostPort(s); err == nil {
		if n, err := strconv.Atoi(port); err == nil && n >= 0 && n <= 65535 {
			return nil
		}
	}
	return errors.New("must be host:port, such as 127.0.0.1:7400")
}

func addressOr(word string) func(string) error {
	return func(s string) error {
		if s == word || bind(s) == nil {
			return nil
		}
		return fmt.Errorf("must be host:port or %q", word)
	}
}

func each(values []string, check func(string) error) error {
	var faults []string
	for _, v := range values {
		if err := check(v); err != nil {
			faults = append(faults, fmt.Sprintf("%q: %v", v, err))
		}
	}
	if len(faults) > 0 {
		return errors.New(strings.Join(faults, "; "))
	}
	return nil
}

func onlyText(s string) error {
	if printable(s) != s {
		return errors.New("must be printable text")
	}
	return nil
}
