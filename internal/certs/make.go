package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// CA signs certificates.
type CA struct {
	Cert *x509.Certificate
	key  crypto.Signer
}

// Pair is a certificate and its private key, in PEM.
type Pair struct{ Cert, Key []byte }

// early is how long before now a new certificate begins to be valid: the clocks of other
// machines may be behind.
const early = time.Hour

// longest is how long a certificate may be valid. RFC 5280 has no later date than the year
// 9999.
const longest = 100 * 365 * 24 * time.Hour

// NewCA makes a CA and its key. The CA can sign certificates of nodes and clients, and no other
// CA.
func NewCA(name string, lifetime time.Duration, now time.Time) (*CA, error) {
	if err := checkText("name of the CA", name); err != nil {
		return nil, err
	}
	if err := checkLifetime(lifetime); err != nil {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-early), NotAfter: now.Add(lifetime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &CA{Cert: cert, key: key}, nil
}

// OpenCA reads a CA from its files, to sign with it. It returns an error if the key does not
// fit, or if the certificate cannot sign others at the time now.
func OpenCA(certFile, keyFile string, now time.Time) (*CA, error) {
	cert, err := readOne(certFile, "certificate", func(p pemFile) []*x509.Certificate { return p.certs })
	if err != nil {
		return nil, err
	}
	key, err := readOne(keyFile, "private key", func(p pemFile) []crypto.Signer { return p.keys })
	if err != nil {
		return nil, err
	}
	switch {
	case !cert.IsCA || cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, fmt.Errorf("%s: is the certificate of %q and not of a CA, must be that of a CA", certFile, nameOf(cert))
	case !fits(cert, key):
		return nil, fmt.Errorf("%s: is not the key of %s, must be the key that was made with it", keyFile, certFile)
	case now.After(cert.NotAfter):
		return nil, fmt.Errorf("%s: the CA %q has ended on %s, must be valid: make a new one beside it", certFile, nameOf(cert), day(cert.NotAfter))
	case now.Before(cert.NotBefore):
		return nil, fmt.Errorf("%s: the CA %q is not valid before %s: is the clock of this machine right?", certFile, nameOf(cert), day(cert.NotBefore))
	}
	return &CA{Cert: cert, key: key}, nil
}

// readOne reads a file that must have exactly one of what kind is.
func readOne[T any](path, kind string, of func(pemFile) []T) (one T, err error) {
	b, err := readFile(path)
	if err != nil {
		return one, fmt.Errorf("%s: %w", path, err)
	}
	p, err := parsePEM(b)
	if err != nil {
		return one, fmt.Errorf("%s: %w", path, err)
	}
	if all := of(p); len(all) == 1 {
		return all[0], nil
	}
	return one, fmt.Errorf("%s: has %d of kind %s, must have 1", path, len(of(p)), kind)
}

// Pair returns the CA's certificate and key.
func (ca *CA) Pair() (Pair, error) { return encode(ca.Cert, ca.key) }

// Request is what a new certificate shall be.
type Request struct {
	Identity Identity
	Hosts    []string // DNS names and IP addresses at which clients reach a node; none for clients
	Lifetime time.Duration
	Now      time.Time
}

// Issue makes a key and signs its certificate. A node's certificate is for both ends of a
// connection, a client's only for the end that dials.
func (ca *CA) Issue(r Request) (Pair, error) {
	if err := r.Check(ca); err != nil {
		return Pair{}, err
	}
	key, err := newKey()
	if err != nil {
		return Pair{}, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: r.Identity.Name},
		NotBefore: r.Now.Add(-early), NotAfter: r.Now.Add(r.Lifetime),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usages(r.Identity.Role),
		URIs:                  []*url.URL{r.Identity.uri()},
	}
	for _, host := range r.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	cert, err := sign(template, ca.Cert, key.Public(), ca.key)
	if err != nil {
		return Pair{}, err
	}
	if got, err := Identify(cert); err != nil || got != r.Identity {
		panic(fmt.Sprintf("a certificate for %v names %v (%v)", r.Identity, got, err))
	}
	return encode(cert, key)
}

// usages are what a certificate of a role is for.
func usages(role Role) []x509.ExtKeyUsage {
	if role == Node {
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
}

// Check returns an error if ca cannot make such a certificate.
func (r Request) Check(ca *CA) error {
	if err := r.Identity.Check(); err != nil {
		return err
	}
	if r.Identity.Role == Client && len(r.Hosts) > 0 {
		return errors.New("hosts: must be none for a client: only nodes are dialled")
	}
	for _, host := range r.Hosts {
		if err := checkHost(host); err != nil {
			return err
		}
	}
	if err := checkLifetime(r.Lifetime); err != nil {
		return err
	}
	if left := ca.Cert.NotAfter.Sub(r.Now); r.Lifetime > left {
		return fmt.Errorf("lifetime: is %d days, must be at most %d: the CA %q ends on %s. Make a new CA in time, and trust both during the change",
			days(r.Lifetime), days(left), nameOf(ca.Cert), day(ca.Cert.NotAfter))
	}
	return nil
}

func checkLifetime(d time.Duration) error {
	if d < time.Minute || d > longest {
		return fmt.Errorf("lifetime: is %s, must be a minute to %d days", d, days(longest))
	}
	return nil
}

// checkHost accepts an IP address, a DNS name, or a name whose first label is "*".
func checkHost(host string) error {
	if net.ParseIP(host) != nil {
		return nil
	}
	name := strings.TrimPrefix(host, "*.")
	ok := name != "" && len(name) <= 253 && strings.Trim(name, "0123456789.") != ""
	for label := range strings.SplitSeq(name, ".") {
		ok = ok && label != "" && len(label) <= 63
	}
	for _, c := range []byte(name) {
		ok = ok && (c == '.' || c == '-' || c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z')
	}
	if !ok {
		return fmt.Errorf("host: is %q, must be a DNS name or an IP address, without a port", host)
	}
	return nil
}

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

// sign returns the certificate as others will read it. Its serial number is random.
func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %q: %w", template.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of %q that was just signed: %w", template.Subject.CommonName, err)
	}
	return cert, nil
}

func encode(cert *x509.Certificate, key crypto.Signer) (Pair, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("encode the key of %q: %w", nameOf(cert), err)
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: blockCert, Bytes: cert.Raw}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: der}),
	}, nil
}
