package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/rights"
)

// guarded is a server that asks for rights, with access tokens called shop and boss.
type guarded struct {
	*running
	secrets map[string]string
	hashes  map[string][32]byte
	book    atomic.Pointer[rights.Book]
	index   uint64

	mu     sync.Mutex
	events []Event
}

const allRights = fsm.RightRead | fsm.RightLock | fsm.RightForce | fsm.RightAdmin

// usual are the policies of the tests: shop may read and lock below orders/, boss everything.
func usual() []fsm.Policy {
	return []fsm.Policy{
		{Name: "shop", For: []string{"token:shop"}, Rules: []fsm.Rule{{Rights: fsm.RightRead | fsm.RightLock, Name: "orders/"}, {Deny: true, Rights: fsm.RightRead, Name: "orders/secret/"}}},
		{Name: "boss", For: []string{"token:boss"}, Rules: []fsm.Rule{{Rights: allRights}}},
	}
}

func guard(t testing.TB, mode AuthMode, change func(*Config)) *guarded {
	t.Helper()
	g := &guarded{secrets: map[string]string{}, hashes: map[string][32]byte{}}
	for _, name := range []string{"shop", "boss", "nobody"} {
		g.secrets[name], g.hashes[name] = rights.NewSecret()
	}
	g.set(usual(), "shop", "boss")
	cfg := Config{Auth: Auth{Mode: mode, Book: g.book.Load}, Audit: func(e Event) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.events = append(g.events, e)
	}}
	if change != nil {
		change(&cfg)
	}
	g.running = serve(t, cfg)
	return g
}

// set makes another book, in which the named access tokens are valid.
func (g *guarded) set(policies []fsm.Policy, tokens ...string) {
	g.index++
	var all []fsm.AccessToken
	for _, name := range tokens {
		all = append(all, fsm.AccessToken{Accessor: "accessor-" + name, Name: name, Hash: g.hashes[name]})
	}
	g.book.Store(rights.NewBook(g.index, all, policies))
	if g.running != nil {
		g.RightsChanged()
	}
}

func (g *guarded) noted() []Event {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.events)
}

// as returns a context with the secret of a name; empty: with none.
func (g *guarded) as(t testing.TB, name string) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	if name == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+g.secrets[name])
}

// each returns the code of an operation on every road.
func (g *guarded) each(t testing.TB, name string, op *apiv1.Operation) map[string]apiv1.Code {
	t.Helper()
	got := map[string]apiv1.Code{}
	batch, err := g.client(t).Batch(g.as(t, name), &apiv1.BatchRequest{Operations: []*apiv1.Operation{op}})
	got["batch"] = apiv1.CodeOf(err)
	if err == nil {
		got["batch"] = apiv1.Code(batch.GetAnswers()[0].GetError().GetCode())
	}
	stream, err := g.client(t).Session(g.as(t, name))
	if err != nil {
		t.Fatal(err)
	}
	op.Id = 7
	_ = stream.Send(&apiv1.SessionRequest{Operations: []*apiv1.Operation{op}})
	for {
		resp, err := stream.Recv()
		if err != nil {
			got["stream"] = apiv1.CodeOf(err)
			break
		}
		if len(resp.GetAnswers()) > 0 {
			got["stream"] = apiv1.Code(resp.GetAnswers()[0].GetError().GetCode())
			break
		}
	}
	return got
}

func someOps() map[string]*apiv1.Operation {
	id := &apiv1.RequestID{Session: []byte("0123456789abcdef"), Sequence: 1}
	session := id.GetSession()
	return map[string]*apiv1.Operation{
		"acquire orders": acquireOp(0, "orders/1", 0), "acquire billing": acquireOp(0, "billing/1", 0),
		"acquire both": {Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{Id: id, Locks: []*apiv1.Want{{Name: "orders/1"}, {Name: "billing/1"}}}}},
		"get orders":   getOp(0, "orders/1"), "get billing": getOp(0, "billing/1"), "get secret": getOp(0, "orders/secret/1"),
		"list":          {Request: &apiv1.Operation_List{List: &apiv1.ListRequest{}}},
		"open":          {Request: &apiv1.Operation_OpenSession{OpenSession: &apiv1.OpenSessionRequest{Session: session, TtlNs: 1e9}}},
		"keep alive":    {Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{Session: session}}},
		"end":           {Request: &apiv1.Operation_EndSession{EndSession: &apiv1.EndSessionRequest{Session: session}}},
		"cancel":        {Request: &apiv1.Operation_Cancel{Cancel: &apiv1.CancelRequest{Id: id, Target: id}}},
		"release":       {Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Name: "billing/1", Token: 1}}},
		"set value":     {Request: &apiv1.Operation_SetValue{SetValue: &apiv1.SetValueRequest{Name: "billing/1", Token: 1}}},
		"renew orders":  {Request: &apiv1.Operation_Renew{Renew: &apiv1.RenewRequest{Name: "orders/9", Token: 1, TtlNs: 1e9}}},
		"renew billing": {Request: &apiv1.Operation_Renew{Renew: &apiv1.RenewRequest{Name: "billing/9", Token: 1, TtlNs: 1e9}}},
		"renew unnamed": {Request: &apiv1.Operation_Renew{Renew: &apiv1.RenewRequest{Token: 1, TtlNs: 1e9}}},
		"force":         {Request: &apiv1.Operation_ForceRelease{ForceRelease: &apiv1.ForceReleaseRequest{Name: "orders/1"}}},
		"resize":        {Request: &apiv1.Operation_Resize{Resize: &apiv1.ResizeRequest{Name: "orders/1", Limit: 2}}},
	}
}

