package certs

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"strings"
	"testing"
)

func TestACertificateNamesWhomItWasMadeFor(t *testing.T) {
	ca := newCA(t, "CA")
	for _, id := range []Identity{
		nodeID("n1"), clientID("billing"), {"", Node, "n1"}, {"", Client, "x"}, {"Prod_2.eu-west", Node, "n1"},
		nodeID("a/b"), nodeID("100%"), nodeID("a?b#c"), nodeID("a%2Fb"), nodeID(".."), nodeID("two words"), nodeID("größe"), nodeID("a:b@c"),
		clientID("spiffe://x/y"), clientID(strings.Repeat("é", 32)),
	} {
		cert := parse(t, issue(t, ca, id))
		if got, err := Identify(cert); err != nil || got != id {
			t.Errorf("certificate for %v names %v (%v)", id, got, err)
		}
		if len(cert.URIs) != 1 || cert.URIs[0].String() != id.String() {
			t.Errorf("certificate for %v has the URIs %v", id, cert.URIs)
		}
	}
}

func TestURIsAreWrittenAsTheDocumentsSay(t *testing.T) {
	for id, want := range map[Identity]string{
		nodeID("n1"):          "locknode://prod/node/n1",
		clientID("billing"):   "locknode://prod/client/billing",
		{"", Node, "n1"}:      "locknode:///node/n1",
		nodeID("rack 7/a"):    "locknode://prod/node/rack%207%2Fa",
		{"EU", Client, "Bob"}: "locknode://EU/client/Bob",
	} {
		if got := id.String(); got != want {
			t.Errorf("%#v is %s, want %s", id, got, want)
		}
	}
}

func withURIs(t *testing.T, texts ...string) *x509.Certificate {
	t.Helper()
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: "somebody"}}
	for _, text := range texts {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		cert.URIs = append(cert.URIs, u)
	}
	return cert
}

func TestACertificateFromElsewhereIsAClientAndNeverANode(t *testing.T) {
	for _, uris := range [][]string{{}, {"spiffe://prod/node/n1"}, {"https://prod/node/n1", "locknodes://prod/node/n1"}} {
		got, err := Identify(withURIs(t, uris...))
		if want := (Identity{Role: Client, Name: "somebody"}); err != nil || got != want {
			t.Errorf("certificate with URIs %q is %v (%v), want %v", uris, got, err, want)
		}
	}
	odd := &x509.Certificate{Subject: pkix.Name{CommonName: "evil\x1b[2J"}}
	if got, err := Identify(odd); err != nil || got != (Identity{Role: Client}) {
		t.Errorf("a name that cannot be printed is %v (%v), want none", got, err)
	}
}

func TestTwoNamesAreAnError(t *testing.T) {
	for _, second := range []string{"locknode://prod/client/b", "locknode://prod/node/n1", "LOCKNODE://x/y", "locknode:rest"} {
		if got, err := Identify(withURIs(t, "locknode://prod/node/n1", second)); err == nil {
			t.Errorf("with %q as well it is %v, want an error", second, got)
		}
	}
}

func TestAURIThatCouldBeReadInTwoWaysIsRefused(t *testing.T) {
	for _, text := range []string{
		"locknode://prod", "locknode://prod/", "locknode://prod/node", "locknode://prod/node/", "locknode://prod/node/n1/", "locknode://prod/node/n1/x",
		"locknode://prod/Node/n1", "locknode://prod/admin/n1", "locknode://prod//n1", "locknode:/node/n1", "locknode:node/n1",
		"locknode://u@prod/node/n1", "locknode://u:p@prod/node/n1", "locknode://prod:1/node/n1", "locknode://prod/node/n1?a", "locknode://prod/node/n1?",
		"locknode://prod/node/n1#a", "locknode://[::1]/node/n1", "locknode://a..b/node/n1", "locknode://.a/node/n1", "locknode://a./node/n1", "locknode://a,b/node/n1",
		"locknode://prod/n%6Fde/n1", "locknode://prod/node/%00", "locknode://prod/node/%ff", "locknode://prod/node/a%0Ab", "locknode://prod/node/%E2%80%AE",
		"locknode://prod/node/" + strings.Repeat("a", 65), "locknode://" + strings.Repeat("a", 64) + "/node/n1",
	} {
		if got, err := Identify(withURIs(t, text)); err == nil {
			t.Errorf("%s is %v, want an error", text, got)
		} else if len(err.Error()) > 700 {
			t.Errorf("%s: the error has %d bytes", text, len(err.Error()))
		}
	}
}

func TestNothingIsIssuedThatCannotBeRead(t *testing.T) {
	ca := newCA(t, "CA")
	for _, id := range []Identity{
		{}, {"prod", "", "n1"}, {"prod", "admin", "n1"}, nodeID(""), nodeID(strings.Repeat("a", 65)), nodeID("a\nb"), nodeID("\xff"),
		{"a b", Node, "n1"}, {"a/b", Node, "n1"}, {"a.", Node, "n1"}, {".a", Node, "n1"}, {strings.Repeat("a", 64), Node, "n1"}, {"a:1", Node, "n1"},
	} {
		if _, err := ca.Issue(Request{Identity: id, Lifetime: aDay, Now: start}); err == nil {
			t.Errorf("a certificate for %#v was made, want an error", id)
		}
	}
}

// FuzzIdentify: whatever URIs a certificate has, a name that is accepted is a valid one, means
// itself when it is written again, and is that of a node only if there is exactly one URI.
func FuzzIdentify(f *testing.F) {
	f.Add("locknode://prod/node/n1", "", "cn")
	f.Add("locknode:///client/a%2Fb", "https://x", "cn")
	f.Add("locknode://prod/node/n1", "locknode://prod/node/n2", "")
	f.Add("LockNode://[::1]:80/node/%00?x#y", "locknode:opaque", "\xff")
	f.Fuzz(func(t *testing.T, first, second, name string) {
		cert := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
		own := 0
		for _, text := range []string{first, second} {
			u, err := url.Parse(text)
			if text == "" || err != nil {
				continue
			}
			cert.URIs = append(cert.URIs, u)
			if strings.EqualFold(u.Scheme, scheme) {
				own++
			}
		}
		id, err := Identify(cert)
		if err != nil {
			return
		}
		switch own {
		case 0:
			if id.Role != Client || id.Cluster != "" || id.Name != "" && id.Name != name {
				t.Fatalf("a certificate without a URI is %#v", id)
			}
		case 1:
			if err := id.Check(); err != nil {
				t.Fatalf("%#v was accepted: %v", id, err)
			}
			u, err := url.Parse(id.String())
			if err != nil {
				t.Fatal(err)
			}
			if again, err := parseURI(u); err != nil || again != id {
				t.Fatalf("%#v is %#v when it is written and read (%v)", id, again, err)
			}
		default:
			t.Fatalf("%d URIs, and it is %#v", own, id)
		}
	})
}
