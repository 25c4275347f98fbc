//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
)

// differing are fields whose values may differ between HTTP and the command line, because
// they change over time or with each grant. The test still compares that both have the
// fields, and their types.
var differing = []string{
	"token", "expires_in", "expires_in_ms", "remaining", "remaining_ms", "since", "waited", "waited_ms", "age", "age_ms",
	"session", "hash", "number", "next", "term", "commit_index", "applied_index", "cluster_time", "digest", "digest_index",
	"last_token", "table_bytes", "once_remembered", "ended_remembered", "leader_id", "removed",
}

// commandOnly are fields that only the command line has.
var commandOnly = []string{"api_address", "exit_code", "hint"}

// compareDocuments compares the documents of HTTP and the command line, field by field.
func compareDocuments(t *testing.T, path string, byHTTP, byCommand any) {
	t.Helper()
	name := path[strings.LastIndexByte(path, '.')+1:]
	switch h := byHTTP.(type) {
	case map[string]any:
		c, ok := byCommand.(map[string]any)
		if !ok {
			t.Errorf("%s: is %v over HTTP, and %v by the command", path, byHTTP, byCommand)
			return
		}
		for field := range h {
			if _, ok := c[field]; !ok {
				t.Errorf("%s.%s: exists only over HTTP", path, field)
				continue
			}
			compareDocuments(t, path+"."+field, h[field], c[field])
		}
		for field := range c {
			if _, ok := h[field]; !ok && !slices.Contains(commandOnly, field) {
				t.Errorf("%s.%s: exists only by the command", path, field)
			}
		}
	case []any:
		c, ok := byCommand.([]any)
		if !ok || len(h) != len(c) {
			t.Errorf("%s: is %v over HTTP, and %v by the command", path, byHTTP, byCommand)
			return
		}
		for i := range h {
			compareDocuments(t, path, h[i], c[i])
		}
	default:
		if reflect.TypeOf(byHTTP) != reflect.TypeOf(byCommand) {
			t.Errorf("%s: is a %T over HTTP, and a %T by the command", path, byHTTP, byCommand)
		} else if byHTTP != byCommand && !slices.Contains(differing, name) {
			t.Errorf("%s: is %v over HTTP, and %v by the command", path, byHTTP, byCommand)
		}
	}
}

// ask sends a request to a node over HTTP and returns the answer. Without a body it is a GET.
func ask(t *testing.T, n *proc.Node, path, body string) (answer map[string]any) {
	t.Helper()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(within(t, generous), method, "http://"+n.HTTP()+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &answer); err != nil {
		t.Fatalf("%s: %v: %s", path, err, b)
	}
	return answer
}

// rightsSayTheSame compares what is about access tokens and policies.
func rightsSayTheSame(t *testing.T, c *proc.Cluster, n *proc.Node, compare func(what string, byHTTP, byCommand map[string]any)) {
	t.Helper()
	compare("whoami", ask(t, n, "/v1/whoami", ""), asked(t, c, "auth", "whoami"))
	file := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(file, []byte(shopPolicies), 0o600); err != nil {
		t.Fatal(err)
	}
	var applied map[string]any
	eventually(t, "the table knows policies", func() bool { // once all nodes have said that they do
		applied = asked(t, c, "policy", "apply", file)
		return applied["error"] == nil
	})
	listed := asked(t, c, "policy", "ls")
	again, err := json.Marshal(map[string]any{"policies": listed["policies"]})
	if err != nil {
		t.Fatal(err)
	}
	compare("policies", ask(t, n, "/v1/policies", ""), listed)
	if err := os.WriteFile(file, again, 0o600); err != nil { // what is listed can be applied
		t.Fatal(err)
	}
	compare("policies that are as they were", ask(t, n, "/v1/policies", string(again)), asked(t, c, "policy", "apply", file))
	asked(t, c, "token", "create", "shop", "--label", "team=shop", "--out", filepath.Join(t.TempDir(), "s"))
	compare("access tokens", ask(t, n, "/v1/access-tokens", ""), asked(t, c, "token", "ls"))
	compare("a right", ask(t, n, "/v1/rights/check?identity=token:shop&right=lock&name=orders/1", ""), asked(t, c, "auth", "check", "--as", "token:shop", "lock", "orders/1"))
	compare("another right", ask(t, n, "/v1/rights/check?identity=token:shop&right=lock&name=orders/frozen", ""), asked(t, c, "auth", "check", "--as", "token:shop", "lock", "orders/frozen"))
}