// isAllowed reports whether an answer shows that the operation was passed on to the node.
func isAllowed(code apiv1.Code) bool {
	return code != apiv1.CodeDenied && code != apiv1.CodeUnauthenticated
}

func TestOperationsNeedTheirRights(t *testing.T) {
	g := guard(t, AuthRequired, nil)
	denied := map[string][]string{
		"shop": {"acquire billing", "acquire both", "get billing", "get secret", "renew billing", "force", "resize"},
		"boss": nil,
	}
	for kind := range someOps() {
		for caller, not := range denied {
			for road, code := range g.each(t, caller, someOps()[kind]) {
				want := apiv1.CodeOK
				if slices.Contains(not, kind) {
					want = apiv1.CodeDenied
				}
				if isAllowed(code) != (want == apiv1.CodeOK) {
					t.Errorf("%s by %s on the road %s: %s", kind, caller, road, code)
				}
			}
		}
		for road, code := range g.each(t, "", someOps()[kind]) {
			if code != apiv1.CodeUnauthenticated {
				t.Errorf("%s by somebody who shows nothing, on the road %s: %s", kind, road, code)
			}
		}
		if !slices.Contains([]string{"acquire orders", "list", "keep alive"}, kind) {
			continue // refusals are slowed
		}
		for road, code := range g.each(t, "nobody", someOps()[kind]) {
			if code != apiv1.CodeUnauthenticated {
				t.Errorf("%s with a secret of no access token, on the road %s: %s", kind, road, code)
			}
		}
	}
	for _, op := range g.node.started {
		if !op.GetChecked() || op.GetOwner() != "token:shop" && op.GetOwner() != "token:boss" {
			t.Errorf("the node got %v", op)
		}
	}
}

func TestADenialNamesTheRightAndTheNameAndNothingElse(t *testing.T) {
	g := guard(t, AuthRequired, nil)
	_, err := g.client(t).Acquire(g.as(t, "shop"), acquireOf("billing/1", 0))
	if s, _ := status.FromError(err); s.Code() != codes.PermissionDenied || s.Message() != `right lock on "billing/1": is missing` {
		t.Errorf("gRPC: %v", err)
	}
	resp, body := send(t, g.running, http.MethodPost, "/v1/acquire", `{"name":"billing/1"}`, "Authorization", "Bearer "+g.secrets["shop"])
	if resp.StatusCode != http.StatusForbidden || body != `{"error":{"code":"denied","message":"right lock on \"billing/1\": is missing"}}` {
		t.Errorf("HTTP: %d %s", resp.StatusCode, body)
	}
	resp, body = send(t, g.running, http.MethodPost, "/v1/acquire", `{"name":"orders/1"}`)
	if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") != "Bearer" || !strings.Contains(body, `"unauthenticated"`) {
		t.Errorf("HTTP without a token: %d %s", resp.StatusCode, body)
	}
	resp, body = send(t, g.running, http.MethodPost, "/v1/acquire", `{"name":"orders/1"}`, "Authorization", "bearer "+g.secrets["shop"])
	if resp.StatusCode != http.StatusOK {
		t.Errorf("HTTP with the right: %d %s", resp.StatusCode, body)
	}
}

// An access token that was made through another node is valid here before this node has heard of
// it. Who guesses does not keep the node busy with looking.
func TestANodeLooksAgainBeforeItRefusesASecret(t *testing.T) {
	var looks atomic.Int64
	var g *guarded
	g = guard(t, AuthRequired, func(c *Config) {
		c.Auth.Refresh = func(context.Context, fair.Owner) {
			if looks.Add(1) == 1 {
				g.set(usual(), "shop", "boss", "nobody")
			}
		}
	})
	if who, err := g.client(t).WhoAmI(g.as(t, "nobody"), &apiv1.WhoAmIRequest{}); err != nil || who.GetIdentity() != "token:nobody" {
		t.Errorf("with an access token that the node has just heard of: %v, %v", who, err)
	}
	g.set(usual(), "shop", "boss")
	refused := func() {
		t.Helper()
		if _, err := g.client(t).WhoAmI(g.as(t, "nobody"), &apiv1.WhoAmIRequest{}); apiv1.CodeOf(err) != apiv1.CodeUnauthenticated {
			t.Errorf("with a secret of no access token: %v", err)
		}
	}
	if refused(); looks.Load() != 2 {
		t.Errorf("the node has looked %d times, want 2", looks.Load())
	}
	for range 10 * refusalsAtOnce {
		g.failures.delay("127.0.0.1", time.Now())
	}
	if refused(); looks.Load() != 2 {
		t.Error("the node looks again for an address that was refused often")
	}
}

