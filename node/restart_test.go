package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/internal/mux"
)

func TestLocksSurviveARestartOfAllNodes(t *testing.T) {
	t.Parallel()
	addressesChange(t)
	c := startCluster(t, 3)
	a, err := mux.Do(c.ctx(), wire{c.leader()}.Start, detachedOp("kept", time.Hour))
	if err != nil || a.GetAcquire() == nil {
		t.Fatalf("acquire = %v, %v", a, err)
	}
	token := a.GetAcquire().GetToken()
	for _, n := range c.nodes {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// They come back at other addresses: the others do not find the first one until
	// it has found them.
	var seed []string
	for i, dir := range c.dirs {
		n, err := Open(t.Context(), Config{DataDir: dir, Listen: "127.0.0.1:0", Join: seed, Fast: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		seed = append(seed, n.GossipAddr())
		c.nodes[i] = n
	}
	c.awaitReady()
	info, err := c.client(c.nodes[1]).Get(c.ctx(), "kept")
	if err != nil || len(info.Holders) != 1 || info.Holders[0].Token != token {
		t.Fatalf("Get after the restart = %+v, %v; want the holder with token %d", info, err, token)
	}
	if left := info.Holders[0].Remaining; left > time.Hour || left < 59*time.Minute {
		t.Errorf("remaining TTL after the restart is %v, want almost an hour", left)
	}
	a, err = mux.Do(c.ctx(), wire{c.leader()}.Start, detachedOp("next", time.Hour))
	if err != nil || a.GetAcquire().GetToken() <= token {
		t.Fatalf("token after the restart = %v, %v; want more than %d", a, err, token)
	}
}

// When it is restarted, a node that has joined does not know what is committed, and no leader
// could inform it without being elected by its vote: the log of the other node is longer.
func TestANodeThatJoinedVotesAfterARestartOfAll(t *testing.T) {
	t.Parallel()
	addressesChange(t)
	c := startCluster(t, 1)
	first := c.nodes[0]
	join := func(dir string, seed string) *Node {
		t.Helper()
		n, err := Open(t.Context(), Config{ID: "n2", DataDir: dir, Listen: "127.0.0.1:0", Join: []string{seed}, Fast: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = n.Close() })
		return n
	}
	dir := t.TempDir()
	second := join(dir, first.GossipAddr())
	c.eventually("n2 is a voter", func() bool {
		_, ok := first.voter(first.raft.Load(), "n2")
		return ok
	})
	if from := second.stores.Identity().VotesFrom; from != 0 {
		t.Errorf("n2 is a voter, and has not written down that it votes: from entry %d on", from)
	}
	second.fail(errors.New("the test ends it"))
	<-second.Done()
	_ = first.raft.Load().Apply(nil, time.Second) // stored by n1 alone
	c.eventually("n1 no longer leads", func() bool { return first.raft.Load().State() != raft.Leader })
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	first, err := Open(t.Context(), Config{DataDir: c.dirs[0], Listen: "127.0.0.1:0", Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = first.Close() })
	c.nodes = []*Node{first, join(dir, first.GossipAddr())}
	c.awaitReady()
}

// Nodes that never run for long must not start more and more slowly: the entries that a run
// applies again also count towards a snapshot.
func TestManyShortRunsMakeNoLongReplay(t *testing.T) {
	t.Parallel()
	const bound = 256 << 10
	cfg := Config{ID: "n1", DataDir: t.TempDir(), Listen: "127.0.0.1:0", BootstrapExpect: 1, Fast: true}
	cfg.seams.SnapshotBytes = bound
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var most int64
	for run := range 6 {
		n, err := Open(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		most = max(most, n.snapshots.replay())
		for i := 0; i < 40; i++ { // 40 % of the bound
			op := detachedOp(fmt.Sprint(run, "/", i), time.Hour)
			op.GetAcquire().Value = make([]byte, 2048)
			if a, err := mux.Do(ctx, (wire{n}).Start, op); err != nil || a.GetAcquire() == nil {
				t.Fatalf("acquire = %v, %v", a, err)
			}
		}
		c := &testCluster{t: t}
		c.eventually("a snapshot that was due is written", func() bool { return n.snapshots.replay() <= bound })
		if all, err := n.stores.Snapshots.List(); err != nil || run < 2 && len(all) > 0 || run > 2 && len(all) == 0 {
			t.Errorf("in run %d there are %d snapshots, %v", run+1, len(all), err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if most > bound {
		t.Errorf("a start had to apply %d bytes again, the bound is %d", most, bound)
	}
}

func TestNodesThatAreRestartedWithoutSeedsFindEachOther(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	c.eventually("every node has written down two seeds", func() bool {
		for _, dir := range c.dirs {
			if len(rememberedSeeds(dir)) != 2 {
				return false
			}
		}
		return true
	})
	for i, n := range c.nodes {
		cfg := Config{DataDir: c.dirs[i], APIAddr: n.APIAddr(), HTTPAddr: n.HTTPAddr(), RaftAddr: n.RaftAddr(), GossipAddr: n.GossipAddr(), Fast: true}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = again.Close() })
		c.nodes[i] = again
	}
	c.awaitReady()
	if _, err := c.client(c.follower()).Lock(c.ctx(), "found"); err != nil {
		t.Fatalf("Lock through a follower: %v", err)
	}
}

func TestADamagedSeedsFileCostsNothing(t *testing.T) {
	var many []string
	for i := range maxSeeds + 1 {
		many = append(many, fmt.Sprintf(`"n%d": "a:1"`, i))
	}
	for name, content := range map[string]string{
		"garbage": "\x00{", "not addresses": `{"members": {"n1": "x", "n2": "", "n3": "host:", "n4": "host:0"}}`, "a list": `["a:1"]`,
		"too many": `{"members": {` + strings.Join(many, ",") + `}}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, seedsFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if seeds := rememberedSeeds(dir); len(seeds) != 0 {
			t.Errorf("%s: remembered %q", name, seeds)
		}
	}
}

func TestOnlyMembersAreRememberedAsSeeds(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	remembered := func(want ...string) func() bool {
		return func() bool {
			seeds := rememberedSeeds(c.dirs[0])
			for _, id := range want {
				if seeds[id] == "" {
					return false
				}
			}
			return len(seeds) == len(want)
		}
	}
	c.eventually("n1 has written down the others", remembered("n2", "n3"))
	// n3 is removed, and gossip still sees it.
	if _, err := (wire{c.nodes[0]}).RemoveMember(c.ctx(), &apiv1.RemoveMemberRequest{Id: "n3"}); err != nil {
		t.Fatal(err)
	}
	c.eventually("n1 has forgotten the address of n3", remembered("n2"))
	if err := c.nodes[1].Close(); err != nil {
		t.Fatal(err)
	}
	c.eventually("n1 no longer sees n2", func() bool { p, _ := c.nodes[0].cluster.Peer("n2"); return p.State == cluster.Failed })
	if !remembered("n2")() {
		t.Errorf("n1 remembers %v, want the last address of its only other member", rememberedSeeds(c.dirs[0]))
	}
}

func TestPeersThatAreNotMembersAreNotRemembered(t *testing.T) {
	dir := t.TempDir()
	peer := func(id string, state cluster.State, formed bool) cluster.Peer {
		return cluster.Peer{Meta: cluster.Meta{NodeID: id, Formed: formed}, Gossip: id + ":1", State: state}
	}
	list := seedList{}.with("c1", []cluster.Peer{
		peer("member", cluster.Alive, true), peer("removed", cluster.Alive, true),
		peer("fresh", cluster.Alive, false), peer("gone", cluster.Failed, true),
	}, map[string]bool{"member": true, "fresh": true, "gone": true})
	if err := list.write(dir); err != nil {
		t.Fatal(err)
	}
	if got := rememberedSeeds(dir); len(got) != 1 || got["member"] != "member:1" {
		t.Errorf("remembered %v, want only the member that is alive and has state", got)
	}
}
