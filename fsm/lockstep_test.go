package fsm

import (
	"bytes"
	"flag"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/locknode/locknode/internal/proof/testall"
)

// lockstep feeds the table and the model the same entries and compares all
// that can be seen of them.
type lockstep struct {
	fail  func(format string, args ...any)
	gen   *generator
	table *Table
	model *model
	index uint64
	term  uint64
	log   []step // what was applied, for the failure's message
}

// step is what was done in one step.
type step struct {
	what     string
	index    uint64
	stamp    Instant
	commands []Command
}

func newLockstep(src source, fail func(format string, args ...any)) *lockstep {
	m := newModel()
	return &lockstep{fail: fail, gen: newGenerator(src, m), table: New(), model: m, term: 1}
}

// encode makes the bytes of an entry.
func encode(term uint64, stamp Instant, wall int64, commands ...Command) []byte {
	data := AppendHeader(nil, term, stamp, wall, len(commands))
	for _, c := range commands {
		data = AppendCommand(data, c)
	}
	return data
}

// step applies one random entry.
func (l *lockstep) step() {
	stamp := l.gen.stamp()
	if l.gen.oneIn(12, "new term") {
		l.term++
	}
	var commands []Command
	for range []int{1, 1, 1, 0, 2, 4}[l.gen.pick(6, "batch")] {
		commands = append(commands, l.gen.command())
	}
	switch l.gen.pick(30, "entry") {
	case 28:
		l.applyStale(stamp, commands)
	case 29:
		l.reload()
	default:
		l.apply(stamp, commands...)
	}
}

// apply runs an entry through both and compares.
func (l *lockstep) apply(stamp Instant, commands ...Command) Applied {
	l.index++
	wall := int64(l.index) * 1000
	l.log = append(l.log, step{"apply", l.index, stamp, commands})
	got := l.table.Apply(l.index, l.term, encode(l.term, stamp, wall, commands...))
	l.model.index = l.index
	results, events, moreDue := l.model.apply(stamp, wall, commands)
	if got.Refused != OK || got.Index != l.index || got.Term != l.term {
		l.failf("apply: refused %d, index %d, term %d", got.Refused, got.Index, got.Term)
	}
	if got.Now != l.model.now || got.MoreDue != moreDue {
		l.failf("apply: now %d, more due %v; want %d, %v", got.Now, got.MoreDue, l.model.now, moreDue)
	}
	if len(got.Results) != len(results) {
		l.failf("apply: %d results, want %d", len(got.Results), len(results))
	}
	for i := range results {
		results[i].Field = ""
		l.same(fmt.Sprintf("result %d (%T)", i, commands[i]), l.plainResult(got.Results[i]), results[i])
	}
	l.sameEvents(got.Events, events)
	l.compareState()
	return got
}

// applyStale applies an entry that was stamped in another term.
func (l *lockstep) applyStale(stamp Instant, commands []Command) {
	l.index++
	l.log = append(l.log, step{"stamped in another term", l.index, stamp, commands})
	stamped := l.term + 1
	if l.gen.oneIn(2, "older term") {
		stamped = l.term - 1
	}
	got := l.table.Apply(l.index, l.term, encode(stamped, stamp, 1, commands...))
	if got.Refused != StaleStamp || len(got.Results) != 0 || len(got.Events) != 0 || got.Now != l.model.now {
		l.failf("apply of a stale stamp: %+v", got)
	}
	l.compareState()
}

// reload goes on with a table restored from a snapshot.
func (l *lockstep) reload() {
	l.log = append(l.log, step{what: "restore"})
	var buf bytes.Buffer
	if _, err := l.table.Snapshot().WriteTo(&buf); err != nil {
		l.failf("write snapshot: %v", err)
	}
	restored, err := Restore(bytes.NewReader(buf.Bytes()))
	if err != nil {
		l.failf("restore: %v", err)
	}
	if a, b := l.table.Hash(), restored.Hash(); a != b {
		l.failf("restored table hashes to %x, want %x", b, a)
	}
	l.table = restored
	l.compareState()
}

func (l *lockstep) failf(format string, args ...any) {
	const shown = 40
	log := l.log[max(0, len(l.log)-shown):]
	for _, entry := range log {
		format += "\n  %+v"
		args = append(args, entry)
	}
	l.fail(format, args...)
}

// same compares two values; an empty slice equals none.
func (l *lockstep) same(what string, got, want any) {
	if reflect.DeepEqual(got, want) || fmt.Sprintf("%+v", got) == fmt.Sprintf("%+v", want) {
		return
	}
	l.failf("%s:\n got %+v\nwant %+v", what, got, want)
}

