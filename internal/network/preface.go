package network

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The preface is one line in each direction, the client's first:
//
//	locknode raft 3 hello <cluster ID> <founders> <cluster name> <from> <to> <API address> <Raft address> <nonce>
//
// from is the sending member, whose addresses follow, and to the member it is meant for. "-"
// stands for what is empty or not known; special characters are escaped as in a URL.
//
// The preface keeps strangers out of the msgpack decoder, tells people who connected to the
// wrong port what they have found, and keeps two clusters apart when one gets an address
// that was the other's. Cluster ID, founders and name are hashed with the nonce, which is
// random: so the two ends find out whether they are of one cluster, and a stranger does not
// learn which.
//
// It also keeps two members of one cluster apart. Addresses change hands: containers get the
// address of one that has ended. Raft takes an answer as the answer of the member whose
// address it came from. Without the names, a node that has a dead member's address would be
// asked for its own vote and for the dead member's, also by itself, and two leaders could be
// elected in one term.
//
// The server answers with such a line, or with one that says why it refuses:
//
//	locknode raft 3 no <reason>
//
// Before that it asks the member that the line names, see callback.go, on another
// connection, whose preface has "ask" in place of "hello" and the same nonce.
// The member answers "yes" or "no".
const (
	prefaceStart = "locknode raft 3 "
	prefaceMax   = 2048
	unknown      = "-"
	maxReason    = 512 // bytes of a reason that are sent
)

// The kinds of line.
const (
	sayHello = "hello"
	sayAsk   = "ask"
	sayYes   = "yes"
	sayNo    = "no"
)

// ClusterIdentity says which cluster a node belongs to.
type ClusterIdentity struct {
	ID string // empty while the node does not know it
	// Founders is the hash of the founders that the node has promised. Founders compare
	// it until the cluster has an ID. Empty: the node has joined.
	Founders string
	// Name is the cluster's name in the configuration; it may be empty. While one of two
	// nodes does not know the ID their names have to be equal. After that only the ID
	// counts, so that the name can be changed on one node after the other.
	Name string
}

// String is for people.
func (c ClusterIdentity) String() string {
	if c.Name != "" {
		unnamed := c
		unnamed.Name = ""
		return fmt.Sprintf("%v named %q", unnamed, c.Name)
	}
	switch {
	case c.ID != "":
		return fmt.Sprintf("cluster %q", c.ID)
	case c.Founders != "":
		return fmt.Sprintf("a cluster without an ID yet, of founders %s", c.Founders)
	}
	return "no cluster"
}

// same reports whether both are one cluster. A node that knows no cluster belongs to none:
// the leader of another cluster may look for the node that had its address.
func (c ClusterIdentity) same(other ClusterIdentity) bool {
	if c.ID != "" && other.ID != "" {
		return c.ID == other.ID
	}
	if c.Name != other.Name {
		return false
	}
	return c.Founders == other.Founders && (c.Founders != "" || c.ID == other.ID)
}

// hashed returns the identity as it is sent: for two identities hashed with one nonce, same
// returns what it returns for the plain ones.
func (c ClusterIdentity) hashed(nonce string) ClusterIdentity {
	hash := func(what, s string) string {
		if s == "" {
			return ""
		}
		sum := sha256.Sum256([]byte(what + " " + nonce + " " + s))
		return hex.EncodeToString(sum[:16])
	}
	return ClusterIdentity{hash("id", c.ID), hash("founders", c.Founders), hash("name", c.Name)}
}

// errStranger says that the other end does not speak our protocol.
var errStranger = errors.New("not a locknode raft connection")

// preface is what one end sends about itself and about whom it means.
type preface struct {
	say      string          // kind of line
	cluster  ClusterIdentity // hashed with the nonce
	from, to string          // node IDs
	api      string          // the sender's API address; may be empty
	raft     string          // the sender's Raft address; may be empty
	nonce    string
	reason   string // of a no
}

// newNonce has 128 random bits.
func newNonce() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// clientPreface sends the dialler's preface and returns the peer's. own is the dialler's
// cluster.
func clientPreface(c net.Conn, ours preface, own ClusterIdentity) (theirs preface, err error) {
	if _, err := c.Write([]byte(ours.line())); err != nil {
		return theirs, err
	}
	theirs, err = readPreface(c)
	switch {
	case errors.Is(err, errStranger):
		return theirs, fmt.Errorf("the other end is not a locknode raft port (is it the API, HTTP or gossip port, or a node of another version?): %w", err)
	case err != nil:
		return theirs, err
	case theirs.say == sayNo:
		return theirs, fmt.Errorf("it refuses: %.*s", maxReason, theirs.reason)
	case theirs.say != sayHello:
		return theirs, fmt.Errorf("%w: it says %q", errStranger, theirs.say)
	case !own.hashed(theirs.nonce).same(theirs.cluster):
		return theirs, otherCluster(own)
	case theirs.from != ours.to:
		return theirs, fmt.Errorf("the node there is %q, not %q", theirs.from, ours.to)
	}
	return theirs, nil
}

