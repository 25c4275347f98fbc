package client

import (
	"context"
	"slices"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// survey asks all nodes at once for their status, for the calls of an operator: a node
// that does not answer delays no call, whatever its place in the list. The node that
// the client uses is asked a moment before the others. A survey belongs to one goroutine.
type survey struct {
	*search
	ctx    context.Context // the caller's
	stop   func() bool
	others *time.Timer     // when the others are asked
	wait   *time.Timer     // how long the leader is waited for; nil: no node has answered yet
	over   bool            // that time is over
	used   map[string]bool // nodes that next has returned
}

func (r *remote) newSurvey(ctx context.Context) *survey {
	r.resolved(ctx)
	s := &survey{search: r.newSearch(), ctx: ctx, used: make(map[string]bool)}
	s.stop = context.AfterFunc(ctx, s.cancel)
	s.begin()
	start := time.Duration(0)
	if l := r.link.Load(); l != nil {
		s.ask(l.addr)
		start = askOthersAfter
	}
	s.others = time.NewTimer(start)
	return s
}

func (s *survey) end() {
	s.stop()
	s.others.Stop()
	if s.wait != nil {
		s.wait.Stop()
	}
	s.search.end()
}

// waitForLeader begins the wait for the leader, unless it has begun.
func (s *survey) waitForLeader() {
	if s.wait == nil {
		s.wait = time.NewTimer(roundLimit)
	}
}

// waitOver returns the channel of the end of that wait.
func (s *survey) waitOver() <-chan time.Time {
	if s.wait == nil {
		return nil
	}
	return s.wait.C
}

// await returns the next answer. It returns false when all nodes have answered, when
// the wait for the leader is over, or when the caller's context ends.
func (s *survey) await() (probe, bool) {
	for {
		if !s.owed() { // all that were asked have answered: ask the others before giving up
			if s.askOthers(); !s.owed() {
				return probe{}, false
			}
		}
		select {
		case p := <-s.answers:
			if s.note(p); p.err == nil {
				s.askAt(p.status.GetLeaderAddress())
				s.waitForLeader()
			}
			return p, true
		case <-s.others.C:
			s.askOthers()
		case <-s.waitOver():
			s.over = true
			return probe{}, false
		case <-s.search.ctx.Done():
			return probe{}, false
		}
	}
}

// next returns the node to send the call to: the leader, as soon as it is known. If none is
// found, it returns the other nodes that have answered, first those that know a leader.
// Each is returned once.
func (s *survey) next() (string, bool) {
	for s.ctx.Err() == nil {
		best := s.best()
		if best != "" && (s.over || s.rank(best) == 0) {
			s.used[best] = true
			return best, true
		}
		if _, ok := s.await(); ok {
			continue
		}
		if best = s.best(); best == "" || s.search.ctx.Err() != nil {
			return "", false
		}
		s.used[best] = true
		return best, true
	}
	return "", false
}

// best returns the node with the least rank of those that have answered and were not used.
func (s *survey) best() string {
	var addrs []string
	for addr, p := range s.known {
		if p.err == nil && !s.used[addr] {
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		return ""
	}
	slices.Sort(addrs) // so that of equals it is always the same one
	return slices.MinFunc(addrs, func(a, b string) int { return s.rank(a) - s.rank(b) })
}

// rank orders the nodes that have answered: the one that most likely carries out the call
// first.
func (s *survey) rank(addr string) int {
	switch p := s.known[addr]; {
	case p.leads() && p.status.GetReady():
		return 0
	case p.status.GetReady():
		return 1
	case p.status.GetLeaderId() != "" || p.leads():
		return 2
	case p.status.GetClusterId() != "":
		return 3
	default:
		return 4
	}
}

// failed notes that a node has not carried out the call, and asks the leader that it
// reports.
func (s *survey) failed(addr string, err error) {
	s.known[addr] = probe{addr: addr, err: err}
	for _, leader := range s.r.expand(apiv1.AsError(err).GetLeader()) {
		if !s.used[leader] {
			s.ask(leader)
			s.wait, s.over = nil, false
			s.waitForLeader()
		}
	}
}

// allFailed returns why no node has carried out the call.
func (s *survey) allFailed() error {
	if why, _ := s.refusals(); why != nil {
		return why
	}
	return &allFailed{tried: s.tried()}
}

// allFailed is the error of a call that no node has carried out, and that may be retried.
type allFailed struct{ tried attempts }

func (e *allFailed) Error() string { return e.tried.Error() }

// Unwrap makes it unavailable on the wire, whatever the error of each node is.
func (e *allFailed) Unwrap() error { return apiv1.NewError(apiv1.CodeUnavailable, "%s", e.Error()) }
