package simulation

import (
	"slices"
	"time"
)

// Shrink returns the smallest plan that it finds within the time and that still
// goes wrong, and how often it ran one. A run is not the same each time, so that
// a plan without the fault counts as harmless only if it went well twice.
func Shrink(bad *Outcome, within time.Duration, run func(Plan) *Outcome) (small *Outcome, runs int) {
	until := time.Now().Add(within)
	small = bad
	try := func(p Plan) bool {
		for range 2 {
			if time.Now().After(until) {
				return false
			}
			runs++
			if out := run(p); out != nil && len(out.Violations) > 0 {
				small = out
				return true
			}
		}
		return false
	}
	for shorter := true; shorter; {
		shorter = false
		for _, p := range smaller(small.Plan) {
			if try(p) {
				shorter = true
				break
			}
		}
	}
	return small, runs
}

// smaller returns plans that do less, boldest first.
func smaller(p Plan) (plans []Plan) {
	n := len(p.Episodes)
	if n > 1 {
		plans = append(plans, p.with(p.Episodes[n/2:]), p.with(p.Episodes[:n/2]))
	}
	for i := range n {
		plans = append(plans, p.with(slices.Delete(slices.Clone(p.Episodes), i, i+1)))
	}
	for i, e := range p.Episodes {
		if len(e.Steps) < 2 {
			continue
		}
		for k := range e.Steps {
			episodes := slices.Clone(p.Episodes)
			episodes[i].Steps = slices.Delete(slices.Clone(e.Steps), k, k+1)
			plans = append(plans, p.with(episodes))
		}
	}
	if len(p.Workers) > 1 {
		for i := range p.Workers {
			q := p
			q.Workers = slices.Delete(slices.Clone(p.Workers), i, i+1)
			plans = append(plans, q)
		}
	}
	return plans
}

// with returns the plan with these episodes, and no longer than they take.
func (p Plan) with(episodes []Episode) Plan {
	p.Episodes = episodes
	if n := len(episodes); n > 0 {
		p.Duration = min(p.Duration, episodes[n-1].At+episodes[n-1].For+20*time.Second)
	}
	return p
}
