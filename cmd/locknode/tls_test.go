package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/locknode/locknode/internal/certs"
)

// tlsRun is what `locknode tls` printed.
type tlsRun struct {
	code        int
	out, errors string
}

// locknodeTLS runs a command that needs no cluster, in this process.
func locknodeTLS(t *testing.T, env map[string]string, args ...string) tlsRun {
	t.Helper()
	var out, errs bytes.Buffer
	p := program{stdout: &out, stderr: &errs, lookup: func(name string) (string, bool) { v, ok := env[name]; return v, ok }}
	code := p.run(append([]string{"tls"}, args...))
	return tlsRun{code, out.String(), errs.String()}
}

func (r tlsRun) want(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code is %d, want %d: %+v", r.code, code, r)
	}
	for _, text := range texts {
		if !strings.Contains(r.out+r.errors, text) {
			t.Errorf("got %q and %q, want %q in it", r.out, r.errors, text)
		}
	}
}

// pki makes a CA, node n1 and client billing in a directory.
func pki(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	locknodeTLS(t, nil, "ca", "create", "--out", dir, "--name", "Test CA").want(t, 0)
	locknodeTLS(t, nil, "cert", "create", "--ca", dir, "--out", dir, "--cluster", "prod", "--node", "n1", "--host", "localhost,127.0.0.1").want(t, 0)
	locknodeTLS(t, nil, "cert", "create", "--ca", dir, "--out", dir, "--client", "billing").want(t, 0)
	return dir
}

func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

