package docs

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locknode/locknode/node"
)

// program builds locknode once.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "locknode")
	out, err := exec.Command("go", "build", "-o", path, "../cmd/locknode").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

var buildDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "locknode-docs-")
	if err != nil {
		panic(err)
	}
	buildDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// locknode runs a command and returns what it printed to standard output.
func locknode(t *testing.T, args ...string) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "LOCKNODE_") })
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("locknode %q: %v", args, err)
	}
	return string(out)
}

func TestTableOfSettingsIsThatOfTheProgram(t *testing.T) {
	var settings map[string]struct {
		Value any `json:"value"`
	}
	if err := json.Unmarshal([]byte(locknode(t, "serve", "--print-config", "-o", "json")), &settings); err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	for _, row := range rows(section(t, read(t, operations), "## Settings")) {
		names := quoted(row[0])
		for _, name := range names {
			documented[name] = true
			s, ok := settings[name]
			if !ok {
				t.Errorf("setting %s is in the table and does not exist", name)
				continue
			}
			// Limits are 0 in a configuration: the table has the default of its own.
			value := fmt.Sprint(s.Value)
			if strings.HasPrefix(name, "limits.") || value == "" || value == "[]" {
				continue
			}
			if got := strings.Trim(row[1], "`"); got != value {
				t.Errorf("setting %s: the table says %q, the program %q", name, got, value)
			}
		}
	}
	for name := range settings {
		if !documented[name] {
			t.Errorf("setting %s is not in the table", name)
		}
	}
}

// TestTableOfFaultsIsThatOfTheProgram: every kind of fault is documented, in its family.
func TestTableOfFaultsIsThatOfTheProgram(t *testing.T) {
	documented := make(map[string]string)
	for _, row := range rows(section(t, read(t, "testing.md"), "## Breaking real processes")) {
		for _, name := range quoted(row[0]) {
			documented[name] = row[1]
		}
	}
	listed := strings.Split(strings.TrimSpace(locknode(t, "chaos", "--list-faults")), "\n")
	for _, line := range listed[1:] {
		words := strings.Fields(line)
		if got := documented[words[0]]; got != words[1] {
			t.Errorf("fault %s of family %s: the table says %q", words[0], words[1], got)
		}
		delete(documented, words[0])
	}
	for name := range documented {
		t.Errorf("fault %s is in the table and does not exist", name)
	}
}

var (
	codeLine    = regexp.MustCompile(`(?m)^ {4}(.*)$`)
	commandCall = regexp.MustCompile(`(?:^|[;&|(] *|\$ )locknode ((?:members |sessions |limits |tls ca |tls cert |tls |token |policy |auth )?[a-z-]+)((?: [^|;&#]*)?)`)
	flagWord    = regexp.MustCompile(`(?:^|\s)(--[a-z][a-z.-]*|-[a-zA-Z])\b`)
)

// TestCommandsAndFlagsExist looks at every command in an indented block or in backticks.
func TestCommandsAndFlagsExist(t *testing.T) {
	help := make(map[string]string)
	calls := 0
	for _, doc := range documents(t) {
		text := strings.ReplaceAll(withoutCode(read(t, doc)), "\\\n", " ")
		var lines []string
		for _, m := range codeLine.FindAllStringSubmatch(text, -1) {
			lines = append(lines, m[1])
		}
		for _, line := range append(lines, quoted(text)...) {
			line = strings.ReplaceAll(line, "go run ./cmd/locknode ", "locknode ")
			for _, m := range commandCall.FindAllStringSubmatch(line, -1) {
				name := m[1]
				group := strings.Fields(name)[0]
				if !strings.HasPrefix(name, "members remove") && !slices.Contains([]string{"sessions", "limits", "tls", "token", "policy", "auth"}, group) {
					name = strings.Fields(name)[0]
				}
				if _, known := help[name]; !known {
					help[name] = locknode(t, append(strings.Fields(name), "--help")...)
				}
				calls++
				if !strings.Contains(help[name], "locknode "+name) {
					t.Errorf("%s: %q: there is no command %q", doc, line, name)
				}
				own, _, _ := strings.Cut(m[2], " -- ")
				for _, f := range flagWord.FindAllStringSubmatch(own, -1) {
					if f[1] != "--help" && !regexp.MustCompile(`(?m)^\s+(-\w, )?`+regexp.QuoteMeta(f[1])+`\b`).MatchString(help[name]) {
						t.Errorf("%s: %q: %s has no flag %s", doc, line, name, f[1])
					}
				}
			}
		}
	}
	if calls < 30 {
		t.Errorf("only %d commands were found in the documents", calls)
	}
}

var goPattern = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")

// TestProgramOfTheReadmeRuns runs it, on a free port and in a temporary directory.
func TestProgramOfTheReadmeRuns(t *testing.T) {
	m := goPattern.FindStringSubmatch(read(t, readme))
	if m == nil {
		t.Fatal("the README has no program")
	}
	if n := strings.Count(m[1], "\n"); n > 20 {
		t.Errorf("the program has %d lines, want 20 at most", n)
	}
	source := m[1]
	for from, to := range map[string]string{`DataDir: "data"`: fmt.Sprintf(`DataDir: %q, Listen: "127.0.0.1:0"`, filepath.Join(t.TempDir(), "data"))} {
		if !strings.Contains(source, from) {
			t.Fatalf("the program has no %s", from)
		}
		source = strings.Replace(source, from, to, 1)
	}
	out := goRun(t, source)
	for _, want := range []string{"orders/42 is mine; every write that it protects carries token 1\n", "unlock: <nil>, close: <nil>"} {
		if !strings.Contains(out, want) {
			t.Errorf("the program printed\n%s\nwithout %q", out, want)
		}
	}
}

