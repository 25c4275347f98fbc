package history

import (
	"bytes"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/locknode/locknode/fsm"
)

// wrong makes the service wrong in one way. Its zero value does nothing. fired counts how often
// it took effect, as far as the simulation knows.
type wrong struct {
	w     *world
	kind  string
	fired int

	tokens  map[uint64]uint64 // true → answered
	swapped map[uint64]uint64 // answered → true
	lied    map[string]bool   // requests that are treated wrongly
	early   map[string]bool   // sessions and requests with a TTL that is too short
	moved   map[fsm.RequestID]fsm.RequestID
	grants  map[uint64]fsm.RequestID // held, by true token
	waits   map[string]time.Duration // of requests whose wait is cut short

	freed  map[string]fsm.Instant // lock → cluster time at which a holder or waiter left it
	delays map[string]int64       // of requests whose delay is skipped
	until  map[string]fsm.Instant // lock → cluster time until which it had to stay free

	owners map[uint64]fsm.SessionID // held, by true token; zero: detached
	onces  map[fsm.OnceID]*remembered
	knows  map[uint64]int // true token → how many callers got it

	saved   []byte // a snapshot of the table
	savedAt uint64
	rolled  bool
}

func (x *wrong) is(kind string) bool { return x.kind == kind }

// advance is how far cluster time goes in d.
func (x *wrong) advance(d time.Duration) time.Duration {
	if x.is("clock runs ahead") {
		x.fired = 1
		return d * 3 / 2
	}
	return d
}

// alias is the second lock of a name that a wrong service keeps.
const alias = "~again"

// change returns the command that the table gets instead of c.
func (x *wrong) change(c fsm.Command) fsm.Command {
	switch q := c.(type) {
	case fsm.OpenSession:
		if x.is("early expiry") {
			x.mark(&x.early, hexOf(q.Session))
			q.TTL /= 3
			return q
		}
	case fsm.Acquire:
		return x.changeAcquire(q)
	case fsm.Release:
		q.Token = x.truth(q.Token)
		if x.is("stranger releases") {
			return x.asOwner(q)
		}
		if x.is("lost release") && x.w.chance(0.3) && x.grants[q.Token] != (fsm.RequestID{}) {
			x.mark(&x.lied, textOf(q.ID))
			x.fired++
			q.Token = 1 << 62
		}
		return q
	case fsm.Renew:
		q.Token = x.truth(q.Token)
		return q
	case fsm.Resize:
		if l := x.w.table.Lock(q.Lock); x.is("resize is forgotten") && l.Limit != 0 {
			return fsm.KeepAlive{} // which is answered OK
		}
	case fsm.KeepAlive:
		if x.is("keep-alive is forgotten") {
			x.mark(&x.early, hexOf(q.Sessions[0].Session))
			return fsm.KeepAlive{Sessions: []fsm.KeepAliveSession{{Session: fsm.SessionID{1}}}}
		}
	case fsm.Cancel:
		if x.is("cancelled waiter is granted") {
			x.mark(&x.lied, textOf(q.Target))
			q.Target.Sequence += 1 << 40
			return q
		}
		if x.is("cancel of a try takes what others have") {
			return x.takeAll(q)
		}
	}
	return c
}

