package certs

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func uriOf(id Identity) []*url.URL { return []*url.URL{id.uri()} }

var bothEnds = usages(Node)

func TestNodesOfOneClusterAcceptEachOther(t *testing.T) {
	ca := newCA(t, "CA")
	n1, n2 := nodeSource(t, "n1", ca), nodeSource(t, "n2", ca)
	for i := range 2 { // the second time nothing is resumed
		if who, ok := accepts(t, n1.ServePeers(nil), n2.DialPeer(nil)); !ok || who != nodeID("n2") {
			t.Errorf("handshake %d: the server sees %v, %v", i, who, ok)
		}
	}
	if who, ok := accepts(t, n1.ServeClients(false), n2.DialPeer(nil)); !ok || who != nodeID("n2") {
		t.Errorf("the port for all sees %v, %v", who, ok)
	}
}

func TestANodeIsTheOneThatIsExpected(t *testing.T) {
	ca := newCA(t, "CA")
	n1, n2 := nodeSource(t, "n1", ca), nodeSource(t, "n2", ca)
	only := func(name string) func(Identity) error {
		return func(id Identity) error {
			if id != nodeID(name) {
				return fmt.Errorf("is %s, must be %s", id.Name, name)
			}
			return nil
		}
	}
	accepts(t, n1.ServePeers(only("n2")), n2.DialPeer(only("n1")))
	serverRefuses(t, n1.ServePeers(only("n3")), n2.DialPeer(nil), `certificate of "n2": is n2, must be n3`)
	clientRefuses(t, n1.ServePeers(nil), n2.DialPeer(only("n3")), `certificate of "n1": is n1, must be n3`)
}

// Each of these is not the certificate of a node of cluster prod, and passes as one at neither
// end, whatever port it comes to as a node.
func TestNothingElsePassesAsANode(t *testing.T) {
	ca, stranger := newCA(t, "CA"), newCA(t, "Stranger")
	namesake := newCA(t, "CA")
	n1 := nodeSource(t, "n1", ca)
	both := &x509.Certificate{Subject: pkix.Name{CommonName: "n2"}, URIs: uriOf(nodeID("n2"))}
	withUsages := func(usages ...x509.ExtKeyUsage) *x509.Certificate {
		c := *both
		c.ExtKeyUsage = usages
		return &c
	}
	at := func(from, until time.Time) *x509.Certificate {
		c := withUsages(bothEnds...)
		c.NotBefore, c.NotAfter = from, until
		return c
	}
	two := withUsages(bothEnds...)
	two.URIs = append(uriOf(nodeID("n2")), uriOf(clientID("c"))...)
	for name, c := range map[string]struct {
		pair           Pair
		client, server string // the errors; "" if this end accepts it
	}{
		"a client's":                    {issue(t, ca, clientID("n2")), "is not for servers, must have the extended key usage serverAuth", "is that of a client, must be that of a node"},
		"a client's, for both ends":     {custom(t, ca, &x509.Certificate{ExtKeyUsage: bothEnds, URIs: uriOf(clientID("n2"))}), "is that of a client, must be that of a node", "is that of a client, must be that of a node"},
		"from elsewhere":                {custom(t, ca, &x509.Certificate{ExtKeyUsage: bothEnds, Subject: pkix.Name{CommonName: "n2"}, DNSNames: []string{"n2"}}), "is that of a client", `is that of a client, must be that of a node, with a URI locknode://prod/node/ID`},
		"of another cluster":            {issue(t, ca, Identity{"test", Node, "n2"}), `is that of node "n2" of cluster "test", must be of cluster "prod"`, `of cluster "test", must be of cluster "prod"`},
		"of no cluster":                 {issue(t, ca, Identity{"", Node, "n2"}), `of cluster "", must be of cluster "prod"`, `of cluster "", must be of cluster "prod"`},
		"of another CA":                 {issue(t, stranger, nodeID("n2")), `is signed by "Stranger", must be signed by a CA that this process trusts: "CA"`, `is signed by "Stranger"`},
		"of a CA with the same name":    {issue(t, namesake, nodeID("n2")), "of which one has the same name and another key", "of which one has the same name and another key"},
		"ended":                         {custom(t, ca, at(start.Add(-aDay), start.Add(-time.Second))), "is valid from 2026-05-31 12:00:00 UTC until 2026-06-01 11:59:59 UTC, must be valid now", "must be valid now"},
		"not valid yet":                 {custom(t, ca, at(start.Add(time.Second), start.Add(aDay))), "must be valid now", "must be valid now"},
		"for servers alone":             {custom(t, ca, withUsages(x509.ExtKeyUsageServerAuth)), "", "is not for clients, must have the extended key usage clientAuth"},
		"for clients alone":             {custom(t, ca, withUsages(x509.ExtKeyUsageClientAuth)), "is not for servers", ""},
		"for something else":            {custom(t, ca, withUsages(x509.ExtKeyUsageCodeSigning)), "is not for servers", "is not for clients"},
		"of a node and of a client":     {custom(t, ca, two), "has 2 URIs that begin with locknode:", "has 2 URIs that begin with locknode:"},
		"with a URI that is not valid":  {custom(t, ca, &x509.Certificate{ExtKeyUsage: bothEnds, URIs: []*url.URL{{Scheme: scheme, Host: "prod", Path: "/node/a/b"}}}), "must be locknode://CLUSTER/node/ID", "must be locknode://CLUSTER/node/ID"},
		"signed by another node's":      {belowLeaf(t, ca), `must be signed by a CA`, `must be signed by a CA`},
		"signed by itself":              {itself(t, nodeID("n2")), "is signed by itself", "is signed by itself"},
		"with a name of endless length": {custom(t, stranger, &x509.Certificate{Subject: pkix.Name{CommonName: strings.Repeat("é", 9999)}, URIs: uriOf(nodeID("n2"))}), `é…": is signed by`, `é…": is signed by`},
	} {
		t.Run(name, func(t *testing.T) {
			bare := raw(t, c.pair)
			if c.server != "" {
				serverRefuses(t, n1.ServePeers(nil), bare, c.server)
			}
			if c.client != "" {
				clientRefuses(t, bare, n1.DialPeer(nil), c.client)
			}
			state, _, _ := shake(n1.ServeClients(false), bare)
			if who, ok := IdentityOf(state); ok && who.Role == Node && c.server != "" {
				t.Errorf("the port for all accepts it as %v", who)
			}
		})
	}
	bare := raw(t, issue(t, ca, nodeID("n2")))
	bare.GetClientCertificate, bare.Certificates = nil, nil
	serverRefuses(t, n1.ServePeers(nil), bare, "client didn't provide a certificate")
}

