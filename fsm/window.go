package fsm

import "slices"

// Exactly once. A command with a request ID takes effect once; its answer is
// remembered and given to every retry. A session keeps its answers in a window
// by sequence, from which the client acknowledges them away. A once ID keeps
// its answer in a memory of its own, until its request has ended and a while
// after. That a session has ended is remembered as long.

// answer is a remembered result.
type answer struct {
	sequence uint64 // of the session; 0 in a memory
	token    uint64
	deadline int64
	queued   int64
	granted  int64
	request  uint64      // number of the request that waits in the session; 0: none
	more     *answerMore // nil: nothing more; never changed
	kind     Kind        // of the command
	code     Code
}

type answerMore struct {
	refusal refusal
	holders []Holder
}

// The holders that answers name are remembered up to so many bytes in a session,
// and in all memories. An answer beyond that is remembered without its holders.
const (
	maxShownWindow   = 1 << 20
	maxShownMemories = 16 << 20
)

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
	if r.Field != "" || len(r.Holders) > 0 {
		a.more = &answerMore{holders: r.Holders}
		if r.Field != "" {
			a.more.refusal = t.refused
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

// recall looks a request ID up. If it says done, the result is the answer, and
// the command must not run; otherwise it runs and remember follows.
func (t *Table) recall(id *RequestID, kind Kind, attempt uint64) (res Result, done bool) {
	switch inSession, once := id.Session != (SessionID{}), id.Once != (OnceID{}); {
	case inSession && once, inSession && id.Sequence == 0:
		if !once && t.session(id.Session) == nil {
			return Result{Code: NoSession}, true
		}
		return t.refuse(Invalid, badID, 0), true
	case inSession:
		return t.recallInSession(id, kind)
	case once:
		return t.recallOnce(id.Once, kind, attempt)
	}
	return Result{}, false
}

func (t *Table) recallInSession(id *RequestID, kind Kind) (res Result, done bool) {
	s := t.session(id.Session)
	if s == nil {
		return Result{Code: NoSession}, true
	}
	if id.Acked > s.acked {
		s = t.changeSession(id.Session, s)
		s.acknowledge(id.Acked)
	}
	if id.Sequence <= s.acked {
		return Result{Code: StaleRequest}, true
	}
	if i, ok := s.find(id.Sequence); ok {
		a := &s.window[i]
		if a.kind != kind {
			return t.refuse(Invalid, otherCommand, 0), true
		}
		return a.result(), true
	}
	if len(s.window) >= t.limits.RequestsWindow {
		return t.refuse(OverLimit, fullWindow, int64(t.limits.RequestsWindow)), true
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

// acknowledge forgets the answers that the client has.
func (s *session) acknowledge(upTo uint64) {
	s.acked = upTo
	n := 0
	for n < len(s.window) && s.window[n].sequence <= upTo {
		s.shown -= s.window[n].cost()
		n++
	}
	if left := len(s.window) - n; left <= n {
		copy(s.window, s.window[n:]) // keeps the room for the answers to come
		clear(s.window[left:])
		s.window = s.window[:left]
		return
	}
	clear(s.window[:n])
	s.window = s.window[n:]
}

// keep puts an answer into the window.
func (s *session) keep(a answer) {
	if cost := a.cost(); cost > 0 {
		if s.shown+cost > maxShownWindow {
			a.withoutHolders()
			cost = 0
		}
		s.shown += cost
	}
	i, _ := s.find(a.sequence)
	s.window = slices.Insert(s.window, i, a)
}

func (t *Table) recallOnce(id OnceID, kind Kind, attempt uint64) (res Result, done bool) {
	m, ok := t.memories.get(id)
	if !ok {
		return Result{}, false
	}
	if m.answer.kind != kind {
		return t.refuse(Invalid, otherCommand, 0), true
	}
	if m.attempt != attempt {
		m = t.changeMemory(id, m)
		m.attempt = attempt
	}
	return m.answer.result(), true
}

// remember keeps the answer to a command that recall did not know. number is
// that of a memory, reserved before the command ran.
func (t *Table) remember(id *RequestID, kind Kind, res *Result, attempt, number uint64) {
	if id.Session != (SessionID{}) {
		s := t.session(id.Session)
		a := t.toAnswer(kind, res)
		a.sequence = id.Sequence
		if kind == KindAcquire && res.Code == Queued {
			a.request = t.lastNumber
		}
		t.changeSession(id.Session, s).keep(a)
		return
	}
	if id.Once == (OnceID{}) {
		return
	}
	m := &memory{gen: t.memories.gen, number: number, attempt: attempt, answer: t.toAnswer(kind, res)}
	if cost := m.answer.cost(); cost > 0 {
		if t.shown+cost > maxShownMemories {
			m.answer.withoutHolders()
			cost = 0
		}
		t.shown += cost
	}
	t.memories.put(id.Once, m)
	if kind == KindAcquire && (res.Code == OK || res.Code == Queued) {
		m.request = t.lastNumber // the request is the last that was numbered
		return
	}
	t.settleMemory(id.Once, m)
}

// rememberEnded notes that a session has ended: a late copy of the command that
// opened it must not open it again, because copies of its requests would then
// run a second time.
func (t *Table) rememberEnded(id SessionID) {
	key := forgetKey{sumTimes(t.now, t.limits.OnceNanos), t.nextNumber()}
	t.ended.put(id, key)
	t.endings.put(key, id)
	t.boundEnded()
}

func (t *Table) hasEnded(id SessionID) bool {
	_, ok := t.ended.get(id)
	return ok
}

// boundEnded forgets the sessions that ended first, beyond the limit.
func (t *Table) boundEnded() {
	for t.endings.len > t.limits.EndedRemembered {
		t.forgetEnded()
	}
}

// forgetEnded forgets the session that is next to be forgotten.
func (t *Table) forgetEnded() {
	key, id, _ := t.endings.first()
	t.endings.delete(key)
	t.ended.delete(id)
}

// settleMemory starts the time after which a memory is forgotten.
func (t *Table) settleMemory(id OnceID, m *memory) {
	m.request = 0
	m.forget = sumTimes(t.now, t.limits.OnceNanos)
	t.forgets.put(forgetKey{m.forget, m.number}, id)
	t.boundMemories()
}

// boundMemories forgets the oldest memories beyond the limit.
func (t *Table) boundMemories() {
	for t.forgets.len > t.limits.OnceRemembered {
		_, id, _ := t.forgets.first()
		m, _ := t.memories.get(id)
		t.forget(id, m)
	}
}

// forget drops the memory of a request that has ended.
func (t *Table) forget(id OnceID, m *memory) {
	t.forgets.delete(forgetKey{m.forget, m.number})
	t.memories.delete(id)
	t.shown -= m.answer.cost()
}

// fillAnswer completes the remembered answer of a request that waited.
func (t *Table) fillAnswer(r *request, res Result) {
	if once := r.more().once; once != (OnceID{}) {
		m, _ := t.memories.get(once)
		t.changeMemory(once, m).answer = t.toAnswer(KindAcquire, &res)
		return
	}
	if r.session == (SessionID{}) {
		return
	}
	s := t.session(r.session)
	if i, ok := s.find(r.sequence); ok {
		s = t.changeSession(r.session, s)
		s.window[i] = t.toAnswer(KindAcquire, &res)
		s.window[i].sequence = r.sequence
	}
}
