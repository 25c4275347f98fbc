package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/raftlog"
)

const (
	// LogStoreWAL keeps the log in segment files (raftlog): one fdatasync per append.
	LogStoreWAL = "wal"
	// LogStoreBolt keeps the log in raft-boltdb: two fsyncs per append.
	LogStoreBolt = "boltdb"

	logCacheSize      = 256
	retainSnapshots   = 2
	defaultStallAfter = time.Second
	closeLimit        = 2 * time.Second
)

// StoreOptions says where and how to open a node's storage.
type StoreOptions struct {
	// Dir is the data directory, made if it is missing. Required unless Memory
	// is set.
	Dir string
	// NodeID is the ID the caller wants. Empty: the stored one, or a new one
	// minted for a new directory.
	NodeID string
	// LogStore is LogStoreWAL or LogStoreBolt. Empty: what the directory was
	// made with, LogStoreWAL for a new one.
	LogStore string
	// Logger gets what happens; nil is silent.
	Logger *slog.Logger
	// StallAfter is how long a write may take before the node keeps silent;
	// zero is 1 s. It should be longer than several election timeouts.
	StallAfter time.Duration
	// OnFailure is called once, on a goroutine of its own, with the first failed
	// write or damaged read (errors.Is ErrFailed). The node must then be
	// stopped; nothing leaves it any more. It may call Close.
	OnFailure func(error)
	// BeforeNew is called before anything is written that says whose a new directory is.
	// Its error is OpenStores's, and the directory is as new as before.
	BeforeNew func() error
	// Memory replaces the disk; for tests and simulation.
	Memory *Memory

	segmentSize int64 // of the log in segment files; zero is its default; for tests
}

// Memory holds stores that are used in place of files. The same guards stand
// before them, except the mark and the file checks.
type Memory struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore
	// Identity is what an earlier run saved; zero for a new node.
	Identity Identity
	// SaveIdentity is called with each change; nil forgets.
	SaveIdentity func(Identity) error
}

// Stores are the guarded stores of one node. They are safe for concurrent use.
type Stores struct {
	Log       raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore

	dir     string
	watch   *watch
	log     *leaderLog // below the cache; nil if opening has failed before
	stable  *guardedStable
	mark    *raftlog.Mark
	lost    error       // the snapshots that were moved aside
	closers []io.Closer // closed in reverse
	save    func(Identity) error

	saving chan struct{} // holds a token while the identity is saved

	mu       sync.Mutex // guards what follows; never held while a disk is waited for
	identity Identity

	closeCalled atomic.Bool
	closed      chan struct{} // closed at the end of Close
	closeErr    error
}

// OpenStores opens the storage of a node and checks all of it: identity, term
// and vote, every entry of the log, every snapshot, and that together they hold
// everything that was acknowledged.
//
// It returns ErrInUse, ErrWrongNode or ErrWrongStore for a directory that is not
// the caller's, ErrSystem if the system does not let it be read or written, and
// ErrDamaged for one that must not be used any more; the message of the last two
// says what to do. The directory is left as it was, but for damaged
// snapshots, which are moved to the folder damaged-snapshots.
func OpenStores(o StoreOptions) (*Stores, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.StallAfter == 0 {
		o.StallAfter = defaultStallAfter
	}
	switch o.LogStore {
	case "", LogStoreWAL, LogStoreBolt:
	default:
		return nil, fmt.Errorf("open stores: log store %q: allowed are %q and %q", o.LogStore, LogStoreWAL, LogStoreBolt)
	}
	s := &Stores{dir: o.Dir, watch: newWatch(o), saving: make(chan struct{}, 1), closed: make(chan struct{})}
	var err error
	if o.Memory != nil {
		err = s.openMemory(o)
	} else {
		err = s.openDir(o)
	}
	if err == nil {
		err = s.watch.arm()
	}
	if err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("open stores: %w", asSystemError(err))
	}
	return s, nil
}

func (s *Stores) openMemory(o StoreOptions) error {
	id, err := chooseIdentity(o.Memory.Identity, o, "memory")
	if err != nil {
		return err
	}
	if o.Memory.Identity.NodeID != id.NodeID && o.BeforeNew != nil {
		if err := o.BeforeNew(); err != nil {
			return err
		}
	}
	s.identity, s.save = id, o.Memory.SaveIdentity
	if s.save == nil {
		s.save = func(Identity) error { return nil }
	}
	if err := s.save(id); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	s.Snapshots = o.Memory.Snapshots
	return s.guard(o.Memory.Log, "log", o.Memory.Stable, "stable store")
}

