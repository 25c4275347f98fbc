package disk

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/hclogs"
)

const (
	snapshotDir = "snapshots"         // raft.FileSnapshotStore's
	damagedDir  = "damaged-snapshots" // what was moved aside
	metaFile    = "meta.json"
	payloadFile = "state.bin"
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
// what it moved, for the error if it is missing.
func openSnapshots(o StoreOptions) (*checkedSnapshots, []error, error) {
	if err := os.MkdirAll(filepath.Join(o.Dir, snapshotDir), 0o700); err != nil {
		return nil, nil, err
	}
	inner, err := raft.NewFileSnapshotStoreWithLogger(o.Dir, retainSnapshots, hclogs.RaftLogger(o.Logger))
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
			if _, ok := systemErrno(cause); ok { // it may be whole
				return nil, nil, cause
			}
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
	if _, err := s.verifyMeta(id); err != nil {
		return err
	}
	_, r, err := s.inner.Open(id)
	if err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	return r.Close()
}

func (s *checkedSnapshots) verifyMeta(id string) (m snapshotMeta, err error) {
	if m, err = readMeta(filepath.Join(s.dir, id)); err != nil {
		return m, err
	}
	if m.ID != id {
		return m, fmt.Errorf("metadata are those of %q", m.ID)
	}
	if m.Version < raft.SnapshotVersionMin || m.Version > raft.SnapshotVersionMax {
		return m, fmt.Errorf("metadata: version %d is not known to this program", m.Version)
	}
	b, err := os.ReadFile(filepath.Join(s.dir, id, checkFile))
	if err != nil {
		return m, err
	}
	got, err := m.sum()
	if err != nil {
		return m, err
	}
	if len(b) != 4 {
		return m, fmt.Errorf("%s has %d bytes", checkFile, len(b))
	}
	if stored := binary.BigEndian.Uint32(b); got != stored {
		return m, fmt.Errorf("metadata: checksum is %08x, stored was %08x", got, stored)
	}
	return m, nil
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

// List leaves out snapshots whose metadata are damaged, the newest comes first. One that
// cannot be read because of the system is an error: without it the node would look as if
// it had forgotten what is in it.
func (s *checkedSnapshots) List() ([]*raft.SnapshotMeta, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var good []*raft.SnapshotMeta
	for _, e := range entries {
		if !e.IsDir() || strings.HasSuffix(e.Name(), tmpSuffix) {
			continue
		}
		m, err := s.verifyMeta(e.Name())
		switch _, system := systemErrno(err); {
		case system:
			return nil, fmt.Errorf("snapshot %s: %w", e.Name(), err)
		case errors.Is(err, fs.ErrNotExist) && s.gone(e.Name()): // replaced by a newer one meanwhile
		case err != nil:
			s.logger.Error("snapshot is damaged, not used", "snapshot", e.Name(), "err", err)
		default:
			good = append(good, &m.SnapshotMeta)
		}
	}
	slices.SortFunc(good, func(a, b *raft.SnapshotMeta) int {
		return cmp.Or(cmp.Compare(b.Term, a.Term), cmp.Compare(b.Index, a.Index), cmp.Compare(b.ID, a.ID))
	})
	return good, nil
}

func (s *checkedSnapshots) gone(id string) bool {
	there, err := exists(filepath.Join(s.dir, id))
	return err == nil && !there
}

// Open checks metadata and payload before it returns them.
func (s *checkedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if _, err := s.verifyMeta(id); err != nil {
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
	for _, made := range []string{tmp, filepath.Join(tmp, metaFile), filepath.Join(tmp, payloadFile)} {
		closeFile(made)
	}
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
