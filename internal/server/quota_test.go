package server

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/status"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/mux"
)

// everybody gives all callers the same quota.
func everybody(q Quota) func(string) Quota { return func(string) Quota { return q } }

func entered(t *testing.T, q *quotas, owner string, conn *limitedConn) *quotaUse {
	t.Helper()
	c, refusal := q.enter(owner, conn, false)
	if refusal != nil {
		t.Fatal(refusal)
	}
	return c
}

func TestOperationsOverTheQuotaAreRefusedUntilThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuotas(everybody(Quota{OpsPerSecond: 10}), nobody{}.OverQuota)
		shop, billing := entered(t, q, "token:shop", nil), entered(t, q, "token:billing", nil)
		for i := range 10 {
			if refusal := shop.start(mux.Prompt, time.Now()); refusal != nil {
				t.Fatalf("operation %d of the first second: %v", i, refusal)
			}
		}
		refusal := shop.start(mux.Waits, time.Now())
		if apiv1.Code(refusal.GetCode()) != apiv1.CodeOverloaded {
			t.Fatalf("one more: %v, want overloaded", refusal)
		}
		for _, part := range []string{"ops_per_second", "token:shop", "10", "100ms"} {
			if !strings.Contains(refusal.GetMessage(), part) {
				t.Errorf("%q does not say %s", refusal.GetMessage(), part)
			}
		}
		for range 1000 {
			if refusal := shop.start(mux.Frees, time.Now()); refusal != nil {
				t.Fatalf("what frees: %v", refusal)
			}
		}
		if refusal := billing.start(mux.Prompt, time.Now()); refusal != nil {
			t.Errorf("another caller: %v", refusal)
		}
		time.Sleep(time.Duration(refusal.GetRetryAfterNs()) - time.Millisecond)
		if shop.start(mux.Prompt, time.Now()) == nil {
			t.Error("accepted before the time that the refusal has named")
		}
		time.Sleep(time.Millisecond)
		if refusal := shop.start(mux.Prompt, time.Now()); refusal != nil {
			t.Errorf("at the time that the refusal has named: %v", refusal)
		}
	})
}

func TestAQuotaThatChangesTakesEffectWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := Quota{OpsPerSecond: 1}
		q := newQuotas(func(string) Quota { return now }, nobody{}.OverQuota)
		c := entered(t, q, "token:shop", nil)
		_ = c.start(mux.Prompt, time.Now())
		now = Quota{}
		time.Sleep(quotaEvery)
		for range 100 {
			if refusal := c.start(mux.Prompt, time.Now()); refusal != nil {
				t.Fatalf("without a quota: %v", refusal)
			}
		}
		now = Quota{OpsPerSecond: 2}
		time.Sleep(quotaEvery)
		accepted := 0
		for range 100 {
			if c.start(mux.Prompt, time.Now()) == nil {
				accepted++
			}
		}
		if accepted > 2 {
			t.Errorf("%d accepted at once, want 2 at most", accepted)
		}
	})
}

func TestConnectionsAndStreamsOfACallerAreBounded(t *testing.T) {
	q := newQuotas(everybody(Quota{Connections: 2, Streams: 3}), nobody{}.OverQuota)
	one, two, three := &limitedConn{}, &limitedConn{}, &limitedConn{}
	a := entered(t, q, "token:shop", one)
	entered(t, q, "token:shop", one)
	if _, refusal := q.enter("token:billing", three, false); refusal != nil {
		t.Errorf("another caller: %v", refusal)
	}
	b := entered(t, q, "token:shop", two)
	if a != b {
		t.Fatal("one owner is two callers")
	}
	_, refusal := q.enter("token:shop", two, false)
	if apiv1.Code(refusal.GetCode()) != apiv1.CodeOverloaded || refusal.GetRetryAfterNs() == 0 {
		t.Errorf("a fourth stream: %v, want overloaded", refusal)
	}
	for i := range 3 { // what frees has as much room again
		if _, refusal := q.enter("token:shop", one, true); refusal != nil {
			t.Errorf("release %d: %v", i, refusal)
		}
	}
	if _, refusal := q.enter("token:shop", one, true); refusal == nil {
		t.Error("a seventh request that frees was accepted")
	}
	for range 4 {
		a.leave(one)
	}
	a.leave(one) // all of one
	if _, refusal := q.enter("token:shop", one, false); refusal != nil {
		t.Errorf("a connection for one that has nothing under way any more: %v", refusal)
	}
	_, refusal = q.enter("token:shop", three, false)
	if apiv1.Code(refusal.GetCode()) != apiv1.CodeLimit || !strings.Contains(refusal.GetMessage(), "connections") {
		t.Errorf("a third connection: %v, want limit", refusal)
	}
}

func TestCallersThatHaveNothingAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQuotas(everybody(Quota{OpsPerSecond: 5, Streams: 1}), nobody{}.OverQuota)
		for i := range 100_000 {
			c := entered(t, q, strconv.Itoa(i), nil)
			if i%10 == 0 {
				_ = c.start(mux.Prompt, time.Now())
			}
			c.leave(nil)
			time.Sleep(time.Millisecond)
		}
		if n := len(q.uses); n > 2*fewCallers {
			t.Errorf("%d callers are remembered", n)
		}
		// One that comes back at once has no more than before.
		c := entered(t, q, "token:shop", nil)
		for c.start(mux.Prompt, time.Now()) == nil {
		}
		c.leave(nil)
		if entered(t, q, "token:shop", nil).start(mux.Prompt, time.Now()) == nil {
			t.Error("a caller that has gone away and come back starts anew")
		}
	})
}

func TestAnswersThatAreNotReadAreBounded(t *testing.T) {
	q := newQuotas(everybody(Quota{UnsentBytes: 1000}), nobody{}.OverQuota)
	c := entered(t, q, "token:shop", nil)
	if refusal := c.afford(5000, true); refusal != nil {
		t.Errorf("the first answer, however long: %v", refusal)
	}
	if refusal := c.afford(1, true); apiv1.Code(refusal.GetCode()) != apiv1.CodeOverloaded || !strings.Contains(refusal.GetMessage(), "unsent_bytes") {
		t.Errorf("a second one: %v, want overloaded", refusal)
	}
	if refusal := c.afford(10, false); refusal != nil {
		t.Errorf("what must not be refused: %v", refusal)
	}
	c.paid(5000)
	if refusal := c.afford(900, true); refusal != nil {
		t.Errorf("once they are read: %v", refusal)
	}
}

// What a stream has counted for its caller is given back, whatever becomes of it.
func TestAStreamGivesBackWhatItsCallerHasCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, calls := newBraked(t, 100)
		st.server.quotas = newQuotas(everybody(Quota{OpsPerSecond: 5, UnsentBytes: 100}), nobody{}.OverQuota)
		c := entered(t, st.server.quotas, "token:shop", nil)
		st.use = c
		begun := time.Now()
		for i := range uint64(5) {
			st.accept(getOp(i, "a"), begun)
		}
		for _, call := range (*calls)[:3] {
			call.Done(&apiv1.Answer{Result: &apiv1.Answer_Get{Get: &apiv1.GetResponse{Lock: &apiv1.Lock{Name: strings.Repeat("a", 60)}}}})
		}
		refused := 0
		for _, o := range st.out {
			if strings.Contains(o.answer.GetError().GetMessage(), "unsent_bytes") {
				refused++
			}
		}
		if refused != 2 {
			t.Errorf("%d of three reads are refused because the answers are not read, want 2", refused)
		}
		st.accept(getOp(5, "a"), begun)
		if len(*calls) != 5 {
			t.Fatalf("%d operations were started, want 5", len(*calls))
		}
		st.accept(keepAliveOp(6, [16]byte{1}), begun)
		if len(*calls) != 6 {
			t.Error("a keep-alive was refused because of other operations")
		}
		if d := took(func() { st.slowDown(1) }); d == 0 {
			t.Error("a stream with refused operations is read at once")
		}
		st.end()
		if n := c.unsent.Load(); n != 0 {
			t.Errorf("%d bytes are still counted", n)
		}
		c.leave(nil)
	})
}

