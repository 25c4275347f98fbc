package simdisk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/network"
	"github.com/locknode/locknode/internal/proof/simnet"
)

const raftPort = ":7000"

// group is a set of raft members over a simulated network and disks.
type group struct {
	t       *testing.T
	net     *simnet.Network
	members []*member
}

type member struct {
	name   string
	disk   *Disk
	fsm    *words
	stores *disk.Stores
	trans  *network.Transport
	raft   *raft.Raft // nil while it is down
	failed chan error
}

// words is a state machine that remembers every command by its index.
type words struct {
	mu  sync.Mutex
	all map[uint64]string
}

func (w *words) Apply(l *raft.Log) any {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all[l.Index] = string(l.Data)
	return nil
}

func (w *words) list() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, i := range slices.Sorted(maps.Keys(w.all)) {
		list = append(list, fmt.Sprintf("%d:%s", i, w.all[i]))
	}
	return list
}

func (w *words) Snapshot() (raft.FSMSnapshot, error) { return image(strings.Join(w.list(), "\n")), nil }

func (w *words) Restore(r io.ReadCloser) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = map[uint64]string{}
	for line := range strings.Lines(string(b)) {
		var i uint64
		var text string
		if _, err := fmt.Sscanf(line, "%d:%s", &i, &text); err != nil {
			return err
		}
		w.all[i] = text
	}
	return nil
}

type image string

func (p image) Persist(sink raft.SnapshotSink) error {
	if _, err := io.WriteString(sink, string(p)); err != nil {
		return err
	}
	return sink.Close()
}

func (image) Release() {}

func raftConfig(name string) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(name)
	c.HeartbeatTimeout = 200 * time.Millisecond
	c.ElectionTimeout = 200 * time.Millisecond
	c.LeaderLeaseTimeout = 150 * time.Millisecond
	c.CommitTimeout = 20 * time.Millisecond
	c.SnapshotInterval = 20 * time.Second
	c.SnapshotThreshold = 50
	c.TrailingLogs = 10
	c.Logger = hclog.NewNullLogger()
	return c
}

// inGroup runs f over three members with a leader, in virtual time.
func inGroup(t *testing.T, f func(t *testing.T, g *group)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := &group{t: t, net: simnet.New(1, simnet.Options{Latency: time.Millisecond, Jitter: time.Millisecond})}
		var servers []raft.Server
		for _, name := range []string{"a", "b", "c"} {
			h := g.net.Host(name)
			servers = append(servers, raft.Server{ID: raft.ServerID(name), Address: raft.ServerAddress(h.IP().String() + raftPort)})
			g.members = append(g.members, &member{name: name, disk: New(Options{})})
		}
		for _, m := range g.members {
			g.start(m, servers)
		}
		g.leader()
		defer func() {
			for _, m := range g.members {
				g.stop(m)
			}
			g.net.Close()
		}()
		f(t, g)
	})
}

// start begins a life of m; with servers, the first one.
func (g *group) start(m *member, servers []raft.Server) {
	g.t.Helper()
	if err := g.tryStart(m, servers); err != nil {
		g.t.Fatalf("start %s: %v", m.name, err)
	}
}

func (g *group) tryStart(m *member, servers []raft.Server) error {
	host := g.net.Revive(m.name)
	m.failed = make(chan error, 1)
	failed := m.failed
	stores, err := disk.OpenStores(disk.StoreOptions{
		NodeID: m.name, Memory: m.disk.Memory(), OnFailure: func(err error) { failed <- err },
	})
	if err != nil {
		return err
	}
	l, err := host.Listen(raftPort)
	if err != nil {
		return err
	}
	stream := network.NewStream(l, network.StreamOptions{Member: m.name, Dial: func(ctx context.Context, addr string) (net.Conn, error) { return host.Dial(ctx, addr) }})
	m.stores, m.fsm = stores, &words{all: map[uint64]string{}}
	m.trans = network.NewTransport(stream, network.TransportOptions{Gate: stores.Gate})
	conf := raftConfig(m.name)
	if servers != nil {
		if err := raft.BootstrapCluster(conf, stores.Log, stores.Stable, stores.Snapshots, m.trans, raft.Configuration{Servers: servers}); err != nil {
			return err
		}
	}
	if m.raft, err = network.NewRaft(conf, m.fsm, stores, m.trans); err != nil {
		_ = m.trans.Close()
		_ = stores.Close()
	}
	return err
}

// stop ends the goroutines of m, dead or alive.
func (g *group) stop(m *member) {
	if m.raft == nil {
		return
	}
	_ = m.trans.Close()
	if err := network.Shutdown(m.raft, 5*time.Second); err != nil {
		g.t.Errorf("stop %s: %v", m.name, err)
	}
	_ = m.stores.Close()
	m.raft = nil
}

// crash is a loss of power, or kill -9, of m.
func (g *group) crash(m *member, power bool) {
	if power {
		g.net.PowerOff(m.name)
	} else {
		g.net.Kill(m.name)
	}
	m.disk.Crash(!power)
	g.stop(m)
}

// leader waits for a leader and returns that of the latest term: one that hangs
// does not know that it was replaced.
func (g *group) leader() *member {
	g.t.Helper()
	for range 10_000 {
		var leader *member
		for _, m := range g.members {
			if m.raft != nil && m.raft.State() == raft.Leader && (leader == nil || m.raft.CurrentTerm() > leader.raft.CurrentTerm()) {
				leader = m
			}
		}
		if leader != nil {
			return leader
		}
		time.Sleep(time.Millisecond)
	}
	g.t.Fatal("no leader within 10s")
	return nil
}

