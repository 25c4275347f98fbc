package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// stored is a log of several segments, some of them with entries that were cut off.
func stored(t testing.TB) *rig {
	r := newRig(t, 32<<10)
	r.add(batch(1, 150, 1)...)
	r.cut(131, 150)
	for i := uint64(131); i <= 250; i += 5 {
		if err := r.StoreLogs(batch(i, i+4, 2)); err != nil {
			t.Fatal(err)
		}
	}
	r.cut(1, 20)
	r.close()
	return r
}

var storedEntries = append(batch(21, 130, 1), batch(131, 250, 2)...)

// refused opens a log that is damaged, and looks whether the disk is as it was.
func (r *rig) refused(mentions ...string) {
	r.t.Helper()
	before := r.disk.copyOf()
	err := r.open()
	var damage *DamageError
	if !errors.Is(err, ErrDamaged) || !errors.As(err, &damage) {
		r.t.Fatalf("Open = %v, want ErrDamaged", err)
	}
	for _, m := range append(mentions, "data/log") {
		if !strings.Contains(err.Error(), m) {
			r.t.Errorf("Open = %v, want it to mention %q", err, m)
		}
	}
	for name, n := range before.names {
		if now := r.disk.names[name]; now == nil || !bytes.Equal(now.cache, n.cache) {
			r.t.Errorf("Open has changed %s of a damaged log", name)
		}
	}
	if len(before.names) != len(r.disk.names) {
		r.t.Errorf("there was %v, and is %v", before, r.disk)
	}
}

// edit makes a copy of the disk in which one file is changed.
func (r *rig) edit(name string, change func(b []byte) []byte) *rig {
	c := &rig{t: r.t, disk: r.disk.copyOf(), o: r.o}
	n := c.disk.names[name]
	n.cache = change(n.cache)
	n.durable = bytes.Clone(n.cache)
	return c
}

// Each byte of each file, flipped: the log is refused, or has all that it had.
func TestFlippedByteIsFound(t *testing.T) {
	r := stored(t)
	refused := 0
	for _, name := range r.disk.segments() {
		size := len(r.disk.names[name].cache)
		step := 37
		if testing.Short() {
			step = 371
		}
		for at := 0; at < size; at += step {
			if at > headerLen && at < recordsAt {
				at = recordsAt
			}
			c := r.edit(name, func(b []byte) []byte { b[at] ^= 0x10; return b })
			switch err := c.open(); {
			case errors.Is(err, ErrDamaged):
				refused++
			case err != nil:
				t.Fatalf("%s, byte %d: %v", name, at, err)
			default:
				c.wants(storedEntries...)
			}
		}
	}
	if refused < 100 {
		t.Errorf("%d flips were refused; the test does not hit", refused)
	}
}

func TestDamageIsNamed(t *testing.T) {
	r := stored(t)
	names := r.disk.segments()
	at := func(entry string) int {
		return bytes.Index(r.disk.names[names[len(names)-1]].cache, []byte(entry))
	}
	i := at(" 245/  2;")
	r.edit(names[len(names)-1], func(b []byte) []byte { b[i] ^= 1; return b }).
		refused("entry 245 of the log in data/log", "checksum is", "acknowledged", names[len(names)-1][len("data/log/"):], "offset")
}

func TestMissingSegmentIsNoticed(t *testing.T) {
	r := stored(t)
	for i, name := range r.disk.segments() {
		c := &rig{t: t, disk: r.disk.copyOf(), o: r.o}
		delete(c.disk.names, name)
		if i == len(r.disk.segments())-1 {
			c.refused("the log ends at entry", "was acknowledged")
			continue
		}
		c.refused("missing")
	}
	c := &rig{t: t, disk: r.disk.copyOf(), o: r.o}
	for _, name := range r.disk.segments() {
		delete(c.disk.names, name)
	}
	c.refused("the log is empty, but entries 21 to 250 were acknowledged")
}

func TestCutSegmentIsNoticed(t *testing.T) {
	r := stored(t)
	for _, name := range r.disk.segments() {
		for _, length := range []int{0, 10, headerLen, recordsAt, recordsAt + 1000, len(r.disk.names[name].cache) - 1} {
			r.edit(name, func(b []byte) []byte { return b[:length] }).refused("cut")
		}
		r.edit(name, func(b []byte) []byte { return append(b, 0) }).refused("extended")
	}
}

