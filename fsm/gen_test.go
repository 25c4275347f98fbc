package fsm

import (
	"flag"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/locknode/locknode/internal/proof/testall"
)

// source is where a test's choices come from: rapid, or a fuzzer's bytes.
type source interface {
	// pick returns a number from 0 to n-1.
	pick(n int, what string) int
}

type rapidSource struct{ t *rapid.T }

func (s rapidSource) pick(n int, what string) int { return rapid.IntRange(0, n-1).Draw(s.t, what) }

// checkMany checks a property with many times as many cases as rapid has by
// default (-rapid.checks), in make test-all; with a third of that otherwise, and with
// an eighth with -short or under the race detector.
func checkMany(t *testing.T, times int, property func(*rapid.T)) {
	t.Helper()
	if testing.Short() || underRace {
		times = (times + 7) / 8
	} else {
		times = testall.Pick(times, (times+2)/3)
	}
	seed := flag.Lookup("rapid.seed")
	first := seed.Value.String() // 0: random ones
	defer func() { _ = seed.Value.Set(first) }()
	n, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	for range times {
		rapid.Check(t, property)
		if n != 0 { // the same again would be no further case
			n += 1_000_000_007
			_ = seed.Value.Set(strconv.FormatUint(n, 10))
		}
	}
}

// byteSource reads one byte for each choice. When the bytes are at their end
// every choice is 0.
type byteSource struct{ data []byte }

func (s *byteSource) pick(n int, _ string) int {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return int(b) % n
}

// generator makes commands in small spaces of names, sessions and numbers, so
// that they meet. It looks at the model to aim: at tokens that live, at
// deadlines that come.
type generator struct {
	source
	model *model
	past  []Command   // to be sent again
	next  [256]uint64 // sequences used by each session

	locks           []string
	sessions, onces int  // at most 255
	firstSession    int  // of those that are opened now; they move on as sessions end
	calm            bool // time goes on slowly, so that much stands in the table
	rights          bool // there are callers, access tokens and policies, too
}

func newGenerator(src source, m *model) *generator {
	return &generator{source: src, model: m, locks: genLocks, sessions: 3, onces: 12}
}

// newWideGenerator makes commands for a table in which trees are deep.
func newWideGenerator(src source, m *model) *generator {
	g := &generator{source: src, model: m, locks: slices.Clone(genLocks), sessions: 120, onces: 250, calm: true}
	for i := range 240 {
		g.locks = append(g.locks, fmt.Sprintf("wide/%03d", i*37%240))
	}
	return g
}

const second = 1_000_000_000

var genLocks = []string{"a", "b", "a/b", "c"}

func genSession(i int) SessionID { return SessionID{15: byte(i + 1)} }
func genOnce(i int) OnceID       { return OnceID{0: byte(i + 1)} }

// oneIn is true once in n times.
func (g *generator) oneIn(n int, what string) bool { return g.pick(n, what) == n-1 }

func (g *generator) command() Command {
	if !g.rights {
		return g.plainCommand()
	}
	if g.oneIn(6, "about rights") {
		return g.rightsCommand()
	}
	return g.asSomebody(g.plainCommand())
}

func (g *generator) plainCommand() Command {
	if len(g.past) > 0 && g.oneIn(7, "again") {
		return g.again()
	}
	if len(g.model.sessions) == 0 && g.oneIn(2, "open one") {
		return g.openSession()
	}
	c := g.fresh()
	if len(g.past) < 64 {
		g.past = append(g.past, c)
	} else {
		g.past[g.pick(64, "forgotten")] = c
	}
	return c
}

