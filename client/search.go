package client

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

const (
	// probeTimeout is how long a node may take to say who leads.
	probeTimeout = time.Second
	// secondLook is how often a client that is forwarded looks for the leader.
	secondLook = time.Second
	// maxPause bounds the wait between two searches, see jitter: 80 ms. An election
	// takes a few tenths of a second, and half of the wait is added to it.
	maxPause = 3
)

// search finds a node and gives it what is parked. It ends when there is a link
// or nothing parked.
func (r *remote) search() {
	for attempt := 0; ; attempt++ {
		l, someone, err := r.find()
		if l != nil {
			r.use(l, nil)
			return
		}
		r.readStale(someone)
		if !r.wait(attempt, err) {
			return
		}
	}
}

// wait refuses what has been parked too long, and waits before the next
// attempt. It returns false if there is nothing to search for.
func (r *remote) wait(attempt int, err error) bool {
	r.mu.Lock()
	r.last = err
	var keep []parked
	var overdue []*mux.Call
	for _, p := range r.parked {
		switch {
		case p.call.Abandoned():
		case r.timeout > 0 && time.Since(p.since) >= r.timeout:
			overdue = append(overdue, p.call)
		default:
			keep = append(keep, p)
		}
	}
	r.parked = keep
	goOn := len(keep) > 0 && !r.closed
	r.searching = goOn
	r.mu.Unlock()
	for _, call := range overdue {
		refuse(call, apiv1.NewError(codeGaveUp, "%v", err))
	}
	if !goOn {
		return false
	}
	t := time.NewTimer(jitter(min(attempt, maxPause)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.ctx.Done(): // the next round sees that it is closed
	}
	return true
}

// use makes l the link, in place of before, and starts what was parked.
func (r *remote) use(l, before *link) {
	r.mu.Lock()
	if before == nil {
		r.searching = false
	}
	if r.closed || !r.link.CompareAndSwap(before, l) {
		r.mu.Unlock()
		l.conn.Close()
		<-l.conn.Done()
		return
	}
	r.hint = ""
	calls := r.parked
	r.parked = nil
	r.mu.Unlock()
	r.log.Debug("node found", "peer", l.addr, "forward", l.forward)
	if before != nil {
		before.conn.Close()
	}
	for _, p := range calls {
		if !p.call.Abandoned() {
			l.start(p.call)
		}
	}
	r.prune(l.addr)
	if l.forward {
		time.AfterFunc(secondLook, func() { r.lookAgain(l) })
	}
	r.linked()
}

// lookAgain looks whether the leader can be reached by now, or is gone, while
// another node forwards.
func (r *remote) lookAgain(l *link) {
	r.mu.Lock()
	if r.closed || r.link.Load() != l {
		r.mu.Unlock()
		return
	}
	r.wg.Add(1)
	r.mu.Unlock()
	defer r.wg.Done()

	better, _, err := r.find()
	switch {
	case better == nil:
		r.drop(l, "", err)
	case better.forward && better.addr == l.addr:
		better.conn.Close()
		<-better.conn.Done()
		time.AfterFunc(secondLook, func() { r.lookAgain(l) })
	default:
		r.use(better, l)
	}
}

// probe is what a node said about itself.
type probe struct {
	addr   string
	status *apiv1.StatusResponse
	err    error
}

// find asks all known nodes at once who leads, and opens a stream to the first
// one that says it does. If none does, but a node knows of a leader that cannot
// be reached from here, that node is asked to forward. A leader that was reached,
// and does not lead any more or not yet, is no reason for that: there will be
// another in a moment. Without a link it returns a node that answered at least,
// if there is one.
func (r *remote) find() (found *link, someone string, err error) {
	ctx, cancel := context.WithTimeout(r.ctx, 2*probeTimeout)
	answers := make(chan probe, 2*maxEndpoints)
	asked := make(map[string]bool)
	waiting := 0
	ask := func(addr string) {
		if addr == "" || asked[addr] || len(asked) == cap(answers) {
			return
		}
		asked[addr] = true
		waiting++
		go func() { answers <- r.probe(ctx, addr) }()
	}
	defer func() {
		cancel()
		for ; waiting > 0; waiting-- { // nobody is left behind
			<-answers
		}
	}()
	r.mu.Lock()
	hint := r.hint
	r.mu.Unlock()
	ask(hint)
	for _, addr := range r.endpoints {
		ask(addr)
	}

	var tried attempts
	reached := make(map[string]bool)
	via := make(map[string]string) // who is said to lead → who says so
	for waiting > 0 {
		p := <-answers
		waiting--
		reached[p.addr] = p.err == nil
		switch {
		case p.err != nil:
			tried = append(tried, fmt.Errorf("%s: %w", p.addr, p.err))
		case p.status.GetState() == "leader" && p.status.GetReady():
			l, err := r.open(ctx, p.addr, false)
			if err == nil {
				return l, "", nil
			}
			tried = append(tried, err)
		case p.status.GetState() == "leader":
			tried = append(tried, fmt.Errorf("%s: leads but is not ready: %s", p.addr, p.status.GetNotReadyReason()))
		case p.status.GetLeaderAddress() != "":
			someone = p.addr
			via[p.status.GetLeaderAddress()] = p.addr
			ask(p.status.GetLeaderAddress())
		default:
			someone = p.addr
			tried = append(tried, fmt.Errorf("%s: knows no leader", p.addr))
		}
	}
	for leader, by := range via {
		if reached[leader] {
			tried = append(tried, fmt.Errorf("%s: says that %s leads, which it does not", by, leader))
			continue
		}
		l, err := r.open(ctx, by, true)
		if err == nil {
			return l, "", nil
		}
		tried = append(tried, err)
	}
	return nil, someone, tried
}

// readStale lets a node answer what it may answer without a leader.
func (r *remote) readStale(addr string) {
	if addr == "" {
		return
	}
	r.mu.Lock()
	var reads []*mux.Call // a bounded batch: the next round takes the rest
	r.parked = slices.DeleteFunc(r.parked, func(p parked) bool {
		op := p.call.Op
		if len(reads) == 100 || op.GetGet().GetMaxStaleNs() == 0 && op.GetList().GetMaxStaleNs() == 0 {
			return false
		}
		reads = append(reads, p.call)
		return true
	})
	r.mu.Unlock()
	if len(reads) == 0 {
		return
	}
	answers, err := unaryAt(r.ctx, r, addr, probeTimeout, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.BatchResponse, error) {
		batch := &apiv1.BatchRequest{}
		for _, call := range reads {
			batch.Operations = append(batch.Operations, &apiv1.Operation{Request: call.Op.GetRequest()})
		}
		return c.Batch(ctx, batch)
	})
	for i, call := range reads {
		switch {
		case call.Abandoned():
		case err == nil && i < len(answers.GetAnswers()):
			answers.Answers[i].Id = call.Op.GetId()
			call.Done(answers.Answers[i])
		default:
			refuse(call, apiv1.NewError(apiv1.CodeUnavailable, "%s: stale read: %v", addr, err))
		}
	}
}

