package client

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/embedded"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/proof/racedetector"
)

// cluster is a backend made of a real lock table with one log entry for every
// operation. Its clock is time.Now, so it is for synctest bubbles. Faults are
// injected between the client and the table.
type cluster struct {
	embedded.Operator // not used

	mu       sync.Mutex
	table    *fsm.Table
	began    time.Time
	stood    time.Duration // time for which the cluster's clock stood still
	index    uint64
	queued   map[requestKey]*mux.Call
	watchers map[[16]byte]func(*apiv1.Notice)
	watchOf  map[[16]byte]int // the number of the call of Watch that the watcher is from
	watches  int
	tick     *time.Timer
	down     bool // there is no leader: calls wait, the cluster's clock stands still
	downAt   time.Time
	waiting  []*mux.Call // for a leader
	seen     []string    // operations that reached the table, by kind
	noNotice bool        // notices are lost on the way
	closing  bool        // the test is over
	stopped  bool        // see stop
	over     chan struct{}
	wg       sync.WaitGroup

	latency time.Duration // there, and back again
	// onWay decides what happens to an operation; nil: nothing special.
	onWay func(*apiv1.Operation) fate
}

// fate is what the network does to one try of an operation.
type fate struct {
	loseRequest bool          // it does not arrive; the backend sends it again after a second
	loseAnswer  bool          // it arrives and its answer is lost; it is sent again after a second
	delayAnswer time.Duration // its answer takes longer
	refuse      *apiv1.Error  // it is refused and does not arrive
	refuseAfter *apiv1.Error  // it arrives, and is answered with this error
}

type requestKey struct {
	session  fsm.SessionID
	sequence uint64
	once     fsm.OnceID
}

func keyOf(id fsm.RequestID) requestKey { return requestKey{id.Session, id.Sequence, id.Once} }

func newCluster(t *testing.T) *cluster {
	t.Helper()
	racedetector.OneThread()
	k := &cluster{
		table:    fsm.New(),
		began:    time.Now(),
		queued:   map[requestKey]*mux.Call{},
		watchers: map[[16]byte]func(*apiv1.Notice){}, watchOf: map[[16]byte]int{},
		latency: time.Millisecond,
		over:    make(chan struct{}),
	}
	k.tick = time.AfterFunc(time.Hour, k.onTick)
	t.Cleanup(func() {
		k.mu.Lock()
		k.closing = true
		k.mu.Unlock()
		k.tick.Stop()
		k.wg.Wait()
	})
	return k
}

// client returns a client of the cluster on the bubble's clock.
func (k *cluster) client(t *testing.T, opts ...Option) *Client {
	t.Helper()
	began := time.Now()
	clock := Clock(func() time.Duration { return time.Hour + time.Since(began) })
	c := newEmbedded(k, append([]Option{clock}, opts...))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// current returns the session of a client's new acquires.
func current(c *Client) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cur
}

// stamp is cluster time.
func (k *cluster) stamp() fsm.Instant {
	stood := k.stood
	if k.down {
		stood += time.Since(k.downAt)
	}
	return fsm.Instant(time.Second + time.Since(k.began) - stood)
}

// setDown takes the leader away, or gives one back.
func (k *cluster) setDown(down bool) {
	k.mu.Lock()
	if down && !k.down {
		k.downAt = time.Now()
	}
	if !down && k.down {
		k.stood += time.Since(k.downAt)
	}
	k.down = down
	calls := k.waiting
	k.waiting = nil
	k.mu.Unlock()
	for _, call := range calls {
		k.Start(call)
	}
	if !down {
		k.onTick()
	}
}

// Start is part of backend.
func (k *cluster) Start(call *mux.Call) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closing {
		k.wg.Go(func() { k.carry(call) })
	}
}

// Watch is part of backend.
func (k *cluster) Watch(session [16]byte, f func(*apiv1.Notice)) (stop func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watches++
	own := k.watches
	k.watchers[session], k.watchOf[session] = f, own
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.watchOf[session] == own { // not that of a later stream
			delete(k.watchers, session)
			delete(k.watchOf, session)
		}
	}
}