// What everybody may do is not done with a secret that is not valid.
func TestAWrongSecretIsNotAnonymous(t *testing.T) {
	g := guard(t, AuthRequired, nil)
	g.set([]fsm.Policy{{Name: "all", For: []string{"*"}, Rules: []fsm.Rule{{Rights: allRights}}}}, "shop")
	if _, err := g.client(t).Acquire(g.as(t, ""), acquireOf("a", 0)); err != nil {
		t.Errorf("without a secret: %v", err)
	}
	for _, authorization := range []string{"Bearer " + g.secrets["boss"], "Bearer x", "Bearer", "Basic YTpi", g.secrets["shop"], ""} {
		ctx := metadata.AppendToOutgoingContext(g.as(t, ""), "authorization", authorization)
		if _, err := g.client(t).Acquire(ctx, acquireOf("b", 0)); apiv1.CodeOf(err) != apiv1.CodeUnauthenticated {
			t.Errorf("with %.12q: %v", authorization, err)
		}
	}
	twice := metadata.AppendToOutgoingContext(g.as(t, "shop"), "authorization", "Bearer "+g.secrets["shop"])
	if _, err := g.client(t).Acquire(twice, acquireOf("c", 0)); apiv1.CodeOf(err) != apiv1.CodeUnauthenticated {
		t.Errorf("with two secrets: %v", err)
	}
	if resp, body := send(t, g.running, http.MethodGet, "/v1/locks/a", "", "Authorization", "Bearer x"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("HTTP: %d %s", resp.StatusCode, body)
	}
}

// A secret must not travel where others can read it.
func TestASecretInPlainTextFromAnotherHostIsRefused(t *testing.T) {
	g := guard(t, AuthRequired, nil)
	from := func(ip string) *limitedConn { return &limitedConn{ip: ip} }
	header := []string{"Bearer " + g.secrets["boss"]}
	if c := g.callerOf(from("192.0.2.7"), header); c.bad == nil || !strings.Contains(c.bad.GetMessage(), "plain text") || c.shown {
		t.Errorf("from another host: %v", c.bad)
	}
	if c := g.callerOf(from("127.0.0.1"), header); c.bad != nil {
		t.Errorf("from this host: %v", c.bad)
	}
	g.auth.Insecure = true
	if c := g.callerOf(from("192.0.2.7"), header); c.bad != nil {
		t.Errorf("where plain text is allowed: %v", c.bad)
	}
}

