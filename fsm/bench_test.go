package fsm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"
)

// loadedTable holds so many locks, each by a session of its own hundred.
func loadedTable(tb testing.TB, locks int) (t *Table, index uint64) {
	tb.Helper()
	t = New()
	const each = 1000
	for s := range (locks + each - 1) / each {
		id := benchSession(s)
		commands := []Command{OpenSession{Session: id, TTL: 3600 * second, Holder: "bench"}}
		for i := range min(each, locks-s*each) {
			commands = append(commands, Acquire{
				ID: RequestID{Session: id, Sequence: uint64(i + 1), Acked: uint64(i)}, Wants: exclusive(fmt.Sprintf("held/%d/%d", s, i)),
			})
		}
		index++
		for _, r := range t.Apply(index, 1, encode(1, 0, 0, commands...)).Results {
			if r.Code != OK {
				tb.Fatalf("load: %+v", r)
			}
		}
	}
	return t, index
}

func benchSession(i int) (id SessionID) {
	binary.BigEndian.PutUint64(id[:], uint64(i)*0x9e3779b97f4a7c15+1)
	id[15] = 1
	return id
}

func exclusive(name string) []Want { return []Want{{Lock: name, Mode: Exclusive}} }

// cycler makes pairs of entries: one acquires a batch of locks, one for each of
// as many sessions, the other releases them.
type cycler struct {
	t        *Table
	index    uint64
	names    []string
	sessions []SessionID
	sequence uint64
	buf      []byte
}

func newCycler(tb testing.TB, t *Table, index uint64, batch int) *cycler {
	tb.Helper()
	c := &cycler{t: t, index: index}
	for i := range batch {
		c.names = append(c.names, fmt.Sprintf("orders/%d", i*7919))
		id := SessionID{0: byte(i), 1: byte(i >> 8), 15: 2}
		binary.BigEndian.PutUint64(id[4:], index) // not those of an earlier cycler
		c.sessions = append(c.sessions, id)
		c.apply(AppendCommand(nil, OpenSession{Session: c.sessions[i], TTL: 3600 * second, Holder: "worker"}), 1)
	}
	return c
}

func (c *cycler) apply(commands []byte, n int) Applied {
	c.index++
	return c.t.Apply(c.index, 1, append(AppendHeader(nil, 1, c.t.now+1, 0, n), commands...))
}

// cycle acquires and releases every lock once.
func (c *cycler) cycle(tb testing.TB) {
	c.sequence += 2
	c.buf = c.buf[:0]
	for i, name := range c.names {
		c.buf = AppendCommand(c.buf, Acquire{
			ID: RequestID{Session: c.sessions[i], Sequence: c.sequence - 1, Acked: c.sequence - 2}, Wants: exclusive(name), Wait: -1,
		})
	}
	a := c.apply(c.buf, len(c.names))
	c.buf = c.buf[:0]
	for i := range c.names {
		if a.Results[i].Code != OK {
			tb.Fatalf("acquire: %+v", a.Results[i])
		}
		c.buf = AppendCommand(c.buf, Release{
			ID: RequestID{Session: c.sessions[i], Sequence: c.sequence, Acked: c.sequence - 1}, Token: a.Results[i].Token,
		})
	}
	c.apply(c.buf, len(c.names))
}

// One operation is one command: half of them acquire, half release. Encoding
// them is included.
func BenchmarkAcquireRelease(b *testing.B) {
	for _, locks := range []int{0, 1_000_000} {
		b.Run(fmt.Sprintf("locks=%d", locks), func(b *testing.B) {
			t, index := loadedTable(b, locks)
			for _, batch := range []int{1, 64, 1024} {
				b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
					c := newCycler(b, t, index, batch)
					b.ReportAllocs()
					for n := 0; n < b.N; n += 2 * batch {
						c.cycle(b)
					}
					index = c.index
				})
			}
		})
	}
}

