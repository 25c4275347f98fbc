package cluster

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/locknode/locknode/internal/proof/leaks"
	"github.com/locknode/locknode/internal/proof/testall"
)

func TestMain(m *testing.M) {
	testall.AtOnce(4) // they wait for probes
	os.Exit(leaks.Run(m))
}

// ownKeys has the gossip key of each test that called apart, by its name.
var ownKeys sync.Map

// apart has a test run beside others. Its nodes have a gossip key of their own: a port that a
// test has just closed may become that of another one's node of the same ID, and nobody may
// take that for the node that was there.
func apart(t *testing.T) {
	t.Helper()
	t.Parallel()
	key := sha256.Sum256([]byte(t.Name()))
	ownKeys.Store(t.Name(), key[:])
}

// start runs a node on a free loopback port.
func start(t *testing.T, id string, change func(*Config)) *Cluster {
	t.Helper()
	cfg := Config{
		Meta: Meta{NodeID: id, API: "127.0.0.1:1", Raft: "127.0.0.1:" + fmt.Sprint(len(id)), Expect: 3},
		Bind: "127.0.0.1:0",
		Fast: true,
	}
	test, _, _ := strings.Cut(t.Name(), "/")
	if key, ok := ownKeys.Load(test); ok {
		cfg.Keys = [][]byte{key.([]byte)}
	}
	if change != nil {
		change(&cfg)
	}
	c, err := Start(cfg)
	if err != nil {
		t.Fatalf("Start(%s): %v", id, err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close(%s): %v", id, err)
		}
	})
	return c
}

func seeds(cs ...*Cluster) func(*Config) {
	return func(cfg *Config) {
		for _, c := range cs {
			cfg.Seeds = append(cfg.Seeds, c.Addr())
		}
	}
}

// crash stops a node without a word, as kill -9 does.
func crash(c *Cluster) {
	c.sending <- struct{}{}
	c.left = true // as far as it knows, it has said so already
	<-c.sending
	_ = c.Close()
}

// await waits until cond holds on c's peers.
func await(t *testing.T, c *Cluster, what string, cond func(peers map[string]Peer) bool) map[string]Peer {
	t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		changes := c.Changes()
		peers := make(map[string]Peer)
		for _, p := range c.Peers() {
			peers[p.NodeID] = p
		}
		if cond(peers) {
			return peers
		}
		select {
		case <-changes:
		case <-deadline:
			t.Fatalf("%s does not see %s; it sees %+v", c.cfg.NodeID, what, peers)
		}
	}
}

func inState(s State, ids ...string) func(map[string]Peer) bool {
	return func(peers map[string]Peer) bool {
		for _, id := range ids {
			if peers[id].State != s {
				return false
			}
		}
		return true
	}
}

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) count(s string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), s)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// await waits for a line that may still be on its way when its cause is known.
func (b *logBuffer) await(t *testing.T, s string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); b.count(s) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log does not say %q:\n%s", s, b)
		}
	}
}

