package node

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/replica"
)

// fakeLog stands for Raft: it applies each entry to a real table after a delay.
type fakeLog struct {
	machine *replica.Table
	delay   time.Duration
	term    uint64 // the term in which entries are stored

	mu      sync.Mutex
	entries []fsm.Entry
	active  int
	most    int // entries in flight at once
	fail    error
}

func (l *fakeLog) commit(data []byte) (fsm.Applied, error) {
	l.mu.Lock()
	l.active++
	l.most = max(l.most, l.active)
	fail := l.fail
	l.mu.Unlock()
	time.Sleep(l.delay)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active--
	if fail != nil {
		return fsm.Applied{}, fail
	}
	e, err := fsm.DecodeEntry(data)
	if err != nil {
		return fsm.Applied{}, err
	}
	l.entries = append(l.entries, e)
	entry := &raft.Log{Index: uint64(len(l.entries)), Term: l.term, Type: raft.LogCommand, Data: data}
	return l.machine.Apply(entry).(fsm.Applied), nil
}

// lock is the table's view of a lock.
func (l *fakeLog) lock(name string) (v fsm.LockView) {
	l.machine.View(func(t *fsm.Table) { v = t.Lock(name) })
	return v
}

// startProposer runs a proposer of term 1 over a table for the test's duration.
func startProposer(t *testing.T, l *fakeLog, prepare ...func(*proposer)) *proposer {
	t.Helper()
	l.machine = replica.New(nil)
	if l.term == 0 {
		l.term = 1
	}
	start := time.Now()
	mono := func() time.Duration { return time.Since(start) }
	p := newProposer(1, newLeaderClock(0, mono), time.Now, l.commit)
	for _, f := range prepare {
		f(p)
	}
	go p.run()
	t.Cleanup(func() {
		p.close()
		<-p.done
	})
	return p
}

// acquirers is the session of the acquires in these tests.
var acquirers = fsm.SessionID{1}

func openAcquirers() fsm.OpenSession {
	return fsm.OpenSession{Session: acquirers, TTL: int64(24 * time.Hour)}
}

// openSessionOf opens the session of detachedAcquire, in an entry of its own.
func openSessionOf(p *proposer) {
	p.submit(fair.Owner{}, openAcquirers(), func(outcome) {})
	synctest.Wait()
}

// detachedAcquire is the acquire n of its session.
func detachedAcquire(name string, n int, ttl time.Duration) fsm.Acquire {
	return fsm.Acquire{
		ID:    fsm.RequestID{Session: acquirers, Sequence: uint64(n)},
		Wants: []fsm.Want{{Lock: name, Mode: fsm.Exclusive}},
		TTL:   int64(ttl), Holder: "tester", Detached: true,
	}
}

// grant has a lock held without a session, in one entry.
func grant(p *proposer, name string, ttl time.Duration) {
	p.submit(fair.Owner{}, openAcquirers(), func(outcome) {})
	p.submit(fair.Owner{}, detachedAcquire(name, 1, ttl), func(outcome) {})
	p.submit(fair.Owner{}, fsm.EndSession{Session: acquirers}, func(outcome) {})
}

func TestCommandsThatArriveDuringAnEntryShareTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{delay: time.Millisecond}
		p := startProposer(t, l)
		var wg sync.WaitGroup
		submit := func(i int) {
			wg.Add(1)
			p.submit(fair.Owner{}, detachedAcquire(string('a'+rune(i)), i+1, time.Minute), func(o outcome) {
				defer wg.Done()
				if o.err != nil || o.result.Code != fsm.OK {
					t.Errorf("acquire %d: outcome %+v, want OK", i, o)
				}
			})
		}
		p.submit(fair.Owner{}, openAcquirers(), func(outcome) {})
		synctest.Wait() // the first entry is in flight
		for i := range 9 {
			submit(i)
		}
		wg.Wait()
		if len(l.entries) != 2 || len(l.entries[1].Commands) != 9 {
			t.Fatalf("%d entries, the second with %d commands; want 2 and 9", len(l.entries), len(l.entries[len(l.entries)-1].Commands))
		}
		if l.most != 1 {
			t.Fatalf("%d entries in flight at once, want 1", l.most)
		}
	})
}

func TestKeepAlivesOvertakeAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{delay: time.Millisecond}
		p := startProposer(t, l)
		session := fsm.SessionID{1}
		p.submit(fair.Owner{}, fsm.OpenSession{Session: session, TTL: int64(10 * time.Second)}, func(outcome) {})
		synctest.Wait()
		refused := 0
		for range maxQueueCommands + 10 {
			p.submit(fair.Owner{}, fsm.SetValue{Token: 1}, func(o outcome) {
				if errors.Is(o.err, errOverloaded) {
					refused++
				}
			})
		}
		if refused == 0 {
			t.Fatal("the queue accepted more than its bound")
		}
		for _, c := range []fsm.Command{fsm.Release{Token: 1}, fsm.Renew{Token: 1}, fsm.Cancel{}, fsm.EndSession{}, fsm.ForceRelease{}} {
			p.submit(fair.Owner{}, c, func(o outcome) {
				if errors.Is(o.err, errOverloaded) {
					t.Errorf("%T behind a full queue: %v, want it accepted", c, o.err)
				}
			})
		}
		kept := false
		p.keepAlive(keepAlive{session: fsm.KeepAliveSession{Session: session}, done: func(a fsm.Alive, o outcome) {
			kept = o.err == nil && a.Deadline > 0
		}})
		time.Sleep(3 * time.Millisecond) // the entry in flight and one more
		synctest.Wait()
		if !kept {
			t.Fatal("a keep-alive behind a full queue was not in the next entry")
		}
	})
}

