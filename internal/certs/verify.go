package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ServePeers returns the configuration of a port for nodes alone. The other end must have the
// certificate of a node of the own cluster, and expect, if it is not nil, must return no error
// for it.
func (s *Source) ServePeers(expect func(Identity) error) *tls.Config {
	c := s.config(func(b *bundle, cs tls.ConnectionState) error {
		return s.verifyPeer(b, cs, x509.ExtKeyUsageClientAuth, expect)
	})
	c.ClientAuth = tls.RequireAnyClientCert // which one, VerifyConnection says
	return c
}

// DialPeer returns the configuration of connections to other nodes. The other end must have the
// certificate of a node of the own cluster, and expect, if it is not nil, must return no error
// for it. Host names do not matter: nodes move, and are known by their IDs.
func (s *Source) DialPeer(expect func(Identity) error) *tls.Config {
	c := s.config(func(b *bundle, cs tls.ConnectionState) error {
		return s.verifyPeer(b, cs, x509.ExtKeyUsageServerAuth, expect)
	})
	c.InsecureSkipVerify = true // VerifyConnection verifies, by the CAs of that moment
	return c
}

// ServeClients returns the configuration of a port for clients and nodes. A certificate of the
// other end is verified if there is one, and must be there if required: that of a node by the CAs
// of [Files.CA], that of a client by those of [Files.ClientCA] if there are such. [IdentityOf]
// says who it is.
//
// A certificate that names another cluster is refused. One of a client that names no cluster is
// valid for every cluster whose CA has signed it.
func (s *Source) ServeClients(required bool) *tls.Config {
	c := s.config(s.verifyCaller)
	c.ClientAuth = tls.RequestClientCert
	if required {
		c.ClientAuth = tls.RequireAnyClientCert
	}
	return c
}

// DialServer returns the configuration of one connection of a client to a server that has to
// have the name host, a DNS name or an IP address. With host "" the caller must set the name,
// as grpc and net/http do. The CAs are those of the moment of the call: a client that runs for
// long calls it for each connection.
func (s *Source) DialServer(host string) *tls.Config {
	c := s.config(nil)
	c.ServerName, c.RootCAs = host, s.current.Load().pool
	return c
}

// config returns what all configurations have in common. The own certificate and the CAs are
// those that are in use at each handshake.
//
// There are no session tickets: a resumed session would be cheaper by one signature, and
// connections are few and long. VerifyConnection is called for resumed sessions as well, so
// that nobody who changes a configuration skips a check.
func (s *Source) config(verify func(*bundle, tls.ConnectionState) error) *tls.Config {
	c := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		Time:                   s.options.Clock,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if cert := s.current.Load().cert; cert != nil {
				return cert, nil
			}
			return nil, errNoCertificate
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if cert := s.current.Load().cert; cert != nil {
				return cert, nil
			}
			return &tls.Certificate{}, nil // none
		},
	}
	if verify != nil {
		c.VerifyConnection = func(cs tls.ConnectionState) error { return verify(s.current.Load(), cs) }
	}
	return c
}

var errNone = errors.New("the other end sent no certificate, must send that of a node")

// verifyPeer accepts nodes of the own cluster.
func (s *Source) verifyPeer(b *bundle, cs tls.ConnectionState, usage x509.ExtKeyUsage, expect func(Identity) error) error {
	if len(cs.PeerCertificates) == 0 {
		return errNone
	}
	leaf := cs.PeerCertificates[0]
	if err := verify(leaf, cs.PeerCertificates[1:], b.pool, usage, s.options.Clock()); err != nil {
		return refused(leaf, explain(err, leaf, b.cas, usage))
	}
	id, err := Identify(leaf)
	if err == nil {
		err = s.ownCluster(id)
	}
	if err == nil && id.Role != Node {
		err = fmt.Errorf("is that of a client, must be that of a node, with a URI locknode://%s/node/ID", s.options.Cluster)
	}
	if err == nil && expect != nil {
		err = expect(id)
	}
	if err != nil {
		return refused(leaf, err)
	}
	return nil
}

// verifyCaller accepts clients, nodes of the own cluster, and callers without a certificate.
func (s *Source) verifyCaller(b *bundle, cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return nil
	}
	leaf := cs.PeerCertificates[0]
	id, err := Identify(leaf)
	if err != nil {
		return refused(leaf, err)
	}
	pool, cas := b.clientPool, b.clientCAs
	if id.Role == Node || pool == b.pool { // a CA of clients must not make nodes
		pool, cas = b.pool, b.cas
	}
	if err := verify(leaf, cs.PeerCertificates[1:], pool, x509.ExtKeyUsageClientAuth, s.options.Clock()); err != nil {
		return refused(leaf, explain(err, leaf, cas, x509.ExtKeyUsageClientAuth))
	}
	if err := s.ownCluster(id); err != nil {
		return refused(leaf, err)
	}
	return nil
}

// ownCluster returns an error for a certificate of another cluster.
func (s *Source) ownCluster(id Identity) error {
	if id.Cluster == s.options.Cluster || id.Cluster == "" && id.Role == Client {
		return nil
	}
	return fmt.Errorf("is that of %s %q of cluster %q, must be of cluster %q", id.Role, id.Name, id.Cluster, s.options.Cluster)
}

// refused says whose certificate is refused.
func refused(leaf *x509.Certificate, err error) error {
	return fmt.Errorf("certificate of %q: %w", nameOf(leaf), err)
}

// verify verifies that one of the CAs in pool has signed leaf for a use, perhaps through others.
// pool nil stands for the CAs of the system.
func verify(leaf *x509.Certificate, between []*x509.Certificate, pool *x509.CertPool, usage x509.ExtKeyUsage, now time.Time) error {
	o := x509.VerifyOptions{Roots: pool, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, cert := range between {
		o.Intermediates.AddCert(cert)
	}
	_, err := leaf.Verify(o)
	return err
}

// verifyAtSomeTime is verify, at any time at which all of the certificates concerned are valid.
func verifyAtSomeTime(leaf *x509.Certificate, between []*x509.Certificate, pool *x509.CertPool, cas []*x509.Certificate, usage x509.ExtKeyUsage) error {
	times := []time.Time{leaf.NotBefore}
	for _, cert := range slices.Concat(between, cas) {
		if !cert.NotBefore.Before(leaf.NotBefore) { // where one of them begins, all may be valid
			times = append(times, cert.NotBefore)
		}
	}
	var why error
	for _, t := range times {
		err := verify(leaf, between, pool, usage, t)
		if err == nil {
			return nil
		}
		var invalid x509.CertificateInvalidError
		if why == nil || !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
			why = err
		}
	}
	return why
}

// hasUsage reports whether a certificate itself, apart from those above it, may be used so.
func hasUsage(cert *x509.Certificate, usage x509.ExtKeyUsage) bool {
	if len(cert.ExtKeyUsage) == 0 && len(cert.UnknownExtKeyUsage) == 0 {
		return true
	}
	return slices.Contains(cert.ExtKeyUsage, usage) || slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// usageFault says which use is missing.
func usageFault(usage x509.ExtKeyUsage) error {
	if usage == x509.ExtKeyUsageServerAuth {
		return errors.New("is not for servers, must have the extended key usage serverAuth: nodes have serverAuth and clientAuth")
	}
	return errors.New("is not for clients, must have the extended key usage clientAuth: clients have clientAuth, nodes serverAuth and clientAuth")
}
