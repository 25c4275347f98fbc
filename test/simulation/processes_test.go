package simulation

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// jsonPrefix begins the line with the figures of a process.
const jsonPrefix = "figures: "

// TestSeedsInProcesses runs -seeds seeds, each in a process of its own, two at a
// time: with the overlay of test/detsim, a seed then is what it is alone, whatever
// ran before it; and a run that ends its process is one that went wrong, too.
func TestSeedsInProcesses(t *testing.T) {
	if *seeds == 0 || *firstSeed == 0 {
		t.Skip("-seed and -seeds say which")
	}
	var (
		total totals
		mu    sync.Mutex // guards total and next
		next  = *firstSeed
		began = time.Now()
		wg    sync.WaitGroup
	)
	runtime.GOMAXPROCS(2) // here only: with one, as the overlay wants it, one waits for the other's process
	for range 2 {
		wg.Go(func() {
			for {
				mu.Lock()
				seed := next
				next++
				done := t.Failed() || seed >= *firstSeed+uint64(*seeds)
				mu.Unlock()
				if done {
					return
				}
				one, out, err := process(seed)
				mu.Lock()
				total.join(&one)
				if err != nil {
					t.Errorf("seed %d: %v\n%s", seed, err, out)
				}
				if total.Runs%20 == 0 {
					fmt.Println(total.String(*firstSeed, time.Since(began)))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	fmt.Println(total.String(*firstSeed, time.Since(began)))
}

// seedLimit ends a seed that hangs. With thousands of waiters, on a busy machine, a seed
// may take ten minutes.
const seedLimit = "30m"

// process runs one seed.
func process(seed uint64) (figures totals, out string, err error) {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestSimulation$", "-test.timeout", seedLimit, "-json",
		"-seed", strconv.FormatUint(seed, 10), "-seeds", "1", "-sim", virtual.String(), "-profile", *profile, "-keep", *keep)
	cmd.Env = os.Environ()
	if repeatable() {
		cmd.Env = append(cmd.Env, "LOCKNODE_DETSIM_SEED="+strconv.FormatUint(seed, 10))
	}
	all, err := cmd.CombinedOutput()
	for line := range bytes.Lines(all) {
		if after, ok := strings.CutPrefix(string(line), jsonPrefix); ok {
			if bad := json.Unmarshal([]byte(after), &figures); bad != nil && err == nil {
				err = bad
			}
		}
	}
	if err == nil && figures.Runs != 1 {
		err = fmt.Errorf("%d runs, want 1", figures.Runs)
	}
	return figures, string(all), err
}

// TestSeedRepeats is for the overlay: a seed has the same history in every
// process.
func TestSeedRepeats(t *testing.T) {
	if !repeatable() {
		t.Skip("only with the overlay: go run ./test/detsim ./test/simulation -run TestSeedRepeats -v")
	}
	for seed := range uint64(len(Profiles)) {
		want, out, err := process(1000 + seed)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", 1000+seed, err, out)
		}
		for range 2 {
			if got, _, err := process(1000 + seed); err != nil || got.History != want.History {
				t.Errorf("seed %d: history %s, then %s (%v)", 1000+seed, want.History, got.History, err)
			}
		}
	}
}
