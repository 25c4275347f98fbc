package client

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

const (
	// askOthersAfter is how long a round waits for its first node before it asks the
	// others as well.
	askOthersAfter = 20 * time.Millisecond
	// roundLimit is how long a round waits for nodes that do not answer. Their answers
	// still count in the rounds that follow.
	roundLimit = 100 * time.Millisecond
	// The pause between rounds is a quarter of the time for which no answer has changed:
	// it makes an outage of any length only a little longer, and many clients do not
	// overload the nodes. It is between leastPause and mostPause, and is shortened by up to
	// a half at random.
	leastPause = 10 * time.Millisecond
	mostPause  = time.Second
)

// search searches for the node that leads, in rounds. A round asks one node, and the others
// only if that one does not lead to the leader; no node is asked while its last answer is
// still to come. A search belongs to one goroutine.
type search struct {
	r           *remote
	ctx         context.Context // of the questions
	cancel      context.CancelFunc
	asking      map[string]bool // the nodes whose answers are still to come
	answers     chan probe
	known       map[string]probe // the last answer of each node
	silent      string           // the node whose stream is silent: no other is opened to it
	changed     time.Time        // when an answer differed from the one before
	noStream    error            // why a node that takes streams refuses one to this client, in this round
	away        time.Time        // since when all nodes that answer refuse the client; zero: they do not
	token       uint64           // the version of the access token when it began, or changed
	addrs       []string         // that were known when the round began
	interrupt   <-chan struct{}  // nil, or what ends the search: a call was queued, for which another one searches
	interrupted bool             // it has ended the search

	asked map[string]bool // in this round
}

// probe is what a node said about itself.
type probe struct {
	addr   string
	status *apiv1.StatusResponse
	err    error
}

// same reports whether p and q are the same as far as a search is concerned.
func (p probe) same(q probe) bool {
	return (p.err == nil) == (q.err == nil) && p.leads() == q.leads() && p.status.GetReady() == q.status.GetReady() &&
		p.status.GetLeaderAddress() == q.status.GetLeaderAddress()
}

func (p probe) leads() bool { return p.status.GetState() == "leader" }

func (r *remote) newSearch() *search {
	s := &search{
		r: r, asking: make(map[string]bool), answers: make(chan probe, maxAsked),
		known: make(map[string]probe), changed: time.Now(), addrs: r.addresses(), token: r.credential.current(),
	}
	s.ctx, s.cancel = context.WithCancel(r.ctx)
	return s
}

// maxAsked bounds the nodes that a search asks: those that the client knows, and those that
// nodes report as leaders.
const maxAsked = 2 * maxAddresses

// end cancels the calls under way, waits for them, and closes unused connections.
func (s *search) end() {
	s.cancel()
	for len(s.asking) > 0 {
		p := <-s.answers
		delete(s.asking, p.addr)
	}
	s.r.prune(true)
}

// search finds a node and starts the queued calls on it. It ends when there is a link, or
// nothing is queued.
func (r *remote) search() {
	s := r.newSearch()
	defer s.end()
	for l, goOn := s.backOff(); goOn; l, goOn = s.wait(s.pause(time.Now())) {
		if l == nil {
			l = s.round(roundLimit)
		}
		if l != nil {
			r.use(l, nil)
			return
		}
		r.readStale(s.reachable())
	}
}

// backOff waits before the first round if several streams in a row broke soon after they
// were opened.
func (s *search) backOff() (l *link, goOn bool) {
	s.r.mu.Lock()
	brief := s.r.brief
	s.r.mu.Unlock()
	if brief <= freeRetries {
		return nil, true
	}
	return s.wait(jitter(brief - freeRetries))
}

