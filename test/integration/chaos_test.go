//go:build unix

package integration

import (
	"flag"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/locknode/locknode/internal/proof/netns"
)

var addressRounds = flag.Int("address-rounds", 4, "how often addresses change hands in TestAddressesChangeHands")

// Five nodes exchange their addresses and are partitioned before any of them has noticed, in
// network namespaces where that is possible. No lock is held twice, no term has two
// leaders, and no two nodes are in different states.
func TestAddressesChangeHands(t *testing.T) {
	t.Parallel()
	slow(t, "five nodes that are killed and cut apart")
	if raceDetector {
		t.Skip("addresses change under load; see racedetector.ComplainsOfRaft")
	}
	args := []string{"chaos", "--nodes", "5", "--faults", "exchange-addresses,exchange-addresses-cut", "--cycles", strconv.Itoa(*addressRounds),
		"--recovery-bound", patience.String(), "--dir", t.TempDir()}
	if err := netns.Available(); err == nil {
		args = append(args, "--netns")
	} else {
		t.Logf("not in network namespaces: %v", err)
	}
	var said output
	cmd := exec.Command(program, args...)
	cmd.Env = cleanEnvironment("GORACE=exitcode=0")
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	t.Logf("it printed\n%s", said.String())
	if strings.Contains(said.String(), "is not possible here") {
		t.Skip("this machine allows it neither in namespaces nor by proxies")
	}
	if err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// Locknode does not promise to survive disks that acknowledge a sync without doing it. Here
// they show that locknode chaos detects a loss, so that a run without a finding means
// something.
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
		t.Errorf("it names no broken promise; it printed\n%s", said.String())
	}
}
