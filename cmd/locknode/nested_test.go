package main

import (
	"slices"
	"strings"
	"testing"
)

func TestSurroundingLocksAreReadAsTheyAreWritten(t *testing.T) {
	want := []outerLock{{"a", 1}, {"two\nlines", 1 << 52}, {`"quoted" ünd ` + "\xff", 3}, {"", 4}}
	var lines []string
	for _, h := range want {
		lines = append(lines, h.String())
	}
	if got := surroundingLocks(strings.Join(lines, "\n")); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := surroundingLocks("\n1\n1 a\nx \"a\"\n-1 \"a\"\n2 \"b\"\n"); !slices.Equal(got, []outerLock{{"b", 2}}) {
		t.Errorf("of lines that make no sense: got %q, want the last", got)
	}
}
