package secure

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// failure is why a handshake failed, in words that say what to do; Unwrap returns the error
// of crypto/tls.
type failure struct {
	why   string
	cause error
}

func (f *failure) Error() string { return f.why }

func (f *failure) Unwrap() error { return f.cause }

// Explained returns the error of a handshake in words that say what to do. What package certs
// says of a certificate that it refuses is kept.
func Explained(err error) error {
	if why := why(err); why != "" {
		return &failure{why, err}
	}
	return err
}

func why(err error) string {
	var record tls.RecordHeaderError
	var failed *tls.CertificateVerificationError
	switch text := err.Error(); {
	case errors.As(err, &record):
		return "it does not speak TLS"
	case errors.As(err, &failed):
		return unverified(failed)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it hung up before the end of the handshake"
	case strings.Contains(text, "offered only unsupported versions"):
		return "TLS 1.3 is needed, and it has only older versions"
	case strings.Contains(text, "local error: tls: bad record MAC"):
		return "it has sent what cannot be decrypted, as clients do that refuse the certificate of this end: do they have the CA of the cluster?"
	case strings.Contains(text, "didn't provide a certificate"):
		return "it showed no certificate, and one is needed: a client needs one that a CA in tls.client_ca_file has signed (tls.ca_file, if there is none), a node its own"
	}
	return RefusedLater(err)
}

// unverified returns why crypto/tls itself has refused a certificate.
func unverified(failed *tls.CertificateVerificationError) string {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	switch {
	case errors.As(failed, &unknown):
		return "its certificate is not signed by a CA that is trusted here: is the CA file that of its cluster?"
	case errors.As(failed, &name):
		return fmt.Sprintf("its certificate is not for the name at which it was dialled: %v", name)
	}
	return fmt.Sprintf("its certificate is refused: %v", failed.Err)
}

// RefusedLater returns what an alert of the other end means, "" if err is none. In TLS 1.3 the
// end that dials learns that its certificate is refused only when its own handshake has
// succeeded: from the error of a Read or Write.
func RefusedLater(err error) string {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return ""
	}
	switch name := strings.TrimPrefix(op.Err.Error(), "tls: "); {
	case name == "certificate required":
		return "a certificate is needed there, and this end has shown none"
	case strings.Contains(name, "certificate"):
		return "the certificate of this end is refused there (" + name + "): the log of the other end says why"
	case strings.Contains(name, "protocol version"):
		return "TLS 1.3 is needed on both ends"
	default:
		return "the handshake is refused there (" + name + "): the log of the other end says why"
	}
}