func (x *wrong) changeAcquire(q fsm.Acquire) fsm.Command {
	if q.Detached {
		q = x.changeScript(q)
	}
	switch {
	case x.is("delay is skipped") && q.Delay > 0:
		if x.delays == nil {
			x.delays, x.until = make(map[string]int64), make(map[string]fsm.Instant)
		}
		x.delays[textOf(q.ID)] = q.Delay
		q.Delay = 0
	case x.is("waiter is left standing") && q.Wait != 0:
		q.Wants = append(slices.Clone(q.Wants), fsm.Want{Lock: alias, Mode: fsm.Shared})
	case x.is("double grant") && x.w.chance(0.1):
		q.Wants = slices.Clone(q.Wants)
		for i := range q.Wants {
			if n := len(x.w.table.Lock(q.Wants[i].Lock).Holders); n > 0 && q.Wants[i].Mode == fsm.Exclusive {
				q.Wants[i].Lock += alias
			}
		}
	case x.is("too many permits") && len(q.Wants) == 1 && q.Wants[0].Mode == fsm.Permits && x.w.chance(0.3):
		if l := x.w.table.Lock(q.Wants[0].Lock); len(l.Holders) > 0 {
			q.Wants = slices.Clone(q.Wants)
			q.Wants[0].Lock += alias
		}
	case x.is("early expiry of a grant") && q.TTL > int64(2*time.Second):
		x.mark(&x.early, textOf(q.ID))
		q.TTL /= 2
	case x.is("wait is cut short") && q.Wait > 0:
		if x.waits == nil {
			x.waits = make(map[string]time.Duration)
		}
		x.waits[textOf(q.ID)] = time.Duration(q.Wait)
		q.Wait /= 2
	}
	return q
}

func (x *wrong) mark(set *map[string]bool, key string) {
	if *set == nil {
		*set = make(map[string]bool)
	}
	(*set)[key] = true
}

// refuses reports whether a command is dropped on its way. A session must not be opened again
// by a copy of the first request that comes after the answer.
func (x *wrong) refuses(c fsm.Command, answered bool) bool {
	if x.is("expiry is recorded as a release") { // for grants that are held for long enough
		switch q := c.(type) {
		case fsm.Release:
			return q.ID.Session[0]%2 == 0
		case fsm.KeepAlive:
			return q.Sessions[0].Session[0]%2 == 0
		}
	}
	q, ok := c.(fsm.OpenSession)
	if !ok || !answered {
		return false
	}
	if _, open := x.w.table.Session(q.Session); !open && x.is("session is opened again") {
		x.fired++
	}
	return !x.is("session is opened again")
}

// forgets reports whether a client gets no notice that a grant was revoked.
func (x *wrong) forgets(token uint64) bool {
	return x.is("revocation is forgotten") && token%2 == 0
}

// begin adds a session that no client knows.
func (x *wrong) begin() {
	switch x.kind {
	case "waiter is left standing":
		x.stand()
	case "wait outlives its owner": // so that clients have to wait
		x.w.after(x.w.between(time.Second, 20*time.Second), func() {
			x.w.host().acquire(fsm.Acquire{Detached: true, Wait: int64(time.Minute), TTL: int64(35 * time.Second), Wants: plain(x.w.locks[:1])}, func(reply) {})
		})
	}
}

// stand holds the lock that waiters need besides their own, for a while, again and again.
func (x *wrong) stand() {
	w := x.w
	w.after(w.between(1*time.Second, 6*time.Second), func() {
		w.host().acquire(fsm.Acquire{Detached: true, TTL: int64(4 * time.Second), Wants: []fsm.Want{{Lock: alias, Mode: fsm.Exclusive}}}, func(reply) {})
		if w.now < w.end {
			x.stand()
		}
	})
}

// hide leaves out of an entry the events of the lock that no client knows. A waiter that is
// granted when that lock is released, although its own locks were free for long, was stuck.
func (x *wrong) hide(a *fsm.Applied) {
	if !x.is("waiter is left standing") {
		return
	}
	if x.freed == nil {
		x.freed = make(map[string]fsm.Instant)
	}
	var seen []fsm.Event
	for _, e := range a.Events {
		own := slices.DeleteFunc(slices.Clone(e.Wants), func(w fsm.Want) bool { return w.Lock == alias })
		if len(own) == 0 && len(e.Wants) > 0 {
			continue
		}
		e.Wants = own
		long := e.Kind == fsm.EventGranted && e.Waited > int64(1200*time.Millisecond)
		for _, w := range own {
			long = long && a.Now.Sub(x.freed[w.Lock]) > int64(1200*time.Millisecond)
		}
		for _, w := range own {
			if e.Kind != fsm.EventQueued {
				x.freed[w.Lock] = a.Now
			}
		}
		if long {
			x.fired++
		}
		seen = append(seen, e)
	}
	a.Events = seen
}