func (g *generator) fresh() Command {
	if g.calm && g.oneIn(2, "grow") {
		if g.oneIn(5, "session") {
			return g.openSession()
		}
		return g.acquire()
	}
	switch k := g.pick(64, "kind"); {
	case k < 28:
		return g.acquire()
	case k < 32:
		return g.openSession()
	case k < 39:
		token := g.token()
		return Release{ID: g.idFor(token), Lock: g.optionalLock(), Token: token, Lost: g.oneIn(4, "lost")}
	case k < 43:
		return g.cancel()
	case k < 48:
		return g.keepAlive()
	case k < 51:
		token := g.token()
		return Renew{ID: g.idFor(token), Lock: g.optionalLock(), Token: token, TTL: g.ttl()}
	case k < 53:
		token := g.token()
		return SetValue{ID: g.idFor(token), Lock: g.optionalLock(), Token: token, Value: g.value()}
	case k < 55:
		return g.endSession()
	case k < 56:
		return KillSession{Session: g.session(), Reason: g.text("reason"), Who: g.text("who")}
	case k < 59:
		return g.forceRelease()
	case k < 62:
		return Resize{ID: g.id(), Lock: g.semaphore(), Limit: uint32(g.pick(5, "limit"))}
	default:
		return g.rare()
	}
}

// semaphore is mostly the lock that is used as one.
func (g *generator) semaphore() string {
	if g.oneIn(3, "any lock") {
		return g.lock()
	}
	return "c"
}

// again sends an earlier command once more, as a client does that got no answer.
func (g *generator) again() Command {
	c := g.past[len(g.past)-1-g.pick(len(g.past), "which")]
	a, ok := c.(Acquire)
	if !ok {
		return c
	}
	if g.oneIn(4, "from elsewhere") {
		a.Owner = g.owner()
	}
	switch {
	case a.ID.Once != (OnceID{}) && g.oneIn(2, "another try"):
		once := a.ID.Once
		a.ID = g.sessionID()
		a.ID.Once = once
		a.Wait = g.wait(false)
		switch g.pick(20, "another request") {
		case 16:
			a.TTL = g.ttl()
		case 17:
			a.Value = g.value()
		case 18:
			a.Delay = second
		case 19:
			a.Wants = []Want{g.want()}
		}
	case g.oneIn(3, "says more"):
		a.ID.Acked = uint64(g.pick(8, "acked up to"))
	}
	return a
}

func (g *generator) rare() Command {
	switch g.pick(8, "rare") {
	case 6, 7:
		c := Clear{Lock: g.lock(), Reason: g.text("reason"), Who: g.text("who")}
		if g.oneIn(3, "up to") {
			c.UpTo = uint64(g.pick(int(g.model.arrivals)+1, "number"))
		}
		if !g.calm && g.oneIn(2, "of an owner") {
			c.Owner, c.After = g.owner(), uint64(g.pick(3, "after"))
			if !g.oneIn(9, "and a lock") {
				c.Lock = ""
			}
		}
		return c
	case 0, 1, 2:
		return Configure{Limits: g.limits()}
	case 3:
		return Found{Cluster: [16]byte{byte(g.pick(3, "cluster"))}}
	default:
		return KeepAlive{}
	}
}

// session is an open one, mostly.
func (g *generator) session() SessionID { return genSession(g.sessionNumber()) }

// anySession is the number of one that is open, has ended, or is yet to come.
func (g *generator) anySession() int { return (g.firstSession + g.pick(g.sessions, "session")) % 255 }

func (g *generator) sessionNumber() int {
	i := g.anySession()
	if open := g.model.sessions; len(open) > 0 && g.model.session(genSession(i)) == nil && !g.oneIn(6, "closed session") {
		return int(open[i%len(open)].id[15]) - 1
	}
	return i
}

func (g *generator) lock() string { return g.locks[g.pick(len(g.locks), "lock")] }

func (g *generator) optionalLock() string {
	if g.oneIn(2, "name the lock") {
		return g.lock()
	}
	return ""
}

// id is a fresh request ID most of the time.
func (g *generator) id() RequestID {
	switch k := g.pick(32, "id"); {
	case k < 27 && (len(g.model.sessions) > 0 || k == 0):
		return g.sessionID()
	case k < 31:
		return RequestID{}
	}
	return g.strangeID()
}

