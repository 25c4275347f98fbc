package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// event is one of those that `go doc test2json` describes.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of what is built
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

// slowest is how many tests are listed for the time that they took.
const slowest = 10

// test is a test or, with an empty name, a package.
type test struct {
	pkg, name string
}

// parent is the test in which a subtest runs.
func (t test) parent() test {
	at := strings.LastIndexByte(t.name, '/')
	return test{t.pkg, t.name[:max(at, 0)]}
}

// String is what go test -run wants.
func (t test) String() string {
	if t.name == "" {
		return t.pkg
	}
	return t.pkg + " " + t.name
}

// took is how long a test took.
type took struct {
	test
	seconds float64
}

// report is what is known so far.
type report struct {
	out      io.Writer
	output   map[test]*strings.Builder // of what has not ended well
	running  map[test]bool
	failed   []test
	took     []took
	skipped  map[string]int // reason → how many tests
	builds   map[string]*strings.Builder
	packages int
	tests    int
}

func newReport(out io.Writer) *report {
	return &report{
		out: out, output: map[test]*strings.Builder{}, running: map[test]bool{},
		skipped: map[string]int{}, builds: map[string]*strings.Builder{},
	}
}

func add[K comparable](m map[K]*strings.Builder, key K, text string) {
	if m[key] == nil {
		m[key] = &strings.Builder{}
	}
	m[key].WriteString(text)
}

func (r *report) take(e event) {
	t := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		add(r.builds, e.ImportPath, e.Output)
	case "run":
		r.running[t] = true
	case "output":
		add(r.output, t, e.Output)
	case "pass", "skip", "fail":
		if e.Test == "" {
			r.packageDone(t, e)
			return
		}
		r.testDone(t, e)
	}
}

func (r *report) testDone(t test, e event) {
	r.tests++
	delete(r.running, t)
	switch e.Action {
	case "fail":
		r.failed = append(r.failed, t)
	case "skip":
		r.skipped[reason(r.output[t])]++
		delete(r.output, t)
	default:
		delete(r.output, t)
	}
	if !strings.Contains(t.name, "/") {
		r.took = append(r.took, took{t, e.Elapsed})
	}
}

// reason is the text of t.Skip in a test's output.
func reason(output *strings.Builder) string {
	if output == nil {
		return ""
	}
	for line := range strings.Lines(output.String()) {
		if text := strings.TrimSpace(line); text != "" && !strings.HasPrefix(text, "===") && !strings.HasPrefix(text, "---") {
			if _, after, ok := strings.Cut(text, ".go:"); ok { // file.go:12: reason
				_, text, _ = strings.Cut(after, ": ")
			}
			return text
		}
	}
	return ""
}

func (r *report) packageDone(t test, e event) {
	r.packages++
	verdict := map[string]string{"pass": "ok", "skip": "-", "fail": "FAIL"}[e.Action]
	fmt.Fprintf(r.out, "%-4s %s %.1fs\n", verdict, t.pkg, e.Elapsed)
	left := slices.SortedFunc(maps.Keys(r.running), func(a, b test) int { return cmp.Compare(a.name, b.name) })
	for _, x := range left {
		if x.pkg == t.pkg {
			delete(r.running, x)
			r.failed = append(r.failed, x)
		}
	}
	if e.Action != "fail" {
		delete(r.output, t)
		return
	}
	if e.FailedBuild != "" && r.builds[e.FailedBuild] != nil {
		add(r.output, t, r.builds[e.FailedBuild].String())
	}
	r.failed = append(r.failed, t)
}

// end prints the rest, failures last.
func (r *report) end() error {
	for t := range r.running { // of a package whose end was not told
		r.failed = append(r.failed, t)
	}
	slices.SortStableFunc(r.took, func(a, b took) int { return cmp.Compare(b.seconds, a.seconds) })
	for _, t := range r.took[:min(slowest, len(r.took))] {
		fmt.Fprintf(r.out, "slow: %.1fs %s\n", t.seconds, t.test)
	}
	for _, why := range slices.Sorted(maps.Keys(r.skipped)) {
		fmt.Fprintf(r.out, "skipped: %d × %s\n", r.skipped[why], why)
	}
	fmt.Fprintf(r.out, "%d tests in %d packages, %d skipped\n", r.tests, r.packages, sum(r.skipped))
	if r.packages == 0 {
		return errors.New("no package was tested")
	}
	if len(r.failed) == 0 {
		return nil
	}
	var names []string
	for _, t := range r.failed {
		if t.name == "" && r.hasFailedTest(t.pkg) && r.output[t] == nil {
			continue // a package only says again that a test has failed
		}
		fmt.Fprintf(r.out, "\nFAILED: %s\n", t)
		if text := r.output[t]; text != nil {
			fmt.Fprint(r.out, text)
		}
		if (t.name != "" || !r.hasFailedTest(t.pkg)) && !r.hasFailedSubtest(t) {
			names = append(names, t.String())
		}
	}
	return fmt.Errorf("failed: %s", strings.Join(names, ", "))
}

func (r *report) hasFailedTest(pkg string) bool {
	return slices.ContainsFunc(r.failed, func(t test) bool { return t.pkg == pkg && t.name != "" })
}

func (r *report) hasFailedSubtest(t test) bool {
	return slices.ContainsFunc(r.failed, func(sub test) bool { return sub.name != "" && sub.parent() == t && t.name != "" })
}

func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}
