package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/node"
)

// reloadable are the settings that SIGHUP changes in a running node. The others take effect
// at the next start.
var reloadable = []string{"log_level", "http_hosts", "gossip_key", "gossip_key_file"}

// reloader reloads the configuration of a running node, at SIGHUP and when an operator asks for it.
// Its methods are safe for concurrent use.
type reloader struct {
	flags  *pflag.FlagSet
	lookup func(string) (string, bool)
	level  *slog.LevelVar
	log    *slog.Logger

	mu      sync.Mutex // held while the configuration is reloaded; guards what follows
	current []resolved // the settings that the node runs with
	node    *node.Node // nil in tests, and before it runs
	audit   *rotating  // nil: the audit goes to no file
}

// runs says which node has the configuration, and which file the audit goes to.
func (r *reloader) runs(n *node.Node, audit *rotating) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.node, r.audit = n, audit
}

// reload reads the file and the environment again and applies the reloadable settings, and has the
// node read its certificates and its gossip key. If the configuration has a fault, it changes
// nothing of the settings. It logs what has become of each, and returns that. It never ends the node.
func (r *reloader) reload(ctx context.Context) []client.ReloadedItem {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.audit != nil {
		if err := r.audit.reopen(); err != nil {
			r.log.Warn("the audit is not opened again, its lines go on to the file before", "err", err)
		}
	}
	cfg, all, err := resolve(r.flags, r.lookup)
	if err = errors.Join(err, cfg.node.Validate(), oneGossipKey(cfg), auditFault(cfg)); err != nil {
		r.log.Warn("configuration is not reloaded, all settings stay as they are", "err", err)
		return append([]client.ReloadedItem{{What: "settings", Refused: err.Error()}}, r.certificatesLocked()...)
	}
	changed, later := r.compareLocked(all)
	// Logged at the lower of the two levels: the operator who reloads looks for these lines.
	r.level.Set(min(r.level.Level(), cfg.logLevel))
	if r.node != nil {
		r.node.SetHTTPHosts(cfg.node.HTTPHosts)
		r.node.AuditSettings(changed)
	}
	items := append([]client.ReloadedItem{{What: "settings", Changed: len(changed) > 0, Detail: detail(changed, later)}}, r.certificatesLocked()...)
	items = append(items, r.gossipKeyLocked(ctx, cfg.node.GossipKey)...)
	r.log.Info("configuration reloaded", "changed", changed)
	if len(later) > 0 {
		r.log.Warn("these settings have changed and take effect at the next start", "settings", later)
	}
	r.level.Set(cfg.logLevel)
	return items
}

// compareLocked returns which settings have changed, and which of the changes take effect later.
func (r *reloader) compareLocked(all []resolved) (changed, later []string) {
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
	return changed, later
}

func detail(changed, later []string) string {
	text := strings.Join(changed, ", ")
	if len(later) > 0 {
		text = strings.TrimPrefix(text+"; ", "; ") + "at the next start: " + strings.Join(later, ", ")
	}
	return text
}

// certificatesLocked has the node read its certificates, if it has any.
func (r *reloader) certificatesLocked() []client.ReloadedItem {
	if r.node == nil || !r.node.HasCertificates() {
		return nil
	}
	item := r.node.ReloadedCertificates()
	if item.Refused != "" {
		r.log.Warn("certificates are not reloaded, those read before stay in use", "err", item.Refused)
	}
	return []client.ReloadedItem{item}
}

// gossipKeyLocked has the node install the configured gossip key, if there is one.
func (r *reloader) gossipKeyLocked(ctx context.Context, key []byte) []client.ReloadedItem {
	if r.node == nil || len(key) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, gossipKeyTime)
	defer cancel()
	item := client.ReloadedItem{What: "gossip_key"}
	fresh, err := r.node.TakeGossipKey(ctx, key)
	if err != nil {
		item.Refused = err.Error()
		r.log.Warn("the gossip key is not installed, or not on all members", "err", err)
	}
	if item.Changed = fresh; fresh {
		item.Detail = "installed; `locknode gossip-key use` has it encrypt"
		r.log.Info("the gossip key of the settings is installed")
	}
	return []client.ReloadedItem{item}
}

// gossipKeyTime bounds the installation of a key on all members.
const gossipKeyTime = 10 * time.Second

func (a *app) reloadCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:     "reload NODE | --all-nodes",
		Short:   "have nodes read their files again",
		GroupID: groupNode,
		Long: `Reload has one member, by its ID, or all of them read again what a node reads while it runs:
its configuration file (log_level and http_hosts take effect), its certificates, and the gossip
key, which is installed if it is a new one. It prints what each node has read, what has changed,
and what it refused and why: then what was in use before stays in use. SIGHUP does the same.
The exit code is 1 if a node has refused something or does not answer.`,
		Example: `  locknode reload n2
  locknode reload --all-nodes`,
		Args: arguments(0, 1, "one NODE, or --all-nodes"),
	}
	a.clientFlags(c)
	c.Flags().BoolVar(&all, "all-nodes", false, "all members")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if (len(args) == 1) == all {
			return hinted(usageError("reload: needs either a NODE or --all-nodes"), "`locknode members` shows the IDs of the nodes")
		}
		return a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			member := ""
			if len(args) == 1 {
				member = args[0]
			}
			members, err := c.Reload(ctx, member)
			if err != nil {
				return err
			}
			return a.printReloaded(members)
		})(cmd, args)
	}
	return c
}

// reloadedJSON is what one node has made of its files.
type reloadedJSON struct {
	ID    string             `json:"id"`
	Fault string             `json:"fault,omitempty"`
	Items []reloadedItemJSON `json:"items"`
}

type reloadedItemJSON struct {
	What    string `json:"what"`
	Changed bool   `json:"changed"`
	Detail  string `json:"detail,omitempty"`
	Refused string `json:"refused,omitempty"`
}

func (a *app) printReloaded(members []client.ReloadedMember) error {
	documents, rows, refused := []reloadedJSON{}, [][]string(nil), 0
	for _, m := range members {
		d := reloadedJSON{ID: m.ID, Fault: m.Fault, Items: []reloadedItemJSON{}}
		if m.Fault != "" {
			refused++
			rows = append(rows, []string{quoteName(m.ID), "", "does not answer", m.Fault})
		}
		for _, i := range m.Items {
			d.Items = append(d.Items, reloadedItemJSON(i))
			outcome, why := "as before", i.Detail
			switch {
			case i.Refused != "":
				refused++
				outcome, why = "refused", strings.ReplaceAll(i.Refused, "\n", "; ")
			case i.Changed:
				outcome = "changed"
			}
			rows = append(rows, []string{quoteName(m.ID), i.What, outcome, why})
		}
		documents = append(documents, d)
	}
	var err error
	if a.json {
		err = a.printJSON(struct {
			Members []reloadedJSON `json:"members"`
		}{documents})
	} else {
		err = a.table([]string{"NODE", "WHAT", "OUTCOME", "DETAIL"}, rows)
	}
	if err == nil && refused > 0 {
		return fmt.Errorf("reload: %s refused or not answered; what was in use before stays in use", counted(refused, "thing"))
	}
	return err
}
