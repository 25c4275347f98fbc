package simulation

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/internal/proof/racedetector"
	"github.com/locknode/locknode/internal/proof/testall"
)

var (
	firstSeed = flag.Uint64("seed", 0, "run this seed first; 0: TEST_SEED, or one that nobody has seen")
	seeds     = flag.Int("seeds", 0, "how many seeds to run; 0: as many as fit into -budget")
	budget    = flag.Duration("budget", 4*time.Second, "real time for as many seeds as fit")
	virtual   = flag.Duration("sim", 2*time.Minute, "virtual time of load and faults for each seed")
	profile   = flag.String("profile", "", "run one profile: mixed, tight, modes, wide, five, addresses, misled, rights or a job; empty: each seed has its own")
	planFile  = flag.String("plan", "", "run the plan in this file")
	keep      = flag.String("keep", "", "directory for the plan, history and pictures of a run that goes wrong; empty: a temporary one")
	shrinkFor = flag.Duration("shrink", time.Minute, "real time for making the plan of a run that goes wrong smaller; 0: leave it")
	asJSON    = flag.Bool("json", false, "print figures for TestSeedsInProcesses")
	verbose   = flag.Bool("log", false, "print what nodes and clients log")
)

// run carries out a plan in a bubble of its own and judges it.
func run(t *testing.T, p Plan) (out *Outcome) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	if *verbose {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if repeatable() {
		cryptotest.SetGlobalRandom(t, p.Seed)
	}
	synctest.Test(t, func(t *testing.T) {
		// Virtual time costs little, so a run that waits for ever would go on until the
		// memory is used up.
		stuck := time.AfterFunc(2*p.Duration+time.Hour, func() {
			debug.SetTraceback("all")
			panic(fmt.Sprintf("seed %d: the run is not over after %v of virtual time: something waits for ever", p.Seed, 2*p.Duration+time.Hour))
		})
		defer stuck.Stop()
		var err error
		if out, err = Run(t.Context(), p, log); err != nil {
			t.Fatal(err)
		}
	})
	if out != nil {
		out.Judge()
	}
	return out
}

// repeatable reports whether the binary was built and started by test/detsim.
func repeatable() bool { return os.Getenv("LOCKNODE_DETSIM_SEED") != "" }

// warmUp is a short run that does not count: the first bubble of a process draws
// numbers for what is set up once.
func warmUp(t *testing.T) {
	p, err := NewPlan(1, "mixed", 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	run(t, p)
	runtime.GC()
}

// TestSimulation runs seeds. The same seed has the same plan each time.
func TestSimulation(t *testing.T) {
	if *profile == "addresses" && racedetector.ComplainsOfRaft() {
		t.Skip("addresses change under load; see racedetector.ComplainsOfRaft")
	}
	if repeatable() {
		warmUp(t)
	}
	if *planFile != "" {
		report(t, run(t, readPlan(t, *planFile)))
		return
	}
	first := *firstSeed
	if first == 0 {
		first = testall.Seed()
	}
	var total totals
	began := time.Now()
	for seed := first; total.more(*seeds, time.Since(began)); seed++ {
		p, err := NewPlan(seed, *profile, *virtual)
		if err != nil {
			t.Fatal(err)
		}
		if p.Profile == "addresses" && racedetector.ComplainsOfRaft() {
			continue
		}
		out := run(t, p)
		if out == nil || t.Failed() {
			t.Fatalf("seed %d did not run to its end", seed)
		}
		total.add(out)
		if *asJSON {
			fmt.Printf("%s%s\n", jsonPrefix, marshal(t, &total))
		}
		if len(out.Violations) > 0 {
			report(t, out)
			break
		}
	}
	if *asJSON {
		return
	}
	fmt.Println(total.String(first, time.Since(began)))
}

// report says what went wrong, keeps what is needed to look at it, and searches
// for a smaller plan.
func report(t *testing.T, out *Outcome) {
	t.Helper()
	if len(out.Violations) == 0 {
		t.Logf("no promise was broken: %+v", out.Stats)
		return
	}
	for _, v := range out.Violations {
		t.Errorf("%s (found by %s) %s: %s", v.Promise, v.Check, v.Lock, v.Text)
	}
	p := out.Plan
	replay := "go test ./test/simulation -run TestSimulation"
	if repeatable() {
		replay = fmt.Sprintf("go run ./test/detsim -seed %d ./test/simulation -run TestSimulation", p.Seed)
	}
	t.Errorf("replay: %s -seed %d -seeds 1 -profile %s -sim %v", replay, p.Seed, p.Profile, p.Duration)
	dir := keepOutcome(t, out)
	if *shrinkFor == 0 {
		return
	}
	small, runs := Shrink(out, *shrinkFor, func(p Plan) *Outcome { return run(t, p) })
	path := filepath.Join(dir, "small-plan.json")
	writeFile(t, path, marshal(t, small.Plan))
	t.Errorf("after %d runs %d of %d episodes are left; replay: %s -plan %s", runs, len(small.Plan.Episodes), len(p.Episodes), replay, path)
}

func keepOutcome(t *testing.T, out *Outcome) string {
	dir := *keep
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "locknode-simulation-"); err != nil {
			t.Fatal(err)
		}
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "plan.json"), marshal(t, out.Plan))
	var b bytes.Buffer
	if err := out.History.Write(&b); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "history.jsonl"), b.Bytes())
	for i, v := range out.Violations {
		var picture bytes.Buffer
		if v.Lock == "" || out.History.Picture(&picture, v.Lock) != nil {
			continue
		}
		writeFile(t, filepath.Join(dir, fmt.Sprintf("violation-%d.html", i+1)), picture.Bytes())
	}
	t.Errorf("plan, history and pictures: %s", dir)
	return dir
}

func writeFile(t *testing.T, path string, b []byte) {
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func marshal(t *testing.T, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readPlan(t *testing.T, path string) (p Plan) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatalf("plan %s: %v", path, err)
	}
	return p
}

func TestPlanIsAFunctionOfItsSeed(t *testing.T) {
	for seed := range uint64(50) {
		a, err := NewPlan(seed, "", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		b, err := NewPlan(seed, "", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(marshal(t, a), marshal(t, b)) {
			t.Errorf("seed %d has two plans", seed)
		}
	}
	for _, bad := range []struct {
		profile  string
		duration time.Duration
	}{{"weird", time.Hour}, {"", time.Second}} {
		if _, err := NewPlan(1, bad.profile, bad.duration); err == nil {
			t.Errorf("NewPlan(1, %q, %v): want an error", bad.profile, bad.duration)
		}
	}
}
