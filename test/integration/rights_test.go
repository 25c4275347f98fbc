//go:build unix

package integration

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/pki"
	"github.com/locknode/locknode/internal/proof/proc"
)

const exitDenied = 77

// shopPolicy is what the tests give to the access token named shop.
const shopPolicy = `name: shop
for: [token:shop]
rules:
  - {allow: [read, lock], prefix: orders/}
`

// guarded is a cluster in TLS that requires rights.
type guarded struct {
	*proc.Cluster
	pki  *pki.Authority
	dir  string // of access tokens and policies
	root string // file with an access token that has all rights
}

// shown shows an access token. It implements credentials.PerRPCCredentials.
type shown string

func (s shown) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(s)}, nil
}

func (shown) RequireTransportSecurity() bool { return true }

// startGuarded starts three nodes that require TLS and rights, and makes the first access token.
func startGuarded(t *testing.T, args ...string) *guarded {
	t.Helper()
	g := &guarded{pki: authority(t), dir: t.TempDir()}
	config := trusting(t, g.pki)
	// Until there is an access token, the tests wait for nodes by their status.
	g.Cluster = startBank(t, func(n *proc.Node) error {
		n.Secure(credentials.NewTLS(config))
		n.AddArgs(tlsArguments(t, g.pki, n.ID, "required")...)
		n.AddArgs(append([]string{"--auth.mode", "required"}, args...)...)
		return nil
	}, "LOCKNODE_AUTH_OPEN=status")
	g.root = g.bootstrap(t, g.Nodes()[0], "root.token")
	return g
}

// bootstrap makes an access token with all rights in a file. A cluster that has just formed
// knows access tokens only when all nodes have said that they do.
func (g *guarded) bootstrap(t *testing.T, n *proc.Node, file string, args ...string) string {
	t.Helper()
	path := filepath.Join(g.dir, file)
	eventually(t, "an access token with all rights", func() bool {
		c := g.run(t, "", append([]string{"token", "bootstrap", "--data-dir", n.Dir, "--endpoints", n.API(), "--out", path}, args...)...)
		code := c.wait(t)
		if code != 0 {
			t.Logf("token bootstrap: %s", c.stderr.String())
		}
		return code == 0
	})
	return path
}

// run starts a command with an access token in a file; without one, as nobody.
func (g *guarded) run(t *testing.T, token string, args ...string) *command {
	t.Helper()
	return g.runAt(t, g.Endpoints(), token, args...)
}

func (g *guarded) runAt(t *testing.T, endpoints []string, token string, args ...string) *command {
	t.Helper()
	return g.runIn(t, []string{"LOCKNODE_ENDPOINTS=" + strings.Join(endpoints, ","), "LOCKNODE_TOKEN_FILE=" + token}, args...)
}

// runIn starts a command with more variables in its environment.
func (g *guarded) runIn(t *testing.T, env []string, args ...string) *command {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = cleanEnvironment(slices.Concat([]string{"LOCKNODE_ENDPOINTS=" + strings.Join(g.Endpoints(), ","), "GORACE=atexit_sleep_ms=0",
		"LOCKNODE_CONNECT_TIMEOUT=1m", "LOCKNODE_TLS_CA=" + g.pki.CAFile()}, env)...)
	return launch(t, cmd)
}

// policy applies a policy.
func (g *guarded) policy(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(g.dir, "policy.yaml")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	g.run(t, g.root, "policy", "apply", path).ends(t, 0)
}

// token makes an access token in a file, and returns the file and the accessor.
func (g *guarded) token(t *testing.T, name, file string) (path, accessor string) {
	t.Helper()
	path = filepath.Join(g.dir, file)
	made := into[struct {
		AccessToken struct {
			Accessor string `json:"accessor"`
		} `json:"access_token"`
		Secret string `json:"secret"`
	}](t, g.run(t, g.root, "token", "create", name, "--out", path, "-o", "json"))
	if made.Secret != "" || made.AccessToken.Accessor == "" {
		t.Fatalf("token create --out prints %+v, want an accessor and no secret", made)
	}
	return path, made.AccessToken.Accessor
}

