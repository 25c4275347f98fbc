package client

import (
	"context"
	"slices"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// survey asks all nodes at once how they are, for the administrative calls: a node
// that does not answer holds up nobody, wherever it stands in the list. The node that
// the client uses anyway gets a small start. It belongs to one goroutine.
type survey struct {
	*search
	ctx    context.Context // the caller's
	stop   func() bool
	others *time.Timer // the others are asked
	wait   *time.Timer // nil: nobody has answered yet. The leader is not waited for any longer
	over   bool        // that time is over
	used   map[string]bool
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

// waitForLeader begins the time for which it is, once.
func (s *survey) waitForLeader() {
	if s.wait == nil {
		s.wait = time.NewTimer(roundLimit)
	}
}

func (s *survey) waitOver() <-chan time.Time {
	if s.wait == nil {
		return nil
	}
	return s.wait.C
}

// await returns the next answer. It returns false when everybody has answered, when
// the leader is not waited for any longer, or when the caller's context is over.
func (s *survey) await() (probe, bool) {
	for {
		if !s.owed() { // of those who were asked: ask everybody before giving up
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

// next returns the node that is to do what is asked for: the one that leads, as soon
// as it is known. Where none is found, the others that have answered follow, those
// first that know of a leader. Each is returned once.
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

// best is the node with the least rank of those that have answered and were not used.
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
	slices.Sort(addrs) // which of equals does not matter, but it should be the same one
	return slices.MinFunc(addrs, func(a, b string) int { return s.rank(a) - s.rank(b) })
}

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

// failed notes that a node did not do it, and asks whom it names as the leader.
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

// allFailed says why nobody did it.
func (s *survey) allFailed() error { return &allFailed{tried: s.tried()} }

// allFailed is a call that no node has done, and that may be tried again.
type allFailed struct{ tried attempts }

func (e *allFailed) Error() string { return e.tried.Error() }

// Unwrap makes it an ErrUnavailable on the wire, whatever each node has said.
func (e *allFailed) Unwrap() error { return apiv1.NewError(apiv1.CodeUnavailable, "%s", e.Error()) }
