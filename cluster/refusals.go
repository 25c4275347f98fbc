package cluster

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Why two nodes do not gossip, in words that say what to check. memberlist reports the
// causes only as texts, and some not at all. So this package looks at both ends of a
// connection itself: at the error of the dial, and at the first bytes of the other end.
var (
	errEncrypted = errors.New("it encrypts gossip, and this node has no gossip_key")
	errPlaintext = errors.New("its gossip is in plain text, and this node has a gossip_key")
	errOtherKey  = errors.New("it has another gossip_key than this node")
	errNoGossip  = errors.New("what it sends is not the gossip of a node")
	errHTTP      = errors.New("it speaks HTTP or gRPC, which is not gossip")
	errTLS       = errors.New("it asks for gossip keys in TLS, and tls.mode of this node is off")
	errRaft      = errors.New("it speaks Raft, which is not gossip")
	errHungUp    = errors.New("it closed the connection without a word: it is not the gossip port of a node, or has another gossip_key or cluster_name than this one")
	errSilent    = errors.New("it takes connections but does not answer: is the process stopped, or is this not the gossip port of a node?")
	errRefused   = errors.New("connection refused: nothing listens there; is the node started, and is the port right?")
	errNoAnswer  = errors.New("it does not answer: no connection came about")
)

// lasting are the causes that stay until an operator changes something.
var lasting = []error{errEncrypted, errPlaintext, errOtherKey, errNoGossip, errHTTP, errRaft, errTLS, errHungUp}

// checkStart returns why memberlist must not get a stream whose first message has this
// type, or nil.
func checkStart(t byte, keyed bool) error {
	switch {
	case strings.ContainsRune("GPHDCOT", rune(t)): // the methods, HTTP/2's PRI, and answers
		return errHTTP
	case t == 'l':
		return errRaft
	case t == recordHandshake:
		return errTLS
	case t > msgLast:
		return errNoGossip
	case keyed:
		return nil // plain text is refused by memberlist, which answers it
	}
	return checkType(t)
}

// wrongPort is the answer to HTTP requests, for the person who sent one.
const wrongPort = "this is the gossip port of a locknode; clients use the API port or the HTTP port\n"

func answerHTTP(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(200 * time.Millisecond))
	_, _ = fmt.Fprintf(c, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(wrongPort), wrongPort)
	_, _ = io.CopyN(io.Discard, c, 64<<10) // unread bytes would make the kernel drop the answer
}

// errTold ends memberlist's use of a connection whose fault was logged already.
var errTold = errors.New("refused by this node")

// troubles remembers why the last dials of addresses failed.
type troubles struct {
	mu   sync.Mutex
	last map[string]error // address → why; no more than are dialled in a round
}

func (t *troubles) note(addr string, why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil || len(t.last) >= maxCauses {
		t.last = make(map[string]error)
	}
	t.last[addr] = why
}

func (t *troubles) begin(addr string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.last, addr)
}

// of returns why an exchange with the address failed: what was seen of its connection, or
// else memberlist's error.
func (t *troubles) of(addr string, err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if why := t.last[addr]; why != nil {
		return why
	}
	if why := translate(err.Error()); why != nil {
		return why
	}
	return err
}

// translate turns memberlist's error texts into errors of this package, where only
// memberlist can see the cause. A test with real nodes fails when the texts change.
func translate(text string) error {
	for part, why := range map[string]error{
		"no installed keys could decrypt":                            errOtherKey,
		"encryption is configured but remote state is not encrypted": errPlaintext,
		"remote state is encrypted and encryption is not configured": errEncrypted,
		"unsupported encryption version":                             errPlaintext,
		"payload is too small to decrypt":                            errPlaintext,
		"nvalid msgType":                                             errNoGossip,
		"sg type (":                                                  errNoGossip,
		"essage type (":                                              errNoGossip,
	} {
		if strings.Contains(strings.ToLower(text), strings.ToLower(part)) {
			return why
		}
	}
	return nil
}

// dialTrouble returns why a dial failed.
func dialTrouble(err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return errRefused
	case errors.As(err, &timeout) && timeout.Timeout():
		return errNoAnswer
	}
	return fmt.Errorf("no connection came about: %w", err)
}

// readTrouble returns why nothing was read from a dialled connection.
func readTrouble(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return errHungUp
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSilent
	}
	return nil
}
