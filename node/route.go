package node

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/host"
	"github.com/locknode/locknode/internal/mux"
)

const (
	// noLeaderPatience is how long an operation waits for a leader before it is
	// answered unavailable.
	noLeaderPatience = 5 * time.Second
	// rerouteEvery is how often the router checks for a leader while calls wait for one. A
	// call is retried as often at first, and every rerouteLast in the end.
	rerouteEvery = 10 * time.Millisecond
	rerouteLast  = time.Second
	// maxLeaders bounds the addresses of leaders whose speed is remembered.
	maxLeaders = 64
)

// maxRerouted bounds the calls that wait for a leader. One connection gets a third.
var maxRerouted = mux.Load{Prompt: 200_000, Waits: 600_000}

// Start begins an operation; its answer goes to call.Done, exactly once. Start never
// blocks. A node that leads runs the operation. Another node names the leader if the
// operation requests a redirect, and otherwise forwards it, through changes of leadership,
// until it is answered. What changes the table and has no session is sent in a session of
// the node's own.
func (n wire) Start(call *mux.Call) {
	if call.Op.Kind().Reads() {
		n.startRead(call, n.cfg.seams.Mono())
		return
	}
	if !host.Takes(call.Op) {
		n.startInSession(call)
		return
	}
	if n.epoch.Load() == nil && n.redirect(call) {
		return
	}
	n.host.Start(call)
}

// startInSession is Start for an operation that changes the table and has the session that
// it needs.
func (n *Node) startInSession(call *mux.Call) {
	if e := n.epoch.Load(); e != nil {
		n.startLocal(e, call)
		return
	}
	n.sendElsewhere(call)
}

// sendElsewhere is for operations that this node cannot run now. Those that request a
// redirect get one, unless this node is about to lead: then they wait for the barrier
// instead of being sent from node to node.
func (n *Node) sendElsewhere(call *mux.Call) {
	if !n.redirect(call) {
		n.router.add(call)
	}
}

// ownerOf returns the owner of an operation, for the shares of the table: the address that
// it came from, or the node if it came over no connection.
func ownerOf(node string, op *apiv1.Operation) string {
	if owner := op.GetOwner(); owner != "" {
		return owner
	}
	return "node " + node
}

// redirect answers an operation that requests a redirect, unless this node is about to
// lead, and reports whether it has.
func (n *Node) redirect(call *mux.Call) bool {
	if !call.Op.GetRedirect() || n.isElected() {
		return false
	}
	call.Done(errorAnswer(call.Op, n.notLeader()))
	return true
}

// isElected reports whether Raft leads here, whether or not this node serves as
// leader yet.
func (n *Node) isElected() bool {
	r := n.raft.Load()
	return r != nil && !n.closing.Load() && r.State() == raft.Leader
}

// notLeader is the error that names the leader, as far as this node knows it.
func (n *Node) notLeader() *apiv1.Error {
	e := apiv1.NewError(apiv1.CodeNotLeader, "node %q does not lead", n.id)
	if api := n.leaderAPI(); api != "" && api != n.apiAddr {
		e.Leader = api
		e.Message += "; the leader is at " + api
	}
	return e
}

// startLocal runs an operation through the log of the term that this node leads.
func (n *Node) startLocal(e *epoch, call *mux.Call) {
	if ka := call.Op.GetKeepAlive(); ka != nil {
		n.startKeepAlive(e, call, ka)
		return
	}
	cmd, bad := command(call.Op, ownerOf(n.id, call.Op))
	if bad != nil {
		call.Done(errorAnswer(call.Op, bad))
		return
	}
	if acquire, ok := cmd.(fsm.Acquire); ok && acquire.Wait != 0 {
		n.startWait(e, call, acquire)
		return
	}
	e.proposer.submit(call.Owner, n.asCaller(call.Op, cmd), func(o outcome) {
		if o.err != nil {
			n.router.notDone(call, o.err)
			return
		}
		call.Done(n.answered(call.Op, &o))
	})
}

