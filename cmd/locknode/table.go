package main

import (
	"strings"

	"github.com/rivo/uniseg"

	"github.com/locknode/locknode/internal/quote"
)

// Printing text that others have chosen: names, holders, reasons.

// quoteName returns ordinary names as they are, and others quoted as in Go: text that
// somebody else chose must not move the cursor, reverse the line or look like output of
// locknode.
func quoteName(name string) string { return quote.Name(name, nothing) }

// nothing is printed for an empty cell of a table.
const nothing = "-"

// columnsApart is the least number of cells between two columns.
const columnsApart = 2

// table prints rows under a heading, in aligned columns. Widths are counted in cells of a
// terminal: East Asian characters and emoji take two, combining marks none.
func (a *app) table(heading []string, rows [][]string) error {
	rows = append([][]string{heading}, rows...)
	widths := make([]int, len(heading))
	for _, row := range rows {
		for i, cell := range row {
			if cell == "" {
				row[i] = nothing
			}
			widths[i] = max(widths[i], uniseg.StringWidth(row[i]))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-uniseg.StringWidth(cell)+columnsApart))
			}
		}
		b.WriteByte('\n')
	}
	return a.printf("%s", b.String())
}

// widestName is the most cells that a name gets in a table on a terminal.
const widestName = 48

// nameCell is a name in a table. On a terminal the middle of a long name is left out, so
// that it does not widen all rows; `get` and JSON show it in full.
func (a *app) nameCell(name string) string {
	name = quoteName(name)
	if !onTerminal(a.stdout) {
		return name
	}
	return shorten(name, widestName)
}

// shorten leaves out the middle of text that is wider than width cells.
func shorten(text string, width int) string {
	if uniseg.StringWidth(text) <= width {
		return text
	}
	head, _ := cut(text, (width-1)*2/3)
	_, tail := cut(text, uniseg.StringWidth(text)-(width-1-uniseg.StringWidth(head)))
	return head + "…" + tail
}

// cut splits text so that head has at most width cells. It splits no character.
func cut(text string, width int) (head, tail string) {
	rest, state := text, -1
	for rest != "" {
		_, after, w, next := uniseg.FirstGraphemeClusterInString(rest, state)
		if width -= w; width < 0 {
			break
		}
		rest, state = after, next
	}
	return text[:len(text)-len(rest)], rest
}
