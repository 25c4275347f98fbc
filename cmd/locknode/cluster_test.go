//go:build unix

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/document"
	"github.com/locknode/locknode/internal/proof/proc"
)

// The tests below run locknode as processes, against clusters of processes.

// clusterOptions make a cluster of the test binary.
func clusterOptions() proc.Options {
	return proc.Options{Args: []string{"--fast"}, Env: append(cleanTestEnvironment(), actAs+"=locknode")}
}

func startCluster(t *testing.T, o proc.Options) *proc.Cluster {
	t.Helper()
	c, err := proc.Start(within(t, generous), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range c.Nodes() {
				t.Logf("log of %s:\n%s", n.ID, n.Logs())
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// shared is a cluster for the tests that break nothing; each uses its own locks.
var shared struct {
	once    sync.Once
	cluster *proc.Cluster
	err     error
}

func sharedCluster(t *testing.T) *proc.Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a cluster of processes")
	}
	shared.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), generous)
		defer cancel()
		// Long timeouts cost nothing here, because no test ends the leader. With short ones a
		// busy machine that delays a heartbeat by a second would cause elections.
		o := clusterOptions()
		o.Args = append(o.Args, "--timing", "2s")
		shared.cluster, shared.err = proc.Start(ctx, o)
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.cluster
}

// closeShared is called when all tests are done.
func closeShared() {
	if shared.cluster != nil {
		_ = shared.cluster.Close() // an error leaves only a temporary directory behind
	}
}

// outcome is how a command ended and what it printed.
type outcome struct {
	code           int
	stdout, stderr string
}

// locknodeAt runs locknode and waits for its end.
func locknodeAt(t *testing.T, endpoints []string, args ...string) outcome {
	t.Helper()
	cmd := command(t, "locknode", args...)
	cmd.Env = append(cmd.Env, "LOCKNODE_ENDPOINTS="+strings.Join(endpoints, ","))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Start()
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(generous, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Wait() // the exit code has the result
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func locknode(t *testing.T, args ...string) outcome {
	t.Helper()
	return locknodeAt(t, sharedCluster(t).Endpoints(), args...)
}

// startLocknode starts locknode in the background.
func startLocknode(t *testing.T, args ...string) *running {
	t.Helper()
	cmd := command(t, "locknode", args...)
	cmd.Env = append(cmd.Env, "LOCKNODE_ENDPOINTS="+strings.Join(sharedCluster(t).Endpoints(), ","))
	return start(t, cmd)
}

// succeeds fails the test unless the command ended with 0.
func (o outcome) succeeds(t *testing.T) outcome {
	t.Helper()
	if o.code != 0 {
		t.Fatalf("exit code %d, want 0; it printed %q and %q", o.code, o.stdout, o.stderr)
	}
	return o
}

// into reads the JSON on standard output.
func into[T any](t *testing.T, o outcome) (v T) {
	t.Helper()
	o.succeeds(t)
	decoder := json.NewDecoder(strings.NewReader(o.stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("output %q: %v", o.stdout, err)
	}
	return v
}

func lockState(t *testing.T, name string) document.Lock {
	t.Helper()
	return into[document.Lock](t, locknode(t, "get", name, "-o", "json"))
}

// testClient is a client of the shared cluster, to look at locks and to hold them.
func testClient(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), sharedCluster(t).Endpoints(), client.Holder("test"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeQuietly(c) })
	return c
}

func awaitLocked(t *testing.T, c *client.Client, name string, want bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s locked: %v", name, want), func() bool {
		got, err := c.IsLocked(within(t, generous), name)
		return err == nil && got == want
	})
}

func awaitWaiters(t *testing.T, c *client.Client, name string, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s has %d waiters", name, want), func() bool {
		got, err := c.Get(within(t, generous), name)
		return err == nil && got.Waiters == want
	})
}

func httpGet(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v: %s", url, res.Status, err, b)
	}
	return string(b)
}