func (b *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func TestPeersFindEachOtherThroughOneSeed(t *testing.T) {
	apart(t)
	a := start(t, "a", nil)
	b := start(t, "b", seeds(a))
	c := start(t, "c", seeds(a))
	await(t, a, "b and c", inState(Alive, "b", "c"))
	await(t, b, "a and c", inState(Alive, "a", "c"))
	peers := await(t, c, "a and b", inState(Alive, "a", "b"))
	if got := peers["a"]; got.API != "127.0.0.1:1" || got.Expect != 3 || got.Gossip != a.Addr() {
		t.Errorf("c sees a as %+v", got)
	}
	if _, self := peers["c"]; self {
		t.Error("c is its own peer")
	}
}

// A seed that is not there yet is tried until it is.
func TestSeedMayStartLater(t *testing.T) {
	first := start(t, "first", nil)
	addr := first.Addr()
	crash(first)
	b := start(t, "b", func(cfg *Config) { cfg.Seeds = []string{addr} })
	awaitTrue(t, b, "settled", b.Settled)
	if peers := b.Peers(); len(peers) != 0 {
		t.Fatalf("b sees %+v", peers)
	}
	start(t, "a", func(cfg *Config) { cfg.Bind = addr })
	await(t, b, "a", inState(Alive, "a"))
}

func awaitTrue(t *testing.T, c *Cluster, what string, cond func() bool) {
	t.Helper()
	await(t, c, what, func(map[string]Peer) bool { return cond() })
}

func TestOwnAddressAmongSeedsIsNoPeer(t *testing.T) {
	first := start(t, "first", nil)
	addr := first.Addr()
	crash(first)
	c := start(t, "c", func(cfg *Config) { cfg.Bind, cfg.Seeds = addr, []string{addr} })
	awaitTrue(t, c, "settled", c.Settled)
	if got := c.targets(false); len(got) != 0 {
		t.Errorf("c would contact %v", got)
	}
}

// One name stands for several nodes, and its addresses are asked for anew at
// each try: the first answer leads nowhere.
func TestSeedNameIsResolvedAtEachTry(t *testing.T) {
	gone := start(t, "gone", nil)
	port := gone.Addr()[strings.LastIndexByte(gone.Addr(), ':'):]
	crash(gone)
	var mu sync.Mutex
	lookups := 0
	lookup := func(_ context.Context, host string) ([]string, error) {
		mu.Lock()
		defer mu.Unlock()
		lookups++
		switch {
		case host != "peers.test":
			return nil, fmt.Errorf("asked for %q", host)
		case lookups == 1:
			return nil, fmt.Errorf("no such name yet")
		case lookups == 2:
			return []string{"127.0.0.9"}, nil
		}
		return []string{"127.0.0.9", "127.0.0.2", "127.0.0.3"}, nil
	}
	c := start(t, "c", func(cfg *Config) {
		cfg.Seeds, cfg.LookupHost = []string{"peers.test" + port}, lookup
	})
	start(t, "a", func(cfg *Config) { cfg.Bind = "127.0.0.2" + port })
	start(t, "b", func(cfg *Config) { cfg.Bind = "127.0.0.3" + port })
	await(t, c, "a and b behind one name", inState(Alive, "a", "b"))
}

func TestChangedMetaReachesPeers(t *testing.T) {
	a := start(t, "a", func(cfg *Config) { cfg.Meta.Expect = 0 })
	b := start(t, "b", seeds(a))
	await(t, a, "b", inState(Alive, "b"))
	since := await(t, a, "b", inState(Alive, "b"))["b"].Since
	m := b.Meta()
	m.Promise, m.Formed = list("a", "b").Hash(), true
	if err := b.SetMeta(m); err != nil {
		t.Fatal(err)
	}
	peers := await(t, a, "b's promise", func(p map[string]Peer) bool { return p["b"].Formed && p["b"].Promise == m.Promise })
	if !peers["b"].Since.Equal(since) {
		t.Error("b has been alive all the time, but its Since moved")
	}
}

func TestBadMetaLeavesTheOld(t *testing.T) {
	a := start(t, "a", nil)
	before := a.Meta()
	for _, change := range []func(*Meta){
		func(m *Meta) { m.NodeID = "other" },
		func(m *Meta) { m.Zone = strings.Repeat("z", MaxMeta) },
	} {
		m := before
		change(&m)
		if err := a.SetMeta(m); err == nil {
			t.Errorf("SetMeta took %+v", m)
		}
	}
	if got := a.Meta(); got != before {
		t.Errorf("meta is %+v, want %+v", got, before)
	}
}

func TestLeaverIsLeftAndCrasherIsFailed(t *testing.T) {
	apart(t)
	a := start(t, "a", nil)
	leaver, crasher, stopper := start(t, "leaver", seeds(a)), start(t, "crasher", seeds(a)), start(t, "stopper", seeds(a))
	await(t, a, "all", inState(Alive, "leaver", "crasher", "stopper"))
	await(t, leaver, "someone to say it to", inState(Alive, "a"))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := leaver.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	await(t, a, "that leaver left", inState(Left, "leaver"))
	if err := leaver.Close(); err != nil {
		t.Fatal(err)
	}
	crash(crasher)
	await(t, a, "that crasher failed", inState(Failed, "crasher"))
	if err := stopper.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, a, "that stopper and crasher failed and leaver left", func(p map[string]Peer) bool {
		return inState(Failed, "stopper", "crasher")(p) && inState(Left, "leaver")(p)
	})
}

