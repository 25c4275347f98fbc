package history

import (
	"fmt"
	"testing"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// BenchmarkCheck checks histories of one busy lock, with and without the log: of
// 3,000 operations about 1,000 are on that lock, of 28,000 about 10,000.
func BenchmarkCheck(b *testing.B) {
	for _, ops := range []int{3_000, 28_000} {
		for _, clients := range []int{4, 64} {
			h, _ := simulate(profile{seed: 1, clients: clients, locks: 1, ops: ops, end: 10 * time.Hour})
			for _, log := range []bool{true, false} {
				b.Run(fmt.Sprintf("ops=%d/clients=%d/log=%v", ops, clients, log), func(b *testing.B) {
					judged := *h
					if !log {
						judged.Entries = nil
					}
					var r Report
					for b.Loop() {
						r = judged.Check(Options{})
					}
					if !r.OK() {
						b.Fatal(r.Violations)
					}
					b.ReportMetric(r.Stats.Searched.Seconds()*1000, "search-ms")
					b.ReportMetric(float64(len(judged.Ops)), "ops")
					b.ReportMetric(float64(r.Stats.Unknown), "unknown")
					b.ReportMetric(float64(longest(&judged)), "moves")
				})
			}
		}
	}
}

// longest returns the number of moves of the busiest lock.
func longest(h *History) (n int) {
	c := newChecker(h, Options{})
	c.gather()
	for _, m := range c.moves() {
		n = max(n, len(m))
	}
	return n
}

// BenchmarkRecorder records acquires and their answers, as many clients at once do.
func BenchmarkRecorder(b *testing.B) {
	began := time.Now()
	r := NewRecorder(func() time.Duration { return time.Since(began) })
	r.Limit(b.N + 1)
	s := &stream{ClientStream: &wire{}, r: r, client: "c", sent: make(map[uint64]sending)}
	q := acquireOp(1, "a")
	request := &apiv1.SessionRequest{Operations: []*apiv1.Operation{q}}
	response := &apiv1.SessionResponse{}
	b.ReportAllocs()
	for i := range b.N {
		q.Id, q.GetAcquire().Id.Sequence = uint64(i), uint64(i+1)
		if err := s.SendMsg(request); err != nil {
			b.Fatal(err)
		}
		s.ClientStream.(*wire).answers = []*apiv1.Answer{grantAnswer(uint64(i), uint64(i+1))}
		if err := s.RecvMsg(response); err != nil {
			b.Fatal(err)
		}
	}
}
