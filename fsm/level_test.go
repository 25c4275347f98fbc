package fsm

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func raiseTo(level uint32) RaiseLevel { return RaiseLevel{Level: level, Version: "0.9.0"} }

func TestEveryLevelHasItsVersionAndNoKindIsOfALaterLevel(t *testing.T) {
	for level := uint32(1); level <= Level; level++ {
		if v := LevelVersion(level); v == "" || !fits(v, maxVersion) {
			t.Errorf("level %d is of version %q", level, v)
		}
	}
	if LevelVersion(0) != "" || LevelVersion(Level+1) != "" {
		t.Error("a level that is not known has a version")
	}
	for kind, level := range laterKinds {
		if level > Level || level == 1 {
			t.Errorf("kind %d is of level %d: 2 to %d is allowed, 0 for level 1", kind, level, Level)
		}
	}
}

func TestLevelRisesAndNeverFalls(t *testing.T) {
	table := New()
	if level, version := table.Level(); level != 1 || version != "0.1.0" {
		t.Fatalf("a new table is at level %d of %q", level, version)
	}
	for i, step := range []struct {
		to, want uint32
		version  string
	}{{0, 1, "0.1.0"}, {1, 1, "0.1.0"}, {3, 3, "0.9.0"}, {2, 3, "0.9.0"}} {
		a := table.Apply(uint64(i+1), 1, encode(1, 0, 0, raiseTo(step.to)))
		if level, version := table.Level(); level != step.want || version != step.version || a.Results[0].Code != OK {
			t.Errorf("raised to %d: at level %d of %q: %+v", step.to, level, version, a.Results[0])
		}
	}
	a := table.Apply(9, 1, encode(1, 0, 0, RaiseLevel{Level: 7, Version: strings.Repeat("x", maxVersion+1)}, RaiseLevel{Level: 7, Version: "a\nb"}))
	if level, _ := table.Level(); level != 3 || a.Results[0].Code != Invalid || a.Results[1].Code != Invalid {
		t.Errorf("at level %d after versions that are no text: %+v", level, a.Results)
	}
}

// A node that knows a command of a later level must make the same of it as one that does
// not, as long as the table is below: that it does not know it.
func TestKindOfALaterLevelIsUnknownUntilTheTableIsThere(t *testing.T) {
	defer func(kinds [256]uint8) { laterKinds = kinds }(laterKinds)
	command := OpenSession{Session: SessionID{1}, TTL: 10 * second}
	frame := AppendCommand(nil, command)
	unknown := bytes.Clone(frame)
	unknown[1] = 200 // behind the length: a kind that nobody knows
	asEntry := func(frame []byte) []byte { return append(AppendHeader(nil, 1, 0, 0, 1), frame...) }

	want := New().Apply(1, 1, asEntry(unknown)).Results[0]
	laterKinds[KindOpenSession] = 2
	table := New()
	if got := table.Apply(1, 1, asEntry(frame)).Results[0]; got.Code != UnknownCommand || got.Code != want.Code || got.Field != want.Field || got.Detail != want.Detail {
		t.Errorf("below its level: %+v, want as of an unknown kind: %+v", got, want)
	}
	if LevelOf(command) != 2 || LevelOf(KeepAlive{}) != 1 {
		t.Errorf("the commands are of levels %d and %d", LevelOf(command), LevelOf(KeepAlive{}))
	}
	table.Apply(2, 1, encode(1, 0, 0, raiseTo(2)))
	if got := table.Apply(3, 1, asEntry(frame)).Results[0]; got.Code != OK {
		t.Errorf("at its level: %+v", got)
	}
}

// The rest of a snapshot of a later level may be written in another form.
func TestSnapshotOfALaterLevelIsRefusedForItsLevel(t *testing.T) {
	table := New()
	table.level, table.version = Level+1, "0.9.0"
	var e blockWriter
	var image bytes.Buffer
	e.w = &image
	e.start()
	e.uint(uint64(table.level))
	e.string(table.version)
	e.buf = append(e.buf, "what only the later version knows"...)
	if _, err := e.end(); err != nil {
		t.Fatal(err)
	}
	var wrong *LevelError
	if _, err := Restore(&image); !errors.As(err, &wrong) {
		t.Errorf("Restore = %v, want a LevelError", err)
	}
}
