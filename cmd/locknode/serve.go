package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/locknode/locknode/node"
)

func (a *app) serveCommand() *cobra.Command {
	var printOnly bool
	c := &cobra.Command{
		Use:     "serve",
		Short:   "run one node",
		GroupID: groupNode,
		Long: `Serve runs one node of a cluster until SIGINT or SIGTERM stops it. A leader then first
transfers leadership, so that clients notice no gap.

Every setting can be given as a flag, in the environment or in a YAML file. A flag takes
precedence over the environment, and the environment over the file: --data-dir,
LOCKNODE_DATA_DIR, data_dir. An empty variable counts as not set; one that begins with
LOCKNODE_ and is close to a setting's name is refused. All faults are reported at once.
The limits of the lock table have flags as well (--limits.name-bytes), which this help
leaves out. --print-config shows all settings with their values, and where each comes
from.

To form a new cluster, start three nodes with --bootstrap-expect 3 that know each other
through --join. They form the cluster once; later starts continue it. To enlarge it,
start another node with --join and without --bootstrap-expect.

SIGHUP never stops the node: it reloads the file, applies log_level and http_hosts, and
logs which other settings have changed and take effect at the next start. A file with a
fault changes nothing. The files of tls.* are read again as well, as they are by
themselves within a minute after they have changed, and the gossip key, which is installed
if it is a new one; audit.file is opened again. "locknode reload" does the same from elsewhere.`,
		Example: `  locknode serve --data-dir /var/lib/locknode --bootstrap-expect 1
  locknode serve --config /etc/locknode.yaml
  LOCKNODE_LISTEN=10.0.0.1:7400 locknode serve --config /etc/locknode.yaml --print-config
  locknode serve --data-dir d1 --listen 127.0.0.1:7400 --bootstrap-expect 3 \
      --join 127.0.0.1:7413 --join 127.0.0.1:7423`,
		Args:        arguments(0, 0, ""),
		Annotations: map[string]string{reloadsAnnotation: "yes"},
	}
	c.Flags().String("config", "", "YAML file to read (LOCKNODE_CONFIG)")
	c.Flags().BoolVar(&printOnly, "print-config", false, "print the settings and where each comes from, and exit")
	addSettingFlags(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, all, err := resolve(c.Flags(), a.lookup)
		err = errors.Join(err, together(cfg), a.environmentFault())
		if printOnly {
			return errors.Join(a.printSettings(all), configFault(err))
		}
		if cfg.node.DataDir == "" {
			err = errors.Join(err, &fault{source: "data_dir", allowed: errors.New(
				"is missing, must be a directory that survives restarts: set --data-dir, LOCKNODE_DATA_DIR or data_dir in the file")})
		}
		if err != nil {
			return configFault(err)
		}
		level := &slog.LevelVar{}
		level.Set(cfg.logLevel)
		cfg.node.Logger = newLogger(a.stderr, level, cfg.logFormat)
		r := &reloader{flags: c.Flags(), lookup: a.lookup, level: level, current: all, log: cfg.node.Logger}
		cfg.node.Reload = r.reload
		return a.serve(c.Context(), cfg, r)
	}
	return c
}

func configFault(err error) error {
	if err == nil {
		return nil
	}
	return hinted(usageError("configuration:\n%w", err), "`locknode serve --print-config` shows all settings and where each comes from")
}

// settingJSON is a setting as --print-config shows it with -o json.
type settingJSON struct {
	Value  any    `json:"value"` // a string, or a list of them
	Source string `json:"source"`
}

func (a *app) printSettings(all []resolved) error {
	if !a.json {
		return printConfig(a.result(), all)
	}
	out := map[string]settingJSON{}
	for _, r := range all {
		s := settingJSON{Value: r.show(r.values), Source: r.source}
		if r.list {
			s.Value = append([]string{}, r.values...)
		}
		out[r.key] = s
	}
	return a.printJSON(out)
}

func newLogger(w io.Writer, level slog.Leveler, format string) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(jsonWriter{w}, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// serve runs a node until ctx ends or the node does.
func (a *app) serve(ctx context.Context, cfg serveConfig, r *reloader) error {
	dumpOnQuit()
	cfg.node.Version = readBuildInfo().Version
	log := cfg.node.Logger
	if unknown := a.unknownVariables(); len(unknown) > 0 {
		log.Warn("variables that begin with LOCKNODE_ and are no settings", "variables", strings.Join(unknown, ", "))
	}
	warnOfOpenKey(log, r.current)
	a.limitMemory(log)
	to, file, err := a.openAudit(cfg.audit, log)
	if err != nil {
		return configFault(err)
	}
	if file != nil {
		defer func() { _ = file.Close() }()
	}
	cfg.node.Audit = to
	if cfg.pprof {
		cfg.node.Debug = profiles()
	}
	n, err := openNode(ctx, cfg.node)
	if err != nil {
		return err
	}
	r.runs(n, file)
	log.Info("listening", "api", n.APIAddr(), "http", n.HTTPAddr(), "raft", n.RaftAddr(), "gossip", n.GossipAddr(), "data_dir", cfg.node.DataDir)
	started := time.Now()
	ready := make(chan error, 1)
	go func() { ready <- n.WaitReady(ctx) }()
	for {
		select {
		case err := <-ready:
			if err == nil {
				log.Info("ready", "after", time.Since(started).Round(time.Millisecond))
			}
			ready = nil // an error means that ctx or the node has ended, which the other cases handle
		case <-a.hangups:
			r.reload(ctx)
		case <-ctx.Done():
			log.Info("stopping", "because", context.Cause(ctx))
			return a.closeNode(n)
		case <-n.Done():
			if err := n.Err(); err != nil {
				return fmt.Errorf("node stopped by itself: %w", err)
			}
			return nil
		}
	}
}

// openNode opens a node. A fault in the configuration is a usage error; any other error,
// of the network as well, has exit code 1, and is not reported as an unreachable cluster.
func openNode(ctx context.Context, cfg node.Config) (*node.Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, configFault(err)
	}
	n, err := node.Open(ctx, cfg)
	if err != nil {
		return nil, &exitError{exitOther, err}
	}
	return n, nil
}

// secondSignalAfter is how long after the first signal a second one takes effect: timeout(1)
// and terminals send two at once.
const secondSignalAfter = 500 * time.Millisecond

// closeNode transfers leadership and stops. A second signal ends the process at once, as
// kill -9 does: nothing is lost, but clients notice a gap.
func (a *app) closeNode(n *node.Node) error {
	closed := make(chan error, 1)
	go func() { closed <- n.Close() }()
	select {
	case err := <-closed:
		return err
	case <-time.After(secondSignalAfter):
	}
	again := make(chan os.Signal, 1)
	notify(again, stops)
	defer signal.Stop(again)
	select {
	case err := <-closed:
		return err
	case s := <-again:
		return fmt.Errorf("stop: %w before the node had stopped", signalled{int(s.(syscall.Signal))})
	}
}
