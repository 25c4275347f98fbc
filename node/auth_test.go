package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/rights"
)

func required(c *Config) { c.Auth.Mode = "required" }

// bootstrapped makes the first access token of a cluster through one of its nodes.
func (c *testCluster) bootstrapped(n *Node) (root string) {
	c.t.Helper()
	c.eventually("the table has rights", func() bool { return n.rights.current() != nil && c.leader().rights.current() != nil })
	proof, err := os.ReadFile(filepath.Join(n.cfg.DataDir, proofFile))
	if err != nil {
		c.t.Fatal(err)
	}
	_, secret, err := dialled(c.t, n).BootstrapAccessToken(c.ctx(), strings.TrimSpace(string(proof)), false)
	if err != nil {
		c.t.Fatal(err)
	}
	return secret
}

// with is a client with an access token.
func (c *testCluster) with(n *Node, secret string) *client.Client {
	return dialled(c.t, n, client.Token(func() string { return secret }))
}

// grant makes an access token, and a policy that allows it some rights below a prefix.
func (c *testCluster) grant(by *client.Client, name, prefix string, of ...client.Right) (secret, accessor string) {
	c.t.Helper()
	_, err := by.ChangePolicies(c.ctx(), []client.Policy{{Name: name, For: []string{"token:" + name}, Rules: []client.Rule{{Rights: of, Name: prefix}}}}, nil, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	made, secret, err := by.CreateAccessToken(c.ctx(), client.NewAccessToken{Name: name})
	if err != nil {
		c.t.Fatal(err)
	}
	return secret, made.Accessor
}

// raw calls a node with a secret, one operation at a time.
type raw struct {
	apiv1.LocksClient
	secret string
}

func (c *testCluster) raw(n *Node, secret string) raw {
	c.t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+n.APIAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cc.Close() })
	return raw{apiv1.NewLocksClient(cc), secret}
}

func (r raw) ctx(c *testCluster) context.Context {
	return metadata.AppendToOutgoingContext(c.ctx(), "authorization", "Bearer "+r.secret)
}

func (r raw) code(c *testCluster, op *apiv1.Operation) apiv1.Code {
	c.t.Helper()
	res, err := r.Batch(r.ctx(c), &apiv1.BatchRequest{Operations: []*apiv1.Operation{op}})
	if err != nil {
		c.t.Fatal(err)
	}
	return apiv1.Code(res.GetAnswers()[0].GetError().GetCode())
}

func TestRightsHoldOnEveryNode(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, 3, required)
	root := c.with(c.follower(), c.bootstrapped(c.follower()))
	shop, accessor := c.grant(root, "shop", "orders/", client.RightRead, client.RightLock)
	for _, n := range c.nodes {
		cl := c.with(n, shop) // at once: the node that is asked may not have heard of it yet
		g, err := cl.Lock(c.ctx(), "orders/1")
		if err != nil {
			t.Fatalf("through %s: %v", n.ID(), err)
		}
		if err := g.Unlock(); err != nil {
			t.Fatal(err)
		}
		if _, err := cl.Lock(c.ctx(), "billing/1"); !errors.Is(err, client.ErrDenied) || !strings.Contains(err.Error(), `right lock on "billing/1"`) {
			t.Errorf("another name through %s: %v", n.ID(), err)
		}
		if _, err := dialled(t, n, client.ConnectTimeout(time.Second)).Lock(c.ctx(), "orders/1"); !errors.Is(err, client.ErrUnauthenticated) {
			t.Errorf("without a token through %s: %v", n.ID(), err)
		}
		if _, err := dialled(t, n, client.ConnectTimeout(time.Second)).Status(c.ctx()); !errors.Is(err, client.ErrUnauthenticated) {
			t.Errorf("status without a token through %s: %v", n.ID(), err)
		}
		if s, err := cl.Status(c.ctx()); err != nil || !s.AuthEnforced {
			t.Errorf("status through %s: %+v, %v", n.ID(), s, err)
		}
		if who, err := cl.WhoAmI(c.ctx()); err != nil || who.Name != "token:shop" || who.AccessToken.Accessor != accessor || !who.Enforced {
			t.Errorf("who am I through %s: %+v, %v", n.ID(), who, err)
		}
		if g, err := c.client(n).Lock(c.ctx(), "anything"); err != nil { // the node's own process
			t.Errorf("embedded in %s: %v", n.ID(), err)
		} else if err := g.Unlock(); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := root.RevokeAccessToken(c.ctx(), accessor, false, ""); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		c.eventually("the revocation is known on "+n.ID(), func() bool {
			_, err := c.raw(n, shop).Acquire(c.raw(n, shop).ctx(c), detachedOp("orders/2", time.Second).GetAcquire())
			return apiv1.CodeOf(err) == apiv1.CodeUnauthenticated
		})
	}
}

