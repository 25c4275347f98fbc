//go:build unix

package integration

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// script returns the commands of a section of a document: its indented blocks, also those in
// lists.
func script(t *testing.T, doc, heading string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", doc))
	must(t, err)
	_, text, ok := strings.Cut(string(b), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", doc, heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var out strings.Builder
	inList := false
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		switch {
		case len(line) > 2 && line[0] >= '1' && line[0] <= '9' && line[1] == '.':
			inList = true
		case inList && strings.HasPrefix(line, "       "):
			out.WriteString(line[7:])
		case !inList && strings.HasPrefix(line, "    "):
			out.WriteString(line[4:])
		case trimmed == "":
			out.WriteString("\n")
		case line[0] != ' ':
			inList = false
		}
	}
	return out.String()
}

// freeBlock returns the beginning of ports that take the place of 74 in 7400 to 7439.
func freeBlock(t *testing.T) string {
	t.Helper()
	for range 100 {
		block := 110 + rand.N(500)
		free := true
		for i := range 40 {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", block*100+i))
			if err != nil {
				free = false
				break
			}
			must(t, l.Close())
		}
		if free {
			return fmt.Sprint(block)
		}
	}
	t.Fatal("there are no free ports")
	return ""
}

// runScript runs commands as they are written, but on other ports, and returns what they print. It
// stops the nodes that they have started.
func runScript(t *testing.T, text, more string) string {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash on this machine")
	}
	dir, bin := t.TempDir(), t.TempDir()
	must(t, os.Symlink(program, filepath.Join(bin, "locknode")))
	block := freeBlock(t)
	text = "set -e\ntrap 'kill $(jobs -p); wait' EXIT\n" + text + more
	text = strings.ReplaceAll(text, "127.0.0.1:74", "127.0.0.1:"+block)
	cmd := exec.CommandContext(within(t, patience), bash, "-c", text)
	cmd.Dir = dir
	cmd.Env = cleanEnvironment("PATH="+bin+":"+os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0 exitcode=0", "LOCKNODE_CONNECT_TIMEOUT=30s", "no_proxy=127.0.0.1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		for n := range 3 {
			log, _ := os.ReadFile(filepath.Join(dir, fmt.Sprintf("n%d.log", n+1)))
			t.Logf("n%d.log:\n%s", n+1, tail(string(log), 40))
		}
		t.Fatalf("%v\n%s\nof the script:\n%s", err, out, text)
	}
	return string(out)
}

// TestTheGuideToRightsIsRunAsItIsWritten runs both of its step-by-step parts.
func TestTheGuideToRightsIsRunAsItIsWritten(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil || runtime.GOOS != "linux" {
		t.Skip("the guide is for Linux, with curl")
	}
	t.Run("A new cluster", func(t *testing.T) {
		t.Parallel()
		out := runScript(t, script(t, "rights.md", "A new cluster"), "")
		for _, want := range []string{
			"token:root", "rights are enforced", "shop: added", `rule 1 of policy "shop"`, "exit code 77", `right lock on "billing/1"`,
			"the CA is missing", `"unauthenticated"`, `{"locks":[]}`,
		} {
			if !strings.Contains(out, want) {
				t.Errorf("it does not print %q:\n%s", want, out)
			}
		}
		if strings.Contains(out, "lnk_") {
			t.Errorf("a secret is printed:\n%s", out)
		}
	})
	t.Run("Moving a running cluster", func(t *testing.T) {
		t.Parallel()
		out := runScript(t, script(t, "rights.md", "Moving a running cluster"), `
echo "as the shop:"
LOCKNODE_TOKEN_FILE=shop.token locknode acquire orders/1
LOCKNODE_TOKEN_FILE=shop.token locknode acquire billing/1 || echo "exit code $?"
LOCKNODE_TOKEN_FILE= LOCKNODE_TLS_CA= locknode acquire orders/2 --connect-timeout 1s || echo "exit code $?"
`)
		for _, want := range []string{"Rights (auth.mode) are required on n1, n2, n3", "orders/1: acquired", "exit code 77", "exit code 69", `locknode_plaintext_connections{listener="grpc"} 0`} {
			if !strings.Contains(out, want) {
				t.Errorf("it does not print %q:\n%s", want, out)
			}
		}
	})
}