func secretIn(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return strings.TrimSpace(string(b))
}

// fromFile is client.Token of a file that may be replaced.
func fromFile(t *testing.T, path string) client.Option {
	t.Helper()
	last := secretIn(t, path)
	return client.Token(func() string {
		if b, err := os.ReadFile(path); err == nil {
			last = strings.TrimSpace(string(b))
		}
		return last
	})
}

// web asks a node over HTTP and returns the status and the answer.
func (g *guarded) web(t *testing.T, n *proc.Node, secret, method, path, body string) (int, string) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, "https://"+n.HTTP()+path, strings.NewReader(body))
	must(t, err)
	if secret != "" {
		q.Header.Set("Authorization", "Bearer "+secret)
	}
	transport := &http.Transport{TLSClientConfig: trusting(t, g.pki)}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport, Timeout: patience}).Do(q)
	must(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(t, err)
	return res.StatusCode, string(b)
}

// An access token does what its policy allows, by each way into the cluster, and nothing else.
func TestATokenDoesWhatItsPolicyAllows(t *testing.T) {
	t.Parallel()
	g := startGuarded(t)
	g.policy(t, shopPolicy)
	shop, _ := g.token(t, "shop", "shop.token")
	secret := secretIn(t, shop)

	grant := into[grantView](t, g.run(t, shop, "acquire", "orders/1", "--ttl", "1m", "-o", "json"))
	g.run(t, shop, "release", "orders/1", fmt.Sprint(grant.Token)).ends(t, 0)
	refused := g.run(t, shop, "acquire", "billing/1").ends(t, exitDenied)
	if out := refused.stderr.String(); !strings.Contains(out, "lock") || !strings.Contains(out, "billing/1") {
		t.Errorf("the refusal names not what is missing: %s", out)
	}
	for _, n := range g.Nodes() {
		if code, body := g.web(t, n, secret, "POST", "/v1/acquire", `{"name":"billing/1","ttl":"1m"}`); code != 403 || !strings.Contains(body, `"denied"`) {
			t.Errorf("%s: acquire of billing/1 over HTTP: %d %s, want 403", n.ID, code, body)
		}
		if code, body := g.web(t, n, secret, "GET", "/v1/locks/billing/1", ""); code != 403 {
			t.Errorf("%s: read of billing/1 over HTTP: %d %s, want 403", n.ID, code, body)
		}
		if code, body := g.web(t, n, secret, "GET", "/v1/locks/orders/1", ""); code != 200 {
			t.Errorf("%s: read of orders/1 over HTTP: %d %s, want 200", n.ID, code, body)
		}
	}
	c := dial(t, g.Endpoints(), client.TLSFiles(g.pki.CAFile(), "", ""), fromFile(t, shop))
	held, err := c.Lock(within(t, patience), "orders/2")
	must(t, err)
	if _, err := c.Lock(within(t, patience), "billing/2"); !errors.Is(err, client.ErrDenied) {
		t.Errorf("billing/2 with the Go client: %v, want ErrDenied", err)
	}
	must(t, held.Unlock())

	// What it does not have: what needs other rights.
	for _, args := range [][]string{
		{"token", "ls"}, {"token", "create", "more"}, {"policy", "ls"}, {"limits", "set", "sessions=5"}, {"sessions", "ls"}, {"transfer-leadership"},
		{"members", "remove", "n3"}, {"force-release", "orders/1", "--reason", "x"}, {"clear", "orders/1", "--reason", "x"}, {"auth", "check", "--as", "token:root", "admin"},
		{"sessions", "kill", "--owner", "token:root", "--reason", "x"},
	} {
		g.run(t, shop, args...).ends(t, exitDenied)
	}
	// And what explains it.
	if out := g.run(t, g.root, "auth", "check", "--as", "token:shop", "acquire", "orders/42").ends(t, 0).stdout.String(); !strings.Contains(out, `policy "shop"`) {
		t.Errorf("auth check does not name the policy: %s", out)
	}
	g.run(t, g.root, "auth", "check", "--as", "token:shop", "acquire", "billing/1").ends(t, exitDenied)
}

