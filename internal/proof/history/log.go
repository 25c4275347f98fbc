package history

import (
	"encoding/hex"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/locknode/locknode/fsm"
)

// clockSlack allows for rounding where times are compared with cluster time.
const clockSlack = time.Microsecond

// logbook is the replayed log.
type logbook struct {
	entries  []logEntry           // by index; those that count
	grants   map[uint64]*logGrant // by token
	requests map[string]*logGrant // by request: its last grant
	ended    map[string]fsm.Code  // by session and sequence: waits that ended without a grant
	sessions map[string]*logSession
	resized  map[string][]resized // by lock, in the order of the log
}

// resized is a change of a semaphore's size.
type resized struct {
	index uint64
	at    time.Duration // when the first node had applied it
	size  uint32
}

// logEntry is one entry of the log, from any of the nodes that applied it.
type logEntry struct {
	*fsm.Applied
	at time.Duration // when the first node had applied it
}

// logGrant is a grant in the log.
type logGrant struct {
	token    uint64
	request  string
	try      string   // session and sequence of the try that came first
	by       string   // the session of that try
	sessions []string // of all tries that waited until it was granted
	session  string   // that it belongs to; empty: it is detached
	holder   string
	before   *logGrant // of the same request
	wants    []fsm.Want
	index    uint64 // of the entry that granted it
	now      fsm.Instant
	queued   fsm.Instant // cluster time at which the request came
	at       time.Duration
	deadline fsm.Instant   // of its own, as granted; 0: none
	waited   bool          // in the queue
	ended    fsm.EventKind // 0: it is held
	endIndex uint64
	endNow   fsm.Instant
	endAt    time.Duration
	givenUp  bool // it ended because no caller got it, and its ID is forgotten
}

func (g *logGrant) over() bool { return g.ended != 0 }

var endWord = map[fsm.EventKind]string{
	fsm.EventReleased: "was released", fsm.EventExpired: "expired", fsm.EventRevoked: "was revoked",
}

// logSession is a session in the log.
type logSession struct {
	opened   uint64 // index
	ended    uint64 // index; 0: it is open
	code     fsm.Code
	deadline fsm.Instant // cluster time that it must reach; 0: not known
	before   *logSession // an earlier one of the same ID: a delayed opening can open it again
}

// readLog makes one log of what the nodes have applied and replays it.
func (c *checker) readLog() *logbook {
	l := &logbook{
		entries: c.mergeEntries(), grants: make(map[uint64]*logGrant), requests: make(map[string]*logGrant),
		ended: make(map[string]fsm.Code), sessions: make(map[string]*logSession), resized: make(map[string][]resized),
	}
	c.log = l
	c.checkClock(l.entries)
	c.replay(l)
	return l
}

// mergeEntries keeps each index once, and compares what the nodes applied there (S9). Digests
// are chained: after a difference everything differs, so only the first is reported. Of
// entries that differ, the one that was applied last counts: what was acknowledged and is not
// in it has been lost.
func (c *checker) mergeEntries() []logEntry {
	all := make([]*Entry, len(c.h.Entries))
	for i := range c.h.Entries {
		all[i] = &c.h.Entries[i]
	}
	slices.SortStableFunc(all, func(a, b *Entry) int { return compare(a.Applied.Index, b.Applied.Index) })
	merged := make([]logEntry, 0, len(all)/2)
	differ := false
	for start := 0; start < len(all); {
		end := start + 1
		for end < len(all) && all[end].Applied.Index == all[start].Applied.Index {
			end++
		}
		same := all[start:end]
		start = end
		last := slices.MaxFunc(same, func(a, b *Entry) int { return compare(a.At, b.At) })
		e := logEntry{Applied: &last.Applied, at: last.At}
		for _, other := range same {
			if other.Applied.Term == last.Applied.Term {
				e.at = min(e.at, other.At)
			}
			if same := other.Applied.Digest == last.Applied.Digest && other.Applied.Term == last.Applied.Term; !same && !differ {
				differ = true
				c.violateDiffer(other, last)
			}
		}
		merged = append(merged, e)
	}
	return merged
}

func (c *checker) violateDiffer(a, b *Entry) {
	if a.Applied.Term != b.Applied.Term {
		c.violate("S7", "digest", "", "index %d: %s applied an entry of term %d at %v, %s one of term %d at %v: a committed entry was replaced",
			a.Applied.Index, a.Node, a.Applied.Term, a.At, b.Node, b.Applied.Term, b.At)
		return
	}
	c.violate("S9", "digest", "", "index %d: the state of %s at %v has digest %016x, that of %s at %v %016x",
		a.Applied.Index, a.Node, a.At, a.Applied.Digest, b.Node, b.At, b.Applied.Digest)
}

