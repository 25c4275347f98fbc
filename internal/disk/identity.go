package disk

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	identityFile    = "node.json"
	identityVersion = 1
)

// Identity says which node a data directory belongs to. It is kept in node.json.
type Identity struct {
	Version   int    `json:"version"`
	NodeID    string `json:"node_id"`    // minted once
	ClusterID string `json:"cluster_id"` // empty until the node belongs to a cluster
	LogStore  string `json:"log_store"`  // "wal" or "boltdb"
	// HasState says that a log, a term or a vote was acknowledged: they must
	// exist from then on.
	HasState bool `json:"has_state"`
	HasLog   bool `json:"has_log"` // a log entry was acknowledged
	// Promise is with whom a fresh node has promised to form a cluster, node ID → address
	// of its Raft: cluster.Founders. Nil until it has promised.
	Promise map[string]string `json:"promise,omitempty"`
	// VotesFrom is a log index at which a node that joined was a member; it votes once
	// it knows its log to be committed up to there, and this is zero from then on. It
	// is zero for a founder. See votes.go.
	VotesFrom uint64 `json:"votes_from,omitempty"`
	// Reseeded says that [Reseed] has made this directory; the node's next start ends it.
	Reseeded bool `json:"reseeded,omitempty"`
	// Diverged says how the node's state was found to differ from that of a
	// majority. The directory is refused from then on. Empty: it was not.
	Diverged string `json:"diverged,omitempty"`
	// FeatureLevel is that of the lock table, and FeatureVersion the first version of
	// Locknode that knows it; zero for level 1.
	FeatureLevel   uint32    `json:"feature_level,omitempty"`
	FeatureVersion string    `json:"feature_version,omitempty"`
	Created        time.Time `json:"created"` // wall clock, for people
}

// unused reports whether the node has done nothing yet under its ID that others may
// rely on: no promise, no cluster, no state. It may have requested to join.
func (id Identity) unused() bool {
	return !id.HasState && !id.HasLog && len(id.Promise) == 0 && id.ClusterID == "" && id.VotesFrom == 0 && id.Diverged == ""
}

// identityOnDisk adds the checksum over the compact JSON of the identity.
type identityOnDisk struct {
	Identity json.RawMessage `json:"identity"`
	CRC32C   uint32          `json:"crc32c"`
}

func encodeIdentity(id Identity) ([]byte, error) {
	body, err := json.Marshal(id)
	if err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(identityOnDisk{body, crc32.Checksum(body, castagnoli)}, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

func decodeIdentity(b []byte) (Identity, error) {
	var d identityOnDisk
	if err := json.Unmarshal(b, &d); err != nil {
		return Identity{}, err
	}
	var id Identity
	if err := json.Unmarshal(d.Identity, &id); err != nil {
		return Identity{}, err
	}
	// The body is indented on disk; the checksum is over its compact form.
	body, err := json.Marshal(d.Identity)
	if err != nil {
		return Identity{}, err
	}
	if got := crc32.Checksum(body, castagnoli); got != d.CRC32C {
		return Identity{}, fmt.Errorf("checksum is %08x, stored was %08x", got, d.CRC32C)
	}
	if id.Version != identityVersion {
		return Identity{}, fmt.Errorf("format version %d is not known to this program (it knows %d)", id.Version, identityVersion)
	}
	if id.NodeID == "" {
		return Identity{}, errors.New("node ID is empty")
	}
	return id, nil
}

// readIdentity returns fs.ErrNotExist for a new directory.
func readIdentity(dir string) (Identity, error) {
	path := filepath.Join(dir, identityFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return Identity{}, err
	}
	id, err := decodeIdentity(b)
	if err != nil {
		return Identity{}, fmt.Errorf("read %s: %w", path, err)
	}
	return id, nil
}

func writeIdentity(dir string, id Identity) error {
	b, err := encodeIdentity(id)
	if err != nil {
		return err
	}
	return writeFileAtomic(filepath.Join(dir, identityFile), b)
}

// writeFileAtomic replaces the file or leaves the old one: written aside,
// fsync'd, renamed, directory fsync'd. What a crash leaves aside is overwritten
// by the next call.
func writeFileAtomic(path string, b []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// newNodeID has 80 random bits, in lower case.
func newNodeID() string {
	var b [10]byte
	rand.Read(b[:])
	return "n-" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