// wait refuses the calls that have been queued for ConnectTimeout, and waits before the next
// round. It returns false if no call is queued, and a link if a late answer leads to one.
func (s *search) wait(pause time.Duration) (l *link, goOn bool) {
	r, tried := s.r, s.tried()
	away := s.turnedAway()
	r.mu.Lock()
	if len(tried) > 0 {
		r.last = tried
	}
	err := r.last
	var keep []queuedCall
	var overdue []*mux.Call
	for _, p := range r.queue {
		left := pause
		if r.timeout > 0 {
			left = r.timeout - time.Since(p.since)
		}
		switch {
		case p.call.Abandoned():
		case left <= 0, away != nil:
			overdue = append(overdue, p.call)
		default:
			pause = min(pause, left)
			keep = append(keep, p)
		}
	}
	r.queue = keep
	goOn = len(keep) > 0 && !r.closed
	if r.searching = goOn; !goOn && r.left != "" {
		r.reconnectLaterLocked(leastReconnect)
	}
	r.mu.Unlock()
	if away == nil {
		away = apiv1.NewError(codeGaveUp, "%v", err)
	}
	for _, call := range overdue {
		refuse(call, away)
	}
	if !goOn {
		return nil, false
	}
	return s.linger(pause), true
}

// linger waits for late answers, of slow nodes, until the pause is over, an answer has
// changed, or the addresses have. It returns a link if an answer leads to one.
func (s *search) linger(pause time.Duration) *link {
	t := time.NewTimer(pause)
	defer t.Stop()
	for changed := s.changed; s.changed.Equal(changed); {
		addressNews := s.r.changes()
		if addrs := s.r.addresses(); !slices.Equal(addrs, s.addrs) {
			s.addrs = addrs
			return nil
		}
		select {
		case <-addressNews:
		case <-s.interrupt:
			s.interrupted = true
			return nil
		case <-t.C:
			return nil
		case <-s.ctx.Done(): // the next round sees that it is closed
			return nil
		case p := <-s.answers:
			s.note(p)
			if l := s.follow(p); l != nil {
				return l
			}
		}
	}
	return nil
}

// pause is how long to wait before the next round.
func (s *search) pause(now time.Time) time.Duration {
	d := min(max(now.Sub(s.changed)/4, leastPause), mostPause)
	return d/2 + rand.N(d/2)
}

// askAt asks the node at host:port.
func (s *search) askAt(text string) {
	for _, addr := range s.r.expand(text) {
		s.ask(addr)
	}
}

// ask asks a node for its status, unless its last answer is still to come.
func (s *search) ask(addr string) {
	if addr == "" || s.asked[addr] || len(s.known)+len(s.asking) >= maxAsked && !s.isKnown(addr) {
		return
	}
	s.asked[addr] = true
	if s.asking[addr] {
		return
	}
	s.asking[addr] = true
	go func() { s.answers <- s.r.probe(s.ctx, addr) }()
}

func (s *search) isKnown(addr string) bool {
	_, ok := s.known[addr]
	return ok || s.asking[addr]
}

// begin begins a round. If there are many answers from addresses that are no longer known,
// it forgets those; it also closes the connections to them: a name may have other addresses
// at every lookup.
func (s *search) begin() {
	s.asked = make(map[string]bool)
	s.noStream = nil
	s.addrs = s.r.addresses()
	if len(s.known) > maxAddresses {
		maps.DeleteFunc(s.known, func(addr string, _ probe) bool { return !slices.Contains(s.addrs, addr) })
	}
	s.r.prune(false)
}

// note adopts an answer.
func (s *search) note(p probe) {
	delete(s.asking, p.addr)
	if before, ok := s.known[p.addr]; ok && !before.same(p) || !ok && p.err == nil {
		s.changed = time.Now()
	}
	s.known[p.addr] = p
}

// round asks nodes for their status, and opens a stream to the first that leads. If
// none does, but a node reports a leader that cannot be reached from here, that node
// is asked to forward. If the reported leader answers and does not lead, there is no
// forwarding: another one is elected in a moment. round returns nil if it has found no node
// when all have answered or the limit is over.
func (s *search) round(limit time.Duration) *link {
	s.begin()
	s.ask(s.first())
	others := time.NewTimer(askOthersAfter)
	defer others.Stop()
	over := time.NewTimer(limit)
	defer over.Stop()
	for {
		if !s.owed() { // all that were asked have answered, or none was asked
			if s.askOthers(); !s.owed() {
				return s.forwarder()
			}
		}
		select {
		case p := <-s.answers:
			s.note(p)
			if l := s.follow(p); l != nil {
				return l
			}
		case <-others.C:
			s.askOthers()
		case <-s.interrupt:
			s.interrupted = true
			return nil
		case <-over.C:
			return s.forwarder()
		case <-s.ctx.Done():
			return nil
		}
	}
}