func TestOpenStreamsFollowPolicies(t *testing.T) {
	g := guard(t, AuthRequired, nil)
	stream, err := g.client(t).Session(g.as(t, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(id uint64, name string) apiv1.Code {
		t.Helper()
		sendOps(t, stream, acquireOp(id, name, 0))
		return apiv1.Code(receiveAnswers(t, stream, 1)[0].GetError().GetCode())
	}
	if code := ask(1, "orders/1"); code != apiv1.CodeOK {
		t.Errorf("at first: %s", code)
	}
	g.set([]fsm.Policy{{Name: "shop", For: []string{"token:shop"}, Rules: []fsm.Rule{{Rights: fsm.RightLock, Name: "billing/"}}}}, "shop")
	if code := ask(2, "orders/2"); code != apiv1.CodeDenied {
		t.Errorf("after the right was taken away: %s", code)
	}
	if code := ask(3, "billing/2"); code != apiv1.CodeOK {
		t.Errorf("after the right was given: %s", code)
	}
}

func TestARevokedAccessTokenEndsItsStreamsAndWaits(t *testing.T) {
	g := guard(t, AuthRequired, nil)
	if _, err := g.client(t).Acquire(g.as(t, "boss"), acquireOf("orders/1", 0)); err != nil {
		t.Fatal(err)
	}
	stream, err := g.client(t).Session(g.as(t, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	sendOps(t, stream, inSession(acquireOp(1, "orders/1", -1), 1))
	ends := make(chan error, 2)
	go func() {
		_, err := g.client(t).Acquire(g.as(t, "shop"), acquireOf("orders/1", -1))
		ends <- err
	}()
	go func() {
		_, err := g.client(t).Batch(g.as(t, "shop"), &apiv1.BatchRequest{Operations: []*apiv1.Operation{acquireOp(1, "orders/1", -1)}})
		ends <- err
	}()
	g.node.await(t, "three waiters", func() bool { return len(g.node.queues["orders/1"]) == 3 })
	g.set(usual(), "boss")
	soon := time.After(patience / 4)
	for range cap(ends) {
		select {
		case err := <-ends:
			if apiv1.CodeOf(err) != apiv1.CodeUnauthenticated {
				t.Errorf("a wait ended with %v", err)
			}
		case <-soon:
			t.Fatal("a call still waits for a lock after its access token was revoked")
		}
	}
	for {
		if _, err = stream.Recv(); err != nil {
			break
		}
	}
	if apiv1.CodeOf(err) != apiv1.CodeUnauthenticated {
		t.Errorf("the stream ended with %v", err)
	}
	g.node.await(t, "the waits without a session are given up", func() bool { return len(g.node.queues["orders/1"]) == 1 })
}

// A revoked access token is noticed also by an operation that comes before the stream has ended.
func TestARevokedAccessTokenIsNotAcceptedOnAnOpenStream(t *testing.T) {
	g := guard(t, AuthRequired, nil)
	c := g.callerOf(&limitedConn{ip: "127.0.0.1"}, []string{"Bearer " + g.secrets["shop"]})
	call := &mux.Call{Op: acquireOp(1, "orders/1", 0)}
	if err := g.admit(t.Context(), c, call); err != nil {
		t.Fatal(err)
	}
	g.set(usual(), "boss")
	if err := g.admit(t.Context(), c, call); apiv1.CodeOf(err) != apiv1.CodeUnauthenticated {
		t.Errorf("after the revocation: %v", err)
	}
}

// What only nodes may say, a client may not.
func TestClientsDoNotSayWhoTheyAre(t *testing.T) {
	const key = "0123456789abcdef"
	g := guard(t, AuthRequired, func(c *Config) { c.Peer = func(k string) bool { return k == key } })
	claim := func(name string) *apiv1.Operation {
		return &apiv1.Operation{Owner: "token:boss", Checked: false, Force: true, Connection: 5, Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Name: name, Token: 1}}}
	}
	if _, err := g.client(t).Batch(g.as(t, "shop"), &apiv1.BatchRequest{Operations: []*apiv1.Operation{claim("batch")}}); err != nil {
		t.Fatal(err)
	}
	stream, err := g.client(t).Session(g.as(t, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	sendOps(t, stream, claim("stream"))
	receiveAnswers(t, stream, 1)
	peer, err := g.client(t).Session(metadata.AppendToOutgoingContext(g.as(t, ""), mux.PeerHeader, key))
	if err != nil {
		t.Fatal(err)
	}
	sendOps(t, peer, claim("node"))
	receiveAnswers(t, peer, 1)
	g.node.await(t, "three operations", func() bool { return len(g.node.started) == 3 })
	for _, op := range g.node.started {
		switch name := op.GetRelease().GetName(); name {
		case "node":
			if op.GetOwner() != "token:boss" || op.GetChecked() || !op.GetForce() {
				t.Errorf("another node's operation arrives as %v", op)
			}
		default:
			if op.GetOwner() != "token:shop" || !op.GetChecked() || op.GetForce() {
				t.Errorf("on the road %s a client's operation arrives as %v", name, op)
			}
		}
	}
}

// Force is that of the caller on this very lock.
func TestForceIsSetForThoseWhoHaveIt(t *testing.T) {
	g := guard(t, AuthRequired, nil)
	g.set([]fsm.Policy{{Name: "shop", For: []string{"token:shop"}, Rules: []fsm.Rule{{Rights: fsm.RightForce | fsm.RightLock, Name: "orders/"}}},
		{Name: "boss", For: []string{"token:boss"}, Rules: []fsm.Rule{{Rights: allRights}}}}, "shop", "boss")
	c := map[string]*caller{}
	for _, name := range []string{"shop", "boss"} {
		c[name] = g.callerOf(&limitedConn{ip: "127.0.0.1"}, []string{"Bearer " + g.secrets[name]})
	}
	for _, test := range []struct {
		who, lock string
		want      bool
	}{{"shop", "orders/1", true}, {"shop", "billing/1", false}, {"shop", "", false}, {"boss", "billing/1", true}, {"boss", "", true}} {
		op := &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Name: test.lock, Token: 1}}}
		if err := g.admit(t.Context(), c[test.who], &mux.Call{Op: op}); err != nil || op.GetForce() != test.want {
			t.Errorf("release of %q by %s: force is %v, want %v; %v", test.lock, test.who, op.GetForce(), test.want, err)
		}
	}
}

func TestListGetsWhatMayBeRead(t *testing.T) {
	g := guard(t, AuthRequired, nil)
	c := g.callerOf(&limitedConn{ip: "127.0.0.1"}, []string{"Bearer " + g.secrets["shop"]})
	call := &mux.Call{Op: &apiv1.Operation{Request: &apiv1.Operation_List{List: &apiv1.ListRequest{}}}}
	if err := g.admit(t.Context(), c, call); err != nil {
		t.Fatal(err)
	}
	want := []struct{ From, To string }{{"orders/", "orders/secret/"}, {"orders/secret0", "orders0"}}
	if !slices.Equal(call.Readable, want) {
		t.Errorf("readable is %q, want %q", call.Readable, want)
	}
	g.set(nil, "shop")
	if err := g.admit(t.Context(), c, call); err != nil || call.Readable == nil || len(call.Readable) != 0 {
		t.Errorf("without any right: readable is %v, %v", call.Readable, err)
	}
}

func TestNoticesOfASessionGoToItsOwner(t *testing.T) {
	g := guard(t, AuthRequired, nil)
	foreign := [16]byte{0xaa}
	g.node.on = func(call *mux.Call) bool {
		if ka := call.Op.GetKeepAlive(); ka != nil && [16]byte(ka.GetSession()) == foreign {
			call.Done(errorAnswer(call.Op.GetId(), apiv1.NewError(apiv1.CodeDenied, "session: belongs to another identity")))
			return true
		}
		return false
	}
	stream, err := g.client(t).Session(g.as(t, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	own := [16]byte{0xbb}
	sendOps(t, stream, keepAliveOp(1, foreign), keepAliveOp(2, own))
	receiveAnswers(t, stream, 2)
	g.node.await(t, "a watch of the own session", func() bool { return len(g.node.watchers[own]) == 1 })
	g.node.mu.Lock()
	defer g.node.mu.Unlock()
	if len(g.node.watchers[foreign]) != 0 {
		t.Error("the stream gets notices of a session of another identity")
	}
}

func TestModeLogRefusesNothingAndSaysWhatItWould(t *testing.T) {
	g := guard(t, AuthLog, nil)
	for kind := range someOps() {
		for _, caller := range []string{"shop", "nobody", ""} {
			for road, code := range g.each(t, caller, someOps()[kind]) {
				if !isAllowed(code) {
					t.Errorf("%s by %q on the road %s: %s", kind, caller, road, code)
				}
			}
		}
	}
	for _, op := range g.node.started {
		if op.GetChecked() || op.GetForce() {
			t.Fatalf("the node got %v, which refuses what is not the caller's", op)
		}
	}
	if _, err := g.client(t).SetLimits(g.as(t, "shop"), &apiv1.SetLimitsRequest{}); err != nil {
		t.Errorf("SetLimits: %v", err)
	}
	would := map[string]bool{}
	for _, e := range g.noted() {
		if e.Refused && e.Enforced {
			t.Errorf("noted as refused: %+v", e)
		}
		if e.Refused {
			would[string(e.Identity)+" "+e.Operation+" "+e.Code.String()] = true
		}
	}
	for _, want := range []string{"token:shop acquire denied", "token:shop force_release denied", "token:shop SetLimits denied", "anonymous acquire unauthenticated"} {
		if !would[want] {
			t.Errorf("nobody noted %q; noted: %v", want, would)
		}
	}
}

// asked is the code that each call of an operator gets.
func (g *guarded) calls(t testing.TB, name string) map[string]apiv1.Code {
	ctx, c := g.as(t, name), g.client(t)
	got := map[string]apiv1.Code{}
	note := func(call string, err error) { got[call] = apiv1.CodeOf(err) }
	_, err := c.Status(ctx, &apiv1.StatusRequest{})
	note("Status", err)
	_, err = c.Members(ctx, &apiv1.MembersRequest{})
	note("Members", err)
	_, err = c.TransferLeadership(ctx, &apiv1.TransferLeadershipRequest{})
	note("TransferLeadership", err)
	_, err = c.RemoveMember(ctx, &apiv1.RemoveMemberRequest{Id: "n9"})
	note("RemoveMember", err)
	_, err = c.ListSessions(ctx, &apiv1.ListSessionsRequest{})
	note("ListSessions", err)
	_, err = c.ListSessions(ctx, &apiv1.ListSessionsRequest{Lock: "orders/1"})
	note("ListSessions of a lock", err)
	_, err = c.KillSessions(ctx, &apiv1.KillSessionsRequest{Owner: "x"})
	note("KillSessions", err)
	_, err = c.ClearLock(ctx, &apiv1.ClearLockRequest{Name: "orders/1"})
	note("ClearLock", err)
	_, err = c.GetLimits(ctx, &apiv1.GetLimitsRequest{})
	note("GetLimits", err)
	_, err = c.SetLimits(ctx, &apiv1.SetLimitsRequest{})
	note("SetLimits", err)
	_, err = c.CreateAccessToken(ctx, &apiv1.CreateAccessTokenRequest{Name: "x"})
	note("CreateAccessToken", err)
	_, err = c.ListAccessTokens(ctx, &apiv1.ListAccessTokensRequest{})
	note("ListAccessTokens", err)
	_, err = c.RevokeAccessToken(ctx, &apiv1.RevokeAccessTokenRequest{Accessor: "x"})
	note("RevokeAccessToken", err)
	_, err = c.ChangePolicies(ctx, &apiv1.ChangePoliciesRequest{})
	note("ChangePolicies", err)
	_, err = c.ListPolicies(ctx, &apiv1.ListPoliciesRequest{})
	note("ListPolicies", err)
	_, err = c.CheckRights(ctx, &apiv1.CheckRightsRequest{Identity: "token:other", Right: apiv1.Right_RIGHT_LOCK})
	note("CheckRights of another", err)
	_, err = c.CheckRights(ctx, &apiv1.CheckRightsRequest{Right: apiv1.Right_RIGHT_LOCK})
	note("CheckRights of oneself", err)
	_, err = c.WhoAmI(ctx, &apiv1.WhoAmIRequest{})
	note("WhoAmI", err)
	_, err = c.ListGossipKeys(ctx, &apiv1.ListGossipKeysRequest{})
	note("ListGossipKeys", err)
	_, err = c.ChangeGossipKeys(ctx, &apiv1.ChangeGossipKeysRequest{Use: "3f2a9c0d11e5b7a4"})
	note("ChangeGossipKeys", err)
	_, err = c.Reload(ctx, &apiv1.ReloadRequest{Member: "n9"})
	note("Reload", err)
	return got
}

func TestCallsOfAnOperatorNeedTheirRights(t *testing.T) {
	g := guard(t, AuthRequired, nil)
	if methods := len(apiv1.Locks_ServiceDesc.Methods); methods != 12+1+20 {
		t.Errorf("there are %d methods: the new ones need a row here", methods)
	}
	known := []string{"Status", "Members", "ListSessions of a lock", "CheckRights of oneself", "WhoAmI"}
	for call, code := range g.calls(t, "shop") {
		if want := slices.Contains(known, call); (code == apiv1.CodeOK) != want || !want && code != apiv1.CodeDenied {
			t.Errorf("%s with the rights of a user: %s", call, code)
		}
	}
	for call, code := range g.calls(t, "") {
		if code != apiv1.CodeUnauthenticated {
			t.Errorf("%s without a token: %s", call, code)
		}
	}
	for call, code := range g.calls(t, "boss") {
		if code != apiv1.CodeOK {
			t.Errorf("%s with all rights: %s", call, code)
		}
	}
	who := map[string]bool{}
	for _, r := range g.node.asked {
		if r, ok := r.(interface{ GetWho() string }); ok {
			who[r.GetWho()] = true
		}
	}
	if len(who) != 1 || !who["token:boss"] {
		t.Errorf("the node is told that these asked: %v", who)
	}
}

func TestWhatIsOpenIsASetting(t *testing.T) {
	closed, open := guard(t, AuthRequired, withMetrics), guard(t, AuthRequired, func(c *Config) {
		withMetrics(c)
		c.Auth.Open = []string{"metrics", "status", "members", "reflection"}
	})
	for _, path := range []string{"/", "/metrics", "/v1/status", "/v1/members", "/v1/locks", "/v1/locks/a", "/v1/sessions", "/v1/limits", "/v1/nothing", "/v1/access-tokens", "/v1/policies", "/healthz", "/readyz", "/v1/whoami"} {
		status, _ := get(t, closed.running, path)
		if want := path == "/healthz" || path == "/readyz"; (status == http.StatusOK) != want || !want && status != http.StatusUnauthorized {
			t.Errorf("%s without a token: %d", path, status)
		}
		status, _ = get(t, open.running, path)
		if want := slices.Contains([]string{"/healthz", "/readyz", "/metrics", "/v1/status", "/v1/members"}, path); (status == http.StatusOK) != want {
			t.Errorf("%s without a token where it is open: %d", path, status)
		}
	}
	if resp, _ := send(t, closed.running, http.MethodGet, "/metrics", "", "Authorization", "Bearer "+closed.secrets["shop"]); resp.StatusCode != http.StatusForbidden {
		t.Errorf("/metrics for a user: %d", resp.StatusCode)
	}
	if resp, _ := send(t, closed.running, http.MethodGet, "/metrics", "", "Authorization", "Bearer "+closed.secrets["boss"]); resp.StatusCode != http.StatusOK {
		t.Errorf("/metrics for an operator: %d", resp.StatusCode)
	}
	for g, want := range map[*guarded]codes.Code{closed: codes.Unauthenticated, open: codes.OK} {
		stream, err := grpc_reflection_v1.NewServerReflectionClient(g.dial(t)).ServerReflectionInfo(g.as(t, ""))
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
		if _, err := stream.Recv(); status.Code(err) != want {
			t.Errorf("reflection without a token: %v, want %s", err, want)
		}
	}
}

func withMetrics(c *Config) {
	c.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeText(w, "metrics") })
}

// The addresses of the members are for those who may ask for the members.
func TestADirectoryIsForKnownCallers(t *testing.T) {
	g := guard(t, AuthRequired, nil)
	g.set([]fsm.Policy{{Name: "all", For: []string{"*"}, Rules: []fsm.Rule{{Rights: fsm.RightLock}}}}, "shop")
	g.SetDirectory(&apiv1.Directory{ClusterId: "c", Members: []*apiv1.Place{{Id: "n1", ApiAddress: "10.0.0.1:7400"}}})
	for name, want := range map[string]bool{"shop": true, "": false} {
		stream, err := g.client(t).Session(g.as(t, name))
		if err != nil {
			t.Fatal(err)
		}
		got := false
		sendOps(t, stream, acquireOp(1, "x"+name, 0))
		for answers := 0; answers == 0; {
			resp, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			got = got || resp.GetDirectory() != nil
			answers += len(resp.GetAnswers())
		}
		if got != want {
			t.Errorf("%q gets the directory: %v, want %v", name, got, want)
		}
	}
}

func TestANodeThatDoesNotKnowTheRightsYetSendsCallersElsewhere(t *testing.T) {
	g := guard(t, AuthRequired, nil)
	g.book.Store(nil)
	if _, err := g.client(t).Acquire(g.as(t, "boss"), acquireOf("a", 0)); apiv1.CodeOf(err) != apiv1.CodeUnavailable {
		t.Errorf("acquire: %v", err)
	}
	if _, err := g.client(t).SetLimits(g.as(t, "boss"), &apiv1.SetLimitsRequest{}); apiv1.CodeOf(err) != apiv1.CodeUnavailable {
		t.Errorf("set limits: %v", err)
	}
	stream, err := g.client(t).Session(g.as(t, "boss"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); apiv1.CodeOf(err) != apiv1.CodeUnavailable {
		t.Errorf("stream: %v", err)
	}
	if status, _ := get(t, g.running, "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d", status)
	}
	// A certificate is known to be valid all the same, and an operator needs the status just then.
	for _, test := range []struct {
		c    *caller
		call access
		want apiv1.Code
	}{
		{&caller{proved: rights.Cert("ops")}, access{call: "Status", open: "status"}, apiv1.CodeOK},
		{&caller{proved: rights.Cert("ops")}, access{call: "SetLimits", right: fsm.RightAdmin}, apiv1.CodeUnavailable},
		{&caller{proved: rights.Cert("ops"), shown: true}, access{call: "Status", open: "status"}, apiv1.CodeUnavailable},
		{&caller{proved: rights.Anonymous}, access{call: "Status", open: "status"}, apiv1.CodeUnavailable},
	} {
		code := apiv1.CodeOK
		if err := g.mayCall(t.Context(), test.c, test.call); err != nil {
			code = apiv1.Code(err.GetCode())
		}
		if code != test.want {
			t.Errorf("%s by %s, who shows a secret: %v: %s, want %s", test.call.call, test.c.proved, test.c.shown, code, test.want)
		}
	}
}

func TestATableWithoutRightsLetsEverybody(t *testing.T) {
	g := guard(t, AuthRequired, func(c *Config) { c.Auth.Enforced = func() bool { return false } })
	if _, err := g.client(t).Acquire(g.as(t, "nobody"), acquireOf("a", 0)); err != nil {
		t.Errorf("acquire: %v", err)
	}
	if op := g.node.started[0]; op.GetOwner() != "127.0.0.1" || op.GetChecked() {
		t.Errorf("the node got %v", op)
	}
}

func TestWithoutALeaderOnlyAdminIsNotDecided(t *testing.T) {
	deaf := errors.New("nobody was heard")
	g := guard(t, AuthRequired, func(c *Config) { c.Auth.Deaf = func() error { return deaf } })
	if _, err := g.client(t).Acquire(g.as(t, "shop"), acquireOf("orders/1", 0)); err != nil {
		t.Errorf("acquire: %v", err)
	}
	_, err := g.client(t).SetLimits(g.as(t, "boss"), &apiv1.SetLimitsRequest{})
	if apiv1.CodeOf(err) != apiv1.CodeUnavailable || !strings.Contains(err.Error(), deaf.Error()) {
		t.Errorf("set limits: %v", err)
	}
}

func TestTheAuthorizerOfAnEmbedderIsAskedLast(t *testing.T) {
	var mu sync.Mutex
	var asked []Access
	g := guard(t, AuthRequired, func(c *Config) {
		c.Auth.Authorizer = func(_ context.Context, a Access) error {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, a)
			if slices.Contains(a.Names, "orders/forbidden") {
				return errors.New("a reason that callers do not see")
			}
			return nil
		}
	})
	if _, err := g.client(t).Acquire(g.as(t, "shop"), acquireOf("orders/1", 0)); err != nil {
		t.Error(err)
	}
	_, err := g.client(t).Acquire(g.as(t, "shop"), acquireOf("orders/forbidden", 0))
	if apiv1.CodeOf(err) != apiv1.CodeDenied || strings.Contains(err.Error(), "a reason") {
		t.Errorf("what the authorizer refuses: %v", err)
	}
	if _, err := g.client(t).Acquire(g.as(t, "shop"), acquireOf("billing/1", 0)); apiv1.CodeOf(err) != apiv1.CodeDenied {
		t.Error(err)
	}
	if _, err := g.client(t).SetLimits(g.as(t, "boss"), &apiv1.SetLimitsRequest{}); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	want := []Access{
		{Identity: "token:shop", Address: "127.0.0.1", Operation: "acquire", Right: "lock", Names: []string{"orders/1"}},
		{Identity: "token:shop", Address: "127.0.0.1", Operation: "acquire", Right: "lock", Names: []string{"orders/forbidden"}},
		{Identity: "token:boss", Address: "127.0.0.1", Operation: "SetLimits", Right: "admin"},
	}
	if !slices.EqualFunc(asked, want, func(a, b Access) bool {
		return a.Identity == b.Identity && a.Address == b.Address && a.Operation == b.Operation && a.Right == b.Right && slices.Equal(a.Names, b.Names)
	}) {
		t.Errorf("the authorizer was asked %+v, want %+v", asked, want)
	}
}