// belowLeaf is signed with the certificate of a node, which is no CA.
func belowLeaf(t *testing.T, ca *CA) Pair {
	t.Helper()
	p := issue(t, ca, nodeID("n3"))
	key, err := parsePEM(p.Key)
	if err != nil {
		t.Fatal(err)
	}
	below := custom(t, &CA{Cert: parse(t, p), key: key.keys[0]}, &x509.Certificate{ExtKeyUsage: bothEnds, URIs: uriOf(nodeID("n2"))})
	below.Cert = append(below.Cert, p.Cert...)
	return below
}

func itself(t *testing.T, id Identity) Pair {
	t.Helper()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: id.Name}, ExtKeyUsage: bothEnds, URIs: uriOf(id), NotBefore: start, NotAfter: start.Add(aDay)}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	p, err := encode(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOlderVersionsOfTLSAreRefused(t *testing.T) {
	ca := newCA(t, "CA")
	n1 := nodeSource(t, "n1", ca)
	for name, server := range map[string]*tls.Config{"peers": n1.ServePeers(nil), "clients": n1.ServeClients(false)} {
		old := raw(t, issue(t, ca, nodeID("n2")))
		old.MaxVersion = tls.VersionTLS12
		if _, err, _ := shake(server, old); err == nil {
			t.Errorf("the port for %s accepts TLS 1.2", name)
		}
	}
	for name, client := range map[string]*tls.Config{"peer": n1.DialPeer(nil), "server": n1.DialServer("localhost")} {
		old := raw(t, issue(t, ca, nodeID("n2"), "localhost"))
		old.MaxVersion = tls.VersionTLS12
		if _, _, err := shake(old, client); err == nil {
			t.Errorf("a connection to a %s accepts TLS 1.2", name)
		}
	}
}

func TestAClientNeedsACertificateOnlyWhereItIsRequired(t *testing.T) {
	ca := newCA(t, "CA")
	n1 := nodeSource(t, "n1", ca)
	dir := t.TempDir()
	bare := open(t, Files{CA: write(t, filepath.Join(dir, "ca.crt"), caPEM(t, ca))}, Options{})
	named := open(t, put(t, dir, issue(t, ca, clientID("billing")), ca), Options{})
	if who, ok := accepts(t, n1.ServeClients(false), bare.DialServer("localhost")); ok {
		t.Errorf("a client without a certificate is %v", who)
	}
	serverRefuses(t, n1.ServeClients(true), bare.DialServer("localhost"), "client didn't provide a certificate")
	for _, required := range []bool{false, true} {
		if who, ok := accepts(t, n1.ServeClients(required), named.DialServer("127.0.0.1")); !ok || who != clientID("billing") {
			t.Errorf("required %v: the server sees %v, %v", required, who, ok)
		}
	}
}

func TestAClientChecksTheNameItHasDialled(t *testing.T) {
	ca := newCA(t, "CA")
	n1 := nodeSource(t, "n1", ca)
	client := open(t, Files{CA: write(t, filepath.Join(t.TempDir(), "ca.crt"), caPEM(t, ca))}, Options{})
	for _, host := range []string{"localhost", "127.0.0.1"} {
		accepts(t, n1.ServeClients(false), client.DialServer(host))
	}
	for _, host := range []string{"example.com", "127.0.0.2", "::1"} {
		_, _, err := shake(n1.ServeClients(false), client.DialServer(host))
		wantError(t, host, client.Explain(err), `certificate of "n1": has the names ["localhost" "127.0.0.1"], must have "`+host+`"`, "--host "+host+" as well")
	}
	if _, _, err := shake(n1.ServeClients(false), client.DialServer("")); err == nil {
		t.Error("without a name the server was accepted")
	}
	other := nodeSource(t, "n1", newCA(t, "Other"))
	_, _, err := shake(other.ServeClients(false), client.DialServer("localhost"))
	wantError(t, "another CA", client.Explain(err), `certificate of "n1": is signed by "Other", must be signed by a CA that this process trusts: "CA"`)
}

func TestOtherErrorsAreNotExplained(t *testing.T) {
	bare := open(t, Files{}, Options{})
	if other := errors.New("x"); !errors.Is(bare.Explain(other), other) || bare.Explain(nil) != nil {
		t.Error("another error was changed")
	}
}

func TestOnlyTheCAsOfClientsMakeClientsIfThereAreAny(t *testing.T) {
	ca, clients := newCA(t, "CA"), newCA(t, "Clients")
	dir := t.TempDir()
	f := put(t, dir, issue(t, ca, nodeID("n1"), "localhost"), ca)
	f.ClientCA = write(t, filepath.Join(dir, "clients.crt"), caPEM(t, clients))
	n1 := open(t, f, Options{Node: true, Cluster: "prod"})
	server := n1.ServeClients(false)
	if who, ok := accepts(t, server, raw(t, issue(t, clients, clientID("billing")))); !ok || who != clientID("billing") {
		t.Errorf("the server sees %v, %v", who, ok)
	}
	if who, ok := accepts(t, server, raw(t, issue(t, ca, nodeID("n2")))); !ok || who != nodeID("n2") {
		t.Errorf("of a node the server sees %v, %v", who, ok)
	}
	serverRefuses(t, server, raw(t, issue(t, ca, clientID("billing"))), `is signed by "CA", must be signed by a CA that this process trusts: "Clients"`)
	const want = `is signed by "Clients", must be signed by a CA that this process trusts: "CA"`
	forged := raw(t, issue(t, clients, nodeID("n2")))
	serverRefuses(t, server, forged, want)
	serverRefuses(t, n1.ServePeers(nil), forged, want)
	clientRefuses(t, forged, n1.DialPeer(nil), want)
}

func TestAClientThatNamesNoClusterIsValidForAll(t *testing.T) {
	ca := newCA(t, "CA")
	n1 := nodeSource(t, "n1", ca)
	for _, id := range []Identity{clientID("c"), {"", Client, "c"}} {
		if who, ok := accepts(t, n1.ServeClients(true), raw(t, issue(t, ca, id))); !ok || who != id {
			t.Errorf("%v is seen as %v", id, who)
		}
	}
	elsewhere := custom(t, ca, &x509.Certificate{Subject: pkix.Name{CommonName: "c"}, ExtKeyUsage: usages(Client)})
	if who, ok := accepts(t, n1.ServeClients(true), raw(t, elsewhere)); !ok || who != (Identity{"", Client, "c"}) {
		t.Errorf("a client from elsewhere is seen as %v", who)
	}
	for _, role := range []Role{Client, Node} {
		serverRefuses(t, n1.ServeClients(false), raw(t, issue(t, ca, Identity{"test", role, "c"})), `of cluster "test", must be of cluster "prod"`)
	}
	serverRefuses(t, n1.ServeClients(false), raw(t, custom(t, ca, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})), "is not for clients")
}