// Who has shown nothing, or something wrong, gets nothing but /healthz and /readyz.
func TestNobodyGetsInWithoutAToken(t *testing.T) {
	t.Parallel()
	g := startGuarded(t)
	secret := secretIn(t, g.root)
	stop(t, g.Nodes()[2])
	must(t, g.Nodes()[2].Start("--auth.open", "reflection")) // and not the status
	g.Nodes()[2].Identify(shown(secret))
	must(t, g.Nodes()[2].WaitReady(within(t, patience)))
	n := g.Nodes()[2]
	for _, wrong := range []string{"", secret[:len(secret)-1], strings.ToUpper(secret)} { // each failure is answered later
		for _, path := range []string{"/healthz", "/readyz"} {
			eventually(t, path, func() bool { // another one may just have been elected
				code, body := g.web(t, n, wrong, "GET", path, "")
				if code != 200 && code != 503 {
					t.Fatalf("%s with %q: %d %s, want 200", path, wrong, code, body)
				}
				return code == 200
			})
		}
		for _, q := range [][2]string{
			{"GET", "/metrics"}, {"GET", "/v1/status"}, {"GET", "/v1/members"}, {"GET", "/v1/locks"}, {"GET", "/v1/locks/a"}, {"GET", "/v1/sessions"},
			{"GET", "/v1/limits"}, {"GET", "/v1/access-tokens"}, {"GET", "/v1/policies"}, {"GET", "/debug/pprof/"}, {"GET", "/v1/no-such-thing"},
			{"POST", "/v1/acquire"}, {"POST", "/v1/access-tokens"}, {"DELETE", "/v1/access-tokens/x"},
		} {
			code, body := g.web(t, n, wrong, q[0], q[1], map[bool]string{true: `{"name":"a","ttl":"1m"}`, false: `{"name":"a"}`}[q[1] == "/v1/acquire"])
			if code != 401 && code != 404 {
				t.Errorf("%s %s with %q: %d %s, want 401", q[0], q[1], wrong, code, body)
			}
			if wrong != "" && len(wrong) > 10 && strings.Contains(body, wrong[4:]) {
				t.Errorf("%s with a wrong secret repeats it: %s", q[1], body)
			}
		}
		checkNoCalls(t, g, n, wrong)
	}
	g.runAt(t, []string{n.API()}, "", "acquire", "a").ends(t, exitDenied)
	g.runAt(t, []string{n.API()}, "", "status").ends(t, exitDenied)
	g.runAt(t, []string{n.API()}, "", "wait").ends(t, exitDenied)
}

// checkNoCalls makes every call of the API with a wrong secret.
func checkNoCalls(t *testing.T, g *guarded, n *proc.Node, wrong string) {
	t.Helper()
	options := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(trusting(t, g.pki)))}
	if wrong != "" {
		options = append(options, grpc.WithPerRPCCredentials(shown(wrong)))
	}
	conn, err := grpc.NewClient("passthrough:///"+n.API(), options...)
	must(t, err)
	defer conn.Close()
	for _, m := range apiv1.Locks_ServiceDesc.Methods {
		var request proto.Message = &apiv1.StatusRequest{}
		switch m.MethodName {
		case "Acquire":
			request = &apiv1.AcquireRequest{Locks: []*apiv1.Want{{Name: "a"}}, Detached: true, TtlNs: int64(time.Minute)}
		case "Batch": // it answers for each operation
			continue
		case "BootstrapAccessToken": // it asks for another proof
			request = &apiv1.BootstrapAccessTokenRequest{Proof: wrong}
		}
		err := conn.Invoke(within(t, patience), "/"+apiv1.Locks_ServiceDesc.ServiceName+"/"+m.MethodName, request, &apiv1.StatusResponse{})
		if code := grpcstatus.Code(err); code != codes.Unauthenticated {
			t.Errorf("call %s with %q: %v, want Unauthenticated", m.MethodName, wrong, err)
		}
	}
	batch, err := apiv1.NewLocksClient(conn).Batch(within(t, patience), &apiv1.BatchRequest{Operations: []*apiv1.Operation{
		{Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: "a"}}},
	}})
	if grpcstatus.Code(err) != codes.Unauthenticated && (len(batch.GetAnswers()) != 1 || apiv1.Code(batch.Answers[0].GetError().GetCode()) != apiv1.CodeUnauthenticated) {
		t.Errorf("a batch with %q: %v, %v, want that its operation is refused", wrong, batch, err)
	}
	stream, err := apiv1.NewLocksClient(conn).Session(within(t, patience))
	must(t, err)
	if _, err := stream.Recv(); grpcstatus.Code(err) != codes.Unauthenticated {
		t.Errorf("a stream with %q: %v, want Unauthenticated", wrong, err)
	}
}

