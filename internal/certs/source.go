package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Files are the paths of the files that a [Source] reads, all in PEM. Symbolic links are
// followed at each reading.
type Files struct {
	CA       string // certificates of the CAs that sign those of nodes; several during a rotation
	ClientCA string // certificates of the CAs that sign those of clients; empty: CA
	Cert     string // the own certificate, then those between it and the CA
	Key      string // its private key; may be the same file as Cert
}

// Options say what the files must hold.
type Options struct {
	// Node requires the certificate of a node of the cluster named Cluster, of the one with
	// this ID if ID is not empty. Without Node the own certificate may name anybody, and there
	// need be none.
	Node        bool
	Cluster, ID string
	// Hosts are names and IP addresses at which clients reach the node. One that the
	// certificate does not have is logged as a warning.
	Hosts []string
	// Clock returns the time by which certificates are valid. Default [time.Now].
	Clock func() time.Time
	// Log gets what changes, and what needs the attention of an operator, for a node with its ID
	// as node. Default: none.
	Log *slog.Logger
	// Every is how often [Source.Watch] reads the files. Default 10 s.
	Every time.Duration
}

// Source has the certificates of one process, and reads them again when their files change. All
// methods are safe for concurrent use.
type Source struct {
	files   Files
	given   *tls.Config // in place of files; nil: there are files
	options Options

	current atomic.Pointer[bundle]

	// lastErr says why the files are not in use as they were when they were last read.
	lastErr atomic.Pointer[error]

	reading sync.Mutex      // who holds it may read the files; guards what follows
	pending string          // the error of the last poll
	logged  string          // the last error that was logged
	stages  map[string]mark // certificate → what was logged about its end
}

// State is what a [Source] has, for metrics and status.
type State struct {
	Self      *Identity  // whom the own certificate names; nil without one
	Leaf      *Validity  // of the own certificate; nil without one
	CAs       []Validity // of [Files.CA]
	ClientCAs []Validity // of [Files.ClientCA]
	ReadAt    time.Time  // when what is in use was read
	Err       error      // why the files are not in use as they were when they were last read, or nil
}

// Validity is how long a certificate is valid.
type Validity struct {
	Subject, Serial     string
	NotBefore, NotAfter time.Time
}

// DaysLeft returns the days until the end, rounded down. It is negative after the end.
func (v Validity) DaysLeft(now time.Time) int { return days(v.NotAfter.Sub(now)) }

// defaultEvery is how often files are read. A change is noticed within a minute also if it takes
// several polls until all files fit each other.
const defaultEvery = 10 * time.Second

// Open reads the files and checks all of them. It reports every fault at once, each with its
// file and what to do.
//
// A certificate that has ended, or that is not valid yet, is no fault: the source is used, and
// logs an error. The others will refuse this process, but a new file is then noticed while it
// runs, as it would have been without the restart.
func Open(files Files, options Options) (*Source, error) {
	return begin(&Source{files: files, options: options})
}

// begin is the part of Open that does not depend on where certificates come from.
func begin(s *Source) (*Source, error) {
	options := &s.options
	if options.Clock == nil {
		options.Clock = time.Now
	}
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	if options.Every <= 0 {
		options.Every = defaultEvery
	}
	b, err := s.load()
	if err != nil {
		return nil, err
	}
	if options.Node { // it has no other ID, and its user may not know it yet
		options.Log = options.Log.With("node", b.self.Name)
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	s.use(b)
	return s, nil
}

// Reload reads the files again. If anything is wrong with them it returns an error, and what was
// in use stays in use. Connections that are open stay open; each handshake after Reload uses the
// new certificates and CAs, at both ends.
func (s *Source) Reload() error {
	s.reading.Lock()
	defer s.reading.Unlock()
	if err := s.reloadLocked(); err != nil {
		return err
	}
	return s.outOfTime(s.current.Load())
}

// reloadLocked is Reload, but accepts what is in use already whatever the time is.
func (s *Source) reloadLocked() error {
	b, err := s.load()
	if err == nil && b.sum == s.current.Load().sum {
		s.lastErr.Store(&err)
		return nil
	}
	if err == nil {
		err = s.outOfTime(b)
	}
	s.lastErr.Store(&err)
	if err != nil {
		return err
	}
	s.use(b)
	s.options.Log.Info("certificates loaded", b.facts()...)
	return nil
}

// use makes b what is in use.
func (s *Source) use(b *bundle) {
	s.current.Store(b)
	s.warnOfFiles(b)
	s.warnOfEnds(b)
}

// Watch reads the files every few seconds, uses them when they have changed, and logs what is
// wrong with them and which certificates end soon. It returns when ctx ends.
//
// A fault is logged when two polls in a row have met it, and once: files that are replaced one
// after the other do not fit each other for a moment.
func (s *Source) Watch(ctx context.Context) {
	ticker := time.NewTicker(s.options.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.poll()
		}
	}
}

func (s *Source) poll() {
	s.reading.Lock()
	defer s.reading.Unlock()
	text := ""
	err := s.reloadLocked()
	if err != nil {
		text = err.Error()
	}
	switch {
	case err == nil && s.logged != "":
		s.logged = ""
		s.options.Log.Info("the files of certificates are in order again")
	case err != nil && text == s.pending && text != s.logged:
		s.logged = text
		s.options.Log.Warn("certificates are not reloaded, those read before stay in use", "read_at", s.current.Load().readAt, "err", err)
	}
	s.pending = text
	s.warnOfEnds(s.current.Load())
}

// State returns what is in use. It waits for nothing.
func (s *Source) State() State {
	b := s.current.Load()
	state := State{CAs: validities(b.cas), ClientCAs: validities(b.clientCAs), ReadAt: b.readAt}
	if err := s.lastErr.Load(); err != nil {
		state.Err = *err
	}
	if b.leaf != nil {
		self, leaf := b.self, validity(b.leaf)
		state.Self, state.Leaf = &self, &leaf
	}
	return state
}

func validity(cert *x509.Certificate) Validity {
	return Validity{Subject: nameOf(cert), Serial: serial(cert), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter}
}

func validities(all []*x509.Certificate) (v []Validity) {
	for _, cert := range all {
		v = append(v, validity(cert))
	}
	return v
}

// errNoCertificate is for a handshake that needs a certificate of a source without one.
var errNoCertificate = errors.New("cert_file: is not set, must be the certificate of this process")