// What an identity has, nobody else uses: not by the ID of its session, and not by a token that
// is easily guessed. The keep-alive, which is no command, is checked as well.
func TestSessionsAndGrantsBelongToTheirIdentity(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, 3, required)
	root := c.with(c.leader(), c.bootstrapped(c.leader()))
	aSecret, _ := c.grant(root, "a", "", client.RightRead, client.RightLock)
	bSecret, _ := c.grant(root, "b", "", client.RightRead, client.RightLock)
	forcefulSecret, _ := c.grant(root, "forceful", "", client.RightForce)
	c.eventually("all nodes know all access tokens", func() bool {
		return !slices.ContainsFunc(c.nodes, func(n *Node) bool { return n.rights.book.Load().Tokens() != 4 })
	})
	session := func(b byte) []byte { return bytes.Repeat([]byte{b}, 16) }
	open := func(b byte) *apiv1.Operation {
		return &apiv1.Operation{Request: &apiv1.Operation_OpenSession{OpenSession: &apiv1.OpenSessionRequest{Session: session(b), TtlNs: int64(time.Minute)}}}
	}
	for i, n := range c.nodes {
		own, mine := byte(i+1), c.raw(n, aSecret)
		if code := mine.code(c, open(own)); code != apiv1.CodeOK {
			t.Fatalf("open a session: %s", code)
		}
		held, err := mine.Acquire(mine.ctx(c), detachedOp(fmt.Sprint("held/", i), time.Minute).GetAcquire())
		if err != nil {
			t.Fatal(err)
		}
		ops := map[string]func() *apiv1.Operation{
			"open again": func() *apiv1.Operation { return open(own) },
			"keep alive": func() *apiv1.Operation {
				return &apiv1.Operation{Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{Session: session(own)}}}
			},
			"acquire in it": func() *apiv1.Operation {
				return &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{
					Id: &apiv1.RequestID{Session: session(own), Sequence: 1}, Locks: []*apiv1.Want{{Name: "x"}},
				}}}
			},
			"end it": func() *apiv1.Operation {
				return &apiv1.Operation{Request: &apiv1.Operation_EndSession{EndSession: &apiv1.EndSessionRequest{Session: session(own)}}}
			},
			"renew": func() *apiv1.Operation {
				return &apiv1.Operation{Request: &apiv1.Operation_Renew{Renew: &apiv1.RenewRequest{Token: held.GetToken(), TtlNs: int64(time.Minute)}}}
			},
			"set value": func() *apiv1.Operation {
				return &apiv1.Operation{Request: &apiv1.Operation_SetValue{SetValue: &apiv1.SetValueRequest{Token: held.GetToken(), Value: []byte("v")}}}
			},
			"release": func() *apiv1.Operation {
				return &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Token: held.GetToken()}}}
			},
		}
		for what, op := range ops {
			if code := c.raw(n, bSecret).code(c, op()); code != apiv1.CodeDenied {
				t.Errorf("%s, by another identity through %s: %s", what, n.ID(), code)
			}
		}
		for _, what := range []string{"open again", "keep alive", "acquire in it", "renew", "set value", "end it"} {
			if code := mine.code(c, ops[what]()); code != apiv1.CodeOK {
				t.Errorf("%s, by the identity itself through %s: %s", what, n.ID(), code)
			}
		}
		if code := c.raw(n, forcefulSecret).code(c, ops["release"]()); code != apiv1.CodeOK {
			t.Errorf("release with the right force through %s: %s", n.ID(), code)
		}
	}
}