func TestAFailedEntryEndsTheTermAndItsCommandsAreUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{fail: errOutcomeUnknown}
		p := startProposer(t, l)
		var got error
		p.submit(fair.Owner{}, fsm.Release{Token: 1}, func(o outcome) { got = o.err })
		synctest.Wait()
		if !errors.Is(got, errOutcomeUnknown) {
			t.Fatalf("outcome = %v, want %v", got, errOutcomeUnknown)
		}
		select {
		case <-p.lost:
		default:
			t.Fatal("the term goes on after an entry failed")
		}
		p.submit(fair.Owner{}, fsm.Release{Token: 1}, func(o outcome) { got = o.err })
		if !errors.Is(got, errNotProposed) {
			t.Fatalf("outcome after the term = %v, want %v", got, errNotProposed)
		}
	})
}

// A test of T3: Raft can append an entry that was stamped in one term under a later one. The
// table refuses it as a whole; its commands had no effect, and the next leader proposes them
// again.
func TestAnEntryStoredInALaterTermChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{term: 2} // Raft has a new term, and the proposer stamps for term 1
		p := startProposer(t, l)
		var got error
		p.submit(fair.Owner{}, detachedAcquire("a", 1, time.Minute), func(o outcome) { got = o.err })
		synctest.Wait()
		if !errors.Is(got, errNotProposed) {
			t.Fatalf("outcome = %v, want %v", got, errNotProposed)
		}
		if v := l.lock("a"); v.HolderCount != 0 {
			t.Fatalf("the lock has %d holders after a stale stamp, want none", v.HolderCount)
		}
	})
}

func TestAnIdleEmptyClusterWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{}
		startProposer(t, l)
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(l.entries) != 0 {
			t.Fatalf("%d entries in an idle hour, want none", len(l.entries))
		}
	})
}

func TestAnUnrenewedLockExpiresByTicksAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{delay: time.Millisecond}
		p := startProposer(t, l)
		grant(p, "a", 5*time.Second)
		time.Sleep(4900 * time.Millisecond)
		synctest.Wait()
		if v := l.lock("a"); v.HolderCount != 1 {
			t.Fatal("the lock expired before its TTL")
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if v := l.lock("a"); v.HolderCount != 0 {
			t.Fatal("the lock is still held 100ms after its TTL")
		}
		n := len(l.entries)
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(l.entries) > n+1 {
			t.Fatalf("%d entries after the last deadline, want at most one", len(l.entries)-n)
		}
	})
}

func TestEntriesStayWithinTheirBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{delay: time.Millisecond}
		p := startProposer(t, l)
		openSessionOf(p)
		value := make([]byte, 4096)
		for i := range 200 {
			c := detachedAcquire("lock", i+1, time.Minute)
			c.Value = value
			p.submit(fair.Owner{}, c, func(outcome) {})
		}
		for range 2 * maxEntryCommands {
			p.submit(fair.Owner{}, fsm.Release{Token: 1}, func(outcome) {})
		}
		time.Sleep(time.Second)
		synctest.Wait()
		total := 0
		for i, e := range l.entries {
			if len(e.Commands) > maxEntryCommands+1 {
				t.Errorf("entry %d has %d commands, at most %d are allowed", i, len(e.Commands), maxEntryCommands)
			}
			total += len(e.Commands)
		}
		if want := 200 + 2*maxEntryCommands; total < want {
			t.Errorf("%d commands were proposed, want %d", total, want)
		}
	})
}

func TestClosingFailsWhatIsQueuedWithoutDoingIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{delay: time.Second}
		p := startProposer(t, l)
		var first, second outcome
		openSessionOf(p)
		p.submit(fair.Owner{}, detachedAcquire("a", 1, time.Minute), func(o outcome) { first = o })
		time.Sleep(1500 * time.Millisecond) // the session is open, and this entry on its way
		p.submit(fair.Owner{}, detachedAcquire("b", 2, time.Minute), func(o outcome) { second = o })
		p.close()
		if !errors.Is(second.err, errNotProposed) {
			t.Fatalf("queued command: %v, want %v", second.err, errNotProposed)
		}
		<-p.done
		if first.err != nil {
			t.Fatalf("command in flight: %v, want its result", first.err)
		}
		if v := l.lock("b"); v.HolderCount != 0 {
			t.Fatal("a refused command took effect")
		}
	})
}

func TestADeadlineIsOverdueUntilItsTickIsApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{delay: 50 * time.Millisecond}
		p := startProposer(t, l)
		grant(p, "a", 2*time.Second)
		time.Sleep(1990 * time.Millisecond)
		synctest.Wait()
		if _, due := p.overdue(); due {
			t.Fatal("overdue before the deadline")
		}
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
		if seen, due := p.overdue(); !due || seen == 0 || l.lock("a").HolderCount != 1 {
			t.Fatalf("10ms after the deadline, tick in flight: overdue %v since entry %d with %d holders, want true with 1", due, seen, l.lock("a").HolderCount)
		}
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		if _, due := p.overdue(); due || l.lock("a").HolderCount != 0 {
			t.Fatalf("tick applied: overdue %v with %d holders, want false with 0", due, l.lock("a").HolderCount)
		}
	})
}
