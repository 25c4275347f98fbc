//go:build unix

package certs

import (
	"crypto/ecdsa"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestANodeIsForBothEndsAndAClientForOne(t *testing.T) {
	ca := newCA(t, "CA")
	node := parse(t, issue(t, ca, nodeID("n1"), "n1.example.com", "*.example.org", "10.0.0.1", "fd00::1"))
	if want := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}; !slices.Equal(node.ExtKeyUsage, want) {
		t.Errorf("the node's usages are %v, want %v", node.ExtKeyUsage, want)
	}
	for _, host := range []string{"n1.example.com", "a.example.org", "10.0.0.1", "fd00::1"} {
		if err := node.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	client := parse(t, issue(t, ca, clientID("billing")))
	if want := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}; !slices.Equal(client.ExtKeyUsage, want) {
		t.Errorf("the client's usages are %v, want %v", client.ExtKeyUsage, want)
	}
	for _, cert := range []*x509.Certificate{node, client} {
		if cert.IsCA || !cert.BasicConstraintsValid || cert.KeyUsage != x509.KeyUsageDigitalSignature {
			t.Errorf("%s: CA is %v, key usage is %b", cert.Subject, cert.IsCA, cert.KeyUsage)
		}
		if k, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve.Params().Name != "P-256" {
			t.Errorf("%s: the key is a %T, want P-256", cert.Subject, cert.PublicKey)
		}
		if !cert.NotBefore.Equal(start.Add(-time.Hour)) || !cert.NotAfter.Equal(start.Add(365*aDay)) {
			t.Errorf("%s: is valid from %v to %v", cert.Subject, cert.NotBefore, cert.NotAfter)
		}
	}
	if node.SerialNumber.Cmp(client.SerialNumber) == 0 {
		t.Error("two certificates have the same serial number")
	}
}

func TestACASignsNoOtherCA(t *testing.T) {
	ca := newCA(t, "CA")
	if !ca.Cert.IsCA || !ca.Cert.MaxPathLenZero || ca.Cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		t.Errorf("CA is %v, path length zero is %v, key usage is %b", ca.Cert.IsCA, ca.Cert.MaxPathLenZero, ca.Cert.KeyUsage)
	}
	sub := custom(t, ca, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	key, err := parsePEM(sub.Key)
	if err != nil {
		t.Fatal(err)
	}
	below := &CA{Cert: parse(t, sub), key: key.keys[0]}
	leaf := parse(t, issue(t, below, nodeID("n1")))
	if err := verify(leaf, []*x509.Certificate{below.Cert}, poolOf([]*x509.Certificate{ca.Cert}), x509.ExtKeyUsageServerAuth, start); err == nil {
		t.Error("a certificate below a CA that the CA has signed is accepted")
	}
}

func TestWhatCannotBeIssuedIsRefused(t *testing.T) {
	ca := newCA(t, "CA")
	for name, c := range map[string]struct {
		r    Request
		want string
	}{
		"outlives the CA":    {Request{Identity: nodeID("n1"), Lifetime: 3651 * aDay, Now: start}, "must be at most 3650: the CA \"CA\" ends on"},
		"no time":            {Request{Identity: nodeID("n1"), Now: start}, "lifetime: is 0s, must be"},
		"for ever":           {Request{Identity: nodeID("n1"), Lifetime: 1 << 62, Now: start}, "lifetime: is"},
		"host of a client":   {Request{Identity: clientID("c"), Hosts: []string{"a"}, Lifetime: aDay, Now: start}, "must be none for a client"},
		"port":               {Request{Identity: nodeID("n1"), Hosts: []string{"a:7400"}, Lifetime: aDay, Now: start}, `host: is "a:7400", must be`},
		"empty host":         {Request{Identity: nodeID("n1"), Hosts: []string{""}, Lifetime: aDay, Now: start}, `host: is "", must be`},
		"address with slash": {Request{Identity: nodeID("n1"), Hosts: []string{"10.0.0.0/8"}, Lifetime: aDay, Now: start}, "must be a DNS name"},
		"half an address":    {Request{Identity: nodeID("n1"), Hosts: []string{"10.0.0"}, Lifetime: aDay, Now: start}, "must be a DNS name"},
		"every host":         {Request{Identity: nodeID("n1"), Hosts: []string{"*"}, Lifetime: aDay, Now: start}, "must be a DNS name"},
	} {
		_, err := ca.Issue(c.r)
		wantError(t, name, err, c.want)
	}
	for _, name := range []string{"", "a\nb", strings.Repeat("a", 65)} {
		if _, err := NewCA(name, aDay, start); err == nil {
			t.Errorf("a CA called %q was made", name)
		}
	}
}

