package node

import (
	"context"
	"fmt"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/audit"
	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/membership"
)

// Which commands may be written? Those of the feature level of the table (fsm/level.go),
// which the leader raises once all members agree (internal/membership/level.go).

// tableLevel is the feature level of the table, as of the last entry applied.
type tableLevel struct {
	level   uint32
	version string // the first version of Locknode that knows it
}

// tableLevel returns the feature level of the table: 1 before anything was applied.
func (n *Node) tableLevel() tableLevel {
	if l := n.level.Load(); l != nil {
		return *l
	}
	return tableLevel{1, fsm.LevelVersion(1)}
}

// agreedLevel is the highest level that this node agrees to.
func (c *Config) agreedLevel() uint32 {
	if c.FeatureLevel == 0 {
		return fsm.Level
	}
	return uint32(c.FeatureLevel) //nolint:gosec // checked
}

// levelChanged is called by the table. It writes the level to disk, so that a program that
// does not know it refuses the directory before it reads anything that a later one has
// written.
func (n *Node) levelChanged(level uint32, version string) {
	n.level.Store(&tableLevel{level, version})
	if id := n.stores.Identity(); id.FeatureLevel == level && id.FeatureVersion == version {
		return // a restart
	}
	n.log.Info("the lock table has another feature level now", "level", level, "since_version", version)
	err := n.stores.UpdateIdentity(func(id *disk.Identity) { id.FeatureLevel, id.FeatureVersion = level, version })
	if err != nil {
		n.log.Warn("feature level not written to the data directory", "level", level, "err", err)
	}
}

// knowsLevel returns a [fsm.LevelError] if this program does not know the level of the
// directory's table.
func knowsLevel(id disk.Identity) error {
	if id.FeatureLevel > fsm.Level {
		return &fsm.LevelError{Level: id.FeatureLevel, Version: id.FeatureVersion}
	}
	return nil
}

// levels is what membership needs to know of feature levels.
func (n *Node) levels() membership.Levels {
	return membership.Levels{
		Table: func() uint32 { return n.tableLevel().level },
		Known: fsm.Level, Agreed: n.cfg.agreedLevel(),
		Version: func() string { return n.tableLevel().version },
		Raise: func(ctx context.Context, to uint32) error {
			e := n.epoch.Load()
			if e == nil {
				return fmt.Errorf("raise the feature level to %d: this node does not lead", to)
			}
			outcomes, err := n.runAll(ctx, e, fsm.RaiseLevel{Level: to, Version: fsm.LevelVersion(to)})
			if err == nil && outcomes[0].result.Code != fsm.OK {
				err = fmt.Errorf("raise the feature level to %d: %s: %s", to, outcomes[0].result.Field, outcomes[0].result.Detail)
			}
			if err == nil {
				n.note(audit.EventLevel, fmt.Sprint(to), outcomes[0].index)
			}
			return err
		},
	}
}

// belowLevel returns the result of a command of a later level than the table's, which is
// refused and never written.
func belowLevel(c fsm.Command, table tableLevel) (fsm.Result, bool) {
	need := fsm.LevelOf(c)
	if need <= table.level {
		return fsm.Result{}, false
	}
	return fsm.Result{Code: fsm.UnknownCommand, Detail: fmt.Sprintf("this operation needs feature level %d, which Locknode %s and later versions know, and the cluster is at level %d: "+
		"\"locknode members\" shows which members do not know it or do not agree to it", need, fsm.LevelVersion(need), table.level)}, true
}
