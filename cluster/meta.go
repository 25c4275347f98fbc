package cluster

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxMeta is the most bytes that an encoded [Meta] may take: what one gossip
// message can carry beside everything else.
const MaxMeta = 512

// maxLevel is more than there will ever be feature levels.
const maxLevel = 1 << 30

// maxID is the longest node or cluster ID.
const maxID = 128

// Meta describes a node to its peers.
type Meta struct {
	NodeID    string // unique, 1 to 128 bytes; also the name under which gossip knows the node
	ClusterID string // empty until the node belongs to a cluster and knows its ID
	API       string // host:port of the gRPC API
	HTTP      string // host:port, empty if the node serves no HTTP
	Raft      string // host:port that Raft peers dial
	Version   string
	Zone      string
	Nonvoter  bool // the node asks to be a member that never votes
	Formed    bool // the node has Raft state: others may join through it, it never forms a cluster
	Leaving   bool // the node leaves for good; set by [Cluster.Leave]
	Expect    int  // how many fresh voters form a cluster; 0: this node only joins
	Level     int  // the feature level of the lock table that the node agrees to; 0: it does not say
	TLS       bool // the node takes TLS
	TLSOnly   bool // it takes nothing else

	// Intent and Promise are hashes of lists of founders (see [Hash]), empty
	// if there is none. An intent may change; a promise is kept for ever.
	Intent  string
	Promise string
}

// The layout: a version byte, a flag byte, two varints and then strings, each
// with its length before it. A later version 1 may add strings at the end,
// which this code skips; anything else gets another version byte. A host that
// HTTP or Raft share with the API is written once.
const metaVersion = 1

const (
	flagNonvoter = 1 << iota
	flagFormed
	flagLeaving
	flagHTTPHost // HTTP has the API's host; only its port is written
	flagRaftHost
	flagTLS
	flagTLSOnly
)

// encode returns the compact form, or an error that names what is wrong.
func (m Meta) encode() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	var flags byte
	for _, f := range []struct {
		set bool
		bit byte
	}{{m.Nonvoter, flagNonvoter}, {m.Formed, flagFormed}, {m.Leaving, flagLeaving}, {m.TLS, flagTLS}, {m.TLSOnly, flagTLSOnly}} {
		if f.set {
			flags |= f.bit
		}
	}
	http, raft := m.HTTP, m.Raft
	host, _ := splitPort(m.API)
	if h, port := splitPort(http); h == host && port != "" {
		flags, http = flags|flagHTTPHost, port
	}
	if h, port := splitPort(raft); h == host && port != "" {
		flags, raft = flags|flagRaftHost, port
	}
	intent, _ := hex.DecodeString(m.Intent) // both checked above
	promise, _ := hex.DecodeString(m.Promise)

	buf := make([]byte, 0, 256)
	buf = append(buf, metaVersion, flags)
	buf = binary.AppendUvarint(buf, uint64(m.Expect))
	buf = binary.AppendUvarint(buf, uint64(m.Level))
	for _, s := range []string{m.NodeID, m.ClusterID, m.API, http, raft, m.Version, m.Zone, string(intent), string(promise)} {
		buf = binary.AppendUvarint(buf, uint64(len(s)))
		buf = append(buf, s...)
	}
	if len(buf) > MaxMeta {
		return nil, fmt.Errorf("encode meta of node %q: is %d bytes long, must be at most %d: shorten addresses, version or zone", m.NodeID, len(buf), MaxMeta)
	}
	return buf, nil
}

// decodeMeta is the reverse of encode. It takes bytes from the network: any
// input gives a valid Meta or an error.
func decodeMeta(buf []byte) (Meta, error) {
	if len(buf) > MaxMeta {
		return Meta{}, fmt.Errorf("decode meta: is %d bytes long, must be at most %d", len(buf), MaxMeta)
	}
	if len(buf) < 2 {
		return Meta{}, errors.New("decode meta: too short")
	}
	if buf[0] != metaVersion {
		return Meta{}, fmt.Errorf("decode meta: version: is %d, must be %d", buf[0], metaVersion)
	}
	flags := buf[1]
	expect, n := binary.Uvarint(buf[2:])
	if n <= 0 || expect > maxExpect {
		return Meta{}, errors.New("decode meta: bad expect")
	}
	buf = buf[2+n:]
	level, n := binary.Uvarint(buf)
	if n <= 0 || level > maxLevel {
		return Meta{}, errors.New("decode meta: bad level")
	}
	buf = buf[n:]
	var field [9]string
	for i := range field {
		size, n := binary.Uvarint(buf)
		if n <= 0 || size > uint64(len(buf)-n) {
			return Meta{}, fmt.Errorf("decode meta: field %d is cut off", i)
		}
		field[i] = string(buf[n : n+int(size)])
		buf = buf[n+int(size):]
	}
	m := Meta{
		NodeID: field[0], ClusterID: field[1], API: field[2], HTTP: field[3], Raft: field[4],
		Version: field[5], Zone: field[6],
		Intent: hex.EncodeToString([]byte(field[7])), Promise: hex.EncodeToString([]byte(field[8])),
		Nonvoter: flags&flagNonvoter != 0, Formed: flags&flagFormed != 0, Leaving: flags&flagLeaving != 0,
		TLS: flags&flagTLS != 0, TLSOnly: flags&flagTLSOnly != 0,
		Expect: int(expect), Level: int(level),
	}
	host, _ := splitPort(m.API)
	if flags&flagHTTPHost != 0 {
		m.HTTP = host + m.HTTP
	}
	if flags&flagRaftHost != 0 {
		m.Raft = host + m.Raft
	}
	if err := m.check(); err != nil {
		return Meta{}, err
	}
	return m, nil
}

// check reports every fault of m, before it is sent and after it was received.
func (m Meta) check() error {
	var errs []error
	if m.NodeID == "" || len(m.NodeID) > maxID {
		errs = append(errs, fmt.Errorf("node ID: is %d bytes long, must be 1 to %d", len(m.NodeID), maxID))
	}
	if len(m.ClusterID) > maxID {
		errs = append(errs, fmt.Errorf("cluster ID: is %d bytes long, must be at most %d", len(m.ClusterID), maxID))
	}
	for _, f := range []struct{ name, text string }{
		{"node ID", m.NodeID}, {"cluster ID", m.ClusterID}, {"API address", m.API}, {"HTTP address", m.HTTP},
		{"Raft address", m.Raft}, {"version", m.Version}, {"zone", m.Zone},
	} {
		if !printable(f.text) {
			errs = append(errs, fmt.Errorf("%s: is %q, must be printable text", f.name, f.text))
		}
	}
	if m.Expect < 0 || m.Expect > maxExpect {
		errs = append(errs, fmt.Errorf("expect: is %d, must be 0 to %d", m.Expect, maxExpect))
	}
	for _, h := range []string{m.Intent, m.Promise} {
		if h == "" {
			continue
		}
		if b, err := hex.DecodeString(h); err != nil || len(b) != hashSize || h != strings.ToLower(h) {
			errs = append(errs, fmt.Errorf("intent or promise: is %q, must be a hash of founders", h))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("meta of node %q: %w", m.NodeID, errors.Join(errs...))
	}
	return nil
}

// printable keeps control characters out of logs and terminals.
func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// splitPort cuts s before its last colon; port keeps the colon.
func splitPort(s string) (host, port string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i:]
}
