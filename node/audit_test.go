package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/audit"
	"github.com/locknode/locknode/internal/disk"
)

// auditFile is where the nodes of a test record.
type auditFile struct {
	mu    sync.Mutex
	bytes bytes.Buffer
	fail  error
}

func (f *auditFile) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return 0, f.fail
	}
	return f.bytes.Write(b)
}

func (f *auditFile) breakWith(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// auditLine is what tests read of a line.
type auditLine struct {
	Node, Cluster, Event, Identity, Address, Name, Holder, Reason, Outcome, Error string
	Token, Index                                                                  uint64
	Part                                                                          int
	Again                                                                         bool
	Notes                                                                         map[string]string
}

func (f *auditFile) lines(t *testing.T, events ...string) (lines []auditLine) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for text := range strings.Lines(f.bytes.String()) {
		var l auditLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		for _, event := range events {
			if l.Event == event {
				lines = append(lines, l)
			}
		}
	}
	return lines
}

// audited is a cluster whose nodes record into one file each.
func audited(t *testing.T, size int, change func(*Audit)) (*testCluster, []*auditFile) {
	t.Helper()
	var files []*auditFile
	c := startClusterWith(t, size, func(cfg *Config) {
		files = append(files, &auditFile{})
		cfg.Audit.To = files[len(files)-1]
		change(&cfg.Audit)
	})
	return c, files
}

func everyLine(t *testing.T, files []*auditFile, events ...string) (lines []auditLine) {
	t.Helper()
	for _, f := range files {
		lines = append(lines, f.lines(t, events...)...)
	}
	return lines
}

