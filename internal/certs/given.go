package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// inConfig stands where the path of a file does, in errors and log lines.
const inConfig = "tls.Config"

// OpenConfig returns a source that has the certificates of a configuration in place of files: for
// programs that get theirs from elsewhere. Of the configuration these are used, and nothing else:
//
//   - GetConfigForClient, if it is set: what it returns takes the place of the configuration, so that
//     CAs can be replaced;
//   - GetCertificate, or the first of Certificates: the own certificate, with those between it and the
//     CA. It must be the same whatever the client asks for;
//   - RootCAs, which sign the certificates of nodes; required;
//   - ClientCAs, which sign those of clients; nil: RootCAs.
//
// They are asked for whenever files would be read, and checked in the same way: whom a certificate
// names matters as much. So a new certificate is in use after Options.Every, or Reload.
func OpenConfig(c *tls.Config, options Options) (*Source, error) {
	if c == nil {
		return nil, errors.New(inConfig + ": is nil")
	}
	return begin(&Source{files: Files{CA: inConfig, Cert: inConfig}, given: c.Clone(), options: options})
}

// hello is what the functions of a configuration are asked with: a client that takes all that TLS
// 1.3 has.
func hello() *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: schemes}
}

// fromConfig makes a bundle of what the configuration has now.
func (s *Source) fromConfig() (*bundle, error) {
	c := s.given
	if c.GetConfigForClient != nil {
		now, err := c.GetConfigForClient(hello())
		if err != nil {
			return nil, fmt.Errorf("%s: GetConfigForClient: %w", inConfig, err)
		}
		if now != nil { // nil is the configuration itself
			c = now
		}
	}
	if c.RootCAs == nil {
		return nil, errors.New(inConfig + ": RootCAs: is nil, must have the CAs that sign the certificates of nodes")
	}
	cert, err := certificateOf(c)
	if err != nil {
		return nil, err
	}
	b := &bundle{pool: c.RootCAs, clientPool: c.ClientCAs, readAt: s.options.Clock()}
	if b.clientPool == nil {
		b.clientPool = b.pool
	}
	h := sha256.New()
	var chain []*x509.Certificate
	for _, raw := range cert.Certificate {
		one, err := x509.ParseCertificate(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate: %w", inConfig, err)
		}
		chain = append(chain, one)
		h.Write(raw)
	}
	fmt.Fprintf(h, "%p %p", b.pool, b.clientPool) // pools are exchanged, and not changed while they are in use
	h.Sum(b.sum[:0])
	own := *cert
	own.Leaf = chain[0]
	b.cert, b.leaf, b.between = &own, chain[0], chain[1:]
	if err := s.check(b); err != nil {
		return nil, in("cert_file", inConfig, err)
	}
	return b, nil
}

// certificateOf returns the certificate that a configuration shows.
func certificateOf(c *tls.Config) (cert *tls.Certificate, err error) {
	switch {
	case c.GetCertificate != nil:
		if cert, err = c.GetCertificate(hello()); err != nil {
			return nil, fmt.Errorf("%s: GetCertificate: %w", inConfig, err)
		}
	case len(c.Certificates) > 0:
		cert = &c.Certificates[0]
	}
	if cert == nil || len(cert.Certificate) == 0 {
		return nil, errors.New(inConfig + ": has no certificate, must have that of the node, in GetCertificate or Certificates")
	}
	return cert, nil
}

// verifiesNow reports whether a chain is valid at the moment. The CAs of a pool cannot be asked for
// the times at which they are.
func verifiesNow(b *bundle, usage x509.ExtKeyUsage, now time.Time) bool {
	return verify(b.leaf, b.between, b.pool, usage, now) == nil
}
