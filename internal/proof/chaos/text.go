package chaos

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteText writes the result as text.
func (r *Result) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d faults in %v, %d operations of %d client processes, %d nodes\n",
		r.Seed, len(r.Events), r.Took.Round(time.Second), r.Operations, r.Clients, r.Nodes)
	if r.Ended != "" {
		fmt.Fprintf(&b, "ended before its time: %s\n", r.Ended)
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(&b, "skipped %s: %s\n", s.Fault, s.Why)
	}
	b.WriteString("\n")
	r.writeRecoveries(&b)
	c := r.Checked
	fmt.Fprintf(&b, "\nchecked   %d operations on %d locks in %d rounds: %d grants, %d beliefs, %d unknown outcomes; the longest search took %v\n",
		c.Ops, c.Locks, r.Rounds, c.Grants, c.Beliefs, c.Unknown, c.Longest.Round(time.Millisecond))
	after := "read back at the end"
	if !r.ReadBack {
		after = "could not be read back"
	}
	fmt.Fprintf(&b, "kept      %d locks were granted and never released, and %s\n", r.Kept, after)
	for _, v := range r.Broken {
		fmt.Fprintf(&b, "\nBROKEN    %s\n", v.Sentence())
		if v.Picture != "" {
			fmt.Fprintf(&b, "          picture: %s\n", v.Picture)
		}
	}
	for _, l := range r.Late() {
		fmt.Fprintf(&b, "\nLATE      %s\n", l.Sentence())
	}
	if r.OK() {
		b.WriteString("\nNo promise was broken, and every recovery was in time.\n")
	} else {
		fmt.Fprintf(&b, "\n%d promises broken, %d recoveries late. Seed %d; logs and histories are in %s\n", len(r.Broken), len(r.Late()), r.Seed, r.Dir)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Sentence says which promise was broken, and how.
func (v Violation) Sentence() string {
	s := fmt.Sprintf("%s (found by %s)", v.Promise, v.Check)
	if v.Lock != "" {
		s += ", lock " + v.Lock
	}
	return s + ": " + v.Text
}

func (r *Result) writeRecoveries(b *strings.Builder) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "fault\tcounted from\ttimes\tp50\tp99\tmax\tbound\tfirst client p50\tp99\tmax")
	line := func(s Summary) {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Fault, s.After, s.Count,
			ms(s.All.P50), ms(s.All.P99), ms(s.All.Max), ms(s.Bound), ms(s.First.P50), ms(s.First.P99), ms(s.First.Max))
	}
	for _, s := range r.Summaries() {
		line(s)
	}
	if kills := r.Kills(); kills.Count > 0 {
		line(kills)
	}
	_ = t.Flush() // to memory
}

// Kills are the recoveries from all kinds of kill -9 together.
func (r *Result) Kills() Summary {
	var kills []Recovery
	for _, rec := range r.Recoveries {
		if strings.HasPrefix(rec.Fault, "kill-") {
			kills = append(kills, rec)
		}
	}
	s := summarize(kills)
	s.Fault, s.After = "all kills", "a majority up"
	return s
}

// ms is a duration in milliseconds, as people compare them.
func ms(d time.Duration) string {
	return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
}
