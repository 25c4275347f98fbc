package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var ofN1 = Options{Node: true, Cluster: "prod", ID: "n1"}

func TestFilesThatANodeCannotUseAreRefusedWithTheRemedy(t *testing.T) {
	ca, other := newCA(t, "CA"), newCA(t, "Other")
	n1 := issue(t, ca, nodeID("n1"))
	p256 := parse(t, n1)
	both := func(c *x509.Certificate) Pair {
		c.ExtKeyUsage, c.URIs = bothEnds, uriOf(nodeID("n1"))
		return custom(t, ca, c)
	}
	for name, c := range map[string]struct {
		change func(dir string, f *Files)
		want   []string
	}{
		"nothing set":       {func(_ string, f *Files) { *f = Files{} }, []string{"ca_file: is empty, must be a file", "cert_file: is empty, must be", "key_file: is empty, must be"}},
		"no CA":             {func(_ string, f *Files) { f.CA = "" }, []string{"ca_file: is empty", "`locknode tls ca create` makes one"}},
		"no key":            {func(_ string, f *Files) { f.Key = "" }, []string{"key_file: is empty, must be a file with the private key of cert_file"}},
		"all missing":       {func(_ string, f *Files) { f.CA, f.Cert, f.Key = "/no/1", "/no/2", "/no/3" }, []string{"ca_file: /no/1: must be a file that exists", "cert_file: /no/2: ", "key_file: /no/3: "}},
		"a directory":       {func(dir string, f *Files) { f.CA = dir }, []string{": is a directory, must be a regular file"}},
		"empty CA":          {func(_ string, f *Files) { write(t, f.CA, nil) }, []string{"ca_file: ", "ca.crt: is empty"}},
		"empty certificate": {func(_ string, f *Files) { write(t, f.Cert, nil) }, []string{"cert_file: ", "tls.crt: is empty"}},
		"garbage everywhere": {func(_ string, f *Files) {
			write(t, f.CA, []byte("a"))
			write(t, f.Cert, []byte("b"))
			write(t, f.Key, []byte("c"))
		}, []string{"ca.crt: is not PEM", "tls.crt: is not PEM", "tls.key: is not PEM"}},
		"key of another":     {func(_ string, f *Files) { write(t, f.Key, issue(t, ca, nodeID("n1")).Key) }, []string{`tls.key: does not fit the certificate of "n1" in cert_file `}},
		"two keys":           {func(_ string, f *Files) { write(t, f.Key, append(n1.Key, n1.Key...)) }, []string{"tls.key: has 2 private keys, must have the one"}},
		"certificate as key": {func(_ string, f *Files) { f.Key = f.Cert }, []string{"key_file: ", "has 0 private keys"}},
		"key as certificate": {func(_ string, f *Files) { f.Cert = f.Key }, []string{"cert_file: ", "has no certificate"}},
		"key in the CA":      {func(_ string, f *Files) { write(t, f.CA, append(caPEM(t, ca), n1.Key...)) }, []string{"ca.crt: has a private key, must have certificates alone"}},
		"CA without any":     {func(_ string, f *Files) { write(t, f.CA, block("X509 CRL", []byte("x"))) }, []string{"ca.crt: has no certificate, must have that of a CA"}},
		"CA first":           {func(_ string, f *Files) { write(t, f.Cert, append(caPEM(t, ca), n1.Cert...)) }, []string{"tls.crt: does not begin with the certificate of key_file"}},
		"another CA":         {func(_ string, f *Files) { write(t, f.CA, caPEM(t, other)) }, []string{`tls.crt: is signed by "CA", must be signed by a CA that this process trusts: "Other"`}},
		"a client's":         {func(dir string, f *Files) { *f = put(t, dir, issue(t, ca, clientID("n1")), ca) }, []string{`is the certificate of client "n1", must be that of a node, with the URI locknode://prod/node/n1`}},
		"another node's":     {func(dir string, f *Files) { *f = put(t, dir, issue(t, ca, nodeID("n2")), ca) }, []string{`is the certificate of node "n2", must be that of "n1", as node_id is`}},
		"another cluster's":  {func(dir string, f *Files) { *f = put(t, dir, issue(t, ca, Identity{"test", Node, "n1"}), ca) }, []string{`is the certificate of a node of cluster "test", must be of "prod", as cluster_name is`}},
		"the CA's":           {func(_ string, f *Files) { p, _ := ca.Pair(); write(t, f.Cert, p.Cert); write(t, f.Key, p.Key) }, []string{`is the certificate of client "CA", must be that of a node`}},
		"for servers alone": {func(dir string, f *Files) {
			*f = put(t, dir, custom(t, ca, &x509.Certificate{ExtKeyUsage: bothEnds[:1], URIs: uriOf(nodeID("n1"))}), ca)
		}, []string{"is not for clients, must have the extended key usage clientAuth"}},
		"for clients alone": {func(dir string, f *Files) {
			*f = put(t, dir, custom(t, ca, &x509.Certificate{ExtKeyUsage: bothEnds[1:], URIs: uriOf(nodeID("n1"))}), ca)
		}, []string{"is not for servers, must have the extended key usage serverAuth"}},
		"from before its CA": {func(dir string, f *Files) {
			*f = put(t, dir, both(&x509.Certificate{NotBefore: start.Add(-9 * aDay), NotAfter: start.Add(-8 * aDay)}), ca)
		}, []string{"must be valid now"}},
		"a broken client CA":  {func(dir string, f *Files) { f.ClientCA = write(t, filepath.Join(dir, "c.crt"), p256.Raw) }, []string{"client_ca_file: ", "c.crt: is not PEM, perhaps DER"}},
		"everything in a row": {func(_ string, f *Files) { write(t, f.CA, []byte("a")); f.ClientCA = "/no"; f.Key = "" }, []string{"client_ca_file: /no: ", "key_file: is empty"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			f := put(t, dir, n1, ca)
			c.change(dir, &f)
			o := ofN1
			o.Clock = newClock().now
			s, err := Open(f, o)
			if s != nil {
				t.Fatal("the files were accepted")
			}
			wantError(t, "open", err, c.want...)
		})
	}
}