func TestEventsHaveWhoDidWhatAndHowItEnded(t *testing.T) {
	g := guard(t, AuthRequired, nil)
	_, _ = g.client(t).Acquire(g.as(t, "shop"), acquireOf("billing/1", 0))
	_, _ = g.client(t).ForceRelease(g.as(t, "boss"), &apiv1.ForceReleaseRequest{Name: "orders/1", Token: 4, Reason: "stuck"})
	_, _ = send(t, g.running, http.MethodPost, "/v1/access-tokens", `{"name":"new"}`, "Authorization", "Bearer "+g.secrets["boss"])
	g.node.admin = apiv1.NewError(apiv1.CodeNoMember, "no such member")
	_, _ = g.client(t).RemoveMember(g.as(t, "boss"), &apiv1.RemoveMemberRequest{Id: "n9"})
	_, _ = g.client(t).Release(g.as(t, "shop"), &apiv1.ReleaseRequest{Name: "orders/1", Token: 9})
	want := []Event{
		{Identity: "token:shop", Accessor: "accessor-shop", Operation: "acquire", Names: []string{"billing/1"}, Code: apiv1.CodeDenied, Refused: true},
		{Identity: "token:boss", Accessor: "accessor-boss", Operation: "force_release", Names: []string{"orders/1"}, Token: 4, Reason: "stuck"},
		{Identity: "token:boss", Accessor: "accessor-boss", Operation: "CreateAccessToken", Names: []string{"new", "made"}},
		{Identity: "token:boss", Accessor: "accessor-boss", Operation: "RemoveMember", Names: []string{"n9"}, Code: apiv1.CodeNoMember},
	}
	got := g.noted()
	if len(got) != len(want) {
		t.Fatalf("noted %+v", got)
	}
	for i, w := range want {
		e := got[i]
		if e.Identity != w.Identity || e.Accessor != w.Accessor || e.Operation != w.Operation || !slices.Equal(e.Names, w.Names) || e.Token != w.Token ||
			e.Reason != w.Reason || e.Code != w.Code || e.Refused != w.Refused || e.Address != "127.0.0.1" || !e.Enforced {
			t.Errorf("noted %+v, want %+v", e, w)
		}
	}
}