func TestLockIsSeenEverywhereAndReleasedByItsTokenOnly(t *testing.T) {
	t.Parallel()
	got := into[document.Grant](t, locknode(t, "acquire", "orders/42", "--ttl", "30s", "--holder", "alice", "-o", "json"))
	expires, err := time.ParseDuration(got.ExpiresIn)
	if got.Name != "orders/42" || got.Token == 0 || err != nil || expires < 25*time.Second || expires > 30*time.Second {
		t.Errorf("acquire: got %+v, want its name, a token and nearly 30s", got)
	}
	second := locknode(t, "acquire", "orders/42", "--holder", "bob")
	if second.code != exitNotAcquired || !strings.Contains(second.stderr, "alice") || second.stdout != "" {
		t.Errorf("second acquire: got %+v, want exit code 75 and alice on standard error only", second)
	}
	second = locknode(t, "acquire", "orders/42", "--holder", "bob", "-o", "json")
	var failure struct{ Error document.Error }
	if err := json.Unmarshal([]byte(second.stderr), &failure); err != nil || failure.Error.Code != "busy" ||
		len(failure.Error.Holders) != 1 || failure.Error.Holders[0].Holder != "alice" || failure.Error.ExitCode != 75 {
		t.Errorf("second acquire as JSON: got %+v, %v", second, err)
	}
	for _, n := range sharedCluster(t).Nodes() {
		var seen document.Lock
		if err := json.Unmarshal([]byte(httpGet(t, "http://"+n.HTTP()+"/v1/locks/orders/42")), &seen); err != nil || !seen.Held || seen.Holders[0].Token != got.Token {
			t.Errorf("over HTTP at %s: got %+v, %v", n.ID, seen, err)
		}
	}
	wrong := locknode(t, "release", "orders/42", fmt.Sprint(got.Token+1))
	if wrong.code != 1 || !strings.Contains(wrong.stderr, "not held") {
		t.Errorf("release with a wrong token: got %+v, want exit code 1", wrong)
	}
	if l := lockState(t, "orders/42"); !l.Held || l.Holders[0].Token != got.Token || l.Holders[0].Holder != "alice" {
		t.Errorf("after the wrong release: got %+v, want alice with token %d", l, got.Token)
	}
	locknode(t, "release", "orders/42", fmt.Sprint(got.Token)).succeeds(t)
	if l := lockState(t, "orders/42"); l.Held {
		t.Errorf("after the release: got %+v, want it free", l)
	}
}

func TestLockThatIsNotReleasedIsFreeAfterItsTTL(t *testing.T) {
	t.Parallel()
	timely(t, func() (took, most time.Duration) {
		began := time.Now()
		locknode(t, "acquire", "ttl", "--ttl", "1500ms").succeeds(t)
		awaitLocked(t, testClient(t), "ttl", false)
		if took = time.Since(began); took < 1500*time.Millisecond {
			t.Errorf("free after %v, want 1.5s at least", took)
		}
		return took, 4 * time.Second
	})
}

func TestRenewMakesALockLastLonger(t *testing.T) {
	t.Parallel()
	first := into[document.Grant](t, locknode(t, "acquire", "renewed", "--ttl", "5s", "-o", "json"))
	second := into[document.Grant](t, locknode(t, "renew", "renewed", "--token", fmt.Sprint(first.Token), "--ttl", "1m", "-o", "json"))
	left, err := time.ParseDuration(second.ExpiresIn)
	if err != nil || second.Token != first.Token || left < 50*time.Second {
		t.Errorf("renew: got %+v, %v, want the same token and nearly a minute", second, err)
	}
	if o := locknode(t, "renew", "renewed", fmt.Sprint(first.Token+1)); o.code != 1 {
		t.Errorf("renew with a wrong token: got %+v, want exit code 1", o)
	}
}

func TestForceReleaseTakesALockAwayAndSaysWhy(t *testing.T) {
	t.Parallel()
	c := testClient(t)
	g, err := c.Lock(within(t, generous), "forced")
	if err != nil {
		t.Fatal(err)
	}
	if o := locknode(t, "force-release", "forced", "--reason", "x", "--token", fmt.Sprint(g.Token()+1)); o.code != 1 || g.Err() != nil {
		t.Errorf("with a wrong token: got %+v, grant %v; want exit code 1 and the lock still held", o, g.Err())
	}
	locknode(t, "force-release", "forced", "--reason", "ticket 4711", "--who", "carol").succeeds(t)
	select {
	case <-g.Lost():
	case <-within(t, generous).Done():
		t.Fatal("the holder was not notified")
	}
	if err := g.Err(); !strings.Contains(err.Error(), "ticket 4711") || !strings.Contains(err.Error(), "carol") {
		t.Errorf("the holder's error: got %q, want the reason and who", err)
	}
}

