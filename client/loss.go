package client

import (
	"container/heap"
	"math"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// maxEarly bounds the revocations that are kept for grants whose acquire has not been
// answered yet.
const maxEarly = 4096

// expireLocked ends the grants whose time is over.
func (s *session) expireLocked(now time.Duration) losses {
	var lost losses
	for len(s.timed) > 0 && s.timed[0].boundLocked() <= now {
		lost = append(lost, s.surrenderLocked(s.timed[0], LostExpired, "", now))
	}
	if len(s.timed) > 0 && now >= s.firstOver {
		lost = append(lost, s.expireOverLocked(now)...)
	}
	if len(s.grants) == 0 || now < s.boundLocked() {
		return lost
	}
	for _, g := range s.grants {
		lost = append(lost, s.surrenderLocked(g, LostDeadline, "", now))
	}
	return lost
}

// expireOverLocked ends the grants whose TTL has passed since their answer arrived. The
// heap is ordered by deadlines, and has them on top only if the stamps are right.
func (s *session) expireOverLocked(now time.Duration) losses {
	var over []*Grant
	s.firstOver = forever
	for _, g := range s.timed {
		if g.latest <= now {
			over = append(over, g)
		} else {
			s.firstOver = min(s.firstOver, g.latest)
		}
	}
	var lost losses
	for _, g := range over {
		lost = append(lost, s.surrenderLocked(g, LostExpired, "", now))
	}
	return lost
}

// takeRevocationsLocked adopts the revocations in the answer to a keep-alive, which has
// this stamp.
//
// They are those that the client has not seen, in order, but the cluster keeps only
// the last of them. If the first is not the next one, the client cannot know which of
// its grants the missing ones have ended, and gives up all that were given by then.
// Notices that come out of order are no such gap: the next keep-alive has what is missing.
func (s *session) takeRevocationsLocked(revocations []*apiv1.Revocation, stamp int64) losses {
	var lost losses
	gap := false
	for _, r := range revocations {
		gap = gap || r.GetNumber() > s.seen && r.GetNumber()-s.seen > 1
		lost = append(lost, s.revokeLocked(r)...)
		s.seen = max(s.seen, r.GetNumber())
	}
	if !gap {
		return lost
	}
	s.missedLocked(stamp)
	now := s.c.now()
	for _, g := range s.grants {
		if g.granted <= stamp {
			lost = append(lost, s.surrenderLocked(g, LostForced, "it may be among the force-releases that the cluster no longer remembers", now))
		}
	}
	return lost
}

// missedLocked notes that revocations of grants of up to a cluster time may have been
// missed. Acquires under way may be answered with such a grant; no new
// ones begin in this session.
func (s *session) missedLocked(until int64) {
	s.missedUntil = max(s.missedUntil, until)
	s.retired = true
}

// revokeLocked ends the grant that an operator has ended.
func (s *session) revokeLocked(r *apiv1.Revocation) losses {
	if g := s.grants[r.GetToken()]; g != nil {
		return losses{s.loseLocked(g, LostForced, r.GetWho(), r.GetReason())}
	}
	if s.acquires == 0 || r.GetNumber() <= s.seen {
		return nil
	}
	if len(s.revoked) >= maxEarly {
		s.missedLocked(math.MaxInt64)
		return nil
	}
	if s.revoked == nil {
		s.revoked = make(map[uint64]*apiv1.Revocation)
	}
	s.revoked[r.GetToken()] = r
	return nil
}

// surrenderLocked makes g lost while the cluster may still count it as held: it is
// released as lost, so that the delay after a loss begins. The release has its
// sequence from now on, and notify sends it.
func (s *session) surrenderLocked(g *Grant, reason LostReason, why string, now time.Duration) loss {
	l := s.loseLocked(g, reason, "", why)
	l.release = g.releaseLocked(now)
	l.release.request.Lost = true
	if g.delay > 0 {
		l.release.delays = true
		s.delays++
	}
	return l
}

// loseLocked makes g lost. The caller calls notify once it holds no mutex.
func (s *session) loseLocked(g *Grant, reason LostReason, who, why string) loss {
	s.dropLocked(g)
	g.state = grantLost
	e := &LostError{Lock: g.name, Token: g.token, Reason: reason, Who: who, Why: why}
	if reason == LostDeadline && s.refusal != nil {
		e.Reason, e.Why, e.refused = LostRefused, s.refusal.GetMessage(), kinds[apiv1.Code(s.refusal.GetCode())]
	}
	g.err = e
	if g.lost != nil {
		close(g.lost)
	}
	return loss{grant: g}
}

// dropLocked removes g from the session.
func (s *session) dropLocked(g *Grant) {
	delete(s.grants, g.token)
	if g.deadline != 0 {
		heap.Remove(&s.timed, g.place)
	}
	if len(s.grants) == 0 {
		s.idleSince = s.c.now()
	}
}

// losses are lost grants whose loss has not been reported yet.
type losses []loss

type loss struct {
	grant   *Grant
	release *releasing // to be sent; nil: the cluster has ended the grant
}

// notify reports the losses and sends their releases. It is called without any mutex, because
// contexts and backends run code of others.
func (l losses) notify() {
	for _, one := range l {
		one.grant.notify()
		if one.release != nil {
			one.grant.s.c.send(&one.release.op)
		}
	}
}

// grantHeap is a heap of grants with a TTL; the first to end is on top.
type grantHeap []*Grant

func (h grantHeap) Len() int           { return len(h) }
func (h grantHeap) Less(i, j int) bool { return h[i].deadline < h[j].deadline }
func (h grantHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

// Push is part of heap.Interface.
func (h *grantHeap) Push(x any) {
	g := x.(*Grant)
	g.place = len(*h)
	*h = append(*h, g)
}

// Pop is part of heap.Interface.
func (h *grantHeap) Pop() any {
	old := *h
	g := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return g
}