func TestFilesOfAClientAreChecked(t *testing.T) {
	ca, clients := newCA(t, "CA"), newCA(t, "Clients")
	dir := t.TempDir()
	f := put(t, dir, issue(t, clients, clientID("c")), ca)
	open(t, f, Options{}) // it does not have the CA of clients, and need not have it
	open(t, Files{}, Options{})
	f.ClientCA = write(t, filepath.Join(dir, "clients.crt"), caPEM(t, clients))
	open(t, f, Options{})
	for name, c := range map[string]struct {
		f    Files
		want string
	}{
		"certificate without a key": {Files{Cert: f.Cert}, "key_file: is empty"},
		"key without a certificate": {Files{Key: f.Key}, "cert_file: is empty"},
		"another CA":                {Files{CA: f.CA, ClientCA: f.CA, Cert: f.Cert, Key: f.Key}, `is signed by "Clients", must be signed by a CA that this process trusts: "CA"`},
		"for servers alone":         {put(t, t.TempDir(), custom(t, ca, &x509.Certificate{ExtKeyUsage: bothEnds[:1]}), ca), "is not for clients"},
	} {
		_, err := Open(c.f, Options{Clock: newClock().now})
		wantError(t, name, err, c.want)
	}
}

func TestCertificateAndKeyMayBeOneFile(t *testing.T) {
	ca := newCA(t, "CA")
	p := issue(t, ca, nodeID("n1"))
	f := put(t, t.TempDir(), p, ca)
	write(t, f.Cert, append(p.Key, p.Cert...))
	f.Key = f.Cert
	open(t, f, ofN1)
}

// A node that is restarted must not do worse than one that goes on: it runs, says what is wrong, and
// notices the new file.
func TestACertificateThatHasEndedIsLoadedLoudlyAndReplaced(t *testing.T) {
	ca := newCA(t, "CA")
	for name, at := range map[string]time.Time{"ended": start.Add(400 * aDay), "early": start.Add(-2 * time.Hour)} {
		dir, now, l := t.TempDir(), newClock(), &logs{}
		now.set(at)
		o := ofN1
		o.Clock, o.Log = now.now, l.logger()
		f := put(t, dir, issue(t, ca, nodeID("n1")), ca)
		s := open(t, f, o)
		if l.count("level=ERROR") == 0 {
			t.Errorf("%s: nothing was logged", name)
		}
		wantError(t, name, s.Reload(), "cert_file: ", "must be valid now")
		if name == "early" {
			now.set(start)
			if err := s.Reload(); err != nil {
				t.Errorf("%s: it is time now: %v", name, err)
			}
			continue
		}
		next, err := ca.Issue(Request{Identity: nodeID("n1"), Lifetime: aDay, Now: at})
		if err != nil {
			t.Fatal(err)
		}
		put(t, dir, next, ca)
		if err := s.Reload(); err != nil {
			t.Errorf("%s: a new one is refused: %v", name, err)
		}
	}
}

