package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// table has a row of rates and one of CPU for each workload. Its first row is the header.
func (r *results) table() [][]string {
	header := []string{"median (ratio to " + baseline + ")"}
	for _, s := range r.plan.systems {
		header = append(header, s.title)
	}
	rows := [][]string{append(header, "spread")}
	for _, w := range r.plan.workloads {
		rows = append(rows,
			r.row(fmt.Sprintf("%s, %d, %s", w.kind, w.workers, w.unit), w, r.rates),
			r.row("– server CPU, ms per 1,000", w, r.cpus))
	}
	return rows
}

// row has a value for each system, and the largest spread of them.
func (r *results) row(title string, w workload, of func(string, workload) []float64) []string {
	row, widest := []string{title}, math.NaN()
	base := of(baseline, w)
	for _, s := range r.plan.systems {
		all := of(s.name, w)
		row = append(row, value(median(all), ratio(all, base), s.name != baseline))
		if far := spread(all); !(far <= widest) && !math.IsNaN(far) {
			widest = far
		}
	}
	if math.IsNaN(widest) {
		return append(row, "–")
	}
	return append(row, fmt.Sprintf("%.0f %%", widest*100))
}

func value(v, ratio float64, withRatio bool) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case !withRatio || math.IsNaN(ratio):
		return number(v)
	}
	return fmt.Sprintf("%s (%s×)", number(v), short(ratio))
}

// number has a comma between thousands, and a decimal where it is small.
func number(v float64) string {
	if v < 10 {
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	digits := strconv.FormatFloat(v, 'f', 0, 64)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// short has two digits or more.
func short(v float64) string {
	switch {
	case v < 0.1:
		return strconv.FormatFloat(v, 'f', 3, 64)
	case v < 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// text is the table for a terminal.
func text(rows [][]string) string {
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, c := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if i == 0 {
				b.WriteString(c + pad)
			} else {
				b.WriteString("  " + pad + c)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// markdown is the table for a document.
func markdown(rows [][]string) string {
	var b strings.Builder
	for i, row := range rows {
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		if i == 0 {
			b.WriteString("|---" + strings.Repeat("|---:", len(row)-1) + "|\n")
		}
	}
	return b.String()
}

// remarks has a line for each system and workload of which steps failed.
func (r *results) remarks() []string {
	var lines []string
	for _, w := range r.plan.workloads {
		for _, s := range r.plan.systems {
			var failed int64
			var first error
			for _, got := range r.samples[cell{s.name, w.name}] {
				if got != nil && got.Failed > 0 {
					failed += got.Failed
					first = got.First
				}
			}
			if failed > 0 {
				lines = append(lines, fmt.Sprintf("%s, %s: %s failed in all rounds, for example: %v", s.name, w.name, number(float64(failed)), first))
			}
		}
	}
	return lines
}
