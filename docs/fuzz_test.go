package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// testFunctions are the fuzz targets of the module, each with its package, and
// the names of its tests.
func testFunctions(t *testing.T) (targets, tests map[string]bool) {
	t.Helper()
	targets, tests = map[string]bool{}, map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil {
				continue
			}
			tests["`"+f.Name.Name+"`"] = true
			if strings.HasPrefix(f.Name.Name, "Fuzz") {
				pkg, err := filepath.Rel("..", filepath.Dir(path))
				if err != nil {
					return err
				}
				targets["`"+f.Name.Name+"` in `"+filepath.ToSlash(pkg)+"`"] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return targets, tests
}

var (
	number   = regexp.MustCompile(`^[1-9][0-9,]*$`)
	testName = regexp.MustCompile("`Test[A-Za-z0-9]+`")
)

func TestTableOfFuzzTargetsIsThatOfTheSource(t *testing.T) {
	targets, _ := testFunctions(t)
	if len(targets) < 30 {
		t.Errorf("only %d targets were found", len(targets))
	}
	documented := map[string]bool{}
	for _, row := range rows(section(t, read(t, "testing.md"), "## Fuzzing")) {
		if len(row) != 4 || !number.MatchString(row[3]) {
			t.Errorf("row %q: four cells are needed, the last one a number", row)
			continue
		}
		documented[row[0]] = true
		if !targets[row[0]] {
			t.Errorf("%s is in the table, and nowhere else", row[0])
		}
	}
	for target := range targets {
		if !documented[target] {
			t.Errorf("%s is not in the table", target)
		}
	}
}

func TestTestsThatShowWhatWasFoundAreThere(t *testing.T) {
	_, tests := testFunctions(t)
	named := 0
	for _, row := range rows(section(t, read(t, "testing.md"), "## What has been found so far")) {
		for _, name := range testName.FindAllString(row[len(row)-1], -1) {
			if named++; !tests[name] {
				t.Errorf("%s is in the table, and nowhere else", name)
			}
		}
	}
	if named < 10 {
		t.Errorf("only %d tests are named", named)
	}
}
