package network

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/proof/fuzz"
	"github.com/locknode/locknode/internal/proof/rafttest"
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

// A request is from the member that has dialled, whatever is in it beside that.
func TestRequestOfAnotherMemberIsRefused(t *testing.T) {
	frames := everyFrame(t) // of b
	for name, frame := range frames {
		for from, ok := range map[string]bool{"": true, "b": true, "c": false, "bb": false} {
			w := &wire{incoming: true, from: from}
			var err error
			for i := 0; i < len(frame) && err == nil; i++ { // a byte at a time
				err = w.read(frame[i : i+1])
			}
			if (err == nil) != ok || !ok && !errors.Is(err, errOtherSender) {
				t.Errorf("%s of b on a connection of %q: %v", name, from, err)
			}
		}
	}
	for name, data := range map[string]string{
		"empty":    "\x00\x81\xa2ID\xa0",
		"nothing":  "\x00\x81\xa2ID\xc0",
		"a number": "\x00\x81\xa2ID\x62",
		"an array": "\x00\x81\xa2ID\x91\x62",
		"twice":    "\x00\x82\xa2ID\xa1b\xa2ID\xa1c",
		"as bytes": "\x00\x81\xc4\x02ID\xc4\x01c",
	} {
		if err := (&wire{incoming: true, from: "b"}).read([]byte(data)); !errors.Is(err, errOtherSender) {
			t.Errorf("ID is %s: %v, want %v", name, err, errOtherSender)
		}
	}
	for name, data := range map[string]string{
		"as a value": "\x00\x82\xa1x\xa2ID\xa1y\xa1c", "inside": "\x00\x81\xa1x\x81\xa2ID\xa1c", "in a longer key": "\x00\x81\xa3IDx\xa1c",
	} {
		if err := (&wire{incoming: true, from: "b"}).read([]byte(data)); err != nil {
			t.Errorf("ID %s: %v", name, err)
		}
	}
	// And on a real connection.
	v := startVictim(t)
	defer v.stop(t)
	other := framesOf(t, func(trans *Transport) {
		_ = trans.RequestVote("a", "a:1", &raft.RequestVoteRequest{RPCHeader: header("c"), Term: 9, LastLogIndex: 9, LastLogTerm: 1}, &raft.RequestVoteResponse{})
	})
	if answers := v.feed(other); len(answers) > 0 || v.raft.CurrentTerm() >= 9 {
		t.Errorf("b was answered %q as c, in term %d", answers, v.raft.CurrentTerm())
	}
	if len(v.feed(beatFrame(t))) == 0 {
		t.Error("a heartbeat is not answered any more")
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
	frame := appendFrames(b, rafttest.Entries(2, 1+MaxEntries, 2)...)
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		w := &wire{incoming: true}
		if err := w.read(frame); err != nil {
			b.Fatal(err)
		}
	}
}

// An array of 31 million empty maps was made room for.
func TestNothingIsLongerThanWhatRaftSends(t *testing.T) {
	long := func(n int, head ...byte) string {
		for shift := 24; shift >= 0; shift -= 8 {
			head = append(head, byte(n>>shift))
		}
		return string(head)
	}
	for name, c := range map[string]struct {
		data     string
		incoming bool
	}{
		"entries":          {"\x00\x81\xa7Entries" + long(MaxEntries+1, 0xdd), true},
		"values of others": {"\x01\x81\xa1x" + long(31_000_000, 0xdd), true},
		"a map":            {"\x00\x81\xa1x" + long(maxPairs+1, 0xdf), true},
		"a request":        {"\x00" + long(maxPairs+1, 0xdf), true},
		"data":             {"\x00\x81\xa7Entries\x91\x81\xa4Data" + long(MaxEntryBytes+1, 0xc6), true},
		"a name":           {"\x00\x81" + long(MaxEntryBytes+1, 0xdb), true},
		"an answer":        {"\xa0\x81\xa5Peers" + long(MaxEntries+1, 0xdd), false},
		"an error":         {long(1<<31, 0xdb), false},
	} {
		inPieces(t, c.incoming, []byte(c.data), func(w *wire, err error) {
			if !errors.Is(err, errTooLong) {
				t.Errorf("%s: %q was taken: %v", name, c.data, err)
			}
		})
	}
	long4096 := raft.Configuration{}
	for i := range maxServers + 1 {
		id := fmt.Sprint(i)
		long4096.Servers = append(long4096.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id + ":1")})
	}
	if err := unsoundConfiguration(raft.EncodeConfiguration(long4096)); err == nil {
		t.Errorf("a configuration of %d servers was taken", len(long4096.Servers))
	}
	long4096.Servers = long4096.Servers[1:]
	if err := unsoundConfiguration(raft.EncodeConfiguration(long4096)); err != nil {
		t.Errorf("a configuration of %d servers: %v", len(long4096.Servers), err)
	}
}

// What is being decoded is bounded over all connections: long requests take turns, and one
// that is not completed, or whose connection ends, gives its turn back.
func TestLongRequestsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newMemNet()
		b := NewTransport(network.listen("b"), TransportOptions{Timeout: time.Second})
		serve(t, b, accept)
		begun := "\x00\x81\xa7Entries\x91\x81\xa4Data\xc6\x00\x10\x00\x00" + strings.Repeat("x", 2*smallFrame)
		send := func() net.Conn {
			c, err := network.listen("x").Dial("b", time.Second)
			if err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = c.Write([]byte(begun)) }()
			synctest.Wait()
			return c
		}
		conns := []net.Conn{send(), send(), send()}
		if n := len(b.streams.large); n != largeFrames {
			t.Errorf("%d long requests are being read, want %d", n, largeFrames)
		}
		// Requests that are not long do not wait for them.
		a := NewTransport(network.listen("a"), TransportOptions{})
		defer a.Close()
		if err := appendTo(a, "b", &raft.Log{Data: []byte("short")}); err != nil {
			t.Errorf("a short request beside them: %v", err)
		}
		_ = conns[0].Close()
		time.Sleep(time.Minute) // the others' time is over
		if n := len(b.streams.large); n != 0 {
			t.Errorf("%d long requests are being read after a minute of nothing", n)
		}
		if err := appendTo(a, "b", &raft.Log{Data: make([]byte, 3*smallFrame)}); err != nil {
			t.Errorf("a long request after them: %v", err)
		}
		for _, c := range conns {
			_ = c.Close()
		}
	})
}
