package fsm

import (
	"bytes"
	"encoding/hex"
	"math"
	"reflect"
	"strings"
	"testing"
)

// extremeCommands are at the ends of what can be written.
func extremeCommands() []Command {
	long := strings.Repeat("é", 3000)
	return append(everyCommand(),
		OpenSession{TTL: math.MinInt64, Holder: long, Labels: []Label{{long, ""}, {"", long}}},
		KeepAlive{},
		KeepAlive{Sessions: []KeepAliveSession{{SessionID{0xff}, math.MaxUint64}}},
		Acquire{},
		Acquire{
			ID:    RequestID{Session: SessionID{1}, Sequence: math.MaxUint64, Acked: math.MaxUint64, Once: OnceID{15: 9}},
			Wants: []Want{{}, {Lock: "\xff\x00", Mode: 255, Permits: math.MaxUint32, Limit: math.MaxUint32}, {Lock: long}},
			TTL:   math.MaxInt64, Wait: math.MinInt64, Value: bytes.Repeat([]byte{0}, 300), Delay: -1,
		},
		Cancel{Target: RequestID{Sequence: 1}},
		Renew{ID: RequestID{Answered: [2]Span{{}, {First: math.MaxUint64}}}},
		EndSession{Undelivered: []uint64{math.MaxUint64}},
		Release{Token: math.MaxUint64},
		Resize{Limit: math.MaxUint32},
		Configure{Limits: Limits{NameBytes: -1, ExpiriesPerEntry: math.MaxInt32}},
		KillSession{Reason: long, Who: "\x80"},
		PutAccessToken{Accessor: long, Hash: [32]byte{0xff, 31: 0xff}, Name: long, Labels: []Label{{long, long}}, MadeBy: "\x80", MadeAt: math.MinInt64, TTL: -1},
		RevokeAccessToken{Accessor: "\x00"},
		ChangePolicies{Put: []Policy{{}, {Name: long, For: []string{"", long}, Rules: []Rule{{}, {true, 255, long, true}}, Quota: Quota{Sessions: -1, Bytes: math.MinInt64, UnsentBytes: math.MaxInt64, Streams: math.MaxInt32}}}, Remove: []string{""}, If: math.MaxUint64},
		As{Command: EndSession{}},
		As{Caller: long, Force: true, Command: Acquire{Wants: []Want{{}}}},
		Configure{Limits: Limits{PolicyBytes: -1}},
	)
}

func TestCommandsSurviveEncoding(t *testing.T) {
	commands := extremeCommands()
	data := AppendHeader(nil, math.MaxUint64, math.MinInt64, math.MaxInt64, len(commands))
	for _, c := range commands {
		data = AppendCommand(data, c)
	}
	got, err := DecodeEntry(data)
	if err != nil {
		t.Fatal(err)
	}
	want := Entry{Term: math.MaxUint64, Stamp: math.MinInt64, Wall: math.MaxInt64, Commands: commands}
	if !reflect.DeepEqual(got, want) {
		for i := range commands {
			if !reflect.DeepEqual(got.Commands[i], commands[i]) {
				t.Errorf("command %d:\n got %+v\nwant %+v", i, got.Commands[i], commands[i])
			}
		}
		t.Fatalf("header: got %d, %d, %d", got.Term, got.Stamp, got.Wall)
	}
}

// AppendCommand must leave what stands before it, whatever room buf has, and
// write lengths of one, two and three bytes alike.
func TestCommandsAreAppended(t *testing.T) {
	for _, size := range []int{0, 1, 60, 110, 125, 130, 16_350, 16_380, 16_400, 70_000} {
		c := SetValue{Token: 7, Value: bytes.Repeat([]byte{5}, size)}
		for _, room := range []int{0, 1, 2, 200_000} {
			buf := append(make([]byte, 0, 3+room), "abc"...)
			buf = AppendCommand(AppendCommand(buf, c), Found{})
			if string(buf[:3]) != "abc" {
				t.Fatalf("size %d, room %d: start is %q", size, room, buf[:3])
			}
			data := append(AppendHeader(nil, 1, 0, 0, 2), buf[3:]...)
			e, err := DecodeEntry(data)
			if err != nil {
				t.Fatalf("size %d, room %d: %v", size, room, err)
			}
			if got := e.Commands[0].(SetValue); len(got.Value) != size || got.Token != 7 || e.Commands[1] != (Found{}) {
				t.Fatalf("size %d, room %d: got %+v", size, room, e.Commands)
			}
		}
	}
}

