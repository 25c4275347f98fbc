package certs

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// bundle is what was read from all files at one time, and fits together. It is not changed.
type bundle struct {
	cert       *tls.Certificate    // nil without a certificate
	leaf       *x509.Certificate   // the certificate itself
	between    []*x509.Certificate // those that signed it, without the CA
	self       Identity            // whom it names
	cas        []*x509.Certificate
	clientCAs  []*x509.Certificate // empty: cas
	pool       *x509.CertPool      // of cas; nil without [Files.CA]: those of the system
	clientPool *x509.CertPool      // of clientCAs, or of cas
	sum        [sha256.Size]byte   // of all files
	readAt     time.Time
}

// contents are the bytes of the four files; nil for those that are not set.
type contents struct{ ca, clientCA, cert, key []byte }

// readTries is how often files are read that change meanwhile.
const readTries = 3

// load reads all files and checks what is in them, but not whether it is the time at which they
// are valid. It reads them until they are the same twice: Kubernetes exchanges all at once, and
// the first two may be from before that.
func (s *Source) load() (*bundle, error) {
	if s.given != nil {
		return s.fromConfig()
	}
	all, err := s.read()
	for range readTries {
		before, errBefore := all, err
		all, err = s.read()
		if all.sum() == before.sum() && (err == nil) == (errBefore == nil) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return s.parse(all)
}

// read returns what is in the files.
func (s *Source) read() (c contents, err error) {
	f := s.files
	var faults []error
	for _, one := range []struct {
		name, path string
		to         *[]byte
	}{{"ca_file", f.CA, &c.ca}, {"client_ca_file", f.ClientCA, &c.clientCA}, {"cert_file", f.Cert, &c.cert}, {"key_file", f.Key, &c.key}} {
		if one.path == "" {
			continue
		}
		b, err := readFile(one.path)
		if err != nil {
			faults = append(faults, in(one.name, one.path, err))
		}
		*one.to = b
	}
	return c, errors.Join(append(faults, s.missing())...)
}

// in says in which file a fault is.
func in(name, path string, err error) error { return fmt.Errorf("%s: %s: %w", name, path, err) }

// missing returns an error for files that are not set and must be.
func (s *Source) missing() error {
	f, node := s.files, s.options.Node
	var faults []error
	need := func(name, path, what string, needed bool) {
		if path == "" && needed {
			faults = append(faults, fmt.Errorf("%s: is empty, must be %s", name, what))
		}
	}
	need("ca_file", f.CA, "a file with the certificate of the CA that signs those of nodes; `locknode tls ca create` makes one", node)
	need("cert_file", f.Cert, "a file with the certificate that belongs to key_file; `locknode tls cert create` makes both", node || f.Key != "")
	need("key_file", f.Key, "a file with the private key of cert_file", node || f.Cert != "")
	return errors.Join(faults...)
}

func (c contents) sum() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, b := range [][]byte{c.ca, c.clientCA, c.cert, c.key} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	h.Sum(sum[:0])
	return sum
}

// parse makes a bundle of what the files hold.
func (s *Source) parse(c contents) (*bundle, error) {
	b := &bundle{sum: c.sum(), readAt: s.options.Clock()}
	var faults []error
	failed := func(err error) bool {
		if err != nil {
			faults = append(faults, err)
		}
		return err != nil
	}
	var err error
	b.cas, b.pool, err = authorities("ca_file", s.files.CA, c.ca)
	failed(err)
	b.clientCAs, b.clientPool, err = authorities("client_ca_file", s.files.ClientCA, c.clientCA)
	failed(err)
	if b.clientPool == nil {
		b.clientPool = b.pool
	}
	if s.files.Cert != "" {
		failed(b.own(s.files, c.cert, c.key))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if b.leaf != nil {
		if err := s.check(b); err != nil {
			return nil, in("cert_file", s.files.Cert, err)
		}
	}
	return b, nil
}

// authorities are the CAs in a file.
func authorities(name, path string, b []byte) ([]*x509.Certificate, *x509.CertPool, error) {
	if path == "" {
		return nil, nil, nil
	}
	p, err := parsePEM(b)
	switch {
	case err != nil:
		return nil, nil, in(name, path, err)
	case len(p.keys) > 0:
		return nil, nil, in(name, path, errors.New("has a private key, must have certificates alone: "+
			"with a CA's key everybody who can read the file can make certificates"))
	case len(p.certs) == 0:
		return nil, nil, in(name, path, errors.New("has no certificate, must have that of a CA"))
	}
	return p.certs, poolOf(p.certs), nil
}

// own takes the own certificate and its key.
func (b *bundle) own(f Files, certFile, keyFile []byte) error {
	p, errCert := parsePEM(certFile)
	if errCert == nil && len(p.certs) == 0 {
		errCert = errors.New("has no certificate")
	}
	if errCert != nil {
		errCert = in("cert_file", f.Cert, errCert)
	}
	k, errKey := parsePEM(keyFile)
	if errKey == nil && len(k.keys) != 1 {
		errKey = fmt.Errorf("has %d private keys, must have the one of cert_file", len(k.keys))
	}
	if errKey != nil {
		errKey = in("key_file", f.Key, errKey)
	}
	if errCert != nil || errKey != nil {
		return errors.Join(errCert, errKey)
	}
	key := k.keys[0]
	if !fits(p.certs[0], key) {
		if slices.ContainsFunc(p.certs, func(c *x509.Certificate) bool { return fits(c, key) }) {
			return in("cert_file", f.Cert, errors.New("does not begin with the certificate of key_file: it must be the first, "+
				"then the one that signed it, and so on"))
		}
		return in("key_file", f.Key, fmt.Errorf("does not fit the certificate of %q in cert_file %s: both must be from the same `locknode tls cert create` or order",
			nameOf(p.certs[0]), f.Cert))
	}
	b.take(p.certs, key)
	return nil
}

func (b *bundle) take(chain []*x509.Certificate, key crypto.Signer) {
	b.cert = &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		b.cert.Certificate = append(b.cert.Certificate, cert.Raw)
	}
	b.leaf, b.between = chain[0], chain[1:]
}