func TestGetAndLsShowWhoHoldsWhat(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"list/a", "list/b", "list/c"} {
		locknode(t, "acquire", name, "--holder", "alice", "--value", "v of "+name, "--ttl", "1m").succeeds(t)
	}
	text := locknode(t, "get", "list/a").succeeds(t).stdout
	for _, want := range []string{"list/a: held", "by alice, token ", `value "v of list/a"`} {
		if !strings.Contains(text, want) {
			t.Errorf("get: got %q, want %q in it", text, want)
		}
	}
	if l := lockState(t, "list/b"); l.Holders[0].Holder != "alice" || *l.Holders[0].Value != "v of list/b" || l.Holders[0].Mode != "exclusive" {
		t.Errorf("get -o json: got %+v", l)
	}
	if got := locknode(t, "get", "list/none").succeeds(t).stdout; got != "list/none: free\n" {
		t.Errorf("get of a free lock: got %q", got)
	}
	page := into[document.Page](t, locknode(t, "ls", "list/", "-o", "json"))
	if len(page.Locks) != 3 || page.Locks[2].Name != "list/c" || page.Next != "" {
		t.Errorf("ls: got %+v, want the three", page)
	}
	if page := into[document.Page](t, locknode(t, "ls", "list/", "--limit", "2", "-o", "json")); len(page.Locks) != 2 || page.Next != "list/b" {
		t.Errorf("ls --limit 2: got %+v, want two, and b as the next page", page)
	}
	if page := into[document.Page](t, locknode(t, "ls", "list/", "--page", "list/b", "-o", "json")); len(page.Locks) != 1 || page.Locks[0].Name != "list/c" {
		t.Errorf("ls --page: got %+v, want the third", page)
	}
	table := locknode(t, "ls", "list/", "--stale", "10s").succeeds(t).stdout
	if lines := strings.Split(strings.TrimSpace(table), "\n"); len(lines) != 4 || !strings.HasPrefix(lines[0], "NAME") {
		t.Errorf("ls: got %q, want a heading and three lines", table)
	}
	if got := locknode(t, "ls", "nothing/here/").succeeds(t).stdout; !strings.Contains(got, `no lock whose name begins with "nothing/here/"`) {
		t.Errorf("ls of nothing: got %q", got)
	}
}

func TestResizeSaysWhatItDidAndWhatWasWrong(t *testing.T) {
	t.Parallel()
	holdPermit(t, sharedCluster(t).Nodes()[0], "sized", 1)
	if got := locknode(t, "resize", "sized", "1").succeeds(t).stdout; got != "sized: resized to 1 permit\n" {
		t.Errorf("resize: got %q", got)
	}
	if got := locknode(t, "resize", "sized", "7").succeeds(t).stdout; got != "sized: resized to 7 permits\n" {
		t.Errorf("resize: got %q", got)
	}
	if got := locknode(t, "get", "sized").succeeds(t).stdout; !strings.Contains(got, "1 holders of a semaphore of 7") {
		t.Errorf("get: got %q", got)
	}
	if o := locknode(t, "resize", "unsized", "7"); o.code != 1 || !strings.Contains(o.stderr, "is not in use") {
		t.Errorf("resize of what nobody uses: got %+v, want exit code 1", o)
	}
	if o := locknode(t, "resize", "sized", "many"); o.code != 64 || !strings.Contains(o.stderr, `size: is "many", must be a whole number from 1 to 4294967295`) {
		t.Errorf("resize to no number: got %+v, want exit code 64", o)
	}
}

