package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/locknode/locknode/internal/proof/proc"
)

// build compiles a package with the modules of its own go.mod and returns the program.
func build(ctx context.Context, module, pkg, into string) (string, error) {
	program, err := filepath.Abs(filepath.Join(into, filepath.Base(pkg)))
	if err != nil {
		return "", err
	}
	c := exec.CommandContext(ctx, "go", "build", "-o", program, pkg)
	c.Dir = module
	c.Env = append(os.Environ(), "GOWORK=off")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s in %s: %w\n%s", pkg, module, err, out)
	}
	return program, nil
}

// group are the processes of one system, their ports and their directory.
type group struct {
	dir     string
	claimed []*proc.Ports
	all     []*proc.Helper
}

// newGroup makes a directory and claims ports for n processes.
func newGroup(dir string, n int) (*group, error) {
	g := &group{dir: dir}
	var err error
	g.claimed, err = proc.ClaimPorts(n)
	return g, err
}

// address is one of the consecutive ports, 0 to 3, of process i.
func (g *group) address(i, port int) string {
	host, base := hostPort(g.claimed[i].Address())
	n, err := strconv.Atoi(base)
	if err != nil {
		panic(fmt.Sprintf("port %q: %v", base, err))
	}
	return net.JoinHostPort(host, strconv.Itoa(n+port))
}

// hostPort splits an address that this program has made.
func hostPort(address string) (host, port string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		panic(fmt.Sprintf("address %q: %v", address, err))
	}
	return host, port
}

func (g *group) start(name, program string, args ...string) error {
	h, err := proc.StartHelper(proc.HelperOptions{Name: name, Binary: program, Args: args, LogPath: filepath.Join(g.dir, name+".log")})
	if err == nil {
		g.all = append(g.all, h)
	}
	return err
}

// exited is an error if a process has ended, with what it printed last.
func (g *group) exited() error {
	for _, h := range g.all {
		if h.Running() {
			continue
		}
		log, _ := os.ReadFile(filepath.Join(g.dir, h.Name+".log")) // an empty one says nothing, too
		return fmt.Errorf("%s has ended: %s", h.Name, log[max(0, len(log)-2000):])
	}
	return nil
}

func (g *group) pids() []int {
	var pids []int
	for _, h := range g.all {
		pids = append(pids, h.PID())
	}
	return pids
}

// close kills the processes, by their IDs, and waits until they are gone.
func (g *group) close() error {
	var errs []error
	for _, h := range g.all {
		errs = append(errs, h.Kill())
	}
	for _, p := range g.claimed {
		p.Release()
	}
	return errors.Join(errs...)
}
