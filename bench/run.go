package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// plan is what is measured.
type plan struct {
	systems          []*system
	workloads        []workload
	rounds           int
	warmup, duration time.Duration
	dir              string    // for programs and data; they are removed by the caller
	progress         io.Writer // a line for each measurement
}

// run measures everything. The error is of all measurements that failed; the results of the
// others are returned with it.
func (p *plan) run(ctx context.Context) (*results, error) {
	for _, s := range p.systems {
		if s.prepare == nil {
			continue
		}
		fmt.Fprintf(p.progress, "building %s\n", s.name)
		if err := s.prepare(ctx, s, p.dir); err != nil {
			return nil, err
		}
	}
	r := newResults(p)
	var errs []error
	for round := range p.rounds {
		for _, w := range p.workloads {
			for i := range p.systems {
				// Another system is first in each round, so that none always follows the same one.
				s := p.systems[(i+round)%len(p.systems)]
				if s.lacks[w.kind] != "" {
					continue
				}
				got, err := p.one(ctx, s, w)
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				if err != nil {
					errs = append(errs, fmt.Errorf("round %d, %s, %s: %w", round+1, w.name, s.name, err))
					fmt.Fprintf(p.progress, "%v\n", errs[len(errs)-1])
					continue
				}
				r.add(s, w, round, got)
				fmt.Fprintf(p.progress, "round %d of %d  %-15s %-12s %8.0f %s\n", round+1, p.rounds, w.name, s.name, got.Rate, w.unit)
			}
		}
	}
	return r, errors.Join(errs...)
}

// one starts the system, measures, and ends it.
func (p *plan) one(ctx context.Context, s *system, w workload) (got sample, err error) {
	var dirs []string
	defer func() {
		for _, d := range dirs {
			err = errors.Join(err, os.RemoveAll(d))
		}
	}()
	c, err := startSafely(ctx, s, func() (string, error) {
		d, err := os.MkdirTemp(p.dir, s.name+"-")
		dirs = append(dirs, d)
		return d, err
	})
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	return measure(ctx, c, w, p.warmup, p.duration)
}
