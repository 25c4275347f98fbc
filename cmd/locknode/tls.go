package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/locknode/locknode/internal/certs"
)

// The files of a CA in its directory.
const (
	caCertFile = "ca.crt"
	caKeyFile  = "ca.key"
)

const aDay = 24 * time.Hour

func (a *app) tlsCommand() *cobra.Command {
	c := a.tlsGroup("tls", "make and inspect certificates",
		`Nodes that speak TLS need a certificate each, and the certificate of the CA that has signed
them all. These commands make both. They work on files alone: no node has to run, and a node
that runs notices new files by itself within a minute.

Certificates from elsewhere work as well; docs/tls.md says which names and usages they need.`,
		`  locknode tls ca create --out pki
  locknode tls cert create --ca pki --out pki --node n1 --host n1.example.com,10.0.0.1
  locknode tls cert create --ca pki --out pki --client billing
  locknode tls inspect pki/ca.crt pki/n1.crt pki/n1.key`)
	c.GroupID = groupNode
	ca := a.tlsGroup("ca", "make a certificate authority (CA)",
		`"tls ca create" makes a CA, which then signs the certificates of nodes and clients.`,
		`  locknode tls ca create --out pki`)
	ca.AddCommand(a.caCreateCommand())
	cert := a.tlsGroup("cert", "make the certificate of a node or client",
		`"tls cert create" makes a key and its certificate, signed by a CA.`,
		`  locknode tls cert create --ca pki --out pki --node n1 --host n1.example.com`)
	cert.AddCommand(a.certCreateCommand())
	c.AddCommand(ca, cert, a.tlsInspectCommand())
	return c
}

// tlsGroup is a command that only has others.
func (a *app) tlsGroup(name, short, long, example string) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Long: long, Example: example,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return hinted(usageError("unknown command %q of %s", args[0], strings.TrimPrefix(c.CommandPath(), "locknode ")), "see `%s --help`", c.CommandPath())
		},
	}
}

// newCert has the flags of the commands that make a certificate.
type newCert struct {
	out   string
	days  int
	force bool
}

func (n *newCert) flags(c *cobra.Command, days int) {
	c.Flags().StringVar(&n.out, "out", ".", "directory for the files; it is made if it does not exist")
	c.Flags().IntVar(&n.days, "days", days, "how many days the certificate is valid")
	c.Flags().BoolVar(&n.force, "force", false, "replace files that exist")
}

func (n *newCert) lifetime() (time.Duration, error) {
	const most = 36500
	if n.days < 1 || n.days > most {
		return 0, usageError("--days: is %d, must be 1 to %d", n.days, most)
	}
	return time.Duration(n.days) * aDay, nil
}

// write writes a certificate and its key.
func (n *newCert) write(p certs.Pair, cert, key string) error {
	err := certs.WriteFiles(n.force, certs.File{Path: key, Data: p.Key, Mode: certs.ModeKey}, certs.File{Path: cert, Data: p.Cert, Mode: certs.ModeCert})
	if errors.Is(err, fs.ErrExist) {
		return hinted(err, "nothing was changed: give another directory with --out, or replace the files with --force")
	}
	return err
}

// madeJSON is printed by the commands that make a certificate with -o json.
type madeJSON struct {
	CertFile string   `json:"cert_file"`
	KeyFile  string   `json:"key_file"`
	Subject  string   `json:"subject"`
	URI      string   `json:"uri,omitempty"`
	Hosts    []string `json:"hosts,omitempty"`
	NotAfter string   `json:"not_after"`
}