// TestProgramOfTheTestingGuideIsATest: it is a file of package locktest, word for
// word, where it runs with the other tests.
func TestProgramOfTheTestingGuideIsATest(t *testing.T) {
	m := goPattern.FindStringSubmatch(section(t, read(t, "testing.md"), "## Testing your own program"))
	if m == nil {
		t.Fatal("the guide has no program")
	}
	tested := read(t, "../locktest/worker_test.go")
	if got, want := strings.Replace(m[1], "package worker_test", "package locktest_test", 1), tested; got != want {
		t.Errorf("the guide has another program than locktest/worker_test.go:\n%s", got)
	}
}

// goRun runs a program that may import this module, and returns all of its output.
func goRun(t *testing.T, source string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "run", path)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("go run: %v\n%s\n%s", err, out, source)
	}
	return string(out)
}

// TestCodeOfTheClientGuideCompiles makes a function of each piece.
func TestCodeOfTheClientGuideCompiles(t *testing.T) {
	var b strings.Builder
	b.WriteString(`package main
import ("context"; "errors"; "fmt"; "os"; "time"; "github.com/locknode/locknode/client")
var endpoints []string
var _, _, _, _ = errors.Join, fmt.Sprint, time.Second, os.ReadFile
func save(context.Context, uint64) error { return nil }
func main() {}
`)
	pieces := goPattern.FindAllStringSubmatch(read(t, "client.md"), -1)
	if len(pieces) < 5 {
		t.Fatalf("only %d pieces of code were found", len(pieces))
	}
	for i, m := range pieces {
		end := "\nreturn nil\n"
		if strings.Contains(m[1], "\nreturn ") {
			end = ""
		}
		own := "c *client.Client"
		if strings.HasPrefix(m[1], "c, err :=") {
			own = "_ *client.Client"
		}
		fmt.Fprintf(&b, "func piece%d(ctx context.Context, %s) error {\n%s%s}\n", i, own, m[1], end)
	}
	goRun(t, b.String())
}

// TestFieldsOfHTTPAnswersAreDocumented asks a real node and looks at the names.
func TestFieldsOfHTTPAnswersAreDocumented(t *testing.T) {
	n, err := node.Open(t.Context(), node.Config{DataDir: t.TempDir(), Listen: "127.0.0.1:0", BootstrapExpect: 1, Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := n.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	for _, word := range quoted(section(t, read(t, api), "## HTTP")) {
		documented[word] = true
	}
	documented["error"], documented["code"], documented["message"] = true, true, true // in the example of an error
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"/v1/acquire", `{"name":"a","ttl":"30s","holder":"me","value":"v","request_id":"r"}`, 200},
		{"/v1/acquire", `{"name":"b/c","value":"v"}`, 200},
		{"/v1/acquire", `{"name":"a"}`, 409},
		{"/v1/acquire", `{"name":"a","wait":"1ms"}`, 409},
		{"/v1/acquire", `{"nme":"a"}`, 400},
		{"/v1/renew", `{"name":"a","token":1,"ttl":"1m"}`, 200},
		{"/v1/locks/a", "", 200},
		{"/v1/locks/b%2Fc?stale=1m", "", 200},
		{"/v1/locks?limit=1&stale=1m", "", 200},
		{"/v1/release", `{"name":"a","token":9}`, 404},
		{"/v1/release", `{"name":"a","token":1}`, 200},
		{"/v1/force-release", `{"name":"b/c","reason":"test"}`, 200},
		{"/v1/status", "", 200},
		{"/v1/members", "", 200},
		{"/v1/members/remove", `{"id":"nobody"}`, 404},
		{"/healthz", "", 200},
		{"/readyz", "", 200},
		{"/nothing", "", 404},
		{"/v1/acquire", "", 405},
	} {
		status, answer := ask(ctx, t, "http://"+n.HTTPAddr()+c.path, c.body)
		if status != c.status {
			t.Errorf("%s %s: status %d, want %d: %v", c.path, c.body, status, c.status, answer)
		}
		if strings.HasPrefix(c.path, "/v1/") {
			for _, name := range names(answer) {
				if !documented[name] {
					t.Errorf("%s answers a field %q, which is not documented", c.path, name)
				}
			}
		}
	}
}

func ask(ctx context.Context, t *testing.T, url, body string) (status int, answer any) {
	t.Helper()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil {
		err = json.Unmarshal(b, &answer)
	}
	if err != nil {
		t.Fatalf("%s: %v: %s", url, err, b)
	}
	return res.StatusCode, answer
}

// names are the keys of all objects in v.
func names(v any) (all []string) {
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			all = append(append(all, k), names(inner)...)
		}
	case []any:
		for _, inner := range v {
			all = append(all, names(inner)...)
		}
	}
	return all
}
