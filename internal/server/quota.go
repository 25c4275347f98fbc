package server

import (
	"context"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// What may one caller have of this node? A caller is an identity, or an address where there is
// none. What bounds it here are its quotas; the bounds that all callers share, and what a
// caller may have of the lock table, come besides.
//
// A caller is known while something of it is under way, and after that until its operations
// of the last second do not count any more. So however many callers come and go, those that are
// remembered are bounded by what is under way and by what was done in a second.
//
// What frees a lock or keeps it alive is never refused because of how many operations there
// were, and where calls are counted there is twice as much room for it.

// Quota is how much a caller may have. A zero field bounds nothing.
type Quota struct {
	Connections  int   // on which something is under way
	Streams      int   // calls, streams and HTTP requests under way
	OpsPerSecond int   // operations started, besides those that free something
	UnsentBytes  int64 // of answers
}

// quotas knows what all callers use.
type quotas struct {
	of   func(owner string) Quota // nil: there are no quotas
	over func(quota string)       // counts refusals

	mu      sync.Mutex           // guards what follows, and of each use what its comment says
	uses    map[string]*quotaUse // by owner
	sweepAt int                  // how many make it look for those that can be forgotten
}

// quotaUse is what one owner uses. A nil one has no quotas.
type quotaUse struct {
	of    *quotas
	owner string

	unsent atomic.Int64
	rate   atomic.Pointer[rate.Limiter] // of operations; nil: they have no quota
	read   atomic.Int64                 // when quota was asked for last, in nanoseconds of Unix time
	quota  atomic.Pointer[Quota]

	streams int                  // guarded by of.mu
	conns   map[*limitedConn]int // guarded by of.mu: how many of the streams each has
}

const (
	// quotaEvery is how long a quota is used before it is asked for again: policies change.
	quotaEvery = time.Second
	// fewCallers are remembered without looking for those that can be forgotten.
	fewCallers = 1024
)

func newQuotas(of func(owner string) Quota, over func(quota string)) *quotas {
	return &quotas{of: of, over: over, uses: map[string]*quotaUse{}, sweepAt: fewCallers}
}

// enter counts one more call, stream or HTTP request of an owner, which leave ends.
func (q *quotas) enter(owner string, conn *limitedConn, frees bool) (*quotaUse, *apiv1.Error) {
	if q.of == nil || owner == "" {
		return nil, nil
	}
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	u := q.uses[owner]
	if u == nil {
		if len(q.uses) >= q.sweepAt {
			q.sweepLocked(now)
		}
		u = &quotaUse{of: q, owner: owner, conns: map[*limitedConn]int{}}
		q.uses[owner] = u
	}
	limits := u.now(now)
	room := 1
	if frees {
		room = 2
	}
	refusal := (*apiv1.Error)(nil)
	switch most := limits.Connections; {
	case most > 0 && u.conns[conn] == 0 && len(u.conns) >= room*most:
		q.over("connections")
		refusal = apiv1.NewError(apiv1.CodeLimit, "quota connections: %s has something under way on %d connections, at most %d are allowed; use those, or close one; nothing was done", owner, len(u.conns), most)
	case limits.Streams > 0 && u.streams >= room*limits.Streams:
		refusal = q.overQuota(time.Second, "streams", "%s has %d calls, streams and requests under way, at most %d are allowed", owner, u.streams, limits.Streams)
	}
	if refusal != nil {
		q.forgetLocked(u, now)
		return nil, refusal
	}
	u.streams++
	u.conns[conn]++
	return u, nil
}

// useOf counts a unary call for its caller. Calls of other nodes, and the checks of health, are
// nobody's.
func (s *Server) useOf(ctx context.Context, method string) (*quotaUse, *apiv1.Error) {
	name, ours := strings.CutPrefix(method, locksMethods)
	if s.quotas.of == nil || !ours {
		return nil, nil
	}
	c := s.callerIn(ctx)
	if c.member {
		return nil, nil
	}
	return s.quotas.enter(c.owner(), grpcConn(ctx), apiv1.KindOfMethod(name).Frees())
}

// freeing are the paths of HTTP that free something or keep it alive.
var freeing = []string{"/v1/release", "/v1/renew", "/v1/force-release"}

// countHTTP counts an HTTP request for its caller, which end ends. The checks of health are
// nobody's.
func (s *Server) countHTTP(r *http.Request) (end func(), refusal *apiv1.Error) {
	path := r.URL.EscapedPath()
	if s.quotas.of == nil || slices.Contains(unnamed, path) {
		return func() {}, nil
	}
	conn := httpConn(r.Context())
	use, refusal := s.quotas.enter(s.callerIn(r.Context()).owner(), conn, slices.Contains(freeing, path))
	if refusal != nil {
		return nil, refusal
	}
	held := tallyOf(r.Context())
	if held != nil {
		held.use = use
	}
	return func() {
		if held != nil {
			held.end() // what it has counted is the caller's
		}
		use.leave(conn)
	}, nil
}

// leave ends what enter has counted.
func (u *quotaUse) leave(conn *limitedConn) {
	if u == nil {
		return
	}
	u.of.mu.Lock()
	defer u.of.mu.Unlock()
	u.streams--
	if u.conns[conn]--; u.conns[conn] == 0 {
		delete(u.conns, conn)
	}
	u.of.forgetLocked(u, time.Now())
}

// forgetLocked forgets a caller that has nothing, and of which no operations count any more.
func (q *quotas) forgetLocked(u *quotaUse, now time.Time) {
	if r := u.rate.Load(); u.streams == 0 && (r == nil || r.TokensAt(now) >= float64(r.Burst())) {
		delete(q.uses, u.owner)
	}
}

func (q *quotas) sweepLocked(now time.Time) {
	for _, u := range q.uses {
		q.forgetLocked(u, now)
	}
	q.sweepAt = max(fewCallers, 2*len(q.uses))
}

// now returns what the caller may have now.
func (u *quotaUse) now(now time.Time) Quota {
	if q, read := u.quota.Load(), u.read.Load(); q != nil && now.UnixNano()-read < int64(quotaEvery) {
		return *q
	}
	q := u.of.of(u.owner)
	if old := u.quota.Swap(&q); old == nil || old.OpsPerSecond != q.OpsPerSecond {
		var r *rate.Limiter
		if q.OpsPerSecond > 0 {
			r = rate.NewLimiter(rate.Limit(q.OpsPerSecond), q.OpsPerSecond)
		}
		u.rate.Store(r)
	}
	u.read.Store(now.UnixNano())
	return q
}

// start counts one more operation of a class, or refuses it and says when there is room.
func (u *quotaUse) start(class mux.Class, now time.Time) *apiv1.Error {
	if u == nil || class == mux.Frees {
		return nil
	}
	u.now(now)
	r := u.rate.Load()
	if r == nil || r.AllowN(now, 1) {
		return nil
	}
	missing := max(0, 1-r.TokensAt(now))
	wait := time.Duration(math.Ceil(missing / float64(r.Limit()) * float64(time.Second)))
	return u.of.overQuota(max(wait, time.Millisecond), "ops_per_second", "%s has sent more than %d operations a second", u.owner, r.Burst())
}

// overQuota is the refusal of what may be sent again after some time.
func (q *quotas) overQuota(wait time.Duration, quota, format string, args ...any) *apiv1.Error {
	q.over(quota)
	e := apiv1.NewError(apiv1.CodeOverloaded, "quota "+quota+": "+format, args...)
	e.Message += "; nothing was done; send it again in " + wait.Round(time.Millisecond).String()
	e.RetryAfterNs = int64(wait)
	return e
}

// afford counts bytes of an answer. If it may be refused, and others wait that are not read,
// it returns the error to answer instead.
func (u *quotaUse) afford(bytes int, mayRefuse bool) *apiv1.Error {
	if u == nil {
		return nil
	}
	if most := u.quota.Load().UnsentBytes; mayRefuse && most > 0 {
		if before := u.unsent.Load(); before > 0 && before+int64(bytes) > most {
			return u.of.overQuota(time.Second, "unsent_bytes", "%s has not read %d bytes of answers, at most %d are allowed", u.owner, before, most)
		}
	}
	u.unsent.Add(int64(bytes))
	return nil
}

// paid gives the bytes of an answer back that is sent, or dropped.
func (u *quotaUse) paid(bytes int) {
	if u != nil {
		u.unsent.Add(-int64(bytes))
	}
}
