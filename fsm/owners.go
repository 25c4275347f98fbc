package fsm

// Shares of what the table has room for.
//
// Whatever one limit bounds for all is shared by owners: the identities or addresses that sessions and
// requests came from. An owner who has no less of it than is free gets no more. So one
// alone gets at most half, the next one half of the rest, and so on: nobody can take it
// all, and there is always some for who comes new. Where many are, each gets as much as is
// left free: n of them that let go and take again have a share of 1/(n+1) each.
//
// That needs no rate and no list of who is active, and it does not hold back what nobody
// else asks for beyond that half. Rejected: a fixed part for each owner. With ten it wastes
// nine tenths, with ten thousand it is no bound.
//
// Who has more than that, because there are more owners now or a limit was lowered, keeps
// it. What gives back or keeps alive is never refused.

// maxOwnerBytes bounds the name of an owner.
const maxOwnerBytes = 128

// Use is what an owner has of what the limits bound.
type Use struct {
	Sessions int
	Grants   int
	Waiters  int // requests that wait
	Once     int // remembered once IDs
	Ended    int // remembered sessions that have ended
	Delays   int // locks that its lost grants keep free
}

// OwnerUse is what one owner has.
type OwnerUse struct {
	Owner string
	Use
	Bytes int64 // of the table's memory, as [Limits.TableBytes] counts it
}

// owner counts what belongs to one name. It follows from the sessions, requests and
// records, which refer to it, and no snapshot reads its counts: so it is changed in place.
type owner struct {
	name   string
	number uint64 // tells owners apart on this node; no part of the state
	use    Use
	bytes  int64 // what all of it costs, itself included
}

// usedBy is what an owner has; nothing if there is none of the name.
func (t *Table) usedBy(name string) Use {
	if o, ok := t.owners.get(name); ok {
		return o.use
	}
	return Use{}
}

// owner returns the owner of a name. Something of it must be counted next.
func (t *Table) owner(name string) *owner {
	o, ok := t.owners.get(name)
	if !ok {
		t.lastOwner++
		o = &owner{name: name, number: t.lastOwner}
		t.owners.put(name, o)
		t.charge(o, costOfOwner(name))
	}
	return o
}

// leaveOwner forgets an owner that has nothing, and whose records have all been paid back.
func (t *Table) leaveOwner(o *owner) {
	if o.use == (Use{}) && o.bytes == costOfOwner(o.name) {
		t.charge(o, -costOfOwner(o.name))
		t.owners.delete(o.name)
	}
}

// ownerOf names the owner of a new request: that of its session, or the caller's own if it
// belongs to none.
func (t *Table) ownerOf(c *Acquire) string {
	if c.Detached {
		return c.Owner
	}
	return t.session(c.ID.Session).owner.name
}

// hasRoom refuses one more of what a limit bounds: total is how many there are, own how
// many of them the owner has.
func (t *Table) hasRoom(why reason, limit, total, own int) (Result, bool) {
	free := max(limit-total, 0)
	if own < free {
		return Result{}, true
	}
	return t.refuseShare(why, int64(limit), int64(own), int64(free)), false
}

func (t *Table) refuseShare(why reason, limit, own, free int64) Result {
	t.refused = refusal{why: why, arg: limit, own: own, free: free}
	r := Result{Code: OverLimit}
	t.refused.explain(&r)
	return r
}

// inQueue counts the requests of an owner that wait for a lock.
func (q *queue) inQueue(o *owner) int {
	if q == nil || o == nil {
		return 0
	}
	n, _ := q.owners.get(o.number)
	return int(n)
}

// countInQueue counts one more, or one less.
func (q *queue) countInQueue(o *owner, delta int32) {
	n, _ := q.owners.get(o.number)
	if n += delta; n == 0 {
		q.owners.remove(o.number)
		return
	}
	q.owners.put(o.number, n)
}

func (t *Table) countGrant(r *request, delta int) {
	t.grants += delta
	r.owner.use.Grants += delta
}

func (t *Table) countWaiter(r *request, delta int) {
	t.waiters += delta
	r.owner.use.Waiters += delta
}

// Owners returns how many owners there are, and what those have who have most: at most
// limit of them, who takes most of the memory first.
func (t *Table) Owners(limit int) (count int, top []OwnerUse) {
	for name, o := range t.owners.all() {
		i := len(top)
		for i > 0 && top[i-1].Bytes < o.bytes {
			i--
		}
		if i >= limit {
			continue
		}
		if len(top) < limit {
			top = append(top, OwnerUse{})
		}
		copy(top[i+1:], top[i:])
		top[i] = OwnerUse{name, o.use, o.bytes}
	}
	return t.owners.len, top
}