// plainResult drops what is for people, having looked that it is where it should be.
func (l *lockstep) plainResult(r Result) Result {
	explained := r.Code == Invalid || r.Code == OverLimit || r.Code == KindMismatch || r.Code == NotOwner
	either := r.Code == NotHeld // some have a field, such as the grant of a once ID that has ended
	if !either && explained != (r.Field != "") || !either && explained != (r.Detail != "") {
		l.failf("result %+v: field and detail belong to a refusal, and only there", r)
	}
	r.Field, r.Detail = "", ""
	return r
}

// sameEvents compares what happened, in its order.
func (l *lockstep) sameEvents(got, want []Event) {
	plain := func(e Event) Event {
		e.Request.Acked = 0
		if e.Kind == EventWaitEnded && (e.Code == KindMismatch || e.Code == NotOwner) {
			e.Result.Field, e.Result.Detail = "", ""
		}
		return e
	}
	for i := range min(len(got), len(want)) {
		l.same(fmt.Sprintf("event %d of %d", i, len(got)), plain(got[i]), plain(want[i]))
	}
	if len(got) != len(want) {
		l.failf("%d events, want %d:\n got %+v\nwant %+v", len(got), len(want), got, want)
	}
}

// compareState compares all reads, and runs the table's own check.
func (l *lockstep) compareState() {
	if err := l.table.check(); err != nil {
		l.failf("check: %v", err)
	}
	if got := l.table.Now(); got != l.model.now {
		l.failf("now %d, want %d", got, l.model.now)
	}
	for i, name := range l.gen.locks {
		if len(l.gen.locks) > 10 && i%16 != int(l.index%16) {
			continue // one in sixteen each time
		}
		l.same("lock "+name, l.table.Lock(name), l.model.view(name))
	}
	l.compareLists()
	l.compareStats()
	l.compareRights()
	l.same("cluster", l.table.Cluster(), l.model.cluster)
	all := l.model.loud()
	at, ok := l.table.NextDeadline()
	if ok != (len(all) > 0) || ok && at != all[0].at {
		l.failf("next deadline %d, %v; want %+v", at, ok, all)
	}
	if got := l.table.HasDeadlines(); got != (len(all) > 0) {
		l.failf("has deadlines %v, want %v", got, len(all) > 0)
	}
	for i := range l.gen.sessions {
		id := genSession((l.gen.firstSession + i) % 255)
		view, ok := l.table.Session(id)
		l.compareSession(id, view, ok)
	}
	for _, s := range l.model.sessions {
		view, ok := l.table.Session(s.id)
		l.compareSession(s.id, view, ok)
	}
}

func (l *lockstep) compareLists() {
	for _, q := range []struct {
		prefix, after string
		limit         int
	}{{"", "", 100}, {"a", "", 1}, {"a/", "a", 2}, {"", "a/b", 1}, {"zz", "", 3}} {
		got, more := l.table.List(q.prefix, q.after, q.limit)
		want, wantMore := l.model.list(q.prefix, q.after, q.limit)
		l.same("list", got, want)
		if more != wantMore {
			l.failf("list %+v: more %v, want %v", q, more, wantMore)
		}
	}
}

func (l *lockstep) compareStats() {
	got := l.table.Stats()
	want := Stats{
		Locks: len(l.model.locks), Sessions: len(l.model.sessions), LastToken: l.model.lastToken, Now: l.model.now,
	}
	for _, r := range l.model.requests {
		if r.token != 0 {
			want.Grants++
		} else {
			want.Waiters++
		}
	}
	digest, index := l.table.Digest()
	want.Digest, want.DigestIndex = digest, l.index
	want.Owners, want.Bytes = got.Owners, got.Bytes // check counts them
	if index != l.index {
		l.failf("digest of index %d, want %d", index, l.index)
	}
	l.same("stats", got, want)
}

// testing.TB and rapid.T both fail like this.
func failer(t interface {
	Helper()
	Fatalf(format string, args ...any)
}) func(string, ...any) {
	return func(format string, args ...any) {
		t.Helper()
		t.Fatalf(format, args...)
	}
}

func TestTableDoesWhatTheModelDoes(t *testing.T) {
	checkMany(t, 15, func(t *rapid.T) {
		l := newLockstep(rapidSource{t}, failer(t))
		if l.gen.oneIn(2, "small limits") {
			l.apply(0, Configure{Limits: l.gen.limits()})
		}
		for range l.gen.pick(100, "entries") + 10 {
			l.step()
		}
	})
}

func newRightsLockstep(src source, fail func(format string, args ...any)) *lockstep {
	l := newLockstep(src, fail)
	l.gen = newRightsGenerator(src, l.model)
	l.apply(0, raiseTo(Level))
	return l
}

