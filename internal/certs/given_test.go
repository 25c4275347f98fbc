package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
)

// keyPair is a pair in the form of crypto/tls.
func keyPair(t *testing.T, p Pair) *tls.Certificate {
	t.Helper()
	cert, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &cert
}

func poolOfCA(cas ...*CA) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, ca := range cas {
		pool.AddCert(ca.Cert)
	}
	return pool
}

// handshakes reports why two sources do not get to a connection as nodes: server is that of n1.
func handshakes(t *testing.T, server, client *Source) error {
	t.Helper()
	_, atServer, atClient := shake(server.ServePeers(nil), client.DialPeer(nil))
	return errors.Join(atServer, atClient)
}

func TestAConfigurationTakesThePlaceOfFiles(t *testing.T) {
	ca, clients := newCA(t, "CA"), newCA(t, "clients")
	s, err := OpenConfig(&tls.Config{Certificates: []tls.Certificate{*keyPair(t, issue(t, ca, nodeID("n1"), "localhost"))}, RootCAs: poolOfCA(ca), ClientCAs: poolOfCA(clients)}, ofN1)
	if err != nil {
		t.Fatal(err)
	}
	if err := handshakes(t, s, nodeSource(t, "n2", ca)); err != nil {
		t.Errorf("a node of the same CA: %v", err)
	}
	if err := handshakes(t, s, nodeSource(t, "n2", newCA(t, "CA"))); err == nil {
		t.Error("a node of another CA is accepted")
	}
	// A CA of clients makes no nodes.
	anyNode := ofN1
	anyNode.ID = ""
	forged, err := OpenConfig(&tls.Config{Certificates: []tls.Certificate{*keyPair(t, issue(t, clients, nodeID("n3")))}, RootCAs: poolOfCA(ca, clients)}, anyNode)
	if err != nil {
		t.Fatal(err)
	}
	if err := handshakes(t, s, forged); err == nil {
		t.Error("a node that the CA of clients has signed is accepted")
	}
}

func TestACertificateOfAConfigurationIsReplaced(t *testing.T) {
	ca := newCA(t, "CA")
	var now atomic.Pointer[tls.Certificate]
	now.Store(keyPair(t, issue(t, ca, nodeID("n1"))))
	var roots atomic.Pointer[x509.CertPool]
	roots.Store(poolOfCA(ca))
	get := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return now.Load(), nil }
	s, err := OpenConfig(&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{GetCertificate: get, RootCAs: roots.Load()}, nil
	}}, ofN1)
	if err != nil {
		t.Fatal(err)
	}
	first := s.State().Leaf.Serial
	next := newCA(t, "next CA")
	now.Store(keyPair(t, issue(t, next, nodeID("n1"))))
	if err := s.Reload(); err == nil || s.State().Leaf.Serial != first {
		t.Errorf("a certificate of a CA that is not in RootCAs is taken: %v", err)
	}
	roots.Store(poolOfCA(ca, next))
	if err := s.Reload(); err != nil || s.State().Leaf.Serial == first {
		t.Errorf("with its CA it is not taken: %v", err)
	}
	now.Store(keyPair(t, issue(t, next, nodeID("n2"))))
	if err := s.Reload(); err == nil || !strings.Contains(err.Error(), `must be that of "n1"`) {
		t.Errorf("the certificate of another node: %v", err)
	}
}

func TestAConfigurationThatCannotBeUsedIsRefused(t *testing.T) {
	ca := newCA(t, "CA")
	node := *keyPair(t, issue(t, ca, nodeID("n1")))
	client := *keyPair(t, issue(t, ca, clientID("n1")))
	broken := errors.New("broken")
	for want, c := range map[string]*tls.Config{
		"is nil":                     nil,
		"RootCAs: is nil":            {Certificates: []tls.Certificate{node}},
		"has no certificate":         {RootCAs: poolOfCA(ca)},
		"must be that of a node":     {RootCAs: poolOfCA(ca), Certificates: []tls.Certificate{client}},
		"signed by":                  {RootCAs: poolOfCA(newCA(t, "CA")), Certificates: []tls.Certificate{node}},
		"GetCertificate: broken":     {RootCAs: poolOfCA(ca), GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, broken }},
		"GetConfigForClient: broken": {GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, broken }},
	} {
		if _, err := OpenConfig(c, ofN1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
