package fsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/proof/testall"
)

// replayer is the program that each build is made of.
const replayer = "github.com/locknode/locknode/internal/proof/tools/replay"

// longLog works a small table hard: at least 50,000 commands of all kinds, with
// deadlines, stamps of other terms and damaged entries; after five sixths of it the table comes
// to the level of rights. It also returns how many commands there are of each kind.
func longLog(entries int) (log []logged, kinds map[Kind]int) {
	gen := newGenerator(&byteSource{pseudoRandom(11, 200*entries)}, newModel())
	log = logOf(gen, entries, true)
	raise := raiseTo(Level)
	gen.model.run(raise)
	gen.source, gen.rights = &byteSource{pseudoRandom(12, 40*entries)}, true
	log = append(log, logged{1, encode(1, gen.model.now, 0, raise)})
	log = append(log, logOf(gen, entries/5, true)...)
	kinds = map[Kind]int{}
	for _, r := range log {
		e, err := DecodeEntry(r.data)
		if err != nil {
			continue
		}
		for _, c := range e.Commands {
			kinds[c.kind()]++
		}
	}
	return log, kinds
}

// writeLog writes a log as the golden log is written.
func writeLog(t *testing.T, log []logged) (path string) {
	t.Helper()
	var out []byte
	for i, r := range log {
		out = binary.BigEndian.AppendUint64(out, uint64(i+1))
		out = binary.BigEndian.AppendUint64(out, r.term)
		out = binary.BigEndian.AppendUint32(out, uint32(len(r.data)))
		out = append(out, r.data...)
	}
	path = filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// replayed is what the program prints for a log.
func replayed(log []logged, every int) string {
	var out strings.Builder
	table := New()
	for i, r := range log {
		a := table.Apply(uint64(i+1), r.term, r.data)
		if (i+1)%every == 0 {
			fmt.Fprintf(&out, "%d %016x\n", i+1, a.Digest)
		}
	}
	digest, index := table.Digest()
	fmt.Fprintf(&out, "end %d %016x %x\n", index, digest, table.Hash())
	return out.String()
}

// buildTakes is how long a build may take whose packages are not in the cache,
// on a machine that is also busy.
const buildTakes = 3 * time.Minute

// build is a way to build and run the program.
type build struct {
	name    string
	flags   []string // of go build
	env     []string // while it is built
	run     []string // while it runs
	args    []string
	through string // what runs programs of that architecture
	needs   func() error
}

func needs(arch string) func() error {
	return func() error {
		if runtime.GOOS != "linux" || runtime.GOARCH != arch {
			return fmt.Errorf("runs on linux/%s only", arch)
		}
		return nil
	}
}

func needsRace() error {
	if cgo, err := exec.Command("go", "env", "CGO_ENABLED").Output(); err != nil || strings.TrimSpace(string(cgo)) != "1" {
		return errors.New("the race detector needs cgo")
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		return errors.New("the race detector needs a C compiler")
	}
	return nil
}

func needsProgram(name string) func() error {
	return func() error {
		_, err := exec.LookPath(name)
		return err
	}
}

// builds are those that could differ, each for another reason: other code, other
// optimisations, other widths and orders of numbers, other instructions, other
// moments of the garbage collector, tables that were restored on the way.
var builds = []build{
	{name: "plain"},
	{name: "restored", args: []string{"-restore", "777"}},
	{name: "no garbage collection", run: []string{"GOGC=off", "GOMAXPROCS=1"}},
	{name: "much garbage collection", run: []string{"GOGC=5", "GODEBUG=gcstoptheworld=1"}},
	{name: "no special instructions", run: []string{"GODEBUG=cpu.all=off"}},
	{name: "not optimised", flags: []string{"-gcflags=github.com/locknode/locknode/...=-N -l"}},
	{name: "race detector", flags: []string{"-race"}, needs: needsRace},
	{name: "newer processors", env: []string{"GOAMD64=v3"}, needs: needs("amd64")},
	{name: "32 bits", env: []string{"GOARCH=386", "CGO_ENABLED=0"}, needs: needs("amd64")},
	{name: "32 bits, restored", env: []string{"GOARCH=386", "CGO_ENABLED=0"}, args: []string{"-restore", "777"}, needs: needs("amd64")},
	{name: "big endian", env: []string{"GOARCH=s390x", "CGO_ENABLED=0"}, through: "qemu-s390x", needs: needsProgram("qemu-s390x")},
}

// S9: the same log gives the same bytes of state on every build.
func TestEveryBuildGivesTheSameBytes(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program several times")
	}
	log, kinds := longLog(25_000)
	commands := 0
	for k := KindOpenSession; k <= KindConfigureRights; k++ {
		commands += kinds[k]
		if kinds[k] == 0 && k != removedKind {
			t.Errorf("the log has no command of kind %d", k)
		}
	}
	if commands < 50_000 {
		t.Errorf("the log has only %d commands", commands)
	}
	path, want := writeLog(t, log), replayed(log, 1000)
	for _, b := range builds {
		t.Run(b.name, func(t *testing.T) {
			if len(b.flags)+len(b.env)+len(b.run) > 0 {
				testall.Only(t, "builds or runs the program once more; the plain build runs always")
			}
			if b.needs != nil {
				if err := b.needs(); err != nil {
					t.Skip(err)
				}
			}
			if end, ok := t.Deadline(); ok && time.Until(end) < buildTakes {
				t.Skipf("%v are left before the test's time limit; a build can take %v here", time.Until(end).Round(time.Second), buildTakes)
			}
			sameLines(t, b.output(t, path), want)
		})
	}
	t.Logf("%d entries, %d commands; %s", len(log), commands, want[strings.LastIndex(want, "end "):])
}

