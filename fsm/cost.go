package fsm

// What the table takes of memory.
//
// Each record has a cost in bytes: a bound of what it makes the process keep, with its part
// of trees, lists and heaps where these are as empty as they can get. It is made of
// constants and of the lengths of what clients have sent, so it is the same on all nodes
// and in every build, and no measurement. TestTableTakesNoMoreThanItCosts compares it with
// the heap.
//
// The sum is kept below Limits.TableBytes. What is new is refused before it gets there, by
// shares as everywhere (owners.go). What frees or keeps alive is not refused, and adds
// nothing that was not paid for before:
//
//   - a session pays for fewAnswers, and some spans, when it is opened. Where its owner has used up its
//     share, it keeps that many, and the oldest count as acknowledged;
//   - an end that is remembered costs less than what has ended did, and so does a delay;
//   - what operators have done is told without their words where there is no room for them.

// Costs, in bytes. They decide what is refused, and so are as much a part of what nodes
// must agree on as the limits are.
const (
	costOwner    = 320  // and its name
	costSession  = 1024 // with its place in the trees, its deadline, and its end when it is remembered
	costAnswer   = 320  // of a window: see shrink
	costSpan     = 80   // that is acknowledged out of order
	costRevoked  = 160  // and its texts
	costRequest  = 640  // with its token, its deadline and its places in lists
	costWant     = 640  // with the lock and its queue, as if nobody else used them
	costExtra    = 160
	costTry      = 128
	costLabel    = 64
	costRecord   = 448
	costEnded    = 448
	costDelay    = 448
	costText     = 16   // of a string or value, and an eighth of its length
	costAccess   = 1024 // of an access token, with its places in trees and its deadline
	costPolicy   = 640
	costSubject  = 256 // of a policy, with its place among the quotas
	costRule     = 64
	fewAnswers   = 4
	fewSpans     = 4
	minTableSize = 1 << 20

	costKept = (fewAnswers+fewAnswers/8)*costAnswer + fewSpans*costSpan // what every session may keep
)

func costBytes(n int) int64 {
	if n == 0 {
		return 0
	}
	return int64(n + n/8 + costText)
}

func costLabels(labels []Label) (n int64) {
	for i := range labels {
		n += costLabel + costBytes(len(labels[i].Key)) + costBytes(len(labels[i].Value))
	}
	return n
}

func costOfOwner(name string) int64 { return costOwner + costBytes(len(name)) }

func costOfDelay(name string) int64 { return costDelay + costBytes(len(name)) }

// costOf is what a session costs now; what all may keep it has paid for.
func (s *session) costOf() int64 {
	kept := costAnswer*int64(len(s.window)) + costSpan*int64(len(s.acked.above))
	return costSession + costBytes(len(s.holder)) + costLabels(s.labels) + max(kept, costKept) + int64(s.shown) + s.told
}

// costOf is what a request costs now, waiting or holding.
func (r *request) costOf() int64 {
	n := int64(costRequest)
	for i := range r.wants {
		n += costWant + costBytes(len(r.wants[i].Lock))
	}
	if e := r.extra; e != nil {
		n += costExtra + costBytes(len(e.value)) + costLabels(e.labels) + costBytes(len(e.holder)) + costTry*int64(len(e.tries))
	}
	return n
}

// costOf is what a new request and its record would cost.
func (c *Acquire) costOf() int64 {
	n := int64(costRequest + costExtra + costTry)
	for i := range c.Wants {
		n += costWant + costBytes(len(c.Wants[i].Lock))
	}
	n += costBytes(len(c.Value)) + costLabels(c.Labels)
	if c.Detached {
		n += costBytes(len(c.Holder))
	}
	if c.ID.Once != (OnceID{}) {
		n += costRecord
	}
	return n
}

// costOf is what a new session would cost.
func (c *OpenSession) costOf() int64 {
	return (&session{holder: c.Holder, labels: c.Labels}).costOf()
}

func (s *session) costOfRevocations() (n int64) {
	for i := range s.revocations {
		n += costRevoked + costBytes(len(s.revocations[i].Reason)) + costBytes(len(s.revocations[i].Who))
	}
	return n
}

// charge adds to what an owner's records cost.
func (t *Table) charge(o *owner, cost int64) {
	t.bytes += cost
	o.bytes += cost
}

// recharge brings what a session costs up to date.
func (t *Table) recharge(s *session) {
	now := s.costOf()
	t.charge(s.owner, now-s.cost)
	s.cost = now
}

// rechargeRequest is recharge, of a request that may be changed.
func (t *Table) rechargeRequest(r *request) {
	now := r.costOf()
	t.charge(r.owner, now-r.cost)
	r.cost = now
}

// hasBytes reports whether an owner may have what costs so much more; o may be nil.
func (t *Table) hasBytes(o *owner, name string, cost int64) bool {
	own := int64(0)
	if o != nil {
		own = o.bytes
	} else {
		cost += costOfOwner(name)
	}
	return own+cost <= t.limits.TableBytes-t.bytes-cost
}

// roomFor refuses what would cost so much more than an owner may have.
func (t *Table) roomFor(name string, cost int64) (Result, bool) {
	o, _ := t.owners.get(name)
	if t.hasBytes(o, name, cost) {
		return Result{}, true
	}
	own := int64(0)
	if o != nil {
		own = o.bytes
	}
	return t.refuseShare(fullBytes, t.limits.TableBytes, own, max(t.limits.TableBytes-t.bytes, 0)), false
}

// windowLimit is how many answers a session keeps: few where its owner has used up its
// share of the memory.
func (t *Table) windowLimit(s *session) int {
	if t.hasBytes(s.owner, "", costAnswer) {
		return t.limits.RequestsWindow
	}
	return min(t.limits.RequestsWindow, fewAnswers)
}

// costOf is what an access token costs.
func (a *accessToken) costOf() int64 {
	return costAccess + 2*costBytes(len(a.Accessor)) + costBytes(len(a.Name)) + costBytes(len(a.MadeBy)) + costLabels(a.Labels)
}

// costOf is what a policy costs.
func (p *Policy) costOf() int64 {
	n := costPolicy + costBytes(len(p.Name))
	for _, s := range p.For {
		n += costSubject + costBytes(len(s))
	}
	for i := range p.Rules {
		n += costRule + costBytes(len(p.Rules[i].Name))
	}
	return n
}

// roomForRights refuses access tokens and policies that would cost so much more: as an owner,
// all of them together get no more than is left for the others.
func (t *Table) roomForRights(cost int64) (Result, bool) {
	if t.rightsBytes+cost <= t.limits.TableBytes-t.bytes-cost {
		return Result{}, true
	}
	t.refused = refusal{why: fullRights, arg: t.limits.TableBytes, own: t.rightsBytes, free: max(t.limits.TableBytes-t.bytes, 0)}
	r := Result{Code: OverLimit}
	t.refused.explain(&r)
	return r, false
}

// chargeRights adds to what access tokens and policies cost.
func (t *Table) chargeRights(cost int64) {
	t.bytes += cost
	t.rightsBytes += cost
}
