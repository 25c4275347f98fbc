package layout

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const module = "github.com/locknode/locknode"

// A program that embeds a node or a client must not depend on packages for tests, for the
// command line or for configuration files.
func TestWhatRunsImportsNothingThatProves(t *testing.T) {
	foreign := []string{
		module + "/internal/proof", module + "/locktest", module + "/test", module + "/cmd",
		"github.com/spf13/", "github.com/coreos/", "pgregory.net/", "github.com/anishathalye/", "go.uber.org/goleak",
		"github.com/stretchr/",
	}
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{.ImportPath}}{{range .Imports}} {{.}}{{end}}",
		"./api/...", "./client", "./cluster", "./fsm", "./node")
	list.Dir = "../.."
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(packages) < 100 {
		t.Fatalf("go list named %d packages only: %s", len(packages), out)
	}
	for _, line := range packages {
		p, imports, _ := strings.Cut(line, " ")
		// raft v1.8.0 has what makes its test clusters in a file that is not a test.
		if slices.Contains(strings.Fields(imports), "testing") && p != "github.com/hashicorp/raft" {
			t.Errorf("a node or a client inherits package testing from %s", p)
		}
		for _, f := range foreign {
			if p == strings.TrimSuffix(f, "/") || strings.HasPrefix(p, strings.TrimSuffix(f, "/")+"/") {
				t.Errorf("a node or a client inherits %s", p)
			}
		}
	}
}

// The same, told while the import is being written: the linter's rule refuses a proof
// package in a package that runs, allows it in the tests of one, and refuses it in a new
// internal package, of which no list of names could know.
func TestTheLinterRefusesProofInWhatRuns(t *testing.T) {
	linter := linterPath(t)
	rules, err := os.ReadFile("../../.golangci.yml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	imports := "import _ \"" + module + "/internal/proof/sim\"\n"
	for name, text := range map[string]string{
		".golangci.yml":                string(rules),
		"go.mod":                       "module " + module + "\n\ngo 1.26\n",
		"internal/proof/sim/sim.go":    "// Package sim is imported.\npackage sim\n",
		"internal/proof/chaos/in.go":   "// Package chaos may.\npackage chaos\n\n" + imports,
		"node/refused.go":              "// Package node must not.\npackage node\n\n" + imports,
		"node/may_test.go":             "package node\n\n" + imports,
		"client/refused.go":            "// Package client must not.\npackage client\n\n" + imports,
		"internal/brandnew/refused.go": "// Package brandnew must not.\npackage brandnew\n\n" + imports,
		"cmd/locknode/may.go":          "// Package main may.\npackage main\n\n" + imports + "\nfunc main() {}\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, linter, "run", "--allow-parallel-runners", "--enable-only", "depguard", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOLANGCI_LINT_CACHE="+filepath.Join(dir, "cache"))
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("the linter found nothing:\n%s", out)
	}
	for _, file := range []string{"node/refused.go", "client/refused.go", "internal/brandnew/refused.go"} {
		if !strings.Contains(string(out), file) {
			t.Errorf("the linter did not refuse %s:\n%s", file, out)
		}
	}
	for _, file := range []string{"may_test.go", "may.go", "in.go"} {
		if strings.Contains(string(out), file) {
			t.Errorf("the linter refused %s:\n%s", file, out)
		}
	}
}

// linterPath skips the test where the linter is not installed; .ci/run installs it first.
func linterPath(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("golangci-lint"); err == nil {
		return path
	}
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOPATH").Output()
	if err == nil {
		path := filepath.Join(strings.TrimSpace(string(out)), "bin", "golangci-lint")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("skipped: golangci-lint is not installed; .ci/run installs it")
	return ""
}