// Only a proof makes the first access token, and not the right to anything.
func TestBootstrapNeedsTheProofAndNothingElse(t *testing.T) {
	g := guard(t, AuthRequired, nil)
	if _, err := g.client(t).BootstrapAccessToken(g.as(t, "boss"), &apiv1.BootstrapAccessTokenRequest{Proof: "wrong", Hash: []byte("claimed"), Accessor: "claimed"}); apiv1.CodeOf(err) != apiv1.CodeUnauthenticated {
		t.Errorf("with a wrong proof: %v", err)
	}
	if r := g.node.asked[0].(*apiv1.BootstrapAccessTokenRequest); len(r.GetHash()) != 0 || r.GetAccessor() != "" {
		t.Errorf("what only nodes say was believed: %v", r)
	}
	if resp, body := send(t, g.running, http.MethodPost, "/v1/access-tokens/bootstrap", `{"proof":"right"}`); resp.StatusCode != http.StatusOK || !strings.Contains(body, "a secret") {
		t.Errorf("with the proof: %d %s", resp.StatusCode, body)
	}
	e := g.noted()
	if len(e) != 2 || !e[0].Refused || e[1].Refused || e[1].Operation != "BootstrapAccessToken" {
		t.Errorf("noted: %+v", e)
	}
}

func TestAddressesThatAreRefusedOftenWait(t *testing.T) {
	var f failures
	now := time.Now()
	for i := range refusalsAtOnce {
		if d := f.delay("10.0.0.1", now); d != 0 {
			t.Fatalf("refusal %d waits %v", i, d)
		}
	}
	if d := f.delay("10.0.0.1", now); d != refusalsEvery {
		t.Errorf("the next one waits %v, want %v", d, refusalsEvery)
	}
	for range 1000 {
		f.delay("10.0.0.1", now)
	}
	if d := f.delay("10.0.0.1", now); d != patienceWithRefused {
		t.Errorf("the thousandth waits %v, want %v", d, patienceWithRefused)
	}
	if d := f.delay("10.0.0.2", now); d != 0 {
		t.Errorf("another address waits %v", d)
	}
	if d := f.delay("10.0.0.1", now.Add(time.Minute)); d != 0 {
		t.Errorf("after a minute it waits %v", d)
	}
	for i := range 2 * maxRefused {
		f.delay(net.IPv4(10, 1, byte(i>>8), byte(i)).String(), now)
	}
	if len(f.of) > maxRefused || len(f.last) > maxRefused {
		t.Errorf("%d addresses are remembered, must be at most %d", len(f.of), maxRefused)
	}
}

// BenchmarkAdmit is what an operation on a stream costs in addition, in each mode.
func BenchmarkAdmit(b *testing.B) {
	for _, mode := range []AuthMode{AuthOff, AuthRequired} {
		b.Run(string(mode), func(b *testing.B) {
			g := guard(b, mode, nil)
			c := g.callerOf(&limitedConn{ip: "127.0.0.1"}, []string{"Bearer " + g.secrets["shop"]})
			call := &mux.Call{Op: inSession(acquireOp(1, "orders/42", 0), 1)}
			b.ReportAllocs()
			for b.Loop() {
				if err := g.admit(b.Context(), c, call); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