// Done is part of backend.
func (k *cluster) Done() <-chan struct{} { return k.over }

// stop is the end of an embedded node: operations are refused, or not answered.
func (k *cluster) stop() {
	k.mu.Lock()
	k.stopped = true
	k.mu.Unlock()
	close(k.over)
}

func (k *cluster) carry(call *mux.Call) {
	var f fate
	k.mu.Lock()
	onWay := k.onWay
	k.mu.Unlock()
	if onWay != nil {
		f = onWay(call.Op)
	}
	time.Sleep(k.latency)
	k.mu.Lock()
	if k.stopped {
		f.refuse = apiv1.NewError(apiv1.CodeUnavailable, "node is stopping")
	}
	k.mu.Unlock()
	switch {
	case f.refuse != nil:
		call.Done(&apiv1.Answer{Result: &apiv1.Answer_Error{Error: f.refuse}})
		return
	case f.loseRequest:
		time.Sleep(time.Second)
		k.Start(call)
		return
	}
	k.mu.Lock()
	if k.down {
		if !call.Abandoned() {
			k.waiting = append(k.waiting, call)
		}
		k.mu.Unlock()
		return
	}
	a, finish := k.operate(call)
	k.mu.Unlock()
	finish()
	if f.loseAnswer {
		call.Doubt()
		k.leaveLine(call)
		time.Sleep(time.Second)
		k.Start(call)
		return
	}
	if f.refuseAfter != nil {
		a = &apiv1.Answer{Result: &apiv1.Answer_Error{Error: f.refuseAfter}}
	}
	if a != nil {
		k.answer(call, a, f.delayAnswer)
	}
}

func (k *cluster) answer(call *mux.Call, a *apiv1.Answer, extra time.Duration) {
	time.Sleep(k.latency + extra)
	call.Done(a)
}

func (k *cluster) leaveLine(call *mux.Call) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, p := range k.queued {
		if p == call {
			delete(k.queued, key)
		}
	}
}

// operate runs one operation with k.mu held. A nil answer means that it waits in
// line. finish is called without the mutex.
func (k *cluster) operate(call *mux.Call) (a *apiv1.Answer, finish func()) {
	op := call.Op
	k.seen = append(k.seen, fmt.Sprintf("%T", op.Request)[len("*apiv1.Operation_"):])
	switch r := op.Request.(type) {
	case *apiv1.Operation_Get:
		_, finish = k.applyLocked()
		return k.answerOf(&apiv1.Answer{Result: &apiv1.Answer_Get{Get: &apiv1.GetResponse{Lock: k.lock(r.Get.Name)}}}), finish
	case *apiv1.Operation_List:
		_, finish = k.applyLocked()
		return k.answerOf(k.list(r.List)), finish
	}
	c := command(op)
	results, finish := k.applyLocked(c)
	if q, ok := c.(fsm.Acquire); ok && results[0].Code == fsm.Queued {
		k.queued[keyOf(q.ID)] = call
		return nil, finish
	}
	return k.answerOf(result(op, results[0], k.table.Now())), finish
}

func (k *cluster) answerOf(a *apiv1.Answer) *apiv1.Answer {
	a.Index, a.Stamp = k.index, int64(k.table.Now())
	return a
}

// applyLocked writes an entry. finish sends the answers and notices of its events.
func (k *cluster) applyLocked(commands ...fsm.Command) (results []fsm.Result, finish func()) {
	k.index++
	entry := fsm.AppendHeader(nil, 1, k.stamp(), time.Now().UnixMilli(), len(commands))
	for _, c := range commands {
		entry = fsm.AppendCommand(entry, c)
	}
	applied := k.table.Apply(k.index, 1, entry)
	if applied.Refused != fsm.OK || len(applied.Results) != len(commands) {
		panic(fmt.Sprintf("entry refused: %+v", applied))
	}
	var callbacks []func()
	for _, e := range applied.Events {
		if f := k.event(e); f != nil {
			callbacks = append(callbacks, f)
		}
	}
	if at, ok := k.table.NextDeadline(); ok && !k.down {
		k.tick.Reset(max(time.Duration(at-k.stamp()), time.Microsecond))
	}
	return applied.Results, func() {
		for _, f := range callbacks {
			f()
		}
	}
}

