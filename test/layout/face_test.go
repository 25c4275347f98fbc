package layout

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the public packages export to testdata/face")

// face are the packages whose exported names are a promise to programs.
var face = []string{"client", "cluster", "locktest", "node"}

// What a public package exports is written down, so that a change of it is seen in review:
// go test ./test/layout -run Exports -update.
func TestExportsOfThePublicPackagesAreWrittenDown(t *testing.T) {
	for _, name := range face {
		golden := filepath.Join("testdata", "face", name+".txt")
		got := listing(t, readPackage(t, name))
		if *update {
			if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(golden, got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		had, has := strings.Split(string(want), "\n"), strings.Split(string(got), "\n")
		for _, line := range has {
			if !slices.Contains(had, line) {
				t.Errorf("%s exports, and %s has not: %s", name, golden, line)
			}
		}
		for _, line := range had {
			if !slices.Contains(has, line) {
				t.Errorf("%s does not export any more: %s", name, line)
			}
		}
		if !t.Failed() && !bytes.Equal(got, want) {
			t.Errorf("%s exports the same as %s in another order", name, golden)
		}
		if t.Failed() {
			t.Log("if that is meant: go test ./test/layout -run Exports -update, and docs/client.md or docs/deploy.md if users see it")
		}
	}
}

// A type that other modules cannot name is of no use to them, and of what is in an exported
// function, field or type they would have to name it.
func TestNothingExportedHasATypeThatOthersCannotName(t *testing.T) {
	for _, name := range face {
		for _, fault := range unnameable(readPackage(t, name)) {
			t.Errorf("%s: %s", name, fault)
		}
	}
}

// The test above sees what it is to see.
func TestATypeThatOthersCannotNameIsFound(t *testing.T) {
	const source = `// Package p is for a test.
package p

import (
	"context"

	hidden "github.com/locknode/locknode/internal/mux"
)

type own struct{}

// T is exported.
type T struct {
	Field  *hidden.Call
	hidden hidden.Call
}

// I is an interface.
type I interface{ M(map[string][]hidden.Call); forNobody(own) }

// A is one by another name.
type A = hidden.Call

// F is a function type of which nothing has to be named.
type F func(*own)

// V is a variable.
var V func() hidden.Call

// Takes takes one.
func Takes(context.Context, ...hidden.Call) {}

// Returns returns one.
func (T) Returns() chan hidden.Call { return nil }

// Own returns one of this package.
func Own() *own { return nil }

// Fine is generic, and fine.
func Fine[a any](x a, t T) (int, error) { return 0, nil }

func unseen(hidden.Call) {}
`
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "p.go", source, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	got := unnameable(parsed{fset, []*ast.File{file}, "p"})
	for _, want := range []string{"T has", "I has", "A has", "V has", "Takes has", "T.Returns has", "Own has"} {
		if !slices.ContainsFunc(got, func(fault string) bool { return strings.HasPrefix(fault, want) }) {
			t.Errorf("%q is not found", want)
		}
	}
	if len(got) != 7 {
		t.Errorf("%d are found, want 7: %q", len(got), got)
	}
}

// The comment of a name must say what it is.
func TestEverythingExportedHasAComment(t *testing.T) {
	for _, name := range []string{"client", "locktest", "node"} {
		for _, missing := range uncommented(readPackage(t, name)) {
			t.Errorf("%s.%s has no comment", name, missing)
		}
	}
}

// parsed is a package as it is written.
type parsed struct {
	fset  *token.FileSet
	files []*ast.File
	path  string
}

func readPackage(t *testing.T, name string) parsed {
	t.Helper()
	p := parsed{fset: token.NewFileSet(), path: module + "/" + name}
	paths, err := filepath.Glob(filepath.Join("../..", name, "*.go"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("package %s: %d files, %v", name, len(paths), err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(p.fset, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		p.files = append(p.files, file)
	}
	return p
}

// exported are the exported declarations, each with its name.
func (p parsed) exported(f func(name string, decl ast.Decl)) {
	for _, file := range p.files {
		for _, decl := range file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				if of := receiver(d); of != "" {
					if !ast.IsExported(of) {
						continue
					}
					name = of + "." + name
				}
				if d.Name.IsExported() {
					f(name, d)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					one := *d
					one.Specs = []ast.Spec{spec}
					switch s := spec.(type) {
					case *ast.TypeSpec:
						if s.Name.IsExported() {
							f(s.Name.Name, &one)
						}
					case *ast.ValueSpec:
						for _, name := range s.Names {
							if name.IsExported() {
								f(name.Name, &one)
							}
						}
					}
				}
			}
		}
	}
}

func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	of := d.Recv.List[0].Type
	for {
		switch t := of.(type) {
		case *ast.StarExpr:
			of = t.X
		case *ast.IndexExpr:
			of = t.X
		case *ast.Ident:
			return t.Name
		default:
			return ""
		}
	}
}

// listing is what go doc shows, without comments.
func listing(t *testing.T, p parsed) []byte {
	t.Helper()
	d, err := doc.NewFromFiles(p.fset, p.files, p.path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	show := func(decl ast.Decl) {
		ast.Inspect(decl, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field:
				n.Doc, n.Comment = nil, nil
			case *ast.ValueSpec:
				n.Doc, n.Comment = nil, nil
			case *ast.TypeSpec:
				n.Doc, n.Comment = nil, nil
			case *ast.GenDecl:
				n.Doc = nil
			case *ast.FuncDecl:
				n.Doc, n.Body = nil, nil
			}
			return true
		})
		if err := (&printer.Config{Mode: printer.UseSpaces, Tabwidth: 4}).Fprint(&out, p.fset, decl); err != nil {
			t.Fatal(err)
		}
		out.WriteString("\n")
	}
	values := func(all []*doc.Value) {
		for _, v := range all {
			show(v.Decl)
		}
	}
	funcs := func(all []*doc.Func) {
		for _, f := range all {
			show(f.Decl)
		}
	}
	fmt.Fprintf(&out, "package %s\n\n", d.Name)
	values(d.Consts)
	values(d.Vars)
	funcs(d.Funcs)
	for _, typ := range d.Types {
		out.WriteString("\n")
		show(typ.Decl)
		values(typ.Consts)
		values(typ.Vars)
		funcs(typ.Funcs)
		funcs(typ.Methods)
	}
	// Neither blank lines nor what is aligned with what is of interest.
	lines := strings.Split(out.String(), "\n")
	out.Reset()
	for i, line := range lines {
		text := strings.TrimLeft(line, " ")
		if text == "" && (i+1 == len(lines) || strings.HasPrefix(lines[i+1], " ") || i > 0 && strings.HasPrefix(lines[i-1], " ")) {
			continue
		}
		fmt.Fprintf(&out, "%s%s\n", line[:len(line)-len(text)], strings.Join(strings.Fields(text), " "))
	}
	return out.Bytes()
}

// unnameable says what others would have to name and cannot.
func unnameable(p parsed) (faults []string) {
	internal := map[*ast.File]map[string]string{} // name in the file → path
	fileOf := func(n ast.Node) *ast.File {
		i := slices.IndexFunc(p.files, func(f *ast.File) bool { return f.FileStart <= n.Pos() && n.Pos() < f.FileEnd })
		return p.files[i]
	}
	for _, f := range p.files {
		internal[f] = map[string]string{}
		for _, imported := range f.Imports {
			path, _ := strconv.Unquote(imported.Path.Value)
			if !strings.Contains("/"+path+"/", "/internal/") {
				continue
			}
			name := path[strings.LastIndexByte(path, '/')+1:]
			if imported.Name != nil {
				name = imported.Name.Name
			}
			internal[f][name] = path
		}
	}
	// look finds types in what stands in a declaration. own says whether a type of this
	// package has to be exported, too: it need not be where nobody has to name it.
	var look func(name string, own bool, n ast.Node)
	look = func(name string, own bool, n ast.Node) {
		if n == nil {
			return
		}
		imports := internal[fileOf(n)]
		ast.Inspect(n, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.StructType:
				for _, f := range n.Fields.List {
					if len(f.Names) == 0 || slices.ContainsFunc(f.Names, (*ast.Ident).IsExported) {
						look(name, own, f.Type)
					}
				}
				return false
			case *ast.InterfaceType:
				for _, m := range n.Methods.List {
					if len(m.Names) == 0 || m.Names[0].IsExported() {
						look(name, own, m.Type)
					}
				}
				return false
			case *ast.Field: // of a function: names are not types
				look(name, own, n.Type)
				return false
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && imports[x.Name] != "" {
					faults = append(faults, fmt.Sprintf("%s has a %s.%s, of %s", name, x.Name, n.Sel.Name, imports[x.Name]))
				}
				return false
			case *ast.Ident:
				if own && !n.IsExported() && declaresType(p, n.Name) {
					faults = append(faults, fmt.Sprintf("%s has a %s, which is not exported", name, n.Name))
				}
			}
			return true
		})
	}
	p.exported(func(name string, decl ast.Decl) {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			parameters := map[string]bool{}
			if d.Type.TypeParams != nil {
				for _, f := range d.Type.TypeParams.List {
					for _, n := range f.Names {
						parameters[n.Name] = true
					}
				}
			}
			look(name, true, d.Type.Params)
			if d.Type.Results != nil {
				look(name, true, d.Type.Results)
			}
		case *ast.GenDecl:
			switch s := d.Specs[0].(type) {
			case *ast.TypeSpec:
				_, function := s.Type.(*ast.FuncType) // an option, which others only pass on
				look(name, !function, s.Type)
			case *ast.ValueSpec:
				if s.Type != nil {
					look(name, false, s.Type)
				}
			}
		}
	})
	return faults
}