func TestBadArgumentsAreUsageErrors(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"nonsense"},
		{"get"},
		{"get", "a", "b"},
		{"get", "a", "--nonsense"},
		{"get", "a", "-o", "yaml"},
		{"get", "a", "--stale", "-1s"},
		{"get", "a", "--endpoints", "nowhere"},
		{"get", ""},
		{"acquire", "a", "--ttl", "0s"},
		{"acquire", "a", "--ttl", "3ms"},
		{"acquire", "a", "--wait", "-1s"},
		{"acquire", strings.Repeat("x", 600)},
		{"release", "a"},
		{"release", "a", "x"},
		{"release", "a", "0"},
		{"release", "a", "1", "--token", "1"},
		{"force-release", "a"},
		{"resize", "a"},
		{"resize", "a", "0"},
		{"resize", "a", "-1"},
		{"resize", "a", "4294967296"},
		{"resize", "a", "many"},
		{"resize", "", "1"},
		{"ls", "--limit", "-1"},
		{"get", "a", "--endpoints", ""},
		{"acquire", "a", "--wait", "3000000h"},
		{"acquire", "a", "--wait", "10"},
		{"acquire", "a", "--request-id", ""},
		{"force-release", "a", "--reason", "x", "--token", "0"},
		{"transfer-leadership", "n1", "--to", "n2"},
		{"serve", "--data-dir", "/does/not/exist", "--nonvoter", "--bootstrap-expect", "3"},
		{"bench", "--endpoints", "127.0.0.1:1", "--nodes", "3"},
		{"chaos", "--cycles", "1", "--duration", "1s"},
		{"chaos", "--list-faults", "--drill", "guarded-set"},
		{"chaos", "--drill", "guarded-set", "--seed", "1"},
		{"chaos", "--adds", "1000"},
		{"run", "a"},
		{"run", "--", "true"},
		{"run", "a", "--"},
		{"run", "-n", "-w", "1s", "a", "--", "true"},
		{"run", "--ttl", "0s", "a", "--", "true"},
		{"run", "--kill-after", "-1s", "a", "--", "true"},
		{"run", "-E", "256", "a", "--", "true"},
		{"reseed"},
		{"reseed", "--data-dir", "d", "more"},
		{"serve"},
		{"serve", "--timing", "fast"},
		{"dev", "--nodes", "0"},
		{"dev", "--listen", "here"},
		{"bench", "--workload", "none"},
		{"bench", "--workload", "failover", "--nodes", "1"},
		{"bench", "--pairs", "2"},
		{"bench", "--tls", "--pairs", "-1"},
		{"reload"},
		{"reload", "n1", "--all-nodes"},
		{"gossip-key", "use"},
		{"gossip-key", "install", "no-such-file"},
		{"chaos", "--faults", "flood"},
		{"chaos", "--nodes", "2"},
		{"chaos", "--drill", "fire"},
		{"chaos", "--drill", "guarded-set", "--adds", "1"},
	} {
		o := locknode(t, args...)
		if o.code != exitUsage || o.stdout != "" || !strings.HasPrefix(o.stderr, "locknode: ") {
			t.Errorf("locknode %q: got %+v, want exit code 64 and only an error", args, o)
		}
	}
}

func TestErrorsAreJSONIfThatIsAskedFor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		code int
		name string
	}{
		{[]string{"get", "a", "-o", "json", "--nonsense"}, exitUsage, "usage"},
		{[]string{"get", "a", "--nonsense", "-o", "json"}, exitUsage, "usage"},
		{[]string{"get", "a", "--nonsense", "--output=json"}, exitUsage, "usage"},
		{[]string{"get", "-ojson"}, exitUsage, "usage"},
		{[]string{"nonsense", "-o=json"}, exitUsage, "usage"},
		{[]string{"run", "-o", "json", "a", "--", "/does/not/exist"}, exitNotFound, "other"},
		{[]string{"acquire", "a", "--ttl", "3ms", "-o", "json"}, exitUsage, "invalid"},
		{[]string{"release", "a", "1", "-o", "json"}, exitOther, "not_held"},
	} {
		o := locknode(t, c.args...)
		var got struct{ Error document.Error }
		if err := json.Unmarshal([]byte(o.stderr), &got); err != nil || o.code != c.code || got.Error.ExitCode != c.code || got.Error.Code != c.name {
			t.Errorf("locknode %q: got %+v, %v, want code %q and exit code %d", c.args, o, err, c.name, c.code)
		}
	}
	// Arguments after -- belong to the command.
	if o := locknode(t, "run", "--nonsense", "a", "--", "x", "-o", "json"); o.code != exitUsage || strings.HasPrefix(o.stderr, "{") {
		t.Errorf("-o json of a command: got %+v, want text", o)
	}
}

func TestDurationsOutOfRangeSayWhatIsAllowed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"acquire", "a", "--wait", "3000000h"}, "must be at most 2562047h0m0s"},
		{[]string{"run", "-w", "99999999999s", "a", "--", "true"}, "must be at most 2562047h0m0s"},
		{[]string{"acquire", "a", "--ttl", "30"}, "with its unit"},
		{[]string{"acquire", "a", "--ttl", "25h"}, "ttl: must be at most 86400s"},
		{[]string{"acquire", "a", "--ttl", "10ms"}, "ttl: must be at least 1s"},
		{[]string{"acquire", "a", "--wait", "300000h"}, "wait: must be 0 to 3600s"},
		{[]string{"run", "--ttl", "2562047h", "a", "--", "true"}, "ttl: must be at most 86400s"},
	} {
		if o := locknode(t, c.args...); o.code != exitUsage || !strings.Contains(o.stderr, c.want) {
			t.Errorf("locknode %q: got %+v, want exit code 64 and %q", c.args, o, c.want)
		}
	}
}

