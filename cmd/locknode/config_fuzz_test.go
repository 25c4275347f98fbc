package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"github.com/locknode/locknode/internal/proof/fuzz"
)

// resolver resolves a configuration from a file at path, an environment and arguments.
type resolver struct{ path string }

func (r resolver) resolve(t *testing.T, file []byte, env map[string]string, args []string) (serveConfig, []resolved, error) {
	t.Helper()
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	flags.SetOutput(&bytes.Buffer{})
	addSettingFlags(flags)
	if err := flags.Parse(args); err != nil {
		return serveConfig{}, nil, err
	}
	if file == nil {
		return resolve(flags, lookupIn(env))
	}
	if err := os.WriteFile(r.path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	return resolve(flags, func(key string) (string, bool) {
		if key == "LOCKNODE_CONFIG" {
			return r.path, true
		}
		v, ok := env[key]
		return v, ok
	})
}

// sameWhenPrinted prints a configuration and reads it again.
func (r resolver) sameWhenPrinted(t *testing.T, before serveConfig, all []resolved) {
	t.Helper()
	var printed bytes.Buffer
	if err := printConfig(&printed, all); err != nil {
		t.Fatalf("print: %v", err)
	}
	after, _, err := r.resolve(t, printed.Bytes(), nil, nil)
	if err != nil {
		t.Fatalf("the printed configuration is refused: %v\n%s", err, &printed)
	}
	if before.gossipKeyGiven { // secrets are not printed
		before.gossipKeyGiven, before.node.GossipKey = false, after.node.GossipKey
	}
	if !same(before, after) {
		t.Fatalf("printed and read again as\n%+v, was\n%+v\n%s", after, before, &printed)
	}
}

// same compares configurations. A nil list and an empty one are equal.
func same(a, b serveConfig) bool {
	if len(a.node.Join)+len(b.node.Join) == 0 {
		a.node.Join, b.node.Join = nil, nil
	}
	if len(a.node.HTTPHosts)+len(b.node.HTTPHosts) == 0 {
		a.node.HTTPHosts, b.node.HTTPHosts = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

// keepsSecrets checks that the gossip key is not in a text. It ignores a key that is too
// short, or that occurs several times in the input, to be told apart from other text.
func keepsSecrets(t *testing.T, all []resolved, given, text string) {
	t.Helper()
	for _, r := range all {
		if secret := strings.Join(r.values, ","); r.secret && len(secret) >= 12 && strings.Count(given, secret) == 1 && strings.Contains(text, secret) {
			t.Fatalf("the secret %q is in %q", secret, text)
		}
	}
}

// FuzzConfigFile reads any file. Either the file is refused with the place of each fault, or
// it means the same after it was printed and read again.
func FuzzConfigFile(f *testing.F) {
	example, err := os.ReadFile("locknode.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.ReplaceAll(example, []byte("\n#: "), []byte("\n")))
	for _, file := range []string{
		"", "# nothing\n", "---\n", "--- ~\n", "just text\n", "zone: a\n---\nzone: b\n", "zone: [a\n", "limits: 3\n", "limits:\n  sessions: 3\nlimits: {}\n",
		"zone: &z a\nnode_id: *z\n", "limits: &l\n  sessions: 1\n<<: *l\n", "join: [a:1, 'b c:2', \"d\\n:3\"]\njoin: x:1\n", "a: &a [*a]\njoin: *a\n",
		"zone: \"a\\nb # c\"\nadvertise_host: ' x'\n", "zone: !!binary aGVsbG8=\n", "fast: yes\nnonvoter: \"true\"\n", "timing: 0x1p-2s\n", "? [a]\n: b\n",
		"gossip_key: MDEyMzQ1Njc4OWFiY2RlZg==\n", "gossip_key: c2hvcnQtYnV0LWxvbmc=\n", "log_level: warn\nlisten: '[::1]:1'\n", "zone: !x y\n", "{zone: a, limits: {labels: 1}}",
		"%YAML 1.1\n---\nzone: a\n", "\xff\xfez\x00o\x00", "zone: ~\nzone: null\n", "data_dir: |\n  a\n  b\n", "zone: \"\\u0085\"\n",
	} {
		f.Add([]byte(file))
	}
	r := resolver{filepath.Join(f.TempDir(), "locknode.yaml")}
	f.Fuzz(func(t *testing.T, file []byte) {
		defer fuzz.Watch()()
		if file == nil {
			file = []byte{}
		}
		var c serveConfig
		var all []resolved
		var err error
		if n := fuzz.Allocated(func() { c, all, err = r.resolve(t, file, nil, nil) }); n > 4<<20+2000*uint64(len(file)) {
			t.Errorf("%d bytes allocated for a file of %d", n, len(file))
		}
		if err == nil {
			r.sameWhenPrinted(t, c, all)
			return
		}
		keepsSecrets(t, all, string(file), err.Error())
		for _, line := range strings.Split(err.Error(), "\n") {
			if !strings.Contains(line, "locknode.yaml") {
				t.Errorf("fault %q does not say where it is", line)
			}
		}
	})
}

// FuzzSettings gives one setting any value, as a flag and in the environment. Either both
// refuse it or neither does, and a value that is accepted is the same after it was printed
// and read again.
func FuzzSettings(f *testing.F) {
	for i, s := range settings() {
		f.Add(byte(i), s.def)
	}
	for _, s := range everySetting {
		for i, known := range settings() {
			if known.key == s.key {
				f.Add(byte(i), s.value)
			}
		}
	}
	for _, v := range []string{"a\nb", "#", " x ", "~", "-1", "1e3", "0x10", "9223372036854775808", "10000000h", "a:b:c", "[::1]:70000", ":0", "::", "null", "\x00", "'", "\"", "{", "!x", "&a", "*a", "- a", "? a", "%", "@", "`", "true", "on"} {
		for i := range settings() {
			if i%11 == 1 {
				f.Add(byte(i), v)
			}
		}
	}
	r := resolver{filepath.Join(f.TempDir(), "locknode.yaml")}
	f.Fuzz(func(t *testing.T, which byte, value string) {
		all := settings()
		s := all[int(which)%len(all)]
		fromFlag, shown, flagErr := r.resolve(t, nil, nil, []string{"--" + s.flag() + "=" + value})
		if flagErr == nil && utf8.ValidString(value) {
			r.sameWhenPrinted(t, fromFlag, shown)
		}
		if flagErr != nil && !strings.Contains(flagErr.Error(), s.key) {
			t.Errorf("fault %q does not name %s", flagErr, s.key)
		}
		keepsSecrets(t, shown, value, errText(flagErr))
		if value == "" || strings.ContainsRune(value, 0) {
			return // an environment cannot have it, or it counts as not set
		}
		if s.secret {
			if flagErr == nil {
				t.Fatalf("%s %q is accepted on the command line", s.key, value)
			}
			return
		}
		fromEnv, _, envErr := r.resolve(t, nil, map[string]string{s.environment(): value}, nil)
		if (flagErr == nil) != (envErr == nil) {
			t.Fatalf("%s %q: flag says %v, environment says %v", s.key, value, flagErr, envErr)
		}
		if flagErr == nil && !same(fromEnv, fromFlag) {
			t.Fatalf("%s %q: flag gives %+v, environment gives %+v", s.key, value, fromFlag, fromEnv)
		}
	})
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// FuzzFlags parses any arguments.
func FuzzFlags(f *testing.F) {
	for _, args := range []string{
		"--timing\x00300ms", "--timing=300ms\x00--nonvoter", "--nonvoter=false\x00x", "--join=a:1,b:2\x00--join\x00c:3", "--limits.sessions=3", "--no-such", "-x", "--", "--=", "--timing",
		"--fast\x00false", "--gossip-key=MDEyMzQ1Njc4OWFiY2RlZg==",
	} {
		f.Add(args)
	}
	r := resolver{filepath.Join(f.TempDir(), "locknode.yaml")}
	f.Fuzz(func(t *testing.T, args string) {
		c, all, err := r.resolve(t, nil, nil, strings.Split(args, "\x00"))
		if err != nil {
			keepsSecrets(t, all, args, err.Error())
			return
		}
		if utf8.ValidString(args) {
			r.sameWhenPrinted(t, c, all)
		}
	})
}