// asked runs a command and returns its JSON: its result, or else its error.
func asked(t *testing.T, c *proc.Cluster, args ...string) (answer map[string]any) {
	t.Helper()
	o := locknodeAt(t, c.Endpoints(), append(args, "-o", "json")...)
	out := o.stdout
	if o.code != 0 && o.stderr != "" {
		lines := strings.Split(strings.TrimSpace(o.stderr), "\n") // other messages may come before
		out = lines[len(lines)-1]
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("locknode %q: %v: %+v", args, err, o)
	}
	return answer
}

// TestHTTPAndTheCommandLineSayTheSame runs each operation that both have: their documents
// have the same fields with the same values.
func TestHTTPAndTheCommandLineSayTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a cluster of processes")
	}
	t.Parallel()
	c := startCluster(t, proc.Options{Args: append(clusterOptions().Args, "--timing", "1s"), Env: clusterOptions().Env})
	n := c.Nodes()[0]
	compare := func(what string, byHTTP, byCommand map[string]any) {
		t.Helper()
		t.Run(what, func(t *testing.T) { compareDocuments(t, what, byHTTP, byCommand) })
	}
	held := func(answer map[string]any) string { return fmt.Sprintf("%.0f", answer["token"]) }

	// Each step is done over HTTP and by the command on the same lock, in the same state.
	const acquire = `{"name":%q,"holder":"alice","value":"v","ttl":"1m"}`
	a := ask(t, n, "/v1/acquire", fmt.Sprintf(acquire, "a"))
	a2 := ask(t, n, "/v1/release", fmt.Sprintf(`{"name":"a","token":%s}`, held(a)))
	b := asked(t, c, "acquire", "a", "--holder", "alice", "--value", "v", "--ttl", "1m")
	compare("acquire", a, b)
	compare("release", a2, asked(t, c, "release", "a", held(b)))

	a = ask(t, n, "/v1/acquire", fmt.Sprintf(acquire, "a"))
	compare("busy", ask(t, n, "/v1/acquire", `{"name":"a"}`), asked(t, c, "acquire", "a"))
	compare("timeout", ask(t, n, "/v1/acquire", `{"name":"a","wait":"1s"}`), asked(t, c, "acquire", "a", "--wait", "1s"))
	compare("renew", ask(t, n, "/v1/renew", fmt.Sprintf(`{"name":"a","token":%s,"ttl":"1m"}`, held(a))), asked(t, c, "renew", "a", held(a), "--ttl", "1m"))

	holder, err := client.Dial(t.Context(), c.Endpoints(), client.Holder("carol"), client.Labels(map[string]string{"team": "blue"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeQuietly(holder) })
	lock := func(name string) {
		t.Helper()
		if _, err := holder.Lock(within(t, generous), name, client.Value([]byte{0xff, 0})); err != nil {
			t.Fatal(err)
		}
	}
	lock("s")
	for _, name := range []string{"a", "s", "free"} {
		compare("get "+name, ask(t, n, "/v1/locks/"+name, ""), asked(t, c, "get", name))
		compare("stale get "+name, ask(t, n, "/v1/locks/"+name+"?stale=1m", ""), asked(t, c, "get", name, "--stale", "1m"))
	}
	compare("ls", ask(t, n, "/v1/locks", ""), asked(t, c, "ls"))
	compare("stale ls", ask(t, n, "/v1/locks?stale=1m", ""), asked(t, c, "ls", "--stale", "1m"))
	compare("page of ls", ask(t, n, "/v1/locks?limit=1", ""), asked(t, c, "ls", "--limit", "1"))

	if err := c.Agree(within(t, generous)); err != nil { // otherwise the table could change between the two
		t.Fatal(err)
	}
	compare("status", ask(t, n, "/v1/status", ""), nodeOf(t, asked(t, c, "status"), n.ID))
	compare("members", ask(t, n, "/v1/members", ""), asked(t, c, "members"))

	first := asked(t, c, "force-release", "s", "--reason", "test")
	lock("s")
	compare("force-release", ask(t, n, "/v1/force-release", `{"name":"s","reason":"test"}`), first)
	// The messages differ only in their beginning, which says what was attempted.
	missing := ask(t, n, "/v1/force-release", `{"name":"s","reason":"test"}`)
	delete(missing["error"].(map[string]any), "message")
	alike := asked(t, c, "force-release", "s", "--reason", "test")
	delete(alike["error"].(map[string]any), "message")
	compare("not held", missing, alike)

	filter := "/v1/sessions?owner=127.0.0.1"
	quiet := asked(t, c, "sessions", "ls", "--owner", "127.0.0.1") // the command opens no session itself
	compare("sessions", ask(t, n, filter, ""), quiet)
	compare("kill", ask(t, n, "/v1/sessions/kill", `{"owner":"10.9.8.7","reason":"test"}`), asked(t, c, "sessions", "kill", "--owner", "10.9.8.7", "--reason", "test"))
	lock("s")
	one := ask(t, n, "/v1/clear", `{"name":"s","reason":"test"}`)
	lock("s")
	compare("clear", one, asked(t, c, "clear", "s", "--reason", "test"))

	rightsSayTheSame(t, c, n, compare)

	holdPermit(t, n, "pool", 3)
	compare("resize", ask(t, n, "/v1/resize", `{"name":"pool","limit":5}`), asked(t, c, "resize", "pool", "5"))
	compare("get of a semaphore", ask(t, n, "/v1/locks/pool", ""), asked(t, c, "get", "pool"))
	missing, alike = ask(t, n, "/v1/resize", `{"name":"free","limit":5}`), asked(t, c, "resize", "free", "5")
	for _, failure := range []map[string]any{missing, alike} {
		e := failure["error"].(map[string]any)
		if text, _ := e["message"].(string); !strings.Contains(text, `semaphore "free": is not in use`) {
			t.Errorf("resize of what nobody uses: %v", e)
		}
		delete(e, "message")
	}
	compare("resize of nothing", missing, alike)

	compare("limits", ask(t, n, "/v1/limits", ""), asked(t, c, "limits", "get"))
	_ = ask(t, n, "/v1/limits", `{"name":"max_wait","value":60000000000}`)
	compare("limits set", ask(t, n, "/v1/limits", `{"name":"max_wait","value":60000000000}`), asked(t, c, "limits", "set", "max_wait=1m"))

	leader, err := c.Leader(within(t, generous))
	if err != nil {
		t.Fatal(err)
	}
	transfer := ask(t, n, "/v1/transfer-leadership", `{}`)
	if got, _ := transfer["leader_id"].(string); got == "" || got == leader.ID {
		t.Errorf("leadership of %s was transferred to %v", leader.ID, transfer)
	}
	compare("transfer", transfer, asked(t, c, "transfer-leadership"))
	compare("no member", ask(t, n, "/v1/transfer-leadership", `{"to":"nobody"}`)["error"].(map[string]any), trimmed(asked(t, c, "transfer-leadership", "nobody")))

	others, err := c.Followers(within(t, generous))
	if err != nil {
		t.Fatal(err)
	}
	if leader, err = c.Leader(within(t, generous)); err != nil {
		t.Fatal(err)
	}
	removed := ask(t, leader, "/v1/members/remove", fmt.Sprintf(`{"id":%q}`, others[0].ID))
	if removed["removed"] != others[0].ID {
		t.Errorf("%s was to be removed: %v", others[0].ID, removed)
	}
	compare("remove", removed, asked(t, c, "members", "remove", others[1].ID))
}

