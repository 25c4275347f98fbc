package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
)

// target is one fuzz function.
type target struct {
	name string
	pkg  *pkg
}

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath, Dir           string
	TestGoFiles, XTestGoFiles []string
	binary                    string // built with instrumentation; see build
}

// find returns the fuzz targets of the packages, in the order of their names.
func find(ctx context.Context, dir string, patterns []string) ([]target, error) {
	list := exec.CommandContext(ctx, "go", append([]string{"list", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}, patterns...)...)
	list.Dir = dir
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", withStderr(err))
	}
	var targets []target
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		p := &pkg{}
		if err := decoder.Decode(p); errors.Is(err, io.EOF) {
			return targets, nil
		} else if err != nil {
			return nil, fmt.Errorf("list packages: %w", err)
		}
		for _, file := range append(p.TestGoFiles, p.XTestGoFiles...) {
			names, err := fuzzFunctions(filepath.Join(p.Dir, file))
			if err != nil {
				return nil, err
			}
			for _, name := range names {
				targets = append(targets, target{name, p})
			}
		}
	}
}

// fuzzFunctions are the functions of a file that `go test -fuzz` would run.
func fuzzFunctions(path string) (names []string, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("look for fuzz targets: %w", err)
	}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Fuzz") && takesF(f.Type) {
			names = append(names, f.Name.Name)
		}
	}
	return names, nil
}

// takesF says that the only parameter is a *testing.F.
func takesF(f *ast.FuncType) bool {
	if f.Params.NumFields() != 1 || f.Results.NumFields() != 0 {
		return false
	}
	star, ok := f.Params.List[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	selector, ok := star.X.(*ast.SelectorExpr)
	return ok && selector.Sel.Name == "F"
}

// withStderr adds what a command said to how it ended.
func withStderr(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return err
}
