package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// crashing is a stable store that takes n more writes and no further one, as a
// process does that is killed.
type crashing struct {
	*raft.InmemStore
	left int
}

func (c *crashing) Set(k, v []byte) error {
	if c.left == 0 {
		return errors.New("killed")
	}
	c.left--
	return c.InmemStore.Set(k, v)
}

func (c *crashing) SetUint64(k []byte, v uint64) error {
	if c.left == 0 {
		return errors.New("killed")
	}
	c.left--
	return c.InmemStore.SetUint64(k, v)
}

func stableOn(t testing.TB, inner raft.StableStore) raft.StableStore {
	t.Helper()
	return mustOpen(t, StoreOptions{NodeID: "a", Memory: &Memory{Log: raft.NewInmemStore(), Stable: inner, Snapshots: raft.NewInmemSnapshotStore()}}).Stable
}

func voteOf(s raft.StableStore) string {
	term, err1 := s.GetUint64([]byte(keyVoteTerm))
	cand, err2 := s.Get([]byte(keyVoteCand))
	if err1 != nil || err2 != nil {
		return fmt.Sprint(err1, err2)
	}
	return fmt.Sprintf("%s in %d", cand, term)
}

// Killed at any point of casting a vote, the node has the old vote or the new
// one, never the old candidate in the new term (hashicorp/raft #661).
func TestVoteIsOneRecord(t *testing.T) {
	cast := func(s raft.StableStore, term uint64, cand string) { // raft's persistVote
		if s.SetUint64([]byte(keyVoteTerm), term) == nil {
			_ = s.Set([]byte(keyVoteCand), []byte(cand))
		}
	}
	for left := range 3 {
		raw := &crashing{raft.NewInmemStore(), 100}
		guarded := stableOn(t, raw)
		cast(guarded, 4, "b")
		raw.left = left
		cast(guarded, 5, "c")
		got := voteOf(stableOn(t, raw.InmemStore)) // restarted
		want := "c in 5"
		if left == 0 {
			want = "b in 4"
		}
		if got != want {
			t.Errorf("killed after %d writes: the vote is %q, want %q", left, got, want)
		}
	}
	// Raft's own way, for comparison.
	raw := &crashing{raft.NewInmemStore(), 2}
	cast(raw, 4, "b")
	raw.left = 1
	cast(raw, 5, "c")
	if got := voteOf(raw.InmemStore); got != "b in 5" {
		t.Errorf("without the guard the vote is %q; expected the torn one, b in 5", got)
	}
}

func TestTermAndVoteInRaftsOwnFormAreRead(t *testing.T) {
	raw := raft.NewInmemStore()
	err := errors.Join(raw.SetUint64([]byte(keyTerm), 7), raw.SetUint64([]byte(keyVoteTerm), 6), raw.Set([]byte(keyVoteCand), []byte("b")))
	if err != nil {
		t.Fatal(err)
	}
	s := stableOn(t, raw)
	if term, err := s.GetUint64([]byte(keyTerm)); term != 7 || err != nil {
		t.Errorf("term is %d, %v; want 7", term, err)
	}
	if got := voteOf(s); got != "b in 6" {
		t.Errorf("vote is %q, want b in 6", got)
	}
	if err := errors.Join(s.SetUint64([]byte(keyVoteTerm), 8), s.Set([]byte(keyVoteCand), []byte("c")), s.SetUint64([]byte(keyTerm), 8)); err != nil {
		t.Fatal(err)
	}
	s = stableOn(t, raw)
	if term, _ := s.GetUint64([]byte(keyTerm)); term != 8 || voteOf(s) != "c in 8" {
		t.Errorf("after a new vote: term %d, vote %q", term, voteOf(s))
	}
}

func TestNewNodeHasNoTermAndNoVote(t *testing.T) {
	s := stableOn(t, raft.NewInmemStore())
	if _, err := s.GetUint64([]byte(keyTerm)); !isNotFound(err) {
		t.Errorf("term: %v, want not found", err)
	}
	if _, err := s.Get([]byte(keyVoteCand)); !isNotFound(err) {
		t.Errorf("vote: %v, want not found", err)
	}
}

func TestSameTermIsNotWrittenAgain(t *testing.T) {
	raw := &crashing{raft.NewInmemStore(), 1}
	s := stableOn(t, raw)
	for range 3 {
		if err := s.SetUint64([]byte(keyTerm), 5); err != nil {
			t.Fatalf("SetUint64 of the stored term: %v", err)
		}
	}
	if raw.left != 0 {
		t.Error("the term was not written at all")
	}
}

func TestDamagedTermOrVoteIsRefused(t *testing.T) {
	for _, key := range []string{keyTermRecord, keyVoteRecord} {
		raw := raft.NewInmemStore()
		s := stableOn(t, raw)
		if err := errors.Join(s.SetUint64([]byte(keyTerm), 5), s.SetUint64([]byte(keyVoteTerm), 5), s.Set([]byte(keyVoteCand), []byte("b"))); err != nil {
			t.Fatal(err)
		}
		rec, err := raw.Get([]byte(key))
		if err != nil {
			t.Fatal(err)
		}
		for i := range rec {
			bad := append([]byte{}, rec...)
			bad[i] ^= 1
			if err := raw.Set([]byte(key), bad); err != nil {
				t.Fatal(err)
			}
			_, err := OpenStores(StoreOptions{NodeID: "a", Memory: &Memory{Log: raft.NewInmemStore(), Stable: raw, Snapshots: raft.NewInmemSnapshotStore()}})
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%s with byte %d flipped: %v, want ErrDamaged", key, i, err)
			}
		}
	}
}

func TestOtherKeysPassThrough(t *testing.T) {
	raw := raft.NewInmemStore()
	s := stableOn(t, raw)
	if err := errors.Join(s.Set([]byte("k"), []byte("v")), s.SetUint64([]byte("n"), 9)); err != nil {
		t.Fatal(err)
	}
	v, err1 := raw.Get([]byte("k"))
	n, err2 := raw.GetUint64([]byte("n"))
	if string(v) != "v" || n != 9 || err1 != nil || err2 != nil {
		t.Errorf("inner store has %q, %d, %v, %v", v, n, err1, err2)
	}
	v, err1 = s.Get([]byte("k"))
	n, err2 = s.GetUint64([]byte("n"))
	if string(v) != "v" || n != 9 || err1 != nil || err2 != nil {
		t.Errorf("guarded store has %q, %d, %v, %v", v, n, err1, err2)
	}
}

func TestImplausibleTermOnDiskIsRefused(t *testing.T) {
	for _, key := range []string{keyTermRecord, keyVoteRecord} {
		inner := raft.NewInmemStore()
		body := append(binary.BigEndian.AppendUint64(nil, math.MaxUint64), 'b')
		if key == keyTermRecord {
			body = body[:8]
		}
		if err := inner.Set([]byte(key), binary.BigEndian.AppendUint32(bytes.Clone(body), recordSum(key, body))); err != nil {
			t.Fatal(err)
		}
		_, err := OpenStores(StoreOptions{NodeID: "a", Memory: &Memory{Log: inner, Stable: inner, Snapshots: raft.NewInmemSnapshotStore()}})
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "18446744073709551615") || !strings.Contains(err.Error(), "locknode reseed") {
			t.Errorf("%s: OpenStores = %v, want damage, with the term and what helps", key, err)
		}
	}
}
