package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/rivo/uniseg"

	"github.com/locknode/locknode/internal/quote"
)

// awkward are names that are hard to align, or that could harm a terminal.
var awkward = map[string]string{ // name → as it is shown
	"orders/42":         "orders/42",
	"bestellung/größe":  "bestellung/größe",
	"注文/四十二":            "注文/四十二",
	"한국어":               "한국어",
	"ｆｕｌｌ":              "ｆｕｌｌ",
	"🔒":                 "🔒",
	"🇩🇪":                "🇩🇪",
	"e\u0301clair":      "e\u0301clair", // a combining accent
	"two words":         "two words",
	"":                  `""`,
	"-":                 `"-"`,
	" a":                `" a"`,
	`say "a"`:           `"say \"a\""`,
	`back\slash`:        `"back\\slash"`,
	"up\x1b[1A\rgone":   `"up\x1b[1A\rgone"`,
	"two\nlines":        `"two\nlines"`,
	"a\tb":              `"a\tb"`,
	"\u202etxt.exe":     `"\u202etxt.exe"`, // reverses the line
	"a\u2066b\u2069":    `"a\u2066b\u2069"`,
	"zero\u200bwidth":   `"zero\u200bwidth"`,
	"no\u00a0break":     `"no\u00a0break"`,
	"next\u2028line":    `"next\u2028line"`,
	"\xff\xfe":          `"\xff\xfe"`,
	"\U000e0041tag":     `"\U000e0041tag"`,
	"👨\u200d👩\u200d👧":   `"👨\u200d👩\u200d👧"`, // terminals show one picture or three
	"\ufeffmark":        `"\ufeffmark"`,
	"soft\u00adhyphen":  `"soft\u00adhyphen"`,
	"delete\x7f\u0085x": `"delete\x7f\u0085x"`,
}

func TestNamesAreShownWithoutHarm(t *testing.T) {
	for name, want := range awkward {
		if got := quoteName(name); got != want {
			t.Errorf("%q: got %s, want %s", name, got, want)
		}
	}
}

func TestTablesAreStraight(t *testing.T) {
	var out bytes.Buffer
	a := &app{program: program{stdout: &out, stderr: io.Discard}}
	rows := [][]string{{strings.Repeat("長い名前/", 60), "x"}, {"", "x"}}
	for name := range awkward {
		rows = append(rows, []string{a.nameCell(name), "x"})
	}
	if err := a.table([]string{"NAME", "x"}, rows); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != len(rows)+1 {
		t.Fatalf("got %d lines for %d rows", len(lines), len(rows))
	}
	for _, line := range lines {
		if got, want := uniseg.StringWidth(line), 60*9+2+1; got != want || !strings.HasSuffix(line, "  x") {
			t.Errorf("line %q is %d cells wide, want %d, and x in the last", line, got, want)
		}
	}
}

func TestLongNamesLoseTheirMiddle(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"orders/42", 9, "orders/42"},
		{"orders/2026/42", 10, "orders…/42"},
		{"注文/四十二/終わり", 10, "注文/…わり"}, // a letter of two cells is not cut in half
		{strings.Repeat("x", 500), 4, "xx…x"},
	} {
		got := shorten(c.text, c.width)
		if got != c.want || uniseg.StringWidth(got) > c.width {
			t.Errorf("shorten(%q, %d): got %q of %d cells, want %q", c.text, c.width, got, uniseg.StringWidth(got), c.want)
		}
	}
}

func TestMessagesOfOthersAreShownWithoutHarm(t *testing.T) {
	for text, want := range map[string]string{
		"released by force by carol: ticket 4711": "released by force by carol: ticket 4711",
		"größe 注文":                     "größe 注文",
		"one\nlocknode: two":           "one\n  locknode: two",
		"\x1b[2Jx\u202ey\r\xffz\ufffd": `\x1b[2Jx\u202ey\r\xffz` + "\ufffd",
	} {
		if got := quote.Lines(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