func (s *Stores) openDir(o StoreOptions) error {
	if o.Dir == "" {
		return errors.New("data directory is not set")
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	lock, err := lockDir(filepath.Join(o.Dir, "lock"))
	if err != nil {
		return err
	}
	s.closers = append(s.closers, lock)

	id, isNew, err := loadIdentity(o)
	if err != nil {
		return err
	}
	if isNew && o.BeforeNew != nil {
		if err := o.BeforeNew(); err != nil {
			return err
		}
	}
	s.identity, s.save = id, func(id Identity) error { return writeIdentity(o.Dir, id) }
	closeToOthers(o.Dir, o.Logger)
	if err := s.checkFiles(); err != nil {
		return err
	}
	if s.mark, err = raftlog.OpenMark(raftlog.OS{}, s.path(markFile)); err != nil {
		return s.damaged(s.path(markFile), err)
	}
	s.closers = append(s.closers, s.mark)
	stable, log, err := s.openFiles(o)
	if err != nil {
		return err
	}
	snaps, moved, err := openSnapshots(o)
	if err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	s.Snapshots, s.lost = snaps, errors.Join(moved...)
	if isNew { // last, so that a directory with an identity has all its files
		if err := errors.Join(s.save(id), syncDir(filepath.Dir(o.Dir))); err != nil {
			return fmt.Errorf("save identity: %w", err)
		}
	}
	return s.guard(log, s.logPath(), stable, s.path(stableFile))
}

// guard puts the wrappers round the inner stores and checks their contents.
func (s *Stores) guard(log raft.LogStore, logPath string, stable raft.StableStore, stablePath string) error {
	var err error
	if s.stable, err = newGuardedStable(stable, s); err != nil {
		return s.damaged(stablePath, err)
	}
	s.Stable = s.stable
	inner := log
	if _, checks := log.(*raftlog.Log); !checks {
		inner = markedLog{checkedLog{log}, s.Snapshots, s.mark}
	}
	there, err := s.check(inner, logPath)
	if err != nil {
		return err
	}
	g := &guardedLog{inner: inner, watch: s.watch, onState: s.markLog}
	if err := g.finishInstall(there); err != nil {
		return err
	}
	s.log = newLeaderLog(g)
	if s.Log, err = raft.NewLogCache(logCacheSize, s.log); err != nil {
		return err
	}
	return s.settleState(log)
}

// finishInstall empties a log that ends before the newest snapshot. Raft does that
// itself after it has restored a snapshot of the leader's (see IsMonotonic), and never
// again if the process ends before: the next entry from the leader would leave a gap.
func (g *guardedLog) finishInstall(c coverage) error {
	if c.last == 0 || c.last >= c.base {
		return nil
	}
	if err := g.DeleteRange(c.first, c.last); err != nil {
		return fmt.Errorf("empty the log, which ends at entry %d, before the snapshot at %d: %w", c.last, c.base, err)
	}
	return nil
}

// settleState makes HasState agree with what the stores hold. raft.BootstrapCluster
// saves term 1 and then the first entry; a crash in between leaves a term that
// bound nobody (elections begin at 2) but would make the node look formed for
// ever. It is forgotten.
func (s *Stores) settleState(log raft.LogStore) error {
	last, err := log.LastIndex()
	if err != nil {
		return err
	}
	snaps, err := s.Snapshots.List()
	if err != nil {
		return err
	}
	if last == 0 && len(snaps) == 0 && s.stable.forgetBootstrapTerm() {
		if !s.HasState() {
			return nil
		}
		return s.UpdateIdentity(func(id *Identity) { id.HasState = false })
	}
	return s.markState()
}

// loadIdentity reads the identity of the directory or makes one that is not
// saved yet.
func loadIdentity(o StoreOptions) (id Identity, isNew bool, err error) {
	stored, err := readIdentity(o.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return id, false, damaged(damagedError{what: o.Dir, cause: err, dir: o.Dir, noID: true})
	}
	isNew = err != nil
	if isNew {
		// Files without an identity are another program's, or a wiped node's.
		for _, name := range []string{stableFile, logDir, logFile} {
			if there, err := exists(filepath.Join(o.Dir, name)); err != nil {
				return id, false, err
			} else if there {
				if fresh, err := leftByFirstStart(o.Dir); err != nil || !fresh {
					cause := fmt.Errorf("%s is there, but %s is missing", name, identityFile)
					return id, false, damaged(damagedError{what: o.Dir, cause: errors.Join(cause, err), dir: o.Dir, noID: true})
				}
			}
		}
	}
	if id, err = chooseIdentity(stored, o, o.Dir); err == nil && id.Diverged != "" {
		err = &damagedError{what: o.Dir, cause: errors.New(id.Diverged), dir: o.Dir}
	}
	return id, isNew || id.NodeID != stored.NodeID, err
}

// chooseIdentity compares what is stored with what is asked for.
func chooseIdentity(stored Identity, o StoreOptions, where string) (Identity, error) {
	if stored.NodeID == "" {
		id := Identity{Version: identityVersion, NodeID: o.NodeID, LogStore: o.LogStore, Created: time.Now().UTC()}
		if id.NodeID == "" {
			id.NodeID = newNodeID()
		}
		if id.LogStore == "" {
			id.LogStore = LogStoreWAL
		}
		return id, nil
	}
	if o.NodeID != "" && o.NodeID != stored.NodeID && stored.unused() {
		stored.NodeID = o.NodeID // a first start is corrected
	}
	if o.NodeID != "" && o.NodeID != stored.NodeID {
		return stored, fmt.Errorf("%s is the data of node %q, not of %q: %w", where, stored.NodeID, o.NodeID, ErrWrongNode)
	}
	if stored.LogStore == "" { // see Reseed
		if stored.LogStore = o.LogStore; stored.LogStore == "" {
			stored.LogStore = LogStoreWAL
		}
	}
	if o.LogStore != "" && o.LogStore != stored.LogStore {
		return stored, fmt.Errorf("%s keeps its log in %q, not in %q: %w", where, stored.LogStore, o.LogStore, ErrWrongStore)
	}
	return stored, nil
}

// Identity returns the identity as it was last saved.
func (s *Stores) Identity() Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.identity
	id.Promise = maps.Clone(id.Promise)
	return id
}

