package main

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

var nan = math.NaN()

func TestMedianIsThatOfTheValuesThatAreThere(t *testing.T) {
	for _, c := range []struct {
		all  []float64
		want float64
	}{
		{nil, nan}, {[]float64{nan, nan}, nan},
		{[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 2}, 2}, {[]float64{4, nan, 1, 2, 100}, 3},
	} {
		before := slices.Clone(c.all)
		if got := median(c.all); !same(got, c.want) {
			t.Errorf("median(%v) = %v, want %v", before, got, c.want)
		}
		if !slices.EqualFunc(before, c.all, same) {
			t.Errorf("median changed %v into %v", before, c.all)
		}
	}
}

func same(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }

// A machine that is half as fast in one round changes no ratio: both systems are slow then.
func TestRatioIsTakenWithinRounds(t *testing.T) {
	for _, c := range []struct {
		of, to []float64
		want   float64
	}{
		{[]float64{80, 40, 80}, []float64{10, 5, 10}, 8},
		{[]float64{80, nan, 30}, []float64{10, 5, nan}, 8},
		{[]float64{80}, nil, nan},
		{[]float64{80}, []float64{0}, nan},
	} {
		if got := ratio(c.of, c.to); !same(got, c.want) {
			t.Errorf("ratio(%v, %v) = %v, want %v", c.of, c.to, got, c.want)
		}
	}
}

// example has two workloads and three systems, of which the last has no CPU and only the first workload.
func example() *results {
	all := workloads()
	p := &plan{rounds: 3, duration: time.Second, workloads: []workload{all[0], all[6]},
		systems: []*system{{name: "locknode", title: "Locknode"}, {name: "etcd", title: "etcd"}, {name: "other", title: "Other"}}}
	r := newResults(p)
	for round, speed := range []float64{1, 0.5, 1} {
		for _, w := range p.workloads {
			r.add(p.systems[0], w, round, sample{Rate: 12_000 * speed, CPU: 100 * time.Millisecond})
			r.add(p.systems[1], w, round, sample{Rate: 1_500 * speed, CPU: 800 * time.Millisecond})
		}
	}
	r.add(p.systems[2], p.workloads[0], 1, sample{Rate: 7.5, CPU: -1, Failed: 1234, First: errors.New("too slow")})
	return r
}

func TestTableHasMediansAndRatios(t *testing.T) {
	want := [][]string{
		{"median (ratio to etcd)", "Locknode", "etcd", "Other", "spread"},
		{"uncontended, 1, cycles/s", "12,000 (8.0×)", "1,500", "7.5 (0.010×)", "50 %"},
		{"– server CPU, ms per 1,000", "100 (0.12×)", "800", "–", "0 %"},
		{"stale, 64, reads/s", "12,000 (8.0×)", "1,500", "–", "50 %"},
	}
	got := example().table()
	if got[3][0] != "read, 64, reads/s" {
		t.Errorf("row 3 is %q", got[3])
	}
	got[3][0] = want[3][0]
	for i := range want {
		if !slices.Equal(got[i], want[i]) {
			t.Errorf("row %d is %q, want %q", i, got[i], want[i])
		}
	}
}

func TestColumnsAreAlignedInText(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(text(example().table())), "\n")
	for _, line := range lines[1:] {
		if a, b := len([]rune(lines[0])), len([]rune(line)); a != b {
			t.Errorf("%q is %d wide, %q is %d", lines[0], a, line, b)
		}
	}
}

func TestMarkdownRowsHaveAsManyCells(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(markdown(example().table())), "\n")
	if len(lines) != 6 || !strings.HasPrefix(lines[1], "|---|") {
		t.Fatalf("%q", lines)
	}
	for _, line := range lines {
		if n := strings.Count(line, "|"); n != 6 {
			t.Errorf("%q has %d bars, want 6", line, n)
		}
	}
}

func TestFailedStepsAreNamed(t *testing.T) {
	got := example().remarks()
	if len(got) != 1 || !strings.Contains(got[0], "other, uncontended-1: 1,234 failed") || !strings.Contains(got[0], "too slow") {
		t.Errorf("%q", got)
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0.0", 9.94: "9.9", 10.4: "10", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestCPUIsReadAfterAnyName(t *testing.T) {
	const tail = ") S 1 2 3 4 5 6 7 8 9 10 250 50 13 14"
	for stat, want := range map[string]time.Duration{"1 (redis" + tail: 3 * time.Second, "1 (a) b (c" + tail: 3 * time.Second} {
		if got, ok := cpuIn([]byte(stat)); !ok || got != want {
			t.Errorf("cpuIn(%q) = %v, %v, want %v", stat, got, ok, want)
		}
	}
	for _, stat := range []string{"", "1 (x", "1 (x) S 1 2", "1 (x) S 1 2 3 4 5 6 7 8 9 10 x 50 13"} {
		if got, ok := cpuIn([]byte(stat)); ok {
			t.Errorf("cpuIn(%q) = %v, want none", stat, got)
		}
	}
}
