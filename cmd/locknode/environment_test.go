package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestMisspelledVariablesAreFaults(t *testing.T) {
	for name, meant := range map[string]string{
		"LOCKNODE_BOOTSTRAP_EXPCT":        "LOCKNODE_BOOTSTRAP_EXPECT",
		"LOCKNODE_DATADIR":                "LOCKNODE_DATA_DIR",
		"LOCKNODE_ADVERTISE_HOSTS":        "LOCKNODE_ADVERTISE_HOST",
		"LOCKNODE_JION":                   "LOCKNODE_JOIN",
		"LOCKNODE_LIMIT_SESSIONS":         "LOCKNODE_LIMITS_SESSIONS",
		"locknode_timing":                 "LOCKNODE_TIMING",
		"LOCKNODE_LIMITS.SESSIONS":        "LOCKNODE_LIMITS_SESSIONS",
		"LOCKNODE_ENDPOINT":               "LOCKNODE_ENDPOINTS",
		"LOCKNODE_CLUSTERNAME":            "LOCKNODE_CLUSTER_NAME",
		"LOCKNODE_REMOVE_FAILED_AFTER_":   "LOCKNODE_REMOVE_FAILED_AFTER",
		"LOCKNODE_CONECT_TIMEOUT":         "LOCKNODE_CONNECT_TIMEOUT",
		"LOCKNODE_GOSSIP_KEYS":            "LOCKNODE_GOSSIP_KEY",
		"LOCKNODE_LIMITS_ONCE_REMEMBRED ": "LOCKNODE_LIMITS_ONCE_REMEMBERED",
	} {
		faults, unknown := checkVariables([]string{"PATH=/bin", name + "=secret"})
		if len(faults) != 1 || len(unknown) > 0 || !strings.HasSuffix(faults[0].Error(), "did you mean "+meant+"?") {
			t.Errorf("%s: got %v and %v, want a fault that names %s", name, faults, unknown, meant)
		}
		if strings.Contains(errorText(faults), "secret") {
			t.Errorf("%s: its value is printed", name)
		}
	}
}

func errorText(errs []error) (text string) {
	for _, err := range errs {
		text += err.Error() + "\n"
	}
	return text
}

func TestVariablesOfOthersAreNoFaults(t *testing.T) {
	environ := []string{
		"LOCKNODE_SERVICE_HOST=10.0.0.1", "LOCKNODE_SERVICE_PORT=7400", "LOCKNODE_SERVICE_PORT_API=7400", "LOCKNODE_PORT=tcp://10.0.0.1:7400",
		"LOCKNODE_PORT_7400_TCP=tcp://10.0.0.1:7400", "LOCKNODE_PORT_7400_TCP_ADDR=10.0.0.1", "LOCKNODE_PORT_7403_UDP_PROTO=udp",
		"LOCKNODE_HEADLESS_SERVICE_HOST=10.0.0.2", "LOCKNODE_HEADLESS_PORT_7400_TCP_PORT=7400", "LOCKNODE_ENV_FOO=x",
		"LOCKNODE_CONFIG=/etc/locknode.yaml", "LOCKNODE_ENDPOINTS=a:1", "LOCKNODE_CONNECT_TIMEOUT=1s",
		"LOCKNODE_NAME=lock", "LOCKNODE_FENCING_TOKEN=1", "LOCKNODE_TOKEN=x", "LOCKNODE_TOKEN_FILE=/x", "LOCKNODE_HELD=x", "LOCKNODE_JION=", "LOCKNODES=1",
	}
	for _, s := range settings() {
		environ = append(environ, s.environment()+"=x")
	}
	if faults, unknown := checkVariables(environ); len(faults)+len(unknown) > 0 {
		t.Errorf("got %v and %v, want nothing", faults, unknown)
	}
	faults, unknown := checkVariables([]string{"LOCKNODE_IMAGE=x", "LOCKNODE_DEPLOYED_BY=y"})
	if len(faults) > 0 || !slices.Equal(unknown, []string{"LOCKNODE_DEPLOYED_BY", "LOCKNODE_IMAGE"}) {
		t.Errorf("got %v and %v, want a warning of both", faults, unknown)
	}
}

func TestServeReportsAllFaultsAtOnce(t *testing.T) {
	var stderr bytes.Buffer
	env := map[string]string{"LOCKNODE_ZONE": strings.Repeat("z", 65), "LOCKNODE_JION": "a:1"}
	p := program{
		stdin: os.Stdin, stdout: &bytes.Buffer{}, stderr: &stderr, lookup: lookupIn(env),
		environ: func() (all []string) {
			for k, v := range env {
				all = append(all, k+"="+v)
			}
			return all
		},
	}
	code := p.run([]string{
		"serve", "--node-id", "a\x00", "--join", "b.example,c.example:7403", "--join", "d.example:0", "--advertise-host", "10.0.0.1:7400",
		"--listen", "0.0.0.0:7400", "--nonvoter", "--bootstrap-expect", "3", "--cluster-name", "a b",
	})
	if code != exitUsage {
		t.Errorf("exit code %d, want %d", code, exitUsage)
	}
	for _, want := range []string{
		`flag --node-id: node_id: is "a`, `must be printable text`,
		`LOCKNODE_ZONE: zone: is "zzz`, `must have at most 64 bytes, has 65`,
		`"b.example": `, `"d.example:0": `,
		`flag --advertise-host: advertise_host: is "10.0.0.1:7400"`, `without a port`,
		`flag --cluster-name: cluster_name: is "a b", must be 1 to 64 letters`,
		`nonvoter with bootstrap expect 3`, `set insecure to allow it`,
		`LOCKNODE_JION: unknown variable, did you mean LOCKNODE_JOIN?`,
		`data_dir: is missing, must be a directory that survives restarts`,
	} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("faults lack %q", want)
		}
	}
	if t.Failed() {
		t.Log(stderr.String())
	}
}