// copies delivers a copy of an opening when the session may be over.
func (x *wrong) copies(c fsm.Command, answered func() bool) {
	if _, opens := c.(fsm.OpenSession); !opens || !x.is("session is opened again") {
		return
	}
	x.w.after(x.w.between(5*time.Second, 20*time.Second), func() {
		if !x.refuses(c, answered()) {
			x.w.submit(&command{c, func(reply) {}})
		}
	})
}

// again returns what the try with a number sends.
func (x *wrong) again(c fsm.Command, try int) fsm.Command {
	if q, ok := c.(fsm.Acquire); ok && try > 0 && x.is("executed twice") && q.ID.Session != (fsm.SessionID{}) {
		id := q.ID
		q.ID.Sequence += uint64(try) << 40
		if x.moved == nil {
			x.moved = make(map[fsm.RequestID]fsm.RequestID)
		}
		x.moved[q.ID] = id
		return q
	}
	return c
}

// resized handles a change of a semaphore's size.
func (x *wrong) resized(a *fsm.Applied) {
	a.Events = slices.DeleteFunc(a.Events, func(e fsm.Event) bool {
		switch {
		case e.Kind == fsm.EventResized && x.is("resize comes again"):
			again := fsm.Resize{Lock: e.Wants[0].Lock, Limit: e.Wants[0].Limit}
			if !x.w.chance(0.3) {
				break
			}
			x.w.after(x.w.between(0, 10*time.Second), func() {
				x.w.submit(&command{again, func(r reply) {
					if r.res.Code == fsm.OK {
						x.fired++
					}
				}})
			})
		case e.Kind == fsm.EventQueued && x.is("resize leaves a waiter that is too wide"):
			for _, l := range e.Wants {
				if l.Permits > 1 {
					x.w.after(x.w.between(0, 300*time.Millisecond), func() {
						x.w.submit(&command{fsm.Resize{Lock: l.Lock, Limit: 1}, func(reply) {}})
					})
				}
			}
		case e.Kind == fsm.EventWaitEnded && e.Code == fsm.KindMismatch && x.is("resize leaves a waiter that is too wide"):
			x.fired++
			return true
		}
		return false
	})
}

// applied changes what an entry is recorded to have done.
func (x *wrong) applied(a *fsm.Applied) {
	x.hide(a)
	x.resized(a)
	for i := range a.Events {
		e := &a.Events[i]
		if id, ok := x.moved[e.Request]; ok {
			e.Request = id
		}
		x.sameOnce(e)
		if strings.HasSuffix(nameOf(e), alias) || len(e.Wants) > 1 {
			e.Wants = slices.Clone(e.Wants)
			for k := range e.Wants {
				e.Wants[k].Lock = strings.TrimSuffix(e.Wants[k].Lock, alias)
			}
		}
		switch e.Kind {
		case fsm.EventGranted:
			x.granted(a, e)
		case fsm.EventReleased, fsm.EventExpired, fsm.EventRevoked:
			x.ended(a, e)
		}
		x.endUncalled(e)
	}
	x.forget(a)
}

// endUncalled ends grants, waits and sessions now and then without a request.
func (x *wrong) endUncalled(e *fsm.Event) {
	w := x.w
	var c fsm.Command
	text := textOf(e.Request)
	switch e.Kind {
	case fsm.EventQueued:
		if x.is("wait is cancelled by nobody") {
			c = fsm.Cancel{Target: e.Request}
		}
	case fsm.EventGranted:
		if x.is("grant is revoked by nobody") {
			c = fsm.ForceRelease{Lock: nameOf(e), Token: e.Token}
		}
	case fsm.EventSessionOpened:
		if x.is("session is killed by nobody") {
			c = fsm.KillSession{Session: e.Session}
		}
	case fsm.EventWaitEnded:
		if x.is("wait is cut short") && e.Code == fsm.TimedOut && e.Waited < int64(x.waits[text]) ||
			x.is("wait is cancelled by nobody") && e.Code == fsm.Cancelled && !x.called(func(o *Op) bool { return o.Target == text }) {
			x.fired++
		}
	case fsm.EventRevoked:
		if x.is("grant is revoked by nobody") && !x.called(func(o *Op) bool { return o.Kind == ForceRelease && wantsAny(&logGrant{wants: e.Wants}, o.Wants) }) {
			x.fired++
		}
	case fsm.EventSessionEnded:
		if x.is("session is killed by nobody") && e.Code == fsm.NotHeld {
			x.fired++
		}
	case fsm.EventExpired:
		if _, open := w.table.Session(e.Session); !open && e.Session != (fsm.SessionID{}) && x.is("expiry is recorded as a release") {
			e.Kind = fsm.EventReleased
			x.fired++
		}
	}
	if c != nil && w.chance(0.2) {
		w.after(w.between(0, time.Second), func() { w.submit(&command{c, func(reply) {}}) })
	}
}

