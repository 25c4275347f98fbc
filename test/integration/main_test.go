//go:build unix

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locknode/locknode/internal/proof/leaks"
	"github.com/locknode/locknode/internal/proof/testall"
)

// actAs is the environment variable that makes this binary run something else than tests.
const actAs = "LOCKNODE_TEST_ROLE"

// program is the locknode executable, built by TestMain.
var program string

func TestMain(m *testing.M) {
	if role := os.Getenv(actAs); role != "" {
		os.Exit(play(role))
	}
	os.Exit(run(m))
}

func play(role string) int {
	switch role {
	case holderRole:
		return holderMain(os.Args[1:])
	case flooderRole:
		return flooderMain(os.Args[1:])
	case strangerRole:
		return strangerMain(os.Args[1:])
	}
	fmt.Fprintf(os.Stderr, "%s=%s: no such role\n", actAs, role)
	return 2
}

func run(m *testing.M) (code int) {
	dir, err := os.MkdirTemp("", "locknode-test-")
	if err != nil {
		return complain(err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // best effort
	program = filepath.Join(dir, "locknode")
	args := []string{"build", "-o", program}
	if raceDetector {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "github.com/locknode/locknode/cmd/locknode")...)
	if out, err := build.CombinedOutput(); err != nil {
		return complain(fmt.Errorf("build locknode: %w\n%s", err, out))
	}
	testall.AtOnce(4) // they mostly wait for processes
	code = m.Run()
	if err := closeShared(); err != nil {
		return complain(err)
	}
	if code == 0 {
		if err := leaks.Wait(patience); err != nil {
			return complain(err)
		}
	}
	return code
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// cleanEnvironment returns the environment of this process without the settings of locknode,
// and with more variables. A race does not end a node, so that complaints can leave out the
// known one, but it does end a command.
func cleanEnvironment(more ...string) []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "LOCKNODE_") && !strings.HasPrefix(kv, "GORACE=") {
			env = append(env, kv)
		}
	}
	return append(env, more...)
}