func TestListShowsWhatMayBeRead(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, 1, required)
	root := c.with(c.leader(), c.bootstrapped(c.leader()))
	reader, _ := c.grant(root, "reader", "orders/", client.RightRead)
	_, err := root.ChangePolicies(c.ctx(), []client.Policy{{Name: "more", For: []string{"token:reader"}, Rules: []client.Rule{
		{Deny: true, Rights: []client.Right{client.RightRead}, Name: "orders/secret/"},
		{Rights: []client.Right{client.RightRead}, Name: "orders/secret/7", Exact: true},
		{Rights: []client.Right{client.RightRead}, Name: "zz", Exact: true},
	}}}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	embedded := c.client(c.leader())
	for i := range 40 {
		for _, prefix := range []string{"billing/", "orders/", "orders/secret/", "z"} {
			name := fmt.Sprint(prefix, i)
			if _, err := embedded.Lock(c.ctx(), name); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(name, "orders/") && !strings.HasPrefix(name, "orders/secret/") || name == "orders/secret/7" {
				want = append(want, name)
			}
		}
	}
	slices.Sort(want)
	r := c.raw(c.leader(), reader)
	for _, page := range []uint32{1, 7, 16, 41, 100} {
		var got []string
		after, pages := "", 0
		for {
			res, err := r.List(r.ctx(c), &apiv1.ListRequest{Limit: page, After: after})
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range res.GetLocks() {
				got = append(got, l.GetName())
			}
			if pages++; res.GetNext() == "" {
				break
			}
			if after = res.GetNext(); len(res.GetLocks()) == 0 || after != res.GetLocks()[len(res.GetLocks())-1].GetName() {
				t.Fatalf("a page of %d ends with %q, and the next one begins after %q", page, res.GetLocks(), after)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pages of %d: %q, want %q", page, got, want)
		}
		if most := (len(want) + int(page) - 1) / int(page); pages != most {
			t.Errorf("%d pages of %d, want %d", pages, page, most)
		}
	}
	res, err := r.List(r.ctx(c), &apiv1.ListRequest{Prefix: "orders/secret/"})
	if err != nil || len(res.GetLocks()) != 1 || res.GetLocks()[0].GetName() != "orders/secret/7" {
		t.Errorf("with a prefix: %v, %v", res, err)
	}
	if res, err = r.List(r.ctx(c), &apiv1.ListRequest{Prefix: "billing/"}); err != nil || len(res.GetLocks())+len(res.GetNext()) != 0 {
		t.Errorf("with a prefix of which nothing may be read: %v, %v", res, err)
	}
}

// A table to which an old member keeps the rights from is used by everybody, and says so.
func TestATableWithoutRightsServesEverybodyAndSaysSo(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, 1, func(cfg *Config) { required(cfg); cfg.FeatureLevel = 1 })
	n := c.leader()
	s := n.Status()
	if _, err := c.raw(n, "x").Acquire(c.ctx(), detachedOp("a", time.Minute).GetAcquire()); s.AuthEnforced && apiv1.CodeOf(err) != apiv1.CodeUnavailable {
		t.Errorf("as long as the level may still be raised: %v", err)
	}
	c.eventually("the node serves without rights", func() bool { return !n.Status().AuthEnforced })
	if s = n.Status(); s.AuthMode != "required" || !strings.Contains(s.AuthNote, "level 1") {
		t.Errorf("the status has %+v", s)
	}
	g, err := dialled(t, n).Lock(c.ctx(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Unlock(); err != nil {
		t.Fatal(err)
	}
}

func TestANodeThatHearsNoLeaderDoesNotDecideAboutAdmin(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, 3, required)
	last := c.follower()
	secret := c.bootstrapped(last)
	c.eventually("the node knows the access token", func() bool { return last.rights.book.Load().Tokens() == 1 })
	if err := last.rights.deaf(); err != nil {
		t.Fatalf("while the leader is there: %v", err)
	}
	for _, n := range c.nodes {
		if n != last {
			_ = n.Close()
		}
	}
	c.eventually("the node has heard nothing for a while", func() bool { return last.rights.deaf() != nil })
	r := c.raw(last, secret)
	_, err := r.GetLimits(r.ctx(c), &apiv1.GetLimitsRequest{})
	if apiv1.CodeOf(err) != apiv1.CodeUnavailable || !strings.Contains(err.Error(), "not heard from the leader") {
		t.Errorf("what needs admin: %v", err)
	}
	if _, err := r.Status(r.ctx(c), &apiv1.StatusRequest{}); err != nil {
		t.Errorf("what needs no more than a known caller: %v", err)
	}
}

func TestRevocationEndsWhatTheIdentityHasIfAsked(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, 3, required)
	root := c.with(c.follower(), c.bootstrapped(c.follower()))
	secret, accessor := c.grant(root, "shop", "", client.RightLock)
	c.eventually("all nodes know the access token", func() bool {
		return !slices.ContainsFunc(c.nodes, func(n *Node) bool { return n.rights.book.Load().Tokens() != 2 })
	})
	cl := c.with(c.follower(), secret)
	g, err := cl.Lock(c.ctx(), "in a session")
	if err != nil {
		t.Fatal(err)
	}
	r := c.raw(c.follower(), secret)
	if _, err := r.Acquire(r.ctx(c), detachedOp("detached", time.Hour).GetAcquire()); err != nil {
		t.Fatal(err)
	}
	_, killed, err := root.RevokeAccessToken(c.ctx(), accessor, true, "it was found in a repository")
	if err != nil || killed.Sessions != 1 || killed.Grants != 1 {
		t.Fatalf("revoke: %+v, %v", killed, err)
	}
	for _, name := range []string{"in a session", "detached"} {
		if held, err := root.IsLocked(c.ctx(), name); err != nil || held {
			t.Errorf("%q is held: %v, %v", name, held, err)
		}
	}
	c.eventually("the client loses its grant", func() bool { return g.Err() != nil })
	if _, _, err := root.RevokeAccessToken(c.ctx(), accessor, true, ""); !errors.Is(err, client.ErrNotHeld) {
		t.Errorf("revoke again: %v", err)
	}
}