// otherCluster is the refusal of a node of another cluster. Which cluster that is is not
// known.
func otherCluster(own ClusterIdentity) error {
	return refusal{"another cluster", fmt.Sprintf("it does not belong to this node's cluster, which is %v", own)}
}

// tellStranger answers a connection that does not speak this protocol. An HTTP client can
// show the answer to a person; others may ignore it.
func tellStranger(c net.Conn) {
	const say = "this is the raft port of a locknode; clients use the API port or the HTTP port\n"
	_, _ = fmt.Fprintf(c, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(say), say)
	drain(c)
}

// meant returns why a preface is not for this node, or nil. The first of these answers tells
// a stranger nothing; only members of the cluster get the others.
func (p preface) meant(self string, own ClusterIdentity) (tell string, err error) {
	switch {
	case !own.hashed(p.nonce).same(p.cluster):
		return "this node does not belong to that cluster", otherCluster(own)
	case p.to != self:
		return fmt.Sprintf("the node there is %q, not %q", self, p.to),
			refusal{"it looks for another node", fmt.Sprintf("it looks for node %q, this is %q", p.to, self)}
	case p.from == self:
		return fmt.Sprintf("this node is %q, too: two nodes must not have one ID", self),
			refusal{"it has this node's ID", fmt.Sprintf("it says that it is %q, which is this node: two nodes must not have one ID", self)}
	}
	return "", nil
}

// drain reads what a stranger still sends: closing with unread bytes would make the kernel
// reset the connection and drop our answer.
func drain(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	_, _ = io.CopyN(io.Discard, c, 64<<10)
}

func (p preface) line() string {
	fields := []string{p.reason}
	switch p.say {
	case sayYes:
		fields = nil
	case sayHello, sayAsk:
		fields = []string{p.cluster.ID, p.cluster.Founders, p.cluster.Name, p.from, p.to, p.api, p.raft, p.nonce}
	}
	for i, f := range fields {
		switch fields[i] = url.PathEscape(f); fields[i] {
		case "":
			fields[i] = unknown
		case unknown:
			fields[i] = "%2D"
		}
	}
	return prefaceStart + strings.Join(append([]string{p.say}, fields...), " ") + "\n"
}

// readPreface reads one line, byte by byte because what follows belongs to others, and stops
// at the first byte that cannot be part of one.
func readPreface(c net.Conn) (preface, error) {
	var b [1]byte
	line := make([]byte, 0, 256)
	for {
		if _, err := c.Read(b[:]); err != nil {
			return preface{}, fmt.Errorf("read preface: %w", err)
		}
		line = append(line, b[0])
		n := min(len(line), len(prefaceStart))
		if string(line[:n]) != prefaceStart[:n] || len(line) == prefaceMax {
			return preface{}, fmt.Errorf("%w: it began with %.64q%s", errStranger, line, strangerHint(line))
		}
		if b[0] == '\n' {
			return parsePreface(string(line))
		}
	}
}

// parsePreface accepts exactly what line writes.
func parsePreface(line string) (p preface, err error) {
	fields := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, prefaceStart), "\n"), " ")
	p.say = fields[0]
	var into []*string
	switch p.say {
	case sayHello, sayAsk:
		into = []*string{&p.cluster.ID, &p.cluster.Founders, &p.cluster.Name, &p.from, &p.to, &p.api, &p.raft, &p.nonce}
	case sayNo:
		into = []*string{&p.reason}
	}
	if len(fields)-1 == len(into) && slices.Contains([]string{sayHello, sayAsk, sayYes, sayNo}, p.say) {
		for i, f := range fields[1:] {
			if f == unknown {
				continue
			}
			if *into[i], err = url.PathUnescape(f); err != nil {
				break
			}
		}
		greets := p.say == sayHello || p.say == sayAsk
		if p.line() == line && (!greets || p.from != "" && p.to != "" && p.nonce != "") {
			return p, nil
		}
	}
	return preface{}, fmt.Errorf("%w: it began with %.64q", errStranger, line)
}

func strangerHint(line []byte) string {
	switch {
	case line[0] == 0x16:
		return " (TLS, and tls.mode is off here)"
	case strings.Contains("GHPDCOT", string(line[:1])):
		return " (HTTP or gRPC?)"
	}
	return ""
}
