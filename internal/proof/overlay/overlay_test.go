package overlay

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestAnchorHasToStandInTheFileExactlyOnce(t *testing.T) {
	for _, tt := range []struct {
		name, src string
		edits     []Edit
		want      string // of the result
		err       string // part of the error
	}{
		{"once", "a b c", []Edit{{"b", "x"}}, "a x c", ""},
		{"missing", "a b c", []Edit{{"d", "x"}}, "", "found 0 times"},
		{"twice", "a b b", []Edit{{"b", "x"}}, "", "found 2 times"},
		{"empty", "a b c", []Edit{{"", "x"}}, "", "anchor is empty"},
		{"nothing changed", "a b c", []Edit{{"b", "b"}}, "", "changes nothing"},
		{"one after another", "a b c", []Edit{{"b", "x y"}, {"y", "z"}}, "a x z c", ""},
		{"second missing", "a b c", []Edit{{"b", "x"}, {"b", "z"}}, "", "found 0 times"},
		{"over lines", "a\n\tb\nc", []Edit{{"\tb\n", ""}}, "a\nc", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := []byte(tt.src)
			got, err := Apply(src, tt.edits...)
			if string(src) != tt.src {
				t.Errorf("Apply changed its argument to %q", src)
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("Apply(%q, %q) = %q, %v, want an error with %q", tt.src, tt.edits, got, err, tt.err)
				}
				return
			}
			if err != nil || string(got) != tt.want {
				t.Errorf("Apply(%q, %q) = %q, %v, want %q", tt.src, tt.edits, got, err, tt.want)
			}
		})
	}
}

func TestFaultyEditNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.go")
	write(t, path, "package x\n")
	var s Set
	err := s.Edit(path, Edit{"func", "func"})
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Edit = %v, want an error that names %s", err, path)
	}
	if err := s.Edit(path+"x", Edit{"a", "b"}); err == nil {
		t.Error("Edit of a file that is not there: no error")
	}
}

// TestGoBuildsTheCopies runs the go command: the copies are built, all edits of
// a file add up, and the files are as they were.
func TestGoBuildsTheCopies(t *testing.T) {
	dir := t.TempDir()
	const source = "package main\n\nimport \"os\"\n\nfunc main() { _, _ = os.Stdout.WriteString(\"one \" + \"two\") }\n"
	main := filepath.Join(dir, "main.go")
	write(t, main, source)
	write(t, filepath.Join(dir, "go.mod"), "module example.com/m\n\ngo 1.26\n")
	var s Set
	for _, e := range []Edit{{"one", "three"}, {"two", "four"}} {
		if err := s.Edit(main, e); err != nil {
			t.Fatal(err)
		}
	}
	file, err := s.Write(filepath.Join(dir, "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"run", "-overlay", file, "."}, "three four"},
		{[]string{"run", "."}, "one two"},
	} {
		cmd := exec.CommandContext(t.Context(), "go", tt.args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != tt.want {
			t.Errorf("go %q = %q, %v, want %q", tt.args, out, err, tt.want)
		}
	}
}

func TestFilesOfOneNameHaveCopiesOfTheirOwn(t *testing.T) {
	dir := t.TempDir()
	var s Set
	for _, sub := range []string{"a", "b"} {
		path := filepath.Join(dir, sub, "x.go")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, "package x\n")
		if err := s.Edit(path, Edit{"x", sub}); err != nil {
			t.Fatal(err)
		}
	}
	file, err := s.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Replace map[string]string }
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"a", "b"} {
		b, err := os.ReadFile(got.Replace[filepath.Join(dir, sub, "x.go")])
		if want := "package " + sub + "\n"; err != nil || string(b) != want {
			t.Errorf("copy of %s/x.go = %q, %v, want %q", sub, b, err, want)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
