package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/locknode/locknode/node"
)

// configured resolves a configuration from its three sources.
func configured(t *testing.T, args []string, env map[string]string, file string) (serveConfig, []resolved, error) {
	t.Helper()
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	flags.String("config", "", "")
	addSettingFlags(flags)
	if file != "" {
		path := filepath.Join(t.TempDir(), "locknode.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatalf("parse %q: %v", args, err)
	}
	return resolve(flags, lookupIn(env))
}

func lookupIn(env map[string]string) func(string) (string, bool) {
	return func(key string) (string, bool) {
		v, ok := env[key]
		return v, ok
	}
}

func TestFlagsWinOverEnvironmentOverFile(t *testing.T) {
	flag, env, file := []string{"--timing", "300ms"}, map[string]string{"LOCKNODE_TIMING": "400ms"}, "timing: 500ms\n"
	for _, c := range []struct {
		name   string
		args   []string
		env    map[string]string
		file   string
		want   time.Duration
		source string
	}{
		{"nothing", nil, nil, "", 200 * time.Millisecond, "default"},
		{"file", nil, nil, file, 500 * time.Millisecond, "locknode.yaml:1"},
		{"environment", nil, env, "", 400 * time.Millisecond, "LOCKNODE_TIMING"},
		{"environment and file", nil, env, file, 400 * time.Millisecond, "LOCKNODE_TIMING"},
		{"flag", flag, nil, "", 300 * time.Millisecond, "flag --timing"},
		{"flag and file", flag, nil, file, 300 * time.Millisecond, "flag --timing"},
		{"flag and environment", flag, env, "", 300 * time.Millisecond, "flag --timing"},
		{"all", flag, env, file, 300 * time.Millisecond, "flag --timing"},
		{"empty variable", nil, map[string]string{"LOCKNODE_TIMING": ""}, file, 500 * time.Millisecond, "locknode.yaml:1"},
		{"empty key", nil, nil, "timing:\n", 200 * time.Millisecond, "default"},
	} {
		got, all, err := configured(t, c.args, c.env, c.file)
		if err != nil || got.node.Timing != c.want {
			t.Errorf("%s: got %v, %v, want %v", c.name, got.node.Timing, err, c.want)
		}
		i := slices.IndexFunc(all, func(r resolved) bool { return r.key == "timing" })
		if source := all[i].source; !strings.HasSuffix(source, c.source) {
			t.Errorf("%s: source %q, want %q", c.name, source, c.source)
		}
	}
}

// everySetting has for each setting a value that differs from the default, and the result
// in the configuration.
var everySetting = []struct {
	key, value string
	got        func(serveConfig) any
	want       any
}{
	{"node_id", "n7", func(c serveConfig) any { return c.node.ID }, "n7"},
	{"data_dir", "/d", func(c serveConfig) any { return c.node.DataDir }, "/d"},
	{"listen", "127.0.0.1:9400", func(c serveConfig) any { return c.node.Listen }, "127.0.0.1:9400"},
	{"api_addr", "127.0.0.1:1", func(c serveConfig) any { return c.node.APIAddr }, "127.0.0.1:1"},
	{"http_addr", "off", func(c serveConfig) any { return c.node.HTTPAddr }, "off"},
	{"raft_addr", "127.0.0.1:3", func(c serveConfig) any { return c.node.RaftAddr }, "127.0.0.1:3"},
	{"gossip_addr", "127.0.0.1:4", func(c serveConfig) any { return c.node.GossipAddr }, "127.0.0.1:4"},
	{"advertise_host", "a.example", func(c serveConfig) any { return c.node.AdvertiseHost }, "a.example"},
	{"cluster_name", "blue", func(c serveConfig) any { return c.node.ClusterName }, "blue"},
	{"join", "b.example:7403,c.example:7403", func(c serveConfig) any { return strings.Join(c.node.Join, " ") }, "b.example:7403 c.example:7403"},
	{"bootstrap_expect", "3", func(c serveConfig) any { return c.node.BootstrapExpect }, 3},
	{"nonvoter", "true", func(c serveConfig) any { return c.node.Nonvoter }, true},
	{"zone", "z1", func(c serveConfig) any { return c.node.Zone }, "z1"},
	{"timing", "1s", func(c serveConfig) any { return c.node.Timing }, time.Second},
	{"log_store", "boltdb", func(c serveConfig) any { return c.node.LogStore }, "boltdb"},
	{"remove_failed_after", "-1s", func(c serveConfig) any { return c.node.RemoveFailedAfter }, -time.Second},
	{"remove_replaced_after", "1m", func(c serveConfig) any { return c.node.RemoveReplacedAfter }, time.Minute},
	{"leave_wait", "1m", func(c serveConfig) any { return c.node.LeaveWait }, time.Minute},
	{"stop_wait", "-1s", func(c serveConfig) any { return c.node.StopWait }, -time.Second},
	{"leave_on_stop", "true", func(c serveConfig) any { return c.node.LeaveOnStop }, true},
	{"max_connections", "70", func(c serveConfig) any { return c.node.MaxConnections }, 70},
	{"max_connections_per_address", "60", func(c serveConfig) any { return c.node.MaxConnectionsPerAddress }, 60},
	{"feature_level", "1", func(c serveConfig) any { return c.node.FeatureLevel }, 1},
	{"max_nonvoters", "7", func(c serveConfig) any { return c.node.MaxNonvoters }, 7},
	{"insecure", "true", func(c serveConfig) any { return c.node.Insecure }, true},
	{"gossip_key", "MDEyMzQ1Njc4OWFiY2RlZg==", func(c serveConfig) any { return string(c.node.GossipKey) }, "0123456789abcdef"},
	{"http_hosts", "locks.example", func(c serveConfig) any { return strings.Join(c.node.HTTPHosts, ",") }, "locks.example"},
	{"gossip_key_file", "testdata/gossip.key", func(c serveConfig) any { return c.gossipKeyFile }, "testdata/gossip.key"},
	{"fast", "true", func(c serveConfig) any { return c.node.Fast }, true},
	{"log_level", "debug", func(c serveConfig) any { return c.logLevel }, slog.LevelDebug},
	{"log_format", "json", func(c serveConfig) any { return c.logFormat }, "json"},
	{"tls.mode", "required", func(c serveConfig) any { return c.node.TLS.Mode }, "required"},
	{"tls.ca_file", "ca.pem", func(c serveConfig) any { return c.node.TLS.CAFile }, "ca.pem"},
	{"tls.cert_file", "n7.pem", func(c serveConfig) any { return c.node.TLS.CertFile }, "n7.pem"},
	{"tls.key_file", "n7-key.pem", func(c serveConfig) any { return c.node.TLS.KeyFile }, "n7-key.pem"},
	{"tls.client_ca_file", "clients.pem", func(c serveConfig) any { return c.node.TLS.ClientCAFile }, "clients.pem"},
	{"auth.mode", "log", func(c serveConfig) any { return c.node.Auth.Mode }, "log"},
	{"auth.open", "metrics,status", func(c serveConfig) any { return strings.Join(c.node.Auth.Open, "+") }, "metrics+status"},
	{"audit.file", "testdata/audit.jsonl", func(c serveConfig) any { return c.audit.file }, "testdata/audit.jsonl"},
	{"audit.stdout", "true", func(c serveConfig) any { return c.audit.stdout }, true},
	{"audit.grants", "true", func(c serveConfig) any { return c.audit.grants }, true},
	{"audit.on_error", "refuse", func(c serveConfig) any { return c.audit.onError }, "refuse"},
	{"audit.max_size", "3MiB", func(c serveConfig) any { return c.audit.maxSize }, int64(3 << 20)},
	{"audit.backups", "4", func(c serveConfig) any { return c.audit.backups }, 4},
	{"quota.connections", "31", func(c serveConfig) any { return c.node.Quota.Connections }, 31},
	{"quota.streams", "32", func(c serveConfig) any { return c.node.Quota.Streams }, 32},
	{"quota.ops_per_second", "33", func(c serveConfig) any { return c.node.Quota.OpsPerSecond }, 33},
	{"quota.unsent_bytes", "34KiB", func(c serveConfig) any { return c.node.Quota.UnsentBytes }, int64(34 << 10)},
	{"debug.pprof", "true", func(c serveConfig) any { return c.pprof }, true},
	{"limits.name_bytes", "1", func(c serveConfig) any { return c.node.Limits.NameBytes }, 1},
	{"limits.value_bytes", "2", func(c serveConfig) any { return c.node.Limits.ValueBytes }, 2},
	{"limits.holder_bytes", "3", func(c serveConfig) any { return c.node.Limits.HolderBytes }, 3},
	{"limits.labels", "4", func(c serveConfig) any { return c.node.Limits.Labels }, 4},
	{"limits.label_bytes", "5", func(c serveConfig) any { return c.node.Limits.LabelBytes }, 5},
	{"limits.locks_per_request", "6", func(c serveConfig) any { return c.node.Limits.LocksPerRequest }, 6},
	{"limits.waiters_per_lock", "7", func(c serveConfig) any { return c.node.Limits.WaitersPerLock }, 7},
	{"limits.waiters", "8", func(c serveConfig) any { return c.node.Limits.Waiters }, 8},
	{"limits.grants_per_session", "9", func(c serveConfig) any { return c.node.Limits.GrantsPerSession }, 9},
	{"limits.requests_window", "10", func(c serveConfig) any { return c.node.Limits.RequestsWindow }, 10},
	{"limits.sessions", "11", func(c serveConfig) any { return c.node.Limits.Sessions }, 11},
	{"limits.grants", "12", func(c serveConfig) any { return c.node.Limits.Grants }, 12},
	{"limits.once_remembered", "13", func(c serveConfig) any { return c.node.Limits.OnceRemembered }, 13},
	{"limits.ended_remembered", "21", func(c serveConfig) any { return c.node.Limits.EndedRemembered }, 21},
	{"limits.once_for", "14s", func(c serveConfig) any { return c.node.Limits.OnceNanos }, int64(14e9)},
	{"limits.min_ttl", "15s", func(c serveConfig) any { return c.node.Limits.MinTTL }, int64(15e9)},
	{"limits.max_ttl", "16s", func(c serveConfig) any { return c.node.Limits.MaxTTL }, int64(16e9)},
	{"limits.max_wait", "17s", func(c serveConfig) any { return c.node.Limits.MaxWait }, int64(17e9)},
	{"limits.max_delay", "18s", func(c serveConfig) any { return c.node.Limits.MaxDelay }, int64(18e9)},
	{"limits.reason_bytes", "19", func(c serveConfig) any { return c.node.Limits.ReasonBytes }, 19},
	{"limits.table_bytes", "22MiB", func(c serveConfig) any { return c.node.Limits.TableBytes }, int64(22 << 20)},
	{"limits.expiries_per_entry", "20", func(c serveConfig) any { return c.node.Limits.ExpiriesPerEntry }, 20},
}

func TestEverySettingCanBeGivenInAllThreeSources(t *testing.T) {
	if got, want := len(everySetting), len(settings()); got != want {
		t.Fatalf("the table has %d settings, there are %d", got, want)
	}
	env := map[string]string{}
	var args []string
	var file strings.Builder
	below := map[string]string{} // section → its settings
	for _, s := range everySetting {
		flag := strings.ReplaceAll(s.key, "_", "-")
		if s.key != "gossip_key" { // secrets are refused on a command line; gossip_key_file has the same key
			args = append(args, "--"+flag+"="+s.value)
		}
		env["LOCKNODE_"+strings.ToUpper(strings.ReplaceAll(s.key, ".", "_"))] = s.value
		if section, key, ok := strings.Cut(s.key, "."); ok {
			below[section] += "  " + key + ": " + s.value + "\n"
		} else {
			file.WriteString(s.key + ": " + s.value + "\n")
		}
	}
	for section, settings := range below {
		file.WriteString(section + ":\n" + settings)
	}
	for source, give := range map[string]func() (serveConfig, []resolved, error){
		"flags":       func() (serveConfig, []resolved, error) { return configured(t, args, nil, "") },
		"environment": func() (serveConfig, []resolved, error) { return configured(t, nil, env, "") },
		"file": func() (serveConfig, []resolved, error) {
			return configured(t, nil, nil, file.String())
		},
	} {
		c, _, err := give()
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		for _, s := range everySetting {
			if got := s.got(c); got != s.want {
				t.Errorf("%s: %s: got %v, want %v", source, s.key, got, s.want)
			}
		}
	}
}

// The zero value of a node's configuration is its default, and the help must show the same
// default.
func TestDefaultsAreTheNodes(t *testing.T) {
	c, _, err := configured(t, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	want := node.Config{Listen: "127.0.0.1:7400", Timing: 200 * time.Millisecond, RemoveFailedAfter: 72 * time.Hour}
	got := c.node
	if got.Listen != want.Listen || got.Timing != want.Timing || got.LogStore != want.LogStore || got.RemoveFailedAfter != want.RemoveFailedAfter ||
		got.RemoveReplacedAfter != 10*time.Minute || got.BootstrapExpect != 0 || got.Nonvoter || got.Insecure || got.LeaveOnStop || got.Fast || got.Limits != want.Limits {
		t.Errorf("got %+v", got)
	}
}

func TestNoSettingTakesTheChildsVariables(t *testing.T) {
	for _, s := range settings() {
		switch s.environment() {
		case "LOCKNODE_NAME", "LOCKNODE_FENCING_TOKEN", "LOCKNODE_TOKEN", "LOCKNODE_TOKEN_FILE", "LOCKNODE_HELD", "LOCKNODE_ENDPOINTS", "LOCKNODE_CONNECT_TIMEOUT", "LOCKNODE_CONFIG":
			t.Errorf("setting %s is configured by %s, which means something else", s.key, s.environment())
		}
	}
}

func TestEveryFaultIsReportedAtOnce(t *testing.T) {
	_, _, err := configured(t,
		[]string{"--timing", "200", "--nonvoter=perhaps", "--join", "a.example"},
		map[string]string{"LOCKNODE_LOG_STORE": "sqlite", "LOCKNODE_TIMING": "5h"},
		`listen: here
tming: 300ms
join: {a: b}
bootstrap_expect: many
zone: [a, b]
limits:
  sesions: 3
  max_ttl: -1s
listen: there
wholly_unknown_thing: 1
gossip_key: c2hvcnQ=
`)
	if err == nil {
		t.Fatal("resolve: want faults")
	}
	for _, want := range []string{
		`flag --timing: timing: is "200", must be a duration with its unit`,
		`LOCKNODE_TIMING: timing: is "5h", must be between 20ms and 10s`,
		`flag --nonvoter: nonvoter: is "perhaps", must be true or false`,
		`flag --join: join: is "a.example": "a.example": `,
		`LOCKNODE_LOG_STORE: log_store: is "sqlite", must be wal or boltdb`,
		`locknode.yaml:1: listen: is "here", must be host:port`,
		`locknode.yaml:2: unknown key tming, did you mean timing?`,
		`locknode.yaml:3: join: must be a list of values`,
		`locknode.yaml:4: bootstrap_expect: is "many", must be a whole number from 0 to 9`,
		`locknode.yaml:5: zone: must be one value`,
		`locknode.yaml:7: unknown key limits.sesions, did you mean limits.sessions?`,
		`locknode.yaml:8: limits.max_ttl: is "-1s", must be 0 or more`,
		`locknode.yaml:9: listen: is already set in line 1`,
		"locknode.yaml:10: unknown key wholly_unknown_thing; `locknode serve --print-config` prints all keys",
		`locknode.yaml:11: gossip_key: is "(secret)", must be 16, 24 or 32 bytes in base64`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("faults lack %q", want)
		}
	}
	if strings.Contains(err.Error(), "c2hvcnQ=") {
		t.Error("a secret is printed")
	}
	if t.Failed() {
		t.Logf("faults:\n%v", err)
	}
}

func TestFilesThatAreNoConfiguration(t *testing.T) {
	for name, c := range map[string]struct{ file, want string }{
		"no mapping":    {"just text\n", `locknode.yaml:1: is "just text", must be settings`},
		"two documents": {"zone: a\n---\nzone: b\n", "has several YAML documents, must have one"},
		"no YAML":       {"zone: [a\n", "line "},
		"limits no map": {"limits: 3\n", `locknode.yaml:1: is "3", must be settings`},
	} {
		if _, _, err := configured(t, nil, nil, c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	for name, file := range map[string]string{"comments only": "# nothing\n", "empty limits": "limits:\n", "alias": "zone: &z a\nnode_id: *z\n"} {
		if _, _, err := configured(t, nil, nil, file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := configured(t, []string{"--config", "/does/not/exist"}, nil, ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: got %v", err)
	}
}

func TestConfigurationFileCanComeFromTheEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte("zone: z9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := configured(t, nil, map[string]string{"LOCKNODE_CONFIG": path}, "")
	if err != nil || c.node.Zone != "z9" {
		t.Errorf("got zone %q, %v", c.node.Zone, err)
	}
}

func TestPrintedConfigurationMeansTheSame(t *testing.T) {
	var args []string
	for _, s := range everySetting {
		if s.key != "gossip_key" { // secrets are not printed
			args = append(args, "--"+strings.ReplaceAll(s.key, "_", "-")+"="+s.value)
		}
	}
	args = append(args, "--zone=null")                                               // a word that YAML reads as null
	args = append(args, "--data-dir=a\nb # c\u2028\u202e\x7f\u009b\U000e0041\ufeff") // several lines for YAML
	for name, args := range map[string][]string{"all set": args, "nothing set": nil} {
		before, all, err := configured(t, args, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		var printed bytes.Buffer
		if err := printConfig(&printed, all); err != nil {
			t.Fatal(err)
		}
		after, _, err := configured(t, nil, nil, printed.String())
		if err != nil {
			t.Fatalf("%s: read again: %v\n%s", name, err, &printed)
		}
		if got, want := after.node.DataDir, before.node.DataDir; got != want {
			t.Errorf("%s: data_dir: read again as %q, was %q", name, got, want)
		}
		for _, s := range everySetting {
			if got, want := s.got(after), s.got(before); got != want {
				t.Errorf("%s: %s: read again as %v, was %v", name, s.key, got, want)
			}
		}
	}
}

func TestPrintedConfigurationKeepsSecrets(t *testing.T) {
	const key = "MDEyMzQ1Njc4OWFiY2RlZg=="
	_, all, err := configured(t, nil, map[string]string{"LOCKNODE_GOSSIP_KEY": key}, "")
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	if err := printConfig(&printed, all); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(printed.String(), key) || !strings.Contains(printed.String(), "# LOCKNODE_GOSSIP_KEY") {
		t.Errorf("printed:\n%s\nwant its source and not the key", &printed)
	}
	var out bytes.Buffer
	a := &app{program: program{stdout: &out, stderr: io.Discard}, json: true}
	if err := a.printSettings(all); err != nil || strings.Contains(out.String(), key) {
		t.Errorf("printed as JSON, %v:\n%s", err, &out)
	}
}

// The example file shows every setting with its default, commented out.
func TestExampleFileShowsEverySettingAndItsDefault(t *testing.T) {
	data, err := os.ReadFile("locknode.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := configured(t, nil, nil, string(data)); err != nil {
		t.Errorf("the unchanged file: %v", err)
	}
	var uncommented []string
	for _, line := range strings.Split(string(data), "\n") {
		if rest, ok := strings.CutPrefix(line, "#: "); ok {
			line = rest
		}
		uncommented = append(uncommented, line)
	}
	_, all, err := configured(t, nil, nil, strings.Join(uncommented, "\n"))
	if err != nil {
		t.Fatalf("with all settings: %v", err)
	}
	for _, r := range all {
		switch {
		case r.source == "default" && !r.secret && r.def != "" && !r.list:
			t.Errorf("%s is not in the example file", r.key)
		case r.def != "" && r.def != "0s" && r.def != "0" && r.show(r.values) != r.def && !strings.HasPrefix(r.key, "limits."):
			t.Errorf("%s: the example has %q, the default is %q", r.key, r.show(r.values), r.def)
		}
	}
	for _, s := range settings() {
		key := s.key[strings.LastIndexByte(s.key, '.')+1:]
		if !strings.Contains(string(data), key+":") {
			t.Errorf("%s is not in the example file", s.key)
		}
	}
}

func TestEditsCountsWhatATypingErrorTakes(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "ab", 2}, {"timing", "tming", 1}, {"kitten", "sitting", 3}, {"same", "same", 0}} {
		if got := edits(c.a, c.b); got != c.want {
			t.Errorf("edits(%q, %q): got %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