// A client that would resume its session does the whole handshake again. Even with tickets, which
// no configuration of this package has, a resumed session is verified by the CAs of now.
func TestAnEarlierSessionSkipsNoCheck(t *testing.T) {
	ca, other := newCA(t, "CA"), newCA(t, "Other")
	dir := t.TempDir()
	f := put(t, dir, issue(t, ca, nodeID("n1"), "localhost"), ca)
	n1 := open(t, f, Options{Node: true, Cluster: "prod"})
	for _, tickets := range []bool{false, true} {
		server := n1.ServePeers(nil)
		if tickets {
			server.SessionTicketsDisabled = false
		}
		client := raw(t, issue(t, ca, nodeID("n2")))
		client.ServerName, client.ClientSessionCache = "localhost", tls.NewLRUClientSessionCache(1)
		for i := range 2 {
			state, errServer, errClient := shake(server, client)
			if errServer != nil || errClient != nil {
				t.Fatal(errServer, errClient)
			}
			if want := tickets && i == 1; state.DidResume != want {
				t.Errorf("tickets %v, handshake %d: resumed is %v, want %v", tickets, i, state.DidResume, want)
			}
		}
		put(t, dir, issue(t, other, nodeID("n1"), "localhost"), other)
		if err := n1.Reload(); err != nil {
			t.Fatal(err)
		}
		serverRefuses(t, server, client, `is signed by "CA", must be signed by a CA that this process trusts: "Other"`)
		put(t, dir, issue(t, ca, nodeID("n1"), "localhost"), ca)
		if err := n1.Reload(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestIntermediateCAsWork(t *testing.T) {
	root, err := NewCA("Root", 3650*aDay, start)
	if err != nil {
		t.Fatal(err)
	}
	template := *root.Cert // of a company, which has CAs below its root
	template.MaxPathLen, template.MaxPathLenZero = 1, false
	if root.Cert, err = sign(&template, &template, root.key.Public(), root.key); err != nil {
		t.Fatal(err)
	}
	sub := custom(t, root, &x509.Certificate{Subject: pkix.Name{CommonName: "Sub"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	key, err := parsePEM(sub.Key)
	if err != nil {
		t.Fatal(err)
	}
	below := &CA{Cert: parse(t, sub), key: key.keys[0]}
	source := func(name string) *Source {
		p := issue(t, below, nodeID(name), "localhost")
		p.Cert = append(p.Cert, sub.Cert...)
		return open(t, put(t, t.TempDir(), p, root), Options{Node: true, Cluster: "prod"})
	}
	n1, n2 := source("n1"), source("n2")
	accepts(t, n1.ServePeers(nil), n2.DialPeer(nil))
	accepts(t, n1.ServeClients(true), n2.DialServer("localhost"))
	alone := put(t, t.TempDir(), issue(t, below, nodeID("n1")), root)
	_, err = Open(alone, Options{Node: true, Cluster: "prod", Clock: newClock().now})
	wantError(t, "without the intermediate CA", err, `is signed by "Sub", must be signed by a CA that this process trusts: "Root"`)
}

func TestASourceWithoutACertificateServesNobody(t *testing.T) {
	ca := newCA(t, "CA")
	bare := open(t, Files{CA: write(t, filepath.Join(t.TempDir(), "ca.crt"), caPEM(t, ca))}, Options{})
	_, err, _ := shake(bare.ServeClients(false), nodeSource(t, "n1", ca).DialPeer(nil))
	wantError(t, "server", err, "cert_file: is not set")
}
