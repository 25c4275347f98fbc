//go:build unix

package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/proof/history"
	"github.com/locknode/locknode/internal/proof/proc"
)

func testRun(t *testing.T) *run {
	t.Helper()
	return &run{o: Options{Dir: t.TempDir()}, clock: clock{monotonic()}, result: &Result{Rounds: 1}}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// believes adds a grant and the belief of its client.
func believes(h *history.History, client, lock string, token uint64, from, until float64) {
	wants := []history.Want{{Lock: lock, Mode: fsm.Exclusive}}
	request := fmt.Sprint(client, "/", token)
	h.Ops = append(h.Ops, history.Op{
		Client: client, Kind: history.Acquire, Request: request, Session: client, Wants: wants, Wait: -1,
		Call: seconds(from - 0.1), Return: seconds(from), Outcome: history.OK, Token: token, Index: uint64(from * 100),
	}, history.Op{
		Client: client, Kind: history.Release, Request: request + "/end", Session: client, Wants: wants,
		Call: seconds(until), Return: seconds(until + 0.1), Outcome: history.OK, Token: token, Index: uint64(until*100 + 10),
	})
	h.Beliefs = append(h.Beliefs, history.Belief{Client: client, Wants: wants, Token: token, From: seconds(from), Until: seconds(until)})
}

// TestTwoHoldersAreFoundAndShown: a check that finds nothing must be able to.
func TestTwoHoldersAreFoundAndShown(t *testing.T) {
	r := testRun(t)
	h := &history.History{}
	believes(h, "a", "shared-0/0", 1, 1, 2)
	believes(h, "b", "shared-0/0", 2, 3, 4)
	if !r.check(h, true) || len(r.result.Broken) > 0 {
		t.Fatalf("one holder after the other: got %+v", r.result.Broken)
	}
	r.tokens = 0
	believes(h, "c", "shared-0/0", 3, 3.5, 5)
	if r.check(h, true) {
		t.Fatal("two holders at a time were not found")
	}
	found := r.result.Broken[0]
	if found.Promise != "S1" && found.Promise != "S3" || found.Lock != "shared-0/0" {
		t.Errorf("found %+v, want S1 or S3 of shared-0/0", found)
	}
	if page, err := os.ReadFile(found.Picture); err != nil || !strings.Contains(string(page), "<html") {
		t.Errorf("picture %s: %v", found.Picture, err)
	}
	if len(r.result.Timeline) == 0 || r.result.Checked.Ops == 0 {
		t.Errorf("time line %v, checked %+v: want what was done", r.result.Timeline, r.result.Checked)
	}
}

// TestALossBeforeItsTimeIsFound: as a client process writes it down, which looks now and
// then and is itself stopped for a while.
func TestALossBeforeItsTimeIsFound(t *testing.T) {
	for told, want := range map[float64]bool{1.4: false, 3.3: true} {
		r, h := testRun(t), &history.History{}
		believes(h, "a", "expiring/0", 1, 1, 1.3)
		h.Ops[0].TTL = 2 * time.Second
		h.Ops[1] = history.Op{ // instead of the release
			Client: "a", Kind: history.Open, Session: "a", TTL: 10 * time.Second,
			Call: seconds(0.5), Return: seconds(0.6), Outcome: history.OK, Index: 1,
		}
		b := &h.Beliefs[0]
		b.Lost, b.Told = history.LostWord(&client.LostError{Reason: client.LostExpired}), seconds(told)
		if got := r.check(h, true); got != want {
			t.Errorf("a TTL of 2 s from 0.9 s on, its end told by %v s: right is %v, want %v: %+v", told, got, want, r.result.Broken)
		}
	}
}

// TestARoundWithoutAnAnswerIsNotRight: unless its clients had no time for one.
func TestARoundWithoutAnAnswerIsNotRight(t *testing.T) {
	for working, right := range map[bool]bool{true: false, false: true} {
		if r := testRun(t); r.check(&history.History{}, working) != right {
			t.Errorf("working is %v: found %v, want that it is right: %v", working, r.result.Broken, right)
		}
	}
}

func TestTokensMustGrowFromRoundToRound(t *testing.T) {
	r := testRun(t)
	first, second := &history.History{}, &history.History{}
	believes(first, "a", "x", 7, 1, 2)
	believes(second, "a", "y", 7, 11, 12)
	if got := r.tokensGrow(first); len(got) > 0 || r.tokens != 7 {
		t.Fatalf("first round: got %v, greatest token %d", got, r.tokens)
	}
	if got := r.tokensGrow(second); len(got) != 1 || got[0].Promise != "S4" {
		t.Errorf("a token that was given before: got %v, want S4", got)
	}
}

func TestProbeTellsTheFirstCycleThatBeganInTime(t *testing.T) {
	p := &probe{finished: make(chan struct{}), cycles: []cycle{{1, 5}, {6, 40}, {41, 43}, {44, 46}}}
	for since, want := range map[time.Duration]time.Duration{0: 5, 1: 5, 2: 40, 6: 40, 7: 43, 44: 46} {
		if got, err := p.after(t.Context(), since); err != nil || got != want {
			t.Errorf("after %d: got %d, %v, want %d", since, got, err, want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if got, err := p.after(ctx, 45); err == nil {
		t.Errorf("after the last cycle: got %d, want an error", got)
	}
}

func TestLogsThatNoNodeMayPrintAreFound(t *testing.T) {
	if got := complaints("level=INFO msg=ready\nlevel=WARN msg=\"failed to contact\""); len(got) > 0 {
		t.Errorf("ordinary lines: got %q", got)
	}
	if got := complaints("level=INFO msg=ready\npanic: 7 is odd\n\ngoroutine 1:\n"); len(got) != 1 || !strings.HasPrefix(got[0], "panic: 7 is odd") {
		t.Errorf("a panic: got %q", got)
	}
}

func TestWhatAClientProcessPrintsIsReadLineByLine(t *testing.T) {
	c := &clientProcess{}
	for _, piece := range []string{`{"operations":3}` + "\n" + `{"opera`, `tions":5,"complaints":["late"]}` + "\n", "not JSON\n"} {
		if n, err := c.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	if got := c.said(); got.Operations != 5 || len(got.Complaints) != 1 {
		t.Errorf("said: got %+v, want 5 operations and a complaint", got)
	}
}

func TestOptionsSayWhatIsAllowed(t *testing.T) {
	o := Options{Nodes: 2, Clients: 100, Duration: -1, Cycles: -1, RecoveryBound: -1, Faults: []string{"kill-one", "flood"}}
	err := o.complete()
	if err == nil {
		t.Fatal("want an error")
	}
	for _, want := range []string{"nodes 2: 3 to 9", "clients 100: 1 to 20", "duration", "cycles -1", "recovery bound", `fault "flood": allowed: all, kill-leader`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	all := Options{}
	if err := all.complete(); err != nil || len(all.Faults) < 20 || all.Nodes != 3 || all.RecoveryBound != time.Second {
		t.Errorf("the zero value: %v, %+v", err, all)
	}
	for _, name := range all.Faults {
		if k, _ := kindNamed(name); k.unpromised {
			t.Errorf("%s is among all, though it breaks what nobody promises to survive", name)
		}
	}
}

// TestAKindThatIsNamedMustBePossible: a run that leaves out what it was asked for
// would say that all is well.
func TestAKindThatIsNamedMustBePossible(t *testing.T) {
	const some, none = "kill-one", "fsync-fails"
	for _, row := range []struct {
		faults []string
		all    bool
		fails  bool
	}{
		{[]string{some}, false, false},
		{[]string{some, none}, false, true},
		{[]string{some, none}, true, false},
		{[]string{none}, true, true},
	} {
		r := testRun(t)
		r.o.Faults, r.o.all, r.o.Faultfs = row.faults, row.all, filepath.Join(t.TempDir(), "missing")
		kinds, _, err := r.choose()
		if (err != nil) != row.fails || err != nil && !strings.Contains(err.Error(), "fault fsync-fails is not possible here") {
			t.Errorf("%v, all %v: got %v, %v", row.faults, row.all, kinds, err)
		}
		if err == nil && !slices.Equal(kinds, []string{some}) {
			t.Errorf("%v, all %v: got %v, want %s alone", row.faults, row.all, kinds, some)
		}
	}
}

func TestKindsAreWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if seen[k.Name] || k.Name == "" || k.About == "" || k.strike == nil || colour(k.Family) == "" {
			t.Errorf("kind %+v: want a name of its own, a family that has a colour, and what it does", k)
		}
		seen[k.Name] = true
	}
}

func TestDamageIsDoneWhereSomethingWasWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "1.wal")
	content := append([]byte("some entries of a log"), make([]byte, 1000)...)
	for pick := range uint64(50) {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if what, err := flipBit(file, pick); err != nil || !strings.Contains(what, "1.wal") {
			t.Fatalf("flipBit: %q, %v", what, err)
		}
		got, err := os.ReadFile(file)
		if err != nil || len(got) != len(content) || string(got[21:]) != string(content[21:]) || string(got) == string(content) {
			t.Errorf("pick %d: want one bit of what was written changed, got %q, %v", pick, got[:21], err)
		}
		if _, err := cutOff(file, pick); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(file); err != nil || info.Size() >= 21 {
			t.Errorf("pick %d: cut off after %d bytes, %v, want less than 21", pick, info.Size(), err)
		}
	}
}

// TestARoundThatCannotBeCheckedIsNotRight: also if the run is then interrupted.
func TestARoundThatCannotBeCheckedIsNotRight(t *testing.T) {
	for name, script := range map[string]string{"a client that failed": "exit 3", "a client without a history": "exit 0"} {
		r := testRun(t)
		c := &clientProcess{history: r.path("history.json")}
		var err error
		c.Helper, err = proc.StartHelper(proc.HelperOptions{
			Name: "c1", LogPath: r.path("c1.log"), Stdout: c, Binary: "/bin/sh", Args: []string{"-c", script},
		})
		if err != nil {
			t.Fatal(err)
		}
		r.clients = []*clientProcess{c}
		r.endRound()
		if r.result.OK() || !strings.Contains(r.result.Broken[0].Text, "round 1 was not checked") {
			t.Errorf("%s: ok is %v, found %+v", name, r.result.OK(), r.result.Broken)
		}
	}
}