// idFor is mostly one in the session that a grant belongs to.
func (g *generator) idFor(token uint64) RequestID {
	id := g.id()
	r := g.model.byToken(token)
	if r == nil || r.ask.Detached || g.oneIn(4, "a stranger's") {
		return id
	}
	return g.in(int(r.ask.ID.Session[15]) - 1)
}

func (g *generator) sessionID() RequestID { return g.in(g.sessionNumber()) }

func (g *generator) in(i int) RequestID {
	g.next[i]++
	id := RequestID{Session: genSession(i), Sequence: g.next[i]}
	switch g.pick(10, "acked") {
	case 5:
		id.Acked = id.Sequence - 1
	case 6:
		id.Acked = uint64(g.pick(8, "acked up to"))
	case 7:
		id.Sequence += uint64(g.pick(3, "out of order"))
	case 8, 9:
		for k := range id.Answered {
			first := id.Sequence - min(id.Sequence, uint64(g.pick(8, "answered from")))
			id.Answered[k] = Span{first, first + uint64(g.pick(3, "answered"))}
			if g.oneIn(20, "odd span") {
				id.Answered[k] = []Span{{}, {3, 2}, {0, 4}, {id.Sequence + 3, math.MaxUint64 - 1}, {id.Sequence + 9, math.MaxUint64}}[g.pick(5, "span")]
			}
		}
	}
	return id
}

func (g *generator) endSession() Command {
	c := EndSession{Session: g.session()}
	if s := g.model.session(c.Session); s != nil {
		for _, a := range s.answers {
			if g.oneIn(2, "undelivered") {
				c.Undelivered = append(c.Undelivered, a.sequence)
			}
		}
	}
	if g.oneIn(8, "any undelivered") {
		c.Undelivered = append(c.Undelivered, uint64(g.pick(8, "sequence")))
	}
	return c
}

func (g *generator) strangeID() RequestID {
	switch g.pick(6, "strange") {
	case 4:
		return RequestID{Once: genOnce(0)}
	case 5:
		return RequestID{Sequence: uint64(g.pick(3, "sequence"))}
	case 0:
		return RequestID{Session: g.session()}
	case 1:
		return RequestID{Session: g.session(), Sequence: 1, Once: genOnce(0)}
	case 2:
		return RequestID{Session: g.session(), Sequence: uint64(g.pick(5, "sequence") + 1)}
	default:
		return RequestID{Session: g.session(), Sequence: math.MaxUint64, Acked: uint64(g.pick(2, "acked up to"))}
	}
}

func (g *generator) openSession() Command {
	c := OpenSession{Session: genSession(g.anySession()), TTL: g.ttl(), Holder: g.text("holder"), Owner: g.owner()}
	if g.model.hasEnded(c.Session) && !g.oneIn(4, "ended session") {
		g.firstSession++ // as a client does: under a new ID
		c.Session = genSession(g.anySession())
	}
	if g.oneIn(8, "labelled") {
		c.Labels = g.labels()
	}
	if g.oneIn(40, "no session") {
		c.Session = SessionID{}
	}
	return c
}

func (g *generator) keepAlive() Command {
	var c KeepAlive
	for range g.pick(3, "sessions") + 1 {
		c.Sessions = append(c.Sessions, KeepAliveSession{g.session(), uint64(g.pick(4, "seen"))})
	}
	return c
}

func (g *generator) forceRelease() Command {
	c := ForceRelease{ID: g.id(), Lock: g.lock(), Reason: g.text("reason"), Who: g.text("who")}
	if g.oneIn(2, "one token") {
		c.Token = g.token()
	}
	return c
}

