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
	"S3":   "a holder loses its grant in time",
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
	// late is how much later than its end a client may notice that its grant is over,
	// outside a bubble, where a busy machine runs timers late.
	late = time.Second
)

// CheckHistory checks everything that happened so far against the promises of
// docs/design.md, and fails the test with a sentence for each violation. It compares the
// requests of all clients, their answers, and when which grants were valid, with every node's
// log, and the tables of the running nodes with each other, which must be the same to the byte.
//
// For that, these nodes have to apply the same entries of the log: it waits up to half
// a minute, and fails the test if they do not, because they are cut off, paused
// or have no majority; so heal, resume and restart first, or kill the nodes that cannot follow.
// It may be called several times, and returns whether nothing was broken.
//
// It does not see what programs do with the locks. Let the resource
// compare tokens, and count what it refuses.
func (c *Cluster) CheckHistory() bool {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), settle)
	defer cancel()
	differ, err := c.sim.Same(ctx)
	o := history.Options{Alone: true, Watched: true} // clients that did nothing break no promise
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
		c.t.Errorf("locktest: the tables cannot be compared, %v; heal, resume or restart first, or kill the node that cannot follow", err)
	}
	s := report.Stats
	c.t.Logf("locktest: at %v: %d operations, %d grants of %d locks and %d log entries were checked, %d answers were unknown, %d promises broken",
		c.Now().Round(time.Millisecond), s.Ops, s.Grants, s.Locks, s.Entries, s.Unknown, len(report.Violations))
	return err == nil && len(report.Violations) == 0
}

// sentence says which promise was broken, and which check has found it.
func sentence(v history.Violation) string {
	var b strings.Builder
	if text, ok := promises[v.Promise]; ok {
		fmt.Fprintf(&b, "locktest: broken: %s (%s)", text, v.Promise)
	} else {
		b.WriteString("locktest: the history cannot be checked")
	}
	if v.Lock != "" {
		fmt.Fprintf(&b, ", lock %q", v.Lock)
	}
	text := strings.ReplaceAll(v.Text, history.Never.String(), "the end")
	fmt.Fprintf(&b, ": %s (found by the check of %s)", text, v.Check)
	return b.String()
}