func (k *cluster) event(e fsm.Event) func() {
	switch e.Kind {
	case fsm.EventGranted, fsm.EventWaitEnded:
		call := k.queued[keyOf(e.Request)]
		if call == nil {
			return nil
		}
		delete(k.queued, keyOf(e.Request))
		r := e.Result
		if e.Kind == fsm.EventWaitEnded {
			r = fsm.Result{Code: e.Code}
			if e.Code == fsm.TimedOut {
				r.Holders = k.table.Lock(e.Wants[0].Lock).Holders
			}
		}
		a := k.answerOf(result(call.Op, r, k.table.Now()))
		return func() { k.wg.Go(func() { k.answer(call, a, 0) }) }
	case fsm.EventRevoked:
		return k.notify(e.Session, &apiv1.Revocation{Number: e.Number, Token: e.Token, Reason: e.Reason, Who: e.Who})
	case fsm.EventSessionEnded:
		return k.notify(e.Session, nil)
	}
	return nil
}

func (k *cluster) notify(session fsm.SessionID, r *apiv1.Revocation) func() {
	f := k.watchers[session]
	if f == nil || k.noNotice {
		return nil
	}
	return func() {
		k.wg.Go(func() {
			time.Sleep(k.latency)
			f(&apiv1.Notice{Session: session[:], Revocation: r})
		})
	}
}

func (k *cluster) onTick() {
	k.mu.Lock()
	if k.down {
		k.mu.Unlock()
		return
	}
	_, finish := k.applyLocked()
	k.mu.Unlock()
	finish()
}

// do runs a command of another client.
func (k *cluster) do(c fsm.Command) fsm.Result {
	k.mu.Lock()
	results, finish := k.applyLocked(c)
	k.mu.Unlock()
	finish()
	return results[0]
}

// holder returns the token that holds the lock now, 0 if there is none.
func (k *cluster) holder(name string) uint64 {
	k.mu.Lock()
	_, finish := k.applyLocked()
	v := k.table.Lock(name)
	k.mu.Unlock()
	finish()
	if len(v.Holders) == 0 {
		return 0
	}
	return v.Holders[0].Token
}

func (k *cluster) waiters(name string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.table.Lock(name).Waiters
}

// remembered returns how many answers of a session the table remembers.
func (k *cluster) remembered(session [16]byte) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, _ := k.table.Session(session)
	return v.Answers
}

func (k *cluster) stats() fsm.Stats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.table.Stats()
}

// count returns how many operations of a kind have reached the table.
func (k *cluster) count(kind string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, s := range k.seen {
		if s == kind {
			n++
		}
	}
	return n
}

// fault decides what happens to operations from now on.
func (k *cluster) fault(f func(*apiv1.Operation) fate) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.onWay = f
}

// loseNotices makes all notices be lost.
func (k *cluster) loseNotices() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.noNotice = true
}

// first makes a fault that happens to the first operation of type T only.
func first[T any](f fate) func(*apiv1.Operation) fate {
	var once sync.Once
	return func(op *apiv1.Operation) fate {
		var out fate
		if _, ok := op.Request.(T); ok {
			once.Do(func() { out = f })
		}
		return out
	}
}

// every makes a fault that happens to every operation of type T.
func every[T any](f fate) func(*apiv1.Operation) fate {
	return func(op *apiv1.Operation) fate {
		if _, ok := op.Request.(T); ok {
			return f
		}
		return fate{}
	}
}

func (k *cluster) lock(name string) *apiv1.Lock {
	v := k.table.Lock(name)
	out := &apiv1.Lock{Name: name, HolderCount: uint32(v.HolderCount), Waiters: uint32(v.Waiters), Limit: v.Limit}
	out.Holders = apiHolders(v.Holders, k.table.Now())
	return out
}