// The bytes on disk. If this fails, entries written by earlier versions can no
// longer be read: add a new kind instead.
func TestEntryBytesNeverChange(t *testing.T) {
	data := encode(3, 1_000_000_007, -2, Acquire{
		ID:    RequestID{Session: SessionID{0xaa, 15: 0xbb}, Sequence: 300, Acked: 299},
		Wants: []Want{{Lock: "a/b", Mode: Exclusive}, {Lock: "s", Mode: Permits, Permits: 2, Limit: 5}},
		TTL:   5, Wait: -1, Holder: "ann", Value: []byte{0, 1}, Labels: []Label{{"k", "v"}}, Delay: 64, Detached: true,
	}, KeepAlive{})
	const want = "01" + "03" + "8ea8d6b907" + "03" + "02" + // version, term, stamp, wall, commands
		"35" + "05" + "00" + "01aa0000000000000000000000000000bb" + "ac02" + "ab02" + // length, kind, owner, ID
		"02" + "03612f62" + "010000" + "0173" + "030205" + // wants
		"0a" + "01" + "03616e6e" + "020001" + "01016b0176" + "8001" + "01" + // ttl … detached
		"02" + "02" + "00" // a keep-alive of nobody
	if got := hex.EncodeToString(data); got != want {
		t.Fatalf("entry is\n%s, want\n%s", got, want)
	}
}

// The bytes of the commands of level 2 on disk.
func TestBytesOfRightsNeverChange(t *testing.T) {
	for want, c := range map[string]Command{
		"32" + "11" + "026131" + "01" + strings.Repeat("00", 30) + "02" + "0473686f70" + "00" + "00" + "02" + "80f092cbdd08": PutAccessToken{
			Accessor: "a1", Hash: [32]byte{1, 31: 2}, Name: "shop", MadeAt: 1, TTL: 150_000_000_000,
		},
		"04" + "12" + "026131": RevokeAccessToken{Accessor: "a1"},
		"1a" + "13" + "01" + "0170" + "01" + "012a" + "01" + "01" + "03" + "026f2f" + "00" + "02040608090a0c0e" + "01" + "0171" + "07": ChangePolicies{
			Put:    []Policy{{Name: "p", For: []string{"*"}, Rules: []Rule{{true, 3, "o/", false}}, Quota: Quota{1, 2, 3, 4, -5, 5, 6, 7}}},
			Remove: []string{"q"}, If: 7,
		},
		"1b" + "14" + "06636572743a78" + "01" + "03" + strings.Repeat("00", 17): As{Caller: "cert:x", Force: true, Command: EndSession{}},
	} {
		if got := hex.EncodeToString(AppendCommand(nil, c)); got != want {
			t.Errorf("%T is\n%s, want\n%s", c, got, want)
		}
	}
}

// removedKind is the number of a kind that was removed: it is an unknown kind.
const removedKind = 14

// A command that is cut anywhere, or goes on too long, is malformed, and its
// neighbours do not notice.
func TestDamagedCommandDoesNotHarmItsBatch(t *testing.T) {
	for _, c := range extremeCommands() {
		whole := AppendCommand(nil, c)
		frame := (&decoder{buf: whole}).frame()
		for cut := range min(len(frame), 200) {
			checkBatch(t, frame[:cut], Malformed)
		}
		checkBatch(t, append(bytes.Clone(frame), 0), Malformed)
	}
	checkBatch(t, []byte{0}, UnknownCommand)
	checkBatch(t, []byte{byte(KindConfigureRights) + 1, 1, 2, 3}, UnknownCommand)
	checkBatch(t, []byte{255}, UnknownCommand)
	checkBatch(t, []byte{removedKind}, UnknownCommand)
}

func checkBatch(t *testing.T, frame []byte, want Code) {
	t.Helper()
	e := encoder{buf: AppendHeader(nil, 1, second, 0, 3)}
	e.buf = AppendCommand(e.buf, detached(1, "a", 9*second, 0))
	e.bytes(frame)
	e.buf = AppendCommand(e.buf, detached(2, "b", 9*second, 0))
	table := hosted()
	table.Apply(1, 1, encode(1, 0, 0, raiseTo(Level)))
	a := table.Apply(1, 1, e.buf)
	if a.Refused != OK || len(a.Results) != 3 || a.Results[0].Code != OK || a.Results[1].Code != want || a.Results[2].Code != OK {
		t.Fatalf("batch with %x: %+v", frame, a)
	}
	if len(a.Events) != 2 || table.check() != nil {
		t.Fatalf("batch with %x: events %+v, check %v", frame, a.Events, table.check())
	}
	if _, err := DecodeEntry(e.buf); err == nil || !strings.Contains(err.Error(), "command 1") {
		t.Fatalf("decode of a batch with %x: %v, want an error about command 1", frame, err)
	}
}