// check returns an error if the others would refuse the own certificate whatever time it is.
func (s *Source) check(b *bundle) error {
	var err error
	if b.self, err = Identify(b.leaf); err != nil {
		return err
	}
	if err := usable(b.cert); err != nil {
		return err
	}
	if !s.options.Node {
		return b.checkClient()
	}
	if err := s.checkNode(b.self); err != nil {
		return err
	}
	for _, usage := range usages(Node) {
		if err := verifyAtSomeTime(b.leaf, b.between, b.pool, b.cas, usage); err != nil && !verifiesNow(b, usage, s.options.Clock()) {
			return explain(err, b.leaf, b.cas, usage)
		}
	}
	return nil
}

// checkClient checks what a client can check: it does not have the CA that signs for clients
// unless it has been given one.
func (b *bundle) checkClient() error {
	if len(b.clientCAs) > 0 {
		if err := verifyAtSomeTime(b.leaf, b.between, b.clientPool, b.clientCAs, x509.ExtKeyUsageClientAuth); err != nil {
			return explain(err, b.leaf, b.clientCAs, x509.ExtKeyUsageClientAuth)
		}
	}
	if !hasUsage(b.leaf, x509.ExtKeyUsageClientAuth) {
		return usageFault(x509.ExtKeyUsageClientAuth)
	}
	return nil
}

func (s *Source) checkNode(self Identity) error {
	want := Identity{Cluster: s.options.Cluster, Role: Node, Name: s.options.ID}
	if want.Name == "" {
		want.Name = self.Name
	}
	const remedy = "`locknode tls cert create --node` makes one"
	switch {
	case self.Role != Node:
		return fmt.Errorf("is the certificate of client %q, must be that of a node, with the URI %s in it: %s", self.Name, want, remedy)
	case self.Cluster != want.Cluster:
		return fmt.Errorf("is the certificate of a node of cluster %q, must be of %q, as cluster_name is: %s", self.Cluster, want.Cluster, remedy)
	case self.Name != want.Name:
		return fmt.Errorf("is the certificate of node %q, must be that of %q, as node_id is: %s", self.Name, want.Name, remedy)
	}
	return nil
}

// schemes are the signatures that TLS 1.3 has.
var schemes = []tls.SignatureScheme{
	tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512, tls.Ed25519,
	tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512,
}

// usable returns an error if TLS 1.3 has no signatures for a key of this kind.
func usable(cert *tls.Certificate) error {
	if err := hello().SupportsCertificate(cert); err != nil {
		return fmt.Errorf("has a key of a kind that TLS 1.3 cannot use, must be ECDSA on P-256, P-384 or P-521, Ed25519, or RSA of 2048 bits: %w", err)
	}
	return nil
}

// outOfTime returns an error if others refuse the own certificate because of the time.
func (s *Source) outOfTime(b *bundle) error {
	if b.leaf == nil {
		return nil
	}
	now := s.options.Clock()
	for _, cert := range b.chain() {
		if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
			return in("cert_file", s.files.Cert, outside(cert, b.leaf))
		}
	}
	if !s.options.Node {
		return nil
	}
	if err := verify(b.leaf, b.between, b.pool, x509.ExtKeyUsageClientAuth, now); err != nil {
		return in("cert_file", s.files.Cert, explain(err, b.leaf, b.cas, x509.ExtKeyUsageClientAuth))
	}
	return nil
}

// chain is the own certificate and those that signed it, without the CA.
func (b *bundle) chain() []*x509.Certificate {
	if b.leaf == nil {
		return nil
	}
	return append([]*x509.Certificate{b.leaf}, b.between...)
}

// facts are what a log line says of a bundle.
func (b *bundle) facts() []any {
	facts := []any{"cas", len(b.cas)}
	if len(b.clientCAs) > 0 {
		facts = append(facts, "client_cas", len(b.clientCAs))
	}
	if b.leaf != nil {
		facts = append(facts, "identity", b.self.String(), "serial", serial(b.leaf), "not_after", b.leaf.NotAfter)
	}
	return facts
}
