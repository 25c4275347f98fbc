package proxy

import (
	"sync"
	"time"
)

// Rule says what happens to the bytes from one process to another. The zero value is a network
// without faults.
type Rule struct {
	Cut   bool          // they stall
	Lose  bool          // they are dropped without an error; connections are still made
	Delay time.Duration // they take longer
}

// Links has the rules between all processes. They may be changed at any time, by several
// goroutines.
type Links struct {
	mu      sync.Mutex
	rules   map[[2]string]Rule // from, to
	changed chan struct{}      // closed and replaced when rules change
}

// NewLinks returns links without faults.
func NewLinks() *Links {
	return &Links{rules: map[[2]string]Rule{}, changed: make(chan struct{})}
}

// Set makes a rule for what each of from sends to each of to.
func (l *Links) Set(from, to []string, r Rule) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range from {
		for _, t := range to {
			if f != t {
				l.rules[[2]string{f, t}] = r
			}
		}
	}
	l.changedLocked()
}

// Cut cuts the ways from some to others; what is cut stays cut.
func (l *Links) Cut(from, to []string) { l.Set(from, to, Rule{Cut: true}) }

// Heal takes all rules back.
func (l *Links) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.rules)
	l.changedLocked()
}

func (l *Links) changedLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// rule is the present rule and what is closed when there may be another.
func (l *Links) rule(from, to string) (Rule, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rules[[2]string{from, to}], l.changed
}

// await waits until the rule is as wanted, or ended is closed, and returns it.
func (l *Links) await(from, to string, ended <-chan struct{}, wanted func(Rule) bool) Rule {
	for {
		r, changed := l.rule(from, to)
		if wanted(r) {
			return r
		}
		select {
		case <-changed:
		case <-ended:
			return r
		}
	}
}

// open is a rule under which something leaves: to arrive, or to be lost.
func open(r Rule) bool { return !r.Cut }

// sound is a rule under which something arrives.
func sound(r Rule) bool { return !r.Cut && !r.Lose }
