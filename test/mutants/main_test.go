package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/internal/proof/testall"
)

// TestEveryMutantFitsTheSource builds nothing: it fails if the place of a mutant in the
// source is gone, or its test, so that this is noticed before a run of all mutants.
func TestEveryMutantFitsTheSource(t *testing.T) {
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := check(root, all()); err != nil {
		t.Error(err)
	}
	if n := len(all()); n < 24 {
		t.Errorf("there are %d mutants, want 24 at least", n)
	}
}

// TestTableInTheDocumentsHasEveryMutant compares docs/testing.md with the list: each mutant
// has a row, with what goes wrong and which promise breaks, and there are no other rows.
func TestTableInTheDocumentsHasEveryMutant(t *testing.T) {
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "testing.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), tableHead)
	if !ok {
		t.Fatalf("docs/testing.md has no table with the head\n%s", tableHead)
	}
	want := make(map[string]mutant)
	for _, m := range all() {
		want[m.name] = m
	}
	found := make(map[string]bool)
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| ") {
			break
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		name := strings.TrimSpace(cells[0])
		m, ok := want[name]
		switch {
		case !ok:
			t.Errorf("mutant %s is in the table and does not exist", name)
		case len(cells) != 5 || cells[1] != m.breaks || cells[2] != m.promise:
			t.Errorf("mutant %s: the table has %q, want %q and %q", name, cells, m.breaks, m.promise)
		}
		found[name] = true
	}
	for _, m := range all() {
		if !found[m.name] {
			t.Errorf("mutant %s is not in the table: go run ./test/mutants -list -markdown -run '^%s$' prints its row", m.name, m.name)
		}
	}
}

// A package that is missing in the list would have its failures written beside the source.
func TestEveryPackageThatDrawsIsKnown(t *testing.T) {
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "*", "*_test.go"))
	deeper, err2 := filepath.Glob(filepath.Join(root, "*", "*", "*_test.go"))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range append(files, deeper...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pkg, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("\n\t\"pgregory.net/rapid\"\n")) && !slices.Contains(found, "./"+pkg) {
			found = append(found, "./"+pkg)
		}
	}
	if slices.Sort(found); !slices.Equal(found, drawing) {
		t.Errorf("packages %q have tests of rapid, the list has %q", found, drawing)
	}
}

// world is a module with a function, its tests, and mutants of it.
func world(t *testing.T) (root string, list map[string]mutant) {
	t.Helper()
	testall.Only(t, "builds many tests")
	root = t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.com/m\n\ngo 1.26\n",
		"sum.go": "package m\n\n// Sum adds.\nfunc Sum(a, b int) int { return a + b }\n\nvar unused = 1\n",
		"sum_test.go": `package m

import "testing"

func TestSum(t *testing.T) {
	if got := Sum(2, 3); got != 5 {
		t.Errorf("Sum(2, 3) = %d, want 5", got)
	}
}

func TestNothing(t *testing.T) {}

func TestBroken(t *testing.T) { t.Error("always") }

func TestSkipped(t *testing.T) { t.Skip("not here") }
`,
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOFLAGS", "")
	t.Setenv("GOWORK", "off")
	list = make(map[string]mutant)
	for _, m := range []mutant{
		{name: "difference", changes: []change{{"sum.go", "a + b", "a - b"}}, caught: []catcher{named(".", "TestSum")}},
		{name: "panic", changes: []change{{"sum.go", "return a + b", `panic("sum")`}}, caught: []catcher{named(".", "TestSum")}},
		{name: "endless", changes: []change{{"sum.go", "return a + b", "for { a++ }"}}, caught: []catcher{named(".", "TestSum")}},
		{name: "harmless", changes: []change{{"sum.go", "a + b", "b + a"}}, caught: []catcher{named(".", "TestSum")}},
		{name: "blind", changes: []change{{"sum.go", "a + b", "a - b"}}, caught: []catcher{named(".", "TestNothing")}},
		{name: "stale", changes: []change{{"sum.go", "a * b", "a - b"}}, caught: []catcher{named(".", "TestSum")}},
		{name: "ambiguous", changes: []change{{"sum.go", "b", "c"}}, caught: []catcher{named(".", "TestSum")}},
		{name: "unbuildable", changes: []change{{"sum.go", "a + b", "a + c"}}, caught: []catcher{named(".", "TestSum")}},
		{name: "untested", changes: []change{{"sum.go", "a + b", "a - b"}}, caught: []catcher{named(".", "TestProduct")}},
		{name: "failing-anyway", changes: []change{{"sum.go", "a + b", "a - b"}}, caught: []catcher{named(".", "TestBroken")}},
		{name: "skipped", changes: []change{{"sum.go", "a + b", "a - b"}}, caught: []catcher{named(".", "TestSkipped")}},
	} {
		m.breaks, m.promise = "the sum is wrong", "S1"
		list[m.name] = m
	}
	return root, list
}