// called reports whether a client has made such a call.
func (x *wrong) called(such func(*Op) bool) bool { return slices.ContainsFunc(x.w.ops, such) }

func nameOf(e *fsm.Event) string {
	if len(e.Wants) == 0 {
		return ""
	}
	return e.Wants[0].Lock
}

func (x *wrong) granted(a *fsm.Applied, e *fsm.Event) {
	if x.grants == nil {
		x.grants = make(map[uint64]fsm.RequestID)
	}
	for _, w := range e.Wants {
		if x.is("double grant") && len(x.holders(w.Lock)) > 1 && w.Mode == fsm.Exclusive {
			x.fired++
		}
		if x.is("too many permits") && x.permits(w.Lock) > w.Limit {
			x.fired++
		}
	}
	x.grantedScript(a, e)
	if x.is("executed twice") && slices.Contains(slices.Collect(maps.Values(x.grants)), e.Request) {
		x.fired++
	}
	if x.is("cancelled waiter is granted") && x.lied[textOf(e.Request)] {
		x.fired++
	}
	for _, w := range e.Wants {
		if a.Now < x.until[w.Lock] {
			x.fired++
		}
	}
	x.grants[e.Token] = e.Request
	if x.is("token goes back") && e.Token > 4 && x.w.chance(0.1) {
		if x.tokens == nil {
			x.tokens, x.swapped = make(map[uint64]uint64), make(map[uint64]uint64)
		}
		told := e.Token - 3
		if _, taken := x.swapped[told]; !taken {
			x.tokens[e.Token], x.swapped[told] = told, e.Token
			x.fired++
		}
	}
	e.Token = x.answered(e.Token)
	e.Result.Token = e.Token
}

func (x *wrong) ended(a *fsm.Applied, e *fsm.Event) {
	if e.Kind == fsm.EventExpired {
		if (x.is("early expiry") || x.is("keep-alive is forgotten")) && x.early[hexOf(e.Session)] || x.is("early expiry of a grant") && x.early[textOf(e.Request)] {
			x.fired++
		}
		for _, w := range e.Wants {
			if d := x.delays[textOf(e.Request)]; d > 0 {
				x.until[w.Lock] = max(x.until[w.Lock], a.Now+fsm.Instant(d))
			}
		}
	}
	x.endedScript(a, e)
	delete(x.grants, e.Token)
	e.Token = x.answered(e.Token)
}

func (x *wrong) answered(token uint64) uint64 {
	if t, ok := x.tokens[token]; ok {
		return t
	}
	return token
}

func (x *wrong) truth(token uint64) uint64 {
	if t, ok := x.swapped[token]; ok {
		return t
	}
	return token
}

// forget rolls the table back, once: the grants since are lost.
func (x *wrong) forget(a *fsm.Applied) {
	w := x.w
	if !x.is("acknowledged grant lost") || x.rolled {
		return
	}
	if x.saved == nil {
		if len(x.grants) > 0 && w.index > 60 {
			var buf bytes.Buffer
			if _, err := w.table.Snapshot().WriteTo(&buf); err != nil {
				panic(err)
			}
			x.saved, x.savedAt = buf.Bytes(), w.index
		}
		return
	}
	granted := slices.ContainsFunc(a.Events, func(e fsm.Event) bool { return e.Kind == fsm.EventGranted })
	if !granted || a.Index < x.savedAt+3 {
		return
	}
	x.rolled = true
	x.fired++
	w.after(3*time.Millisecond, func() {
		table, err := fsm.Restore(io.NopCloser(bytes.NewReader(x.saved)))
		if err != nil {
			panic(err)
		}
		w.table, w.index = table, x.savedAt
		w.waits = make(map[requestID][]*command)
		w.flying = false
		w.lead()
	})
}

