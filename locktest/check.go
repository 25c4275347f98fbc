package locktest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/locknode/locknode/internal/proof/history"
)

// promises are those of docs/design.md, in a few words.
var promises = map[string]string{
	"S1":   "an exclusive lock has one holder",
	"S2":   "nothing expires early",
	"S3":   "a loss is told in time",
	"S4":   "tokens grow",
	"S5":   "only the holder changes a grant",
	"S6":   "a request takes effect once",
	"S7":   "what was acknowledged survives",
	"S8":   "reads are linearizable",
	"S9":   "the same log gives the same state",
	"FIFO": "first come, first served",
}

const (
	// settle bounds the wait until all nodes have applied the same entries.
	settle = 30 * time.Second
	// late is how much later than it was over the end of a belief may be noticed
	// outside a bubble, where a busy machine runs timers late.
	late = time.Second
)

// CheckHistory judges everything that happened so far by the promises of
// docs/design.md, and fails the test with a sentence for each that was broken: by what all
// clients asked, were told and believed, with every node's log, and by the
// tables of the nodes that run, which must be the same to the byte.
//
// For that, these have to get to the same point of the log: it waits up to half
// a minute, and fails the test if they do not, because they are cut off, paused
// or have no majority; so heal, resume and restart first, or kill who is in the
// way. It may be called several times. It returns whether nothing was broken.
//
// What it does not see: what programs do with the locks. Let the resource
// compare tokens, and count what it refuses.
func (c *Cluster) CheckHistory() bool {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	differ, err := c.sim.Same(ctx)
	o := history.Options{Alone: true, Watched: true} // by clients that did nothing nothing is broken
	if !c.sim.Virtual() {
		o.Late = late
	}
	report := c.sim.Recorder().History().Check(o)
	if differ != nil {
		report.Violations = append(report.Violations, *differ)
	}
	for _, v := range report.Violations {
		c.t.Error(sentence(v))
	}
	if err != nil {
		c.t.Errorf("locktest: the tables cannot be compared, %v; heal, resume or restart before, or kill who is in the way", err)
	}
	s := report.Stats
	c.t.Logf("locktest: at %v: %d operations, %d grants of %d locks and %d log entries were checked, %d answers were unknown, %d promises broken",
		c.Now().Round(time.Millisecond), s.Ops, s.Grants, s.Locks, s.Entries, s.Unknown, len(report.Violations))
	return err == nil && len(report.Violations) == 0
}

// sentence says what was broken, and who found out.
func sentence(v history.Violation) string {
	var b strings.Builder
	if text, ok := promises[v.Promise]; ok {
		fmt.Fprintf(&b, "locktest: broken: %s (%s)", text, v.Promise)
	} else {
		b.WriteString("locktest: nothing is shown")
	}
	if v.Lock != "" {
		fmt.Fprintf(&b, ", lock %q", v.Lock)
	}
	text := strings.ReplaceAll(v.Text, history.Never.String(), "the end")
	fmt.Fprintf(&b, ": %s (found by the check of %s)", text, v.Check)
	return b.String()
}
