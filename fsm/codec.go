package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Everything on disk is made of bytes, varints in their shortest form, zigzag
// varints for numbers that may be negative, IDs of 16 bytes, and strings and
// lists behind their length. An entry of the log is
//
//	version 1 · term · stamp · wall · number of commands · commands
//
// and a command is its length, its kind and its payload. A payload is never
// extended: a new field takes a new kind, which older versions answer with
// UnknownCommand.

const entryVersion = 1

// maxCommands bounds the commands of one entry. The memory for the results is
// made before the commands are looked at.
const maxCommands = 1 << 16

// Entry is a decoded entry of the log, for tools and tests.
type Entry struct {
	Term     uint64  // in which it was stamped
	Stamp    Instant // cluster time, nanoseconds
	Wall     int64   // of the leader, Unix milliseconds, for people only
	Commands []Command
}

// AppendHeader appends the header of an entry to buf. As many commands, made by
// [AppendCommand], must follow.
func AppendHeader(buf []byte, term uint64, stamp Instant, wall int64, commands int) []byte {
	e := encoder{buf: append(buf, entryVersion)}
	e.uint(term)
	e.instant(stamp)
	e.int(wall)
	e.uint(uint64(commands))
	return e.buf
}

// AppendCommand appends a command in the form in which it stands in an entry.
func AppendCommand(buf []byte, c Command) []byte {
	const guess = 2 // bytes of the length
	start := len(buf)
	e := encoder{buf: append(buf, 0, 0, byte(c.kind()))}
	c.encode(&e)
	buf = e.buf
	size := len(buf) - start - guess
	var prefix [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(prefix[:], uint64(size))
	switch {
	case n > guess:
		buf = append(buf, prefix[:n-guess]...) // room; its content is moved over
		copy(buf[start+n:], buf[start+guess:start+guess+size])
	case n < guess:
		copy(buf[start+n:], buf[start+guess:])
		buf = buf[:start+n+size]
	}
	copy(buf[start:], prefix[:n])
	return buf
}

// DecodeEntry decodes an entry. Where single commands cannot be decoded, they
// are nil and the error names the first of them; the rest of the entry is valid.
func DecodeEntry(data []byte) (Entry, error) {
	d := decoder{buf: data}
	h := d.header()
	if d.bad || !framed(d, h.commands) {
		return Entry{}, errors.New("decode entry: bytes are no entry")
	}
	entry := Entry{Term: h.term, Stamp: h.stamp, Wall: h.wall, Commands: make([]Command, h.commands)}
	var err error
	for i := range entry.Commands {
		c, cause := decodeCommand(d.frame())
		if cause != nil && err == nil {
			err = fmt.Errorf("decode entry: command %d: %w", i, cause)
		}
		entry.Commands[i] = c
	}
	return entry, err
}

type header struct {
	term     uint64
	stamp    Instant
	wall     int64
	commands int
}

func (d *decoder) header() header {
	if d.byte() != entryVersion {
		d.bad = true
		return header{}
	}
	h := header{term: d.uint(), stamp: d.instant(), wall: d.int()}
	n := d.uint()
	if n > maxCommands || n > uint64(len(d.buf)) {
		d.bad = true
	}
	h.commands = int(n)
	return h
}

// frame returns the next command's kind and payload.
func (d *decoder) frame() []byte { return d.take(d.length(1)) }

// framed says that d holds so many whole commands and nothing else.
func framed(d decoder, commands int) bool {
	for range commands {
		d.frame()
	}
	return d.done()
}

// encoder appends values to buf.
type encoder struct{ buf []byte }

func (e *encoder) byte(b byte)   { e.buf = append(e.buf, b) }
func (e *encoder) uint(v uint64) { e.buf = binary.AppendUvarint(e.buf, v) }
func (e *encoder) int(v int64)   { e.buf = binary.AppendVarint(e.buf, v) }
func (e *encoder) id(v [16]byte) { e.buf = append(e.buf, v[:]...) }

func (e *encoder) bool(v bool) {
	if v {
		e.byte(1)
		return
	}
	e.byte(0)
}

func (e *encoder) string(s string) {
	e.uint(uint64(len(s)))
	e.buf = append(e.buf, s...)
}

func (e *encoder) bytes(b []byte) {
	e.uint(uint64(len(b)))
	e.buf = append(e.buf, b...)
}

func (e *encoder) labels(labels []Label) {
	e.uint(uint64(len(labels)))
	for _, l := range labels {
		e.string(l.Key)
		e.string(l.Value)
	}
}

func (e *encoder) wants(wants []Want) {
	e.uint(uint64(len(wants)))
	for i := range wants {
		w := &wants[i]
		e.string(w.Lock)
		e.byte(byte(w.Mode))
		e.uint(uint64(w.Permits))
		e.uint(uint64(w.Limit))
	}
}

// decoder takes values off the front of buf. After the first fault bad is set
// and all values are zero. It never makes more memory than a small multiple of
// what it has read.
type decoder struct {
	buf  []byte
	body []byte // of a command: what follows its request ID
	bad  bool
}

// done says that everything was read, and well.
func (d *decoder) done() bool { return !d.bad && len(d.buf) == 0 }

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.buf) {
		d.bad = true
		return nil
	}
	b := d.buf[:n:n]
	d.buf = d.buf[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) bool() bool {
	b := d.byte()
	if b > 1 {
		d.bad = true
	}
	return b == 1
}

func (d *decoder) uint() uint64 {
	if len(d.buf) > 0 && d.buf[0] < 0x80 && !d.bad {
		v := d.buf[0]
		d.buf = d.buf[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(d.buf)
	if d.bad || n <= 0 || d.buf[n-1] == 0 {
		d.bad = true
		return 0
	}
	d.buf = d.buf[n:]
	return v
}

func (d *decoder) int() int64 {
	v := d.uint()
	return int64(v>>1) ^ -int64(v&1)
}

func (d *decoder) uint32() uint32 {
	v := d.uint()
	if v > 1<<32-1 {
		d.bad = true
		return 0
	}
	return uint32(v)
}

// length reads the number of items that follow, each of at least size bytes.
func (d *decoder) length(size int) int {
	n := d.uint()
	if n > uint64(len(d.buf)/size) {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *decoder) id() (v [16]byte) {
	copy(v[:], d.take(16))
	return v
}

func (d *decoder) string() string { return string(d.take(d.length(1))) }

// bytes returns a copy; nil if there are none.
func (d *decoder) bytes() []byte { return append([]byte(nil), d.take(d.length(1))...) }

func (d *decoder) labels() []Label {
	n := d.length(2)
	if n == 0 {
		return nil
	}
	labels := make([]Label, n)
	for i := range labels {
		labels[i] = Label{Key: d.string(), Value: d.string()}
	}
	return labels
}

func (d *decoder) wants() []Want {
	n := d.length(4)
	if n == 0 {
		return nil
	}
	wants := make([]Want, n)
	for i := range wants {
		wants[i] = Want{Lock: d.string(), Mode: Mode(d.byte()), Permits: d.uint32(), Limit: d.uint32()}
	}
	return wants
}
