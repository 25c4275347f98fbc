package layout

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// host is a program that embeds a node. Its package begin is initialised first, before
// what a node imports, because Go initialises packages in the order of their import paths;
// what it has set has to be there in the end.
var host = map[string]string{
	"begin/begin.go": `// Package begin sets the standard logger, as the init of a host program does.
package begin

import (
	"log"
	"strings"
)

var Out strings.Builder

func init() {
	log.SetOutput(&Out)
	log.SetPrefix("host: ")
	log.SetFlags(log.Lmsgprefix)
}
`,
	"main.go": `package main

import (
	"fmt"
	"log"
	"os"

	"aaa.example/host/begin"
	_ "github.com/locknode/locknode/client"
	_ "github.com/locknode/locknode/node"
)

func main() {
	log.Print("written by the host")
	if log.Writer() != &begin.Out || log.Prefix() != "host: " || log.Flags() != log.Lmsgprefix || begin.Out.String() != "host: written by the host\n" {
		fmt.Printf("the standard logger writes to %T with prefix %q and flags %d, and has written %q", log.Writer(), log.Prefix(), log.Flags(), begin.Out.String())
		os.Exit(1)
	}
}
`,
}

// Importing a node leaves the standard logger of the program to the program, and brings
// nothing of etcd's old libraries, which took it over.
func TestHostProgramKeepsItsLoggerAndInheritsNoCoreOS(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	dir := t.TempDir()
	mod := regexp.MustCompile(`(?m)^module .*$`).ReplaceAllString(read("go.mod"), "module aaa.example/host")
	files := map[string]string{
		"go.mod": mod + "\nrequire " + module + " v0.0.0\n\nreplace " + module + " => " + root + "\n",
		"go.sum": read("go.sum"),
	}
	for name, text := range host {
		files[name] = text
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	binary := filepath.Join(dir, "host-program")
	run := func(name string, args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), name, args...)
		c.Dir, c.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("go", "build", "-o", binary, ".")
	run(binary)
	modules := run("go", "version", "-m", binary)
	for _, bad := range []string{"github.com/coreos/", "github.com/hashicorp/raft-wal", "github.com/benbjohnson/immutable"} {
		if strings.Contains(modules, bad) {
			t.Errorf("a program that embeds a node has a module of %s:\n%s", bad, modules)
		}
	}
	if !strings.Contains(modules, "github.com/hashicorp/raft\t") {
		t.Errorf("no module of raft is named; the test does not hit:\n%s", modules)
	}
}