func (a *app) caCreateCommand() *cobra.Command {
	var n newCert
	var name string
	c := &cobra.Command{
		Use:   "create",
		Short: "make a CA and its private key",
		Long: `Create makes ca.crt and ca.key in a directory. The certificate ca.crt goes to every node and
client: it is tls.ca_file, and --tls-ca. The key ca.key signs certificates: whoever can read
it can make a node. Keep it where certificates are made, and not on the nodes.

To replace a CA that ends, make a new one in another directory, and let nodes trust both for
a while: docs/tls.md says how. Existing files are left alone, unless --force is given.`,
		Example: `  locknode tls ca create --out pki
  locknode tls ca create --out pki-2027 --name "Locknode CA 2027" --days 1825`,
		Args: arguments(0, 0, ""),
	}
	n.flags(c, 3650)
	c.Flags().StringVar(&name, "name", "", "name of the CA, for people (default \"Locknode CA\" and the time)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := notEmpty(c, "name", "out"); err != nil {
			return err
		}
		now := time.Now()
		if name == "" {
			name = "Locknode CA " + now.UTC().Format("2006-01-02 15:04")
		}
		return a.caCreate(n, name, now)
	}
	return c
}

func (a *app) caCreate(n newCert, name string, now time.Time) error {
	lifetime, err := n.lifetime()
	if err != nil {
		return err
	}
	ca, err := certs.NewCA(name, lifetime, now)
	if err != nil {
		return usageError("%w", err)
	}
	p, err := ca.Pair()
	if err != nil {
		return err
	}
	cert, key := filepath.Join(n.out, caCertFile), filepath.Join(n.out, caKeyFile)
	if err := n.write(p, cert, key); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(madeJSON{CertFile: cert, KeyFile: key, Subject: name, NotAfter: rfc3339(ca.Cert.NotAfter)})
	}
	return a.printf(`made %s: the CA %q, valid until %s. It goes to every node and client
made %s: its private key. Whoever can read it can make nodes and clients; keep it off the nodes
next: locknode tls cert create --ca %s --out %s --node ID --host NAME,ADDRESS
`, cert, name, ca.Cert.NotAfter.UTC().Format(time.DateOnly), key, quoteName(n.out), quoteName(n.out))
}

// certRequest has the flags of `tls cert create`.
type certRequest struct {
	newCert
	ca, cluster, node, client string
	hosts                     []string
}

func (a *app) certCreateCommand() *cobra.Command {
	var r certRequest
	c := &cobra.Command{
		Use:   "create (--node ID --host HOST… | --client NAME)",
		Short: "make the certificate of a node or client, and its private key",
		Long: `Create makes NAME.crt and NAME.key in a directory, signed by the CA whose files "tls ca create"
has made. NAME is the node's ID or the client's name.

A node's certificate names its ID, its cluster (setting cluster_name, if the cluster has a
name) and the hosts at which clients reach it: names and IP addresses, as they stand in the
clients' --endpoints, and localhost or 127.0.0.1 if there are clients on the same machine.
Nodes know each other by cluster and ID; for them the hosts do not matter.

A client's certificate never passes as that of a node. Its name is for people: nodes compare
which CA has signed it, and the cluster if it names one.

Nodes and clients refuse a certificate after its last day. A node warns 30 and 7 days before.
Make a new one with --force in time: a running node uses it within a minute.`,
		Example: `  locknode tls cert create --ca pki --out pki --node n1 --host n1.example.com,10.0.0.1
  locknode tls cert create --ca pki --out pki --cluster prod --node n1 --host n1.example.com
  locknode tls cert create --ca pki --out pki --client billing --days 90
  locknode tls cert create --ca pki --out pki --node n1 --host n1.example.com --force`,
		Args: arguments(0, 0, ""),
	}
	r.flags(c, 365)
	c.Flags().StringVar(&r.ca, "ca", ".", "directory with ca.crt and ca.key")
	c.Flags().StringVar(&r.cluster, "cluster", "", "cluster_name of the nodes, if it is set (LOCKNODE_CLUSTER_NAME)")
	c.Flags().StringVar(&r.node, "node", "", "ID of the node (setting node_id)")
	c.Flags().StringVar(&r.client, "client", "", "name of the client")
	c.Flags().StringSliceVar(&r.hosts, "host", nil, "names and IP addresses at which clients reach the node")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := errors.Join(notEmpty(c, "ca", "out", "node", "client", "host", "cluster"), apart(c, "node", "client"), apart(c, "client", "host")); err != nil {
			return err
		}
		if v, ok := a.lookup("LOCKNODE_CLUSTER_NAME"); ok && !c.Flags().Changed("cluster") {
			r.cluster = v
		}
		switch {
		case r.node == "" && r.client == "":
			return hinted(usageError("--node, --client: one of them is missing"), "see `%s --help`", c.CommandPath())
		case r.node != "" && len(r.hosts) == 0:
			return hinted(usageError("--host: is missing, must be the names and IP addresses at which clients reach node %s", quoteName(r.node)),
				"they are compared with what stands in the clients' --endpoints; repeat --host, or put commas between them")
		}
		return a.certCreate(r, time.Now())
	}
	return c
}

