package fsm

import "testing"

// What it costs to run a cycle as somebody, with and without quotas to look up: an acquire and
// a release in one entry, encoding included.
func BenchmarkCycleAsSomebody(b *testing.B) {
	for _, how := range []string{"nobody", "somebody", "somebody with a quota"} {
		b.Run(how, func(b *testing.B) {
			t := New()
			setup := []Command{raiseTo(Level), accessTokenFor("a1", "shop"), OpenSession{Session: genSession(0), TTL: hostTTL, Owner: "token:shop"}}
			if how == "somebody with a quota" {
				setup = append(setup, ChangePolicies{Put: []Policy{{Name: "p", For: []string{"token:shop"}, Quota: Quota{Grants: 5}}}})
			}
			t.Apply(1, 1, encode(1, 0, 0, setup...))
			wants := exclusive("orders/42")
			var buf []byte
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				q := uint64(2*i + 1)
				var acquire, release Command = Acquire{ID: RequestID{Session: genSession(0), Sequence: q, Acked: q - 1}, Wants: wants},
					Release{ID: RequestID{Session: genSession(0), Sequence: q + 1, Acked: q}, Token: uint64(i + 1)}
				if how != "nobody" {
					acquire, release = As{Caller: "token:shop", Command: acquire}, As{Caller: "token:shop", Command: release}
				}
				buf = AppendCommand(AppendCommand(AppendHeader(buf[:0], 1, 0, 0, 2), acquire), release)
				if a := t.Apply(uint64(i+2), 1, buf); a.Results[0].Code != OK || a.Results[1].Code != OK {
					b.Fatalf("cycle %d: %+v", i, a.Results)
				}
			}
		})
	}
}