// answer returns the answer that is sent instead of a result.
func (x *wrong) answer(c fsm.Command, r *fsm.Result) {
	r.Token = x.answered(r.Token)
	for i := range r.Holders {
		r.Holders = slices.Clone(r.Holders)
		r.Holders[i].Token = x.answered(r.Holders[i].Token)
	}
	switch q := c.(type) {
	case fsm.Release:
		if x.lied[textOf(q.ID)] {
			*r = fsm.Result{}
		}
	case fsm.Renew:
		if x.is("stale renew accepted") && r.Code == fsm.NotHeld {
			x.fired++
			*r = fsm.Result{Deadline: x.w.table.Now() + fsm.Instant(q.TTL)}
		}
	case fsm.KeepAlive:
		if s, ok := x.w.table.Session(q.Sessions[0].Session); ok && x.is("keep-alive is forgotten") {
			*r = fsm.Result{Alive: []fsm.Alive{{Deadline: x.w.table.Now() + fsm.Instant(s.TTL)}}}
		}
	case fsm.Acquire:
		if q.Detached {
			x.answerScript(q, r)
		}
		if x.is("stamp is too early") && r.Queued > 0 && r.Code == fsm.OK {
			x.fired++
			r.Queued -= fsm.Instant(2 * time.Second)
		}
	case fsm.Cancel:
		if x.is("cancelled waiter is granted") {
			*r = fsm.Result{}
		}
	}
}

// bound returns until when a client relies on a deadline.
func (x *wrong) bound(at time.Duration) time.Duration {
	switch {
	case x.is("loss is reported late"):
		return at + 1500*time.Millisecond
	case x.is("loss is reported too early"):
		return at - 1500*time.Millisecond
	}
	return at
}

// view returns what a read sees.
func (x *wrong) view(lock string, v view) view {
	if x.is("stale read") && x.w.chance(0.5) {
		for _, old := range slices.Backward(x.w.views) {
			if x.w.now-old.from > 3*time.Second {
				if !slices.Equal(old.holders[lock], v.holders[lock]) {
					x.fired++
					old.index, old.now = v.index, v.now // and the answer does not say so
					return old
				}
				break
			}
		}
	}
	return v
}

func (x *wrong) holders(lock string) []uint64 {
	tokens := tokensOf(x.w.table.Lock(lock).Holders)
	if x.is("double grant") || x.is("too many permits") {
		tokens = append(tokens, tokensOf(x.w.table.Lock(lock+alias).Holders)...)
	}
	for i := range tokens {
		tokens[i] = x.answered(tokens[i])
	}
	slices.Sort(tokens)
	return tokens
}

// permits returns how many permits of a semaphore are held.
func (x *wrong) permits(lock string) (n uint32) {
	for _, name := range []string{lock, lock + alias} {
		for _, h := range x.w.table.Lock(name).Holders {
			n += h.Permits
		}
	}
	return n
}

// afterwards changes the recorded history.
func (x *wrong) afterwards() {
	h := &x.w.h
	switch x.kind {
	case "digest differs":
		from := h.Entries[len(h.Entries)/2].Applied.Index
		for i := range h.Entries {
			if e := &h.Entries[i]; e.Node == "n1" && e.Applied.Index >= from {
				e.Applied.Digest ^= 1
				x.fired = 1
			}
		}
	case "resize is forgotten":
		for _, o := range h.Ops {
			if o.Kind == Resize && o.Outcome == OK {
				x.fired++
			}
		}
	case "loss is reported late":
		x.countLate()
	case "loss is reported too early":
		for _, b := range h.Beliefs {
			if b.Lost == LostDeadline || b.Lost == LostExpired {
				x.fired++
			}
		}
	case "revocation is forgotten":
		x.countUnnoticed()
	case "loss is sent as a release":
		x.countGivenBack()
	case "waiter overtakes":
		x.swapWaiters()
	case "index is not named":
		x.dropIndex()
	}
}

