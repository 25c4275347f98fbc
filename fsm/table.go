package fsm

import (
	"encoding/binary"
	"strings"
)

// maxToken keeps tokens exact in JSON numbers and float64.
const maxToken = 1<<53 - 1

// recoverSkip is how far the token counter skips ahead after a restore from a
// backup.
const recoverSkip = 1 << 40

// state is what is replicated: equal on all nodes after the same entry, and all
// that a snapshot holds. Records name each other by key; a record may be
// changed only if its gen is the trees'. Only what no snapshot reads is changed in
// place: lists of requests, queues, and where a request is registered.
type state struct {
	now        int64 // cluster time
	index      uint64
	digest     uint64 // of everything applied up to index
	lastToken  uint64
	lastNumber uint64 // sessions, their ends and requests are numbered as they come
	cluster    [16]byte
	limits     Limits // all effective: no field is 0
	grants     int    // requests that hold
	waiters    int    // requests that wait

	locks    tree[string, *lock]
	requests tree[uint64, *request] // by number
	tokens   tree[uint64, uint64]   // token → number of the request that holds it
	sessions tree[SessionID, *session]
	records  tree[OnceID, *record]
	forgets  tree[forgetKey, OnceID]    // records whose grant has ended, by when they are forgotten
	ended    tree[SessionID, forgetKey] // sessions that have ended
	endings  tree[forgetKey, SessionID] // the same, by when they are forgotten
}

// lock is a name with at least one holder, waiter or a delay.
type lock struct {
	gen          uint64
	holders      numbers[none]
	queue        *queue // nil: nobody has waited yet
	used         uint64 // permits out
	delayUntil   int64  // nobody is granted it before; 0: no delay
	delayNumber  uint64 // of the request whose loss set the delay
	limit        uint32 // size of the semaphore; 0: not one
	timer        int32  // slot of the delay in Table.deadlines
	heldAlone    bool   // by an Exclusive grant
	heldOrQueued bool   // in use: kind and limit are fixed
}

// request is an acquire that waits (token 0) or holds (token > 0).
type request struct {
	gen        uint64
	number     uint64
	token      uint64
	session    SessionID // zero: detached
	sequence   uint64    // in the session
	wants      []Want    // never changed
	ttl        int64
	deadline   int64 // of the wait, or the grant's own; 0: none
	queued     int64
	granted    int64
	since      int64  // wall clock of the grant
	extra      *extra // nil: all zero; never changed, only replaced
	timer      int32
	registered int32 // while it waits: at which of wants, from 1; 0: at none. See promote.go
}

// extra is what most requests do not have.
type extra struct {
	value  []byte
	labels []Label
	delay  int64

	// Of a detached request:
	holder string
	once   OnceID
	tries  []try // that wait or have not confirmed the grant, as they came; afterwards one of them
	untold bool  // the grant came out of a wait, and no try has confirmed it yet
	shared bool  // more than one try knows of the grant: no Cancel ends it
}

var noExtra extra

// more is the request's extra, to be read.
func (r *request) more() *extra {
	if r.extra == nil {
		return &noExtra
	}
	return r.extra
}

// session is an open session.
type session struct {
	gen         uint64
	number      uint64
	ttl         int64
	deadline    int64
	holder      string
	labels      []Label
	grants      numbers[uint64] // with the sequence of each
	untold      tally           // detached grants that its tries may confirm, once for each try
	waits       tally           // once for each of its tries
	window      []answer        // by sequence
	acked       sequences
	shown       int          // bytes of the holders in window
	revocations []Revocation // never changed, only replaced
	revoked     uint64       // number of the last revocation
	timer       int32
}

// forgetKey orders what is remembered for a while by when it is forgotten.
type forgetKey struct {
	at     int64
	number uint64
}

func compareForgets(a, b forgetKey) int {
	if a.at != b.at {
		return compareInts(a.at, b.at)
	}
	return compareInts(a.number, b.number)
}

