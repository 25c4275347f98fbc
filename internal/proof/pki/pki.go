// Package pki makes the CAs and certificates of test clusters, in files.
package pki

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/locknode/locknode/internal/certs"
)

// Authority is a CA with its files in a directory.
type Authority struct {
	Dir     string
	Cluster string // the cluster that its certificates name
	CA      *certs.CA
}

// lifetime is that of what is made.
const lifetime = 90 * 24 * time.Hour

// New makes a CA for the nodes and clients of a cluster, and writes its certificate to ca.pem in
// dir.
func New(dir, cluster string) (*Authority, error) {
	a := &Authority{Dir: dir, Cluster: cluster}
	return a, a.Renew()
}

// Renew replaces the CA by a new one, whose certificate alone is then in ca.pem.
func (a *Authority) Renew() (err error) {
	if a.CA, err = certs.NewCA("test CA", 2*lifetime, time.Now()); err != nil {
		return err
	}
	pair, err := a.CA.Pair()
	if err != nil {
		return err
	}
	return certs.WriteFiles(true, certs.File{Path: a.CAFile(), Data: pair.Cert, Mode: certs.ModeCert})
}

// CAFile is the file with the CA's certificate.
func (a *Authority) CAFile() string { return filepath.Join(a.Dir, "ca.pem") }

// Node makes the certificate of a node on loopback and returns its files.
func (a *Authority) Node(id string) (certFile, keyFile string, err error) {
	return a.Issue(id, certs.Identity{Cluster: a.Cluster, Role: certs.Node, Name: id}, "127.0.0.1", "localhost")
}

// Client makes the certificate of a client and returns its files.
func (a *Authority) Client(name string) (certFile, keyFile string, err error) {
	return a.Issue("client-"+name, certs.Identity{Cluster: a.Cluster, Role: certs.Client, Name: name})
}

// Issue makes a certificate in files of a name, or replaces them.
func (a *Authority) Issue(file string, who certs.Identity, hosts ...string) (certFile, keyFile string, err error) {
	pair, err := a.CA.Issue(certs.Request{Identity: who, Hosts: hosts, Lifetime: lifetime, Now: time.Now()})
	if err != nil {
		return "", "", fmt.Errorf("certificate of %v: %w", who, err)
	}
	certFile, keyFile = filepath.Join(a.Dir, file+".pem"), filepath.Join(a.Dir, file+"-key.pem")
	return certFile, keyFile, certs.WriteFiles(true,
		certs.File{Path: keyFile, Data: pair.Key, Mode: certs.ModeKey}, certs.File{Path: certFile, Data: pair.Cert, Mode: certs.ModeCert})
}
