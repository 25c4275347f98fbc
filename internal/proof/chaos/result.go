package chaos

import (
	"fmt"
	"slices"
	"time"

	"github.com/locknode/locknode/internal/proof/history"
)

// Result is what a run did and found.
type Result struct {
	Seed     uint64        `json:"seed"`
	Nodes    int           `json:"nodes"`
	Clients  int           `json:"clients"`
	Settings []string      `json:"settings"` // of the nodes, beyond their defaults
	Bound    time.Duration `json:"recovery_bound_ns"`
	Began    time.Time     `json:"began"`
	Took     time.Duration `json:"took_ns"`
	Dir      string        `json:"dir"`
	Ended    string        `json:"ended,omitempty"` // why it ended before its time

	Kinds      []string    `json:"faults"`
	Skipped    []Skipped   `json:"skipped"`
	Events     []Event     `json:"events"`
	Recoveries []Recovery  `json:"recoveries"`
	Broken     []Violation `json:"violations"`

	Timeline []Bucket `json:"timeline"`
	Details  []Detail `json:"details"`

	Operations int64         `json:"operations"`
	Kept       int           `json:"kept"`      // locks that were given and never released
	ReadBack   bool          `json:"read_back"` // whether they could be looked at in the end
	Rounds     int           `json:"rounds"`
	Checked    history.Stats `json:"checked"`
}

// Skipped is a kind that this machine does not allow.
type Skipped struct {
	Fault string `json:"fault"`
	Why   string `json:"why"`
}

// Event is a fault as it happened.
type Event struct {
	Number int           `json:"number"`
	Fault  string        `json:"fault"`
	Family string        `json:"family"`
	At     time.Duration `json:"at_ns"`
	Until  time.Duration `json:"until_ns"`
	What   string        `json:"what"`
}

// Recovery is how long clients had to wait until the cluster worked for them.
type Recovery struct {
	Number int           `json:"number"`
	Fault  string        `json:"fault"`
	After  string        `json:"after"` // what it is counted from, such as "majority up"
	At     time.Duration `json:"at_ns"`
	First  time.Duration `json:"first_ns"` // until the first probing client had finished a cycle
	All    time.Duration `json:"all_ns"`   // until every one had
	Bound  time.Duration `json:"bound_ns"`
	// Stall is how long this process, which only observes, was kept from running meanwhile:
	// how busy the machine was with other things.
	Stall time.Duration `json:"stall_ns,omitempty"`
}

// Sentence says how late it was, in plain words.
func (r Recovery) Sentence() string {
	s := fmt.Sprintf("fault %d, %s: clients worked %s after %s, allowed are %s", r.Number, r.Fault, ms(r.All), r.After, ms(r.Bound))
	if r.Stall > 0 {
		s += fmt.Sprintf("; the machine was so busy that this program stood still for up to %s", ms(r.Stall))
	}
	return s
}

// Violation is a promise that was broken.
type Violation struct {
	history.Violation
	At      time.Duration `json:"at_ns"`
	Picture string        `json:"picture,omitempty"` // the file that shows it
}

// OK reports whether no promise was broken and every recovery was in time.
func (r *Result) OK() bool { return len(r.Broken) == 0 && len(r.Late()) == 0 }

// Late are the recoveries that took longer than they may.
func (r *Result) Late() (late []Recovery) {
	for _, rec := range r.Recoveries {
		if rec.All > rec.Bound {
			late = append(late, rec)
		}
	}
	return late
}

// Summary is what the recoveries of one kind of fault have in common.
type Summary struct {
	Fault string
	After string
	Count int
	Late  int
	Bound time.Duration
	First Percentiles // of the first probing client
	All   Percentiles // of the slowest one
}

// Percentiles of durations.
type Percentiles struct{ P50, P99, Max time.Duration }

func percentiles(all []time.Duration) Percentiles {
	if len(all) == 0 {
		return Percentiles{}
	}
	sorted := slices.Sorted(slices.Values(all))
	rank := func(percent int) time.Duration { return sorted[max(0, (len(sorted)*percent+99)/100-1)] }
	return Percentiles{rank(50), rank(99), sorted[len(sorted)-1]}
}

// Summaries are the recoveries by kind and by what they are counted from, in the
// order in which these came first.
func (r *Result) Summaries() []Summary {
	type key struct{ fault, after string }
	var order []key
	groups := map[key][]Recovery{}
	for _, rec := range r.Recoveries {
		k := key{rec.Fault, rec.After}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], rec)
	}
	var out []Summary
	for _, k := range order {
		s := summarize(groups[k])
		s.Fault, s.After = k.fault, k.after
		out = append(out, s)
	}
	return out
}

// summarize takes recoveries together.
func summarize(recoveries []Recovery) Summary {
	s := Summary{Count: len(recoveries)}
	var first, all []time.Duration
	for _, rec := range recoveries {
		first, all = append(first, rec.First), append(all, rec.All)
		s.Bound = max(s.Bound, rec.Bound)
		if rec.All > rec.Bound {
			s.Late++
		}
	}
	s.First, s.All = percentiles(first), percentiles(all)
	return s
}
