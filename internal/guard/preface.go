package guard

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// The preface is one line in each direction, the client's first:
//
//	locknode raft 1 <cluster ID or "-"> <founders or "-">
//
// It keeps strangers out of the msgpack decoder, tells people who connected to
// the wrong port what they met, and keeps two clusters apart when one gets an
// address that was the other's.
const (
	prefaceStart = "locknode raft 1 "
	prefaceMax   = 256
	unknown      = "-"
)

// ClusterIdentity says which cluster a node belongs to.
type ClusterIdentity struct {
	ID string // empty while the node does not know it
	// Founders stands for those with whom the node has promised to form the cluster:
	// they know each other by it until the cluster has an ID. Empty: it has joined.
	Founders string
}

// String is for people.
func (c ClusterIdentity) String() string {
	switch {
	case c.ID != "":
		return fmt.Sprintf("cluster %q", c.ID)
	case c.Founders != "":
		return fmt.Sprintf("a cluster without an ID yet, of founders %s", c.Founders)
	}
	return "no cluster"
}

// same reports whether both are one cluster. A node that knows of no cluster is taken
// for a member of none: a leader elsewhere may look for the one that had its address.
func (c ClusterIdentity) same(other ClusterIdentity) bool {
	if c.ID != "" && other.ID != "" {
		return c.ID == other.ID
	}
	return c.Founders == other.Founders && (c.Founders != "" || c.ID == other.ID)
}

// errStranger says that the other end does not speak our protocol.
var errStranger = errors.New("not a locknode raft connection")

// clientPreface names our cluster and expects the peer to answer in kind.
func clientPreface(c net.Conn, ours ClusterIdentity) error {
	if _, err := c.Write([]byte(prefaceLine(ours))); err != nil {
		return err
	}
	theirs, err := readPreface(c)
	if errors.Is(err, errStranger) {
		return fmt.Errorf("the other end is not a locknode raft port (is it the API, HTTP or gossip port?): %w", err)
	}
	if err != nil {
		return err
	}
	return sameCluster(ours, theirs)
}

// serverPreface expects a peer's line and answers it. A stranger gets a
// sentence.
func serverPreface(c net.Conn, ours ClusterIdentity) error {
	theirs, err := readPreface(c)
	if errors.Is(err, errStranger) {
		// Whoever speaks HTTP can show this to a person; the rest may ignore it.
		const say = "this is the raft port of a locknode; clients use the API port or the HTTP port\n"
		_, _ = fmt.Fprintf(c, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(say), say)
		drain(c)
		return err
	}
	if err != nil {
		return err
	}
	if _, err := c.Write([]byte(prefaceLine(ours))); err != nil {
		return err
	}
	return sameCluster(ours, theirs)
}

// drain takes what a stranger still sends: closing with unread bytes would make
// the kernel reset the connection and drop our sentence.
func drain(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	_, _ = io.CopyN(io.Discard, c, 64<<10)
}

func prefaceLine(c ClusterIdentity) string {
	return prefaceStart + cmp.Or(c.ID, unknown) + " " + cmp.Or(c.Founders, unknown) + "\n"
}

func sameCluster(ours, theirs ClusterIdentity) error {
	if !ours.same(theirs) {
		return fmt.Errorf("it belongs to %v, this node to %v", theirs, ours)
	}
	return nil
}

// readPreface reads one line, byte by byte because what follows is not ours, and
// stops at the first byte that cannot be right.
func readPreface(c net.Conn) (ClusterIdentity, error) {
	var b [1]byte
	line := make([]byte, 0, prefaceMax)
	for {
		if _, err := c.Read(b[:]); err != nil {
			return ClusterIdentity{}, fmt.Errorf("read preface: %w", err)
		}
		if b[0] == '\n' && len(line) > len(prefaceStart) {
			return parseIdentity(line)
		}
		line = append(line, b[0])
		n := min(len(line), len(prefaceStart))
		if string(line[:n]) != prefaceStart[:n] || len(line) == prefaceMax {
			return ClusterIdentity{}, fmt.Errorf("%w: it began with %q%s", errStranger, line, strangerHint(line))
		}
	}
}

func parseIdentity(line []byte) (c ClusterIdentity, err error) {
	id, founders, ok := strings.Cut(string(line[len(prefaceStart):]), " ")
	if !ok || id == "" || founders == "" {
		return c, fmt.Errorf("%w: it began with %q", errStranger, line)
	}
	if id != unknown {
		c.ID = id
	}
	if founders != unknown {
		c.Founders = founders
	}
	return c, nil
}

func strangerHint(line []byte) string {
	switch {
	case line[0] == 0x16:
		return " (TLS, but this port is plain)"
	case strings.Contains("GHPDCOT", string(line[:1])):
		return " (HTTP or gRPC?)"
	}
	return ""
}
