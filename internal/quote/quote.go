// Package quote makes text of strangers fit to be shown.
//
// Names, holders, reasons, node IDs and the messages of other nodes come from whoever
// reaches a port. Printed as they are, they could move a terminal's cursor, clear its
// screen, turn a line around (U+202E) or begin a line that looks like one of ours. So all
// that is printed or put into an error passes one of the functions here. What they escape
// is what [unicode.IsPrint] does not take for printable: control and format characters,
// separators other than the space, what is not assigned, and bytes that are not UTF-8.
//
// All of them leave escaped text as it is, so that text may pass more than one: an error
// that quotes an error that quotes a name.
package quote

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Printable reports whether text may be shown as it is: it is UTF-8, and all of it can be
// printed.
func Printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Name leaves an ordinary name as it is and quotes the others as Go does: empty ones, and
// those that hold a quote, a backslash or what cannot be printed, or that begin or end
// with a space. reserved are names that mean something else where this one is to stand.
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

// HeldBy says who holds something, of n holders: the first three, each with a token, and how
// many more there are. It is how an error says it, whoever makes it.
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

// Text escapes in text what cannot be printed, the ends of lines included: what it
// returns is one line.
func Text(text string) string { return escape(text, `\n`) }

// Lines is Text, but lines may end, and all of them but the first are indented, so that
// none looks like a message of its own.
func Lines(text string) string { return escape(text, "\n  ") }

// Page is Text, but lines may end and tabs stay. It is the last net for what the caller
// has laid out, in which the text of others has passed one of the functions above.
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

// JSON escapes in JSON what cannot be printed, as \uXXXX: package json leaves most of it
// as it is. The ends of lines stay. The value is the same for everybody who decodes it.
// encoded must be JSON, which may have been written in parts, and is not changed.
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