// startWait runs an acquire that may queue. Its answer comes with its own entry
// or with the event that ends its wait, whichever removes it from the waits.
func (n *Node) startWait(e *epoch, call *mux.Call, cmd fsm.Acquire) {
	p := n.waits.enter(keyOf(cmd.ID), call)
	e.proposer.submit(call.Owner, n.asCaller(call.Op, cmd), func(o outcome) {
		if o.err == nil && o.result.Code == fsm.Queued {
			if end := n.waits.queued(p, o); end != nil {
				call.Done(end)
			}
			return
		}
		if !n.waits.remove(p) {
			return
		}
		if o.err != nil {
			n.router.notDone(call, o.err)
			return
		}
		call.Done(answer(call.Op, &o.result, o.index, o.now))
	})
}

func (n *Node) startKeepAlive(e *epoch, call *mux.Call, ka *apiv1.KeepAliveRequest) {
	session, bad := sessionID("session", ka.GetSession())
	if bad != nil {
		call.Done(errorAnswer(call.Op, bad))
		return
	}
	n.keepAlive(e, call, fsm.KeepAliveSession{Session: session, RevocationsSeen: ka.GetRevocationsSeen()})
}

func (n *Node) keepAlive(e *epoch, call *mux.Call, s fsm.KeepAliveSession) {
	caller := ""
	if call.Op.GetChecked() {
		caller = ownerOf(n.id, call.Op)
	}
	e.proposer.keepAlive(keepAlive{owner: call.Owner, session: s, caller: caller, done: func(alive fsm.Alive, o outcome) {
		if errors.Is(o.err, errForeign) {
			call.Done(errorAnswer(call.Op, foreignSession()))
			return
		}
		if o.err != nil {
			n.router.notDone(call, o.err)
			return
		}
		call.Done(keepAliveAnswer(call.Op, alive, o))
	}})
}

// overloaded is the error of a call that is not tried now. It says that nothing was done
// only of a call that was not tried before.
func overloaded(node string, call *mux.Call, why string) *apiv1.Error {
	if call.Doubtful() {
		return apiv1.NewError(apiv1.CodeUnknownOutcome, "node %q: %s, and an earlier try may have taken effect; retry under the same request ID", node, why)
	}
	return apiv1.NewError(apiv1.CodeOverloaded, "node %q: %s; nothing was done", node, why)
}

// startRead answers a read at once if it may be stale, and otherwise after the next read
// round. since is when the call began to look for a leader.
func (n *Node) startRead(call *mux.Call, since time.Duration) {
	maxStale := time.Duration(call.Op.MaxStale())
	if maxStale < 0 {
		call.Done(errorAnswer(call.Op, apiv1.NewError(apiv1.CodeInvalid, "max_stale_ns: is %d, must be 0 or more", maxStale)))
		return
	}
	if age, ok := n.rounds.age(); maxStale > 0 && ok && age <= maxStale {
		n.answerRead(call, 0, age)
		return
	}
	if maxStale == 0 && call.Op.GetRedirect() && n.epoch.Load() == nil {
		if !n.redirect(call) { // this node is elected, and does not serve yet
			n.router.again(call, since)
		}
		return
	}
	taken := n.rounds.joinFor(call.Owner, readCost(call.Op), func(index uint64, err error) {
		switch {
		case err == nil:
			n.answerRead(call, index, 0)
		case !n.redirect(call):
			n.router.again(call, since)
		}
	})
	if !taken {
		call.Done(errorAnswer(call.Op, overloaded(n.id, call, "too many reads wait on this connection")))
	}
}

// router holds the calls that wait for a leader, and the connection to the leader. Its
// goroutine is run; another one opens a connection.
//
// A call is tried when it comes. One that has to wait is retried when something has changed
// that it may wait for, and otherwise after a quarter of the time that it has been waiting:
// more tries of many calls would keep the node busy just when a leader has to be found.
type router struct {
	routerConfig
	woken chan struct{}

	mu     sync.Mutex
	fresh  []rerouted // not tried yet
	load   load       // of these and of those in waiting
	closed bool
	opened *mux.Conn // to the leader, not yet in use
	opens  bool      // a connection is being opened

	waiting  []rerouted               // owned by run, as all that follows
	view     view                     // as of the last look
	nextLook time.Duration            // when the first of waiting is due
	conn     *mux.Conn                // to the leader
	leader   place                    // where conn, or the one being opened, goes to
	nextOpen time.Duration            // no connection is opened before
	vainOpen time.Duration            // since when none could be opened
	giveUp   context.CancelFunc       // ends the opening of a connection
	patience map[string]*mux.Patience // by API address
	opening  sync.WaitGroup
}

