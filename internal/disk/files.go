package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/locknode/locknode/internal/raftlog"
)

// The files of a data directory.
const (
	stableFile = "stable.db" // term and vote
	markFile   = "mark"      // what was acknowledged
	logDir     = "log"       // segment files
	logFile    = "log.db"    // raft-boltdb
)

func (s *Stores) logPath() string {
	if s.identity.LogStore == LogStoreBolt {
		return s.path(logFile)
	}
	return s.path(logDir)
}

// checkFiles demands the files that a directory with state must have.
func (s *Stores) checkFiles() error {
	if !s.identity.HasState {
		return nil
	}
	log := s.path(logFile)
	if s.identity.LogStore == LogStoreWAL {
		log = s.path(logDir)
	}
	for _, path := range []string{s.path(stableFile), log, s.path(markFile)} {
		if there, err := exists(path); err != nil {
			return err
		} else if !there {
			return s.damaged(path, errors.New("the file is missing"))
		}
	}
	return nil
}

// leftByFirstStart reports whether the stores of a directory without identity
// are empty, as a crash in the middle of a node's first start leaves them.
func leftByFirstStart(dir string) (bool, error) {
	m, err := raftlog.OpenMark(raftlog.OS{}, filepath.Join(dir, markFile))
	if err != nil {
		return false, err
	}
	index := m.Known().Index
	if err := m.Close(); err != nil {
		return false, err
	}
	stable := filepath.Join(dir, stableFile)
	if there, err := exists(stable); err != nil || !there {
		return index == 0, err
	}
	info, err := os.Stat(stable)
	if err != nil {
		return false, err
	}
	if info.Size() == 0 {
		return index == 0, nil
	}
	b, err := openBolt(stable)
	if err != nil {
		return false, err
	}
	defer b.Close()
	for _, key := range []string{keyTermRecord, keyVoteRecord, keyTerm, keyVoteTerm} {
		if _, err := b.Get([]byte(key)); !isNotFound(err) {
			return false, err
		}
	}
	return index == 0, nil
}

// openFiles opens the stable store and the log.
func (s *Stores) openFiles(o StoreOptions) (raft.StableStore, raft.LogStore, error) {
	stable, err := openBolt(s.path(stableFile))
	if err != nil {
		return nil, nil, s.unlessInUse(s.path(stableFile), err)
	}
	s.closers = append(s.closers, stable)
	if s.identity.LogStore == LogStoreBolt {
		log, err := openBolt(s.path(logFile))
		if err != nil {
			return nil, nil, s.unlessInUse(s.path(logFile), err)
		}
		s.closers = append(s.closers, log)
		return stable, log, nil
	}
	log, err := raftlog.Open(raftlog.Options{
		Dir: s.path(logDir), Mark: s.mark, SegmentSize: o.segmentSize, Logger: o.Logger,
		Snapshot: func() (index, term uint64, err error) { return newestSnapshot(s.Snapshots) },
	})
	var d *raftlog.DamageError
	switch {
	case errors.As(err, &d):
		return nil, nil, s.damaged(d.Place(), d.Cause)
	case err != nil:
		return nil, nil, fmt.Errorf("open the log in %s: %w", s.path(logDir), err)
	}
	s.closers = append(s.closers, log)
	return stable, log, nil
}

func (s *Stores) unlessInUse(path string, err error) error {
	if errors.Is(err, ErrInUse) {
		return fmt.Errorf("open %s: %w", path, err)
	}
	return s.damaged(path, err)
}

func openBolt(path string) (store *raftboltdb.BoltStore, err error) {
	defer recoverOpen(&err)()
	if err := checkBolt(path); err != nil {
		return nil, err
	}
	store, err = raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			FreelistType:   bbolt.FreelistMapType,
			NoFreelistSync: true, // rebuilt at open; saves a page per write
			Timeout:        time.Second,
		},
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, ErrInUse
	}
	return store, err
}

// recoverOpen turns the panics and memory faults of a store that meets damaged
// files into errors.
func recoverOpen(err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if p := recover(); p != nil {
			*err = fmt.Errorf("panic: %v", p)
		}
	}
}

// check reads the whole log, unless it was read when it was opened, and compares what it
// holds with the snapshots, the term and the mark. It returns what there is.
func (s *Stores) check(log raft.LogStore, path string) (coverage, error) {
	var lastTerm, bad uint64
	err := func() (err error) {
		defer recoverOpen(&err)()
		lastTerm, bad, err = scan(log)
		return err
	}()
	if err != nil {
		return coverage{}, s.damaged(fmt.Sprintf("entry %d of the log in %s", bad, path), err)
	}
	first, err := log.FirstIndex()
	if err != nil {
		return coverage{}, err
	}
	last, err := log.LastIndex()
	if err != nil {
		return coverage{}, err
	}
	snaps, err := s.Snapshots.List()
	if err != nil {
		return coverage{}, fmt.Errorf("list snapshots: %w", err)
	}
	var base uint64 // everything up to here is in a snapshot
	if len(snaps) > 0 {
		base = snaps[0].Index
		lastTerm = max(lastTerm, snaps[0].Term)
	}
	c := coverage{base, first, last, lastTerm}
	return c, s.checkCoverage(log, path, c)
}

// coverage is what a directory holds: a snapshot up to base, and the log entries
// first to last (0, 0 when empty), the newest of term lastTerm.
type coverage struct{ base, first, last, lastTerm uint64 }

func (s *Stores) checkCoverage(log raft.LogStore, path string, c coverage) error {
	if c.last > c.base && c.first > c.base+1 {
		return s.damaged(path, fmt.Errorf("the log begins at entry %d, but the newest good snapshot ends at entry %d", c.first, c.base))
	}
	known := s.mark.Known()
	emptied := known.Emptied != 0 && known.Index == 0 // on purpose, without a snapshot
	if s.identity.HasLog && c.last == 0 && c.base == 0 && !emptied {
		return s.damaged(path, errors.New("the log is empty"))
	}
	term, vote := s.stable.terms()
	if term < c.lastTerm {
		return s.damaged(s.path(stableFile), fmt.Errorf("the current term is %d, but the log holds term %d", term, c.lastTerm))
	}
	if term < known.CurrentTerm || vote < known.VoteTerm {
		return s.damaged(s.path(stableFile), fmt.Errorf("the current term is %d with a vote in term %d, but %d and %d were acknowledged",
			term, vote, known.CurrentTerm, known.VoteTerm))
	}
	if known.Index > max(c.last, c.base) {
		return s.damaged(path, fmt.Errorf("the log ends at entry %d, but entry %d was acknowledged", max(c.last, c.base), known.Index))
	}
	if known.Index > c.base && known.Index >= c.first && known.Index <= c.last {
		var l raft.Log
		if err := log.GetLog(known.Index, &l); err != nil {
			return s.damaged(path, err)
		}
		if l.Term != known.Term {
			return s.damaged(path, fmt.Errorf("entry %d is of term %d, but was acknowledged with term %d", l.Index, l.Term, known.Term))
		}
	}
	return nil
}