// holdPermit takes one permit of a semaphore of a size, which neither the command line nor HTTP
// can take.
func holdPermit(t *testing.T, n *proc.Node, name string, size uint32) {
	t.Helper()
	conn, err := n.Conn()
	if err != nil {
		t.Fatal(err)
	}
	_, err = apiv1.NewLocksClient(conn).Acquire(within(t, generous), &apiv1.AcquireRequest{
		Locks: []*apiv1.Want{{Name: name, Mode: apiv1.Mode_MODE_PERMITS, Permits: 1, Limit: size}}, TtlNs: int64(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
}

// trimmed is the error of a command without the text that its client puts before the
// message.
func trimmed(failure map[string]any) map[string]any {
	e := failure["error"].(map[string]any)
	message, _ := e["message"].(string)
	if i := strings.Index(message, "no_member: "); i >= 0 {
		e["message"] = message[i+len("no_member: "):]
	}
	return e
}

// nodeOf is the status of one node in the document of status.
func nodeOf(t *testing.T, status map[string]any, id string) map[string]any {
	t.Helper()
	for _, n := range status["nodes"].([]any) {
		if n := n.(map[string]any); n["node_id"] == id {
			return n
		}
	}
	t.Fatalf("status does not have %s: %v", id, status)
	return nil
}