func TestAnAccessTokenEndsWithItsTime(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, 1, required)
	n := c.leader()
	root := c.with(n, c.bootstrapped(n))
	made, secret, err := root.CreateAccessToken(c.ctx(), client.NewAccessToken{Name: "short", TTL: time.Second})
	if err != nil || made.Remaining <= 0 || made.Remaining > time.Second || made.MadeBy != "token:root" {
		t.Fatalf("create: %+v, %v", made, err)
	}
	r := c.raw(n, secret)
	if who, err := r.WhoAmI(r.ctx(c), &apiv1.WhoAmIRequest{}); err != nil || who.GetAccessToken().GetRemainingNs() <= 0 {
		t.Errorf("at first: %v, %v", who, err)
	}
	c.eventually("the access token has ended", func() bool {
		_, err := r.WhoAmI(r.ctx(c), &apiv1.WhoAmIRequest{})
		return apiv1.CodeOf(err) == apiv1.CodeUnauthenticated
	})
	if tokens, _, err := root.AccessTokens(c.ctx(), ""); err != nil || len(tokens) != 1 {
		t.Errorf("access tokens: %+v, %v", tokens, err)
	}
}

func TestBootstrapTakesTheProofOfTheNodeOnly(t *testing.T) {
	t.Parallel()
	var logged lockedBuffer
	c := startClusterWith(t, 2, func(cfg *Config) {
		required(cfg)
		cfg.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	secret := c.bootstrapped(c.nodes[0])
	proofs := make([]string, 2)
	for i, n := range c.nodes {
		path := filepath.Join(n.cfg.DataDir, proofFile)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", path, info.Mode(), err)
		}
		proofs[i] = strings.TrimSpace(string(text))
	}
	if proofs[0] == proofs[1] || len(proofs[0]) != 64 {
		t.Errorf("the proofs are %d characters, the same: %v", len(proofs[0]), proofs[0] == proofs[1])
	}
	other := dialled(t, c.nodes[1])
	for proof, want := range map[string]error{proofs[0]: client.ErrUnauthenticated, "": client.ErrUnauthenticated, proofs[1]: client.ErrDenied} {
		if _, _, err := other.BootstrapAccessToken(c.ctx(), proof, false); !errors.Is(err, want) {
			t.Errorf("with %.4q…: %v, want %v", proof, err, want)
		}
	}
	_, second, err := other.BootstrapAccessToken(c.ctx(), proofs[1], true)
	if err != nil {
		t.Fatal(err)
	}
	tokens, _, err := c.with(c.nodes[1], second).AccessTokens(c.ctx(), "")
	if err != nil || len(tokens) != 2 || tokens[0].Name != "root" {
		t.Errorf("access tokens: %+v, %v", tokens, err)
	}
	text := logged.String()
	for what, hidden := range map[string]string{"the secret": secret, "the second secret": second, "a proof": proofs[0], "another proof": proofs[1]} {
		if strings.Contains(text, hidden) {
			t.Errorf("the log has %s", what)
		}
	}
}

// lockedBuffer is a buffer that many goroutines write.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestARestartedNodeAsksForRightsAtOnce(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, 1, required)
	n := c.nodes[0]
	secret := c.bootstrapped(n)
	cfg := n.cfg
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(t.Context(), Config{ID: cfg.ID, DataDir: cfg.DataDir, Listen: "127.0.0.1:0", BootstrapExpect: 1, Fast: true, Auth: cfg.Auth})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = again.Close() })
	c.nodes[0] = again
	r := c.raw(again, "nothing")
	for i := 0; ; i++ { // from the first moment on
		_, err := r.Acquire(r.ctx(c), detachedOp("a", time.Minute).GetAcquire())
		switch code := apiv1.CodeOf(err); {
		case code == apiv1.CodeUnavailable:
			continue
		case code != apiv1.CodeUnauthenticated:
			t.Fatalf("try %d by a stranger: %v", i, err)
		}
		break
	}
	c.awaitReady()
	if _, err := c.with(again, secret).Lock(c.ctx(), "a"); err != nil {
		t.Errorf("with the access token of before: %v", err)
	}
}

