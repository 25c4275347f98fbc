package fsm

import "slices"

// Exactly once. A command with a request ID takes effect once; its answer is
// remembered and given to every retry. A session keeps its answers in a window
// by sequence, from which the client acknowledges them away. That a session has
// ended is remembered for some time.
//
// The window refuses nothing. What frees a lock must not be refused because a client
// has one request that waits for long, or never acknowledges: beyond the limit the
// oldest answers are forgotten as if they had been acknowledged. What waits keeps its
// entry, acknowledged or not, until it is answered.

// answer is a remembered result.
type answer struct {
	sequence uint64
	asked    uint64 // hash of the command; 0: of an acquire that was cancelled before it came
	token    uint64
	deadline Instant
	queued   Instant
	granted  Instant
	request  uint64      // number of the request that waits; 0: none
	more     *answerMore // nil: nothing more; never changed
	kind     Kind        // of the command
	code     Code
}

type answerMore struct {
	refusal refusal
	holders []Holder
}

// maxShownWindow bounds the bytes of the holders that a session remembers for the
// copies of its force-releases. An answer beyond that is remembered without them.
const maxShownWindow = 1 << 20

// cost is what the answer's holders take of that.
func (a *answer) cost() int {
	n := 0
	if a.more != nil {
		for i := range a.more.holders {
			n += a.more.holders[i].cost()
		}
	}
	return n
}

func (a *answer) result() Result {
	r := Result{Code: a.code, Token: a.token, Deadline: a.deadline, Queued: a.queued, Granted: a.granted}
	if a.more != nil {
		r.Holders = a.more.holders
		if a.more.refusal.why != noReason {
			a.more.refusal.explain(&r)
		}
	}
	return r
}

// toAnswer makes what is remembered of a result, which was given just now.
func (t *Table) toAnswer(kind Kind, r *Result) answer {
	a := answer{kind: kind, code: r.Code, token: r.Token, deadline: r.Deadline, queued: r.Queued, granted: r.Granted}
	holders := r.Holders
	if kind != KindForceRelease {
		holders = nil // copies are told who holds it then
	}
	if r.Field != "" || len(holders) > 0 {
		a.more = &answerMore{holders: holders}
		if r.Field != "" {
			a.more.refusal = t.refused
			a.more.refusal.policy = "" // a name is more than a copy is worth
		}
	}
	return a
}

func (a *answer) withoutHolders() {
	a.more = &answerMore{refusal: a.more.refusal}
	if a.more.refusal.why == noReason {
		a.more = nil
	}
}

// hashOf tells a command from others of its kind and sequence. body is what follows
// its request ID.
func hashOf(id *RequestID, body []byte) uint64 {
	var h digester
	h.id(id.Once)
	h.bytes(body)
	return max(h.sum(), 1)
}

// recall looks a request ID up. If it says done, the result is the answer, and
// the command must not run; otherwise it runs and remember follows.
func (t *Table) recall(id *RequestID, kind Kind, asked uint64) (res Result, done bool) {
	s := t.session(id.Session)
	switch {
	case id.Once != (OnceID{}) && kind != KindAcquire, id.Session == (SessionID{}):
		return t.refuse(Invalid, badID, 0), true
	case s == nil:
		return Result{Code: NoSession}, true
	case id.Sequence == 0:
		return t.refuse(Invalid, badID, 0), true
	}
	s = t.acknowledge(id, s)
	if i, ok := s.find(id.Sequence); ok {
		a := &s.window[i]
		if a.kind != kind || a.asked != asked && a.asked != 0 {
			return t.refuse(Invalid, otherCommand, 0), true
		}
		return a.result(), true
	}
	if s.acked.has(id.Sequence) {
		return Result{Code: StaleRequest}, true
	}
	return Result{}, false
}

// find returns the place of a sequence in the window, mostly the last.
func (s *session) find(sequence uint64) (int, bool) {
	n := len(s.window)
	if n == 0 || s.window[n-1].sequence < sequence {
		return n, false
	}
	return slices.BinarySearchFunc(s.window, sequence, func(a answer, q uint64) int { return compareInts(a.sequence, q) })
}

// acknowledge forgets the answers that the client has by what the ID says.
func (t *Table) acknowledge(id *RequestID, s *session) *session {
	spans := [...]Span{{1, id.Acked}, id.Answered[0], id.Answered[1]}
	limit := t.windowLimit(s)
	for _, span := range spans {
		if span.First == 0 || span.First > span.Last {
			continue
		}
		i, _ := s.find(span.First)
		remembered := i < len(s.window) && s.window[i].sequence <= span.Last
		if !remembered && s.acked.covers(span) && len(s.acked.above) <= limit {
			continue // nothing new
		}
		s = t.changeSession(id.Session, s)
		s.acked.add(span)
		s.acked.bound(limit)
		s.forgetAnswers(i, span.Last)
		t.recharge(s)
	}
	return s
}

