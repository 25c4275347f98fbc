//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/locknode/locknode/internal/proof/faultdisk"
	"github.com/locknode/locknode/internal/proof/proc"
)

// smallDisk is the size of the disk that is filled up: some segments of the log
// and some snapshots.
const smallDisk = 160 << 20

// disks has the disks of the nodes' directories that can be broken.
type disks struct {
	binary string // the faultfs program; empty: there is none
	faulty bool   // nodes get faulty disks
	small  string // the ID of the node that gets a small disk; empty: none

	open    map[string]*faultdisk.Disk // by node
	mounted []string                   // small disks
}

// findFaultfs is the program of faulty disks: the one that was named, or one
// beside this executable, or one in the PATH.
func findFaultfs(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	if self, err := os.Executable(); err == nil {
		if beside := filepath.Join(filepath.Dir(self), "faultfs"); exists(beside) {
			return beside, nil
		}
	}
	path, err := exec.LookPath("faultfs")
	if err != nil {
		return "", errors.New("there is no faultfs program, neither named nor beside locknode nor in the PATH; `go build -C test/fuse -o ../../bin/faultfs ./cmd/faultfs` makes one")
	}
	return path, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (r *run) needsFaulty() error {
	binary, err := findFaultfs(r.o.Faultfs)
	if err != nil {
		return err
	}
	if r.faultyTried {
		return r.faultyErr
	}
	r.faultyTried = true
	r.faultyErr = func() error {
		below, mount := r.path("try-below"), r.path("try")
		if err := errors.Join(os.Mkdir(below, 0o700), os.Mkdir(mount, 0o700)); err != nil {
			return err
		}
		defer func() { _, _ = os.Remove(mount), os.Remove(below) }() // they are empty
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		d, err := faultdisk.Start(ctx, binary, below, mount)
		if err != nil {
			return err
		}
		r.disks.binary = binary
		return d.Close()
	}()
	return r.faultyErr
}

// needsSmall says whether a small disk can be mounted.
func (r *run) needsSmall() error {
	dir := r.path("try-small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer func() { _ = os.Remove(dir) }() // it is empty
	if err := mountSmall(dir); err != nil {
		return fmt.Errorf("a small disk cannot be mounted here: %w", err)
	}
	return unmount(dir)
}

// layDisks decides which node gets which disk.
func (r *run) layDisks() {
	r.disks.open = map[string]*faultdisk.Disk{}
	for _, name := range r.result.Kinds {
		if slices.ContainsFunc(slices.Concat(faultyKinds, lyingKinds), func(k Kind) bool { return k.Name == name }) {
			r.disks.faulty = true
		}
		if name == diskFull {
			r.disks.small = fmt.Sprint("n", r.o.Nodes)
		}
	}
}

// putOnDisk prepares the directory of a node that has not been started yet. Nodes
// that are added later have ordinary disks.
func (r *run) putOnDisk(n *proc.Node) error {
	small, faulty := n.ID == r.disks.small, r.disks.faulty && len(r.disks.open) < r.o.Nodes
	if !small && !faulty || r.disks.open[n.ID] != nil || slices.Contains(r.disks.mounted, n.Dir) {
		return nil // it has an ordinary disk, or is there already
	}
	below := n.Dir
	if faulty {
		below = r.path("below-" + n.ID)
	}
	for _, dir := range []string{n.Dir, below} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if small {
		if err := mountSmall(below); err != nil {
			return err
		}
		r.disks.mounted = append(r.disks.mounted, below)
	}
	if !faulty {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d, err := faultdisk.Start(ctx, r.disks.binary, below, n.Dir)
	if err != nil {
		return err
	}
	r.disks.open[n.ID] = d
	return nil
}

// close unmounts everything. The nodes have ended.
func (d *disks) close() error {
	var errs []error
	for _, disk := range d.open {
		errs = append(errs, disk.Close())
	}
	for _, dir := range d.mounted {
		errs = append(errs, unmount(dir))
	}
	d.open, d.mounted = nil, nil
	return errors.Join(errs...)
}

// disk gives a command to the disks of nodes.
func (r *run) disk(command string, nodes ...*proc.Node) error {
	for _, n := range nodes {
		d := r.disks.open[n.ID]
		if d == nil {
			return fmt.Errorf("node %s has no disk that can be broken", n.ID)
		}
		if _, err := d.Do(command); err != nil {
			return err
		}
	}
	return nil
}

// ballast is the file that fills a small disk up.
func (r *run) ballast() string { return filepath.Join(r.disks.mounted[0], "ballast") }

// fillUp writes to the small disk until there is no more room.
func (r *run) fillUp() error {
	f, err := os.Create(r.ballast())
	if err != nil {
		return err
	}
	chunk := make([]byte, 64<<10)
	for err == nil && len(chunk) > 0 {
		if _, err = f.Write(chunk); err != nil && len(chunk) > 1 {
			chunk, err = chunk[:len(chunk)/4], nil // what is left is less
		}
	}
	_ = f.Close() // it is meant to be cut off
	return nil
}

// endsByItself waits until a node has ended, and reads why.
func (r *run) endsByItself(n *proc.Node, within time.Duration) bool {
	select {
	case <-n.Exited():
		return true
	case <-time.After(within):
		return false
	}
}