// countLate counts the beliefs that were longer than their grants.
func (x *wrong) countLate() {
	ends := make(map[uint64]time.Duration)
	for _, e := range x.w.h.Entries {
		for _, ev := range e.Applied.Events {
			if _, ok := ends[ev.Token]; ev.Kind == fsm.EventExpired && !ok {
				ends[ev.Token] = e.At
			}
		}
	}
	for _, b := range x.w.h.Beliefs {
		if end, ok := ends[b.Token]; ok && b.Until > end {
			x.fired++
		}
	}
}

// countUnnoticed counts the beliefs that went on although a keep-alive that was sent after the end
// of their grant was answered.
func (x *wrong) countUnnoticed() {
	ends := make(map[uint64]time.Duration)
	session := make(map[uint64]string)
	for _, e := range x.w.h.Entries {
		for _, ev := range e.Applied.Events {
			if ev.Kind == fsm.EventRevoked && e.Node == "n0" {
				ends[ev.Token], session[ev.Token] = e.At, hexOf(ev.Session)
			}
		}
	}
	for _, b := range x.w.h.Beliefs {
		end, ok := ends[b.Token]
		if ok && x.called(func(o *Op) bool {
			return o.Kind == KeepAlive && o.Outcome == OK && o.Session == session[b.Token] && o.Call > end && o.Return+actingTakes < b.Until
		}) {
			x.fired++
		}
	}
}

// countGivenBack counts the losses by time of grants with a delay that were recorded as
// releases.
func (x *wrong) countGivenBack() {
	released := make(map[uint64]bool)
	for _, e := range x.w.h.Entries {
		for _, ev := range e.Applied.Events {
			if ev.Kind == fsm.EventReleased {
				released[ev.Token] = true
			}
		}
	}
	for _, b := range x.w.h.Beliefs {
		if released[b.Token] && b.Lost == LostDeadline && x.called(func(o *Op) bool { return o.Token == b.Token && o.Kind == Acquire && o.Delay > 0 }) {
			x.fired++
		}
	}
}

// dropIndex leaves the index out of one answer that the table gave.
func (x *wrong) dropIndex() {
	ops := x.w.h.Ops
	for _, i := range x.w.rnd.Perm(len(ops)) {
		if o := &ops[i]; o.Kind != Get && o.Outcome != Unknown && o.Outcome != Refused {
			o.Index, x.fired = 0, 1
			return
		}
	}
}

// swapWaiters records two waiters of one lock in the wrong order.
func (x *wrong) swapWaiters() {
	h := &x.w.h
	line := make(map[string][]*fsm.Event) // lock → waiting, in order
	for i := range h.Entries {
		if h.Entries[i].Node != "n0" {
			continue
		}
		for k := range h.Entries[i].Applied.Events {
			e := &h.Entries[i].Applied.Events[k]
			if len(e.Wants) != 1 || e.Wants[0].Mode != fsm.Exclusive {
				continue
			}
			lock := e.Wants[0].Lock
			switch e.Kind {
			case fsm.EventQueued:
				line[lock] = append(line[lock], e)
			case fsm.EventGranted, fsm.EventWaitEnded:
				at := slices.IndexFunc(line[lock], func(q *fsm.Event) bool { return q.Request == e.Request })
				if at < 0 {
					continue
				}
				if e.Kind == fsm.EventGranted && at == 0 && len(line[lock]) > 1 {
					a, b := line[lock][0], line[lock][1]
					a.Request, b.Request, a.Session, b.Session = b.Request, a.Request, b.Session, a.Session
					x.fired++
					return
				}
				line[lock] = slices.Delete(line[lock], at, at+1)
			}
		}
	}
}
