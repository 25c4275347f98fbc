package network

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/proof/fuzz"
	"github.com/locknode/locknode/internal/proof/testall"
)

// attack is what somebody sends on each of his connections, over and over if again is
// set, and then holds the connection.
type attack struct {
	data  []byte
	again int
}

// longEntries is a request with as many entries as it may hold, each as long as it may be,
// but for its last bytes.
func longEntries(t testing.TB) []byte {
	var logs []*raft.Log
	for i := range uint64(MaxEntries) {
		logs = append(logs, &raft.Log{Index: 2 + i, Term: 2, Data: bytes.Repeat([]byte{'x'}, MaxEntryBytes)})
	}
	frame := framesOf(t, func(trans *Transport) {
		_ = trans.AppendEntries("a", "a:1", &raft.AppendEntriesRequest{RPCHeader: header("b"), Term: 2, PrevLogEntry: 1, PrevLogTerm: 1, Entries: logs}, &raft.AppendEntriesResponse{})
	})
	return frame[:len(frame)-100]
}

// worst are the worst inputs to the port that are known.
func worst(t testing.TB) map[string]attack {
	array := func(key string, n uint32, element string, there int) []byte {
		b := append([]byte{0, 0x81, 0xa0 | byte(len(key))}, key...)
		b = binary.BigEndian.AppendUint32(append(b, 0xdd), n)
		return append(b, strings.Repeat(element, there)...)
	}
	nested := []byte("\x00\x81\xa1x")
	for range maxDepth - 4 {
		nested = append(nested, 0x90|15)
	}
	announced := append([]byte("\x00\x81\xa7Entries\x91\x81\xa4Data"), binary.BigEndian.AppendUint32([]byte{0xc6}, MaxEntryBytes)...)
	return map[string]attack{
		"31 MB of empty maps":    {data: array("Entries", 31_000_000, "\x80", 31_000_000)},
		"16 empty maps":          {data: array("Entries", MaxEntries+1, "\x80", MaxEntries)},
		"maps in maps":           {data: append(nested, bytes.Repeat([]byte{0x80}, 60<<10)...)},
		"long entries":           {data: longEntries(t)},
		"announced and not sent": {data: announced},
		"many entries":           {data: append([]byte("\x00\xde\x00\x18"), bytes.Repeat(array("Entries", MaxEntries, "\x81\xa4Data\xa0", MaxEntries)[2:], 24)...)},
		"silence":                {},
		"heartbeats":             {data: framesOf(t, func(trans *Transport) { _ = beat(trans) }), again: 1000},
	}
}

// portMemory sends an attack on as many connections as a node of three takes, and returns
// the most that the process had in use beyond what it had before.
func portMemory(t testing.TB, a attack) (most uint64) {
	v := startVictim(t)
	defer v.stop(t)
	inUse := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	runtime.GC()
	before := inUse()
	var wg sync.WaitGroup
	var conns []fuzz.Conn
	ids := []string{"b", "c"}
	for i := range defaultUnknown / defaultPerMember {
		ids = append(ids, fmt.Sprint("x", i))
	}
	for _, id := range ids {
		for range defaultPerMember {
			ours, theirs := fuzz.Pipe()
			v.port.in <- theirs
			conns = append(conns, ours)
			wg.Go(func() {
				c, err := greetAs(ours, id, "a")
				if err != nil {
					return
				}
				wg.Go(func() { _, _ = io.Copy(io.Discard, c) })
				for range 1 + a.again {
					for piece := range slices.Chunk(a.data, writeChunk) {
						if _, err := c.Write(piece); err != nil {
							return
						}
					}
				}
			})
		}
	}
	for range 30 {
		time.Sleep(10 * time.Millisecond)
		most = max(most, inUse())
	}
	for _, c := range conns {
		_ = c.Close()
	}
	wg.Wait()
	return most - min(before, most)
}

// TestThePortTakesBoundedMemory: 31 MB of empty maps on one connection took 2.9 GB.
func TestThePortTakesBoundedMemory(t *testing.T) {
	testall.Only(t, "it sends some hundred megabytes")
	all := worst(t)
	for _, name := range []string{"31 MB of empty maps", "long entries"} {
		const bound = 320 << 20
		if most := portMemory(t, all[name]); most > bound {
			t.Errorf("%s: %d bytes, at most %d are planned for", name, most, bound)
		}
	}
}

// BenchmarkPortMemory shows what each of the worst inputs takes: the table in SECURITY.md
// is from here.
func BenchmarkPortMemory(b *testing.B) {
	for name, a := range worst(b) {
		b.Run(name, func(b *testing.B) {
			most := uint64(0)
			for b.Loop() {
				most = max(most, portMemory(b, a))
			}
			b.ReportMetric(float64(most>>20), "MB")
			b.ReportMetric(0, "ns/op")
		})
	}
}