func TestABrokenReloadKeepsWhatWasInUse(t *testing.T) {
	ca, other := newCA(t, "CA"), newCA(t, "Other")
	n2 := nodeSource(t, "n2", ca)
	good := issue(t, ca, nodeID("n1"))
	ended := custom(t, ca, &x509.Certificate{ExtKeyUsage: bothEnds, URIs: uriOf(nodeID("n1")), NotBefore: start.Add(-time.Hour), NotAfter: start.Add(-time.Minute)})
	early := custom(t, ca, &x509.Certificate{ExtKeyUsage: bothEnds, URIs: uriOf(nodeID("n1")), NotBefore: start.Add(time.Hour), NotAfter: start.Add(aDay)})
	for name, c := range map[string]struct {
		change func(f Files)
		want   string
	}{
		"garbage":        {func(f Files) { write(t, f.Cert, []byte("x")) }, "is not PEM"},
		"empty":          {func(f Files) { write(t, f.CA, nil) }, "is empty"},
		"removed":        {func(f Files) { _ = os.Remove(f.Key) }, "must be a file that exists"},
		"half":           {func(f Files) { write(t, f.Cert, good.Cert[:200]) }, "still being written"},
		"key alone":      {func(f Files) { write(t, f.Key, issue(t, ca, nodeID("n1")).Key) }, "does not fit"},
		"another CA":     {func(f Files) { write(t, f.CA, caPEM(t, other)) }, "must be signed by a CA"},
		"another node's": {func(f Files) { put(t, filepath.Dir(f.CA), issue(t, ca, nodeID("n3")), ca) }, `must be that of "n1"`},
		"ended":          {func(f Files) { put(t, filepath.Dir(f.CA), ended, ca) }, "must be valid now"},
		"early":          {func(f Files) { put(t, filepath.Dir(f.CA), early, ca) }, "must be valid now"},
	} {
		t.Run(name, func(t *testing.T) {
			f := put(t, t.TempDir(), good, ca)
			s := open(t, f, ofN1)
			before := s.State()
			c.change(f)
			wantError(t, "reload", s.Reload(), c.want)
			after := s.State()
			wantError(t, "state", after.Err, c.want)
			if after.Leaf.Serial != before.Leaf.Serial || !after.ReadAt.Equal(before.ReadAt) || len(after.CAs) != 1 {
				t.Errorf("in use is %+v, was %+v", after, before)
			}
			accepts(t, s.ServePeers(nil), n2.DialPeer(nil))
			accepts(t, n2.ServePeers(nil), s.DialPeer(nil))
			put(t, filepath.Dir(f.CA), good, ca)
			if err := s.Reload(); err != nil || s.State().Err != nil {
				t.Errorf("in order again: %v, state %v", err, s.State().Err)
			}
		})
	}
}

// rotate does the whole rotation of a CA, one file of one node at a time, and calls check after
// each step.
func rotate(t *testing.T, dirs map[string]string, old, next *CA, check func(step string)) {
	t.Helper()
	step := func(what string, change func(name, dir string)) {
		for _, name := range []string{"n1", "n2", "n3"} {
			change(name, dirs[name])
			check(what + " of " + name)
		}
	}
	step("new CA beside the old", func(_, dir string) { write(t, filepath.Join(dir, "ca.crt"), caPEM(t, old, next)) })
	step("new certificate", func(name, dir string) { put(t, dir, issue(t, next, nodeID(name), "localhost"), old, next) })
	step("new CA alone", func(_, dir string) { write(t, filepath.Join(dir, "ca.crt"), caPEM(t, next)) })
}

