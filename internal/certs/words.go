package certs

import (
	"cmp"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"time"
)

// nameOf is what a message calls a certificate: its common name, or all of its subject. The
// name of a stranger's certificate may be as long as a handshake.
func nameOf(cert *x509.Certificate) string {
	name := cmp.Or(cert.Subject.CommonName, cert.Subject.String(), "serial "+serial(cert))
	if len(name) > maxShown {
		name = strings.ToValidUTF8(name[:maxShown], "") + "…"
	}
	return name
}

// maxShown is how many bytes of a name a message has at most.
const maxShown = 100

// serial is the serial number as other programs print it.
func serial(cert *x509.Certificate) string {
	if cert.SerialNumber == nil {
		return ""
	}
	return hex.EncodeToString(cert.SerialNumber.Bytes())
}

// day is a time to the second: people compare it with that of other programs.
func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// days rounds down, also below 0: what ended an hour ago has −1 day left.
func days(d time.Duration) int { return int(math.Floor(d.Hours() / 24)) }

// checkText checks a text for people that goes into a certificate.
func checkText(what, text string) error {
	if text == "" || len(text) > maxName {
		return fmt.Errorf("%s: is %d bytes long, must have 1 to %d", what, len(text), maxName)
	}
	if !printable(text) {
		return fmt.Errorf("%s: is %q, must be printable text", what, text)
	}
	return nil
}
