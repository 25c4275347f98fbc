// Package docs has no code: its tests read the documents and compare what they
// say with the program.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

const (
	readme     = "../README.md"
	api        = "api.md"
	operations = "operations.md"
)

// documents are all that a reader finds.
func documents(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"../*.md", "*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	if len(all) < 8 {
		t.Fatalf("only %d documents were found: %q", len(all), all)
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// section is what follows a heading, up to the next of the same or a higher level.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, after, ok := strings.Cut("\n"+text, "\n"+heading+"\n")
	if !ok {
		t.Fatalf("there is no heading %q", heading)
	}
	for level := strings.IndexByte(heading, ' '); level > 0; level-- {
		after, _, _ = strings.Cut(after, "\n"+strings.Repeat("#", level)+" ")
	}
	return after
}

// rows are the cells of all table lines in text, without heads and rulers.
func rows(text string) [][]string {
	var all [][]string
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") ||
			i+1 < len(lines) && strings.HasPrefix(lines[i+1], "|---") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		all = append(all, cells)
	}
	return all
}

var quotedPattern = regexp.MustCompile("`([^`]+)`")

// quoted are the words in backticks.
func quoted(text string) []string {
	var words []string
	for _, m := range quotedPattern.FindAllStringSubmatch(text, -1) {
		words = append(words, m[1])
	}
	return words
}

var linkPattern = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	for _, doc := range documents(t) {
		for _, m := range linkPattern.FindAllStringSubmatch(withoutCode(read(t, doc)), -1) {
			path, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(path, "://") {
				continue
			}
			target := doc
			if path != "" {
				target = filepath.Join(filepath.Dir(doc), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", doc, m[1], err)
				continue
			}
			if anchor != "" && !anchors(read(t, target))[anchor] {
				t.Errorf("%s links to %s: %s has no such heading", doc, m[1], target)
			}
		}
	}
}

var fencePattern = regexp.MustCompile("(?ms)^```.*?^```$")

func withoutCode(text string) string { return fencePattern.ReplaceAllString(text, "") }

// anchors are the headings as GitHub names them in links.
func anchors(text string) map[string]bool {
	all := make(map[string]bool)
	for line := range strings.SplitSeq(withoutCode(text), "\n") {
		level, heading, ok := strings.Cut(line, " ")
		if !ok || strings.Trim(level, "#") != "" {
			continue
		}
		all[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, heading)] = true
	}
	return all
}

func TestReadmeIsShort(t *testing.T) {
	if n := strings.Count(read(t, readme), "\n"); n > 200 {
		t.Errorf("the README has %d lines, want 200 at most", n)
	}
}

// TestLogLinesExist looks for the messages of the table in the program's source.
func TestLogLinesExist(t *testing.T) {
	var source strings.Builder
	for _, dir := range []string{"node", "cluster", "internal/audit", "internal/certs", "internal/disk", "internal/membership", "internal/network", "internal/server", "cmd/locknode"} {
		files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files: %v", dir, err)
		}
		for _, f := range files {
			if !strings.HasSuffix(f, "_test.go") {
				source.WriteString(read(t, f))
			}
		}
	}
	lines := rows(section(t, read(t, operations), "## Log lines"))
	if len(lines) < 5 {
		t.Fatalf("only %d rows were found", len(lines))
	}
	for _, row := range lines {
		for _, line := range quoted(row[0]) {
			if !strings.Contains(source.String(), `"`+line) {
				t.Errorf("nothing logs %q", line)
			}
		}
	}
}
