package simdisk

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/proof/racedetector"
)

func TestMain(m *testing.M) {
	racedetector.OneThread()
	goleak.VerifyTestMain(m)
}

func entries(from, to uint64) []*raft.Log {
	var logs []*raft.Log
	for i := from; i <= to; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: 1, Data: fmt.Appendf(nil, "entry %d", i)})
	}
	return logs
}

func mustStore(t *testing.T, s raft.LogStore, from, to uint64) {
	t.Helper()
	if err := s.StoreLogs(entries(from, to)); err != nil {
		t.Fatalf("StoreLogs %d to %d: %v", from, to, err)
	}
}

// wantLog checks the bounds of the log and every entry between them.
func wantLog(t *testing.T, s raft.LogStore, first, last uint64) {
	t.Helper()
	f, err1 := s.FirstIndex()
	l, err2 := s.LastIndex()
	if f != first || l != last || err1 != nil || err2 != nil {
		t.Fatalf("log is %d to %d (%v, %v), want %d to %d", f, l, err1, err2, first, last)
	}
	for i := first; i <= last && first > 0; i++ {
		var e raft.Log
		if err := s.GetLog(i, &e); err != nil || string(e.Data) != fmt.Sprintf("entry %d", i) {
			t.Errorf("GetLog(%d): %q, %v", i, e.Data, err)
		}
	}
	for _, i := range []uint64{first - 1, last + 1} {
		if err := s.GetLog(i, &raft.Log{}); !errors.Is(err, raft.ErrLogNotFound) {
			t.Errorf("GetLog(%d): %v, want ErrLogNotFound", i, err)
		}
	}
}

func TestLogHasNoGaps(t *testing.T) {
	log := New(Options{}).Memory().Log
	wantLog(t, log, 0, 0)
	mustStore(t, log, 5, 20)
	for _, bad := range [][]*raft.Log{entries(22, 23), entries(20, 21), append(entries(21, 21), entries(23, 23)...)} {
		if err := log.StoreLogs(bad); err == nil {
			t.Errorf("StoreLogs from %d succeeded, want an error", bad[0].Index)
		}
	}
	if err := log.DeleteRange(7, 9); err == nil {
		t.Error("DeleteRange in the middle succeeded, want an error")
	}
	wantLog(t, log, 5, 20)
	for _, c := range []struct{ from, to, first, last uint64 }{
		{1, 4, 5, 20}, {21, 30, 5, 20}, {1, 7, 8, 20}, {18, 25, 8, 17}, {17, 17, 8, 16}, {8, 8, 9, 16}, {0, 99, 0, 0}, {1, 1, 0, 0},
	} {
		if err := log.DeleteRange(c.from, c.to); err != nil {
			t.Errorf("DeleteRange(%d, %d): %v", c.from, c.to, err)
		}
		wantLog(t, log, c.first, c.last)
	}
	mustStore(t, log, 100, 101)
	wantLog(t, log, 100, 101)
}

func TestNothingIsSharedWithTheCaller(t *testing.T) {
	m := New(Options{}).Memory()
	e := entries(1, 1)
	_ = m.Log.StoreLogs(e)
	e[0].Data[0] = 'X'
	var got raft.Log
	_ = m.Log.GetLog(1, &got)
	got.Data[1] = 'X'
	wantLog(t, m.Log, 1, 1)

	val := []byte("v")
	_ = m.Stable.Set([]byte("k"), val)
	val[0] = 'X'
	if v, _ := m.Stable.Get([]byte("k")); string(v) != "v" {
		t.Errorf("Get: %q, want %q", v, "v")
	} else {
		v[0] = 'X'
	}
	if v, _ := m.Stable.Get([]byte("k")); string(v) != "v" {
		t.Errorf("Get again: %q, want %q", v, "v")
	}
}

func TestStableStoreSaysNotFoundAsRaftWantsIt(t *testing.T) {
	s := New(Options{}).Memory().Stable
	_, err1 := s.Get([]byte("k"))
	_, err2 := s.GetUint64([]byte("k"))
	for _, err := range []error{err1, err2} {
		if err == nil || err.Error() != "not found" {
			t.Errorf("error %v, want exactly %q", err, "not found")
		}
	}
	if err := s.SetUint64([]byte("k"), 7); err != nil {
		t.Fatal(err)
	}
	if n, err := s.GetUint64([]byte("k")); n != 7 || err != nil {
		t.Errorf("GetUint64: %d, %v", n, err)
	}
}