func TestUnreachableClusterIsGivenUpInTime(t *testing.T) {
	t.Parallel()
	nobody := []string{"127.0.0.1:1"}
	for _, args := range [][]string{
		{"get", "a"}, {"acquire", "a"}, {"acquire", "a", "--wait", "1m"}, {"release", "a", "1"}, {"ls"}, {"members"}, {"status"},
		{"transfer-leadership"}, {"run", "a", "--", "true"}, {"run", "-w", "1m", "a", "--", "true"}, {"run", "-n", "a", "--", "true"},
	} {
		timely(t, func() (took, most time.Duration) {
			began := time.Now()
			o := locknodeAt(t, nobody, append([]string{args[0], "--connect-timeout", "300ms"}, args[1:]...)...)
			if o.code != exitUnavailable || !strings.Contains(o.stderr, "127.0.0.1:1") || !strings.Contains(o.stderr, "--endpoints") {
				t.Errorf("locknode %q: got %+v, want exit code 69, what was tried and what to do", args, o)
			}
			return time.Since(began), 5 * time.Second
		})
	}
}

func TestHelpOfEveryCommandHasAnExample(t *testing.T) {
	a := &app{program: program{stdin: os.Stdin, stdout: io.Discard, stderr: io.Discard, lookup: os.LookupEnv}}
	root := a.root()
	for _, c := range append(root.Commands(), root) {
		if c.Name() == "completion" || c.Name() == "help" || c.Name() == "version" {
			continue // the first two are cobra's; version has nothing to explain
		}
		if c.Example == "" || c.Long == "" || c.Short == "" {
			t.Errorf("%s: want a summary, a description and an example", c.Name())
		}
		for _, line := range strings.Split(c.Long+"\n"+c.Example, "\n") {
			if len(line) > 110 {
				t.Errorf("%s: line of %d characters: %q", c.Name(), len(line), line)
			}
		}
	}
}

// What stands in backquotes in the description of a flag is shown as the name of its value.
func TestHelpOfEveryFlagNamesItsValueInOneWord(t *testing.T) {
	a := &app{program: program{stdin: os.Stdin, stdout: io.Discard, stderr: io.Discard, lookup: os.LookupEnv}}
	var check func(*cobra.Command)
	check = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if name, _ := pflag.UnquoteUsage(f); strings.Contains(name, " ") {
				t.Errorf("%s: --%s %s: the value is named by %q, want one word", c.CommandPath(), f.Name, name, name)
			}
		})
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(a.root())
}

func TestCompletionOffersWhatIsMeant(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if o := locknodeAt(t, nil, "completion", shell).succeeds(t); !strings.Contains(o.stdout, "locknode") {
			t.Errorf("completion %s: got %q", shell, o.stdout)
		}
	}
	for _, c := range []struct{ args, want string }{
		{"tra", "transfer-leadership\tmake another node the leader\n:4\n"},
		{"get --output ", "text\njson\n:4\n"},
		{"get ", ":4\n"}, // no files
	} {
		words := append([]string{"__complete"}, strings.Split(c.args, " ")...)
		if o := locknodeAt(t, nil, words...).succeeds(t); o.stdout != c.want {
			t.Errorf("completion of %q: got %q, want %q", c.args, o.stdout, c.want)
		}
	}
}

func TestVersionSaysWhatWasBuilt(t *testing.T) {
	b := into[buildInfo](t, locknodeAt(t, nil, "version", "-o", "json"))
	if b.Version == "" || !strings.HasPrefix(b.Go, "go1") || b.Platform == "" {
		t.Errorf("version: got %+v", b)
	}
	o := locknodeAt(t, nil, "version").succeeds(t)
	if !strings.HasPrefix(o.stdout, "locknode "+b.Version) {
		t.Errorf("version: got %q", o.stdout)
	}
	if flag := locknodeAt(t, nil, "--version").succeeds(t); flag != o {
		t.Errorf("--version: got %+v, want what version says, %+v", flag, o)
	}
}
