package certs

import (
	"crypto/x509"
	"fmt"
	"os"
	"runtime"
	"time"
)

// mark is how much was logged about the end of a certificate.
type mark int

const (
	markNone mark = iota
	markSoon      // 30 days
	markNow       // 7 days
	markEnded
)

// before returns how long before the end of a certificate a line is logged: 30 and 7 days, or a
// quarter and a twelfth of its time if that is shorter. Certificates that are valid for less than
// four months are made anew by programs, and that in time.
func before(cert *x509.Certificate) (soon, now time.Duration) {
	whole := cert.NotAfter.Sub(cert.NotBefore)
	return min(30*24*time.Hour, whole/4), min(7*24*time.Hour, whole/12)
}

func markOf(cert *x509.Certificate, at time.Time) mark {
	soon, now := before(cert)
	switch left := cert.NotAfter.Sub(at); {
	case left < 0:
		return markEnded
	case left <= now:
		return markNow
	case left <= soon:
		return markSoon
	}
	return markNone
}

// warnOfEnds logs, once for each certificate and mark, that its end is near. reading is held.
func (s *Source) warnOfEnds(b *bundle) {
	now := s.options.Clock()
	stages := make(map[string]mark, len(s.stages))
	look := func(file, remedy string, all []*x509.Certificate) {
		for _, cert := range all {
			key := string(cert.Raw)
			m := markOf(cert, now)
			if m > max(s.stages[key], stages[key]) {
				s.logEnd(m, file, remedy, validity(cert), now)
			}
			stages[key] = max(m, s.stages[key])
		}
	}
	look("cert_file", "replace cert_file and key_file; they are read again without a restart", b.chain())
	if s.options.Node { // a client may have all CAs of the world in its file
		const remedy = "if it is still needed, put a new CA beside it, then replace the certificates that it has signed; if not, remove it from the file"
		look("ca_file", remedy, b.cas)
		look("client_ca_file", remedy, b.clientCAs)
	}
	s.stages = stages
}

// logEnd logs one line about the end of a certificate.
func (s *Source) logEnd(m mark, file, remedy string, v Validity, now time.Time) {
	facts := []any{"file", file, "subject", v.Subject, "serial", v.Serial, "not_after", v.NotAfter, "days_left", v.DaysLeft(now), "remedy", remedy}
	if m == markEnded {
		s.options.Log.Error("a certificate has ended: it, and what it has signed, is refused", facts...)
		return
	}
	s.options.Log.Warn("a certificate ends soon", facts...)
}

// warnOfFiles logs what is not wrong enough to refuse the files. reading is held.
func (s *Source) warnOfFiles(b *bundle) {
	if b.leaf == nil {
		return
	}
	if err := s.outOfTime(b); err != nil && markOf(b.leaf, s.options.Clock()) != markEnded { // that one has a line of its own
		s.options.Log.Error("the own certificate is not valid now, others refuse it", "err", err)
	}
	for _, host := range s.options.Hosts {
		if err := b.leaf.VerifyHostname(host); err != nil {
			s.options.Log.Warn("the certificate does not have a name at which clients reach this node: they refuse it there",
				"file", s.files.Cert, "host", host, "has", namesOf(b.leaf), "remedy", fmt.Sprintf("make it again, with --host %s as well", host))
		}
	}
	if info, err := os.Stat(s.files.Key); err == nil && runtime.GOOS != "windows" && info.Mode()&0o004 != 0 {
		s.options.Log.Warn("the file with the private key can be read by every user of this machine: chmod o-r it", "file", s.files.Key, "mode", info.Mode().String())
	}
}

// namesOf are the hosts of a certificate.
func namesOf(cert *x509.Certificate) []string {
	names := append([]string{}, cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}
