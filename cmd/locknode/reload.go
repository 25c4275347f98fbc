package main

import (
	"errors"
	"log/slog"
	"slices"

	"github.com/spf13/pflag"

	"github.com/locknode/locknode/node"
)

// reloadable are the settings that SIGHUP changes in a running node. The others take effect
// at the next start.
var reloadable = []string{"log_level", "http_hosts"}

// reloader reloads the configuration of a running node. Only the goroutine that serves may
// use it.
type reloader struct {
	flags   *pflag.FlagSet
	lookup  func(string) (string, bool)
	level   *slog.LevelVar
	current []resolved // the settings that the node runs with
	log     *slog.Logger
	node    *node.Node // nil in tests
	audit   *rotating  // nil: the audit goes to no file
}

// reload reads the file and the environment again and applies the reloadable settings. If
// the configuration has a fault, it logs the fault and changes nothing. It never ends the
// node.
func (r *reloader) reload() {
	if r.audit != nil {
		if err := r.audit.reopen(); err != nil {
			r.log.Warn("the audit is not opened again, its lines go on to the file before", "err", err)
		}
	}
	cfg, all, err := resolve(r.flags, r.lookup)
	if err = errors.Join(err, cfg.node.Validate(), oneGossipKey(cfg), auditFault(cfg)); err != nil {
		r.log.Warn("configuration is not reloaded, all settings stay as they are", "err", err)
		return
	}
	var changed, later []string
	for i, s := range all {
		switch {
		case slices.Equal(s.values, r.current[i].values):
		case slices.Contains(reloadable, s.key):
			changed = append(changed, s.key)
			r.current[i] = s
		default:
			later = append(later, s.key)
		}
	}
	// Logged at the lower of the two levels: the operator who reloads looks for these lines.
	r.level.Set(min(r.level.Level(), cfg.logLevel))
	if r.node != nil {
		r.node.SetHTTPHosts(cfg.node.HTTPHosts)
		if err := r.node.ReloadCertificates(); err != nil {
			r.log.Warn("certificates are not reloaded, those read before stay in use", "err", err)
		}
		r.node.AuditSettings(changed)
	}
	r.log.Info("configuration reloaded", "changed", changed)
	if len(later) > 0 {
		r.log.Warn("these settings have changed and take effect at the next start", "settings", later)
	}
	r.level.Set(cfg.logLevel)
}