// probe asks one node.
func (r *remote) probe(ctx context.Context, addr string) probe {
	cc, err := r.conn(addr)
	if err != nil {
		return probe{addr: addr, err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	status, err := apiv1.NewLocksClient(cc).Status(ctx, &apiv1.StatusRequest{})
	if err != nil {
		err = apiv1.AsError(err) // without grpc's decoration
	}
	return probe{addr: addr, status: status, err: err}
}

// open opens the stream to a node.
func (r *remote) open(ctx context.Context, addr string, forward bool) (*link, error) {
	cc, err := r.conn(addr)
	if err != nil {
		return nil, err
	}
	l := &link{addr: addr, forward: forward}
	conn, err := mux.Open(ctx, cc, mux.Config{
		Logger:   r.log,
		OnNotice: r.notice,
		OnBreak:  func(calls []*mux.Call, err error) { r.broken(l, calls, err) },
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", addr, err)
	}
	l.conn = conn
	return l, nil
}

// broken gets the unanswered calls of a stream. It may run before open returns.
func (r *remote) broken(l *link, calls []*mux.Call, err error) {
	r.mu.Lock()
	if r.link.CompareAndSwap(l, nil) {
		r.last = fmt.Errorf("%s: %w", l.addr, err)
		r.hint = ""
	}
	r.mu.Unlock()
	calls = slices.DeleteFunc(calls, (*mux.Call).Abandoned)
	if len(calls) > 0 {
		r.log.Debug("calls sent again", "peer", l.addr, "count", len(calls), "err", err)
		r.park(calls...)
	}
}

// attempts are what went wrong with each node.
type attempts []error

func (a attempts) Error() string {
	if len(a) == 0 {
		return errNotConnected.Error()
	}
	texts := make([]string, len(a))
	for i, err := range a {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (a attempts) Unwrap() []error { return a }