func TestNumbersAreWrittenInOneWay(t *testing.T) {
	for _, b := range [][]byte{{0x80, 0}, {0x81, 0x80, 0}, {0x80}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2}, {}} {
		d := decoder{buf: b}
		if v := d.uint(); !d.bad || v != 0 {
			t.Errorf("%x decodes to %d", b, v)
		}
	}
	for _, v := range []uint64{0, 1, 127, 128, 1 << 20, math.MaxUint64} {
		e := encoder{}
		e.uint(v)
		d := decoder{buf: e.buf}
		if got := d.uint(); got != v || !d.done() {
			t.Errorf("%d decodes to %d", v, got)
		}
	}
	for _, v := range []int64{0, -1, 1, math.MinInt64, math.MaxInt64} {
		e := encoder{}
		e.int(v)
		d := decoder{buf: e.buf}
		if got := d.int(); got != v || !d.done() {
			t.Errorf("%d decodes to %d", v, got)
		}
	}
}

// Bytes that are no entry change nothing but the digest and its index.
func TestBytesThatAreNoEntryAreRefused(t *testing.T) {
	good := encode(1, 5*second, 0, detached(1, "a", 9*second, 0), Found{})
	header := AppendHeader(nil, 1, 5*second, 0, 2)
	bad := map[string][]byte{
		"nothing":          {},
		"another version":  append([]byte{entryVersion + 1}, good[1:]...),
		"too few commands": append(AppendHeader(nil, 1, 5*second, 0, 3), good[len(header):]...),
		"too many":         append(AppendHeader(nil, 1, 5*second, 0, 1), good[len(header):]...),
		"a byte too many":  append(bytes.Clone(good), 0),
		"a byte too few":   good[:len(good)-1],
		"huge count":       append(AppendHeader(nil, 1, 5*second, 0, math.MaxInt), good[len(header):]...),
		"header cut":       header[:3],
		"over the bound":   append(AppendHeader(nil, 1, 5*second, 0, maxCommands+1), make([]byte, maxCommands+1)...),
	}
	for name, data := range bad {
		table := New()
		a := table.Apply(4, 1, data)
		if a.Refused != Malformed || a.Results != nil || a.Events != nil || a.Now != 0 {
			t.Errorf("%s: %+v", name, a)
		}
		digest, index := table.Digest()
		if index != 4 || digest == 0 || digest != a.Digest {
			t.Errorf("%s: digest %x at %d", name, digest, index)
		}
		table.index, table.digest = 0, 0
		if table.Hash() != New().Hash() {
			t.Errorf("%s: the table changed", name)
		}
		if _, err := DecodeEntry(data); err == nil {
			t.Errorf("%s: DecodeEntry gives no error", name)
		}
	}
	if a := New().Apply(4, 1, good); a.Refused != OK {
		t.Fatalf("the good one: %+v", a)
	}
}

// A limit that fits an int on one architecture only is out of range on all.
func TestLimitsMeanTheSameOnEveryArchitecture(t *testing.T) {
	for _, v := range []int64{1 << 32, 1<<32 + 5, -1<<32 + 5, math.MaxInt64, math.MinInt64} {
		e := encoder{buf: AppendHeader(nil, 1, 0, 0, 1)}
		payload := encoder{buf: []byte{byte(KindConfigure)}}
		for range firstLimits {
			payload.int(v)
		}
		e.bytes(payload.buf)
		if r := New().Apply(1, 1, e.buf).Results[0]; r.Code != Invalid {
			t.Errorf("limits of %d: %+v", v, r)
		}
	}
}

// The digest tells apart what differs in any one thing.
func TestDigestSeesEveryDifference(t *testing.T) {
	seen := map[uint64]string{}
	look := func(what string, index, term uint64, data []byte) {
		a := New().Apply(index, term, data)
		if other, ok := seen[a.Digest]; ok {
			t.Errorf("%s and %s have the same digest", what, other)
		}
		seen[a.Digest] = what
	}
	entry := func(stamp Instant, wall int64, c Command) []byte { return encode(1, stamp, wall, c) }
	c := detached(1, "a", 9*second, 0)
	look("plain", 1, 1, entry(0, 0, c))
	look("index", 2, 1, entry(0, 0, c))
	look("stamp", 1, 1, entry(1, 0, c))
	look("wall", 1, 1, entry(0, 1, c))
	look("stale", 1, 2, entry(0, 0, c))
	for _, other := range extremeCommands() {
		look(reflect.TypeOf(other).Name(), 1, 1, entry(0, 0, other))
	}
	// The same bytes, and another past.
	table := New()
	table.Apply(1, 1, entry(0, 0, Found{Cluster: [16]byte{1}}))
	before := table.digest
	if a := table.Apply(2, 1, entry(0, 0, c)); a.Digest == before || seen[a.Digest] != "" {
		t.Error("the digest forgets what was before")
	}
}