func (k *cluster) list(r *apiv1.ListRequest) *apiv1.Answer {
	limit := int(r.Limit)
	if limit == 0 {
		limit = 100
	}
	locks, more := k.table.List(r.Prefix, r.After, limit)
	out := &apiv1.ListResponse{}
	for _, v := range locks {
		out.Locks = append(out.Locks, k.lock(v.Name))
	}
	if more {
		out.Next = locks[len(locks)-1].Name
	}
	return &apiv1.Answer{Result: &apiv1.Answer_List{List: out}}
}

func apiHolders(in []fsm.Holder, now fsm.Instant) []*apiv1.Holder {
	var out []*apiv1.Holder
	for _, h := range in {
		a := &apiv1.Holder{
			Lock: h.Lock, Token: h.Token, Holder: h.Holder, Mode: apiv1.Mode(h.Mode), Permits: h.Permits,
			RemainingNs: h.Deadline.Sub(now), SinceUnixMs: h.Since, Value: h.Value,
		}
		if h.Session != (fsm.SessionID{}) {
			a.Session = bytes.Clone(h.Session[:])
		}
		for _, l := range h.Labels {
			a.Labels = append(a.Labels, &apiv1.Label{Key: l.Key, Value: l.Value})
		}
		out = append(out, a)
	}
	return out
}

func requestID(id *apiv1.RequestID) fsm.RequestID {
	out := fsm.RequestID{Sequence: id.GetSequence(), Acked: id.GetAcknowledged()}
	copy(out.Session[:], id.GetSession())
	copy(out.Once[:], id.GetOnce())
	for i, s := range id.GetAnswered() {
		out.Answered[i] = fsm.Span{First: s.First, Last: s.Last}
	}
	return out
}

func labels(in []*apiv1.Label) []fsm.Label {
	var out []fsm.Label
	for _, l := range in {
		out = append(out, fsm.Label{Key: l.Key, Value: l.Value})
	}
	return out
}

func sessionID(b []byte) (id fsm.SessionID) {
	copy(id[:], b)
	return id
}

// command returns the command of an operation, as a node does.
func command(op *apiv1.Operation) fsm.Command {
	switch r := op.Request.(type) {
	case *apiv1.Operation_OpenSession:
		q := r.OpenSession
		return fsm.OpenSession{Session: sessionID(q.Session), TTL: q.TtlNs, Holder: q.Holder, Labels: labels(q.Labels)}
	case *apiv1.Operation_KeepAlive:
		return fsm.KeepAlive{Sessions: []fsm.KeepAliveSession{{Session: sessionID(r.KeepAlive.Session), RevocationsSeen: r.KeepAlive.RevocationsSeen}}}
	case *apiv1.Operation_EndSession:
		return fsm.EndSession{Session: sessionID(r.EndSession.Session), Undelivered: r.EndSession.Undelivered}
	case *apiv1.Operation_Acquire:
		q := r.Acquire
		c := fsm.Acquire{ID: requestID(q.Id), TTL: q.TtlNs, Wait: q.WaitNs, Holder: q.Holder, Value: q.Value, Labels: labels(q.Labels), Delay: q.DelayNs, Detached: q.Detached}
		for _, w := range q.Locks {
			c.Wants = append(c.Wants, fsm.Want{Lock: w.Name, Mode: max(fsm.Mode(w.Mode), fsm.Exclusive), Permits: w.Permits, Limit: w.Limit})
		}
		return c
	case *apiv1.Operation_Cancel:
		return fsm.Cancel{ID: requestID(r.Cancel.Id), Target: requestID(r.Cancel.Target)}
	case *apiv1.Operation_Release:
		return fsm.Release{ID: requestID(r.Release.Id), Lock: r.Release.Name, Token: r.Release.Token, Lost: r.Release.Lost}
	case *apiv1.Operation_Renew:
		return fsm.Renew{ID: requestID(r.Renew.Id), Lock: r.Renew.Name, Token: r.Renew.Token, TTL: r.Renew.TtlNs}
	case *apiv1.Operation_SetValue:
		return fsm.SetValue{ID: requestID(r.SetValue.Id), Lock: r.SetValue.Name, Token: r.SetValue.Token, Value: r.SetValue.Value}
	case *apiv1.Operation_ForceRelease:
		q := r.ForceRelease
		return fsm.ForceRelease{ID: requestID(q.Id), Lock: q.Name, Token: q.Token, Reason: q.Reason, Who: q.Who}
	case *apiv1.Operation_Resize:
		return fsm.Resize{ID: requestID(r.Resize.Id), Lock: r.Resize.Name, Limit: r.Resize.Limit}
	}
	panic(fmt.Sprintf("no command for %T", op.Request))
}

