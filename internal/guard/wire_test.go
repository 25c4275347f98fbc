package guard

import (
	"slices"
	"strings"
	"testing"

	"github.com/locknode/locknode/internal/fuzz"
)

const hugeExtension = "\xc9\xff\xff\xff\xff\xff" // of the kind that is a time

// inPieces lets a wire read data in pieces of every length.
func inPieces(t *testing.T, incoming bool, data []byte, each func(w *wire, err error)) {
	t.Helper()
	for step := 1; step <= len(data); step += 1 + step/4 {
		w := &wire{incoming: incoming}
		var err error
		for piece := range slices.Chunk(data, step) {
			if err = w.read(piece); err != nil {
				break
			}
		}
		each(w, err)
	}
}

// Whatever raft sends is walked over, to where it ends.
func TestWireFollowsRaft(t *testing.T) {
	var all []byte
	for _, frames := range everyFrame(t) {
		all = append(all, frames...)
	}
	all = append(all, all...)
	inPieces(t, true, all, func(w *wire, err error) {
		if err != nil || w.begun || w.skip != 0 || w.need != 0 || len(w.open) != 0 {
			t.Errorf("after all frames: %v, %+v", err, w)
		}
	})
	for name, frames := range everyFrame(t) {
		if name == "timeout now" {
			continue // the follower would begin an election
		}
		inPieces(t, false, answersOf(t, frames), func(w *wire, err error) {
			if err != nil || w.begun || w.skip != 0 || len(w.open) != 0 {
				t.Errorf("after the answer to %s: %v, %+v", name, err, w)
			}
		})
	}
}

func TestExtensionsAreFoundWhereverTheyHide(t *testing.T) {
	snapshot := func(size, rest string) string {
		return "\x02\x82\xa4Size" + size + "\xa4Term\x01" + rest
	}
	for name, data := range map[string]string{
		"value":                 "\x00\x81\xa1x" + hugeExtension,
		"key":                   "\x00\x81" + hugeExtension,
		"in an array":           "\x00\x81\xa1x\x92\x01" + hugeExtension,
		"after numbers":         "\x00\x84\xa1a\xcd\xc9\xc9\xa1b\xd3\xc9\xc9\xc9\xc9\xc9\xc9\xc9\xc9\xa1c\xcb\xc9\xc9\xc9\xc9\xc9\xc9\xc9\xc9\xa1d" + hugeExtension,
		"after strings":         "\x00\x83\xa1a\xd9\x02ab\xa1b\xc5\x00\x02ab\xa1c" + hugeExtension,
		"in the next request":   "\x00\x80\x01\x81\xa1x" + hugeExtension,
		"short":                 "\x00\x81\xa1x\xd4\x00\x00",
		"after a snapshot":      snapshot("\x03", "abc\x00\x81\xa1x") + hugeExtension,
		"after an empty one":    snapshot("\x00", "\x00\x81\xa1x") + hugeExtension,
		"after a negative one":  snapshot("\xff", "\x00\x81\xa1x") + hugeExtension,
		"negative 16":           snapshot("\xd1\xff\xff", "\x00\x81\xa1x") + hugeExtension,
		"size of another kind":  "\x00\x81\xa4Size\x7f\x00\x81\xa1x" + hugeExtension,
		"size inside":           "\x02\x81\xa1x\x81\xa4Size\x7f\x00\x81\xa1x" + hugeExtension,
		"size as a value":       "\x02\x82\xa1x\xa4Size\xa1y\x7f\x00\x81\xa1x" + hugeExtension,
		"two sizes":             "\x02\x82\xa4Size\x7f\xa4Size\x00\x00\x81\xa1x" + hugeExtension,
		"size is nothing":       snapshot("\xc0", ""),
		"size is a string":      snapshot("\xa1x", ""),
		"size is a map":         snapshot("\x80", ""),
		"request is an array":   "\x02\x91\x01",
		"request is nothing":    "\x00\xc0",
		"values too deep":       "\x00\x81\xa1x" + strings.Repeat("\x91", maxDepth),
		"a byte that means nil": "\x00\x81\xa1x\xc1",
	} {
		inPieces(t, true, []byte(data), func(w *wire, err error) {
			if err == nil {
				t.Errorf("%s: %q was taken: %+v", name, data, w)
			}
		})
	}
	for name, data := range map[string]string{
		"in a string":             "\x00\x81\xa1x\xa6" + hugeExtension,
		"in a snapshot":           snapshot("\x06", hugeExtension) + "\x00\x80",
		"in one with a long size": snapshot("\xcf\x00\x00\x00\x00\x00\x00\x00\x06", hugeExtension) + "\x00\x80",
		"size as bytes":           "\x02\x81\xc4\x04Size\x06" + hugeExtension + "\x00\x80",
		"empty arrays and maps":   "\x00\x83\xa1a\x90\xa1b\x80\xa1c\xdc\x00\x00\x01\x80",
	} {
		inPieces(t, true, []byte(data), func(w *wire, err error) {
			if err != nil || w.begun || w.skip != 0 {
				t.Errorf("%s: %q was refused: %v, %+v", name, data, err, w)
			}
		})
	}
}

// A request of ten bytes took 4 GiB, and so did an answer.
func TestExtensionTakesNoMemory(t *testing.T) {
	v := startVictim(t)
	defer v.stop(t)
	const bound = 4 << 20
	if n := fuzz.Allocated(func() { v.feed([]byte("\x00\x81\xa1x" + hugeExtension)) }); n > bound {
		t.Errorf("%d bytes allocated for a request", n)
	}
	if len(v.feed(beatFrame(t))) == 0 {
		t.Error("a heartbeat is not answered any more")
	}
	layer := newPort()
	layer.dial = scriptedDial([]byte("\xa0\x81\xa1x" + hugeExtension))
	trans := NewTransport(layer, TransportOptions{})
	defer trans.Close()
	var err error
	if n := fuzz.Allocated(func() { _, err = ask(trans, "entries") }); n > bound {
		t.Errorf("%d bytes allocated for an answer", n)
	}
	if err == nil || !strings.Contains(err.Error(), errExtension.Error()) { // the decoder wraps by text
		t.Errorf("AppendEntries = %v, want %v", err, errExtension)
	}
}

func BenchmarkWire(b *testing.B) {
	frame := appendFrames(b, entries(2, 129, 2)...)
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		w := &wire{incoming: true}
		if err := w.read(frame); err != nil {
			b.Fatal(err)
		}
	}
}
