package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Files are the paths of the files that a [Source] reads, all in PEM.
type Files struct {
	CA       string // certificates of the CAs that sign those of nodes; several during a rotation
	ClientCA string // certificates of the CAs that sign those of clients; empty: CA
	Cert     string // the own certificate, then those between it and the CA
	Key      string // its private key; may be the same file as Cert
}

// Options say what files must hold.
type Options struct {
	// Node requires the certificate of a node of the cluster named Cluster, of the one with
	// this ID if ID is not empty. Without Node any certificate with a client's usage is
	// accepted, and none is required.
	Node        bool
	Cluster, ID string
	// Hosts are names and IP addresses at which clients reach the node. One that the
	// certificate does not have is logged as a warning.
	Hosts []string
	// Clock returns the time by which certificates are valid. Default [time.Now].
	Clock func() time.Time
	// Log gets what changes, and what needs the attention of an operator. Default: none.
	Log *slog.Logger
	// Every is how often [Source.Watch] reads the files. Default 10 s.
	Every time.Duration
}

// Source has the certificates of one process, and reads them again when their files change. All
// methods are safe for concurrent use.
type Source struct {
	files   Files
	options Options
	log     *slog.Logger

	current atomic.Pointer[bundle]

	mu      sync.Mutex // guards what follows, and lets one goroutine read files at a time
	lastErr error      // why the files were refused when they were last read
	said    said
}

// State is what a [Source] has, for metrics and status.
type State struct {
	Self      *Identity  // whom the own certificate names; nil without one
	Leaf      *Validity  // of the own certificate; nil without one
	CAs       []Validity // of [Files.CA]
	ClientCAs []Validity // of [Files.ClientCA]
	ReadAt    time.Time  // when what is in use was read
	Err       error      // why the files as they are now are not in use; nil if they are
}

// Validity is how long a certificate is valid.
type Validity struct {
	Subject, Serial     string
	NotBefore, NotAfter time.Time
}

// DaysLeft returns the days until the end, rounded down; it is negative after the end.
func (v Validity) DaysLeft(now time.Time) int { return 0 }

// Open reads the files and checks all of them. It reports every fault at once, each with its
// file and what to do.
func Open(files Files, options Options) (*Source, error) { return nil, nil }

// Reload reads the files again. If anything is wrong with them it returns an error, and what was
// in use stays in use.
func (s *Source) Reload() error { return nil }

// Watch calls Reload when a file has changed, and logs what is wrong and which certificates end
// soon, until ctx ends. It returns then.
func (s *Source) Watch(ctx context.Context) {}

// State returns what is in use.
func (s *Source) State() State { return State{} }

// ServePeers returns the configuration of a port for nodes alone.
func (s *Source) ServePeers(expect func(Identity) error) *tls.Config { return nil }

// DialPeer returns the configuration of connections to other nodes.
func (s *Source) DialPeer(expect func(Identity) error) *tls.Config { return nil }

// ServeClients returns the configuration of a port for clients and nodes.
func (s *Source) ServeClients(required bool) *tls.Config { return nil }

// DialServer returns the configuration of one connection of a client to a node.
func (s *Source) DialServer(host string) *tls.Config { return nil }

type bundle struct{ leaf *x509.Certificate }
type said struct{}
