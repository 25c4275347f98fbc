//go:build unix

package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/locknode/locknode/internal/proof/history"
	"github.com/locknode/locknode/internal/proof/proc"
)

// clientProcess is a process that runs clients, seen from its parent.
type clientProcess struct {
	*proc.Helper
	history string // the file that it writes at the end

	mu    sync.Mutex // guards what follows
	line  []byte     // what it has printed of the next line
	stats WorkerStats
}

// Write takes what the process prints.
func (c *clientProcess) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line = append(c.line, p...)
	for {
		line, rest, ok := bytes.Cut(c.line, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		var s WorkerStats
		if json.Unmarshal(line, &s) == nil { // a line that a kill has cut off is dropped
			c.stats = s
		}
		c.line = rest
	}
}

func (c *clientProcess) said() WorkerStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

func (c *clientProcess) kill() {
	if c.Running() {
		_ = c.Kill() // fails only for one that has ended by now
	}
}

// beginRound starts the client processes.
func (r *run) beginRound() error {
	r.do("starting %d client processes", r.o.Clients)
	for i := range r.o.Clients {
		name := fmt.Sprintf("c%d", i+1)
		cfg := WorkerConfig{
			Name: name, Endpoints: r.endpoints(), Origin: r.clock.origin, Pace: workerPace,
			Seed:    r.o.Seed + uint64(r.result.Rounds*100+i),
			History: r.path(fmt.Sprintf("history-%d-%s.json", r.result.Rounds, name)),
		}
		config, err := json.Marshal(cfg)
		if err != nil {
			return err
		}
		c := &clientProcess{history: cfg.History}
		enter, err := r.place(name)
		if err != nil {
			return err
		}
		c.Helper, err = proc.StartHelper(proc.HelperOptions{
			Name: name, LogPath: r.path(name + ".log"), Stdout: c, Enter: enter,
			Binary: r.o.Binary, Args: []string{"chaos", "worker", string(config)},
		})
		if err != nil {
			return err
		}
		r.mu.Lock()
		r.clients = append(r.clients, c)
		r.mu.Unlock()
	}
	return nil
}

// endRound stops the client processes and checks what they recorded.
func (r *run) endRound() {
	r.do("stopping the clients of round %d", r.result.Rounds)
	ctx, cancel := context.WithTimeout(context.Background(), callLimit+patience)
	defer cancel()
	var errs []error
	r.mu.Lock()
	clients := r.clients
	r.mu.Unlock()
	var all history.History
	var wg sync.WaitGroup
	ends := make([]error, len(clients))
	for i, c := range clients {
		wg.Go(func() { ends[i] = c.Finish(ctx) })
	}
	wg.Wait()
	said := int64(0)
	for i, c := range clients {
		said += c.said().Operations
		for _, complaint := range c.said().Complaints {
			r.violate("liveness", "clients", "", "%s", complaint)
		}
		if ends[i] != nil {
			errs = append(errs, ends[i])
			continue
		}
		h, err := readHistory(c.history)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all.Ops, all.Beliefs, all.Dropped = append(all.Ops, h.Ops...), append(all.Beliefs, h.Beliefs...), all.Dropped+h.Dropped
	}
	r.mu.Lock()
	r.ended, r.clients = r.operationsLocked(), nil
	r.mu.Unlock()
	if len(errs) > 0 {
		r.violate("liveness", "harness", "", "round %d was not checked: %v", r.result.Rounds, errors.Join(errs...))
		return
	}
	began := r.clock.now()
	// A round that ends as it begins may have nothing to show.
	if r.check(&all, said > 0 || began-r.began >= callLimit) {
		for _, c := range clients {
			_ = os.Remove(c.history) // it was right, and there may be many of them
		}
	}
	r.mu.Lock()
	r.checks += r.clock.now() - began
	r.mu.Unlock()
}

func readHistory(path string) (*history.History, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	h, err := history.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return h, nil
}

// check judges the history of a round, and reports whether it was right. working
// says that the clients have done something, or had the time for it.
func (r *run) check(h *history.History, working bool) bool {
	r.do("checking %d operations", len(h.Ops))
	for _, e := range r.result.Events {
		h.Faults = append(h.Faults, history.Fault{At: e.At, Until: e.Until, What: e.Fault})
	}
	r.result.Timeline = append(r.result.Timeline, buckets(h)...)
	report := h.Check(history.Options{Working: working})
	sum := &r.result.Checked
	sum.Ops += report.Stats.Ops
	sum.Unknown += report.Stats.Unknown
	sum.Grants += report.Stats.Grants
	sum.Beliefs += report.Stats.Beliefs
	sum.Locks += report.Stats.Locks
	sum.Searched += report.Stats.Searched
	sum.Longest = max(sum.Longest, report.Stats.Longest)
	broken := append(report.Violations, r.tokensGrow(h)...)
	for _, v := range broken {
		r.add(v, r.picture(h, v.Lock))
	}
	r.showDetail(h)
	return len(broken) == 0
}

// showDetail keeps what clients held around the slowest recovery of the run.
func (r *run) showDetail(h *history.History) {
	const before, after = time.Second, 2 * time.Second
	rec, ok := r.result.slowest(r.began, r.clock.now())
	if slowest, _ := r.result.slowest(0, r.clock.now()); !ok || rec != slowest {
		return // an earlier round had a slower one
	}
	why := fmt.Sprintf("around the slowest recovery, %s after %s of fault %d, %s", ms(rec.All), rec.After, rec.Number, rec.Fault)
	r.result.Details = []Detail{detail(h, why, max(0, rec.At-before), rec.At+rec.All+after)}
}

// tokensGrow compares the tokens of this round with those of the rounds before,
// which were all given before it began.
func (r *run) tokensGrow(h *history.History) (broken []history.Violation) {
	before := r.tokens
	for _, op := range h.Ops {
		if op.Kind != history.Acquire || op.Outcome != history.OK {
			continue
		}
		if op.Token <= before {
			broken = append(broken, history.Violation{Promise: "S4", Check: "rounds", Text: fmt.Sprintf(
				"%s was given token %d in round %d, and %d had been given in the round before", op.Client, op.Token, r.result.Rounds, before)})
		}
		r.tokens = max(r.tokens, op.Token)
	}
	return broken[:min(len(broken), 10)]
}

// picture draws the history of a lock into a file of the run's directory.
func (r *run) picture(h *history.History, lock string) string {
	if lock == "" {
		return ""
	}
	path := r.path(fmt.Sprintf("round-%d-%s.html", r.result.Rounds, strings.ReplaceAll(lock, "/", "-")))
	if _, err := os.Stat(path); err == nil {
		return path // drawn for another violation
	}
	f, err := os.Create(path)
	if err != nil {
		return ""
	}
	if err := errors.Join(h.Picture(f, lock), f.Close()); err != nil {
		_ = os.Remove(path) // it is incomplete
		return ""
	}
	return path
}

// operationsLocked is how many operations the client processes have made.
func (r *run) operationsLocked() int64 {
	sum := r.ended
	for _, c := range slices.Clone(r.clients) {
		sum += c.said().Operations
	}
	return sum
}