func TestWhatIsDoneByForceIsRecordedOnceWhereItHasEntered(t *testing.T) {
	t.Parallel()
	c, files := audited(t, 3, func(*Audit) {})
	follower := c.follower()
	remote, err := client.Dial(t.Context(), []string{follower.APIAddr()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = remote.Close() }()
	own := follower.Client()
	for i, one := range []*client.Client{remote, own} {
		name := fmt.Sprintf("orders/%d", i)
		if _, err := follower.Client().Lock(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		if _, err := one.ForceRelease(t.Context(), name, 0, "it hangs"); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"orders/0": "anonymous", "orders/1": "embedded"}
	c.eventually("both are recorded", func() bool { return len(everyLine(t, files, audit.EventForceRelease)) >= len(want) })
	got := everyLine(t, files, audit.EventForceRelease)
	if len(got) != len(want) {
		t.Fatalf("%d lines, want %d: %+v", len(got), len(want), got)
	}
	for _, l := range got {
		if l.Identity != want[l.Name] || l.Reason != "it hangs" || l.Outcome != "ok" || l.Index == 0 || l.Cluster == "" {
			t.Errorf("%+v, want it done by %s", l, want[l.Name])
		}
		if remote := l.Identity == "anonymous"; remote != strings.HasPrefix(l.Address, "127.0.0.1:") || !remote && l.Node != follower.ID() {
			t.Errorf("%+v has another address or node", l)
		}
		delete(want, l.Name)
	}
	if _, err := own.TransferLeadership(t.Context(), follower.ID()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := remote.SetLimits(t.Context(), map[string]int64{"sessions": 777}); err != nil {
		t.Fatal(err)
	}
	c.eventually("the limit is recorded", func() bool {
		l := everyLine(t, files, audit.EventSetLimits)
		return len(l) == 1 && l[0].Index > 0 && l[0].Notes["sessions"] == "777"
	})
	// A line of each node that comes later says that the earlier ones are there.
	for _, n := range c.nodes {
		_, _, _ = n.Client().Clear(t.Context(), "nobody/"+n.ID(), "")
	}
	c.eventually("the clears are recorded", func() bool { return len(everyLine(t, files, audit.EventClear)) >= len(c.nodes) })
	for event, want := range map[string]int{audit.EventTransfer: 1, audit.EventForceRelease: 2, audit.EventClear: len(c.nodes)} {
		if got := everyLine(t, files, event); len(got) != want {
			t.Errorf("%s: %d lines, want %d: %+v", event, len(got), want, got)
		}
	}
}

func TestTheLifeOfANodeAndTheChangesOfMembersAreRecorded(t *testing.T) {
	t.Parallel()
	c, files := audited(t, 2, func(*Audit) {})
	if got := everyLine(t, files, audit.EventFormed); len(got) != 1 {
		t.Errorf("formed: %+v, want one line", got)
	}
	leaver := c.follower()
	if err := leaver.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.eventually("the change of members is recorded", func() bool { return len(everyLine(t, files, audit.EventMember)) > 0 })
	removed := everyLine(t, files, audit.EventMember)
	if l := removed[len(removed)-1]; l.Name != leaver.ID() || l.Notes["change"] != "removed" || l.Index == 0 || !strings.HasPrefix(l.Identity, "node:") {
		t.Errorf("removed: %+v", l)
	}
	left := files[0]
	if c.nodes[1] == leaver {
		left = files[1]
	}
	lives := left.lines(t, audit.EventStart, audit.EventStop)
	if len(lives) != 2 || lives[0].Event != audit.EventStart || lives[1].Event != audit.EventStop || lives[1].Node != leaver.ID() {
		t.Errorf("the node that has left: %+v, want its start and its stop", lives)
	}
}

// With on_error refuse nothing is done by force that leaves no trace; what needs no force goes
// on.
func TestWithoutATraceNothingIsDoneByForce(t *testing.T) {
	t.Parallel()
	c, files := audited(t, 1, func(a *Audit) { a.Refuse = true })
	me := c.nodes[0].Client()
	if _, err := me.Lock(t.Context(), "orders/1"); err != nil {
		t.Fatal(err)
	}
	files[0].breakWith(errors.New("no space"))
	remote, err := client.Dial(t.Context(), []string{c.nodes[0].APIAddr()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = remote.Close() }()
	held := func() int {
		lock, err := me.Get(t.Context(), "orders/1")
		if err != nil {
			t.Fatal(err)
		}
		return len(lock.Holders)
	}
	if _, _, err := remote.Clear(t.Context(), "orders/1", "no trace"); err == nil || !strings.Contains(err.Error(), "audit") {
		t.Errorf("clear without a trace: %v, want an error that names the audit", err)
	}
	if held() != 1 {
		t.Error("the lock is free")
	}
	if _, err := me.Lock(t.Context(), "orders/2"); err != nil {
		t.Errorf("an ordinary acquire: %v", err)
	}
	files[0].breakWith(nil)
	if _, _, err := remote.Clear(t.Context(), "orders/1", "a trace"); err != nil {
		t.Fatal(err)
	}
	c.eventually("begin and end are recorded", func() bool { return len(files[0].lines(t, audit.EventClear)) >= 2 })
	lines := files[0].lines(t, audit.EventClear)
	last := lines[len(lines)-2:]
	if last[0].Outcome != audit.OutcomeBegun || last[1].Outcome != audit.OutcomeOK || last[1].Index == 0 {
		t.Errorf("%+v, want that it began and that it ended", last)
	}
}

// Each grant and each end has a line in the cluster, also where the leader changes meanwhile;
// what two nodes have written says so.
func TestEachGrantHasOneLineInTheCluster(t *testing.T) {
	t.Parallel()
	c, files := audited(t, 3, func(a *Audit) { a.Grants = true })
	me := c.follower().Client()
	tokens := map[uint64]bool{}
	for i := range 60 {
		g, err := me.Lock(t.Context(), fmt.Sprintf("orders/%d", i%7))
		if err != nil {
			t.Fatal(err)
		}
		tokens[g.Token()] = true
		if err := g.Unlock(); err != nil {
			t.Fatal(err)
		}
		if i%20 == 10 {
			if _, err := me.TransferLeadership(t.Context(), c.follower().ID()); err != nil {
				t.Fatal(err)
			}
		}
	}
	type key struct {
		index uint64
		part  int
	}
	complete := func() bool {
		granted, ended := map[uint64]bool{}, map[uint64]bool{}
		for _, l := range everyLine(t, files, audit.EventGrant) {
			granted[l.Token] = true
		}
		for _, l := range everyLine(t, files, audit.EventGrantEnd) {
			ended[l.Token] = true
		}
		for token := range tokens {
			if !granted[token] || !ended[token] {
				return false
			}
		}
		return true
	}
	c.eventually("every grant and every end has a line", complete)
	first, all := map[key]auditLine{}, map[key]auditLine{}
	for _, l := range everyLine(t, files, audit.EventGrant, audit.EventGrantEnd) {
		k := key{l.Index, l.Part}
		if other, twice := all[k]; twice && (other.Event != l.Event || other.Token != l.Token || other.Name != l.Name) {
			t.Errorf("two records are both %v: %+v and %+v", k, other, l)
		}
		all[k] = l
		if other, twice := first[k]; twice && !l.Again {
			t.Errorf("written twice, and neither says so: %+v and %+v", other, l)
		}
		if !l.Again {
			first[k] = l
		}
	}
	if len(first) < len(tokens) {
		t.Errorf("%d lines of %d grants are by who led when they were made", len(first), len(tokens))
	}
}

// A leader that is gone before it has written what it did is no loss: whoever leads next has
// kept it.
func TestRecordsOfAnEarlierLeaderAreWrittenByTheNext(t *testing.T) {
	to := &auditFile{}
	log := audit.New(audit.Options{To: to})
	var leads bool
	g := newGrantLog(log, func(uint64) bool { return leads })
	granted := func(index uint64, at time.Duration) {
		g.observe(&fsm.Applied{Index: index, Term: 1, Now: fsm.Instant(at), Events: []fsm.Event{
			{Kind: fsm.EventGranted, Token: index, Wants: []fsm.Want{{Lock: "a"}}}, {Kind: fsm.EventSessionOpened},
		}})
	}
	granted(1, 0)
	for i := range uint64(maxKept + 10) { // the oldest make room
		granted(100+i, keptFor)
	}
	granted(2, keptFor+time.Second)
	leads = true
	g.lead(fsm.Instant(keptFor + 2*time.Second))
	granted(3, keptFor+3*time.Second)
	g.lead(fsm.Instant(keptFor + 4*time.Second)) // there is nothing more to repeat
	if err := log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := to.lines(t, audit.EventGrant)
	if len(lines) != maxKept+1 {
		t.Fatalf("%d lines, want %d kept ones and one of its own", len(lines), maxKept)
	}
	own, last := lines[len(lines)-1], lines[len(lines)-2]
	if own.Again || own.Index != 3 || !last.Again || last.Index != 2 || lines[0].Index != 111 {
		t.Errorf("first %+v, last kept %+v, own %+v", lines[0], last, own)
	}

	leads = false
	granted(4, 0)
	granted(5, 5*time.Second)
	to.mu.Lock()
	to.bytes.Reset()
	to.mu.Unlock()
	g.log = audit.New(audit.Options{To: to})
	g.lead(fsm.Instant(keptFor + time.Second))
	if err := g.log.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lines := to.lines(t, audit.EventGrant); len(lines) != 1 || lines[0].Index != 5 {
		t.Errorf("%+v, want only what is not older than %v", lines, keptFor)
	}
}

// BenchmarkGrantRecord is what a grant and its end cost the goroutine that applies entries.
func BenchmarkGrantRecord(b *testing.B) {
	log := audit.New(audit.Options{To: io.Discard})
	g := newGrantLog(log, func(uint64) bool { return true })
	a := fsm.Applied{Index: 1, Events: []fsm.Event{
		{Kind: fsm.EventGranted, Token: 7, Session: fsm.SessionID{1}, Holder: "worker 17", Owner: "token:shop", Wants: []fsm.Want{{Lock: "orders/42"}}},
		{Kind: fsm.EventReleased, Token: 7, Session: fsm.SessionID{1}, Holder: "worker 17", Owner: "token:shop", Wants: []fsm.Want{{Lock: "orders/42"}}},
	}}
	b.ReportAllocs()
	for b.Loop() {
		g.observe(&a)
	}
	if err := log.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func TestAReseededDirectorySaysSoOnce(t *testing.T) {
	t.Parallel()
	cfg := Config{DataDir: t.TempDir(), Listen: "127.0.0.1:0", BootstrapExpect: 1, Fast: true}
	for i, want := range []int{0, 1, 0} {
		file := &auditFile{}
		cfg.Audit.To = file
		n, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 { // as Reseed leaves it
			if err := n.stores.UpdateIdentity(func(id *disk.Identity) { id.Reseeded = true }); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		if got := file.lines(t, audit.EventReseeded); len(got) != want {
			t.Errorf("start %d: %+v, want %d lines", i, got, want)
		}
	}
}
