package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Role says what the holder of a certificate may be.
type Role string

// The roles. They are part of the URIs in certificates: never renamed.
const (
	Node   Role = "node"   // a member of the cluster, to other members and to clients
	Client Role = "client" // whoever uses locks
)

// scheme is that of the URIs that say whom a certificate names.
const scheme = "locknode"

// maxName is how many bytes the name of a node or client has at most, as [node.Config.ID].
const maxName = 64

// Identity is whom a certificate names.
type Identity struct {
	Cluster string // setting cluster_name; empty if the cluster has no name. Empty for clients from elsewhere
	Role    Role
	Name    string // a node's ID, or what a client is called
}

// String returns the URI that a certificate carries: locknode://CLUSTER/node/ID or
// locknode://CLUSTER/client/NAME. The name is percent-escaped.
func (i Identity) String() string { return i.uri().String() }

func (i Identity) uri() *url.URL {
	return &url.URL{
		Scheme: scheme, Host: i.Cluster, OmitHost: false,
		Path: "/" + string(i.Role) + "/" + i.Name, RawPath: "/" + string(i.Role) + "/" + url.PathEscape(i.Name),
	}
}

// clusterNames matches the names that [node.Config.ClusterName] may have. As they are hosts of
// URIs, their labels, between the dots, have 1 to 63 characters.
var clusterNames = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*$`)

// CheckCluster returns an error if no certificate can name a cluster of this name.
func CheckCluster(name string) error {
	if name != "" && (len(name) > 64 || !clusterNames.MatchString(name)) {
		return fmt.Errorf("cluster name: is %.80q, must be, to stand in certificates, 1 to 64 letters, digits, dashes and underscores, "+
			"in parts of 1 to 63 with a dot between them", name)
	}
	return nil
}

// Check returns an error if no certificate can carry this identity.
func (i Identity) Check() error {
	if err := CheckCluster(i.Cluster); err != nil {
		return err
	}
	if i.Role != Node && i.Role != Client {
		return fmt.Errorf("role: is %.80q, must be %q or %q", string(i.Role), Node, Client)
	}
	return checkName(i.Role, i.Name)
}

func checkName(role Role, name string) error {
	what := "name of the client"
	if role == Node {
		what = "node ID"
	}
	switch {
	case name == "":
		return fmt.Errorf("%s: is empty, must have 1 to %d bytes", what, maxName)
	case len(name) > maxName:
		return fmt.Errorf("%s: is %d bytes long, must have at most %d", what, len(name), maxName)
	case !printable(name):
		return fmt.Errorf("%s: is %q, must be printable text", what, name)
	}
	return nil
}

func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// errURI is what a URI of the scheme must be.
var errURI = errors.New("must be locknode://CLUSTER/node/ID or locknode://CLUSTER/client/NAME")

// parseURI is the reverse of [Identity.String]. It accepts nothing else that could be read in
// two ways: no user, port, query or fragment.
func parseURI(u *url.URL) (Identity, error) {
	bad := func(why error) (Identity, error) { return Identity{}, fmt.Errorf("URI %.200q: %w", u.String(), why) }
	if u.Opaque != "" || u.OmitHost || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.RawFragment != "" {
		return bad(errURI)
	}
	parts := strings.Split(u.EscapedPath(), "/")
	if len(parts) != 3 || parts[0] != "" {
		return bad(errURI)
	}
	name, err := url.PathUnescape(parts[2])
	if err != nil {
		return bad(errURI)
	}
	i := Identity{Cluster: u.Host, Role: Role(parts[1]), Name: name}
	if err := i.Check(); err != nil {
		return bad(err)
	}
	return i, nil
}

// ours reports whether a URI says whom a certificate names.
func ours(u *url.URL) bool { return strings.EqualFold(u.Scheme, scheme) }

// Identify returns whom a certificate names. It does not verify the certificate.
//
// One URI of the form of [Identity.String] counts. A certificate without such a URI, from a CA
// that knows nothing of Locknode, is that of a client, called by the common name, and never
// that of a node. Two such URIs, or one that is not valid, are an error: nobody may choose which
// one counts.
func Identify(cert *x509.Certificate) (Identity, error) {
	var own []*url.URL
	for _, u := range cert.URIs {
		if ours(u) {
			own = append(own, u)
		}
	}
	switch len(own) {
	case 0:
		name := cert.Subject.CommonName
		if checkName(Client, name) != nil {
			name = "" // nobody can be called that
		}
		return Identity{Role: Client, Name: name}, nil
	case 1:
		return parseURI(own[0])
	default:
		return Identity{}, fmt.Errorf("certificate: has %d URIs that begin with locknode:, must have one: %.200q and %.200q", len(own), own[0].String(), own[1].String())
	}
}

// IdentityOf returns whom the other end's certificate names, and false if it has sent none. It
// is for connections whose configuration is from this package: those are verified.
func IdentityOf(c tls.ConnectionState) (Identity, bool) {
	if !c.HandshakeComplete || len(c.PeerCertificates) == 0 {
		return Identity{}, false
	}
	i, err := Identify(c.PeerCertificates[0])
	return i, err == nil
}
