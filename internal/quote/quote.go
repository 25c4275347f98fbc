// Package quote makes text of others safe to print.
//
// Names, holders, reasons, node IDs and the messages of other nodes come from any process that
// reaches a port. Printed unchanged, they could move a terminal's cursor, clear its
// screen, reverse a line (U+202E) or begin a line that looks like one of this program. So all
// that is printed or put into an error passes one of the functions here. They escape
// what [unicode.IsPrint] does not count as printable: control and format characters,
// separators other than the space, unassigned code points, and bytes that are not UTF-8.
//
// They do not change escaped text, so that a text may pass several of them: an error
// that quotes an error that quotes a name. All are safe for concurrent use.
package quote

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Printable reports whether text may be printed unchanged: it is UTF-8, and all of it can be
// printed.
func Printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Name returns an ordinary name unchanged and quotes the others as Go does: empty ones,
// those with a quote, a backslash or what cannot be printed, those that begin or end
// with a space, and reserved ones, which mean something else at the place where the name is
// printed.
func Name(name string, reserved ...string) string {
	ordinary := name != "" && len(strconv.Quote(name)) == len(name)+2 && strings.TrimSpace(name) == name
	for _, r := range reserved {
		ordinary = ordinary && name != r
	}
	if !ordinary {
		return strconv.Quote(name)
	}
	return name
}

// HeldBy returns the text for n holders in an error: the first three, each with its token, and
// how many more there are.
func HeldBy(n int, holder func(i int) (name string, token uint64)) string {
	if n == 0 {
		return "held by another"
	}
	var names []string
	for i := range min(n, 3) {
		name, token := holder(i)
		names = append(names, fmt.Sprintf("%q (token %d)", name, token))
	}
	text := "held by " + strings.Join(names, ", ")
	if more := n - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// Text escapes what cannot be printed in text, including the ends of lines: it returns one
// line.
func Text(text string) string { return escape(text, `\n`) }

// Lines is Text, but keeps the ends of lines, and indents all lines after the first, so that
// none looks like a message of its own.
func Lines(text string) string { return escape(text, "\n  ") }

// Page is Text, but keeps the ends of lines and tabs. It is a last check for a whole page that
// the caller has laid out, in which the text of others has passed one of the functions above.
func Page(text string) string {
	parts := strings.Split(text, "\t")
	for i := range parts {
		parts[i] = escape(parts[i], "\n")
	}
	return strings.Join(parts, "\t")
}

func escape(text, newline string) string {
	if plain(text) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == '\n':
			b.WriteString(newline)
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += size
	}
	return b.String()
}

// plain reports whether text is printable ASCII.
func plain[T string | []byte](text T) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// JSON escapes what cannot be printed in JSON, as \uXXXX: package json leaves most of it
// unchanged. The ends of lines stay. The decoded value is the same. encoded must be
// JSON, also one part of a document that is written in parts, and is not changed.
func JSON(encoded []byte) []byte {
	first := 0 // the first byte that is not plain
	for first < len(encoded) && (encoded[first] == '\n' || plain(encoded[first:first+1])) {
		first++
	}
	if first == len(encoded) {
		return encoded
	}
	out := append(make([]byte, 0, len(encoded)+len(encoded)/8), encoded[:first]...)
	for rest := encoded[first:]; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r == '\n', unicode.IsPrint(r) && (r != utf8.RuneError || size > 1):
			out = append(out, rest[:size]...)
		case r >= 0x10000:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		rest = rest[size:]
	}
	return out
}