func TestSwappedAndDoubledSegmentsAreNoticed(t *testing.T) {
	r := stored(t)
	names := r.disk.segments()
	c := &rig{t: t, disk: r.disk.copyOf(), o: r.o}
	c.disk.names[names[0]], c.disk.names[names[1]] = c.disk.names[names[1]], c.disk.names[names[0]]
	c.refused("under the name of another one")

	c = &rig{t: t, disk: r.disk.copyOf(), o: r.o}
	c.disk.names["data/log/copy.wal"] = c.disk.names[names[1]]
	c.refused("the name is not that of a segment")

	// A segment of another log with the same number.
	other := newRig(t, 32<<10)
	other.add(batch(1, 10, 1)...)
	c = &rig{t: t, disk: r.disk.copyOf(), o: r.o}
	n := *other.disk.names[other.disk.segments()[0]]
	h, err := decodeHeader(n.cache)
	if err != nil {
		t.Fatal(err)
	}
	seq, _, err := parseName(names[1][len("data/log/"):])
	if err != nil {
		t.Fatal(err)
	}
	h.seq, h.base, h.prev = seq, 5, seq-1
	copy(n.cache, h.encode())
	c.disk.names["data/log/"+h.name()] = &n
	c.refused("has the number of")
}

// An earlier copy of all segments is whole in itself; only the mark knows of what came
// later.
func TestEarlierCopyIsNoticed(t *testing.T) {
	r := newRig(t, 32<<10)
	r.add(batch(1, 100, 1)...)
	early := r.disk.copyOf()
	r.add(batch(101, 110, 1)...)
	r.close()
	early.names["data/mark"] = r.disk.names["data/mark"]
	c := &rig{t: t, disk: early, o: r.o}
	c.refused("the log ends at entry 100, but entry 110 was acknowledged")

	// The same entries of another term.
	other := newRig(t, 32<<10)
	other.add(batch(1, 110, 7)...)
	other.close()
	other.disk.names["data/mark"] = r.disk.names["data/mark"]
	other.refused("entry 110 is of term 7, but was acknowledged with term 1")
}

func TestFormerFormatIsRefused(t *testing.T) {
	r := newRig(t, 0)
	r.close()
	r.disk.names["data/log/wal-meta.db"] = &inode{cache: []byte("bolt")}
	r.refused("format of a version before 0.1.0")
	delete(r.disk.names, "data/log/wal-meta.db")
	r.disk.names["data/log/00000000000000000001-0000000000000009.wal"] = &inode{cache: bytes.Repeat([]byte{0x0d, 0x6b, 0xeb, 0x58}, 5000)}
	r.refused("does not begin as a segment of this format")
}

// torn is a log with entries up to 20, of which the last append, with entries from 16 on,
// was not acknowledged: the mark ends before it. spoil says how it is on disk.
func torn(t *testing.T, spoil func(b []byte, record func(index int) int)) *rig {
	r := newRig(t, 0)
	if err := r.StoreLogs(batch(1, 10, 1)); err != nil {
		t.Fatal(err)
	}
	if err := r.StoreLogs(batch(11, 15, 1)); err != nil {
		t.Fatal(err)
	}
	mark := bytes.Clone(r.disk.names["data/mark"].cache)
	if err := r.StoreLogs(batch(16, 20, 1)); err != nil {
		t.Fatal(err)
	}
	n := r.disk.names[r.disk.segments()[0]]
	spoil(n.cache, func(index int) int { return recordsAt + (index-1)*int(recordSize(225)) })
	r.disk.names["data/mark"].cache = mark
	return r
}

// An append that was not acknowledged is cut off as a whole after a loss of power, whatever is
// left of it, without an error, and does not come back.
func TestTornAppendIsCutOff(t *testing.T) {
	for name, spoil := range map[string]func(b []byte, record func(int) int){
		"nothing":         func(b []byte, record func(int) int) { clear(b[record(16):]) },
		"first head":      func(b []byte, record func(int) int) { clear(b[record(16) : record(16)+8]) },
		"first record":    func(b []byte, record func(int) int) { clear(b[record(16):record(17)]) },
		"data of one":     func(b []byte, record func(int) int) { clear(b[record(17)+100 : record(17)+110]) },
		"last record":     func(b []byte, record func(int) int) { clear(b[record(20):record(21)]) },
		"all but one":     func(b []byte, record func(int) int) { clear(b[record(16):record(19)]); clear(b[record(20):]) },
		"end of the last": func(b []byte, record func(int) int) { clear(b[record(21)-40 : record(21)]) },
	} {
		t.Run(name, func(t *testing.T) {
			r := torn(t, spoil)
			if err := r.open(); err != nil {
				t.Fatal(err)
			}
			r.wants(batch(1, 15, 1)...)
			// The same entries again, one by one: what is left of them must not follow.
			for i := uint64(16); i <= 20; i++ {
				r.add(batch(i, i, 1)...)
				r.disk = r.disk.copyOf() // kill -9
				if err := r.open(); err != nil {
					t.Fatal(err)
				}
				r.wants(batch(1, i, 1)...)
			}
		})
	}
}