// say commits n commands, each until it succeeds, and returns how many attempts
// failed.
func (g *group) say(text string, n int) (failed int) {
	g.t.Helper()
	for i := 0; i < n; {
		err := g.leader().raft.Apply(fmt.Appendf(nil, "%s-%d", text, i), time.Second).Error()
		if err != nil {
			if failed++; failed > 100 {
				g.t.Fatalf("command %d: %v", i, err)
			}
			continue
		}
		i++
	}
	return failed
}

// agree waits until all running members have applied the same.
func (g *group) agree() []string {
	g.t.Helper()
	var lists [][]string
	for range 10_000 {
		lists = nil
		for _, m := range g.members {
			if m.raft != nil {
				lists = append(lists, m.fsm.list())
			}
		}
		if len(lists[0]) > 0 && !slices.ContainsFunc(lists, func(l []string) bool { return !slices.Equal(l, lists[0]) }) {
			return lists[0]
		}
		time.Sleep(time.Millisecond)
	}
	for i, l := range lists {
		g.t.Logf("member %d: %d commands, last %v", i, len(l), l[max(0, len(l)-3):])
	}
	g.t.Fatal("no agreement within 10s")
	return nil
}

// wantAll looks for n acknowledged commands.
func wantAll(t *testing.T, list []string, text string, n int) {
	t.Helper()
	for i := range n {
		suffix := fmt.Sprintf(":%s-%d", text, i)
		if !slices.ContainsFunc(list, func(s string) bool { return strings.HasSuffix(s, suffix) }) {
			t.Errorf("acknowledged command %s-%d is gone", text, i)
		}
	}
}

func TestAcknowledgedCommandsSurviveLossOfPower(t *testing.T) {
	inGroup(t, func(t *testing.T, g *group) {
		g.say("one", 20)
		old := g.leader()
		g.crash(old, true)
		g.say("two", 20)
		g.start(old, nil)
		g.say("three", 20)
		for _, m := range g.members {
			g.crash(m, true)
		}
		for _, m := range g.members {
			g.start(m, nil)
		}
		g.say("four", 1)
		list := g.agree()
		wantAll(t, list, "one", 20)
		wantAll(t, list, "two", 20)
		wantAll(t, list, "three", 20)
	})
}

func TestAMemberCatchesUpFromASnapshot(t *testing.T) {
	inGroup(t, func(t *testing.T, g *group) {
		m := g.members[0]
		if m == g.leader() {
			m = g.members[1]
		}
		g.crash(m, false)
		g.say("word", 200)
		time.Sleep(time.Minute)
		if first, _ := g.leader().stores.Log.FirstIndex(); first < 100 {
			t.Errorf("the leader's log begins at %d, want it compacted", first)
		}
		g.start(m, nil)
		wantAll(t, g.agree(), "word", 200)
		if metas, err := m.stores.Snapshots.List(); err != nil || len(metas) == 0 {
			t.Errorf("snapshots of the member that came back: %v, %v", metas, err)
		}
		g.crash(m, false)
		g.start(m, nil) // from its own snapshot
		wantAll(t, g.agree(), "word", 200)
	})
}

func TestALyingDiskLosesAcknowledgedCommands(t *testing.T) {
	inGroup(t, func(t *testing.T, g *group) {
		g.say("kept", 5)
		for _, m := range g.members {
			m.disk.Lie(true)
		}
		g.say("lost", 5)
		g.agree()
		for _, m := range g.members {
			g.crash(m, true)
		}
		for _, m := range g.members {
			m.disk.Lie(false)
			g.start(m, nil)
		}
		g.say("after", 1)
		list := g.agree()
		wantAll(t, list, "kept", 5)
		if all := strings.Join(list, " "); strings.Contains(all, "lost") {
			t.Errorf("commands %s: nothing was lost, so this disk does not lie", all)
		}
	})
}

func TestAHungDiskCostsTheLeaderItsPlace(t *testing.T) {
	inGroup(t, func(t *testing.T, g *group) {
		old := g.leader()
		old.disk.Hang()
		start := time.Now()
		go old.raft.Apply([]byte("hangs-0"), time.Second)
		for g.leader() == old {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("another leader after %v, want at most 3s", took)
		}
		g.say("word", 10)
		old.disk.Release()
		wantAll(t, g.agree(), "word", 10)
	})
}

func TestAFailedDiskIsReportedAndReplaced(t *testing.T) {
	inGroup(t, func(t *testing.T, g *group) {
		g.say("one", 10)
		old := g.leader()
		old.disk.Fail(errors.New("no space left"), -1)
		_ = old.raft.Apply([]byte("fails-0"), time.Second).Error()
		if err := <-old.failed; !errors.Is(err, disk.ErrFailed) {
			t.Errorf("OnFailure: %v, want ErrFailed", err)
		}
		g.crash(old, false)
		g.say("two", 10)
		old.disk.Fail(nil, 0)
		g.start(old, nil)
		list := g.agree()
		wantAll(t, list, "one", 10)
		wantAll(t, list, "two", 10)
	})
}

func TestARottenMemberDoesNotStart(t *testing.T) {
	inGroup(t, func(t *testing.T, g *group) {
		g.say("word", 10)
		g.agree()
		m := g.members[2]
		g.crash(m, false)
		if err := m.disk.CorruptLog(6); err != nil {
			t.Fatal(err)
		}
		if err := g.tryStart(m, nil); !errors.Is(err, disk.ErrDamaged) {
			t.Errorf("start over a corrupted log: %v, want ErrDamaged", err)
		}
		g.say("more", 10)
		wantAll(t, g.agree(), "more", 10)
	})
}
