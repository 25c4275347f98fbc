package replica

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/locknode/locknode/fsm"
)

// A program that is too old ends with the version that is needed; it applies and shows
// nothing more, and takes no snapshot.
func TestAProgramTooOldRefusesATableOfALaterLevel(t *testing.T) {
	type raised struct {
		level   uint32
		version string
	}
	start := func() (m *Table, seen *[]raised, broke *[]error) {
		m, seen, broke = New(nil), new([]raised), new([]error)
		m.OnLevel(func(level uint32, version string) { *seen = append(*seen, raised{level, version}) })
		m.OnBroken(func(err error) { *broke = append(*broke, err) })
		return m, seen, broke
	}
	refused := func(what string, m *Table, seen []raised, broke []error, err error) {
		t.Helper()
		var e *fsm.LevelError
		if !errors.As(err, &e) || e.Level != fsm.Level+1 || e.Version != "0.9.0" || !strings.Contains(err.Error(), "run Locknode 0.9.0") {
			t.Errorf("%s: %v, want the level and the version", what, err)
		}
		if len(seen) != 1 || seen[0] != (raised{fsm.Level + 1, "0.9.0"}) {
			t.Errorf("%s: told of levels %v", what, seen)
		}
		if len(broke) != 1 || !errors.As(broke[0], &e) {
			t.Errorf("%s: broke with %v", what, broke)
		}
		if m.View(func(*fsm.Table) {}) {
			t.Errorf("%s: the table is still shown", what)
		}
		if _, err := m.Snapshot(); err == nil {
			t.Errorf("%s: a snapshot was taken", what)
		}
	}
	raise := fsm.RaiseLevel{Level: fsm.Level + 1, Version: "0.9.0"}
	m, seen, broke := start()
	err, _ := m.Apply(logEntry(1, 0, raise)).(error)
	refused("an entry", m, *seen, *broke, err)
	if again, _ := m.Apply(logEntry(2, 0, fsm.KeepAlive{})).(error); !errors.Is(again, err) {
		t.Errorf("the next entry: %v, want %v", again, err)
	}

	table := fsm.New()
	table.Apply(1, 1, logEntry(1, 0, raise, opensHost()).Data)
	var image bytes.Buffer
	if _, err := table.Snapshot().WriteTo(&image); err != nil {
		t.Fatal(err)
	}
	m, seen, broke = start()
	err = m.Restore(io.NopCloser(&image))
	refused("a snapshot", m, *seen, *broke, err)
}
