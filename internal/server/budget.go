package server

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// Three budgets bound the bytes that the clients of a port take together:
//
//   - in: what has arrived of requests that are not complete;
//   - ops: long operations under way;
//   - out: answers that are not sent, from when they are made until the system has taken
//     them.
//
// Each connection has an account in each budget. The first bytes of an account are not
// counted, so that small requests are never refused and most connections take no shared
// lock; the number of connections bounds them. Beyond them an account takes at most half
// of what is free, so that one client leaves room for others. Only bytes that stay do
// harm. So where there is no room, the account of which the most has stayed for a second
// is closed with its connection: its client does not read, or does not finish what it
// began. If there is no such account, no client is at fault, and what may be refused is
// refused.

const (
	// freeBytes of each account are not counted, and the rest is counted in such steps.
	freeBytes = 16 << 10
	// stuckBytes is the least that must have stayed of an account that is closed.
	stuckBytes = 4 * freeBytes
	// stuckAfter is how long bytes must be held to have stayed.
	stuckAfter = time.Second
	// reliefEvery is how often the accounts are searched at most.
	reliefEvery = 100 * time.Millisecond
)

// budgets are those of one listener.
type budgets struct {
	in, ops, out *budget
}

func newBudgets(listener string, cfg Config) budgets {
	total := int64(cfg.Limits.Memory)
	fresh := func(what string, total int64) *budget {
		return &budget{
			what: what, listener: listener, total: total, log: cfg.Logger, observer: cfg.Observer,
			accounts: map[*account]struct{}{},
		}
	}
	ops := fresh("operations under way", total)
	ops.keeps = true
	return budgets{
		in:  fresh("requests that do not arrive", total/2),
		ops: ops,
		out: fresh("answers that are not read", total),
	}
}

// budget is a number of bytes that accounts share. Its methods are safe for concurrent
// use, also with the locks of a stream held: they wait for nothing.
type budget struct {
	what, listener string
	total          int64
	keeps          bool // no connection is cut: what stays is waiting
	log            *slog.Logger
	observer       Observer

	mu       sync.Mutex            // guards what follows, and the counted part of accounts
	used     int64                 // sum of counted
	accounts map[*account]struct{} // with counted > 0
	relieved time.Time             // when the accounts were searched last
	logged   time.Time             // when a cut was logged last
}

// account is what one connection holds of a budget. A nil account counts nothing.
type account struct {
	budget *budget
	conn   *limitedConn // nil in tests

	exempt atomic.Bool // nothing is counted

	mu    sync.Mutex // guards bytes and steps; taken before budget.mu
	bytes int64
	steps int64 // what counted is to be: bytes in whole steps

	counted     int64     // guarded by budget.mu, as is what follows
	low, before int64     // the least value of counted since the time since, and in the span before that
	since       time.Time // when the span of low began
	closed      bool      // the connection is closed, or about to be
}

func (b *budget) account(conn *limitedConn) *account { return &account{budget: b, conn: conn} }

// take counts n more bytes, unless that is refused.
func (a *account) take(n int) bool { return a.add(int64(n), false) }

// force counts n more bytes, or fewer if n is negative. It is never refused: beyond twice
// the budget the connection that holds the most is cut.
func (a *account) force(n int) { a.add(int64(n), true) }

func (a *account) add(n int64, must bool) bool {
	if a == nil || n == 0 || a.exempt.Load() {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	bytes := max(0, a.bytes+n)
	steps := int64(0)
	if bytes > freeBytes {
		steps = (bytes - 1) / freeBytes * freeBytes
	}
	if steps != a.steps && !a.budget.count(a, steps, must) {
		return false
	}
	a.bytes, a.steps = bytes, steps
	return true
}

// count sets a's counted bytes, unless that is refused.
func (b *budget) count(a *account, counted int64, must bool) bool {
	b.mu.Lock()
	more := counted - a.counted
	if more == 0 || a.closed {
		b.mu.Unlock()
		return true
	}
	now := time.Now()
	var cut []*account
	ok := true
	if more > 0 {
		fits := func() bool {
			free := b.total - b.used
			return more <= free && (must || counted <= (free+a.counted)/2)
		}
		if ok = fits(); !ok && !b.keeps && now.Sub(b.relieved) >= reliefEvery {
			b.relieved = now
			for !ok {
				victim := b.stuckLocked(now)
				if victim == nil || victim == a && !must {
					break // its request is refused, which is enough
				}
				b.closeLocked(victim)
				cut = append(cut, victim)
				ok = fits()
			}
		}
		for must && !b.keeps && !a.closed && b.used+more > 2*b.total {
			victim := b.largestLocked(a, counted)
			b.closeLocked(victim)
			cut = append(cut, victim)
		}
		ok = ok || must || a.closed
	}
	if ok && !a.closed {
		a.countLocked(counted, now)
	}
	log := len(cut) > 0 && now.Sub(b.logged) > time.Minute
	if log {
		b.logged = now
	}
	b.mu.Unlock()
	for i, victim := range cut {
		if log && i == 0 && victim.conn != nil {
			b.log.Warn("cutting a connection that takes memory from the others", "listener", b.listener, "peer", victim.conn.ip, "for", b.what)
		}
		b.observer.Cut()
		if victim.conn != nil {
			go func() { _ = victim.conn.Close() }() // the caller may hold locks that closing takes
		}
	}
	return ok
}

// stuckLocked returns the account of which the most has stayed, nil if that is less than
// stuckBytes.
func (b *budget) stuckLocked(now time.Time) (victim *account) {
	most := int64(stuckBytes - 1)
	for a := range b.accounts {
		if s := a.stayedLocked(now); s > most {
			victim, most = a, s
		}
	}
	return victim
}

// largestLocked returns the account that holds the most if asking holds counted bytes.
func (b *budget) largestLocked(asking *account, counted int64) *account {
	victim, most := asking, counted
	for a := range b.accounts {
		if a != asking && a.counted > most {
			victim, most = a, a.counted
		}
	}
	return victim
}

// closeLocked removes a from the budget for good.
func (b *budget) closeLocked(a *account) {
	b.used -= a.counted
	a.counted, a.closed = 0, true
	delete(b.accounts, a)
}

// close removes a from the budget once its connection is closed.
func (b *budget) close(a *account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closeLocked(a)
}

func (a *account) countLocked(counted int64, now time.Time) {
	b := a.budget
	if a.counted == 0 {
		a.before, a.low, a.since = 0, counted, now
	}
	a.rollLocked(now)
	b.used += counted - a.counted
	a.counted = counted
	a.low = min(a.low, counted)
	if counted > 0 {
		b.accounts[a] = struct{}{}
	} else {
		delete(b.accounts, a)
	}
}

// rollLocked begins another span of time if this one has lasted stuckAfter.
func (a *account) rollLocked(now time.Time) {
	if now.Sub(a.since) >= stuckAfter {
		a.before, a.low, a.since = a.low, a.counted, now
	}
}

// stayedLocked is how much of a has been held for a second or longer.
func (a *account) stayedLocked(now time.Time) int64 {
	a.rollLocked(now)
	return min(a.before, a.low)
}

// full is the refusal of what has no room.
func (b *budget) full() *apiv1.Error {
	return apiv1.NewError(apiv1.CodeOverloaded, "%s take all the memory that there is for them on this port; nothing was done", b.what)
}
