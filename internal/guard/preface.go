package guard

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// The preface is one line in each direction, the client's first:
//
//	locknode raft 1 <cluster ID or "-">
//
// It keeps strangers out of the msgpack decoder, tells people who connected to
// the wrong port what they met, and keeps two clusters apart when one gets an
// address that was the other's.
const (
	prefaceStart = "locknode raft 1 "
	prefaceMax   = 128
	noCluster    = "-"
)

// errStranger says that the other end does not speak our protocol.
var errStranger = errors.New("not a locknode raft connection")

// clientPreface names our cluster and expects the peer to answer in kind.
func clientPreface(c net.Conn, cluster string) error {
	if _, err := c.Write([]byte(prefaceLine(cluster))); err != nil {
		return err
	}
	theirs, err := readPreface(c)
	if errors.Is(err, errStranger) {
		return fmt.Errorf("the other end is not a locknode raft port (is it the API, HTTP or gossip port?): %w", err)
	}
	if err != nil {
		return err
	}
	return sameCluster(cluster, theirs)
}

// serverPreface expects a peer's line and answers it. A stranger gets a
// sentence.
func serverPreface(c net.Conn, cluster string) error {
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
	if _, err := c.Write([]byte(prefaceLine(cluster))); err != nil {
		return err
	}
	return sameCluster(cluster, theirs)
}

// drain takes what a stranger still sends: closing with unread bytes would make
// the kernel reset the connection and drop our sentence.
func drain(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	_, _ = io.CopyN(io.Discard, c, 64<<10)
}

func prefaceLine(cluster string) string {
	if cluster == "" {
		cluster = noCluster
	}
	return prefaceStart + cluster + "\n"
}

func sameCluster(ours, theirs string) error {
	if ours != "" && theirs != noCluster && ours != theirs {
		return fmt.Errorf("it belongs to cluster %q, this node to %q", theirs, ours)
	}
	return nil
}

// readPreface reads one line, byte by byte because what follows is not ours, and
// stops at the first byte that cannot be right. It returns the cluster ID.
func readPreface(c net.Conn) (string, error) {
	var b [1]byte
	line := make([]byte, 0, prefaceMax)
	for {
		if _, err := c.Read(b[:]); err != nil {
			return "", fmt.Errorf("read preface: %w", err)
		}
		if b[0] == '\n' && len(line) > len(prefaceStart) {
			return string(line[len(prefaceStart):]), nil
		}
		line = append(line, b[0])
		n := min(len(line), len(prefaceStart))
		if string(line[:n]) != prefaceStart[:n] || len(line) == prefaceMax {
			return "", fmt.Errorf("%w: it began with %q%s", errStranger, line, strangerHint(line))
		}
	}
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
