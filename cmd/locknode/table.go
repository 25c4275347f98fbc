package main

import (
	"strings"

	"github.com/rivo/uniseg"

	"github.com/locknode/locknode/internal/quote"
)

// How text that others have chosen stands in a terminal: names, holders, reasons.

// quoteName leaves ordinary names as they are and quotes the others as Go does: what
// a stranger has put in there must not move the cursor, turn the line around or look
// like something that it is not.
func quoteName(name string) string { return quote.Name(name, nothing) }

// nothing stands in the cells of a table that are empty.
const nothing = "-"

// columnsApart is what there is between two columns at least.
const columnsApart = 2

// table prints rows under a heading, in columns as wide as the terminal shows them:
// letters of East Asia and emoji take two cells, combining marks none.
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

// widestName is how many cells a name gets in a table on a terminal.
const widestName = 48

// nameCell is a name in a table. On a terminal a long one loses its middle, or all
// rows would be as long as it; `get` and JSON have it in full.
func (a *app) nameCell(name string) string {
	name = quoteName(name)
	if !onTerminal(a.stdout) {
		return name
	}
	return shorten(name, widestName)
}

// shorten takes the middle out of text that is wider than so many cells.
func shorten(text string, width int) string {
	if uniseg.StringWidth(text) <= width {
		return text
	}
	head, _ := cut(text, (width-1)*2/3)
	_, tail := cut(text, uniseg.StringWidth(text)-(width-1-uniseg.StringWidth(head)))
	return head + "…" + tail
}

// cut parts text: head has at most width cells, and no letter is split.
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
