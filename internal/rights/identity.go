package rights

import "strings"

// Identity is who calls: token:NAME, cert:NAME, node:ID, [Anonymous] or [Embedded].
type Identity string

const (
	// Anonymous is a caller who has proved nothing.
	Anonymous Identity = "anonymous"
	// Embedded is a client in the process of the node itself, which has all rights.
	Embedded Identity = "embedded"
	// Root is the name of the access token with which a cluster begins, and of its policy.
	Root = "root"
)

const tokenPrefix, certPrefix, nodePrefix = "token:", "cert:", "node:"

// Token returns the identity of callers with an access token of a name.
func Token(name string) Identity { return Identity(tokenPrefix + name) }

// Cert returns the identity of callers with a client certificate of a name.
func Cert(name string) Identity { return Identity(certPrefix + name) }

// Node returns the identity of a node of the cluster that has proved its ID.
func Node(id string) Identity { return Identity(nodePrefix + id) }

// Owns reports whether sessions and grants belong to the identity, and not to the address that
// they came from.
func (i Identity) Owns() bool {
	return strings.HasPrefix(string(i), tokenPrefix) || strings.HasPrefix(string(i), certPrefix)
}

// Known reports whether the caller has proved who he is.
func (i Identity) Known() bool { return i != Anonymous && i != "" }

// Name returns what ${identity} in a rule stands for. ok is false for an identity that has no
// name: such a rule is not for it.
func (i Identity) Name() (name string, ok bool) {
	_, name, ok = strings.Cut(string(i), ":")
	return name, ok && name != ""
}
