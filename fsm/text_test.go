package fsm

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// obscure is the same rule as Plain's, from the tables of this version of Go.
func obscure(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control)
}

// modelPlain is Plain for the model.
func modelPlain(s string) bool { return utf8.ValidString(s) && !strings.ContainsFunc(s, obscure) }

func TestPlainTextHasNoControlCharacters(t *testing.T) {
	for r := range rune(unicode.MaxRune + 1) {
		if !utf8.ValidRune(r) {
			continue
		}
		if got, want := Plain("a"+string(r)+"b"), !obscure(r); got != want {
			t.Errorf("Plain with %U: %v, want %v", r, got, want)
		}
	}
	for s, want := range map[string]bool{
		"": true, "orders/42": true, "größe 注文 🔒": true, "\ufffd": true, "👨\u200d👩": true,
		"\xff": false, "a\xc3": false, "\xed\xa0\x80": false, "a\n": false, "\x00": false, "\u202etxt": false,
	} {
		if got := Plain(s); got != want {
			t.Errorf("Plain(%q) = %v, want %v", s, got, want)
		}
	}
}

// Whatever is said in a command in words is refused if it is not plain, and nothing changes.
func TestTextThatIsNotPlainIsRefused(t *testing.T) {
	const bad = "a\u202eb"
	session := genSession(7)
	label := func(k, v string) []Label { return []Label{{Key: k, Value: v}} }
	id := RequestID{Session: session, Sequence: 2}
	wants := func(name string) []Want { return []Want{{Lock: name, Mode: Exclusive}} }
	for _, c := range []struct {
		field   string
		command Command
	}{
		{"lock", Acquire{ID: id, Wants: wants(bad)}},
		{"lock", Acquire{ID: id, Wants: wants("a\x00")}},
		{"lock", Acquire{ID: id, Wants: wants("a\nb")}},
		{"holder", Acquire{ID: id, Wants: wants("a"), TTL: 10 * second, Detached: true, Holder: bad}},
		{"labels", Acquire{ID: id, Wants: wants("a"), TTL: 10 * second, Detached: true, Labels: label("k", bad)}},
		{"holder", OpenSession{Session: genSession(8), TTL: 10 * second, Holder: bad}},
		{"labels", OpenSession{Session: genSession(8), TTL: 10 * second, Labels: label("k", bad)}},
		{"labels", OpenSession{Session: genSession(8), TTL: 10 * second, Labels: label(bad, "v")}},
		{"reason", ForceRelease{Lock: "a", Reason: bad}},
		{"who", ForceRelease{Lock: "a", Who: bad}},
		{"reason", KillSession{Session: session, Reason: bad}},
		{"who", KillSession{Session: session, Who: bad}},
	} {
		b := newBench(t)
		b.open(7, 60*second)
		b.want(b.one(0, inSession(7, 1, 0, "held")), OK)
		r := b.one(0, c.command)
		if r.Code != Invalid || r.Field != c.field || !strings.Contains(r.Detail, "without control characters") {
			t.Errorf("%T with %q: %+v, want invalid %s", c.command, bad, r, c.field)
		}
	}
}