func TestACAIsReplacedWithoutARefusedHandshake(t *testing.T) {
	for _, name := range []string{"CA", "Next"} { // also if the new one has the name of the old
		old, next := newCA(t, "CA"), newCA(t, name)
		dirs, sources := map[string]string{}, map[string]*Source{}
		for _, id := range []string{"n1", "n2", "n3"} {
			dirs[id] = t.TempDir()
			sources[id] = open(t, put(t, dirs[id], issue(t, old, nodeID(id), "localhost"), old), Options{Node: true, Cluster: "prod", ID: id})
		}
		rotate(t, dirs, old, next, func(step string) {
			for id, s := range sources {
				if err := s.Reload(); err != nil {
					t.Fatalf("%s: %s: %v", step, id, err)
				}
			}
			for a, s := range sources {
				for b, c := range sources {
					if _, errServer, errClient := shake(s.ServePeers(nil), c.DialPeer(nil)); errServer != nil || errClient != nil {
						t.Fatalf("%s: %s dials %s: %v, %v", step, b, a, errServer, errClient)
					}
				}
			}
		})
		clientRefuses(t, raw(t, issue(t, old, nodeID("n4"))), sources["n1"].DialPeer(nil), "must be signed by a CA")
	}
}

// A port is configured once; what is read later counts for it.
func TestAConfigurationFollowsReloads(t *testing.T) {
	ca, other := newCA(t, "CA"), newCA(t, "Other")
	dir := t.TempDir()
	s := open(t, put(t, dir, issue(t, ca, nodeID("n1"), "localhost"), ca), ofN1)
	peers, clients, dial := s.ServePeers(nil), s.ServeClients(true), s.DialPeer(nil)
	old, next := nodeSource(t, "n2", ca), nodeSource(t, "n2", other)
	accepts(t, peers, old.DialPeer(nil))
	accepts(t, clients, old.DialPeer(nil))
	accepts(t, old.ServePeers(nil), dial)
	put(t, dir, issue(t, other, nodeID("n1"), "localhost"), other)
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	accepts(t, peers, next.DialPeer(nil))
	accepts(t, clients, next.DialPeer(nil))
	accepts(t, clients, next.DialServer("localhost"))
	accepts(t, next.ServePeers(nil), dial)
	serverRefuses(t, peers, raw(t, issue(t, ca, nodeID("n2"))), "must be signed by a CA")
	serverRefuses(t, clients, raw(t, issue(t, ca, nodeID("n2"))), "must be signed by a CA")
	clientRefuses(t, raw(t, issue(t, ca, nodeID("n2"))), dial, "must be signed by a CA")
}

// watched runs f with a source that is watched, in virtual time.
func watched(t *testing.T, files Files, o Options, f func(s *Source, l *logs, now *clock)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l, now := &logs{}, newClock()
		o.Log, o.Clock = l.logger(), now.now
		s, err := Open(files, o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Watch(ctx) }()
		f(s, l, now)
		stop()
		<-done
	})
}

// polls lets n polls happen.
func polls(n int) {
	time.Sleep(time.Duration(n)*defaultEvery + time.Millisecond)
	synctest.Wait()
}

// secret lays files out as Kubernetes does: each is a link to ..data/NAME, and ..data is a link to
// a directory, which is exchanged.
func secret(t *testing.T, dir, version string, p Pair, cas ...*CA) Files {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, version), p, cas...)
	if err := os.Symlink(version, filepath.Join(dir, "..tmp")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	link := func(name string) string {
		at := filepath.Join(dir, name)
		if err := os.Symlink(filepath.Join("..data", name), at); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
		return at
	}
	return Files{CA: link("ca.crt"), Cert: link("tls.crt"), Key: link("tls.key")}
}

func TestAChangeIsNoticedWithinAMinuteAlsoThroughALinkSwap(t *testing.T) {
	ca, next := newCA(t, "CA"), newCA(t, "Next")
	dir := t.TempDir()
	first, second := issue(t, ca, nodeID("n1")), issue(t, next, nodeID("n1"))
	files := secret(t, dir, "..1", first, ca)
	watched(t, files, ofN1, func(s *Source, l *logs, _ *clock) {
		polls(6)
		if got := s.State().Leaf.Serial; got != serial(parse(t, first)) || l.count("\n") != 0 {
			t.Errorf("before the change serial %s is in use, and was logged: %s", got, l.b.String())
		}
		secret(t, dir, "..2", second, next)
		if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
			t.Fatal(err)
		}
		polls(1)
		st := s.State()
		if st.Leaf.Serial != serial(parse(t, second)) || st.CAs[0].Subject != "Next" || *st.Self != nodeID("n1") {
			t.Errorf("after the change %+v is in use", st)
		}
		if l.count("certificates loaded") != 1 || l.count("level=WARN") != 0 {
			t.Errorf("was logged: %s", l.b.String())
		}
	})
}