// checkClock compares cluster time with real time (T1, T2, T4).
//
// Stamps never fall. And between two entries cluster time advances by no more
// than a clock that is RateError fast can have counted. When an entry was
// stamped is not recorded, but bounds are: it was stamped before any node had
// applied it, and after the entry before it was applied by some node, because a
// leader has one entry in flight, and starts its clock after a barrier. So, for
// i < j and with a(i) for the time of the first apply,
//
//	now(j) - now(i) <= (1+p) · (a(j) - a(i-1))
//
// for which only the smallest now(i) - (1+p)·a(i-1) so far is needed.
func (c *checker) checkClock(entries []logEntry) {
	rate := 1 + c.o.RateError
	least, from := math.Inf(1), 0
	for j := 1; j < len(entries); j++ {
		before, e := &entries[j-1], &entries[j]
		if e.Now < before.Now {
			c.violate("S9", "clock", "", "cluster time fell from %d at index %d to %d at index %d", before.Now, before.Index, e.Now, e.Index)
		}
		if lead := float64(e.Now) - rate*float64(e.at); lead > least+float64(clockSlack) {
			i := &entries[from]
			c.violate("S2", "clock", "", "cluster time advanced by %v from index %d to index %d, in %v at most",
				time.Duration(e.Now-i.Now), i.Index, e.Index, e.at-entries[from-1].at)
			least = math.Inf(1) // one leap is reported once
		}
		if e.Refused == fsm.OK {
			if base := float64(e.Now) - rate*float64(before.at); base < least {
				least, from = base, j
			}
		}
	}
}

// position returns the place of the last entry with an index up to the given one;
// -1 if there is none.
func (l *logbook) position(index uint64) int {
	return sort.Search(len(l.entries), func(i int) bool { return l.entries[i].Index > index }) - 1
}

// entry returns the entry with an index, nil if there is none.
func (l *logbook) entry(index uint64) *logEntry {
	if i := l.position(index); i >= 0 && l.entries[i].Index == index {
		return &l.entries[i]
	}
	return nil
}

// nowAt is the cluster time after the last entry with an index up to the given one.
func (l *logbook) nowAt(index uint64) fsm.Instant {
	if i := l.position(index); i >= 0 {
		return l.entries[i].Now
	}
	return 0
}

// since returns the first entry that can contain what was called at the given time: one that
// no node had applied before. Nil if there is none.
func (l *logbook) since(call time.Duration) *logEntry {
	i := sort.Search(len(l.entries), func(i int) bool { return l.entries[i].at >= call })
	if i == len(l.entries) {
		return nil
	}
	return &l.entries[i]
}

// revokedAt returns the time after which a grant may have been revoked; Never if it
// was not. The entry that did it was stamped after the one before was applied.
func (l *logbook) revokedAt(token uint64) time.Duration {
	g := l.grants[token]
	if g == nil || g.ended != fsm.EventRevoked {
		return Never
	}
	if i := l.position(g.endIndex); i > 0 {
		return l.entries[i-1].at
	}
	return 0
}

// resolve decides unknown outcomes by the log: a grant in the log was made by the time at
// which a node had applied it; an operation that is not in the log is dropped.
func (c *checker) resolve() {
	c.ops = slices.Clone(c.h.Ops)
	for i := range c.ops {
		o := &c.ops[i]
		ambiguous := o.Kind == Acquire && o.Outcome == NoSess // it may have been granted before
		if o.Outcome != Unknown && !ambiguous {
			continue
		}
		if !c.resolveOp(o) {
			continue
		}
		if !ambiguous {
			c.report.Stats.Resolved++
		}
	}
}

func (c *checker) resolveOp(o *Op) bool {
	never := func(did bool) bool {
		if !did {
			o.Outcome, o.Error = Refused, "never took effect, by the log"
		}
		return true
	}
	switch o.Kind {
	case Acquire:
		if o.Request == "" {
			return false // a node has sent it in an unknown session
		}
		g := c.log.requests[o.Request]
		if g == nil {
			return o.Outcome == Unknown && never(false)
		}
		if isOnce(o.Request) && (g.before != nil || o.Call > g.at || !g.from(o)) {
			return false // others have requested the same
		}
		o.Outcome, o.Token, o.Index, o.Came = OK, g.token, g.index, g.queued
		o.Return = min(o.Return, max(o.Call, g.at))
		return true
	case Release:
		g := c.log.grants[o.Token]
		return never(g != nil && g.ended == o.ends() && g.endAt >= o.Call)
	case Cancel:
		g := c.grantOfTry(o.Target)
		return never(g != nil && g.ended == fsm.EventReleased && g.endAt >= o.Call)
	case End:
		s := c.log.sessions[o.Session]
		return never(s != nil && s.ended != 0 && s.code == fsm.OK)
	}
	return false
}

// grantOfTry returns what a try was granted, by its session and sequence.
func (c *checker) grantOfTry(try string) *logGrant {
	if o := c.facts.byTry[try]; o != nil {
		return c.log.requests[o.Request]
	}
	return c.log.requests[try]
}

func hexOf(id fsm.SessionID) string {
	if id == (fsm.SessionID{}) {
		return ""
	}
	return hex.EncodeToString(id[:])
}