// The failed peer stays known after memberlist has forgotten it.
func TestFailedPeerIsRemembered(t *testing.T) {
	tab := newTable("self")
	tab.alive(memberNode(t, fresh("p", 3), "10.0.0.1", 1))
	tab.gone(memberNode(t, fresh("p", 3), "10.0.0.1", 1))
	tab.alive(memberNode(t, fresh("q", 3), "10.0.0.2", 1))
	got := tab.list()
	if len(got) != 2 || got[0].NodeID != "p" || got[0].State != Failed || got[1].State != Alive {
		t.Errorf("table has %+v", got)
	}
}

func TestTableForgetsTheOldestGone(t *testing.T) {
	tab := newTable("self")
	for i := range maxGone + 10 {
		n := memberNode(t, fresh(fmt.Sprintf("n%05d", i), 3), "10.0.0.1", 1)
		tab.alive(n)
		tab.gone(n)
	}
	got := tab.list()
	if len(got) != maxGone || got[0].NodeID != "n00010" {
		t.Errorf("table has %d peers, the first is %v", len(got), got[0].NodeID)
	}
}

func TestFloodOfPeersIsBounded(t *testing.T) {
	var log logBuffer
	c := start(t, "self", func(cfg *Config) { cfg.Logger = log.logger() })
	refused := 0
	for i := range maxAlive + 10 {
		n := memberNode(t, fresh(fmt.Sprintf("n%05d", i), 3), "10.0.0.1", 1)
		if c.delegate.NotifyAlive(n) != nil {
			refused++
			continue
		}
		c.delegate.NotifyJoin(n)
	}
	if n := len(c.Peers()); n != maxAlive || refused != 10 {
		t.Errorf("%d peers, %d refused", n, refused)
	}
	if err := c.delegate.NotifyAlive(memberNode(t, fresh("n00000", 3), "10.0.0.1", 1)); err != nil {
		t.Errorf("a known peer is refused: %v", err)
	}
	if n := log.count("too many"); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

func TestRestartAtSameAddressIsFollowed(t *testing.T) {
	a := start(t, "a", nil)
	b := start(t, "b", seeds(a))
	await(t, a, "b", inState(Alive, "b"))
	addr := b.Addr()
	crash(b)
	// At once: a has not noticed anything.
	start(t, "b", func(cfg *Config) {
		seeds(a)(cfg)
		cfg.Bind, cfg.Meta.Zone = addr, "second life"
	})
	await(t, a, "b's second life", func(p map[string]Peer) bool {
		return p["b"].State == Alive && p["b"].Zone == "second life"
	})
}

func TestRestartAtAnotherAddressIsFollowed(t *testing.T) {
	apart(t)
	for _, stop := range []struct {
		name string
		stop func(*Cluster)
	}{{"crashed", crash}, {"stopped", func(c *Cluster) { _ = c.Close() }}} {
		t.Run(stop.name, func(t *testing.T) {
			a := start(t, "a", nil)
			c := start(t, "c", seeds(a))
			b := start(t, "b", seeds(a))
			await(t, a, "b and c", inState(Alive, "b", "c"))
			await(t, c, "b", inState(Alive, "b"))
			stop.stop(b)
			// After a crash this is refused until the old address has failed.
			b2 := start(t, "b", seeds(a))
			moved := func(p map[string]Peer) bool { return p["b"].State == Alive && p["b"].Gossip == b2.Addr() }
			await(t, a, "b at its new address", moved)
			await(t, c, "b at its new address", moved)
			await(t, b2, "a and c", inState(Alive, "a", "c"))
			awaitTrue(t, b2, "no conflict", func() bool { return b2.Conflict() == "" })
		})
	}
}

// As long as the peers have a node at its old address, its message from another address is
// kept beside that.
func TestClaimOfARestartedNodeIsShown(t *testing.T) {
	apart(t)
	a := start(t, "a", nil)
	b := start(t, "b", seeds(a))
	await(t, a, "b", inState(Alive, "b"))
	b2 := start(t, "b", func(cfg *Config) { seeds(a)(cfg); cfg.Meta.Raft = "127.0.0.1:77" })
	peers := await(t, a, "the claim", func(p map[string]Peer) bool {
		return len(p["b"].Claims) == 1 && p["b"].Claims[0].Raft == "127.0.0.1:77"
	})
	if got := peers["b"]; got.State != Alive || got.Gossip != b.Addr() || got.Raft == "127.0.0.1:77" {
		t.Errorf("a sees b as %+v, want it where it was", got)
	}
	crash(b)
	peers = await(t, a, "b at its new address", func(p map[string]Peer) bool { return p["b"].State == Alive && p["b"].Gossip == b2.Addr() })
	if claims := peers["b"].Claims; len(claims) > 0 && claims[0].Raft == "127.0.0.1:77" {
		t.Errorf("what b says of itself is still a claim: %+v", claims)
	}
}

// A node that was restarted more than once before anybody has noticed is told of at each
// of its addresses, in any order: none of them puts another out of mind.
func TestClaimsAreKeptBesideEachOther(t *testing.T) {
	table := newTable("a")
	at := func(i int) *memberlist.Node {
		meta := Meta{NodeID: "b", API: fmt.Sprintf("b%d:1", i), Raft: fmt.Sprintf("b%d:2", i)}
		raw, err := meta.encode()
		if err != nil {
			t.Fatal(err)
		}
		return &memberlist.Node{Name: "b", Addr: net.IPv4(10, 0, 0, byte(i)), Port: 1, Meta: raw}
	}
	claims := func() (apis []string) {
		p, _ := table.peer("b")
		for _, c := range p.Claims {
			apis = append(apis, c.API)
		}
		return apis
	}
	table.alive(at(1))
	for _, i := range []int{2, 3, 2, 2, 3} {
		table.claimed("b", at(i).Meta)
	}
	if got, want := claims(), []string{"b3:1", "b2:1"}; !slices.Equal(got, want) {
		t.Errorf("claims at %q, want %q", got, want)
	}
	for i := range 100 {
		table.claimed("b", at(4+i).Meta)
	}
	if got := claims(); len(got) != maxClaims || got[0] != "b103:1" {
		t.Errorf("%d claims are kept, the first of %q; want %d, the latest first", len(got), got[0], maxClaims)
	}
	table.alive(at(103))
	if got := claims(); len(got) > 0 {
		t.Errorf("b is where it says, and there are still claims at %q", got)
	}
}

// Two processes under one ID: the first keeps its place, and everyone says why.
func TestSecondProcessUnderOneIDIsRefused(t *testing.T) {
	apart(t)
	const gone = "no longer in use elsewhere"
	var logA, logB logBuffer
	a := start(t, "a", func(cfg *Config) { cfg.Logger = logA.logger() })
	b := start(t, "b", seeds(a))
	await(t, a, "b", inState(Alive, "b"))
	imposter := start(t, "b", func(cfg *Config) {
		seeds(a)(cfg)
		cfg.Logger = logB.logger()
	})
	awaitTrue(t, imposter, "the conflict", func() bool { return imposter.Conflict() == b.Addr() })
	deadline := time.Now().Add(time.Minute)
	for logA.count("two addresses claim one node ID") == 0 || logB.count("two processes share one ID") == 0 {
		if time.Now().After(deadline) {
			t.Fatalf("no warning; a's log:\n%s\nimposter's log:\n%s", &logA, &logB)
		}
		time.Sleep(5 * time.Millisecond)
	}
	peers := await(t, a, "b", inState(Alive, "b"))
	if got := peers["b"].Gossip; got != b.Addr() {
		t.Errorf("a sees b at %s, want %s", got, b.Addr())
	}
	// Many more refusals, still one warning.
	rounds := 0
	for imposter.Conflict() != "" && rounds < 3 {
		imposter.joinRound()
		rounds++
	}
	if n := logA.count("two addresses claim one node ID"); n != 1 {
		t.Errorf("a warned %d times:\n%s", n, &logA)
	}
	crash(b)
	logB.await(t, gone)
}

// A node hears of another one of its ID between its rounds, and not in them. It does not
// say after each round that the other one is gone.
func TestIDIsNotFreeAsLongAsItIsSeenElsewhere(t *testing.T) {
	apart(t)
	var log logBuffer
	a := start(t, "a", func(cfg *Config) { cfg.Logger = log.logger() })
	for began := time.Now(); time.Since(began) < 20*a.timing.retryMin; {
		a.noteConflict("127.0.0.1:9")
		a.joinRound()
		time.Sleep(time.Millisecond)
	}
	if told, over := log.count("two processes share one ID"), log.count("no longer in use elsewhere"); told != 1 || over != 0 {
		t.Fatalf("told %d times that the ID is in use elsewhere, and %d times that it is not, want 1 and 0:\n%s", told, over, &log)
	}
	for deadline := time.Now().Add(time.Minute); log.count("no longer in use elsewhere") == 0; a.joinRound() {
		if time.Now().After(deadline) {
			t.Fatalf("nothing says that the ID is free:\n%s", &log)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestOtherClusterIsRefused(t *testing.T) {
	in := func(id string) func(*Config) {
		return func(cfg *Config) { cfg.Meta.ClusterID, cfg.Meta.Formed = id, true }
	}
	var log logBuffer
	a := start(t, "a", func(cfg *Config) { in("one")(cfg); cfg.Logger = log.logger() })
	b := start(t, "b", func(cfg *Config) { in("two")(cfg); seeds(a)(cfg) })
	// A fresh node may talk to both, and must not become a bridge.
	f := start(t, "f", seeds(a, b))
	await(t, f, "a", inState(Alive, "a"))
	awaitTrue(t, b, "settled", b.Settled)
	for range 3 {
		b.joinRound()
	}
	if _, known := peerMap(a)["b"]; known {
		t.Errorf("a sees a peer of another cluster: %+v", a.Peers())
	}
	if _, known := peerMap(b)["a"]; known {
		t.Errorf("b sees a peer of another cluster: %+v", b.Peers())
	}
	log.await(t, "belongs to another cluster")
	if n := log.count("belongs to another cluster"); n != 1 {
		t.Errorf("a warned %d times, want 1:\n%s", n, &log)
	}
	// Once f belongs to one, it no longer counts the other's nodes as peers.
	m := f.Meta()
	m.ClusterID, m.Formed = "one", true
	if err := f.SetMeta(m); err != nil {
		t.Fatal(err)
	}
	if _, known := peerMap(f)["b"]; known {
		t.Errorf("f sees %+v", f.Peers())
	}
}

func peerMap(c *Cluster) map[string]Peer {
	m := make(map[string]Peer)
	for _, p := range c.Peers() {
		m[p.NodeID] = p
	}
	return m
}

func TestLabelKeepsClustersApart(t *testing.T) {
	for _, labels := range [][2]string{{"one", "two"}, {"one", ""}, {"", "two"}} {
		var log logBuffer
		a := start(t, "a", func(cfg *Config) { cfg.Label, cfg.Logger = labels[0], log.logger() })
		b := start(t, "b", func(cfg *Config) { cfg.Label = labels[1]; seeds(a)(cfg) })
		awaitTrue(t, b, "settled", b.Settled)
		if len(a.Peers())+len(b.Peers()) != 0 {
			t.Errorf("%q: a sees %+v, b sees %+v", labels, a.Peers(), b.Peers())
		}
		awaitTrue(t, a, "who has another name is told", func() bool {
			return log.count("gossip refused: the other end has another cluster_name") == 1 &&
				log.count(fmt.Sprintf("its_cluster_name=%s", cmp.Or(labels[1], `""`))) == 1
		})
	}
}

func TestKeysRotateWithoutLoss(t *testing.T) {
	k1, k2 := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 16)
	keyed := func(keys ...[]byte) func(*Config) { return func(cfg *Config) { cfg.Keys = keys } }
	a := start(t, "a", keyed(k1))
	b := start(t, "b", func(cfg *Config) { keyed(k1)(cfg); seeds(a)(cfg) })
	stranger := start(t, "stranger", func(cfg *Config) { keyed(k2)(cfg); seeds(a)(cfg) })
	await(t, a, "b", inState(Alive, "b"))
	awaitTrue(t, stranger, "settled", stranger.Settled)
	if _, known := peerMap(a)["stranger"]; known {
		t.Error("a took a peer with another key")
	}
	for _, keys := range [][][]byte{{k1, k2}, {k2, k1}, {k2}} {
		for _, c := range []*Cluster{a, b} {
			if err := c.SetKeys(keys); err != nil {
				t.Fatal(err)
			}
		}
		m := b.Meta()
		m.Zone = fmt.Sprint(len(keys), keys[0][0])
		if err := b.SetMeta(m); err != nil {
			t.Fatal(err)
		}
		await(t, a, "b after a step of the rotation", func(p map[string]Peer) bool { return p["b"].Zone == m.Zone })
	}
	await(t, a, "the stranger, whose key is now right", inState(Alive, "stranger"))
	if err := a.SetKeys(nil); err == nil {
		t.Error("the last key was given up")
	}
	if err := a.SetKeys([][]byte{{1}}); err == nil {
		t.Error("a key of one byte was taken")
	}
}

// Two groups that were joined through different seeds find each other as soon
// as one seed of the other group is reachable.
func TestGroupsMerge(t *testing.T) {
	apart(t)
	gone := start(t, "gone", nil)
	late := gone.Addr()
	crash(gone)
	a := start(t, "a", nil)
	start(t, "b", func(cfg *Config) { seeds(a)(cfg); cfg.Seeds = append(cfg.Seeds, late) })
	await(t, a, "b", inState(Alive, "b"))
	c := start(t, "c", func(cfg *Config) { cfg.Bind = late })
	d := start(t, "d", seeds(c))
	await(t, a, "c and d", inState(Alive, "c", "d"))
	await(t, d, "a and b", inState(Alive, "a", "b"))
}

func TestCloseIsBoundedAndIdempotent(t *testing.T) {
	a := start(t, "a", nil)
	b := start(t, "b", func(cfg *Config) {
		seeds(a)(cfg)
		cfg.Seeds = append(cfg.Seeds, "192.0.2.1:9") // leads nowhere
	})
	await(t, a, "b", inState(Alive, "b"))
	begin := time.Now()
	for range 2 {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("Close took %v", took)
	}
}

func TestAllConfigFaultsAreReported(t *testing.T) {
	_, err := Start(Config{
		Meta: Meta{Expect: -1}, Bind: "nowhere", Seeds: []string{"no-port", "ok:1", ":2", "x:0"},
		Label: strings.Repeat("l", 256), Keys: [][]byte{make([]byte, 5)},
	})
	if err == nil {
		t.Fatal("Start took it")
	}
	for _, part := range []string{"node ID", "expect: is -1", `"nowhere"`, `"no-port"`, `":2"`, `"x:0"`, "label: is 256", "key 0: is 5"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error does not mention %s: %v", part, err)
		}
	}
}