func TestACAThatWasWrittenSignsAgain(t *testing.T) {
	dir := t.TempDir()
	ca, other := newCA(t, "CA"), newCA(t, "Other")
	p, err := ca.Pair()
	if err != nil {
		t.Fatal(err)
	}
	q, err := other.Pair()
	if err != nil {
		t.Fatal(err)
	}
	leaf := issue(t, ca, nodeID("n1"))
	path := func(name string, b []byte) string { return write(t, filepath.Join(dir, name), b) }
	crt, key := path("ca.crt", p.Cert), path("ca.key", p.Key)
	again, err := OpenCA(crt, key, start)
	if err != nil {
		t.Fatal(err)
	}
	if err := parse(t, issue(t, again, nodeID("n2"))).CheckSignatureFrom(ca.Cert); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		cert, key string
		now       time.Time
		want      string
	}{
		"key of another": {crt, path("other.key", q.Key), start, "other.key: is not the key of "},
		"no CA":          {path("leaf.crt", leaf.Cert), path("leaf.key", leaf.Key), start, `leaf.crt: is the certificate of "n1" and not of a CA`},
		"ended":          {crt, key, start.Add(3651 * aDay), `the CA "CA" has ended on 2036-`},
		"too early":      {crt, key, start.Add(-aDay), "is the clock of this machine right?"},
		"missing":        {filepath.Join(dir, "none"), key, start, "none: must be a file that exists"},
		"two":            {path("two.crt", append(p.Cert, q.Cert...)), key, start, "two.crt: has 2 of kind certificate, must have 1"},
		"no key":         {crt, crt, start, "ca.crt: has 0 of kind private key, must have 1"},
		"garbage":        {path("garbage", []byte("x")), key, start, "garbage: is not PEM"},
	} {
		_, err := OpenCA(c.cert, c.key, c.now)
		wantError(t, name, err, c.want)
	}
}

func modeOf(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAKeyIsForItsUserAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki", "n1")
	key, cert := filepath.Join(dir, "n1.key"), filepath.Join(dir, "n1.crt")
	files := []File{{key, []byte("k"), ModeKey}, {cert, []byte("c"), ModeCert}}
	if err := WriteFiles(false, files...); err != nil {
		t.Fatal(err)
	}
	if got := modeOf(t, key); got != 0o600 {
		t.Errorf("the key's mode is %v, want 0600", got)
	}
	if got := modeOf(t, dir); got != 0o700 {
		t.Errorf("the directory's mode is %v, want 0700", got)
	}
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	files[0].Data = []byte("k2")
	if err := WriteFiles(true, files...); err != nil {
		t.Fatal(err)
	}
	if got := modeOf(t, key); got != 0o600 || content(t, key) != "k2" {
		t.Errorf("the replaced key's mode is %v, its content %q", got, content(t, key))
	}
}

// Root replaces a key that the user of the node, or a group, could read: they still can.
func TestAReplacedFileKeepsItsOwnerAndGroup(t *testing.T) {
	key := write(t, filepath.Join(t.TempDir(), "key"), []byte("old"))
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 4711, 4712
	}
	if err := os.Chown(key, uid, gid); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteFiles(true, File{key, []byte("new"), ModeKey}); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(key)
	if err != nil {
		t.Fatal(err)
	}
	if content(t, key) != "new" || os.SameFile(before, after) || after.Mode().Perm() != 0o640 {
		t.Errorf("the mode is %v, the content %q", after.Mode(), content(t, key))
	}
	was, is := before.Sys().(*syscall.Stat_t), after.Sys().(*syscall.Stat_t)
	if was.Uid != is.Uid || was.Gid != is.Gid {
		t.Errorf("it belongs to %d:%d, belonged to %d:%d", is.Uid, is.Gid, was.Uid, was.Gid)
	}
}

func entries(t *testing.T, dir string) (names []string) {
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

func TestNothingIsOverwrittenUnlessAskedFor(t *testing.T) {
	dir := t.TempDir()
	key, cert := filepath.Join(dir, "key"), filepath.Join(dir, "cert")
	write(t, cert, []byte("old"))
	err := WriteFiles(false, File{key, []byte("k"), ModeKey}, File{cert, []byte("c"), ModeCert})
	wantError(t, "write", err, cert+": file already exists")
	if got := entries(t, dir); !slices.Equal(got, []string{"cert"}) || content(t, cert) != "old" {
		t.Errorf("the directory has %q, the old file %q", got, content(t, cert))
	}
	if err := os.Remove(cert); err != nil { // a link to nothing is in the way as well
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), cert); err != nil {
		t.Fatal(err)
	}
	for _, replace := range []bool{false, true} {
		if err := WriteFiles(replace, File{key, []byte("k"), ModeKey}, File{cert, []byte("c"), ModeCert}); err == nil {
			t.Errorf("with replace %v a link was written through", replace)
		}
		if got := entries(t, dir); !slices.Equal(got, []string{"cert"}) {
			t.Errorf("with replace %v the directory has %q", replace, got)
		}
	}
}

// The second file cannot be written: its directory is a file. What was there stays.
func TestAllFilesAreWrittenOrNone(t *testing.T) {
	for _, replace := range []bool{false, true} {
		dir := t.TempDir()
		sub := filepath.Join(dir, "sub")
		if err := os.Mkdir(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		long := filepath.Join(sub, strings.Repeat("a", 255)) // nothing can stand beside it, and with one byte more it cannot exist
		if !replace {
			long += "a"
		}
		key := filepath.Join(dir, "key")
		if replace {
			write(t, key, []byte("old"))
		}
		if err := write2(replace, key, long); err == nil {
			t.Errorf("with replace %v: no error", replace)
		}
		want := []string{"sub"}
		if replace {
			want = []string{"key", "sub"}
			if content(t, key) != "old" {
				t.Errorf("the key was replaced, although its certificate could not be")
			}
		}
		if got := entries(t, dir); !slices.Equal(got, want) {
			t.Errorf("with replace %v there is %q, want %q", replace, got, want)
		}
	}
}

func write2(replace bool, key, cert string) error {
	files := []File{{key, []byte("k"), ModeKey}, {cert, []byte("c"), ModeCert}}
	if replace {
		return writeOver(files)
	}
	return writeNew(files)
}
