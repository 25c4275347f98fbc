package fsm

import (
	"encoding/binary"
	"strings"
)

// maxToken keeps tokens exact in JSON numbers and float64.
const maxToken = 1<<53 - 1

// state is what is replicated: equal on all nodes after the same entry, and all
// that a snapshot holds. Records name each other by key; a record may be
// changed only if its gen is the trees'. Only what no snapshot reads is changed in
// place: lists of requests, queues, and where a request is registered.
type state struct {
	now        Instant // cluster time
	index      uint64
	digest     uint64 // of everything applied up to index
	lastToken  uint64
	lastNumber uint64 // sessions, their ends and requests are numbered as they come
	cluster    [16]byte
	key        [16]byte // that the nodes of the cluster know each other by
	limits     Limits   // all effective: no field is 0
	level      uint32   // the feature level, at least 1; see level.go
	version    string   // the first version of Locknode that knows it
	grants     int      // requests that hold
	waiters    int      // requests that wait

	rightsIndex uint64 // of the entry in which access tokens or policies changed last

	locks    tree[string, *lock]
	requests tree[uint64, *request] // by number
	tokens   tree[uint64, uint64]   // token → number of the request that holds it
	sessions tree[SessionID, *session]
	records  tree[OnceID, *record]
	forgets  tree[forgetKey, OnceID] // records whose grant has ended, by when they are forgotten
	ended    tree[SessionID, endedSession]
	endings  tree[forgetKey, SessionID] // the same, by when they are forgotten

	accessTokens tree[string, *accessToken] // by accessor
	policies     tree[string, *Policy]      // by name; never changed, only replaced
}

// lock is a name with at least one holder, waiter or a delay.
type lock struct {
	gen          uint64
	holders      numbers[none]
	queue        *queue  // nil: nobody has waited yet
	used         uint64  // permits out
	delayUntil   Instant // nobody is granted it before; 0: no delay
	delayNumber  uint64  // of the request whose loss set the delay
	delayOwner   *owner  // its owner; nil: no delay
	limit        uint32  // size of the semaphore; 0: not one
	timer        int32   // slot of the delay in Table.deadlines
	heldAlone    bool    // by an Exclusive grant
	heldOrQueued bool    // in use: kind and limit are fixed
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
	deadline   Instant // of the wait, or the grant's own; 0: none
	queued     Instant
	granted    Instant
	since      int64  // wall clock of the grant
	owner      *owner // of the session, or the caller's own
	cost       int64  // what its owner was charged for it
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
	holder      string
	once        OnceID
	tries       []try // that wait or have not confirmed the grant, as they came; afterwards one of them
	unconfirmed bool  // the grant came out of a wait, and no try has confirmed it yet
	shared      bool  // more than one try knows of the grant: no Cancel ends it
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
	deadline    Instant
	owner       *owner
	holder      string
	labels      []Label
	grants      numbers[uint64] // with the sequence of each
	unconfirmed tally           // detached grants that its tries may confirm, once for each try
	waits       tally           // once for each of its tries
	window      []answer        // by sequence
	acked       sequences
	shown       int          // bytes of the holders in window
	peak        int          // most answers that window has had since it was made; no part of the state
	told        int64        // what the revocations cost
	cost        int64        // what its owner was charged for it
	revocations []Revocation // never changed, only replaced
	revoked     uint64       // number of the last revocation
	timer       int32
}

// endedSession is what is remembered of a session that has ended.
type endedSession struct {
	key   forgetKey // in endings
	owner *owner
}

// forgetKey orders what is remembered for a while by when it is forgotten.
type forgetKey struct {
	at     Instant
	number uint64
}

func compareForgets(a, b forgetKey) int {
	if a.at != b.at {
		return compareInts(a.at, b.at)
	}
	return compareInts(a.number, b.number)
}

func compareInts[T ~int64 | uint64](a, b T) int {
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

// Table is the lock table. It is not safe for concurrent use; see package internal/replica.
// Make it with [New] or [Restore].
type Table struct {
	state
	owners    tree[string, *owner] // by name; derived from the state, as all that follows
	bytes     int64                // what all records cost
	lastOwner uint64
	deadlines deadlines // of sessions, requests, delays and access tokens; derived from the state

	hashes      tree[[32]byte, *accessToken] // derived from the access tokens, as the next
	named       tree[nameKey, *accessToken]
	quotas      tree[subjectKey, *Policy] // the policies with a quota for the table, by whom they are for
	rightsBytes int64                     // what access tokens and policies cost

	recent   *session // the session that was looked up last; derived from the state
	recentID SessionID

	// Of the apply under way:
	applying   uint64 // its index
	as         asCaller
	wall       int64
	ends       int // grants and waits ended by time
	refused    refusal
	events     []Event
	freed      []*lock     // locks whose waiters may be granted now, each once
	candidates []candidate // waiters to be looked at: a heap by number
	stranded   []uint64    // waiters whose turn has come and who may not have it
	looked     []*lock     // the locks of the acquire under way; nil where there is none yet
	queuedAs   uint64      // number of the request in which the acquire that was run last waits
	work       int         // records that were looked at in locks and queues, for tests
}

// New returns an empty table at cluster time 0.
func New() *Table {
	t := &Table{state: state{level: 1, version: levelVersions[0]}}
	t.limits, _ = Limits{}.effective()
	t.locks.cmp = strings.Compare
	t.requests.cmp = compareInts[uint64]
	t.tokens.cmp = compareInts[uint64]
	t.sessions.cmp = compareSessions
	t.records.cmp = compareOnces
	t.forgets.cmp = compareForgets
	t.ended.cmp = compareSessions
	t.endings.cmp = compareForgets
	t.accessTokens.cmp = strings.Compare
	t.policies.cmp = strings.Compare
	t.owners.cmp = strings.Compare
	t.hashes.cmp = compareHashes
	t.named.cmp = compareNames
	t.quotas.cmp = compareSubjects
	t.nextGeneration()
	return t
}

// nextGeneration makes everything that exists unchangeable.
func (s *state) nextGeneration() {
	gen := s.locks.gen + 1
	s.locks.gen, s.requests.gen, s.tokens.gen = gen, gen, gen
	s.sessions.gen, s.records.gen, s.forgets.gen = gen, gen, gen
	s.ended.gen, s.endings.gen = gen, gen
	s.accessTokens.gen, s.policies.gen = gen, gen
}

// Now returns the cluster time of the last entry, in nanoseconds.
func (t *Table) Now() Instant { return t.now }

// Cluster returns the ID that [Found] gave the cluster; zero before that.
func (t *Table) Cluster() [16]byte { return t.cluster }

// Key returns the key that [Found] gave the cluster's nodes; zero before that.
func (t *Table) Key() [16]byte { return t.key }

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
	c.window, c.peak = clip(s.window), len(s.window)
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
