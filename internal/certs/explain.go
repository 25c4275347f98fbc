package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Explain returns why the certificate of a server was refused, and what to do, if err is the
// error of a handshake with a configuration of [Source.DialServer]. Other errors are returned as
// they are.
func (s *Source) Explain(err error) error {
	var failed *tls.CertificateVerificationError
	if !errors.As(err, &failed) || len(failed.UnverifiedCertificates) == 0 {
		return err
	}
	leaf := failed.UnverifiedCertificates[0]
	return refused(leaf, explain(failed.Err, leaf, s.current.Load().cas, x509.ExtKeyUsageServerAuth))
}

// explain returns why a chain is not valid, and what it must be, in words that complete
// "certificate of X:".
func explain(err error, leaf *x509.Certificate, cas []*x509.Certificate, usage x509.ExtKeyUsage) error {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	switch {
	case errors.As(err, &host):
		return fmt.Errorf("has the names %q, must have %q: dial it by one of its names, or make it again with --host %s as well", namesOf(leaf), host.Host, host.Host)
	case errors.As(err, &unknown):
		last := leaf
		if unknown.Cert != nil {
			last = unknown.Cert
		}
		return fmt.Errorf("is signed by %s, must be signed by a CA that this process trusts: %s", issuerOf(last), trusted(last, cas))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		return outside(invalid.Cert, leaf)
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return usageFault(usage)
	}
	return fmt.Errorf("is not valid: %w", err)
}

// outside says that a certificate of a chain is too old or too new.
func outside(cert, leaf *x509.Certificate) error {
	which := "is"
	if !cert.Equal(leaf) {
		which = fmt.Sprintf("is signed by %q, which is", nameOf(cert))
	}
	return fmt.Errorf("%s valid from %s until %s, must be valid now: replace it, unless a clock is wrong", which, day(cert.NotBefore), day(cert.NotAfter))
}

func issuerOf(cert *x509.Certificate) string {
	issuer := *cert
	issuer.Subject = cert.Issuer
	if slices.Equal(cert.RawSubject, cert.RawIssuer) {
		return "itself"
	}
	return strconv.Quote(nameOf(&issuer))
}

// trusted lists the CAs that are trusted.
func trusted(cert *x509.Certificate, cas []*x509.Certificate) string {
	if len(cas) == 0 {
		return "those of the system, or of the program's configuration"
	}
	var names []string
	same := false
	for i, ca := range cas {
		same = same || slices.Equal(ca.RawSubject, cert.RawIssuer)
		if i == 3 {
			names = append(names, fmt.Sprintf("%d more", len(cas)-i))
			break
		}
		names = append(names, strconv.Quote(nameOf(ca)))
	}
	text := strings.Join(names, ", ")
	if same {
		text += ", of which one has the same name and another key"
	}
	return text
}