// output builds the program, runs it, and returns what it prints.
func (b build) output(t *testing.T, log string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "replay")
	compile := exec.CommandContext(t.Context(), "go", append(append([]string{"build", "-o", binary}, b.flags...), replayer)...)
	compile.Env = append(os.Environ(), b.env...)
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	command := []string{binary}
	if b.through != "" {
		command = []string{b.through, binary}
	}
	command = append(append(command, b.args...), log)
	run := exec.CommandContext(t.Context(), command[0], command[1:]...)
	run.Env = append(os.Environ(), b.run...)
	var said bytes.Buffer
	run.Stderr = &said
	out, err := run.Output()
	if strings.Contains(said.String(), "This program can only be run on") {
		t.Skip(strings.TrimSpace(said.String()))
	}
	if err != nil {
		t.Fatalf("run: %v\n%s", err, &said)
	}
	return string(out)
}

func sameLines(t interface {
	Helper()
	Fatalf(string, ...any)
}, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	theirs, ours := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(theirs), len(ours)) {
		if theirs[i] != ours[i] {
			t.Fatalf("line %d is %q, want %q", i+1, theirs[i], ours[i])
		}
	}
	t.Fatalf("%d lines, want %d", len(theirs), len(ours))
}

// A log in which one number is another one must show in the first line after it,
// or the comparison above compares nothing.
func TestReplayTellsLogsApart(t *testing.T) {
	log, _ := longLog(2000)
	want := strings.Split(replayed(log, 100), "\n")
	changed := append([]logged(nil), log...)
	at := 1234
	for ; ; at++ { // an entry that is well and has a command
		if e, err := DecodeEntry(log[at].data); err == nil && len(e.Commands) > 0 && e.Term == log[at].term {
			changed[at] = logged{log[at].term, encode(e.Term, e.Stamp+1, e.Wall, e.Commands...)}
			break
		}
	}
	got := strings.Split(replayed(changed, 100), "\n")
	for i := range want {
		after := (i+1) > at/100 && want[i] != ""
		if (got[i] != want[i]) != after {
			t.Fatalf("entry %d differs; line %d is %q and %q", at+1, i+1, got[i], want[i])
		}
	}
}
