package raftlog

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/locknode/locknode/internal/proof/fuzz"
)

func TestMarkSurvivesATornSlot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mark")
	m, err := OpenMark(OS{}, path)
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 10; i++ {
		if err := m.Advance(1, i, 2); err != nil {
			t.Fatal(err)
		}
	}
	// Tear the newest: slot 1 has sequence 11, as the file was made with the first.
	if _, err := m.f.WriteAt(binary.LittleEndian.AppendUint64(nil, 99), markSlot+8); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m, err = OpenMark(OS{}, path)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Known(); got.Index != 9 || got.Term != 2 {
		t.Errorf("mark is %+v, want the slot before, entry 9", got)
	}
	if err := m.Advance(1, 11, 2); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m, err = OpenMark(OS{}, path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if got := m.Known(); got.Index != 11 {
		t.Errorf("mark is %+v after going on, want entry 11", got)
	}
}

// FuzzMark damages a mark file of two writes: it then has the last write, the one before, or
// none, and never anything else.
func FuzzMark(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(fuzz.FlipsAt(1))
	f.Add(fuzz.FlipsAt(520))
	f.Add(fuzz.FlipsAt(3, 530))
	f.Add(append([]byte{0, 0, 0, 0, 0, 0, 2, 1}, 0)) // cut in the second slot
	f.Fuzz(func(t *testing.T, choices []byte) {
		path := filepath.Join(t.TempDir(), "mark")
		m, err := OpenMark(OS{}, path)
		if err != nil {
			t.Fatal(err)
		}
		known := []Known{m.Known()}
		if err := errors.Join(m.Put(false, func(k *Known) { k.CurrentTerm, k.VoteTerm = 2, 2 }), m.Advance(1, 7, 2)); err != nil {
			t.Fatal(err)
		}
		known = append(known, m.Known())
		if err := m.Lower(5, 1); err != nil {
			t.Fatal(err)
		}
		known = append(known, m.Known())
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad, different := fuzz.Damage(good, &fuzz.Bytes{Data: choices})
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := OpenMark(OS{}, path)
		if err != nil {
			return
		}
		defer again.Close()
		if got := again.Known(); !slices.Contains(known, got) || !different && got != known[2] {
			t.Errorf("read %+v, written were %+v", got, known)
		}
		if err := again.Advance(1, 9, 3); err != nil {
			t.Fatal(err)
		}
		third, err := OpenMark(OS{}, path)
		if err != nil {
			t.Fatalf("after a write to a damaged file: %v", err)
		}
		defer third.Close()
		if third.Known() != again.Known() {
			t.Errorf("wrote %+v to a damaged file, read %+v", again.Known(), third.Known())
		}
	})
}