// routerConfig is what a router needs.
type routerConfig struct {
	id   string // of this node
	mono func() time.Duration
	log  *slog.Logger
	node routing
	// dial returns a connection to a node at an API address, before it is established.
	dial func(id, api string) (*grpc.ClientConn, error)
}

// routing is what a router needs of its node: who leads, and what to do with calls.
type routing interface {
	// leadership returns the epoch in which this node leads, or the other node that leads,
	// and whether Raft leads here.
	leadership() (e *epoch, other place, elected bool)
	// leadershipChanged is called when the leader has changed.
	leadershipChanged()
	redirect(call *mux.Call) bool
	startRead(call *mux.Call, since time.Duration)
	startLocal(e *epoch, call *mux.Call)
	notLeader() *apiv1.Error
	unavailable() *apiv1.Error
}

// leadership implements [routing].
func (n *Node) leadership() (e *epoch, other place, elected bool) {
	if e = n.epoch.Load(); e == nil {
		other = n.leaderPlace()
	}
	return e, other, n.isElected()
}

// leadershipChanged implements [routing]: the last round may have failed, and reads wait
// for one that succeeds.
func (n *Node) leadershipChanged() { n.rounds.wake() }

// rerouted is a call and when it began to wait.
type rerouted struct {
	call  *mux.Call
	place fair.Place
	since time.Duration
	due   time.Duration // not tried before, unless something changes
}

// load counts calls by what bounds them, and by their owners.
type load struct{ prompt, waits fair.Shares }

// enter counts a call, if there is room for it.
func (l *load) enter(call *mux.Call, room mux.Load) (fair.Place, bool) {
	switch mux.ClassOf(call.Op) {
	case mux.Waits:
		return l.waits.Enter(call.Owner, room.Waits)
	case mux.Frees:
		return l.prompt.Enter(call.Owner, 2*room.Prompt)
	default:
		return l.prompt.Enter(call.Owner, room.Prompt)
	}
}

func (l *load) leave(c rerouted) {
	if mux.ClassOf(c.call.Op) == mux.Waits {
		l.waits.Leave(c.place)
	} else {
		l.prompt.Leave(c.place)
	}
}

// view is what a call that waits depends on.
type view struct {
	epoch   *epoch
	conn    *mux.Conn
	known   place // the leader
	elected bool  // this node is about to lead
}

func newRouter(c routerConfig) *router {
	return &router{routerConfig: c, woken: make(chan struct{}, 1), giveUp: func() {}, patience: make(map[string]*mux.Patience)}
}

func (r *router) add(call *mux.Call) { r.put(rerouted{call: call, since: r.mono()}) }

// again takes back a call that was tried and has found no leader since a time. The call
// waits for a moment: otherwise a round or a node that refuses it would be asked again as
// fast as it can refuse.
func (r *router) again(call *mux.Call, since time.Duration) {
	now := r.mono()
	r.put(rerouted{call: call, since: since, due: nextTry(now, since)})
}

// notDone handles a command that was not proposed, or whose outcome is unknown. Both are
// retried, by this node or by the client.
func (r *router) notDone(call *mux.Call, err error) {
	if errors.Is(err, errOutcomeUnknown) {
		call.Doubt()
	}
	switch {
	case errors.Is(err, errOverloaded):
		call.Done(errorAnswer(call.Op, overloaded(r.id, call, "too many operations of this connection are queued")))
	case errors.Is(err, errOutcomeUnknown) && call.Op.GetRedirect():
		e := r.node.notLeader()
		e.Code = uint32(apiv1.CodeUnknownOutcome)
		e.Message = "leadership was lost meanwhile; retry under the same request ID"
		call.Done(errorAnswer(call.Op, e))
	case !r.node.redirect(call):
		// Not at once: this node may not have noticed yet that its term is over.
		r.again(call, r.mono())
	}
}

