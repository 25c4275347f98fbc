package fsm

import "unicode/utf8"

// Plain reports whether s may be a lock's name, a holder, a label's key or value, a reason
// or who did something: UTF-8 without control characters, line and paragraph separators
// and characters that change the direction of text. Such text would be read by people who
// cannot see what is in it, and by programs that keep one thing to a line.
//
// The ranges stand here and are not taken from package unicode, because all nodes have to
// agree on what a command does, whatever version of Go they were built with. They are
// general categories Cc, Zl and Zp and property Bidi_Control, of which Unicode promises
// that the first never changes. Never changed: it would make another table of the same log.
func Plain(s string) bool {
	for i, r := range s {
		switch {
		case r < 0x20, r >= 0x7f && r <= 0x9f, // C0, DEL, C1
			r == 0x2028, r == 0x2029, // line and paragraph separator
			r == 0x061c, r == 0x200e, r == 0x200f, // marks of direction
			r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069: // embeddings, overrides, isolates
			return false
		case r == utf8.RuneError:
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return false // not UTF-8
			}
		}
	}
	return true
}

// fits reports whether s is plain text of at most so many bytes.
func fits(s string, most int) bool { return len(s) <= most && Plain(s) }