// shrink gives back the room of answers that are gone: once there are half as many as there
// have been in it. So an answer takes at most four times its size.
func (s *session) shrink() {
	if s.peak > 16 && len(s.window) < s.peak/2 {
		s.peak = len(s.window)
		s.window = clip(s.window)
	}
}

// forgetAnswers drops the answers from a place up to a sequence, but what waits.
func (s *session) forgetAnswers(from int, upTo uint64) {
	defer s.shrink()
	kept, end := from, from
	for ; end < len(s.window) && s.window[end].sequence <= upTo; end++ {
		if a := &s.window[end]; a.request == 0 {
			s.shown -= a.cost()
		} else {
			s.window[kept] = *a
			kept++
		}
	}
	if kept == end {
		return
	}
	if left := len(s.window) - end; left <= end {
		n := kept + copy(s.window[kept:], s.window[end:]) // keeps the room for the answers to come
		clear(s.window[n:])
		s.window = s.window[:n]
		return
	}
	copy(s.window[end-kept:], s.window[:kept])
	clear(s.window[:end-kept])
	s.window = s.window[end-kept:]
}

// keep puts an answer into the window of a session.
func (t *Table) keep(id SessionID, a answer) {
	s := t.changeSession(id, t.session(id))
	if cost := a.cost(); cost > 0 {
		if s.shown+cost > maxShownWindow || !t.hasBytes(s.owner, "", costAnswer+int64(cost)) {
			a.withoutHolders()
			cost = 0
		}
		s.shown += cost
	}
	i, _ := s.find(a.sequence)
	s.window = slices.Insert(s.window, i, a)
	s.peak = max(s.peak, len(s.window))
	s.bound(t.windowLimit(s))
	t.recharge(s)
}

// bound forgets the oldest answers, as if they were acknowledged, down to a limit. It
// does so for many at a time, an eighth of the limit, because it passes over all that
// waits before them.
func (s *session) bound(limit int) {
	excess := len(s.window) - s.waits.total - limit // each wait has an entry of its own
	if excess <= limit/8 {
		return
	}
	kept, end := 0, 0
	for ; excess > 0; end++ {
		if a := &s.window[end]; a.request == 0 {
			s.shown -= a.cost()
			s.acked.add(Span{a.sequence, a.sequence})
			excess--
		} else {
			s.window[kept] = *a
			kept++
		}
	}
	n := kept + copy(s.window[kept:], s.window[end:])
	clear(s.window[n:])
	s.window = s.window[:n]
	s.shrink()
	s.acked.bound(limit)
}

// remember keeps the answer to a command that recall did not know.
func (t *Table) remember(id *RequestID, kind Kind, asked uint64, res *Result) {
	a := t.toAnswer(kind, res)
	a.sequence, a.asked = id.Sequence, asked
	if kind == KindAcquire && res.Code == Queued {
		a.request = t.queuedAs
	}
	t.keep(id.Session, a)
}

// answerTry ends the wait of one try: it leaves its session's list, and its copies
// are answered res. It returns when the try came.
func (t *Table) answerTry(y try, number uint64, res Result) (queued Instant) {
	s := t.changeSession(y.session, t.session(y.session))
	s.waits.remove(number)
	i, ok := s.find(y.sequence)
	if !ok {
		return 0
	}
	a := &s.window[i]
	asked := a.asked
	res.Queued = a.queued
	*a = t.toAnswer(KindAcquire, &res)
	a.sequence, a.asked = y.sequence, asked
	return res.Queued
}

// rememberEnded notes that a session has ended: a late copy of the command that
// opened it must not open it again, because copies of its requests would then
// run a second time.
//
// That is never forgotten early. Each session that is open has a place there for when it
// has ended: see roomForSession.
func (t *Table) rememberEnded(id SessionID, o *owner) {
	key := forgetKey{t.now.Add(t.limits.OnceNanos), t.nextNumber()}
	o.use.Ended++
	t.charge(o, costEnded)
	t.ended.put(id, endedSession{key, o})
	t.endings.put(key, id)
}

func (t *Table) hasEnded(id SessionID) bool {
	_, ok := t.ended.get(id)
	return ok
}

// forgetEnded forgets the session that is next to be forgotten.
func (t *Table) forgetEnded() {
	key, id, _ := t.endings.first()
	e, _ := t.ended.get(id)
	t.endings.delete(key)
	t.ended.delete(id)
	e.owner.use.Ended--
	t.charge(e.owner, -costEnded)
	t.leaveOwner(e.owner)
}
