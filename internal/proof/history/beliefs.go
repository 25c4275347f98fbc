package history

import (
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/locknode/locknode/fsm"
)

const exclusive = fsm.Exclusive

// By how much sooner than its TTL a loss may come before it counts as early: the client's own
// margin is 1 % and 10 ms, and clocks differ by up to half a percent.
const (
	earlyMargin = 0.02
	earlyFixed  = 50 * time.Millisecond
)

// believed is a belief in a grant, for one of its locks.
type believed struct {
	*Belief
	want   Want
	until  time.Duration // less the time by which its end may have been noticed late
	forced time.Duration // from when on it is not counted
}

// counts returns until when a belief excludes others.
func (b *believed) counts() time.Duration { return min(b.until, b.forced) }

// checkBeliefs checks the times in which clients took grants to be valid. Most of it needs no model and no
// log, because all times are of one clock.
func (c *checker) checkBeliefs() {
	byLock := make(map[string][]believed)
	var locks []string
	for i := range c.h.Beliefs {
		b := &c.h.Beliefs[i]
		c.checkEarly(b)
		until := b.Until
		if b.Lost != "" {
			until = max(b.From, until-c.o.Late)
		}
		c.checkEnded(b, until)
		c.checkTold(b)
		c.checkGivenBack(b)
		for _, w := range b.Wants {
			if byLock[w.Lock] == nil {
				locks = append(locks, w.Lock)
			}
			byLock[w.Lock] = append(byLock[w.Lock], believed{b, w, until, c.forcedAt(b)})
		}
	}
	for i := range c.h.Ops {
		b, ok := c.answeredFor(&c.h.Ops[i])
		if !ok {
			continue
		}
		c.checkEnded(b, b.Until)
		for _, w := range b.Wants {
			if byLock[w.Lock] == nil {
				locks = append(locks, w.Lock)
			}
			byLock[w.Lock] = append(byLock[w.Lock], believed{b, w, b.Until, c.forcedAt(b)})
		}
	}
	slices.Sort(locks)
	for _, lock := range locks {
		c.checkOverlaps(lock, byLock[lock])
		c.checkSuccessors(lock, byLock[lock])
	}
}

// answeredFor returns until when a client may rely on a detached grant whose end an answer named:
// that end, counted on the slowest clock from before the request, or until the end of the
// grant is requested.
func (c *checker) answeredFor(o *Op) (*Belief, bool) {
	g := c.facts.grants[o.Token]
	if g == nil || !g.op.Detached || o.Outcome != OK || o.Until == 0 || o.Kind != Acquire && (o.Kind != Renew || o.Bare) {
		return nil, false
	}
	from := o.Came
	if o.Kind == Renew {
		from = o.Stamp
	}
	until := min(c.after(o.Call, time.Duration(o.Until-from)), g.mayEnd)
	return &Belief{Client: o.Client, Wants: g.op.Wants, Token: o.Token, From: o.Return, Until: until}, until > o.Return
}

// forcedAt returns from when on an operator may have ended a grant without the holder knowing
// it yet: no promise is broken if another client holds the lock then.
func (c *checker) forcedAt(b *Belief) time.Duration {
	at := Never
	if c.log != nil {
		at = c.log.revokedAt(b.Token)
	}
	if g := c.facts.grants[b.Token]; g != nil {
		return min(at, g.forced)
	}
	for _, w := range b.Wants {
		for _, o := range c.facts.asked[w.Lock] {
			if o.mayForce(b.Token) {
				at = min(at, o.Call)
			}
		}
	}
	return at
}

// checkOverlaps looks for two clients with conflicting grants that were valid at the same
// time (S1, S3).
func (c *checker) checkOverlaps(lock string, all []believed) {
	slices.SortStableFunc(all, func(a, b believed) int { return compare(a.From, b.From) })
	var live []believed
	for _, b := range all {
		live = slices.DeleteFunc(live, func(a believed) bool { return a.counts() <= b.From })
		if b.counts() <= b.From {
			continue // it was over when it began
		}
		permits, counted := uint64(b.want.Permits), map[uint64]bool{b.Token: true}
		for _, a := range live {
			if counted[a.Token] {
				continue // several callers may know it
			}
			counted[a.Token] = true
			if conflicts(a.want, b.want) {
				c.violate("S1", "beliefs", lock, "token %d of %s was valid from %v to %v, and token %d of %s from %v on",
					a.Token, a.Client, a.From, a.Until, b.Token, b.Client, b.From)
			}
			permits += uint64(a.want.Permits)
		}
		if size := c.largest(b); b.want.Mode == fsm.Permits && permits > uint64(size) {
			c.violate("S1", "beliefs", lock, "at %v %d permits of %d were valid, token %d the last of them",
				b.From, permits, size, b.Token)
		}
		live = append(live, b)
	}
}