func TestTableDoesWithRightsWhatTheModelDoes(t *testing.T) {
	checkMany(t, 15, func(t *rapid.T) {
		l := newRightsLockstep(rapidSource{t}, failer(t))
		for range l.gen.pick(100, "entries") + 10 {
			l.step()
		}
	})
}

// A detached grant outlives its session. Another session may have the same ID when the
// first one is forgotten: it cancels nothing by the old sequence, which it has not used.
func TestCancelFindsNothingOfAnEarlierSessionWithTheSameID(t *testing.T) {
	l := newLockstep(&byteSource{}, failer(t))
	first := RequestID{Session: genSession(1), Sequence: 1}
	l.apply(0, Configure{Limits: Limits{OnceNanos: second}})
	l.apply(0, OpenSession{Session: first.Session, TTL: 5 * second})
	ask := Acquire{ID: first, Wants: []Want{{Lock: "a", Mode: Exclusive}}, TTL: 60 * second, Detached: true}
	grant := l.apply(0, ask).Results[0]
	l.apply(0, EndSession{Session: first.Session})
	l.apply(Instant(2*second), OpenSession{Session: first.Session, TTL: 5 * second})
	for i, want := range []Code{OK, NotHeld} {
		id := RequestID{Session: first.Session, Sequence: uint64(i) + 2}
		if r := l.apply(Instant(2*second), Cancel{ID: id, Target: first}).Results[0]; r.Code != want {
			t.Errorf("cancel %d of a sequence that is new: %v, want %v", i, r.Code, want)
		}
	}
	if v := l.table.Lock("a"); len(v.Holders) != 1 || v.Holders[0].Token != grant.Token {
		t.Errorf("the grant is gone: %+v", v)
	}
}

// compareRights compares access tokens, policies and the owners of sessions.
func (l *lockstep) compareRights() {
	if got := l.table.RightsIndex(); got != l.model.rightsIndex {
		l.failf("rights changed in entry %d, want %d", got, l.model.rightsIndex)
	}
	l.same("policies", l.table.Policies(), l.model.policies)
	var want []AccessToken
	for _, a := range l.model.tokens {
		want = append(want, a.AccessToken)
		if got, ok := l.table.AccessTokenOf(a.Hash); !ok || !reflect.DeepEqual(got, a.AccessToken) {
			l.failf("access token %x: %+v, %v, want %+v", a.Hash, got, ok, a.AccessToken)
		}
	}
	slices.SortFunc(want, func(a, b AccessToken) int { return strings.Compare(a.Accessor, b.Accessor) })
	l.same("access tokens", l.table.AccessTokens("", 100), want)
	if len(want) > 1 {
		l.same("access tokens after the first", l.table.AccessTokens(want[0].Accessor, 1), want[1:2])
	}
	for _, s := range l.model.sessions {
		if owner, ok := l.table.SessionOwner(s.id); !ok || owner != s.owner {
			l.failf("session %x is of %q, %v, want %q", s.id, owner, ok, s.owner)
		}
	}
}

// compareSession compares what is to be seen of a session.
func (l *lockstep) compareSession(id SessionID, got SessionView, ok bool) {
	s := l.model.session(id)
	if ok != (s != nil) {
		l.failf("session %x: open %v, want %v", id, ok, s != nil)
	}
	if s == nil {
		return
	}
	want := SessionView{
		Session: id, TTL: s.ttl, Deadline: s.deadline, Holder: s.holder, Labels: s.labels,
		Answers: len(s.answers), Acked: s.acked[0].Last, Revocations: s.revocations,
	}
	for _, r := range l.model.requests {
		if l.model.owner(r) == s && r.token != 0 {
			want.Tokens = append(want.Tokens, r.token)
		}
		for _, y := range r.tries {
			if y.session == id && r.token == 0 {
				want.Waiters++
			}
		}
	}
	l.same("session", got, want)
}

var wideSeed = flag.Uint64("wide-seed", 0, "run the wide lockstep with this seed; 0: TEST_SEED, or one that nobody has seen")

// A table in which trees are deep and lists are long, in one long run.
func TestWideTableDoesWhatTheModelDoes(t *testing.T) {
	steps := 1500
	if testing.Short() || underRace {
		steps = 600
	}
	seed := *wideSeed
	if seed == 0 {
		seed = testall.Seed()
	}
	src := &byteSource{pseudoRandom(seed, 200*steps)}
	l := newLockstep(src, func(format string, args ...any) {
		t.Helper()
		t.Fatalf("-wide-seed %d: %s", seed, fmt.Sprintf(format, args...))
	})
	l.gen = newWideGenerator(src, l.model)
	for range steps {
		l.step()
	}
	if s := l.table.Stats(); s.Locks < 60 || s.Sessions < 15 || s.Grants < 40 {
		t.Errorf("the table is too small for this test: %+v", s)
	}
}