func TestVerdicts(t *testing.T) {
	root, list := world(t)
	for _, tt := range []struct {
		name string
		out  string // part of what is printed
		err  string // part of the error; empty: none
		code int
	}{
		{"difference", "TestSum", "", 0},
		{"panic", "TestSum", "", 0},
		{"endless", "HUNG", "not caught: endless", 1},
		{"harmless", "SURVIVED", "not caught: harmless", 1},
		{"blind", "SURVIVED", "not caught: blind", 1},
		{"stale", "", "anchor is found 0 times", 2},
		{"ambiguous", "", "anchor is found 2 times", 2},
		{"unbuildable", "", "undefined: c", 2},
		{"untested", "", "no test was run", 2},
		{"failing-anyway", "", "does not pass without a mutant", 2},
		{"skipped", "", "all were skipped", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			err := tryAll(t.Context(), root, []mutant{list[tt.name]}, settings{timeout: 2 * time.Second}, &out)
			if got := exitCode(err); got != tt.code {
				t.Errorf("exit code %d for %v, want %d", got, err, tt.code)
			}
			if tt.err == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
			if !strings.Contains(out.String(), tt.out) {
				t.Errorf("printed %q, want %q in it", out.String(), tt.out)
			}
		})
	}
	b, err := os.ReadFile(filepath.Join(root, "sum.go"))
	if err != nil || !strings.Contains(string(b), "return a + b }") {
		t.Errorf("the source: got %q, %v, want it unchanged", b, err)
	}
}

func TestOneSurvivorAmongManyIsTold(t *testing.T) {
	root, list := world(t)
	var out bytes.Buffer
	err := tryAll(t.Context(), root, []mutant{list["difference"], list["harmless"], list["panic"]}, settings{timeout: 10 * time.Second, markdown: true}, &out)
	if !errors.Is(err, errSurvived) || !strings.Contains(err.Error(), "harmless") || strings.Contains(err.Error(), "panic") {
		t.Errorf("error %v, want one that names the survivor alone", err)
	}
	rows := 0
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "| ") {
			rows++
			if n := strings.Count(line, "|"); n != 6 {
				t.Errorf("row %q has %d bars, want 6", line, n)
			}
		}
	}
	if rows != 4 {
		t.Errorf("the table has %d rows with its head, want 4:\n%s", rows, out.String())
	}
}

func TestFaultyListsAreRefused(t *testing.T) {
	root, list := world(t)
	good := list["difference"]
	if err := check(root, []mutant{good}); err != nil {
		t.Fatalf("check of a good list: %v", err)
	}
	altered := func(f func(*mutant)) []mutant {
		m := good
		f(&m)
		return []mutant{m}
	}
	for want, faulty := range map[string][]mutant{
		"the name is used twice":  {good, good},
		"lower case words":        altered(func(m *mutant) { m.name = "Big Bug" }),
		"promise":                 altered(func(m *mutant) { m.promise = "" }),
		"caught must be set":      altered(func(m *mutant) { m.caught = nil }),
		"mutant stale is stale":   {list["stale"]},
		"has no test":             {list["untested"]},
		"no such file":            altered(func(m *mutant) { m.changes = []change{{"gone.go", "a", "b"}} }),
		"error parsing regexp":    altered(func(m *mutant) { m.caught = []catcher{{pkg: ".", run: "("}} }),
		"package ./gone has no":   altered(func(m *mutant) { m.caught = []catcher{named("./gone", "TestSum")} }),
		"ambiguous is stale: ":    {list["ambiguous"]},
		"mutant difference: pack": altered(func(m *mutant) { m.caught = []catcher{named(".", "TestProduct")} }),
	} {
		if err := check(root, faulty); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("check = %v, want an error with %q", err, want)
		}
	}
}

func TestFlagsAreChecked(t *testing.T) {
	for _, args := range [][]string{{"-slice", "-1"}, {"-timeout", "0s"}, {"-run", "("}, {"x"}, {"-what"}, {"-run", "no such mutant"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); exitCode(err) != 2 {
			t.Errorf("run(%q) = %v, want exit code 2", args, err)
		}
	}
}

func TestListNamesEveryMutant(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-list"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	lines := slices.Collect(strings.Lines(out.String()))
	if len(lines) != len(all()) {
		t.Errorf("-list prints %d lines, want %d", len(lines), len(all()))
	}
}

func TestEndOfTheContextIsNoVerdict(t *testing.T) {
	root, list := world(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Second, cancel)
	m := list["endless"]
	r := &runner{root: root, work: t.TempDir(), timeout: time.Minute}
	if o, err := r.try(ctx, &m, m.caught[0]); err == nil {
		t.Errorf("try = %+v, want the error of its context", o)
	}
}