func snap(t *testing.T, s raft.SnapshotStore, index uint64, text string) {
	t.Helper()
	sink, err := s.Create(1, index, 1, raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "x"}}}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(sink, text); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sink.Cancel(); err != nil {
		t.Fatal(err)
	}
}

// listed returns "index:size:contents" of each snapshot.
func listed(t *testing.T, s raft.SnapshotStore) (all []string) {
	t.Helper()
	metas, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range metas {
		_, r, err := s.Open(m.ID)
		if err != nil {
			all = append(all, fmt.Sprintf("%d:damaged", m.Index))
			continue
		}
		b, _ := io.ReadAll(r)
		all = append(all, fmt.Sprintf("%d:%d:%s", m.Index, m.Size, b))
	}
	return all
}

func TestTheTwoNewestSnapshotsAreKept(t *testing.T) {
	d := New(Options{})
	s := d.Memory().Snapshots
	snap(t, s, 10, "ten")
	snap(t, s, 30, "thirty")
	snap(t, s, 20, "twenty")
	cancelled, _ := s.Create(1, 40, 1, raft.Configuration{}, 1, nil)
	_, _ = cancelled.Write([]byte("x"))
	_ = cancelled.Cancel()
	_ = cancelled.Close()
	if got, want := fmt.Sprint(listed(t, s)), "[30:6:thirty 20:6:twenty]"; got != want {
		t.Errorf("snapshots %s, want %s", got, want)
	}
	if err := d.CorruptSnapshot(); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(listed(t, s)), "[30:damaged 20:6:twenty]"; got != want {
		t.Errorf("snapshots %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(listed(t, d.Memory().Snapshots)), "[20:6:twenty]"; got != want {
		t.Errorf("in the next life: snapshots %s, want %s", got, want)
	}
}

func TestACrashLosesWhatALyingDiskAcknowledged(t *testing.T) {
	for _, c := range []struct {
		name     string
		volatile int
		lie      bool
		sync     bool
		keep     bool
		last     uint64
	}{
		{"honest", 0, false, false, false, 10},
		{"lying", 0, true, false, false, 3},
		{"lying about the last 2", 2, true, false, false, 8},
		{"lying about more than there is", 50, true, false, false, 3},
		{"lying, then synced", 0, true, true, false, 10},
		{"lying, killed", 0, true, false, true, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := New(Options{Volatile: c.volatile})
			old := d.Memory()
			mustStore(t, old.Log, 1, 3)
			d.Lie(c.lie)
			for i := uint64(4); i <= 10; i++ {
				mustStore(t, old.Log, i, i)
			}
			if c.sync {
				d.Sync()
			}
			wantLog(t, old.Log, 1, 10)
			d.Crash(c.keep)
			log := d.Memory().Log
			wantLog(t, log, 1, c.last)
			mustStore(t, log, c.last+1, 12)
			wantLog(t, log, 1, 12)
		})
	}
}

func TestAnHonestWriteMakesEarlierLiesTrue(t *testing.T) {
	d := New(Options{})
	m := d.Memory()
	d.Lie(true)
	mustStore(t, m.Log, 1, 3)
	_ = m.SaveIdentity(disk.Identity{NodeID: "n"})
	d.Lie(false)
	if d.Unsynced() != 2 {
		t.Errorf("%d unsynced writes, want 2", d.Unsynced())
	}
	mustStore(t, m.Log, 4, 4)
	d.Crash(false)
	m = d.Memory()
	wantLog(t, m.Log, 1, 4)
	if m.Identity.NodeID != "n" {
		t.Errorf("identity %+v was lost", m.Identity)
	}
}

func TestAnEndedLifeChangesNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*Disk)
		last uint64
	}{
		{"crash", func(d *Disk) { d.Crash(true) }, 3},
		{"wipe", (*Disk).Wipe, 0},
		{"another life", func(d *Disk) { d.Memory() }, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := New(Options{})
			old := d.Memory()
			mustStore(t, old.Log, 1, 3)
			sink, _ := old.Snapshots.Create(1, 2, 1, raft.Configuration{}, 1, nil)
			c.end(d)
			_, errFirst := old.Log.FirstIndex()
			_, errLast := old.Log.LastIndex()
			_, errGet := old.Stable.Get([]byte("k"))
			_, errNum := old.Stable.GetUint64([]byte("k"))
			_, errList := old.Snapshots.List()
			_, _, errOpen := old.Snapshots.Open("x")
			_, errCreate := old.Snapshots.Create(1, 2, 1, raft.Configuration{}, 1, nil)
			_, errWrite := sink.Write([]byte("x"))
			for i, err := range []error{
				errFirst, errLast, errGet, errNum, errList, errOpen, errCreate, errWrite, sink.Close(),
				old.Log.StoreLogs(entries(4, 4)), old.Log.StoreLog(entries(4, 4)[0]), old.Log.DeleteRange(1, 3),
				old.Log.GetLog(1, &raft.Log{}), old.Stable.Set([]byte("k"), nil), old.Stable.SetUint64([]byte("k"), 1),
				old.SaveIdentity(disk.Identity{}),
			} {
				if !errors.Is(err, ErrCrashed) {
					t.Errorf("call %d: %v, want ErrCrashed", i, err)
				}
			}
			m := d.Memory()
			first := min(c.last, 1)
			wantLog(t, m.Log, first, c.last)
			if got := listed(t, m.Snapshots); len(got) > 0 {
				t.Errorf("snapshots %v, want none", got)
			}
		})
	}
}

func TestSlowAndHungWritesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{})
		m := d.Memory()
		d.Slow(30 * time.Millisecond)
		start := time.Now()
		mustStore(t, m.Log, 1, 3)
		if took := time.Since(start); took != 30*time.Millisecond {
			t.Errorf("a slow write took %v, want 30ms", took)
		}
		d.Slow(0)
		d.Hang()
		go func() {
			time.Sleep(5 * time.Second)
			d.Release()
		}()
		mustStore(t, m.Log, 4, 4)
		if took := time.Since(start); took != 5030*time.Millisecond {
			t.Errorf("a hung write returned after %v, want 5.03s", took)
		}

		d.Hang()
		result := make(chan error, 1)
		go func() { result <- m.Log.StoreLogs(entries(5, 5)) }()
		time.Sleep(time.Second)
		wantLog(t, m.Log, 1, 4) // reads do not hang
		d.Crash(true)
		if err := <-result; !errors.Is(err, ErrCrashed) {
			t.Errorf("a write that hung until the crash: %v, want ErrCrashed", err)
		}
		d.Release()
		wantLog(t, d.Memory().Log, 1, 4)
	})
}

func TestACrashedWriteMayHaveHappened(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		last  uint64
	}{{4 * time.Millisecond, 3}, {6 * time.Millisecond, 4}} {
		synctest.Test(t, func(t *testing.T) {
			d := New(Options{})
			m := d.Memory()
			mustStore(t, m.Log, 1, 3)
			d.Slow(10 * time.Millisecond)
			result := make(chan error, 1)
			go func() { result <- m.Log.StoreLogs(entries(4, 4)) }()
			time.Sleep(c.after)
			d.Crash(false)
			if err := <-result; !errors.Is(err, ErrCrashed) {
				t.Errorf("the write under way: %v, want ErrCrashed", err)
			}
			wantLog(t, d.Memory().Log, 1, c.last)
		})
	}
}

func TestFailedWritesChangeNothing(t *testing.T) {
	full := errors.New("no space left")
	d := New(Options{})
	m := d.Memory()
	mustStore(t, m.Log, 1, 3)
	d.Fail(full, 2)
	for _, err := range []error{m.Log.StoreLogs(entries(4, 4)), m.Stable.Set([]byte("k"), []byte("v"))} {
		if !errors.Is(err, full) {
			t.Errorf("error %v, want %v", err, full)
		}
	}
	mustStore(t, m.Log, 4, 4)
	d.Fail(full, -1)
	for range 5 {
		if err := m.Log.DeleteRange(1, 2); !errors.Is(err, full) {
			t.Errorf("error %v, want %v", err, full)
		}
	}
	wantLog(t, m.Log, 1, 4)
	d.Fail(nil, 0)
	mustStore(t, m.Log, 5, 5)
	if d.Writes() != 3 {
		t.Errorf("%d writes, want 3", d.Writes())
	}
}

func TestGuardNoticesACorruptedEntry(t *testing.T) {
	d := New(Options{})
	open := func() (*disk.Stores, error) {
		return disk.OpenStores(disk.StoreOptions{NodeID: "n", Memory: d.Memory()})
	}
	s, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Log.StoreLogs(entries(1, 9)); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if err := d.CorruptLog(10); err == nil {
		t.Error("CorruptLog(10) succeeded, want an error: there is no entry 10")
	}
	if err := d.CorruptLog(5); err != nil {
		t.Fatal(err)
	}
	if _, err := open(); !errors.Is(err, disk.ErrDamaged) {
		t.Errorf("OpenStores over a corrupted entry: %v, want ErrDamaged", err)
	}
}
