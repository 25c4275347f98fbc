package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locknode/locknode/internal/rights"
)

// runWith runs a command that needs a cluster, where there is none, and returns its exit code
// and all that it prints.
func runWith(env map[string]string, args ...string) (int, string) {
	var out bytes.Buffer
	p := program{stdin: os.Stdin, stdout: &out, stderr: &out, lookup: lookupIn(env)}
	return p.run(append(args, "--endpoints", "127.0.0.1:1", "--connect-timeout", "1ms")), out.String()
}

func TestAccessTokenIsReadFromWhereItBelongs(t *testing.T) {
	secret, _ := rights.NewSecret()
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", secret+"\n", 0o600)
	open := file("open", secret, 0o644)
	cut := file("cut", secret[:20], 0o600)
	const wrongCode, unreached = exitUsage, exitUnavailable
	for name, tt := range map[string]struct {
		env  map[string]string
		args []string
		code int
		says string
	}{
		"a file by flag":                {nil, []string{"--token-file", good}, unreached, "unavailable"},
		"a file by variable":            {map[string]string{"LOCKNODE_TOKEN_FILE": good}, nil, unreached, "unavailable"},
		"a variable":                    {map[string]string{"LOCKNODE_TOKEN": secret}, nil, unreached, "unavailable"},
		"an empty variable":             {map[string]string{"LOCKNODE_TOKEN": ""}, nil, unreached, "unavailable"},
		"a flag and a variable":         {map[string]string{"LOCKNODE_TOKEN": "x"}, []string{"--token-file", good}, unreached, "unavailable"},
		"both variables":                {map[string]string{"LOCKNODE_TOKEN": secret, "LOCKNODE_TOKEN_FILE": good}, nil, wrongCode, "are both set"},
		"a file that others can read":   {nil, []string{"--token-file", open}, unreached, "chmod 600 " + open},
		"half a token":                  {nil, []string{"--token-file", cut}, wrongCode, "is not one of Locknode"},
		"no file":                       {nil, []string{"--token-file", filepath.Join(dir, "none")}, wrongCode, "no such file"},
		"a directory":                   {nil, []string{"--token-file", dir}, wrongCode, "no regular file"},
		"an empty file":                 {nil, []string{"--token-file", file("empty", "\n", 0o600)}, wrongCode, "is empty"},
		"a long file":                   {nil, []string{"--token-file", file("long", strings.Repeat("x", 5000), 0o600)}, wrongCode, "longer than"},
		"an empty flag":                 {nil, []string{"--token-file", ""}, wrongCode, "is empty, must have a value"},
		"the fencing token of a lock":   {map[string]string{"LOCKNODE_TOKEN": "42"}, nil, wrongCode, "LOCKNODE_FENCING_TOKEN"},
		"the secret of something else":  {map[string]string{"LOCKNODE_TOKEN": "hunter2-hunter2"}, nil, wrongCode, "is not one of Locknode"},
		"a flag that there must not be": {nil, []string{"--token", secret}, wrongCode, "unknown flag"},
	} {
		code, out := runWith(tt.env, append([]string{"get", "a"}, tt.args...)...)
		if code != tt.code || !strings.Contains(out, tt.says) {
			t.Errorf("%s: exit code %d, want %d and %q\n%s", name, code, tt.code, tt.says, out)
		}
		for _, hidden := range []string{secret[4:20], "hunter2"} {
			if strings.Contains(out, hidden) && tt.code != unreached && name != "a flag that there must not be" {
				t.Errorf("%s: a secret is printed:\n%s", name, out)
			}
		}
	}
}

func TestReplacedTokenFileIsReadAgain(t *testing.T) {
	first, _ := rights.NewSecret()
	second, _ := rights.NewSecret()
	path := filepath.Join(t.TempDir(), "token")
	f := &tokenFile{path: path, last: first}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.get(); got != first {
		t.Error("a file that is gone for a moment takes the access token away")
	}
	write(second[:10])
	if got := f.get(); got != first {
		t.Error("half a file is taken for the access token")
	}
	write(second + "\n")
	if got := f.get(); got != second {
		t.Error("the new access token is not read")
	}
}

func TestSecretIsNeverWrittenOverAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	f, err := newSecretFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.write("s"); err != nil {
		t.Fatal(err)
	}
	f.discard()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, mode %v, want 0600", err, info.Mode())
	}
	if _, err := newSecretFile(path); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("a file that exists: %v", err)
	}
	other, err := newSecretFile(path + "2")
	if err != nil {
		t.Fatal(err)
	}
	other.discard()
	if _, err := os.Stat(path + "2"); err == nil {
		t.Error("a file without a secret is left")
	}
}

// The wrong call is found before anything is sent.
func TestCallsAboutRightsAreCheckedFirst(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("name: a\nfor: [shop]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"must be KEY=VALUE":             {"token", "create", "a", "--label", "x"},
		"--ttl: is -1s":                 {"token", "create", "a", "--ttl", "-1s"},
		"bad.yaml:2: for":               {"policy", "apply", bad},
		"--data-dir: is missing":        {"token", "bootstrap"},
		"read the proof":                {"token", "bootstrap", "--data-dir", filepath.Dir(bad)},
		`action: is "steal"`:            {"auth", "check", "steal", "a"},
		"has no NAME, must have one":    {"auth", "check", "acquire"},
		"has a NAME, must have none":    {"auth", "check", "admin", "a"},
		"unknown command \"x\" of auth": {"auth", "x"},
	} {
		if args[1] == "x" {
			var out bytes.Buffer
			p := program{stdout: &out, stderr: &out, lookup: lookupIn(nil)}
			if code := p.run(args); code != exitUsage || !strings.Contains(out.String(), want) {
				t.Errorf("%q: exit code %d\n%s", args, code, out.String())
			}
			continue
		}
		if code, out := runWith(nil, args...); code == exitUnavailable || code == 0 || !strings.Contains(out, want) {
			t.Errorf("%q: exit code %d, want %q\n%s", args, code, want, out)
		}
	}
}