// result returns the answer for a result, as a node does.
func result(op *apiv1.Operation, r fsm.Result, now fsm.Instant) *apiv1.Answer {
	if r.Code != fsm.OK {
		e := apiv1.NewError(apiv1.Code(r.Code), "%s %s", r.Field, r.Detail)
		e.Holders = apiHolders(r.Holders, now)
		return &apiv1.Answer{Result: &apiv1.Answer_Error{Error: e}}
	}
	a := &apiv1.Answer{}
	switch op.Request.(type) {
	case *apiv1.Operation_OpenSession:
		a.Result = &apiv1.Answer_OpenSession{OpenSession: &apiv1.OpenSessionResponse{Deadline: int64(r.Deadline)}}
	case *apiv1.Operation_KeepAlive:
		if r.Alive[0].Deadline == 0 {
			return &apiv1.Answer{Result: &apiv1.Answer_Error{Error: apiv1.NewError(apiv1.CodeNoSession, "no such session")}}
		}
		out := &apiv1.KeepAliveResponse{Deadline: int64(r.Alive[0].Deadline)}
		for _, v := range r.Alive[0].Revocations {
			out.Revocations = append(out.Revocations, &apiv1.Revocation{Number: v.Number, Token: v.Token, Reason: v.Reason, Who: v.Who})
		}
		a.Result = &apiv1.Answer_KeepAlive{KeepAlive: out}
	case *apiv1.Operation_EndSession:
		a.Result = &apiv1.Answer_EndSession{EndSession: &apiv1.EndSessionResponse{}}
	case *apiv1.Operation_Acquire:
		a.Result = &apiv1.Answer_Acquire{Acquire: &apiv1.AcquireResponse{Token: r.Token, Deadline: int64(r.Deadline), Queued: int64(r.Queued), Granted: int64(r.Granted)}}
	case *apiv1.Operation_Cancel:
		a.Result = &apiv1.Answer_Cancel{Cancel: &apiv1.CancelResponse{}}
	case *apiv1.Operation_Release:
		a.Result = &apiv1.Answer_Release{Release: &apiv1.ReleaseResponse{}}
	case *apiv1.Operation_Renew:
		a.Result = &apiv1.Answer_Renew{Renew: &apiv1.RenewResponse{Deadline: int64(r.Deadline)}}
	case *apiv1.Operation_SetValue:
		a.Result = &apiv1.Answer_SetValue{SetValue: &apiv1.SetValueResponse{}}
	case *apiv1.Operation_ForceRelease:
		a.Result = &apiv1.Answer_ForceRelease{ForceRelease: &apiv1.ForceReleaseResponse{Released: apiHolders(r.Holders, now)}}
	case *apiv1.Operation_Resize:
		a.Result = &apiv1.Answer_Resize{Resize: &apiv1.ResizeResponse{}}
	}
	return a
}

// killHolder ends the session of the holder of "a" by force.
func (k *cluster) killHolder() {
	k.mu.Lock()
	holders := k.table.Lock("a").Holders
	k.mu.Unlock()
	if len(holders) > 0 {
		k.do(fsm.KillSession{Session: holders[0].Session, Who: "root"})
	}
}