// One operation is a release and the grant to the next waiter.
func BenchmarkHandOver(b *testing.B) {
	for _, waiters := range []int{16, 1024} {
		b.Run(fmt.Sprintf("waiters=%d", waiters), func(b *testing.B) {
			c := newCycler(b, New(), 0, waiters)
			sequences := make([]uint64, waiters)
			line := func(i int) {
				sequences[i]++
				c.apply(AppendCommand(nil, Acquire{
					ID: RequestID{Session: c.sessions[i], Sequence: sequences[i], Acked: sequences[i] - 1}, Wants: exclusive("hot"), Wait: -1,
				}), 1)
			}
			for i := range waiters {
				line(i)
			}
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				i := n % waiters
				sequences[i]++
				c.apply(AppendCommand(nil, Release{
					ID: RequestID{Session: c.sessions[i], Sequence: sequences[i], Acked: sequences[i] - 1}, Token: c.t.lastToken,
				}), 1)
				line(i)
			}
		})
	}
}

// One operation is one session of a keep-alive of 256.
func BenchmarkKeepAlive(b *testing.B) {
	c := newCycler(b, New(), 0, 256)
	var command KeepAlive
	for _, id := range c.sessions {
		command.Sessions = append(command.Sessions, KeepAliveSession{Session: id})
	}
	buf := AppendCommand(nil, command)
	b.ReportAllocs()
	for n := 0; n < b.N; n += 256 {
		c.apply(buf, 1)
	}
}

// One operation is a tick of up to 1,024 detached grants that end by time, of a
// million that end together.
func BenchmarkExpiry(b *testing.B) {
	const grants = 1_000_000
	tick := encode(1, 10*second, 0)
	var t *Table
	var index uint64
	left := 0
	for b.Loop() {
		if left == 0 {
			b.StopTimer()
			t, index, left = New(), 0, grants
			for i := range grants / 1000 {
				commands := []Command{opensHost()}
				for k := range 1000 {
					sequence := uint64(i*1000 + k + 1)
					commands = append(commands, Acquire{
						ID: RequestID{Session: host, Sequence: sequence, Acked: sequence - 1}, Wants: exclusive(fmt.Sprintf("l/%d/%d", k, i)),
						TTL: 2 * second, Holder: "h", Detached: true,
					})
				}
				index++
				t.Apply(index, 1, encode(1, 0, 0, commands...))
			}
			b.StartTimer()
		}
		index++
		left -= len(t.Apply(index, 1, tick).Events)
	}
}

// What a snapshot of a million locks costs the entries that are applied
// meanwhile: the pause, and the 99th percentile and worst of entries of 64
// commands before and while it is written.
func BenchmarkSnapshotOfMillionLocks(b *testing.B) {
	t, index := loadedTable(b, 1_000_000)
	c := newCycler(b, t, index, 64)
	for b.Loop() {
		quiet := c.latencies(b, func(n int) bool { return n < 2000 })
		start := time.Now()
		s := t.Snapshot()
		pause := time.Since(start)
		written := make(chan time.Duration)
		go func() {
			start := time.Now()
			_, err := s.WriteTo(io.Discard)
			if err != nil {
				b.Error(err)
			}
			written <- time.Since(start)
		}()
		var took time.Duration
		busy := c.latencies(b, func(int) bool {
			select {
			case took = <-written:
				return false
			default:
				return true
			}
		})
		b.ReportMetric(float64(pause.Nanoseconds())/1e3, "pause-µs")
		b.ReportMetric(took.Seconds(), "write-s")
		for name, l := range map[string][]time.Duration{"quiet": quiet, "busy": busy} {
			slices.Sort(l)
			b.ReportMetric(float64(l[len(l)*99/100].Nanoseconds())/1e3, name+"-p99-µs")
			b.ReportMetric(float64(l[len(l)-1].Nanoseconds())/1e3, name+"-worst-µs")
		}
	}
}

func (c *cycler) latencies(tb testing.TB, more func(n int) bool) (l []time.Duration) {
	for n := 0; more(n); n++ {
		start := time.Now()
		c.cycle(tb)
		l = append(l, time.Since(start)/2)
	}
	return l
}

func BenchmarkRestoreOfMillionLocks(b *testing.B) {
	t, _ := loadedTable(b, 1_000_000)
	var buf bytes.Buffer
	if _, err := t.Snapshot().WriteTo(&buf); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(buf.Len()))
	for b.Loop() {
		if _, err := Restore(bytes.NewReader(buf.Bytes())); err != nil {
			b.Fatal(err)
		}
	}
}
