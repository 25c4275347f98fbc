package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/raftlog"
)

// Raft's keys, and ours. Raft persists a vote in two writes (LastVoteTerm, then
// LastVoteCand); a crash in between leaves the old candidate under the new term,
// and the node may vote twice (hashicorp/raft #661). Here both are one record.
const (
	keyTerm     = "CurrentTerm"
	keyVoteTerm = "LastVoteTerm"
	keyVoteCand = "LastVoteCand"

	keyTermRecord = "locknode/term" // term, checksum
	keyVoteRecord = "locknode/vote" // term, candidate, checksum
)

// errNotFound has the text that raft compares with.
var errNotFound = errors.New("not found")

// guardedStable keeps term and vote in memory and writes them through. Other
// keys pass unchecked; raft has none.
type guardedStable struct {
	inner  raft.StableStore
	stores *Stores

	mu       sync.Mutex // guards what follows
	term     uint64
	hasTerm  bool
	voteTerm uint64
	voteCand []byte // nil: never voted
	pending  uint64 // term of the vote that is being cast
}

// newGuardedStable reads term and vote, in our form or in raft's own.
func newGuardedStable(inner raft.StableStore, stores *Stores) (*guardedStable, error) {
	s := &guardedStable{inner: inner, stores: stores}
	if err := s.loadTerm(); err != nil {
		return nil, fmt.Errorf("read current term: %w", err)
	}
	if err := s.loadVote(); err != nil {
		return nil, fmt.Errorf("read last vote: %w", err)
	}
	return s, nil
}

func (s *guardedStable) loadTerm() error {
	rec, err := s.record(keyTermRecord, 8)
	if err != nil {
		return err
	}
	if rec != nil {
		s.term, s.hasTerm = binary.BigEndian.Uint64(rec), true
		return credible(s.term)
	}
	s.term, err = orZero(s.inner.GetUint64([]byte(keyTerm)))
	s.hasTerm = s.term > 0
	return err
}

func (s *guardedStable) loadVote() error {
	rec, err := s.record(keyVoteRecord, 8)
	if err != nil {
		return err
	}
	if rec != nil {
		s.voteTerm, s.voteCand = binary.BigEndian.Uint64(rec), rec[8:]
		return credible(s.voteTerm)
	}
	if s.voteTerm, err = orZero(s.inner.GetUint64([]byte(keyVoteTerm))); err != nil {
		return err
	}
	cand, err := s.inner.Get([]byte(keyVoteCand))
	if err != nil && !isNotFound(err) {
		return err
	}
	if len(cand) > 0 {
		s.voteCand = append([]byte{}, cand...)
	}
	return nil
}

// maxStored is larger than any term that a cluster can reach; see newGuardedStable.
const maxStored = 1 << 60

// credible refuses a term that no cluster has come to: with it this node would end any
// cluster that it takes part in, because terms only grow and there would be no next one.
func credible(term uint64) error {
	if term > maxStored {
		return fmt.Errorf("it is %d, which no cluster reaches: at most %d is taken for true", term, uint64(maxStored))
	}
	return nil
}

// record reads and checks one of our records; nil if there is none.
func (s *guardedStable) record(key string, atLeast int) ([]byte, error) {
	b, err := s.inner.Get([]byte(key))
	if isNotFound(err) || (err == nil && len(b) == 0) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n := len(b) - 4
	if n < atLeast {
		return nil, fmt.Errorf("record %q has %d bytes", key, len(b))
	}
	if got, stored := recordSum(key, b[:n]), binary.BigEndian.Uint32(b[n:]); got != stored {
		return nil, fmt.Errorf("record %q: checksum is %08x, stored was %08x", key, got, stored)
	}
	return append([]byte{}, b[:n]...), nil
}

func recordSum(key string, body []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, body)
}

func (s *guardedStable) put(key string, body []byte) error {
	rec := binary.BigEndian.AppendUint32(body, recordSum(key, body))
	return s.stores.watch.write("write "+key, func() error {
		if err := s.inner.Set([]byte(key), rec); err != nil {
			return err
		}
		if err := promise(s.stores.mark, key, binary.BigEndian.Uint64(rec)); err != nil {
			return err
		}
		return s.stores.markState()
	})
}

// promise has the mark remember that a term or a vote was saved.
func promise(m *raftlog.Mark, key string, term uint64) error {
	return m.Put(false, func(k *raftlog.Known) {
		if key == keyTermRecord {
			k.CurrentTerm = term
		} else {
			k.VoteTerm = term
		}
	})
}

// SetUint64 saves the term at once; the term of a vote waits for its candidate.
func (s *guardedStable) SetUint64(key []byte, v uint64) error {
	switch string(key) {
	case keyTerm:
		return endInsteadOfPanic(s.setTerm(v))
	case keyVoteTerm:
		s.mu.Lock()
		s.pending = v
		s.mu.Unlock()
		return nil
	}
	return s.stores.watch.write("write "+string(key), func() error { return s.inner.SetUint64(key, v) })
}

// setTerm writes nothing if the term is the stored one: raft saves it again at
// each start and at each step down.
func (s *guardedStable) setTerm(v uint64) error {
	s.mu.Lock()
	same := s.hasTerm && s.term == v || !s.hasTerm && v == 0
	s.mu.Unlock()
	if same {
		return nil
	}
	if err := s.put(keyTermRecord, binary.BigEndian.AppendUint64(nil, v)); err != nil {
		return err
	}
	s.mu.Lock()
	s.term, s.hasTerm = v, true
	s.mu.Unlock()
	return nil
}

// Set saves a vote together with its term.
func (s *guardedStable) Set(key, val []byte) error {
	if string(key) != keyVoteCand {
		return s.stores.watch.write("write "+string(key), func() error { return s.inner.Set(key, val) })
	}
	s.mu.Lock()
	term := s.pending
	s.mu.Unlock()
	cand := append([]byte{}, val...)
	if err := s.put(keyVoteRecord, append(binary.BigEndian.AppendUint64(nil, term), cand...)); err != nil {
		return err
	}
	s.mu.Lock()
	s.voteTerm, s.voteCand = term, cand
	s.mu.Unlock()
	return nil
}

// GetUint64 returns what is durable.
func (s *guardedStable) GetUint64(key []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch string(key) {
	case keyTerm:
		if !s.hasTerm {
			return 0, errNotFound
		}
		return s.term, nil
	case keyVoteTerm:
		if s.voteCand == nil {
			return 0, errNotFound
		}
		return s.voteTerm, nil
	}
	return s.inner.GetUint64(key)
}

// Get returns what is durable.
func (s *guardedStable) Get(key []byte) ([]byte, error) {
	if string(key) != keyVoteCand {
		return s.inner.Get(key)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.voteCand == nil {
		return nil, errNotFound
	}
	return append([]byte{}, s.voteCand...), nil
}

// terms are the current term and the term of the last vote, as on disk.
func (s *guardedStable) terms() (current, vote uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.term, s.voteTerm
}

// forgetBootstrapTerm forgets a term of at most 1 without a vote and reports
// whether nothing is left then.
func (s *guardedStable) forgetBootstrapTerm() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term > 1 || s.voteCand != nil {
		return false
	}
	s.term, s.hasTerm = 0, false
	return true
}

// isNotFound compares by text because that is the contract of raft's stable
// stores: each of them has its own error with this text.
func isNotFound(err error) bool { return err != nil && err.Error() == errNotFound.Error() }

func orZero(v uint64, err error) (uint64, error) {
	if isNotFound(err) {
		return 0, nil
	}
	return v, err
}
