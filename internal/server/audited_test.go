package server

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// noting is a configuration of which a test sees what is begun and what is noted. may is why
// nothing may begin.
type noting struct {
	mu           sync.Mutex
	may          error
	begun, ended []Event
}

func (n *noting) config() Config {
	return Config{
		Audit: func(e Event) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.ended = append(n.ended, e)
		},
		Begin: func(e Event, then func(error)) {
			n.mu.Lock()
			n.begun = append(n.begun, e)
			may := n.may
			n.mu.Unlock()
			then(may)
		},
	}
}

func TestWhatNeedsForceOrAdminIsBegunAndNotedOnEveryRoad(t *testing.T) {
	t.Parallel()
	n := &noting{}
	r := serve(t, n.config())
	c := r.client(t)
	_, _ = c.ForceRelease(t.Context(), &apiv1.ForceReleaseRequest{Name: "a", Reason: "unary"})
	_, _ = post(t, r, "/v1/force-release", `{"name":"a","reason":"http"}`)
	_, _ = c.Batch(t.Context(), &apiv1.BatchRequest{Operations: []*apiv1.Operation{{Request: &apiv1.Operation_Resize{Resize: &apiv1.ResizeRequest{Name: "a", Limit: 3}}}}})
	st, err := c.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Send(&apiv1.SessionRequest{Operations: []*apiv1.Operation{{Id: 1, Request: &apiv1.Operation_ForceRelease{ForceRelease: &apiv1.ForceReleaseRequest{Name: "a", Reason: "stream"}}}}}); err != nil {
		t.Fatal(err)
	}
	for answers := 0; answers == 0; {
		res, err := st.Recv()
		if err != nil {
			t.Fatal(err)
		}
		answers = len(res.GetAnswers())
	}
	_, _ = c.SetLimits(t.Context(), &apiv1.SetLimitsRequest{Limits: []*apiv1.Limit{{Name: "sessions", Value: 3}}})
	_, _ = post(t, r, "/v1/clear", `{"name":"a","reason":"http"}`)
	_, _ = post(t, r, "/v1/release", `{"name":"a","token":1}`) // needs no force
	n.mu.Lock()
	defer n.mu.Unlock()
	want := []string{"force_release", "force_release", "resize", "force_release", "SetLimits", "ClearLock"}
	if len(n.begun) != len(want) || len(n.ended) != len(want) {
		t.Fatalf("begun %+v, ended %+v; want %v", n.begun, n.ended, want)
	}
	for i, operation := range want {
		b, e := n.begun[i], n.ended[i]
		if b.Operation != operation || e.Operation != operation || b.Names[0] != e.Names[0] || e.Remote == "" || e.Remote == e.Address {
			t.Errorf("%d: begun %+v, ended %+v; want %s", i, b, e, operation)
		}
	}
	if v := n.ended[2].Values; len(v) != 1 || v[0] != 3 {
		t.Errorf("resize: %+v, want the new size", n.ended[2])
	}
}

func TestWhatMayNotBeginIsNotDone(t *testing.T) {
	t.Parallel()
	n := &noting{may: apiv1.NewError(apiv1.CodeUnavailable, "audit: cannot be written")}
	r := serve(t, n.config())
	r.node.mu.Lock()
	asked := len(r.node.asked)
	r.node.mu.Unlock()
	if code, body := post(t, r, "/v1/acquire", `{"name":"a"}`); code != http.StatusOK {
		t.Fatalf("an acquire: %d %s", code, body)
	}
	for path, body := range map[string]string{
		"/v1/force-release": `{"name":"a"}`, "/v1/resize": `{"name":"a","limit":2}`, "/v1/clear": `{"name":"a"}`,
		"/v1/limits": `{"name":"sessions","value":3}`, "/v1/members/remove": `{"id":"n9"}`, "/v1/access-tokens": `{"name":"b"}`,
	} {
		if code, body := post(t, r, path, body); code != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s, want 503", path, code, body)
		}
	}
	r.node.mu.Lock()
	defer r.node.mu.Unlock()
	if r.node.granted["a"] == nil || len(r.node.asked) != asked {
		t.Errorf("something was done: %+v", r.node.asked)
	}
	for _, e := range n.ended {
		if e.Code != apiv1.CodeUnavailable {
			t.Errorf("noted %+v, want that it was refused", e)
		}
	}
}