func TestPoliciesAreListedAsTheyWerePut(t *testing.T) {
	t.Parallel()
	c := startClusterWith(t, 1, required)
	root := c.with(c.leader(), c.bootstrapped(c.leader()))
	want := client.Policy{
		Name: "shop", For: []string{"token:shop", "label:team=x", "*"},
		Rules: []client.Rule{{Rights: []client.Right{client.RightRead, client.RightLock}, Name: "orders/"}, {Deny: true, Rights: []client.Right{client.RightForce}, Name: "x", Exact: true}, {Rights: []client.Right{client.RightAdmin}}},
		Quota: client.Quota{Sessions: 1, Grants: 2, Waiters: 3, Bytes: 4000, OpsPerSecond: 5, Connections: 6, Streams: 7, UnsentBytes: 8000},
	}
	changed, err := root.ChangePolicies(c.ctx(), []client.Policy{want}, []string{"there is none"}, 0)
	if err != nil || !slices.Equal(changed.Added, []string{"shop"}) || len(changed.Removed) != 0 {
		t.Fatalf("put: %+v, %v", changed, err)
	}
	all, _, index, err := root.Policies(c.ctx(), "")
	if err != nil || len(all) != 2 || all[0].Name != "root" || fmt.Sprint(all[1]) != fmt.Sprint(want) {
		t.Errorf("listed: %+v, %v; want %+v", all, err, want)
	}
	if changed, err = root.ChangePolicies(c.ctx(), []client.Policy{want}, nil, index); err != nil || !slices.Equal(changed.Unchanged, []string{"shop"}) {
		t.Errorf("put again: %+v, %v", changed, err)
	}
	if _, err = root.ChangePolicies(c.ctx(), nil, []string{"shop"}, index-1); err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Errorf("with an old index: %v", err)
	}
	if changed, err = root.ChangePolicies(c.ctx(), nil, []string{"shop"}, index); err != nil || !slices.Equal(changed.Removed, []string{"shop"}) {
		t.Errorf("remove: %+v, %v", changed, err)
	}
	d, err := root.CheckRights(c.ctx(), "token:root", client.RightForce, "orders/1")
	if err != nil || !d.Allowed || d.Policy != "root" || d.Number != 1 {
		t.Errorf("check: %+v, %v", d, err)
	}
	if _, err = root.ChangePolicies(c.ctx(), []client.Policy{{Name: "bad", For: []string{"nobody"}}}, nil, 0); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("a policy for nobody: %v", err)
	}
}

