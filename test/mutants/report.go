package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// report prints the outcomes one by one.
type report struct {
	w        io.Writer
	markdown bool
	width    int // of the names
	tried    int
	missed   []string
	slowest  time.Duration
	began    time.Time
}

func newReport(w io.Writer, list []mutant, markdown bool) *report {
	r := &report{w: w, markdown: markdown, began: time.Now()}
	for i := range list {
		r.width = max(r.width, len(list[i].name))
	}
	if markdown {
		_, _ = fmt.Fprint(w, tableHead)
	}
	return r
}

// tableHead is the head of the table in docs/testing.md.
const tableHead = "| deliberate bug | what goes wrong | breaks | caught by | after |\n|---|---|---|---|---|\n"

// row is a row of that table.
func row(m *mutant, by, after string) string {
	return fmt.Sprintf("| %s | %s | %s | %s | %s |\n", m.name, m.breaks, m.promise, by, after)
}

func (r *report) add(o outcome) {
	r.tried++
	word := o.told()
	if o.verdict == caught {
		r.slowest = max(r.slowest, o.took)
	} else {
		r.missed = append(r.missed, o.mutant.name)
	}
	if r.markdown {
		_, _ = fmt.Fprint(r.w, row(o.mutant, quoted(o.by()), word))
		return
	}
	_, _ = fmt.Fprintf(r.w, "%-*s  %-7s  %-10s  %s\n", r.width, o.mutant.name, o.mutant.promise, word, o.by())
}

// end returns errSurvived if a mutant was not caught.
func (r *report) end() error {
	if len(r.missed) > 0 {
		return fmt.Errorf("%w: %s", errSurvived, strings.Join(r.missed, ", "))
	}
	if !r.markdown {
		_, _ = fmt.Fprintf(r.w, "all %d were caught, the slowest after %s; %s with building\n",
			r.tried, seconds(r.slowest), time.Since(r.began).Round(time.Second))
	}
	return nil
}

// told returns how long it took to catch the mutant, or why it was not caught.
func (o outcome) told() string {
	switch o.verdict {
	case survived:
		return "SURVIVED"
	case hung:
		return "HUNG"
	}
	return seconds(o.took)
}

// by returns the package and the test that failed, or that should have failed.
func (o outcome) by() string {
	if o.test == "" {
		return o.catcher.String()
	}
	return strings.TrimPrefix(o.catcher.pkg, "./") + " " + o.test
}

// quoted returns a catcher with its package as code.
func quoted(catcher string) string {
	pkg, test, _ := strings.Cut(catcher, " ")
	return "`" + pkg + "` " + test
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func printList(w io.Writer, list []mutant) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := range list {
		m := &list[i]
		var by []string
		for _, c := range m.caught {
			by = append(by, c.String())
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", m.name, m.promise, m.breaks, strings.Join(by, "; "))
	}
	return t.Flush()
}

// printRows prints the table without running anything: a row for each catcher, with no time.
func printRows(w io.Writer, list []mutant) error {
	text := tableHead
	for i := range list {
		for _, c := range list[i].caught {
			text += row(&list[i], quoted(c.String()), "-")
		}
	}
	_, err := io.WriteString(w, text)
	return err
}
