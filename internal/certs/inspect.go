package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Inspection is what several files hold, and how that fits together.
type Inspection struct {
	Certs []CertReport
	Keys  []KeyReport
	// Faults are what is wrong whatever the files are for: those that cannot be read, a key that
	// fits none of the certificates, a certificate that is not valid now or that none of the
	// CAs has signed.
	Faults []string
	// Checked says that there were CAs, and that what a certificate can be used for includes that
	// one of them has signed it.
	Checked bool
}

// CertReport is what is to be said of one certificate.
type CertReport struct {
	File      string
	Place     int // in the file, from 1
	CA        bool
	Identity  *Identity // of one that is no CA's; nil if it is not clear
	Named     bool      // Identity is that of a URI in it
	Issuer    string
	Key       string // what kind
	Usages    []string
	Hosts     []string
	KeyFiles  []string // the given files with its key
	SignedBy  []string // the given files with the CA's certificate that has signed it
	NotNode   []string // why a node cannot use it; empty: it can. nil for a CA
	NotClient []string // why a client cannot use it, likewise
	Validity
}

// KeyReport is what is to be said of one private key.
type KeyReport struct {
	File string
	Kind string
	Fits []string // the given files with its certificate
}

// inspected is a certificate with its place.
type inspected struct {
	file  string
	place int
	cert  *x509.Certificate
	rest  []*x509.Certificate // what follows it in its file
}

// Inspect reads files and says what they are, by the time now. CAs are the CA certificates in
// those files that hold nothing else.
func Inspect(paths []string, now time.Time) Inspection {
	var in Inspection
	var all []inspected
	var keys []crypto.Signer
	var cas []inspected
	for _, path := range paths {
		b, err := readFile(path)
		var p pemFile
		if err == nil {
			p, err = parsePEM(b)
		}
		if err == nil && len(p.certs)+len(p.keys) == 0 {
			err = errors.New("has neither certificates nor private keys")
		}
		if err != nil {
			in.fault("%s: %v", path, err)
			continue
		}
		only := len(p.keys) == 0 && !slices.ContainsFunc(p.certs, func(c *x509.Certificate) bool { return !c.IsCA })
		for i, cert := range p.certs {
			one := inspected{path, i + 1, cert, p.certs[i+1:]}
			all = append(all, one)
			if only {
				cas = append(cas, one)
			}
		}
		for _, key := range p.keys {
			keys = append(keys, key)
			in.Keys = append(in.Keys, KeyReport{File: path, Kind: kindOf(key.Public())})
		}
	}
	for _, one := range all {
		in.Certs = append(in.Certs, in.cert(one, cas, now))
	}
	in.match(all, keys)
	in.Checked = len(cas) > 0
	return in
}

func (in *Inspection) fault(format string, args ...any) {
	in.Faults = append(in.Faults, fmt.Sprintf(format, args...))
}

// match says which key fits which certificate.
func (in *Inspection) match(all []inspected, keys []crypto.Signer) {
	for k, key := range keys {
		report := &in.Keys[k]
		for c, one := range all {
			if fits(one.cert, key) {
				report.Fits = append(report.Fits, one.file)
				in.Certs[c].KeyFiles = append(in.Certs[c].KeyFiles, report.File)
			}
		}
		if len(report.Fits) == 0 && len(all) > 0 {
			in.fault("%s: fits none of the certificates that were given", report.File)
		}
	}
}

// cert says what one certificate is and what it can be used for.
func (in *Inspection) cert(one inspected, cas []inspected, now time.Time) CertReport {
	cert := one.cert
	r := CertReport{
		File: one.file, Place: one.place, CA: cert.IsCA, Issuer: nameOf(&x509.Certificate{Subject: cert.Issuer}),
		Key: kindOf(cert.PublicKey), Usages: usageNames(cert), Hosts: namesOf(cert), Validity: validity(cert),
	}
	var roots []*x509.Certificate
	for _, ca := range cas {
		roots = append(roots, ca.cert)
		if cert.CheckSignatureFrom(ca.cert) == nil && !slices.Contains(r.SignedBy, ca.file) {
			r.SignedBy = append(r.SignedBy, ca.file)
		}
	}
	if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
		in.fault("%s: the certificate of %q %v", one.file, nameOf(cert), outside(cert, cert))
	}
	if cert.IsCA {
		return r
	}
	id, err := Identify(cert)
	if err == nil {
		r.Identity = &id
		r.Named = slices.ContainsFunc(cert.URIs, ours)
	} else {
		in.fault("%s: %v", one.file, err)
	}
	r.NotNode, r.NotClient = one.unfit(Node, roots, now), one.unfit(Client, roots, now)
	if len(roots) > 0 && verifyAtSomeTime(cert, one.rest, poolOf(roots), roots, x509.ExtKeyUsageAny) != nil {
		in.fault("%s: the certificate of %q is signed by none of the CAs that were given", one.file, nameOf(cert))
	}
	return r
}

// unfit returns why a certificate cannot be used in a role. Without roots it does not say by whom
// it must be signed.
func (one inspected) unfit(role Role, roots []*x509.Certificate, now time.Time) []string {
	why := []string{}
	add := func(err error) {
		if err != nil && !slices.Contains(why, err.Error()) {
			why = append(why, err.Error())
		}
	}
	id, err := Identify(one.cert)
	add(err)
	if role == Node && err == nil && id.Role != Node {
		add(errors.New("has no URI locknode://CLUSTER/node/ID"))
	}
	late := now.Before(one.cert.NotBefore) || now.After(one.cert.NotAfter)
	if late {
		add(outside(one.cert, one.cert))
	}
	for _, usage := range usages(role) {
		if !hasUsage(one.cert, usage) {
			add(usageFault(usage))
		} else if len(roots) > 0 && !late {
			if err := verify(one.cert, one.rest, poolOf(roots), usage, now); err != nil {
				add(explain(err, one.cert, roots, usage))
			}
		}
	}
	return why
}

func poolOf(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool
}

// usageNames are the extended key usages as other programs call them.
func usageNames(cert *x509.Certificate) []string {
	names := []string{}
	for _, usage := range cert.ExtKeyUsage {
		switch usage {
		case x509.ExtKeyUsageServerAuth:
			names = append(names, "serverAuth")
		case x509.ExtKeyUsageClientAuth:
			names = append(names, "clientAuth")
		case x509.ExtKeyUsageAny:
			names = append(names, "any")
		default:
			names = append(names, fmt.Sprintf("another (%d)", usage))
		}
	}
	for _, other := range cert.UnknownExtKeyUsage {
		names = append(names, other.String())
	}
	return names
}

// kindOf names a kind of key.
func kindOf(public crypto.PublicKey) string {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	}
	return fmt.Sprintf("%T", public)
}