// UpdateIdentity changes the identity durably: when it returns nil, the change
// survives power loss. An error is a failed write like any other: the file holds
// the old or the new identity, and the stores refuse all further writes. The node
// ID, the log store and the version cannot be changed.
func (s *Stores) UpdateIdentity(change func(*Identity)) error {
	s.saving <- struct{}{}
	defer func() { <-s.saving }()
	was := s.Identity()
	id := was
	change(&id)
	id.Version, id.NodeID, id.LogStore = was.Version, was.NodeID, was.LogStore
	if err := s.watch.write("save identity", func() error { return s.save(id) }); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.identity = id
	return nil
}

// HasState reports whether this node has ever acknowledged a log entry, a term
// or a vote. It costs nothing.
func (s *Stores) HasState() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.identity.HasState
}

// markState notes, before the first write is acknowledged, that there is state.
func (s *Stores) markState() error {
	if s.HasState() {
		return nil
	}
	return s.UpdateIdentity(func(id *Identity) { id.HasState = true })
}

// markLog does the same for the log.
func (s *Stores) markLog() error {
	s.mu.Lock()
	has := s.identity.HasLog
	s.mu.Unlock()
	if has {
		return nil
	}
	return s.UpdateIdentity(func(id *Identity) { id.HasState, id.HasLog = true, true })
}

// Stalled reports whether a write has been outstanding longer than StallAfter.
func (s *Stores) Stalled() bool { return errors.Is(s.Gate(), ErrStalled) }

// Gate returns nil, or why nothing may enter or leave this node: ErrStalled,
// ErrFailed, ErrClosed. It is what TransportOptions.Gate wants.
func (s *Stores) Gate() error { return s.watch.state() }

// Close waits up to 2 s for outstanding writes and closes the files. Raft should
// have been shut down before; what it still asks for is then refused. If a write
// hangs, Close returns an error, the files are closed when the write returns, and
// the directory stays locked until then. Close may be called twice.
func (s *Stores) Close() error {
	if s.closeCalled.CompareAndSwap(false, true) {
		s.closeErr = s.close()
		close(s.closed)
	}
	<-s.closed
	return s.closeErr
}

func (s *Stores) close() error {
	if s.log != nil {
		s.log.close()
	}
	idle := s.watch.close(closeLimit)
	done := make(chan error, 1)
	go func() {
		s.watch.drain()
		done <- s.closeFiles()
	}()
	if idle {
		select {
		case err := <-done:
			return err
		case <-time.After(closeLimit): // what the log writes in the background hangs
		}
	}
	return fmt.Errorf("close stores in %s: %w: a write has not returned", s.dir, ErrStalled)
}

func (s *Stores) closeFiles() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i].Close())
	}
	return errors.Join(errs...)
}

func (s *Stores) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Stores) damaged(what string, cause error) error {
	if s.lost != nil {
		cause = fmt.Errorf("%w (%w)", cause, s.lost)
	}
	return damaged(damagedError{what: what, cause: cause, dir: s.dir})
}
