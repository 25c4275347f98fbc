package network

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// How far ahead may a number be? Terms and indexes are stored and only grow. One request of
// term 2^64-1 that reaches Raft ends the cluster: the term spreads with every answer, is on
// disk, and there is no next one. So each number from a peer is compared with this node's
// own before Raft gets it:
//
//   - Near, up to 2^16 terms or 2^24 entries ahead: accepted at once. Each such step is a
//     term, or a snapshot, that this node has to write to its disk. With 50,000 terms a
//     second, more than any disk writes, 2^64 is reached after 178 years; with 1,000
//     snapshots a second, which also have to be restored, after 35.
//   - Far, up to 2^40 ahead: accepted from a member that has sent such a number before, and
//     once in ten minutes. That is for a node that was away or has just joined: leaders and
//     candidates repeat their requests, so it costs a second try. 2^40 terms are 34 years of
//     a thousand elections a second, and as many entries 34 years of a thousand a second. A
//     member that sends the largest accepted number whenever it may reaches 2^64 after 319
//     years.
//   - Beyond that: never accepted.
//
// Rejected: one bound. If it is large enough for every node that was away, a few million
// requests exhaust 2^64; if it is small enough to prevent that, a member that was away for
// a day of elections never comes back. Also rejected: a bound that grows with time, because
// machine clocks are wrong, by decades where a battery is empty.
const (
	nearTerms   = 1 << 16
	nearEntries = 1 << 24
	farAhead    = 1 << 40
	leapEvery   = 10 * time.Minute
	// maxSaid bounds how many members' numbers are remembered.
	maxSaid = 64
)

// horizon judges one kind of number. Its methods are safe for concurrent use.
type horizon struct {
	what string // the number, for people
	near uint64

	mu     sync.Mutex        // guards what follows
	said   map[string]uint64 // node ID → the last number from it that was beyond near
	leapt  time.Time         // when a number beyond near was accepted; zero: never
	leapTo uint64            // that number
}

// note remembers a number of a member that Raft does not store.
func (h *horizon) note(from string, value uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noteLocked(from, value)
}

func (h *horizon) noteLocked(from string, value uint64) {
	if _, known := h.said[from]; h.said == nil || !known && len(h.said) >= maxSaid {
		h.said = map[string]uint64{}
	}
	h.said[from] = value
}

// judge returns why a number of a member is refused, or nil; own is this node's.
func (h *horizon) judge(from string, own, value uint64) error {
	if value <= own || value-own <= h.near {
		return nil
	}
	if value-own > farAhead {
		return h.refusal(from, own, value, fmt.Sprintf("at most %d more are accepted from anybody", uint64(farAhead)))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	recent := !h.leapt.IsZero() && now.Sub(h.leapt) < leapEvery
	switch before, known := h.said[from]; {
	case recent && within(value, h.leapTo, h.near):
		return nil // the one that was accepted may still be on its way to raft
	case recent:
		h.noteLocked(from, value)
		return h.refusal(from, own, value, fmt.Sprintf("more than %d more are accepted once in %v", h.near, leapEvery))
	case !known || !within(value, before, h.near):
		h.noteLocked(from, value)
		return h.refusal(from, own, value, fmt.Sprintf("more than %d more are accepted when they are sent again", h.near))
	}
	h.leapt, h.leapTo = now, value
	return nil
}

// within reports whether a lies not below b, and at most by.
func within(a, b, by uint64) bool { return a >= b && a-b <= by }

func (h *horizon) refusal(from string, own, value uint64, why string) error {
	return refusal{"a number that is implausibly far ahead",
		fmt.Sprintf("node %q sent %s %d, this node is at %d: %s", from, h.what, value, own, why)}
}

// refusal is why a request or an answer of a peer does not reach Raft. The cause is one
// of a few constants: log lines are limited by it.
type refusal struct{ cause, text string }

func (r refusal) Error() string { return r.text }

// term judges a term that a member has sent.
func (t *Transport) term(from string, value uint64) error {
	m := t.member.Load()
	if m == nil {
		return nil // nothing reaches raft before it runs; see pump
	}
	return t.terms.judge(from, m.CurrentTerm(), value)
}

// index judges the index of an entry that a member has sent.
func (t *Transport) index(from string, value uint64) error {
	m := t.member.Load()
	if m == nil {
		return nil
	}
	return t.indexes.judge(from, max(m.LastIndex(), t.votesFrom.Load()), value)
}

// answered judges the numbers in an answer. A refused answer counts as no answer.
func (t *Transport) answered(id raft.ServerID, err error, term, last uint64) error {
	if err != nil {
		return err
	}
	if err = t.term(string(id), term); err == nil {
		err = t.index(string(id), last)
	}
	if err != nil {
		t.warnRefused("refused a raft answer", string(id), err)
	}
	return err
}
