//go:build unix

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/proof/chaos"
	"github.com/locknode/locknode/internal/proof/testall"
)

// patient is a recovery bound that a busy machine keeps as well: these tests do not judge
// how fast a cluster recovers.
const patient = "30s"

func TestChaosBreaksProcessesAndReports(t *testing.T) {
	testall.Only(t, "breaks real processes for a while")
	dir := t.TempDir()
	page, facts, data := filepath.Join(dir, "report.html"), filepath.Join(dir, "report.json"), filepath.Join(dir, "data")
	o := locknodeAt(t, nil, "chaos", "--faults", "kill-leader,kill-all,pause-client,pause-one,reset,transfer", "--cycles", "6", "--seed", "42",
		"--recovery-bound", patient, "--dir", data, "--html", page, "--json", facts)
	o.succeeds(t)
	for _, want := range []string{"seed 42: ", "kill-all", "No promise was broken"} {
		if !strings.Contains(o.stdout, want) {
			t.Errorf("it printed\n%s\nwithout %q", o.stdout, want)
		}
	}
	var r chaos.Result
	b, err := os.ReadFile(facts)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	if r.Seed != 42 || len(r.Events) < 6 || len(r.Recoveries) < 6 || r.Checked.Ops == 0 || r.Checked.Grants == 0 || r.Kept == 0 {
		t.Errorf("the report says seed %d, %d faults, %d recoveries, %+v checked, %d kept", r.Seed, len(r.Events), len(r.Recoveries), r.Checked, r.Kept)
	}
	if b, err := os.ReadFile(page); err != nil || !strings.Contains(string(b), "locknode chaos, seed 42") {
		t.Errorf("the page: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(data, "history-*")); len(left) > 0 {
		t.Errorf("histories without a violation are left behind: %q", left)
	}
}

func TestLateRecoveryIsAFailureAndKeepsTheEvidence(t *testing.T) {
	testall.Only(t, "breaks real processes for a while")
	temp := t.TempDir()
	cmd := command(t, "locknode", "chaos", "--faults", "kill-one", "--cycles", "1", "--recovery-bound", "1ns")
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	r := start(t, cmd)
	line := r.await("LATE")
	if !strings.Contains(line, "fault 1, kill-one") {
		t.Errorf("it said %q, want which fault", line)
	}
	if line := r.await("logs and histories are in"); !strings.Contains(line, temp) || !strings.Contains(line, "Seed ") {
		t.Errorf("it said %q, want the seed and the directory", line)
	}
	if code := r.wait(); code != exitOther {
		t.Errorf("exit code: got %d, want %d", code, exitOther)
	}
	if left, _ := filepath.Glob(filepath.Join(temp, "*", "n1.log")); len(left) != 1 {
		t.Errorf("the logs: got %q, want them kept", left)
	}
}

func TestInterruptedChaosReportsWhatItHasFound(t *testing.T) {
	testall.Only(t, "breaks real processes for a while")
	temp := t.TempDir()
	cmd := command(t, "locknode", "chaos", "--faults", "pause-client", "--duration", "1h", "--recovery-bound", patient)
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	r := start(t, cmd)
	eventually(t, "client processes run", func() bool {
		logs, _ := filepath.Glob(filepath.Join(temp, "*", "c2.log"))
		return len(logs) > 0
	})
	time.Sleep(time.Second) // some operations
	r.signal(syscall.SIGINT)
	r.await("ended before its time")
	r.await("No promise was broken")
	if code := r.wait(); code != 0 {
		t.Errorf("exit code: got %d, want 0", code)
	}
	if left, _ := filepath.Glob(filepath.Join(temp, "*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestFaultsAreListed(t *testing.T) {
	t.Parallel()
	o := locknodeAt(t, nil, "chaos", "--list-faults").succeeds(t)
	for _, k := range chaos.Kinds() {
		if !strings.Contains(o.stdout, k.Name) {
			t.Errorf("%s is not listed", k.Name)
		}
	}
}

func TestDrillLosesNothingWithTokens(t *testing.T) {
	testall.Only(t, "pauses real processes for a while")
	o := locknodeAt(t, nil, "chaos", "--drill", "guarded-set", "--adds", "2000", "-o", "json")
	guarded := into[chaos.DrillResult](t, o)
	if guarded.Lost != 0 || guarded.Pauses == 0 || guarded.Adds != 2000 || !guarded.Guarded {
		t.Errorf("with tokens: got %+v, want holders paused and nothing lost", guarded)
	}
	o = locknodeAt(t, nil, "chaos", "--drill", "guarded-set", "--adds", "2000", "--unguarded", "-o", "json")
	if r := into[chaos.DrillResult](t, o); r.Lost == 0 || r.Guarded {
		t.Errorf("without tokens: got %+v, want some numbers lost: otherwise the drill shows nothing", r)
	}
}