func TestCertificatesThatAreMadeCanBeUsed(t *testing.T) {
	dir := pki(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	if got, want := filesIn(t, dir), []string{"billing.crt", "billing.key", "ca.crt", "ca.key", "n1.crt", "n1.key"}; !slices.Equal(got, want) {
		t.Errorf("the files are %q, want %q", got, want)
	}
	for _, name := range []string{"ca.key", "n1.key", "billing.key"} {
		if info, err := os.Stat(in(name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want mode 0600", name, info.Mode(), err)
		}
	}
	if _, err := certs.Open(certs.Files{CA: in("ca.crt"), Cert: in("n1.crt"), Key: in("n1.key")}, certs.Options{Node: true, Cluster: "prod", ID: "n1"}); err != nil {
		t.Error(err)
	}
	if _, err := certs.Open(certs.Files{CA: in("ca.crt"), Cert: in("billing.crt"), Key: in("billing.key")}, certs.Options{}); err != nil {
		t.Error(err)
	}
}

func TestFilesAreReplacedOnlyByForce(t *testing.T) {
	dir := pki(t)
	content := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, c := range []struct {
		args  []string
		files []string
	}{
		{[]string{"ca", "create", "--out", dir}, []string{"ca.crt", "ca.key"}},
		{[]string{"cert", "create", "--ca", dir, "--out", dir, "--client", "billing"}, []string{"billing.crt", "billing.key"}},
	} {
		var before []string
		for _, name := range c.files {
			before = append(before, content(name))
		}
		locknodeTLS(t, nil, c.args...).want(t, exitOther, c.files[0]+": file already exists", c.files[1]+": file already exists", "replace the files with --force")
		for i, name := range c.files {
			if content(name) != before[i] {
				t.Errorf("%s was changed", name)
			}
		}
		locknodeTLS(t, nil, append(c.args, "--force")...).want(t, 0, "made ")
		for i, name := range c.files {
			if content(name) == before[i] {
				t.Errorf("%s was not replaced by force", name)
			}
		}
	}
}

// The files of a node called "ca" would be those of the CA.
func TestACAIsNotOverwrittenByWhatItSigns(t *testing.T) {
	dir := pki(t)
	key, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{dir, dir + "/.", link} {
		locknodeTLS(t, nil, "cert", "create", "--ca", dir, "--out", out, "--client", "ca", "--force").
			want(t, exitUsage, "--out: is the directory of the CA, whose files are called as those of client ca would be")
	}
	if now, err := os.ReadFile(filepath.Join(dir, "ca.key")); err != nil || !bytes.Equal(now, key) {
		t.Errorf("the key of the CA was changed (%v)", err)
	}
	locknodeTLS(t, nil, "cert", "create", "--ca", dir, "--out", t.TempDir(), "--client", "ca").want(t, 0)
}

func TestFilesStayInTheDirectoryWhateverTheName(t *testing.T) {
	dir := pki(t)
	out := t.TempDir()
	for _, name := range []string{"../evil", "a/b", "..", "."} {
		locknodeTLS(t, nil, "cert", "create", "--ca", dir, "--out", out, "--client", name).want(t, 0)
	}
	if got := filesIn(t, out); len(got) != 8 {
		t.Errorf("%q are in the directory, want 8 files", got)
	}
}

func TestWrongRequestsForCertificatesAreRefused(t *testing.T) {
	dir := pki(t)
	out := t.TempDir()
	for name, c := range map[string]struct {
		code int
		args []string
		want string
	}{
		"nobody":            {exitUsage, nil, "--node, --client: one of them is missing"},
		"both":              {exitUsage, []string{"--node", "a", "--client", "b"}, "--node and --client: must not be given together"},
		"node without host": {exitUsage, []string{"--node", "a"}, "--host: is missing, must be the names and IP addresses at which clients reach node a"},
		"client with host":  {exitUsage, []string{"--client", "a", "--host", "b"}, "--client and --host: must not be given together"},
		"host with port":    {exitUsage, []string{"--node", "a", "--host", "b:7400"}, `host: is "b:7400", must be a DNS name or an IP address, without a port`},
		"no days":           {exitUsage, []string{"--client", "a", "--days", "0"}, "--days: is 0, must be 1 to 36500"},
		"too many days":     {exitUsage, []string{"--client", "a", "--days", "36501"}, "--days: is 36501"},
		"outlives the CA":   {exitUsage, []string{"--client", "a", "--days", "3651"}, `must be at most 3649: the CA "Test CA" ends on`},
		"cluster":           {exitUsage, []string{"--client", "a", "--cluster", "a b"}, `cluster name: is "a b", must be`},
		"name too long":     {exitUsage, []string{"--client", strings.Repeat("a", 65)}, "name of the client: is 65 bytes long, must have at most 64"},
		"argument":          {exitUsage, []string{"--client", "a", "b"}, "has arguments"},
		"no CA":             {exitOther, []string{"--client", "a", "--ca", out}, "`locknode tls ca create --out DIR` makes one"},
		"empty":             {exitUsage, []string{"--client", ""}, "--client: is empty, must have a value"},
	} {
		args := append([]string{"cert", "create", "--ca", dir, "--out", out}, c.args...)
		r := locknodeTLS(t, nil, args...)
		r.want(t, c.code, c.want)
		if got := filesIn(t, out); len(got) > 0 || r.out != "" {
			t.Errorf("%s: made %q, printed %q", name, got, r.out)
		}
	}
	locknodeTLS(t, nil, "ca", "create", "--out", out, "--days", "-1").want(t, exitUsage, "--days: is -1")
	locknodeTLS(t, nil, "ca", "create", "--out", out, "--name", "a\nb").want(t, exitUsage, "must be printable text")
	locknodeTLS(t, nil, "ca", "destroy").want(t, exitUsage, `unknown command "destroy" of tls ca`)
	locknodeTLS(t, nil, "inspect").want(t, exitUsage, "must have FILE…")
}

func TestTheClusterIsThatOfTheEnvironment(t *testing.T) {
	dir := pki(t)
	env := map[string]string{"LOCKNODE_CLUSTER_NAME": "test"}
	for want, args := range map[string][]string{"locknode://test/client/a": nil, "locknode://prod/client/b": {"--cluster", "prod"}} {
		name := want[len(want)-1:]
		r := locknodeTLS(t, env, append([]string{"cert", "create", "--ca", dir, "--out", dir, "--client", name, "-o", "json"}, args...)...)
		var made madeJSON
		if err := json.Unmarshal([]byte(r.out), &made); err != nil || made.URI != want || made.CertFile != filepath.Join(dir, name+".crt") {
			t.Errorf("got %+v (%v), want %s", r, err, want)
		}
	}
}

func TestInspectSaysWhatFilesAreAndWhetherTheyFit(t *testing.T) {
	dir, other := pki(t), pki(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	locknodeTLS(t, nil, "inspect", in("ca.crt"), in("n1.crt"), in("n1.key"), in("billing.crt")).want(t, 0,
		`ca.crt: CA Test CA`, "n1.crt: node n1 of cluster prod", "hosts        localhost, 127.0.0.1", "364 days left",
		"billing.crt: client billing\n", "as a node    no: has no URI locknode://CLUSTER/node/ID; is not for servers", "as a client  yes\n",
		"signed by    "+in("ca.crt"), "key file     "+in("n1.key"), "n1.key: private key, ECDSA P-256\n  fits         "+in("n1.crt"))
	locknodeTLS(t, nil, "inspect", in("n1.crt")).want(t, 0, "as a node    yes, if a trusted CA has signed it")
	locknodeTLS(t, nil, "inspect", in("n1.crt"), in("billing.key")).want(t, exitOther, "billing.key: fits none of the certificates that were given")
	locknodeTLS(t, nil, "inspect", in("n1.crt"), filepath.Join(other, "ca.crt")).want(t, exitOther,
		"as a node    no: is signed by \"Test CA\", must be signed by a CA that this process trusts: \"Test CA\", of which one has the same name and another key",
		"is signed by none of the CAs that were given")
	r := locknodeTLS(t, nil, "inspect", in("none"), dir, in("n1.crt"))
	r.want(t, exitOther, "wrong: "+in("none")+": must be a file that exists", "wrong: "+dir+": is a directory", "n1.crt: node n1")
	for _, name := range []string{"ca.key", "n1.key"} {
		key, err := os.ReadFile(in(name))
		if err != nil {
			t.Fatal(err)
		}
		secret := strings.Split(string(key), "\n")[1]
		if r := locknodeTLS(t, nil, "inspect", in(name)); r.code != 0 || strings.Contains(r.out, secret) {
			t.Errorf("inspect of a key alone: %+v", r)
		}
	}
}

func TestInspectPrintsTheSameAsJSON(t *testing.T) {
	dir := pki(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	r := locknodeTLS(t, nil, "inspect", "-o", "json", in("ca.crt"), in("n1.crt"), in("n1.key"), in("billing.key"))
	var got inspectJSON
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || r.code != exitOther || r.errors != "" {
		t.Fatalf("%+v: %v", r, err)
	}
	if len(got.Certificates) != 2 || len(got.Keys) != 2 || len(got.Faults) != 1 || !got.CAChecked {
		t.Fatalf("got %+v", got)
	}
	ca, n1 := got.Certificates[0], got.Certificates[1]
	if !ca.CA || ca.AsNode != nil || ca.Role != "" || ca.Subject != "Test CA" {
		t.Errorf("the CA is %+v", ca)
	}
	if n1.Role != "node" || n1.Name != "n1" || n1.Cluster != "prod" || n1.URI != "locknode://prod/node/n1" || !n1.AsNode.Usable || !n1.AsClient.Usable ||
		!slices.Equal(n1.KeyFiles, []string{in("n1.key")}) || !slices.Equal(n1.SignedBy, []string{in("ca.crt")}) || n1.DaysLeft != 364 {
		t.Errorf("the node is %+v", n1)
	}
	if len(got.Keys[1].Fits) != 0 || !slices.Equal(got.Keys[0].Fits, []string{in("n1.crt")}) {
		t.Errorf("the keys are %+v", got.Keys)
	}
}