func (g *generator) cancel() Command {
	if len(g.model.requests) > 0 && !g.oneIn(4, "any target") {
		r := g.model.requests[g.pick(len(g.model.requests), "target")]
		y := r.tries[g.pick(len(r.tries), "try")]
		c := Cancel{Target: RequestID{Session: y.session, Sequence: y.sequence}}
		if !g.oneIn(4, "no ID") {
			c.ID = g.in(int(y.session[15]) - 1)
		}
		return c
	}
	return Cancel{ID: g.id(), Target: g.id()}
}

func (g *generator) acquire() Command {
	c := Acquire{ID: g.id(), Holder: g.text("holder")}
	for range []int{1, 1, 1, 2, 3}[g.pick(5, "locks")] {
		w := g.want()
		if same := func(x Want) bool { return x.Lock == w.Lock }; !slices.ContainsFunc(c.Wants, same) || g.oneIn(8, "twice") {
			c.Wants = append(c.Wants, w)
		}
	}
	if g.oneIn(2, "detached") {
		c.Detached = !g.oneIn(30, "not detached")
		if c.ID.Session != (SessionID{}) && !g.oneIn(3, "no once ID") {
			c.ID.Once = genOnce(g.pick(g.onces, "once"))
		}
	}
	if c.Detached || g.oneIn(10, "owner") {
		c.Owner = g.owner()
	}
	if c.Detached && !g.oneIn(30, "no ttl") || g.oneIn(3, "own ttl") {
		c.TTL = g.ttl()
	}
	c.Wait = g.wait(!c.Detached)
	if g.oneIn(5, "with value") {
		c.Value = g.value()
	}
	if g.oneIn(8, "labelled") {
		c.Labels = g.labels()
	}
	if g.oneIn(4, "with delay") {
		c.Delay = []int64{second, 3 * second, 5 * second, 1, 2 * second, 1, second, 10 * second, -1, math.MaxInt64}[g.pick(10, "delay")]
	}
	return c
}

func (g *generator) want() Want {
	w := Want{Lock: g.lock(), Mode: Exclusive}
	switch k := g.pick(20, "mode"); {
	case k < 8:
	case k < 12:
		w.Mode = Shared
	case k < 18:
		// Most semaphores are c, of size 3, so that their users agree.
		w = Want{Lock: "c", Mode: Permits, Permits: uint32(g.pick(3, "permits") + 1), Limit: 3}
		if g.oneIn(6, "odd semaphore") {
			w.Lock, w.Limit, w.Permits = g.lock(), uint32(g.pick(4, "size")), uint32(g.pick(5, "permits"))
		}
	case k < 19:
		w.Lock = "a"
	default:
		if !g.oneIn(3, "odd") {
			break
		}
		w.Mode = Mode(g.pick(6, "any mode"))
		w.Permits = uint32(g.pick(2, "permits"))
		if g.oneIn(2, "odd name") {
			w.Lock = []string{"", "\xff", strings.Repeat("x", 513), strings.Repeat("é", 256)}[g.pick(4, "name")]
		}
	}
	return w
}

func (g *generator) ttl() int64 {
	if g.oneIn(25, "odd ttl") {
		return []int64{0, -1, second - 1, 24 * 3600 * second, 24*3600*second + 1, math.MaxInt64, math.MinInt64}[g.pick(7, "ttl")]
	}
	if g.calm {
		return int64(60+g.pick(60, "seconds")) * second
	}
	return []int64{5, 2, 10, 30, 60, 1}[g.pick(6, "seconds")] * second
}

func (g *generator) wait(session bool) int64 {
	switch g.pick(12, "wait") {
	case 0, 1:
		return 0
	case 2, 3, 7, 8:
		if session {
			return -1
		}
		return 5 * second
	case 4, 9:
		return second
	case 5, 10:
		return 3 * second
	case 6:
		return 1
	default:
		if g.oneIn(2, "usual wait") {
			return 2 * second
		}
		return []int64{-1, -2, 3600 * second, 3600*second + 1, math.MaxInt64}[g.pick(5, "odd wait")]
	}
}