// nextTry returns when a call that has waited since a time is retried: after a pause, or
// when it has waited for noLeaderPatience.
func nextTry(now, since time.Duration) time.Duration {
	return min(now+pause(now-since), max(now, since+noLeaderPatience)+1)
}

// pause is the time until the next try of what has failed for some time.
func pause(vain time.Duration) time.Duration { return min(max(vain/4, rerouteEvery), rerouteLast) }

func (r *router) put(c rerouted) {
	call := c.call
	r.mu.Lock()
	var err *apiv1.Error
	if r.closed {
		err = apiv1.NewError(apiv1.CodeUnavailable, "node %q is stopping", r.id)
	} else if place, ok := r.load.enter(call, maxRerouted); !ok {
		err = overloaded(r.id, call, "too many operations of this connection wait for a leader")
	} else {
		c.place = place
		r.fresh = append(r.fresh, c)
	}
	r.mu.Unlock()
	if err != nil {
		call.Done(errorAnswer(call.Op, err))
		return
	}
	r.wake()
}

// wake has run look soon.
func (r *router) wake() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

func (r *router) run(ctx context.Context) {
	defer r.close()
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		if every := r.look(ctx); every > 0 {
			t.Reset(every)
		}
		select {
		case <-ctx.Done():
			return
		case <-r.woken:
		case <-t.C:
		}
	}
}

// look sends the calls that can be sent, and returns how soon to look again; 0: when it is
// woken.
func (r *router) look(ctx context.Context) time.Duration {
	now := r.mono()
	r.mu.Lock()
	calls := r.fresh
	r.fresh = nil
	r.mu.Unlock()
	v := r.observe(ctx, now, len(calls)+len(r.waiting) > 0)
	changed := v != r.view
	if changed && (v.epoch != r.view.epoch || v.known != r.view.known) {
		r.node.leadershipChanged()
	}
	r.view = v
	if changed || now >= r.nextLook {
		calls = append(r.waiting, calls...)
		r.waiting, r.nextLook = nil, now+rerouteLast
	}
	r.flush(calls, now, changed)
	switch {
	case len(r.waiting) > 0:
		return rerouteEvery
	case r.conn != nil:
		return leaderPoll // calls that were sent to an old leader have to go to the new one
	}
	return 0
}

// observe returns the current view. It opens a connection to the leader if one is needed,
// and closes one to an old leader.
func (r *router) observe(ctx context.Context, now time.Duration, needed bool) view {
	var v view
	v.epoch, v.known, v.elected = r.node.leadership()
	other := v.epoch != nil || v.known.api != "" && v.known != r.leader
	r.mu.Lock()
	if r.opened != nil {
		r.conn, r.opened = r.opened, nil
	}
	opens := r.opens
	r.mu.Unlock()
	if opens && other {
		r.giveUp() // which wakes run when the opening has ended
	}
	if r.conn != nil {
		select {
		case <-r.conn.Done():
			r.conn = nil
		default:
			if other {
				// Calls on the old stream come back, and go to the new leader.
				r.conn.Close()
				r.conn = nil
			}
		}
	}
	if other && v.known.id != r.leader.id {
		r.nextOpen, r.vainOpen = now, now
	}
	if needed && r.conn == nil && !opens && now >= r.nextOpen && v.known.api != "" && v.known.id != r.id {
		r.nextOpen = now + pause(now-r.vainOpen)
		r.open(ctx, v.known)
	}
	if r.conn != nil {
		r.vainOpen = now
	}
	v.conn = r.conn
	return v
}

