package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/locknode/locknode/internal/proof/overlay"
)

func main() {
	code, err := run(os.Args[1:], os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "detsim:", err)
	}
	os.Exit(code)
}

// run returns the exit code: that of go test if there are arguments for it.
func run(args []string, stdout, stderr io.Writer) (int, error) {
	flags := flag.NewFlagSet("detsim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("o", "", "write the overlay to this `directory` (default: one for each Go version in the user's cache)")
	seed := flags.Uint64("seed", 1, "`number` that everything follows from")
	flags.Usage = func() {
		_, _ = fmt.Fprintln(stderr, "usage: go run ./test/detsim [-o directory] [-seed number] [arguments of go test]")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return 2, nil // flags has said why
	}
	if *seed >= 1<<60 {
		return 2, fmt.Errorf("-seed %d: a number below 2^60 is allowed", *seed)
	}
	version, root, err := goEnv()
	if err != nil {
		return 1, err
	}
	if *dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return 1, err
		}
		*dir = filepath.Join(cache, "locknode-detsim", version)
	}
	file, err := write(*dir, version, filepath.Join(root, "src", "runtime"))
	if err != nil {
		return 1, err
	}
	command := testCommand(file, *seed)
	if flags.NArg() == 0 {
		_, err := fmt.Fprintf(stdout, "%s is written for %s. The first test builds the standard library anew.\n\n%s [arguments]\n",
			file, version, quote(command))
		return 0, err
	}
	cmd := exec.Command(command[0], append(command[1:], flags.Args()...)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		return exit.ExitCode(), nil
	} else if err != nil {
		return 1, err
	}
	return 0, nil
}

// goEnv asks the go command, which may be another than the one that built this
// program.
func goEnv() (version, root string, err error) {
	out, err := exec.Command("go", "env", "GOVERSION", "GOROOT").Output()
	if err != nil {
		return "", "", fmt.Errorf("go env: %w", err)
	}
	version, root, ok := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if !ok || root == "" {
		return "", "", fmt.Errorf("go env GOVERSION GOROOT: got %q", out)
	}
	return version, root, nil
}

// write makes the overlay for the runtime in the directory source.
func write(dir, version, source string) (string, error) {
	if err := check(version, source); err != nil {
		return "", err
	}
	var set overlay.Set
	for _, e := range edits {
		if err := set.Edit(filepath.Join(source, e.file), e.edits...); err != nil {
			return "", err
		}
	}
	return set.Write(dir)
}

// environment is what a test has to be started with.
func environment(seed uint64) []string {
	return []string{
		"GOMAXPROCS=1",
		"GODEBUG=asyncpreemptoff=1",
		"GOGC=off",
		seedVariable + "=" + strconv.FormatUint(seed, 10),
	}
}

// testCommand starts only the test in that environment, not the compilers.
func testCommand(file string, seed uint64) []string {
	return []string{"go", "test", "-count=1", "-overlay", file, "-exec", "env " + strings.Join(environment(seed), " ")}
}

// quote writes a command as a shell reads it.
func quote(command []string) string {
	words := make([]string, len(command))
	for i, w := range command {
		words[i] = w
		if strings.ContainsAny(w, " '\"$\\") {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