// In TLS a client certificate is an identity.
func TestAClientCertificateIsAnIdentity(t *testing.T) {
	t.Parallel()
	a := authority(t, "bank")
	tls := inTLS(t, a, "required")
	c := startClusterWith(t, 1, func(cfg *Config) { required(cfg); tls(cfg) })
	n := c.leader()
	c.eventually("the table has rights", func() bool { return n.rights.current() != nil })
	embedded := c.client(n)
	if _, err := embedded.ChangePolicies(c.ctx(), []client.Policy{{Name: "billing", For: []string{"cert:billing"}, Rules: []client.Rule{{Rights: []client.Right{client.RightLock}, Name: "billing/"}}}}, nil, 0); err != nil {
		t.Fatal(err)
	}
	cert, key, err := a.Client("billing")
	if err != nil {
		t.Fatal(err)
	}
	cl := dialled(t, n, client.TLSFiles(a.CAFile(), cert, key))
	if who, err := cl.WhoAmI(c.ctx()); err != nil || who.Name != "cert:billing" {
		t.Errorf("who am I: %+v, %v", who, err)
	}
	g, err := cl.Lock(c.ctx(), "billing/1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Unlock() }()
	if _, err := cl.Lock(c.ctx(), "orders/1"); !errors.Is(err, client.ErrDenied) {
		t.Errorf("another name: %v", err)
	}
	owner := ""
	n.machine.View(func(t *fsm.Table) {
		if all, _ := t.Sessions(fsm.SessionFilter{}, 0, 10); len(all) > 0 {
			owner = all[len(all)-1].Owner
		}
	})
	if owner != "cert:billing" {
		t.Errorf("the session belongs to %q", owner)
	}
}

// One keep-alive of a session by a stranger is refused, and those of its owner in the same entry
// are not.
func TestForeignKeepAlivesLeaveTheOthersInTheEntry(t *testing.T) {
	l := &lanes{}
	for i, k := range []struct {
		session byte
		caller  string
	}{{1, "token:a"}, {1, "token:b"}, {2, "token:b"}, {3, ""}} {
		l.alive.Push(fair.Owner{Connection: uint64(i)}, keepAlive{session: fsm.KeepAliveSession{Session: fsm.SessionID{k.session}, RevocationsSeen: uint64(i)}, caller: k.caller}, 0, fair.Room{Items: 10})
	}
	b := l.take(map[fsm.SessionID]int32{})
	foreign := make([]bool, len(b.alive))
	for i, k := range b.alive {
		foreign[i] = k.caller == "token:b"
	}
	out := b.withoutForeign(foreign)
	if len(out) != 2 || len(b.alive) != 2 || len(b.sessions) != 2 {
		t.Fatalf("taken out %d, left %d of %d sessions", len(out), len(b.alive), len(b.sessions))
	}
	for i, k := range b.alive {
		if s := b.sessions[b.slots[i]]; s.Session != k.session.Session || s.RevocationsSeen != k.session.RevocationsSeen {
			t.Errorf("the place of %v in the entry has %v", k.session, s)
		}
	}
}

func TestSettingsOfRightsAreChecked(t *testing.T) {
	t.Parallel()
	err := Config{DataDir: "x", Auth: Auth{Mode: "on", Open: []string{"metrics", "all"}}}.Validate()
	for _, want := range []string{`auth mode: is "on", must be off, log or required`, `auth open: is "all", must be metrics, status, members or reflection`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate: %v, want %s", err, want)
		}
	}
	if err := (Config{DataDir: "x", Auth: Auth{Mode: "log", Open: authOpens}}).Validate(); err != nil {
		t.Error(err)
	}
}

// BenchmarkCycle is an acquire and release without contention, over a connection, with and
// without rights.
func BenchmarkCycle(b *testing.B) {
	for _, mode := range []string{"off", "required"} {
		b.Run(mode, func(b *testing.B) {
			n, err := Open(b.Context(), Config{ID: "n1", DataDir: b.TempDir(), Listen: "127.0.0.1:0", BootstrapExpect: 1, Fast: true, Auth: Auth{Mode: mode}})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = n.Close() })
			for n.rights.current() == nil {
				time.Sleep(time.Millisecond)
			}
			embedded := n.Client()
			_, secret, err := embedded.CreateAccessToken(b.Context(), client.NewAccessToken{Name: "shop"})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := embedded.ChangePolicies(b.Context(), []client.Policy{{Name: "shop", For: []string{"token:shop"}, Rules: []client.Rule{{Rights: []client.Right{client.RightLock}, Name: "orders/"}}}}, nil, 0); err != nil {
				b.Fatal(err)
			}
			cl, err := client.Dial(b.Context(), []string{n.APIAddr()}, client.Token(func() string { return secret }))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = embedded.Close(); _ = cl.Close() })
			b.SetParallelism(32)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				name := "orders/" + rights.NewAccessor()
				for pb.Next() {
					g, err := cl.Lock(b.Context(), name)
					if err != nil {
						b.Error(err)
						return
					}
					if err := g.Unlock(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
