package network

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/locknode/locknode/internal/proof/fuzz"
	"github.com/locknode/locknode/internal/proof/rafttest"
)

// oneWay is what a client writes, as bytes, and how a server reads bytes.
func oneWay(nonce string) (write func(data ...[]byte) []byte, read func([]byte) ([]byte, error)) {
	var sent bytes.Buffer
	client := seal(recording{sent: &sent}, "client", nonce, true)
	write = func(data ...[]byte) []byte {
		for _, b := range data {
			if n, err := client.Write(b); n != len(b) || err != nil {
				panic(err)
			}
		}
		return bytes.Clone(sent.Bytes())
	}
	read = func(b []byte) ([]byte, error) {
		return io.ReadAll(seal(scripted{says: bytes.NewReader(b)}, "client", nonce, false))
	}
	return write, read
}

func TestRecordsCarryWhatWasWritten(t *testing.T) {
	write, read := oneWay("n")
	large := bytes.Repeat([]byte("0123456789"), 3000)
	wire := write([]byte("x"), nil, large, []byte("yz"))
	want := append(append([]byte("x"), large...), "yz"...)
	if got, err := read(wire); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes were read, %v; want %d", len(got), err, len(want))
	}
	s := seal(scripted{says: bytes.NewReader(wire)}, "client", "n", false)
	if got, err := io.ReadAll(iotest.OneByteReader(s)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("byte by byte: %d bytes were read, %v", len(got), err)
	}
}

// A frame has no checksum of its own: one flipped bit was another entry.
func TestEveryFlippedBitIsFound(t *testing.T) {
	write, read := oneWay("n")
	wire := write(appendFrames(t, rafttest.Entries(2, 3, 2)...))
	for i := range len(wire) * 8 {
		bad := bytes.Clone(wire)
		bad[i/8] ^= 1 << (i % 8)
		got, err := read(bad)
		if err == nil || len(got) > 0 {
			t.Fatalf("with bit %d flipped %d bytes were read: %v", i, len(got), err)
		}
	}
}

// What was recorded does not fit anywhere else, and not twice.
func TestARecordingFitsOnNoOtherConnection(t *testing.T) {
	write, read := oneWay("n")
	beat := beatFrame(t)
	wire := write(beat)
	if got, err := read(append(bytes.Clone(wire), wire...)); !errors.Is(err, errDamagedRecord) || !bytes.Equal(got, beat) {
		t.Errorf("twice: %d bytes were read, %v", len(got), err)
	}
	_, other := oneWay("m")
	if got, err := other(wire); !errors.Is(err, errDamagedRecord) || len(got) > 0 {
		t.Errorf("on another connection %d bytes were read, %v", len(got), err)
	}
	back := seal(scripted{says: bytes.NewReader(wire)}, "client", "n", true)
	if _, err := io.ReadAll(back); !errors.Is(err, errDamagedRecord) {
		t.Errorf("to its sender: %v", err)
	}
}

// FuzzRecords damages what was written: what is read is its beginning.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("a heartbeat"), fuzz.FlipsAt(1))
	f.Add(bytes.Repeat([]byte("entries "), 2000), fuzz.FlipsAt(70, 4200))
	f.Fuzz(func(t *testing.T, data, choices []byte) {
		write, read := oneWay("n")
		bad, different := fuzz.Damage(write(data), &fuzz.Bytes{Data: choices})
		got, err := read(bad)
		if !bytes.HasPrefix(data, got) || !different && (err != nil || len(got) < len(data)) {
			t.Errorf("%q was read as %q, %v", data, got, err)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	data := make([]byte, 64<<10)
	client := seal(recording{sent: &bytes.Buffer{}}, "client", "n", true)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		client.Conn.(recording).sent.Reset()
		_, _ = client.Write(data)
	}
}
