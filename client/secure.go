package client

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/locknode/locknode/internal/certs"
	"github.com/locknode/locknode/internal/secure"
)

// TLS has the client use TLS with this configuration. Nodes speak TLS 1.3 only, and have to
// have a certificate for the name or IP address at which the client finds them: that of an
// endpoint, and that which a node names for another one. The client copies cfg. Rotated
// certificates are up to cfg: see [tls.Config.GetClientCertificate], or use [TLSFiles]. It has
// no effect on a client of an embedded node.
func TLS(cfg *tls.Config) Option {
	return func(c *config) {
		s := &security{both: c.tls != nil, given: true}
		if cfg != nil {
			s.config = cfg.Clone()
		}
		c.tls = s
	}
}

// TLSFiles has the client use TLS. caFile has the certificates of the CAs that sign those of
// nodes; empty is those of the system. certFile and keyFile are the client's own certificate
// and its key, which it needs where the nodes have tls.client_ca_file set; empty is none.
// All are PEM, and are read again within a minute after they have changed: connections that
// are made from then on use them. A file that is not valid is an error of [Dial], and later
// is logged, while what was read before stays in use. What [TLS] says of names holds here as
// well.
func TLSFiles(caFile, certFile, keyFile string) Option {
	return func(c *config) {
		c.tls = &security{both: c.tls != nil, files: certs.Files{CA: caFile, Cert: certFile, Key: keyFile}}
	}
}

// security is how a client uses TLS.
type security struct {
	given  bool // by TLS, and not by TLSFiles
	both   bool // an earlier option was given as well
	config *tls.Config
	files  certs.Files

	source *certs.Source // of the files
	err    error         // why they cannot be used
}

// open reads the files.
func (s *security) open(log *slog.Logger) {
	if !s.given {
		s.source, s.err = certs.Open(s.files, certs.Options{Log: log})
	}
}

func (s *security) check() error {
	w := what{verb: "dial"}
	switch {
	case s == nil:
		return nil
	case s.both:
		return invalid(w, "TLS, TLSFiles: are given more than once, must be one of them")
	case s.given && s.config == nil:
		return invalid(w, "TLS: is nil, must be a configuration")
	case s.err != nil:
		return invalid(w, "TLS files: %v", s.err)
	}
	return nil
}

// credentials are those of one connection.
func (s *security) credentials() credentials.TransportCredentials {
	switch {
	case s == nil:
		return insecure.NewCredentials()
	case s.given:
		return credentials.NewTLS(s.config)
	default:
		return credentials.NewTLS(s.source.DialServer(""))
	}
}

// watch reads the files again when they change, until ctx ends.
func (s *security) watch(ctx context.Context) {
	if s != nil && s.source != nil {
		s.source.Watch(ctx)
	}
}

const speaksPlain trouble = "plain text is spoken there, and this client uses TLS: is tls.mode of the node off, or is this not the API port of a node?"

// noTLS begins what is known of a handshake of TLS that failed.
const noTLS = "no TLS came about: "

// trouble returns why a handshake of TLS failed.
func (s *security) trouble(err error) trouble {
	var record tls.RecordHeaderError
	var failed *tls.CertificateVerificationError
	switch {
	case errors.As(err, &record):
		return speaksPlain
	case errors.As(err, &failed) && s != nil && s.source != nil:
		return noTLS + trouble(s.source.Explain(failed).Error())
	}
	return noTLS + trouble(secure.Explained(err).Error())
}