// first returns the address that a round asks first: that of the reported leader, and
// otherwise any whose last answer is not still to come, if possible not that of the node
// that was just left.
func (s *search) first() string {
	s.r.mu.Lock()
	hint, left := s.r.hint, s.r.left
	s.r.mu.Unlock()
	for _, addr := range s.r.expand(hint) {
		if !s.asking[addr] {
			return addr
		}
	}
	free := slices.DeleteFunc(slices.Clone(s.addrs), func(addr string) bool { return s.asking[addr] })
	if better := slices.DeleteFunc(slices.Clone(free), func(addr string) bool { return addr == left || addr == s.silent || s.known[addr].err != nil }); len(better) > 0 {
		free = better
	}
	if len(free) == 0 {
		return ""
	}
	return free[rand.N(len(free))]
}

// askOthers asks all nodes. It looks up the names again that have no address, or one whose
// node has not answered: the node may have another address by now.
func (s *search) askOthers() {
	s.r.lookUp(func(p *place) bool {
		return len(p.addrs) == 0 || slices.ContainsFunc(p.addrs, func(addr string) bool {
			answer, ok := s.known[addr]
			return answer.err != nil || !ok && s.asking[addr]
		})
	})
	for _, addr := range s.r.addresses() {
		s.ask(addr)
	}
}

// owed reports whether a node that was asked in this round has not answered.
func (s *search) owed() bool {
	for addr := range s.asked {
		if s.asking[addr] {
			return true
		}
	}
	return false
}

// follow opens a stream to the node if it leads, and otherwise asks the leader that it
// reports.
func (s *search) follow(p probe) *link {
	switch {
	case p.err != nil || p.addr == s.silent && p.leads():
	case p.leads() && p.status.GetReady():
		l, err := s.r.open(s.ctx, p, false)
		if err == nil {
			return l
		}
		s.notOpened(p, err)
	case !p.leads():
		s.askAt(p.status.GetLeaderAddress())
	}
	return nil
}

// notOpened notes that a node has answered, and that there is no stream to it.
func (s *search) notOpened(p probe, err error) {
	p.err = err
	s.known[p.addr] = p
	if turnedAway(err) {
		s.noStream = err
	}
}

// heard returns the answer of the node at host:port, and whether there is one.
func (s *search) heard(text string) (answer probe, ok bool) {
	for _, addr := range s.r.expand(text) {
		if p, known := s.known[addr]; known && (!ok || p.err == nil) {
			answer, ok = p, true
		}
	}
	return answer, ok
}

// forwarder opens a stream to a node that reports a leader that cannot be reached from here.
// It returns nil if there is none.
func (s *search) forwarder() *link {
	for _, p := range s.known {
		leader, ok := s.heard(p.status.GetLeaderAddress())
		if p.err != nil || p.leads() || p.addr == s.silent || !s.asked[p.addr] || !ok || leader.err == nil {
			continue
		}
		l, err := s.r.open(s.ctx, p, true)
		if err == nil {
			return l
		}
		s.notOpened(p, err)
	}
	return nil
}

// reachable returns the address of a node that answers, empty if there is none.
func (s *search) reachable() string {
	for addr, p := range s.known {
		if p.err == nil && s.asked[addr] {
			return addr
		}
	}
	return ""
}

// tried returns what was wrong with each node.
func (s *search) tried() attempts {
	var tried attempts
	for i, addr := range slices.Sorted(maps.Keys(s.asked)) {
		if i == maxListed {
			tried = append(tried, fmt.Errorf("and %d others", len(s.asked)-i))
			break
		}
		p, answered := s.known[addr]
		leader := p.status.GetLeaderAddress()
		switch {
		case !answered || p.err == nil && s.asking[addr]:
			tried = append(tried, fmt.Errorf("%s: %w", addr, s.r.whySilent(addr)))
		case p.err != nil:
			tried = append(tried, fmt.Errorf("%s: %w", addr, p.err))
		case p.leads():
			tried = append(tried, fmt.Errorf("%s: leads but is not ready: %s", addr, p.status.GetNotReadyReason()))
		case leader != "" && s.reached(leader):
			tried = append(tried, fmt.Errorf("%s: reports %s as the leader, which does not lead", addr, leader))
		case leader != "":
			tried = append(tried, fmt.Errorf("%s: reports %s as the leader, which does not answer", addr, leader))
		default:
			tried = append(tried, fmt.Errorf("%s: knows no leader", addr))
		}
	}
	return append(tried, s.r.unresolved()...)
}

