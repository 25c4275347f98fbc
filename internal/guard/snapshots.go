package guard

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"
)

const (
	snapshotDir = "snapshots"         // raft.FileSnapshotStore's
	damagedDir  = "damaged-snapshots" // what was moved aside
	metaFile    = "meta.json"
	checkFile   = "check"
	tmpSuffix   = ".tmp"
)

var crc64ECMA = crc64.MakeTable(crc64.ECMA)

// checkedSnapshots is a raft.FileSnapshotStore whose metadata are checked too:
// beside meta.json lies a file with a checksum over what it says. Without it,
// one flipped byte in the index makes raft panic at start. The payload has
// raft's own checksum.
type checkedSnapshots struct {
	inner  *raft.FileSnapshotStore
	dir    string // with the snapshots
	logger *slog.Logger
}

// snapshotMeta is the content of raft's meta.json.
type snapshotMeta struct {
	raft.SnapshotMeta
	CRC []byte
}

// sum is over the canonical JSON of the metadata.
func (m snapshotMeta) sum() (uint32, error) {
	b, err := json.Marshal(m)
	return crc32.Checksum(b, castagnoli), err
}

// openSnapshots opens the store and moves damaged snapshots aside. It returns
// what it moved, for the message of whoever misses it.
func openSnapshots(o StoreOptions) (*checkedSnapshots, []error, error) {
	inner, err := raft.NewFileSnapshotStoreWithLogger(o.Dir, retainSnapshots, RaftLogger(o.Logger))
	if err != nil {
		return nil, nil, err
	}
	s := &checkedSnapshots{inner: inner, dir: filepath.Join(o.Dir, snapshotDir), logger: o.Logger}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, err
	}
	var moved []error
	for _, e := range entries {
		switch {
		case !e.IsDir():
		case strings.HasSuffix(e.Name(), tmpSuffix): // a crash ended it
			if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
				return nil, nil, err
			}
		default:
			cause := s.verify(e.Name())
			if cause == nil {
				continue
			}
			cause = fmt.Errorf("snapshot %s: %w", e.Name(), cause)
			if err := s.moveAside(e.Name()); err != nil {
				return nil, nil, errors.Join(cause, err)
			}
			cause = fmt.Errorf("%w; it is now in %s", cause, filepath.Join(o.Dir, damagedDir))
			o.Logger.Error("snapshot is damaged, moved it aside", "snapshot", e.Name(), "to", filepath.Join(o.Dir, damagedDir), "err", cause)
			moved = append(moved, cause)
		}
	}
	return s, moved, nil
}

func (s *checkedSnapshots) moveAside(id string) error {
	to := filepath.Join(filepath.Dir(s.dir), damagedDir)
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	name := filepath.Join(to, id)
	for i := 2; ; i++ { // never over an older one
		there, err := exists(name)
		if err != nil {
			return err
		}
		if !there {
			break
		}
		name = filepath.Join(to, fmt.Sprintf("%s-%d", id, i))
	}
	if err := os.Rename(filepath.Join(s.dir, id), name); err != nil {
		return err
	}
	return errors.Join(syncDir(to), syncDir(s.dir), syncDir(filepath.Dir(s.dir)))
}

// verify reads metadata and payload.
func (s *checkedSnapshots) verify(id string) error {
	if err := s.verifyMeta(id); err != nil {
		return err
	}
	_, r, err := s.inner.Open(id)
	if err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	return r.Close()
}

func (s *checkedSnapshots) verifyMeta(id string) error {
	m, err := readMeta(filepath.Join(s.dir, id))
	if err != nil {
		return err
	}
	if m.ID != id {
		return fmt.Errorf("metadata are those of %q", m.ID)
	}
	b, err := os.ReadFile(filepath.Join(s.dir, id, checkFile))
	if err != nil {
		return err
	}
	got, err := m.sum()
	if err != nil {
		return err
	}
	if len(b) != 4 {
		return fmt.Errorf("%s has %d bytes", checkFile, len(b))
	}
	if stored := binary.BigEndian.Uint32(b); got != stored {
		return fmt.Errorf("metadata: checksum is %08x, stored was %08x", got, stored)
	}
	return nil
}

func readMeta(dir string) (m snapshotMeta, err error) {
	b, err := os.ReadFile(filepath.Join(dir, metaFile))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("metadata: %w", err)
	}
	return m, nil
}

// List leaves out snapshots whose metadata do not match their checksum.
func (s *checkedSnapshots) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.inner.List()
	if err != nil {
		return nil, err
	}
	good := make([]*raft.SnapshotMeta, 0, len(all))
	for _, m := range all {
		if err := s.verifyMeta(m.ID); err != nil {
			s.logger.Error("snapshot is damaged, not used", "snapshot", m.ID, "err", err)
			continue
		}
		good = append(good, m)
	}
	return good, nil
}

// Open checks metadata and payload before it returns them.
func (s *checkedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if err := s.verifyMeta(id); err != nil {
		return nil, nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	return s.inner.Open(id)
}

// Create starts a snapshot. A snapshot that cannot be written does not fail the
// store: it is a new file each time, nothing was acknowledged by it, and raft
// keeps the log it would have replaced.
func (s *checkedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, ci uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.inner.Create(version, index, term, c, ci, t)
	if err != nil {
		return nil, err
	}
	tmp := filepath.Join(s.dir, sink.ID()+tmpSuffix)
	m, err := readMeta(tmp)
	if err == nil && (m.Index != index || m.Term != term || m.ConfigurationIndex != ci) {
		err = errors.New("metadata were not read back as written")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create snapshot %s: %w", sink.ID(), err), sink.Cancel())
	}
	return &checkedSink{SnapshotSink: sink, tmp: tmp, meta: m}, nil
}

// checkedSink puts the checksum of the metadata beside them before the inner
// sink moves the whole into place.
type checkedSink struct {
	raft.SnapshotSink
	tmp    string
	meta   snapshotMeta
	crc    uint64
	closed bool
}

func (s *checkedSink) Write(b []byte) (int, error) {
	n, err := s.SnapshotSink.Write(b)
	s.crc = crc64.Update(s.crc, crc64ECMA, b[:n])
	s.meta.Size += int64(n)
	return n, err
}

// Close makes the snapshot durable and visible, or leaves none.
func (s *checkedSink) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.meta.CRC = binary.BigEndian.AppendUint64(nil, s.crc)
	sum, err := s.meta.sum()
	if err == nil {
		err = writeFileAtomic(filepath.Join(s.tmp, checkFile), binary.BigEndian.AppendUint32(nil, sum))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("finish snapshot %s: %w", s.ID(), err), s.Cancel())
	}
	return s.SnapshotSink.Close()
}

// Cancel leaves no snapshot. After Close it does nothing.
func (s *checkedSink) Cancel() error {
	s.closed = true
	return s.SnapshotSink.Cancel()
}