// flush sends calls to the leader; those that cannot be sent wait.
func (r *router) flush(calls []rerouted, now time.Duration, changed bool) {
	var gone []rerouted
	for _, c := range calls {
		if (changed || now >= c.due) && r.send(c, now) {
			gone = append(gone, c)
			continue
		}
		if now >= c.due {
			c.due = nextTry(now, c.since)
		}
		r.nextLook = min(r.nextLook, c.due)
		r.waiting = append(r.waiting, c)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range gone {
		r.load.leave(c)
	}
}

// send reports whether the call was sent, or answered.
func (r *router) send(c rerouted, now time.Duration) bool {
	read := c.call.Op.Kind().Reads()
	e := r.view.epoch
	switch {
	case c.call.Abandoned():
	case now-c.since > noLeaderPatience:
		c.call.Done(errorAnswer(c.call.Op, r.node.unavailable()))
	case read:
		r.node.startRead(c.call, c.since)
	case !read && e != nil:
		r.node.startLocal(e, c.call)
	case r.node.redirect(c.call): // which has answered it
	case !read && r.conn != nil && !c.call.Op.GetRedirect():
		r.conn.Start(r.forwarded(c))
	default:
		return false
	}
	return true
}

// forwarded wraps a call for the leader. A leader answers it; a node that does not lead
// redirects it, and then the call comes back here.
func (r *router) forwarded(c rerouted) *mux.Call {
	op := &apiv1.Operation{
		Id: c.call.Op.GetId(), Redirect: true, Request: c.call.Op.GetRequest(),
		// Nodes count their connections alike.
		Owner: ownerOf(r.id, c.call.Op), Checked: c.call.Op.GetChecked(), Force: c.call.Op.GetForce(), Connection: c.call.Owner.Connection ^ fair.AddressOf(r.id),
	}
	sent := r.mono()
	return &mux.Call{Op: op, Owner: c.call.Owner, Done: func(a *apiv1.Answer) {
		code := apiv1.Code(a.GetError().GetCode())
		switch code.Retry() {
		case apiv1.RetryElsewhere, apiv1.RetrySameID:
			if c.call.Abandoned() {
				return
			}
			if code == apiv1.CodeUnavailable || code == apiv1.CodeUnknownOutcome {
				c.call.Doubt()
			}
			since := c.since
			if r.mono()-sent > time.Second {
				since = r.mono() // a leader had it for some time: a new search begins
			}
			r.again(c.call, since)
			return
		case apiv1.RetryLater:
			if c.call.Doubtful() {
				a = errorAnswer(c.call.Op, overloaded(r.id, c.call, "the leader has too much to do"))
			}
		}
		c.call.Done(a)
	}}
}

// open opens a stream to the leader in a goroutine of its own: it may take as long as a
// connection to a node that is gone takes to fail.
func (r *router) open(ctx context.Context, at place) {
	api := at.api
	cc, err := r.dial(at.id, api)
	if err != nil {
		return
	}
	patience := r.patience[api]
	if patience == nil {
		if len(r.patience) >= maxLeaders {
			clear(r.patience) // most of these addresses are no longer in use
		}
		patience = mux.NewPatience(0)
		r.patience[api] = patience
	}
	ctx, r.giveUp = context.WithCancel(ctx)
	giveUp := r.giveUp
	r.leader = at
	r.mu.Lock()
	r.opens = true
	r.mu.Unlock()
	r.opening.Go(func() {
		defer giveUp()
		// Raft names the next leader; a silent one is kept until then.
		conn, err := mux.Open(ctx, cc, mux.Config{Logger: r.log, Patience: patience, OnSilent: r.wake, OnBreak: r.broken})
		if err != nil {
			r.log.Debug("stream to the leader", "peer", api, "err", err)
		}
		r.mu.Lock()
		r.opens, r.opened = false, conn
		r.mu.Unlock()
		r.wake()
	})
}

// broken takes back the calls of a stream that ended: the Done of each sends it again.
func (r *router) broken(calls []*mux.Call, err error) {
	for _, c := range calls {
		c.Done(errorAnswer(c.Op, apiv1.NewError(apiv1.CodeUnavailable, "stream to the leader: %v", err)))
	}
}

// close fails what still waits.
func (r *router) close() {
	r.mu.Lock()
	r.closed = true
	calls := append(r.waiting, r.fresh...)
	r.waiting, r.fresh = nil, nil
	r.mu.Unlock()
	r.giveUp()
	r.opening.Wait()
	for _, conn := range []*mux.Conn{r.conn, r.opened} {
		if conn != nil {
			conn.Close()
		}
	}
	for _, c := range calls {
		c.call.Done(errorAnswer(c.call.Op, apiv1.NewError(apiv1.CodeUnavailable, "node %q is stopping", r.id)))
	}
}