// token is one that lives, mostly.
func (g *generator) token() uint64 {
	var live []uint64
	for _, r := range g.model.requests {
		if r.token != 0 {
			live = append(live, r.token)
		}
	}
	if len(live) == 0 || g.oneIn(4, "any token") {
		if back := uint64(g.pick(6, "token")); back <= g.model.lastToken {
			return g.model.lastToken - back
		}
		return 0
	}
	return live[g.pick(len(live), "live token")]
}

func (g *generator) text(what string) string {
	if g.oneIn(30, "odd "+what) {
		return []string{strings.Repeat("h", 128), strings.Repeat("h", 129), strings.Repeat("r", 257), "\xfe"}[g.pick(4, what)]
	}
	return []string{"", "ann", "bob"}[g.pick(3, what)]
}

// owner is one of a few, so that shares matter.
func (g *generator) owner() string {
	if g.oneIn(60, "odd owner") {
		return []string{strings.Repeat("o", 128), strings.Repeat("o", 129), "\xfe"}[g.pick(3, "owner")]
	}
	if g.rights {
		return genOwners[g.pick(len(genOwners), "owner")]
	}
	return []string{"", "10.0.0.1", "10.0.0.2"}[g.pick(3, "owner")]
}

func (g *generator) value() []byte {
	if g.oneIn(20, "odd value") {
		return make([]byte, g.model.limits.ValueBytes+g.pick(2, "too long"))
	}
	return [][]byte{nil, []byte("v"), {0, 255}}[g.pick(3, "value")]
}

func (g *generator) labels() []Label {
	var labels []Label
	n := g.pick(4, "labels")
	if g.oneIn(10, "many labels") {
		n = g.model.limits.Labels + g.pick(2, "too many")
	}
	for i := range n {
		labels = append(labels, Label{fmt.Sprint("k", i), "v"})
	}
	if n > 0 && g.oneIn(10, "long label") {
		labels[0].Value = strings.Repeat("l", 255)
	}
	return labels
}

// limits are small ones, each set now and then.
func (g *generator) limits() Limits {
	var l Limits
	if g.calm {
		return l
	}
	small := func(v *int, what string) {
		if g.oneIn(3, "set "+what) {
			*v = g.pick(6, what) + 1
		}
	}
	small(&l.WaitersPerLock, "waiters per lock")
	small(&l.Waiters, "waiters")
	small(&l.GrantsPerSession, "grants per session")
	small(&l.RequestsWindow, "window")
	small(&l.Sessions, "sessions")
	small(&l.Grants, "grants")
	small(&l.OnceRemembered, "once")
	small(&l.EndedRemembered, "ended")
	small(&l.ExpiriesPerEntry, "expiries")
	small(&l.LocksPerRequest, "locks")
	small(&l.Labels, "labels")
	if g.oneIn(3, "set once nanos") {
		l.OnceNanos = int64(g.pick(3, "once nanos")+1) * second
	}
	if g.oneIn(20, "negative") {
		l.MaxWait = -1
	}
	return l
}

// stamp is mostly a little later, often at the very edge of a deadline, and
// now and then wrong.
func (g *generator) stamp() Instant {
	now := g.model.now
	if g.calm {
		return later(now, second/50*int64(g.pick(4, "calm")))
	}
	switch k := g.pick(32, "time"); {
	case k < 16:
		return now
	case k < 21:
		return later(now, second/2)
	case k < 26:
		if all := g.model.timers(); len(all) > 0 {
			return later(all[0].at, int64(g.pick(3, "edge"))) - 1
		}
		return now
	case k < 28:
		return later(now, 2*second)
	case k < 30:
		return now - 3*second
	case k < 31:
		return later(now, 20*second)
	default:
		return []Instant{later(now, 5*second), later(now, 400*second), math.MinInt64, 0, later(now, 3600*second)}[g.pick(5, "jump")]
	}
}