func compareInts[T int64 | uint64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func compareSessions(a, b SessionID) int { return compareIDs((*[16]byte)(&a), (*[16]byte)(&b)) }
func compareOnces(a, b OnceID) int       { return compareIDs((*[16]byte)(&a), (*[16]byte)(&b)) }

func compareIDs(a, b *[16]byte) int {
	x, y := binary.BigEndian.Uint64(a[:]), binary.BigEndian.Uint64(b[:])
	if x == y {
		x, y = binary.BigEndian.Uint64(a[8:]), binary.BigEndian.Uint64(b[8:])
	}
	return compareInts(x, y)
}

// Table is the lock table. It is not safe for concurrent use; see [Machine].
// Make it with [New] or [Restore].
type Table struct {
	state
	deadlines deadlines // of sessions, requests and delays; derived from the state

	recent   *session // the session that was looked up last; derived from the state
	recentID SessionID

	// Of the apply under way:
	wall       int64
	ends       int // grants and waits ended by time
	refused    refusal
	events     []Event
	freed      []*lock     // locks whose waiters may be granted now, each once
	candidates []candidate // waiters to be looked at: a heap by number
	looked     []*lock     // the locks of the acquire under way; nil where there is none yet
	queuedAs   uint64      // number of the request in which the acquire that was run last waits
	work       int         // records that were looked at in locks and queues, for tests
}

// New returns an empty table at cluster time 0.
func New() *Table {
	t := &Table{}
	t.limits, _ = Limits{}.effective()
	t.locks.cmp = strings.Compare
	t.requests.cmp = compareInts[uint64]
	t.tokens.cmp = compareInts[uint64]
	t.sessions.cmp = compareSessions
	t.records.cmp = compareOnces
	t.forgets.cmp = compareForgets
	t.ended.cmp = compareSessions
	t.endings.cmp = compareForgets
	t.nextGeneration()
	return t
}

// nextGeneration makes everything that exists unchangeable.
func (s *state) nextGeneration() {
	gen := s.locks.gen + 1
	s.locks.gen, s.requests.gen, s.tokens.gen = gen, gen, gen
	s.sessions.gen, s.records.gen, s.forgets.gen = gen, gen, gen
	s.ended.gen, s.endings.gen = gen, gen
}

// Now returns the cluster time of the last entry, in nanoseconds.
func (t *Table) Now() int64 { return t.now }

// Cluster returns the ID that [Found] gave the cluster; zero before that.
func (t *Table) Cluster() [16]byte { return t.cluster }

// Limits returns the limits in force; no field is zero.
func (t *Table) Limits() Limits { return t.limits }

// Digest returns a digest of all entries up to index with their results and
// events. Nodes that have applied the same entries have the same digest.
func (t *Table) Digest() (digest, index uint64) { return t.digest, t.index }

// scanned counts the items of a list that were looked at in their order: that many
// of them take as long as finding one record.
func (t *Table) scanned(items int) { t.work += 1 + items/64 }

func (t *Table) nextNumber() uint64 {
	t.lastNumber++
	return t.lastNumber
}

// session returns an open session, or nil. Most commands ask for the same one
// several times.
func (t *Table) session(id SessionID) *session {
	if t.recent != nil && t.recentID == id {
		return t.recent
	}
	s, ok := t.sessions.get(id)
	if !ok {
		return nil
	}
	t.recent, t.recentID = s, id
	return s
}

// The functions change… return a record that may be changed in place.

func (t *Table) changeLock(name string, l *lock) *lock {
	if l.gen == t.locks.gen {
		return l
	}
	c := *l
	c.gen = t.locks.gen
	t.locks.put(name, &c)
	return &c
}

func (t *Table) changeRequest(r *request) *request {
	if r.gen == t.requests.gen {
		return r
	}
	c := *r
	c.gen = t.requests.gen
	t.requests.put(r.number, &c)
	return &c
}

func (t *Table) changeSession(id SessionID, s *session) *session {
	if s.gen == t.sessions.gen {
		return s
	}
	c := *s
	c.gen = t.sessions.gen
	c.window = clip(s.window)
	c.acked.above = clip(s.acked.above)
	t.sessions.put(id, &c)
	t.recent, t.recentID = &c, id
	return &c
}

func (t *Table) changeRecord(id OnceID, m *record) *record {
	if m.gen == t.records.gen {
		return m
	}
	c := *m
	c.gen = t.records.gen
	t.records.put(id, &c)
	return &c
}

// clip copies a list so that it may be changed in place.
func clip[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return append(make([]T, 0, len(s)+len(s)/8+1), s...)
}

// sumTimes adds a duration of 0 or more to a time; times stop at the end of time.
func sumTimes(at, d int64) int64 {
	if s := at + d; s >= at {
		return s
	}
	return 1<<63 - 1
}