// largest returns the largest size that a semaphore may have had when a belief began, if it was
// not used before with a larger one: the size that its acquire names, or one that a resize had
// requested.
func (c *checker) largest(b believed) uint32 {
	size := b.want.Limit
	for _, o := range c.facts.resizes[b.want.Lock] {
		if o.Call <= b.From {
			size = max(size, o.Wants[0].Limit)
		}
	}
	if c.log != nil {
		for _, x := range c.log.resized[b.want.Lock] {
			if x.at <= b.From {
				size = max(size, x.size)
			}
		}
	}
	return size
}

// checkSuccessors looks for grants that were answered while the grant of the holder before
// was still valid (S3): that grant had to be lost first.
func (c *checker) checkSuccessors(lock string, all []believed) {
	next := c.grantsOn(lock)
	for _, b := range all {
		after := sort.Search(len(next.tokens), func(i int) bool { return next.tokens[i] > b.Token })
		if b.want.Mode == fsm.Permits || after == len(next.tokens) {
			continue // permits beside permits are no conflict
		}
		first := next.any[after]
		if b.want.Mode == fsm.Shared {
			first = next.exclusive[after]
		}
		if first.by < b.counts() {
			c.violate("S3", "beliefs", lock, "token %d was granted by %v, while token %d of %s was valid until %v",
				first.token, first.by, b.Token, b.Client, b.Until)
		}
		if delay := c.delayAfter(b.Belief); delay > 0 && b.forced == Never && first.by < c.after(b.until, delay) {
			c.violate("delay", "beliefs", lock, "token %d was granted by %v, and %s had lost token %d at %v (%s): the lock was to stay free for %v",
				first.token, first.by, b.Client, b.Token, b.Until, b.Lost, delay)
		}
	}
}

// delayAfter returns for how long a lock stays free after a belief: 0 unless it was
// lost by time.
func (c *checker) delayAfter(b *Belief) time.Duration {
	if g := c.facts.grants[b.Token]; g != nil && (b.Lost == LostDeadline || b.Lost == LostExpired) {
		return g.op.Delay
	}
	return 0
}

// granted is a grant and when it had been made at the latest.
type granted struct {
	token uint64
	by    time.Duration
}

// inOrder has the grants on one lock by token, and for each place the earliest known of the
// grants from there on: of all, and of the exclusive ones.
type inOrder struct {
	tokens         []uint64
	any, exclusive []granted
}

// grantsOn returns the grants on a lock, from answers and log.
func (c *checker) grantsOn(lock string) *inOrder {
	if c.facts.onLock == nil {
		c.facts.onLock = make(map[string]*inOrder)
		tokens := slices.Sorted(maps.Keys(c.facts.grants))
		for _, token := range tokens {
			c.addGrant(token, c.facts.grants[token])
		}
		for _, list := range c.facts.onLock {
			list.fillIn()
		}
	}
	if list := c.facts.onLock[lock]; list != nil {
		return list
	}
	return &inOrder{}
}

func (c *checker) addGrant(token uint64, g *grant) {
	first := granted{token, g.op.Return}
	if c.log != nil && c.log.grants[token] != nil {
		first.by = min(first.by, c.log.grants[token].at)
	}
	for _, w := range g.op.Wants {
		list := c.facts.onLock[w.Lock]
		if list == nil {
			list = &inOrder{}
			c.facts.onLock[w.Lock] = list
		}
		alone := granted{by: Never}
		if w.Mode == exclusive {
			alone = first
		}
		list.tokens = append(list.tokens, token)
		list.any = append(list.any, first)
		list.exclusive = append(list.exclusive, alone)
	}
}

// fillIn replaces each grant by the earliest of those from it on.
func (l *inOrder) fillIn() {
	for i := len(l.tokens) - 2; i >= 0; i-- {
		if l.any[i+1].by < l.any[i].by {
			l.any[i] = l.any[i+1]
		}
		if l.exclusive[i+1].by < l.exclusive[i].by {
			l.exclusive[i] = l.exclusive[i+1]
		}
	}
}