// A client's certificate opens no port of nodes, curl needs the CA, and all of it is TLS 1.3.
func TestPortsOfAGuardedCluster(t *testing.T) {
	t.Parallel()
	g := startGuarded(t)
	n := g.Nodes()[0]
	certFile, keyFile, err := g.pki.Client("shop")
	must(t, err)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	must(t, err)
	config := trusting(t, g.pki)
	config.Certificates = []tls.Certificate{pair}
	conn, err := tls.Dial("tcp", n.Raft(), config)
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, err = conn.Read(make([]byte, 1)) // in TLS 1.3 the client learns of the refusal later
		conn.Close()
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a client's certificate on the Raft port: %v, want that it is refused", err)
	}
	if curl, err := exec.LookPath("curl"); err == nil {
		url := "https://" + n.HTTP() + "/healthz"
		if out, err := exec.CommandContext(t.Context(), curl, "-sS", url).CombinedOutput(); err == nil {
			t.Errorf("curl without the CA gets an answer: %s", out)
		}
		if out, err := exec.CommandContext(t.Context(), curl, "-sSf", "--cacert", g.pki.CAFile(), url).CombinedOutput(); err != nil {
			t.Errorf("curl with the CA: %v: %s", err, out)
		}
	}
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("there is no openssl on this machine: the rest of the test was not run")
	}
	for _, addr := range []string{n.API(), n.HTTP(), n.Raft()} {
		cmd := exec.CommandContext(t.Context(), openssl, "s_client", "-connect", addr, "-CAfile", g.pki.CAFile(), "-brief")
		cmd.Stdin = strings.NewReader("")
		out, _ := cmd.CombinedOutput() // on the Raft port it ends with an error, after the handshake
		if !bytes.Contains(out, []byte("TLSv1.3")) {
			t.Errorf("openssl s_client at %s shows no TLS 1.3:\n%s", addr, out)
		}
	}
}

