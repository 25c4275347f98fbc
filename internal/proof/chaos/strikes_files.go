//go:build unix

package chaos

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/locknode/locknode/internal/proof/proc"
)

var fileKinds = []Kind{
	{Name: "flip-log", Family: "files", About: "a bit of a stopped node's log is flipped; the node has to refuse, and is re-seeded",
		strike: func(_ context.Context, r *run, s strike) error { return r.damageNode(s, logFiles, flipBit) }},
	{Name: "cut-log", Family: "files", About: "a stopped node's log is cut off; the node has to refuse, and is re-seeded",
		strike: func(_ context.Context, r *run, s strike) error { return r.damageNode(s, logFiles, cutOff) }},
	{Name: "flip-snapshot", Family: "files", About: "a bit of a stopped node's latest snapshot is flipped; the node has to do without it, or refuse",
		strike: func(_ context.Context, r *run, s strike) error { return r.damageNode(s, snapshotFiles, flipBit) }},
}

// logFiles are the files of the Raft log, of either store.
func logFiles(dir string) []string { return filesLike(dir, "log/*.wal", "log.db") }

// snapshotFiles are those of the latest snapshot.
func snapshotFiles(dir string) []string {
	all := filesLike(dir, "snapshots/*/state.bin", "snapshots/*/meta.json")
	if len(all) == 0 {
		return nil
	}
	latest := filepath.Dir(all[len(all)-1])
	return slices.DeleteFunc(all, func(f string) bool { return filepath.Dir(f) != latest })
}

func filesLike(dir string, patterns ...string) (files []string) {
	for _, p := range patterns {
		found, err := filepath.Glob(filepath.Join(dir, p))
		if err == nil { // the patterns are well formed
			files = append(files, found...)
		}
	}
	slices.SortFunc(files, func(a, b string) int { return strings.Compare(filepath.Dir(a)+a, filepath.Dir(b)+b) })
	return files
}

// damageNode damages a file of a follower that was killed, and starts it again:
// either the damage is in no part that is used, or the node refuses to start and
// says what to do, which is done. The others go on meanwhile.
func (r *run) damageNode(s strike, files func(dir string) []string, damage func(file string, pick uint64) (string, error)) error {
	leader, err := r.leader()
	if err != nil {
		return err
	}
	followers := slices.DeleteFunc(r.cluster.Running(), func(n *proc.Node) bool { return n == leader })
	n := followers[s.Pick%uint64(len(followers))]
	from := r.clock.now()
	if err := n.Kill(); err != nil {
		return err
	}
	if err := r.recovered(s, sinceFault, from, r.clock.now()); err != nil {
		return err
	}
	there := files(n.Dir)
	if len(there) == 0 {
		r.remark("there was no such file yet")
		return r.startAgain(n)
	}
	what, err := damage(there[s.Pick/16%uint64(len(there))], s.Pick/256)
	if err != nil {
		return err
	}
	r.remark("%s", what)
	before := len(n.Logs())
	if err := n.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), memberPatience)
	defer cancel()
	if err := n.WaitReady(ctx); err == nil {
		r.remark("the node did without what was damaged")
		return nil
	}
	if n.Running() {
		r.violate("liveness", "files", "", "node %s, %s: it neither runs nor ends; its last lines:\n%s", n.ID, what, n.Tail())
		return n.Kill()
	}
	said := n.Logs()[before:]
	found := wayOut.FindStringSubmatch(said)
	if found == nil {
		r.violate("liveness", "files", "", "node %s, %s: it ended and does not say what to do:\n%s", n.ID, what, said)
		return fmt.Errorf("%w: node %s cannot be re-seeded", errStuck, n.ID)
	}
	return r.reseed(ctx, n, found[1])
}

// wayOut is the command by which a node that refuses its data can be re-seeded.
var wayOut = regexp.MustCompile(`"locknode (reseed --data-dir [^"]+)"`)

// reseed does what a node that has refused its data asks for.
func (r *run) reseed(ctx context.Context, n *proc.Node, command string) error {
	cmd := exec.CommandContext(ctx, r.o.Binary, strings.Fields(command)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("locknode %s: %w: %s", command, err, out)
	}
	r.remark("the node refused, and was re-seeded")
	for _, old := range filesLike(n.Dir, "replaced-*") { // it is not needed
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	if err := r.startAgain(n); err != nil {
		return err
	}
	return r.awaitVoter(ctx, n)
}

func (r *run) startAgain(n *proc.Node) error {
	if err := n.Start(); err != nil {
		return err
	}
	return r.ready(n)
}

// written is how much of a file is not the zeros at its end, which are space that
// is set aside.
func written(data []byte) int { return len(bytes.TrimRight(data, "\x00")) }

// flipBit flips one bit of what was written to a file.
func flipBit(file string, pick uint64) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil || written(data) == 0 {
		return "nothing: the file was empty", err
	}
	at := pick % uint64(written(data))
	data[at] ^= 1 << (pick % 8)
	return fmt.Sprintf("bit %d of byte %d of %d in %s was flipped", pick%8, at, written(data), filepath.Base(file)), overwrite(file, data)
}

// cutOff cuts a file off within what was written.
func cutOff(file string, pick uint64) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil || written(data) == 0 {
		return "nothing: the file was empty", err
	}
	at := pick % uint64(written(data))
	return fmt.Sprintf("%s was cut off after %d bytes of %d", filepath.Base(file), at, written(data)), os.Truncate(file, int64(at))
}

// overwrite keeps the file's permissions.
func overwrite(file string, data []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY, fs.FileMode(0))
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		_ = f.Close() // the first error counts
		return err
	}
	return f.Close()
}
