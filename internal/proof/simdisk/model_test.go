package simdisk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
)

// model is a disk that keeps a copy of everything after each write.
type model struct {
	states   []state // states[0] is durable, the last is what reads see
	lie      bool
	volatile int
}

type state struct {
	log    []raft.Log
	stable map[string]string
	snaps  []string // newest first
	id     disk.Identity
}

func (s state) clone() state {
	s.log, s.stable, s.snaps = slices.Clone(s.log), maps.Clone(s.stable), slices.Clone(s.snaps)
	return s
}

func (m *model) now() state { return m.states[len(m.states)-1] }

func (m *model) write(f func(*state)) {
	s := m.now().clone()
	f(&s)
	m.states = append(m.states, s)
	switch {
	case !m.lie:
		m.states = m.states[len(m.states)-1:]
	case m.volatile > 0 && len(m.states) > m.volatile+1:
		m.states = m.states[len(m.states)-m.volatile-1:]
	}
}

// run drives a disk and the model through the same random writes and crashes, and
// compares all that can be read after each.
func (m *model) run(t *testing.T, rnd *rand.Rand, steps int) {
	m.volatile = rnd.IntN(5)
	d := New(Options{Volatile: m.volatile})
	m.states = []state{{stable: map[string]string{}}}
	mem := d.Memory()
	for step := range steps {
		what := m.step(t, rnd, d, &mem)
		if got, want := dump(t, d, mem), m.now().dump(); got != want {
			t.Fatalf("after step %d (%s):\n%s\nwant:\n%s", step, what, got, want)
		}
		if got, want := d.Unsynced(), len(m.states)-1; got != want {
			t.Fatalf("after step %d (%s): %d unsynced writes, want %d", step, what, got, want)
		}
	}
}

func (m *model) step(t *testing.T, rnd *rand.Rand, d *Disk, mem **disk.Memory) string {
	t.Helper()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	log := m.now().log
	first, last := uint64(1+rnd.IntN(50)), uint64(0)
	if len(log) > 0 {
		first, last = log[0].Index, log[len(log)-1].Index
	}
	switch n := rnd.IntN(20); {
	case n < 7:
		var batch []*raft.Log
		next := max(first, last+1)
		for i := range 1 + rnd.IntN(4) {
			batch = append(batch, &raft.Log{Index: next + uint64(i), Term: 1, Data: fmt.Append(nil, rnd.Uint32())})
		}
		ok((*mem).Log.StoreLogs(batch))
		m.write(func(s *state) {
			for _, l := range batch {
				s.log = append(s.log, *l)
			}
		})
		return "append"
	case n < 9 && last > 0:
		cut := first + rnd.Uint64N(last-first+1)
		if rnd.IntN(2) == 0 {
			ok((*mem).Log.DeleteRange(first, cut))
			m.write(func(s *state) { s.log = s.log[cut-first+1:] })
			return "compact"
		}
		ok((*mem).Log.DeleteRange(cut, last))
		m.write(func(s *state) { s.log = s.log[:cut-first] })
		return "cut the end"
	case n < 11:
		key, val := fmt.Sprint(rnd.IntN(3)), fmt.Sprint(rnd.Uint32())
		ok((*mem).Stable.Set([]byte(key), []byte(val)))
		m.write(func(s *state) { s.stable[key] = val })
		return "set"
	case n == 11:
		id := disk.Identity{NodeID: fmt.Sprint(rnd.Uint32())}
		ok((*mem).SaveIdentity(id))
		m.write(func(s *state) { s.id = id })
		return "save the identity"
	case n == 12:
		text := fmt.Sprint(rnd.Uint32())
		snap(t, (*mem).Snapshots, 7, text)
		m.write(func(s *state) { s.snaps = append([]string{text}, s.snaps[:min(len(s.snaps), 1)]...) })
		return "snapshot"
	case n == 13:
		m.lie = !m.lie
		d.Lie(m.lie)
		return fmt.Sprintf("lie %v", m.lie)
	case n == 14:
		d.Sync()
		m.states = m.states[len(m.states)-1:]
		return "sync"
	case n == 15:
		*mem = d.Memory()
		return "restart"
	case n == 16:
		d.Crash(true)
		*mem = d.Memory()
		return "kill"
	case n == 17:
		d.Crash(false)
		*mem = d.Memory()
		m.states = m.states[:1]
		return "loss of power"
	case n == 18:
		d.Fail(io.ErrShortWrite, 1)
		if err := (*mem).Stable.Set([]byte("0"), []byte("x")); !errors.Is(err, io.ErrShortWrite) {
			t.Fatalf("failing write: %v", err)
		}
		return "fail"
	}
	return "nothing"
}

func (s state) dump() string {
	var b bytes.Buffer
	for _, l := range s.log {
		fmt.Fprintf(&b, "%d:%s ", l.Index, l.Data)
	}
	for _, k := range slices.Sorted(maps.Keys(s.stable)) {
		fmt.Fprintf(&b, "%s=%s ", k, s.stable[k])
	}
	return fmt.Sprint(b.String(), s.snaps, s.id.NodeID)
}

// dump reads everything through the stores.
func dump(t *testing.T, d *Disk, m *disk.Memory) string {
	t.Helper()
	s := state{stable: map[string]string{}}
	first, err1 := m.Log.FirstIndex()
	last, err2 := m.Log.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	for i := first; i <= last && first > 0; i++ {
		var l raft.Log
		if err := m.Log.GetLog(i, &l); err != nil {
			t.Fatal(err)
		}
		s.log = append(s.log, l)
	}
	for _, k := range []string{"0", "1", "2"} {
		if v, err := m.Stable.Get([]byte(k)); err == nil {
			s.stable[k] = string(v)
		}
	}
	metas, err := m.Snapshots.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, meta := range metas {
		_, r, err := m.Snapshots.Open(meta.ID)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r)
		s.snaps = append(s.snaps, string(b))
	}
	s.id = d.current.identity // what the next life gets
	return s.dump()
}

func TestTheDiskDoesWhatItsModelDoes(t *testing.T) {
	for seed := range uint64(40) {
		new(model).run(t, rand.New(rand.NewPCG(seed, 0)), 120)
	}
}

// What comes in at once from several goroutines, one of which crashes the disk,
// is there or refused; no gap opens.
func TestConcurrentWritesAndACrash(t *testing.T) {
	d := New(Options{})
	d.Lie(true)
	for range 20 {
		m := d.Memory()
		var wg sync.WaitGroup
		wg.Go(func() {
			last, _ := m.Log.LastIndex()
			for i := last + 1; ; i++ {
				if err := m.Log.StoreLogs(entries(i, i)); err != nil {
					if !errors.Is(err, ErrCrashed) {
						t.Errorf("StoreLogs: %v", err)
					}
					return
				}
			}
		})
		wg.Go(func() {
			for m.Stable.SetUint64([]byte("k"), 1) == nil {
			}
		})
		wg.Go(func() {
			for sink, err := m.Snapshots.Create(1, 1, 1, raft.Configuration{}, 1, nil); err == nil; sink, err = m.Snapshots.Create(1, 1, 1, raft.Configuration{}, 1, nil) {
				_, _ = sink.Write([]byte("x"))
				_ = sink.Close()
			}
		})
		wg.Go(func() {
			for enough := d.Writes() + 50; d.Writes() < enough; {
				runtime.Gosched()
			}
			d.Crash(false)
		})
		wg.Wait()
	}
	log := d.Memory().Log
	if last, err := log.LastIndex(); err != nil || last > 0 {
		wantLog(t, log, 1, last)
	}
}
