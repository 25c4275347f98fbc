package quote

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// harmless reports whether a terminal shows text as letters in one direction.
func harmless(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

var hostile = []string{
	"\x1b[31mred", "a\x00b", "one\ntwo", "\rover", "\u202eback", "\u2066iso\u2069", "c1 \u009b31m", "del \x7f",
	"\xff\xfe", "\u2028line", "tag \U000e0041", "nbsp\u00a0", "\ufeffbom", "a\\nb", `"quoted"`, " space ", "", "-",
	"ordinary", "größer 🔒", strings.Repeat("x", 300),
}

func TestWhatIsShownCanBePrinted(t *testing.T) {
	for _, s := range hostile {
		for name, f := range map[string]func(string) string{"Name": func(s string) string { return Name(s) }, "Text": Text} {
			if got := f(s); !harmless(got) {
				t.Errorf("%s(%q) = %q, which cannot be printed", name, s, got)
			}
		}
		for i, line := range strings.Split(Lines(s), "\n") {
			if !harmless(line) || i > 0 && !strings.HasPrefix(line, "  ") {
				t.Errorf("Lines(%q) has the line %q", s, line)
			}
		}
		if got := Text(Text(s)); got != Text(s) {
			t.Errorf("Text twice on %q: %q, once %q", s, got, Text(s))
		}
	}
	for s, want := range map[string]string{
		"ordinary": "ordinary", "größer 🔒": "größer 🔒", "": `""`, "-": `"-"`, " space ": `" space "`, "a b": "a b", "\x1b[31m": `"\x1b[31m"`,
	} {
		if got := Name(s, "-"); got != want {
			t.Errorf("Name(%q) = %s, want %s", s, got, want)
		}
	}
	if got := Text("a\x1b\n\x0f\xff\u202e"); got != `a\x1b\n\x0f\xff\u202e` {
		t.Errorf("Text = %s", got)
	}
}

func checkJSON(t *testing.T, s string) {
	t.Helper()
	encoded, err := json.Marshal(map[string]string{s: s})
	if err != nil {
		t.Fatal(err)
	}
	got := JSON(append(encoded, '\n'))
	if !harmless(strings.TrimSuffix(string(got), "\n")) {
		t.Errorf("JSON of %q: %s cannot be printed", s, got)
	}
	var before, after map[string]string
	if err := json.Unmarshal(encoded, &before); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(got, &after); err != nil || len(after) != 1 {
		t.Fatalf("JSON of %q: %s: %v", s, got, err)
	}
	for k, v := range before {
		if w, ok := after[k]; !ok || w != v {
			t.Errorf("JSON of %q: %s has another value", s, got)
		}
	}
}

func TestJSONStaysEqualAndCanBePrinted(t *testing.T) {
	for _, s := range hostile {
		checkJSON(t, s)
	}
}

func FuzzJSON(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		checkJSON(t, s)
		if got := Text(s); !harmless(got) {
			t.Errorf("Text(%q) = %q", s, got)
		}
	})
}
