//go:build unix

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/overlay"
	"github.com/locknode/locknode/internal/proof/proc"
)

// The next version of the program: one feature level more, and one command of that level.
// Once the table is at that level it replaces SetValue, and the value shows it.
var nextVersion = map[string][]overlay.Edit{
	"fsm/level.go": {
		{Anchor: "const Level = 2\n", With: "const Level = 3\n"},
		{Anchor: `[Level]string{"0.1.0", "0.1.0"}`, With: `[Level]string{"0.1.0", "0.1.0", "0.2.0-test"}`},
		{Anchor: "var laterKinds = [256]uint8{\n", With: `// KindNextValue is of the next version.
const KindNextValue Kind = 99

// NextValue is SetValue with another result.
type NextValue struct{ SetValue }

func (NextValue) kind() Kind { return KindNextValue }

var laterKinds = [256]uint8{
	KindNextValue: 3,
`},
	},
	"fsm/apply.go": {{Anchor: "	case KindRaiseLevel:\n", With: `	case KindNextValue:
		var c SetValue
		c.decode(d)
		c.Value = append([]byte("next:"), c.Value...)
		return t.once(d, &c.ID, kind, func() Result { return t.setValue(&c) })
	case KindRaiseLevel:
`}},
	"node/propose.go": {{Anchor: "	if p.level != nil {\n		if res, below := belowLevel", With: `	if s, ok := c.(fsm.SetValue); ok && p.level().level >= 3 {
		c = fsm.NextValue{SetValue: s}
	}
	if p.level != nil {
		if res, below := belowLevel`}},
}

func buildNextVersion(t *testing.T) string {
	t.Helper()
	var set overlay.Set
	for file, edits := range nextVersion {
		path, err := filepath.Abs(filepath.Join("../..", file))
		must(t, err)
		must(t, set.Edit(path, edits...))
	}
	dir := t.TempDir()
	list, err := set.Write(filepath.Join(dir, "overlay"))
	must(t, err)
	next := filepath.Join(dir, "locknode-next")
	args := []string{"build", "-overlay", list, "-o", next}
	if raceDetector {
		args = append(args, "-race")
	}
	out, err := exec.CommandContext(t.Context(), "go", append(args, "github.com/locknode/locknode/cmd/locknode")...).CombinedOutput()
	if err != nil {
		t.Fatalf("build the next version: %v\n%s", err, out)
	}
	return next
}

// A cluster is upgraded to a version with a feature level more, downgraded, and upgraded for
// good, under load: no lock is lost, and no operation of a client fails. A downgrade is
// possible until all nodes run the new version and none is configured to wait; after that, the
// old version refuses to start and says what to run.
func TestRollingToTheNextFeatureLevelAndBack(t *testing.T) {
	t.Parallel()
	slow(t, "builds another program")
	next := buildNextVersion(t)

	// The program that the nodes run: a link that is changed.
	dir := t.TempDir()
	current := filepath.Join(dir, "locknode")
	use := func(binary string) {
		t.Helper()
		fresh := filepath.Join(dir, "fresh")
		must(t, os.Symlink(binary, fresh))
		must(t, os.Rename(fresh, current))
	}
	use(program)
	o := options(t.TempDir(), 3)
	o.Binary = current
	c, err := proc.Start(within(t, patience), o)
	must(t, err)
	t.Cleanup(func() {
		must(t, c.Close())
		if t.Failed() {
			for _, n := range c.Nodes() {
				t.Logf("the end of what %s printed:\n%s", n.ID, tail(n.Logs(), 60))
			}
		}
	})
	l := startLoad(t, c, patience)
	watch := dial(t, c.Endpoints())
	held := lock(t, watch, "held")

	// roll restarts one node after the other, each when the cluster can do without it.
	roll := func(binary string, args ...string) {
		t.Helper()
		use(binary)
		for _, n := range c.Nodes() {
			stop(t, n)
			must(t, n.Start(args...))
			must(t, n.WaitReady(within(t, patience)))
			eventually(t, "all nodes vote", func() bool {
				return !slices.ContainsFunc(c.Nodes(), func(n *proc.Node) bool { return !status(t, n).GetVoterReady() })
			})
			l.progress(t, 10)
		}
	}
	level := func() (of []uint32) {
		for _, n := range c.Nodes() {
			of = append(of, status(t, n).GetFeatureLevel())
		}
		return of
	}
	stored := func(want string) {
		t.Helper()
		must(t, held.SetValue(within(t, patience), []byte("value")))
		if h := holder(t, watch, "held"); string(h.Value) != want || h.Token != held.Token() {
			t.Errorf("the lock has value %q and token %d, want %q and %d", h.Value, h.Token, want, held.Token())
		}
	}

	stored("value")
	roll(next, "--feature-level", "2")
	time.Sleep(time.Second) // several checks of the leader: what must not happen has no event
	if got := level(); !slices.Equal(got, []uint32{2, 2, 2}) {
		t.Errorf("the nodes are at levels %v while they agree to 2 only", got)
	}
	stored("value")
	roll(program)
	stored("value")

	use(next)
	for i, n := range c.Nodes() {
		if got := level(); !slices.Equal(got, []uint32{2, 2, 2}) {
			t.Errorf("the nodes are at levels %v when %d of 3 know 3", got, i)
		}
		stored("value")
		must(t, n.Restart(within(t, patience)))
		l.progress(t, 10)
	}
	eventually(t, "all nodes are at level 3", func() bool { return slices.Equal(level(), []uint32{3, 3, 3}) })
	stored("next:value")
	members, err := watch.Members(within(t, patience))
	must(t, err)
	for _, m := range members {
		if m.FeatureLevel != 3 {
			t.Errorf("member %s is shown with level %d, want 3", m.ID, m.FeatureLevel)
		}
	}

	// A downgrade is refused with a reason; the data are as before.
	last := c.Nodes()[2]
	stop(t, last)
	use(program)
	must(t, last.Start())
	select {
	case <-last.Exited():
	case <-time.After(patience):
		t.Fatal("a version that is too old runs")
	}
	if tail := last.Tail(); !strings.Contains(tail, "run Locknode 0.2.0-test or a later version on this node") || last.ExitCode() == 0 {
		t.Errorf("it ended with %d: %s", last.ExitCode(), tail)
	}
	use(next)
	must(t, last.Start())
	must(t, last.WaitReady(within(t, patience)))
	l.finish(t)
	must(t, held.Err())
	stored("next:value")
	must(t, held.Unlock())
	agree(t, c)
	if client := dial(t, c.Endpoints(), client.Holder("later")); lock(t, client, "held").Token() <= held.Token() {
		t.Error("tokens do not rise")
	}
}
