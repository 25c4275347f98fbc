package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOnlyWhatIsBetweenTheMarksIsReplaced(t *testing.T) {
	old := "before\n" + beginMark + "\nold\n" + endMark + "\nafter\n"
	want := "before\n" + beginMark + "\n\nnew\n\n" + endMark + "\nafter\n"
	got, err := between(old, "\nnew\n")
	if err != nil || got != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
	if again, err := between(got, "new"); err != nil || again != want {
		t.Errorf("the second time: %q, %v, want %q", again, err, want)
	}
}

func TestMarksThatAreMissingOrDoubleAreRefused(t *testing.T) {
	for _, doc := range []string{"", beginMark, endMark, endMark + beginMark, beginMark + beginMark + endMark, beginMark + endMark + endMark} {
		if got, err := between(doc, "new"); err == nil {
			t.Errorf("%q became %q, want an error", doc, got)
		}
	}
}

func TestTheDocumentHasTheMarks(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := between(string(text), "new"); err != nil {
		t.Errorf("%s %v", document, err)
	}
}

func TestWriteAddsTableAndPlots(t *testing.T) {
	file := filepath.Join(t.TempDir(), "performance.md")
	if err := os.WriteFile(file, []byte("# Speed\n\n"+beginMark+"\n"+endMark+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := example().write(file, "zookeeper is skipped: why"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# Speed\n", "| uncontended, 1, cycles/s | 12,000 (8.0×) |", "zookeeper is skipped: why", "too slow"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	for _, plot := range []string{"uncontended.svg", "rate.svg", "cpu.svg"} {
		if !strings.Contains(string(got), "(plots/"+plot+")") {
			t.Errorf("%s is not linked", plot)
		}
		svg, err := os.ReadFile(filepath.Join(filepath.Dir(file), "plots", plot))
		if err != nil || !strings.Contains(string(svg), "</svg>") {
			t.Errorf("%s: %v, %d bytes", plot, err, len(svg))
		}
	}
}

// A workload that nobody measured, or a CPU that is not known, is no reason to fail at the end.
func TestNothingToPlotIsNoError(t *testing.T) {
	p := &plan{rounds: 1, workloads: workloads(), systems: []*system{{name: "locknode", title: "Locknode"}}}
	if images, err := newResults(p).plots(t.TempDir()); err != nil || len(images) != 0 {
		t.Errorf("got %v, %v, want none", images, err)
	}
}