// maxListed bounds the nodes that an error names.
const maxListed = 16

// patienceWithRefusals is how long a search goes on while some nodes refuse who calls and the
// others do not answer: those that refuse may not know an access token yet that the others know.
const patienceWithRefusals = 2 * time.Second

// turnedAway returns why the client is refused, if no node takes it: all that were asked have
// refused it, or those that have answered refuse it for some time. If there is another access
// token by now, the next round uses that.
func (s *search) turnedAway() *apiv1.Error {
	why, all := s.refusals()
	switch {
	case why == nil:
		s.away = time.Time{}
		return nil
	case s.away.IsZero():
		s.away = time.Now()
		if before := s.token; s.r.credential.refused() != before {
			s.token = s.r.credential.current()
			s.away = time.Time{}
			return nil
		}
	}
	if !all && time.Since(s.away) < patienceWithRefusals {
		return nil
	}
	return why
}

// refusals returns why nodes refuse the client, nil if one takes it or none has answered, and
// whether all that were asked refuse it.
func (s *search) refusals() (why *apiv1.Error, all bool) {
	if s.noStream != nil { // the status may be open to everybody
		return apiv1.AsError(s.noStream), true
	}
	all = true
	for addr := range s.asked {
		switch p, answered := s.known[addr]; {
		case answered && !s.asking[addr] && p.err == nil:
			return nil, false
		case answered && !s.asking[addr] && turnedAway(p.err):
			why = apiv1.AsError(p.err)
		default:
			all = false
		}
	}
	return why, all
}

// reached reports whether the node at host:port has answered.
func (s *search) reached(text string) bool {
	p, _ := s.heard(text)
	return p.status != nil
}

// readStale sends the queued stale reads to the node at addr: they need no leader.
func (r *remote) readStale(addr string) {
	if addr == "" {
		return
	}
	r.mu.Lock()
	var reads []*mux.Call // a bounded batch: the next round takes the rest
	r.queue = slices.DeleteFunc(r.queue, func(p queuedCall) bool {
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
	answers, err := unaryAt(r.ctx, r, addr, probing, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.BatchResponse, error) {
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

// probe asks one node for its status.
func (r *remote) probe(ctx context.Context, addr string) probe {
	begun := time.Now()
	status, err := unaryAt(ctx, r, addr, probing, func(ctx context.Context, c apiv1.LocksClient) (*apiv1.StatusResponse, error) {
		return c.Status(ctx, &apiv1.StatusRequest{})
	})
	if err != nil {
		return probe{addr: addr, err: err}
	}
	if err := r.answered(addr, status, time.Since(begun)); err != nil {
		return probe{addr: addr, err: err}
	}
	r.learn(status.GetDirectory(), false)
	return probe{addr: addr, status: status}
}

// answered checks the status of a node. It returns an error if the node is not of the
// client's cluster: its answer is ignored then.
func (r *remote) answered(addr string, status *apiv1.StatusResponse, took time.Duration) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.peers[addr]
	if p == nil { // closed meanwhile
		return errNotConnected
	}
	p.patience.Took(took) // or less than that, if it had to connect
	theirs := status.GetClusterId()
	if len(theirs) > maxID {
		return fmt.Errorf("cluster ID of the node: is %d bytes long, must be at most %d; is this a Locknode node?", len(theirs), maxID)
	}
	if theirs == "" || r.cluster == "" || theirs == r.cluster {
		return nil
	}
	// It is asked often, and may report another one each time.
	if p.warned != theirs && time.Since(p.warnedAt) >= time.Minute {
		p.warned, p.warnedAt = theirs, time.Now()
		r.log.Warn("node belongs to another cluster, it is not used",
			"peer", addr, "node", status.GetNodeId(), "cluster", theirs, "own_cluster", r.cluster)
	}
	return fmt.Errorf("node %q belongs to cluster %.64s, this client to cluster %s; if that one was formed anew, open a new client",
		status.GetNodeId(), theirs, r.cluster)
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