// A revoked access token takes no lock any more, at any node, and its sessions end if that is
// asked for. A client that has another one by then goes on.
func TestRevokedTokenTakesNoLock(t *testing.T) {
	t.Parallel()
	g := startGuarded(t)
	g.policy(t, shopPolicy)
	shop, accessor := g.token(t, "shop", "shop.token")
	secret := secretIn(t, shop)
	replaced := filepath.Join(g.dir, "replaced.token")
	must(t, os.WriteFile(replaced, []byte(secret), 0o600))
	secure := client.TLSFiles(g.pki.CAFile(), "", "")
	stays := dial(t, g.Endpoints(), secure, client.Token(func() string { return secret }), client.SessionTTL(20*time.Second))
	goesOn := dial(t, g.Endpoints(), secure, fromFile(t, replaced))
	kept, err := stays.Lock(within(t, patience), "orders/kept")
	must(t, err)
	other, err := goesOn.Lock(within(t, patience), "orders/other")
	must(t, err)

	next, _ := g.token(t, "shop", "next.token")
	must(t, os.Rename(next, replaced))
	g.run(t, g.root, "token", "revoke", accessor).ends(t, 0)
	revoked := time.Now()
	refusedSince := map[string]time.Time{}
	eventually(t, "no node accepts the token", func() bool {
		for _, n := range g.Nodes() {
			code, _ := g.web(t, n, secret, "POST", "/v1/acquire", `{"name":"orders/9","ttl":"1s"}`)
			switch _, refused := refusedSince[n.ID]; {
			case code == 401 && !refused:
				refusedSince[n.ID] = time.Now()
			case code != 401 && refused:
				t.Fatalf("%s accepts the token again: %d", n.ID, code)
			}
		}
		return len(refusedSince) == len(g.Nodes())
	})
	for id, at := range refusedSince {
		t.Logf("%s refused the token %v after the revocation was answered", id, at.Sub(revoked).Round(time.Millisecond))
	}
	if _, err := stays.Lock(within(t, patience), "orders/3"); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("Lock with the revoked token: %v, want ErrUnauthenticated", err)
	}
	if kept.Err() != nil {
		t.Errorf("what it holds was not to be ended: %v", kept.Err())
	}
	more, err := goesOn.Lock(within(t, patience), "orders/4")
	must(t, err)
	must(t, more.Unlock())
	if other.Err() != nil {
		t.Errorf("the client with the new token has lost its lock: %v", other.Err())
	}

	// The other token has the same name: all that the name holds is ended.
	var all struct {
		AccessTokens []struct{ Accessor, Name string } `json:"access_tokens"`
	}
	must(t, json.Unmarshal([]byte(g.run(t, g.root, "token", "ls", "-o", "json").ends(t, 0).stdout.String()), &all))
	i := slices.IndexFunc(all.AccessTokens, func(one struct{ Accessor, Name string }) bool { return one.Name == "shop" })
	if i < 0 || len(all.AccessTokens) != 2 {
		t.Fatalf("access tokens: %+v, want root and shop", all)
	}
	g.run(t, g.root, "token", "revoke", all.AccessTokens[i].Accessor, "--end-sessions", "--reason", "the laptop was stolen").ends(t, 0)
	for name, held := range map[string]*client.Grant{"kept": kept, "other": other} {
		select {
		case <-held.Lost():
		case <-time.After(patience):
			t.Errorf("%s: its session was to be ended, and its holder is not told", name)
			continue
		}
		// The first is cut off since its own token was revoked. The second is told at once.
		var lost *client.LostError
		want := map[string]client.LostReason{"kept": client.LostRefused, "other": client.LostForced}[name]
		if err := held.Err(); !errors.As(err, &lost) || lost.Reason != want || want == client.LostForced && lost.Why != "the laptop was stolen" {
			t.Errorf("%s: %v, want reason %v", name, err, want)
		}
	}
	root := dial(t, g.Endpoints(), secure, fromFile(t, g.root))
	for _, name := range []string{"orders/kept", "orders/other"} {
		eventually(t, name+" is free", func() bool {
			held, err := root.IsLocked(within(t, patience), name)
			must(t, err)
			return !held
		})
	}
}

// Another identity uses neither the session of a client nor what it holds.
func TestWhatOneHoldsOthersCannotRelease(t *testing.T) {
	t.Parallel()
	g := startGuarded(t)
	g.policy(t, shopPolicy+"---\nname: both\nfor: [token:shop, token:other]\nrules:\n- {allow: [read, lock], prefix: orders/}\n---\n"+
		"name: operator\nfor: [token:operator]\nrules:\n- {allow: [read, force], prefix: orders/}\n")
	shop, _ := g.token(t, "shop", "shop.token")
	other, _ := g.token(t, "other", "other.token")
	operator, _ := g.token(t, "operator", "operator.token")
	grant := into[grantView](t, g.run(t, shop, "acquire", "orders/1", "--ttl", "5m", "-o", "json"))
	fence := fmt.Sprint(grant.Token)
	g.run(t, other, "release", "orders/1", fence).ends(t, exitDenied)
	g.run(t, other, "renew", "orders/1", fence, "--ttl", "5m").ends(t, exitDenied)
	g.run(t, other, "force-release", "orders/1", "--reason", "x").ends(t, exitDenied)
	g.run(t, shop, "renew", "orders/1", fence, "--ttl", "5m").ends(t, 0)
	g.run(t, operator, "release", "orders/1", fence).ends(t, 0)
}