// A client cannot hide what it does by force by going away before the answer.
func TestWhatACallerWhoHasGoneAwayDoesByForceIsNoted(t *testing.T) {
	t.Parallel()
	for _, begins := range []bool{true, false} {
		n := &noting{}
		cfg := n.config()
		if !begins {
			cfg.Begin = nil
		}
		r := serve(t, cfg)
		var started *mux.Call
		r.node.on = func(c *mux.Call) bool { started = c; return true }
		call := &mux.Call{Op: &apiv1.Operation{Request: &apiv1.Operation_ForceRelease{ForceRelease: &apiv1.ForceReleaseRequest{Name: "a"}}}, Done: func(*apiv1.Answer) {}}
		r.start(r.callerOf(nil, nil), call)
		r.lose(call)
		if !started.Abandoned() {
			started.Done(&apiv1.Answer{Index: 7, Result: &apiv1.Answer_ForceRelease{}})
		}
		n.mu.Lock()
		if len(n.ended) != 1 || n.ended[0].Index != 7 {
			t.Errorf("noted %+v, want that it was done", n.ended)
		}
		n.mu.Unlock()
	}
}

func TestWhoHasGoneAwayBeforeItBeginsDoesNothing(t *testing.T) {
	t.Parallel()
	var then func(error)
	r := serve(t, Config{Begin: func(_ Event, f func(error)) { then = f }})
	r.node.on = func(*mux.Call) bool { t.Error("it was done"); return true }
	call := &mux.Call{Op: &apiv1.Operation{Request: &apiv1.Operation_ForceRelease{ForceRelease: &apiv1.ForceReleaseRequest{Name: "a"}}}}
	r.start(r.callerOf(nil, nil), call)
	r.lose(call)
	then(nil)
	answered := make(chan *apiv1.Answer, 1)
	call = &mux.Call{Op: call.Op, Done: func(a *apiv1.Answer) { answered <- a }}
	r.start(r.callerOf(nil, nil), call)
	then(errors.New("full"))
	if a := receiveWithin(t, "an answer", answered); a.GetError() == nil {
		t.Errorf("answered %v, want an error", a)
	}
}

func TestDebugNeedsAdmin(t *testing.T) {
	t.Parallel()
	debug := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeText(w, "profile") })
	g := guard(t, AuthRequired, func(cfg *Config) { cfg.Debug = debug })
	for who, want := range map[string]int{"shop": http.StatusForbidden, "boss": http.StatusOK} {
		res, body := send(t, g.running, http.MethodGet, "/debug/pprof/heap", "", "Authorization", "Bearer "+g.secrets[who])
		if res.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", who, res.StatusCode, body, want)
		}
	}
	if code, _ := get(t, g.running, "/debug/pprof/heap"); code != http.StatusUnauthorized {
		t.Errorf("nobody: %d, want 401", code)
	}
}

// The right force allows to end and change what others hold with the same calls as one's own:
// those are noted like a force-release, and one's own are not.
func TestWhatIsDoneToGrantsOfOthersIsNoted(t *testing.T) {
	t.Parallel()
	owners := map[uint64]string{1: "token:boss", 2: "token:shop"} // 3: not known to this node yet
	g := guard(t, AuthRequired, func(c *Config) { c.Auth.GrantOwner = func(token uint64) string { return owners[token] } })
	for token := uint64(1); token <= 3; token++ { // that the node does not hold them does not matter
		_, _ = g.client(t).Release(g.as(t, "boss"), &apiv1.ReleaseRequest{Name: "orders/1", Token: token})
	}
	_, _ = g.client(t).Renew(g.as(t, "boss"), &apiv1.RenewRequest{Name: "orders/1", Token: 2, TtlNs: 1e9})
	_, _ = g.client(t).Release(g.as(t, "shop"), &apiv1.ReleaseRequest{Name: "orders/1", Token: 2})
	var got []string
	for _, e := range g.noted() {
		got = append(got, fmt.Sprint(e.Operation, " ", e.Token, " by ", e.Identity))
	}
	want := []string{"release 2 by token:boss", "release 3 by token:boss", "renew 2 by token:boss"}
	if !slices.Equal(got, want) {
		t.Errorf("noted %q, want %q", got, want)
	}
}