// The time and size of a file say nothing: both are the same for these.
func TestAChangeIsNoticedByTheContent(t *testing.T) {
	ca := newCA(t, "CA")
	first, second := issue(t, ca, nodeID("n1")), issue(t, ca, nodeID("n1"))
	f := put(t, t.TempDir(), first, ca)
	watched(t, f, ofN1, func(s *Source, _ *logs, _ *clock) {
		put(t, filepath.Dir(f.CA), second, ca)
		for _, path := range []string{f.Cert, f.Key} {
			if err := os.Chtimes(path, start, start); err != nil {
				t.Fatal(err)
			}
		}
		polls(1)
		if got := s.State().Leaf.Serial; got != serial(parse(t, second)) {
			t.Errorf("serial %s is in use, want the new one", got)
		}
	})
}

func TestABrokenFileIsLoggedOnceAndItsRepairAsWell(t *testing.T) {
	ca := newCA(t, "CA")
	good := issue(t, ca, nodeID("n1"))
	f := put(t, t.TempDir(), good, ca)
	watched(t, f, ofN1, func(_ *Source, l *logs, _ *clock) {
		const refused = "certificates are not reloaded, those read before stay in use"
		write(t, f.Cert, []byte("garbage"))
		polls(1)
		if l.count(refused) != 0 {
			t.Error("a fault of one poll was logged: the file may be in the middle of a change")
		}
		polls(20)
		if l.count(refused) != 1 || l.count("is not PEM") != 1 {
			t.Errorf("was logged: %s", l.b.String())
		}
		write(t, f.Cert, nil)
		polls(20)
		if l.count(refused) != 2 || l.count("is empty") != 1 {
			t.Errorf("another cause, and was logged: %s", l.b.String())
		}
		write(t, f.Cert, good.Cert)
		polls(20)
		if l.count("in order again") != 1 || l.count("\n") != 3 {
			t.Errorf("after the repair was logged: %s", l.b.String())
		}
	})
}

// Somebody replaces the certificate, and within two polls its key.
func TestFilesReplacedOneAfterTheOtherAreNoFault(t *testing.T) {
	ca := newCA(t, "CA")
	f := put(t, t.TempDir(), issue(t, ca, nodeID("n1")), ca)
	next := issue(t, ca, nodeID("n1"))
	watched(t, f, ofN1, func(s *Source, l *logs, _ *clock) {
		write(t, f.Cert, next.Cert)
		polls(1)
		write(t, f.Key, next.Key)
		polls(1)
		if s.State().Leaf.Serial != serial(parse(t, next)) || l.count("level=WARN") != 0 {
			t.Errorf("in use is %+v, and was logged: %s", s.State(), l.b.String())
		}
	})
}

func TestACertificateThatIsTooEarlyIsUsedOnceItIsTime(t *testing.T) {
	ca := newCA(t, "CA")
	f := put(t, t.TempDir(), issue(t, ca, nodeID("n1")), ca)
	early := custom(t, ca, &x509.Certificate{ExtKeyUsage: bothEnds, URIs: uriOf(nodeID("n1")), NotBefore: start.Add(time.Hour), NotAfter: start.Add(400 * aDay)})
	watched(t, f, ofN1, func(s *Source, _ *logs, now *clock) {
		put(t, filepath.Dir(f.CA), early, ca)
		polls(3)
		if s.State().Leaf.Serial == serial(parse(t, early)) {
			t.Error("it is in use before its time")
		}
		now.set(start.Add(2 * time.Hour))
		polls(1)
		if s.State().Leaf.Serial != serial(parse(t, early)) {
			t.Error("it is not in use, although it is time")
		}
	})
}

