//go:build unix

package integration

import (
	"os/exec"
	"strings"
	"testing"
)

// Disks that say that they have synced, and have not, are outside of what Locknode
// promises to survive. Here they show that what is lost is found out: that locknode
// chaos finds nothing elsewhere says something.
func TestChaosFindsWhatLyingDisksHaveLost(t *testing.T) {
	t.Parallel()
	slow(t, "real disks that are broken")
	binary, err := buildFaultfs()
	if err != nil {
		t.Skip(err)
	}
	var said output
	cmd := exec.Command(program, "chaos", "--faults", "disks-lie", "--cycles", "1", "--seed", "1", "--faultfs", binary, "--dir", t.TempDir())
	cmd.Env = cleanEnvironment()
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Run()
	switch {
	case strings.Contains(said.String(), "allows none of the faults"):
		t.Skip(said.String())
	case err == nil || cmd.ProcessState.ExitCode() != 1:
		t.Errorf("it ended with %v, want exit code 1; it printed\n%s", err, said.String())
	case !strings.Contains(said.String(), "BROKEN    S"):
		t.Errorf("it names no promise that was broken; it printed\n%s", said.String())
	}
}