func TestOverTheQuotaHTTPSaysWhenToComeAgain(t *testing.T) {
	t.Parallel()
	r := serve(t, Config{QuotaOf: everybody(Quota{OpsPerSecond: 1})})
	code, body := post(t, r, "/v1/acquire", `{"name":"a"}`)
	if code != http.StatusOK {
		t.Fatalf("the first: %d %s", code, body)
	}
	var refused *http.Response
	for range 50 {
		if res, text := send(t, r, http.MethodPost, "/v1/acquire", `{"name":"b"}`); res.StatusCode == http.StatusTooManyRequests {
			refused, body = res, text
			break
		}
	}
	if refused == nil || refused.Header.Get("Retry-After") != "1" || !strings.Contains(body, "ops_per_second") {
		t.Fatalf("many a second: %v %s, want 429 with Retry-After", refused, body)
	}
	if code, body := post(t, r, "/v1/release", `{"name":"a","token":1}`); code != http.StatusOK {
		t.Errorf("a release: %d %s", code, body)
	}
	if code, body := get(t, r, "/healthz"); code != http.StatusOK {
		t.Errorf("the check of health: %d %s", code, body)
	}
}

func TestOverTheQuotaGRPCSaysWhenToComeAgain(t *testing.T) {
	t.Parallel()
	r := serve(t, Config{QuotaOf: everybody(Quota{OpsPerSecond: 1})})
	c := r.client(t)
	refused := (*apiv1.Error)(nil)
	for i := 0; i < 50 && refused == nil; i++ {
		_, err := c.Acquire(t.Context(), acquireOf(strconv.Itoa(i), 0))
		if s, ok := status.FromError(err); ok && err != nil {
			refused, _ = s.Details()[0].(*apiv1.Error)
		}
	}
	if apiv1.Code(refused.GetCode()) != apiv1.CodeOverloaded || refused.GetRetryAfterNs() <= 0 {
		t.Fatalf("many a second: %v, want overloaded and when to come again", refused)
	}
	batch, err := c.Batch(t.Context(), &apiv1.BatchRequest{Operations: []*apiv1.Operation{acquireOp(1, "x", 0), acquireOp(2, "y", 0), keepAliveOp(3, [16]byte{1})}})
	if err != nil {
		t.Fatal(err)
	}
	if a := batch.GetAnswers(); a[1].GetError().GetRetryAfterNs() == 0 || a[2].GetError() != nil {
		t.Errorf("a batch: %v, want the second acquire refused and the keep-alive done", a)
	}
}

// Two identities behind one address take turns as two addresses do: a flood of one delays the
// other by one item.
func TestAFloodOfOneIdentityLeavesTurnsToAnother(t *testing.T) {
	var q fair.Queue[string]
	flood, other := fair.Owner{Address: fair.AddressOf("token:flood")}, fair.Owner{Address: fair.AddressOf("token:shop")}
	for i := range 10_000 {
		flood.Connection = uint64(i % 100)
		q.Put(flood, "flood", 64)
	}
	q.Put(other, "shop", 64)
	for i := range 3 {
		if item, _, _ := q.Pop(); item == "shop" {
			return
		} else if i == 2 {
			t.Error("the other identity waits for more than two items of the flood")
		}
	}
}

func TestDebugIsServedIfThereIsAny(t *testing.T) {
	t.Parallel()
	if code, _ := get(t, serve(t, Config{}), "/debug/pprof/"); code != http.StatusNotFound {
		t.Errorf("without: %d, want 404", code)
	}
	debug := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { writeText(w, r.URL.Path) })
	if code, body := get(t, serve(t, Config{Debug: debug}), "/debug/pprof/heap"); code != http.StatusOK || body != "/debug/pprof/heap" {
		t.Errorf("with: %d %s", code, body)
	}
}

// BenchmarkQuota is what a quota costs each operation.
func BenchmarkQuota(b *testing.B) {
	q := newQuotas(everybody(Quota{OpsPerSecond: 1 << 30}), nobody{}.OverQuota)
	u, refusal := q.enter("token:shop", nil, false)
	if refusal != nil {
		b.Fatal(refusal)
	}
	now := time.Now()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if u.start(mux.Prompt, now) != nil {
				b.Error("refused")
			}
		}
	})
}