// checkEnded compares a belief with the log (S3): the entry that ends a grant is
// applied after it was stamped, and stamped after the belief was over; unless the
// grant was force-released.
func (c *checker) checkEnded(b *Belief, until time.Duration) {
	if c.log == nil {
		return
	}
	g := c.log.grants[b.Token]
	if g == nil {
		c.violate("S7", "beliefs", b.lock(), "token %d of %s was valid from %v; no log entry has granted it", b.Token, b.Client, b.From)
		return
	}
	if !g.over() || g.ended == fsm.EventRevoked || until <= g.endAt {
		return
	}
	c.violate("S3", "beliefs", b.lock(), "token %d of %s was valid until %v; in the log it %s by %v",
		b.Token, b.Client, b.Until, endWord[g.ended], g.endAt)
}

// actingTakes is how much later than the answer a busy client may act on it.
const actingTakes = time.Second

// checkTold looks for a client that took a grant to be valid after the answer to a keep-alive
// that was applied after the end of the grant (S3): each such answer has the revocations that
// the client has missed.
func (c *checker) checkTold(b *Belief) {
	g := c.facts.grants[b.Token]
	if g == nil || g.session == nil {
		return
	}
	over := g.revoked
	if c.log != nil && c.log.grants[b.Token] != nil {
		over = min(over, c.log.grants[b.Token].endAt)
	}
	if b.Until <= over {
		return
	}
	for _, o := range g.session.alive {
		if o.Kind == KeepAlive && o.Call > over && b.Until > o.Return+actingTakes {
			c.violate("S3", "beliefs", b.lock(), "token %d of %s was valid until %v; it had ended by %v, and a keep-alive from %v on was answered at %v",
				b.Token, b.Client, b.Until, over, o.Call, o.Return)
			return
		}
	}
}

// checkGivenBack looks for a grant with a delay that its holder lost by time, and that has
// ended in another way, so that the delay has not begun.
func (c *checker) checkGivenBack(b *Belief) {
	delay := c.delayAfter(b)
	if delay == 0 || c.log == nil {
		return
	}
	if l := c.log.grants[b.Token]; l != nil && l.ended == fsm.EventReleased {
		c.violate("delay", "beliefs", b.lock(), "%s lost token %d at %v (%s), and by the log it %s by %v: the delay of %v has not begun",
			b.Client, b.Token, b.Until, b.Lost, endWord[l.ended], l.endAt, delay)
	}
}

// checkEarly looks for a grant that was lost by time before its TTL was over (S2).
func (c *checker) checkEarly(b *Belief) {
	g, told := c.facts.grants[b.Token], max(b.Until, b.Told)
	if g == nil || (b.Lost != LostDeadline && b.Lost != LostExpired) || g.forced <= told {
		return
	}
	until := Never
	if g.op.TTL > 0 {
		until = enough(g.op, g.op.TTL)
	}
	if s := g.session; s != nil {
		if s.ends <= told {
			return
		}
		until = min(until, s.believable(b.Until-c.o.Late))
	}
	until -= c.o.Late
	if g.op.TTL == 0 && g.session == nil {
		return
	}
	if told < until {
		c.violate("S2", "beliefs", b.lock(), "%s lost token %d at %v (%s), when its TTL could not be over before %v",
			b.Client, b.Token, told, b.Lost, until)
	}
}

// believable returns until when a session must have been valid at least, by the answers before
// the given time.
func (s *tenure) believable(before time.Duration) time.Duration {
	until := time.Duration(0)
	for _, o := range s.alive {
		if o.Return < before {
			until = max(until, enough(o, s.ttl))
		}
	}
	return until
}

// enough returns until when, at least, a client may rely on a TTL that o has set; 0 if that is
// not known.
func enough(o *Op, ttl time.Duration) time.Duration {
	if o.Before == Never {
		return 0
	}
	return o.Call - o.Before + time.Duration(float64(ttl)*(1-earlyMargin)) - earlyFixed
}

func (b *Belief) lock() string {
	if len(b.Wants) == 0 {
		return ""
	}
	return b.Wants[0].Lock
}

func compare[T ~int64 | ~uint64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