// identity is whom the certificate shall name.
func (r certRequest) identity() certs.Identity {
	if r.node != "" {
		return certs.Identity{Cluster: r.cluster, Role: certs.Node, Name: r.node}
	}
	return certs.Identity{Cluster: r.cluster, Role: certs.Client, Name: r.client}
}

func (a *app) certCreate(r certRequest, now time.Time) error {
	lifetime, err := r.lifetime()
	if err != nil {
		return err
	}
	id := r.identity()
	if err := id.Check(); err != nil {
		return usageError("%w", err)
	}
	caCert, caKey := filepath.Join(r.ca, caCertFile), filepath.Join(r.ca, caKeyFile)
	ca, err := certs.OpenCA(caCert, caKey, now)
	if errors.Is(err, fs.ErrNotExist) {
		return hinted(err, "--ca must be the directory of a CA: `locknode tls ca create --out DIR` makes one")
	}
	if err != nil {
		return err
	}
	request := certs.Request{Identity: id, Hosts: r.hosts, Lifetime: lifetime, Now: now}
	if err := request.Check(ca); err != nil {
		return usageError("%w", err)
	}
	base := url.PathEscape(id.Name) // an ID may have a slash, or be ".."
	cert, key := filepath.Join(r.out, base+".crt"), filepath.Join(r.out, base+".key")
	if sameFile(cert, caCert) || sameFile(key, caKey) {
		return usageError("--out: is the directory of the CA, whose files are called as those of %s %s would be: give another one", id.Role, quoteName(id.Name))
	}
	p, err := ca.Issue(request)
	if err != nil {
		return err
	}
	if err := r.write(p, cert, key); err != nil {
		return err
	}
	return a.printMade(id, request, madeJSON{
		CertFile: cert, KeyFile: key, Subject: id.Name, URI: id.String(), Hosts: r.hosts, NotAfter: rfc3339(now.Add(lifetime)),
	}, caCert)
}

func (a *app) printMade(id certs.Identity, r certs.Request, made madeJSON, caCert string) error {
	if a.json {
		return a.printJSON(made)
	}
	of, at := "", ""
	if id.Cluster != "" {
		of = " of cluster " + quoteName(id.Cluster)
	}
	if len(r.Hosts) > 0 {
		at = ", at " + strings.Join(r.Hosts, ", ")
	}
	text := fmt.Sprintf("made %s: %s %s%s%s, valid until %s\nmade %s: its private key\n", made.CertFile, id.Role, quoteName(id.Name), of, at,
		r.Now.Add(r.Lifetime).UTC().Format(time.DateOnly), made.KeyFile)
	if id.Role == certs.Node {
		text += fmt.Sprintf("settings of the node: tls.ca_file %s, tls.cert_file %s, tls.key_file %s\n", caCert, made.CertFile, made.KeyFile)
	} else {
		text += fmt.Sprintf("flags of the client: --tls-ca %s --tls-cert %s --tls-key %s\n", caCert, made.CertFile, made.KeyFile)
	}
	return a.printf("%s", text)
}

// sameFile reports whether both paths are one file that exists.
func sameFile(one, other string) bool {
	a, errA := os.Stat(one)
	b, errB := os.Stat(other)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

func rfc3339(t time.Time) string { return t.UTC().Truncate(time.Second).Format(time.RFC3339) }
