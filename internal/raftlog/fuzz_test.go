package raftlog

import (
	"bytes"
	"errors"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/proof/fuzz"
)

// FuzzOpen damages one file of a log: it is refused, or it has what was stored. It takes
// no more memory than its files.
func FuzzOpen(f *testing.F) {
	r := stored(f)
	names := sorted(r.disk.names)
	for i := range names {
		f.Add(byte(i), fuzz.FlipsAt(20))
		f.Add(byte(i), fuzz.FlipsAt(4100))
		f.Add(byte(i), fuzz.FlipsAt(5000, 5001))
		f.Add(byte(i), []byte{0, 0, 0, 0, 0, 0, 0x20, 0, 0})
	}
	f.Fuzz(func(t *testing.T, file byte, choices []byte) {
		defer fuzz.Watch()()
		name := names[int(file)%len(names)]
		different := false
		c := r.edit(name, func(b []byte) []byte {
			b, different = fuzz.Damage(b, &fuzz.Bytes{Data: choices})
			return b
		})
		c.t = t
		var err error
		if got := fuzz.Allocated(func() { err = c.open() }); got > 8<<20 {
			t.Errorf("Open has allocated %d bytes for files of %v", got, c.disk)
		}
		switch {
		case err == nil:
			var want content
			for _, e := range storedEntries {
				want.entries = append(want.entries, *e)
			}
			if name == "data/mark" { // it may have gone, and the first entry with it
				first, _ := c.FirstIndex()
				if first > want.first() {
					t.Errorf("the log begins with %d", first)
				}
				last, _ := c.LastIndex()
				if last != want.last() {
					t.Errorf("the log ends with %d", last)
				}
				return
			}
			if err := want.differs(c.Log); err != nil {
				t.Errorf("%s was damaged and accepted: %v", name, err)
			}
		case !different:
			t.Errorf("a good log is refused: %v", err)
		case name != "data/mark" && !errors.Is(err, ErrDamaged):
			t.Errorf("Open = %v, want ErrDamaged", err)
		}
	})
}

// FuzzTail has any bytes behind the last entry, with and without the salt of the segment in
// them: no entry comes of it that was not stored, nothing acknowledged is lost, and the log
// takes appends.
func FuzzTail(f *testing.F) {
	r := newRig(f, 256<<10)
	r.add(batch(1, 20, 1)...)
	r.close()
	name := r.disk.segments()[0]
	end := int(r.segments[0].end)
	f.Add([]byte(nil))
	f.Add(r.disk.names[name].cache[recordsAt : recordsAt+2000]) // entries again, in another place
	f.Add(r.disk.names[name].cache[recordsAt+8 : recordsAt+400])
	f.Fuzz(func(t *testing.T, behind []byte) {
		defer fuzz.Watch()()
		c := r.edit(name, func(b []byte) []byte { copy(b[end:], behind); return b })
		c.t = t
		if err := c.open(); err != nil {
			t.Fatal(err)
		}
		c.wants(batch(1, 20, 1)...)
		c.add(batch(21, 25, 2)...)
		c.reopen()
		c.wants(append(batch(1, 20, 1), batch(21, 25, 2)...)...)
	})
}

// FuzzRecord damages a record, or reads it at another place or in another life of the
// file: it is what was stored, or an error.
func FuzzRecord(f *testing.F) {
	f.Add(uint64(1), uint64(1), byte(0), []byte("data"), []byte(nil), []byte(nil), uint64(0), uint16(0))
	f.Add(uint64(1), uint64(1), byte(0), []byte("data"), []byte("more"), fuzz.FlipsAt(2), uint64(0), uint16(0))
	f.Add(uint64(7), uint64(3), byte(5), []byte(nil), []byte("x"), fuzz.FlipsAt(40, 44), uint64(0), uint16(0))
	f.Add(uint64(7), uint64(3), byte(5), []byte("x"), []byte("y"), []byte(nil), uint64(1), uint16(0))
	f.Add(uint64(7), uint64(3), byte(5), []byte("x"), []byte("y"), []byte(nil), uint64(0), uint16(8))
	f.Fuzz(func(t *testing.T, index, term uint64, kind byte, data, extensions, choices []byte, otherSalt uint64, moved uint16) {
		if index == 0 || index+1 == 0 {
			return
		}
		const salt, offset = 0x1234567890abcdef, 8192
		want := raft.Log{Index: index, Term: term, Type: raft.LogType(kind), Data: data, Extensions: extensions}
		b := appendRecord(nil, salt, offset, &want, 0, 1)
		if int64(len(b)) != recordSize(int64(len(data)+len(extensions))) || len(b)%align != 0 {
			t.Fatalf("a record of %d and %d bytes has %d", len(data), len(extensions), len(b))
		}
		bad, different := fuzz.Damage(b, &fuzz.Bytes{Data: choices})
		r := &reader{file: &handle{d: newDisk(nil), n: &inode{cache: bad}}, size: int64(len(bad)) + offset}
		r.file.(*handle).n.cache = append(make([]byte, offset+int64(moved)), bad...)
		r.size = int64(len(r.file.(*handle).n.cache))
		h, err := r.record(salt^otherSalt, offset+int64(moved))
		if err != nil {
			if !different && otherSalt == 0 && moved == 0 {
				t.Fatalf("a good record is refused: %v", err)
			}
			return
		}
		if otherSalt != 0 || moved != 0 {
			t.Fatal("a record of another life of the file, or of another place, is valid")
		}
		body, err := r.bytes(offset+headLen, h.size()-headLen)
		if err != nil {
			t.Fatal(err)
		}
		var got raft.Log
		h.fill(&got, bytes.Clone(body))
		if !same(got, want) {
			t.Errorf("stored %+v, got %+v", want, got)
		}
	})
}