func TestTheEndOfACertificateIsLoggedThirtyAndSevenDaysBeforeAndOnce(t *testing.T) {
	ca := newCA(t, "CA")
	short, err := NewCA("Short", 200*aDay, start)
	if err != nil {
		t.Fatal(err)
	}
	f := put(t, t.TempDir(), issue(t, ca, nodeID("n1")), ca, short)
	watched(t, f, ofN1, func(s *Source, l *logs, now *clock) {
		for _, c := range []struct {
			day  int
			want map[string]int // in all up to then
		}{
			{169, map[string]int{"\n": 0}},
			{170, map[string]int{"ends soon": 1, "subject=Short": 1, "days_left=30": 1, "file=ca_file": 1}},
			{171, map[string]int{"ends soon": 1}},
			{193, map[string]int{"ends soon": 2, "days_left=7": 1}},
			{201, map[string]int{"ends soon": 2, "has ended": 1, "subject=Short": 3}},
			{334, map[string]int{"ends soon": 2, "has ended": 1}},
			{335, map[string]int{"ends soon": 3, "has ended": 1, "file=cert_file": 1, "subject=n1": 1}},
			{358, map[string]int{"ends soon": 4, "file=cert_file": 2}},
			{366, map[string]int{"has ended": 2, "file=cert_file": 3, "\n": 6}},
		} {
			now.set(start.Add(time.Duration(c.day) * aDay))
			polls(3)
			for text, n := range c.want {
				if got := l.count(text); got != n {
					t.Errorf("day %d: %q was logged %d times, want %d:\n%s", c.day, text, got, n, l.b.String())
				}
			}
		}
		if got := s.State().Leaf.DaysLeft(now.now()); got != -1 {
			t.Errorf("%d days are left, want -1", got)
		}
	})
}

// Who makes certificates for a day has a program that replaces them.
func TestShortCertificatesAreNotAlwaysEnding(t *testing.T) {
	ca := newCA(t, "CA")
	p, err := ca.Issue(Request{Identity: nodeID("n1"), Lifetime: aDay - time.Hour, Now: start}) // a day in all
	if err != nil {
		t.Fatal(err)
	}
	f := put(t, t.TempDir(), p, ca)
	watched(t, f, ofN1, func(_ *Source, l *logs, now *clock) {
		for _, c := range [][2]int{{16, 0}, {17, 1}, {18, 1}, {21, 2}} {
			now.set(start.Add(time.Duration(c[0]) * time.Hour))
			polls(2)
			if got := l.count("ends soon"); got != c[1] {
				t.Errorf("after %d hours %d lines, want %d", c[0], got, c[1])
			}
		}
	})
}

func TestWhatIsAllowedAndNotRightIsAWarning(t *testing.T) {
	ca := newCA(t, "CA")
	f := put(t, t.TempDir(), issue(t, ca, nodeID("n1"), "localhost"), ca)
	if err := os.Chmod(f.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	l := &logs{}
	o := ofN1
	o.Log, o.Hosts = l.logger(), []string{"localhost", "n1.example.com", "10.0.0.1"}
	open(t, f, o)
	for _, want := range []string{"host=n1.example.com", "--host 10.0.0.1 as well", "can be read by every user of this machine"} {
		if l.count(want) != 1 {
			t.Errorf("%q is not in: %s", want, l.b.String())
		}
	}
	if l.count("\n") != 3 || l.count(" node=n1") != 3 {
		t.Errorf("was logged: %s, want three lines with the ID of the node", l.b.String())
	}
}

func TestHandshakesAndReloadsGoOnTogether(t *testing.T) {
	ca := newCA(t, "CA")
	dir := t.TempDir()
	pairs := []Pair{issue(t, ca, nodeID("n1")), issue(t, ca, nodeID("n1"))}
	s := open(t, secret(t, dir, "..0", pairs[0], ca), ofN1)
	n2 := nodeSource(t, "n2", ca)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 1; i <= 20; i++ {
			secret(t, dir, fmt.Sprintf("..%d", i), pairs[i%2], ca)
			if err := s.Reload(); err != nil {
				t.Errorf("reload %d: %v", i, err)
			}
			_ = s.State()
		}
	})
	wg.Go(func() { // a second one that reads in the middle of swaps
		for range 50 {
			if err := s.Reload(); err != nil && !strings.Contains(err.Error(), "does not fit") {
				t.Errorf("reload: %v", err)
			}
		}
	})
	server := s.ServePeers(nil)
	for range 20 {
		accepts(t, server, n2.DialPeer(nil))
	}
	wg.Wait()
}
