package chaos

import (
	"slices"
	"time"

	"github.com/locknode/locknode/internal/proof/history"
)

// bucketWidth is the step of the time line.
const bucketWidth = 500 * time.Millisecond

// Bucket is what clients were told within a step of the time line.
type Bucket struct {
	At     time.Duration `json:"at_ns"`
	Done   int           `json:"done"`    // operations that were answered
	Failed int           `json:"unknown"` // operations that began and were never answered
	P50    time.Duration `json:"p50_ns"`  // from call to answer, without waits in the queue
	Max    time.Duration `json:"max_ns"`
}

// Span is a time in which a client held a lock, for the picture.
type Span struct {
	Lock   string        `json:"lock"`
	Client string        `json:"client"`
	Token  uint64        `json:"token"`
	From   time.Duration `json:"from_ns"`
	Until  time.Duration `json:"until_ns"`
	Lost   string        `json:"lost,omitempty"`
}

// Detail is a part of the run that is shown grant by grant.
type Detail struct {
	Why   string        `json:"why"`
	From  time.Duration `json:"from_ns"`
	Until time.Duration `json:"until_ns"`
	Spans []Span        `json:"spans"`
}

// maxSpans bounds a detail.
const maxSpans = 3000

// buckets sums up the operations of a history.
func buckets(h *history.History) []Bucket {
	latencies := map[int64][]time.Duration{}
	sums := map[int64]*Bucket{}
	at := func(t time.Duration) *Bucket {
		i := int64(t / bucketWidth)
		if sums[i] == nil {
			sums[i] = &Bucket{At: time.Duration(i) * bucketWidth}
		}
		return sums[i]
	}
	for i := range h.Ops {
		o := &h.Ops[i]
		if o.Kind == history.KeepAlive {
			continue
		}
		if o.Outcome == history.Unknown {
			at(o.Call).Failed++
			continue
		}
		at(o.Return).Done++
		if o.Kind != history.Acquire || o.Wait == 0 {
			latencies[int64(o.Return/bucketWidth)] = append(latencies[int64(o.Return/bucketWidth)], o.Return-o.Call)
		}
	}
	var out []Bucket
	for i, b := range sums {
		p := percentiles(latencies[i])
		b.P50, b.Max = p.P50, p.Max
		out = append(out, *b)
	}
	slices.SortFunc(out, func(a, b Bucket) int { return int(a.At/bucketWidth - b.At/bucketWidth) })
	return out
}

// detail shows the grants of a history in a part of the time.
func detail(h *history.History, why string, from, until time.Duration) Detail {
	d := Detail{Why: why, From: from, Until: until}
	for _, b := range h.Beliefs {
		if b.Until < from || b.From > until || len(d.Spans) == maxSpans {
			continue
		}
		for _, w := range b.Wants {
			d.Spans = append(d.Spans, Span{w.Lock, b.Client, b.Token, b.From, b.Until, b.Lost})
		}
	}
	return d
}

// slowest is the slowest recovery between two times; ok is false if there was none.
func (r *Result) slowest(from, until time.Duration) (slowest Recovery, ok bool) {
	for _, rec := range r.Recoveries {
		if rec.At >= from && rec.At < until && (!ok || rec.All > slowest.All) {
			slowest, ok = rec, true
		}
	}
	return slowest, ok
}
