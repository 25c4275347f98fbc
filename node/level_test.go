package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/fair"
)

func TestADirectoryOfALaterFeatureLevelIsRefused(t *testing.T) {
	if err := knowsLevel(disk.Identity{}); err != nil {
		t.Error(err)
	}
	if err := knowsLevel(disk.Identity{FeatureLevel: fsm.Level}); err != nil {
		t.Error(err)
	}
	err := knowsLevel(disk.Identity{FeatureLevel: fsm.Level + 1, FeatureVersion: "9.1.0"})
	var e *fsm.LevelError
	if !errors.As(err, &e) || !strings.Contains(err.Error(), "run Locknode 9.1.0 or a later version") {
		t.Errorf("a directory of a later level: %v, want what to run", err)
	}
}

func TestFeatureLevelOfTheConfigurationIsChecked(t *testing.T) {
	for _, level := range []int{-1, fsm.Level + 1} {
		c := Config{DataDir: t.TempDir(), FeatureLevel: level}
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "feature level") {
			t.Errorf("feature level %d: %v, want it refused", level, err)
		}
	}
	if got := (&Config{}).agreedLevel(); got != fsm.Level {
		t.Errorf("without a setting a node agrees to %d, want %d", got, fsm.Level)
	}
}

// A command of a later level than the table's is answered and does not reach the log.
func TestCommandAboveTheTablesLevelIsRefusedAndNotWritten(t *testing.T) {
	written := 0
	p := newProposer(1, newLeaderClock(0, func() time.Duration { return 0 }), time.Now, func([]byte) (fsm.Applied, error) {
		written++
		return fsm.Applied{}, errNotProposed
	})
	p.level = func() tableLevel { return tableLevel{level: 0} } // below every command
	var got outcome
	p.submit(fair.Owner{}, fsm.KeepAlive{}, func(o outcome) { got = o })
	if got.err != nil || got.result.Code != fsm.UnknownCommand || !strings.Contains(got.result.Detail, "needs feature level 1") || !strings.Contains(got.result.Detail, "the cluster is at level 0") {
		t.Errorf("outcome %+v, want it refused with both levels", got)
	}
	if p.lanes.commands.Len() != 0 || written != 0 {
		t.Error("it was queued or written")
	}
}
