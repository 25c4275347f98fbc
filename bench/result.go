package main

import (
	"math"
	"slices"
)

// results are the samples of all rounds.
type results struct {
	plan    *plan
	samples map[cell][]*sample // by round; nil: it was not measured
}

type cell struct{ system, workload string }

func newResults(p *plan) *results { return &results{plan: p, samples: make(map[cell][]*sample)} }

func (r *results) add(s *system, w workload, round int, got sample) {
	at := cell{s.name, w.name}
	if r.samples[at] == nil {
		r.samples[at] = make([]*sample, r.plan.rounds)
	}
	r.samples[at][round] = &got
}

// rates and cpus are the values by round, NaN where there is none.
func (r *results) rates(system string, w workload) []float64 {
	return values(r.samples[cell{system, w.name}], func(s *sample) float64 { return s.Rate })
}

// cpus are in milliseconds for 1,000 steps.
func (r *results) cpus(system string, w workload) []float64 {
	return values(r.samples[cell{system, w.name}], func(s *sample) float64 {
		if s.CPU < 0 {
			return math.NaN()
		}
		return float64(s.CPU.Microseconds()) / 1000
	})
}

func values(samples []*sample, of func(*sample) float64) []float64 {
	all := make([]float64, len(samples))
	for i, s := range samples {
		all[i] = math.NaN()
		if s != nil {
			all[i] = of(s)
		}
	}
	return all
}

// median of the values that are there; NaN if there is none.
func median(all []float64) float64 {
	there := known(all)
	n := len(there)
	if n == 0 {
		return math.NaN()
	}
	slices.Sort(there)
	return (there[(n-1)/2] + there[n/2]) / 2
}

func known(all []float64) []float64 {
	var there []float64
	for _, v := range all {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			there = append(there, v)
		}
	}
	return there
}

// ratio is the median of the ratios within the rounds that have both.
func ratio(of, to []float64) float64 {
	var all []float64
	for i := range min(len(of), len(to)) {
		all = append(all, of[i]/to[i])
	}
	return median(all)
}

// spread is how far the rounds are apart, as a part of their median.
func spread(all []float64) float64 {
	there := known(all)
	if len(there) == 0 {
		return math.NaN()
	}
	return (slices.Max(there) - slices.Min(there)) / median(there)
}
