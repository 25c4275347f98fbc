package simulation

import (
	"fmt"
	"slices"
	"time"

	"github.com/locknode/locknode/internal/proof/history"
)

// totals add up what many runs did.
type totals struct {
	Runs, Faults, Leaders, Violations int
	Virtual                           time.Duration
	Stats                             history.Stats
	Recoveries                        []time.Duration
	History                           string // hash of the last run's
}

// more reports whether another seed is to be run.
func (s *totals) more(want int, took time.Duration) bool {
	if want > 0 {
		return s.Runs < want
	}
	return s.Runs == 0 || took < *budget
}

func (s *totals) add(o *Outcome) {
	s.join(&totals{
		Runs: 1, Faults: o.Faults - o.Refused, Leaders: o.Leaders, Violations: len(o.Violations),
		Virtual: o.Virtual, Stats: o.Stats, Recoveries: o.Recoveries, History: fmt.Sprintf("%016x", o.Hash()),
	})
}

func (s *totals) join(o *totals) {
	s.Runs += o.Runs
	s.Faults += o.Faults
	s.Leaders += o.Leaders
	s.Violations += o.Violations
	s.Virtual += o.Virtual
	s.Stats.Ops += o.Stats.Ops
	s.Stats.Unknown += o.Stats.Unknown
	s.Stats.Grants += o.Stats.Grants
	s.Stats.Beliefs += o.Stats.Beliefs
	s.Stats.Entries += o.Stats.Entries
	s.Stats.Locks += o.Stats.Locks
	s.Recoveries = append(s.Recoveries, o.Recoveries...)
	s.History = o.History
}

func (s *totals) String(first uint64, took time.Duration) string {
	slices.Sort(s.Recoveries)
	at := func(q float64) time.Duration {
		if len(s.Recoveries) == 0 {
			return 0
		}
		return s.Recoveries[int(q*float64(len(s.Recoveries)-1))].Round(time.Millisecond)
	}
	return fmt.Sprintf("simulation: seeds %d to %d, %.1f cluster-hours in %v: %d operations (%d of unknown outcome), %d grants, %d beliefs, "+
		"%d lock histories, %d applied entries, %d faults, %d leaderships, recovery p50 %v p99 %v max %v, %d violations",
		first, first+uint64(s.Runs)-1, s.Virtual.Hours(), took.Round(time.Second), s.Stats.Ops, s.Stats.Unknown, s.Stats.Grants,
		s.Stats.Beliefs, s.Stats.Locks, s.Stats.Entries, s.Faults, s.Leaders, at(0.5), at(0.99), at(1), s.Violations)
}