func declaresType(p parsed, name string) bool {
	for _, file := range p.files {
		for _, decl := range file.Decls {
			if d, ok := decl.(*ast.GenDecl); ok {
				for _, spec := range d.Specs {
					if s, ok := spec.(*ast.TypeSpec); ok && s.Name.Name == name {
						return true
					}
				}
			}
		}
	}
	return false
}

// uncommented are the exported names that nothing is said about. A comment on a group is
// one on each of it, and one on the first of some fields that stand together is one on all.
func uncommented(p parsed) (names []string) {
	said := func(comments ...*ast.CommentGroup) bool {
		return slices.ContainsFunc(comments, func(c *ast.CommentGroup) bool { return c.Text() != "" })
	}
	p.exported(func(name string, decl ast.Decl) {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			method := name[strings.IndexByte(name, '.')+1:]
			if !said(d.Doc) && (d.Recv == nil || method != "Error" && method != "String") { // of which all is said
				names = append(names, name)
			}
		case *ast.GenDecl:
			switch s := d.Specs[0].(type) {
			case *ast.ValueSpec:
				if !said(d.Doc, s.Doc, s.Comment) {
					names = append(names, name)
				}
			case *ast.TypeSpec:
				if !said(d.Doc, s.Doc, s.Comment) {
					names = append(names, name)
				}
				st, ok := s.Type.(*ast.StructType)
				if !ok {
					return
				}
				for _, f := range st.Fields.List {
					for _, n := range f.Names {
						if n.IsExported() && !said(f.Doc, f.Comment) {
							names = append(names, name+"."+n.Name)
						}
					}
				}
			}
		}
	})
	return names
}
