package layout

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// generated says that a program wrote the file.
var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

// sourceFiles are the directories of the module, each with the Go files in it that people
// write and that are no tests.
func sourceFiles(t *testing.T) map[string][]string {
	t.Helper()
	dirs := make(map[string][]string)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if name == "testdata" || name != ".." && strings.HasPrefix(name, ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !generated.Match(text) {
			dirs[filepath.Dir(path)] = append(dirs[filepath.Dir(path)], name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// A newcomer finds the file where a change belongs in the package's doc.go, which names
// each file of the package with what it answers. A package of one file may say all of it
// there.
func TestEveryFileIsNamedInItsDocGo(t *testing.T) {
	dirs := sourceFiles(t)
	if len(dirs) < 30 {
		t.Fatalf("%d directories only", len(dirs))
	}
	for dir, files := range dirs {
		if len(files) == 1 {
			continue
		}
		at := strings.TrimPrefix(dir, "../../")
		if !slices.Contains(files, "doc.go") {
			t.Errorf("%s has no doc.go", at)
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, "doc.go"))
		if err != nil {
			t.Fatal(err)
		}
		doc, _, _ := strings.Cut(string(text), "\npackage ")
		for _, file := range files {
			if file != "doc.go" && !regexp.MustCompile(`(^|[^\w.])`+regexp.QuoteMeta(file)+`\b`).MatchString(doc) {
				t.Errorf("%s/doc.go does not name %s", at, file)
			}
		}
		for _, named := range regexp.MustCompile(`(?:^|[\s(,])(\w+\.go)\b`).FindAllStringSubmatch(doc, -1) {
			if !slices.Contains(files, named[1]) && !strings.HasSuffix(named[1], "_test.go") {
				t.Errorf("%s/doc.go names %s, which is not there", at, named[1])
			}
		}
	}
}