// After a torn append another one of the same shape is torn, whose first records are on disk
// and whose last ones are not: those of the one before do not take their place.
func TestTwoTornAppendsDoNotMakeOne(t *testing.T) {
	r := torn(t, func(b []byte, record func(int) int) { clear(b[record(16):record(17)]) })
	if err := r.open(); err != nil {
		t.Fatal(err)
	}
	before, mark := r.disk.copyOf(), bytes.Clone(r.disk.names["data/mark"].cache)
	again := batch(16, 20, 1)
	for _, e := range again {
		e.Data = bytes.Repeat([]byte("other"), 45)
	}
	if err := r.StoreLogs(again); err != nil {
		t.Fatal(err)
	}
	size := int(recordSize(225))
	for name, n := range r.disk.names {
		if i := bytes.Index(n.cache, []byte("otherother")); i >= 0 {
			old := before.names[name].cache
			copy(n.cache[i-headLen+2*size:], old[i-headLen+2*size:])
		}
	}
	r.disk.names["data/mark"].cache = mark
	if err := r.open(); err != nil {
		t.Fatal(err)
	}
	r.wants(batch(1, 15, 1)...)
}

// The same places, damaged after they were acknowledged: a later append says so, also
// without the mark.
func TestDamageThatLooksTornIsRefused(t *testing.T) {
	for index := 1; index <= 15; index++ {
		for _, part := range []int{0, 5, 70, 150} {
			t.Run(fmt.Sprint(index, " ", part), func(t *testing.T) {
				r := torn(t, func(b []byte, record func(int) int) { b[record(index)+part] ^= 4 })
				r.disk.names["data/mark"].cache = make([]byte, 2*markSlot) // it went with the power
				want := fmt.Sprintf("entry %d of the log", index)
				if index == 1 { // nothing says which entry is the first one
					want = "entries from 11 on were appended after it"
				}
				r.refused(want)
			})
		}
	}
}

// A byte that changes while the log is open is found when the entry is read, and only then.
func TestDamageWhileRunningIsNotReadBack(t *testing.T) {
	r := newRig(t, 0)
	r.add(batch(1, 10, 1)...)
	n := r.disk.names[r.disk.segments()[0]]
	for _, part := range []int{0, 20, 70, 280} {
		at := recordsAt + 4*int(recordSize(225)) + part
		n.cache[at] ^= 1
		var e raft.Log
		if err := r.GetLog(5, &e); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "entry 5 of the log in data/log") {
			t.Errorf("byte %d: GetLog of a damaged entry = %v, want ErrDamaged", part, err)
		}
		if err := r.GetLog(6, &e); err != nil {
			t.Errorf("byte %d: GetLog of a good entry = %v", part, err)
		}
		n.cache[at] ^= 1
	}
	r.wants(batch(1, 10, 1)...)
}

// A record is valid in one life of one file at one place.
func TestRecordIsBoundToItsLifeAndPlace(t *testing.T) {
	const salt, at = 0x1234567890abcdef, 8192
	b := appendRecord(nil, salt, at, batch(1, 1, 1)[0], 0, 1)
	if h, err := parseHead(b, salt, at); err != nil || h.index != 1 {
		t.Fatalf("a record in its place is %+v, %v", h, err)
	}
	for bit := range 64 { // of the salt; the upper half is the tag
		if h, err := parseHead(b, salt^1<<bit, at); err == nil {
			t.Errorf("with another bit %d of the salt it is %+v", bit, h)
		}
	}
	for _, place := range []int64{0, at - 8, at + 8, at + 4096, 2 * at} {
		if h, err := parseHead(b, salt, place); err == nil {
			t.Errorf("at %d it is %+v", place, h)
		}
	}
}
