package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/fair"
)

var (
	flooder = fair.Owner{Address: 1, Connection: 1}
	polite  = fair.Owner{Address: 1, Connection: 2}
)

func TestAFloodOfOneOwnerDelaysAnotherByOneEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{delay: time.Millisecond}
		p := startProposer(t, l)
		openSessionOf(p)
		time.Sleep(time.Millisecond)
		for range 10 * maxEntryCommands {
			p.submit(flooder, fsm.SetValue{Token: 1}, func(outcome) {})
		}
		synctest.Wait() // an entry of the flood is in flight
		served := 0
		for range 100 {
			p.submit(polite, fsm.SetValue{Token: 1}, func(outcome) { served++ })
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if served != 100 {
			t.Fatalf("%d of 100 commands were served with the next entry, beside a flood of another owner", served)
		}
	})
}

func TestOnlyTheOwnerThatFloodsIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{delay: time.Millisecond}
		p := startProposer(t, l)
		openSessionOf(p)
		refused := map[fair.Owner]int{}
		submit := func(o fair.Owner, n int, c fsm.Command) {
			for range n {
				p.submit(o, c, func(out outcome) {
					if errors.Is(out.err, errOverloaded) {
						refused[o]++
					}
				})
			}
		}
		value := fsm.SetValue{Token: 1, Value: make([]byte, 4096)}
		for _, c := range []fsm.Command{fsm.SetValue{Token: 1}, value} {
			clear(refused)
			submit(flooder, maxQueueCommands, c)
			submit(polite, 1000, c)
			if refused[flooder] == 0 || refused[polite] > 0 {
				t.Errorf("%d commands of a flood were refused and %d of 1000 of another connection; want some and none", refused[flooder], refused[polite])
			}
		}
	})
}

// keepAlives queues renewals of one owner, and counts their answers.
func keepAlives(p *proposer, o fair.Owner, answers map[string]int, sessions ...fsm.KeepAliveSession) {
	for _, s := range sessions {
		p.keepAlive(keepAlive{owner: o, session: s, done: func(a fsm.Alive, out outcome) {
			switch {
			case out.err != nil:
				answers[out.err.Error()]++
			case a.Deadline == 0:
				answers["no session"]++
			default:
				answers["alive"]++
			}
		}})
	}
}

func TestKeepAlivesOfOneSessionShareAPlaceInAnEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{delay: time.Millisecond}
		p := startProposer(t, l)
		session := func(seen uint64) fsm.KeepAliveSession {
			return fsm.KeepAliveSession{Session: acquirers, RevocationsSeen: seen}
		}
		p.submit(polite, openAcquirers(), func(outcome) {})
		synctest.Wait()
		answers := map[string]int{}
		for i := range uint64(3000) {
			keepAlives(p, flooder, answers, session(i%1000))
		}
		other := fsm.KeepAliveSession{Session: fsm.SessionID{2}}
		keepAlives(p, polite, answers, session(5), other)
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		last := l.entries[len(l.entries)-1]
		want := []fsm.KeepAliveSession{session(999), other}
		if got := last.Commands[0].(fsm.KeepAlive).Sessions; !slices.Equal(got, want) {
			t.Errorf("the entry renews %v, want each once and the most that was seen: %v", got, want)
		}
		if answers["alive"] != 3001 || answers["no session"] != 1 {
			t.Errorf("the answers are %v, want the state of each caller's own session", answers)
		}
	})
}

// startProposerWithAside is startProposer, with what a node does about sessions that
// the table does not have: aside gets them.
func startProposerWithAside(t *testing.T, l *fakeLog, aside func([]keepAlive)) *proposer {
	t.Helper()
	return startProposer(t, l, func(p *proposer) {
		p.missing, p.aside = missingIn(l.machine), aside
	})
}

func TestKeepAlivesOfUnknownSessionsTakeNoPartInAnEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{delay: time.Millisecond}
		aside := 0
		p := startProposerWithAside(t, l, func(of []keepAlive) { aside += len(of) })
		p.submit(polite, openAcquirers(), func(outcome) {})
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		before := len(l.entries)
		answers := map[string]int{}
		for i := range 3 * maxEntryCommands {
			keepAlives(p, flooder, answers, fsm.KeepAliveSession{Session: fsm.SessionID{2, byte(i), byte(i >> 8)}})
		}
		keepAlives(p, polite, answers, fsm.KeepAliveSession{Session: acquirers})
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if aside != 3*maxEntryCommands || answers["alive"] != 1 || len(answers) != 1 {
			t.Errorf("%d of %d keep-alives of unknown sessions were set aside; answers %v, want that the known one is alive", aside, 3*maxEntryCommands, answers)
		}
		if n := len(l.entries) - before; n != 1 {
			t.Errorf("%d entries, want one for the session that is known", n)
		}
	})
}

func TestAKeepAliveDoesNotOvertakeTheOpeningOfItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{delay: time.Millisecond}
		p := startProposerWithAside(t, l, func(of []keepAlive) {
			t.Errorf("%d keep-alives of a session that is being opened were set aside", len(of))
		})
		p.submit(polite, openAcquirers(), func(outcome) {})
		synctest.Wait() // in flight
		for range 3 * maxEntryCommands {
			p.submit(flooder, fsm.SetValue{Token: 1}, func(outcome) {})
		}
		late := fsm.SessionID{9}
		p.submit(flooder, fsm.OpenSession{Session: late, TTL: int64(time.Minute)}, func(outcome) {})
		answers := map[string]int{}
		keepAlives(p, polite, answers, fsm.KeepAliveSession{Session: acquirers}, fsm.KeepAliveSession{Session: late})
		time.Sleep(time.Second)
		synctest.Wait()
		if answers["alive"] != 2 || len(answers) != 1 {
			t.Errorf("answers %v, want that both are alive", answers)
		}
		if n := len(p.lanes.opening); n != 0 {
			t.Errorf("%d sessions are still marked as being opened", n)
		}
	})
}

func TestAKeepAliveThatWaitsForAnOpeningEndsWithTheTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{delay: time.Millisecond}
		p := startProposerWithAside(t, l, func([]keepAlive) { t.Error("set aside") })
		late := fsm.SessionID{9}
		for range 3 * maxEntryCommands {
			p.submit(flooder, fsm.SetValue{Token: 1}, func(outcome) {})
		}
		p.submit(flooder, fsm.OpenSession{Session: late, TTL: int64(time.Minute)}, func(outcome) {})
		answers := map[string]int{}
		for range maxBehind + 3 {
			keepAlives(p, polite, answers, fsm.KeepAliveSession{Session: late})
		}
		time.Sleep(1500 * time.Microsecond)
		synctest.Wait()
		p.close()
		<-p.done
		if answers[errNotProposed.Error()] != maxBehind || answers[errOverloaded.Error()] != 3 {
			t.Errorf("answers %v, want that %d were not proposed and 3 were too many", answers, maxBehind)
		}
	})
}

// missingInRounds are the keep-alives of sessions that the table of a proposer does not have.
// The test ends their read rounds.
type missingInRounds struct {
	proposer *proposer

	mu     sync.Mutex // guards rounds: timers of a bubble run in no order
	rounds []func(uint64, error)
}

func startMissing(t *testing.T) *missingInRounds {
	t.Helper()
	s, l := &missingInRounds{}, &fakeLog{}
	missing := &missingSessions{
		round: func(done func(uint64, error)) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.rounds = append(s.rounds, done)
		},
		reach: func(_ uint64, do func(bool)) { do(true) },
		epoch: func() *epoch { return &epoch{proposer: s.proposer} },
	}
	s.proposer = startProposerWithAside(t, l, missing.add)
	missing.table = l.machine
	return s
}

// end ends the round that is under way, and reports whether there was one.
func (s *missingInRounds) end(index uint64, err error) bool {
	s.mu.Lock()
	if len(s.rounds) == 0 {
		s.mu.Unlock()
		return false
	}
	done := s.rounds[0]
	s.rounds = s.rounds[1:]
	s.mu.Unlock()
	done(index, err)
	synctest.Wait()
	return true
}

func TestADeposedLeaderAnswersNothingAboutSessionsFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startMissing(t)
		answers := map[string]int{}
		unknown := fsm.KeepAliveSession{Session: fsm.SessionID{2}}
		p := s.proposer
		keepAlives(p, polite, answers, unknown)
		synctest.Wait()
		if len(answers) != 0 {
			t.Fatalf("before a round has confirmed the leader: answers %v, want none", answers)
		}
		if !s.end(0, errors.New("this node no longer leads")) || answers[errNotProposed.Error()] != 1 {
			t.Errorf("after a round that failed: answers %v, want errNotProposed, so that another leader is asked", answers)
		}

		time.Sleep(missingEvery)
		keepAlives(p, polite, answers, unknown)
		synctest.Wait()
		s.end(0, nil)
		if answers["no session"] != 1 {
			t.Errorf("after a round that succeeded: answers %v, want that there is no such session", answers)
		}

		time.Sleep(missingEvery)
		keepAlives(p, polite, answers, unknown)
		synctest.Wait()
		p.submit(polite, fsm.OpenSession{Session: unknown.Session, TTL: int64(time.Minute)}, func(outcome) {})
		synctest.Wait()
		s.end(0, nil)
		if answers["alive"] != 1 {
			t.Errorf("a session that was opened before the round ended: answers %v, want that it is alive", answers)
		}
	})
}

func TestOneRoundServesManyUnknownSessionsAndNotTooManyRoundsCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startMissing(t)
		answers := map[string]int{}
		p := s.proposer
		for i := range 3 * missingBatch {
			keepAlives(p, flooder, answers, fsm.KeepAliveSession{Session: fsm.SessionID{2, byte(i), byte(i >> 8)}})
		}
		synctest.Wait()
		keepAlives(p, polite, answers, fsm.KeepAliveSession{Session: fsm.SessionID{3}})
		synctest.Wait()
		began, rounds := time.Now(), 0
		for answers["no session"] < 3*missingBatch+1 {
			if s.end(0, nil) {
				rounds++
				continue
			}
			time.Sleep(missingEvery)
			synctest.Wait()
		}
		if rounds < 4 || rounds > 5 || time.Since(began) < time.Duration(rounds-1)*missingEvery {
			t.Errorf("%d rounds in %v for %d sessions, want one for each %d, %v apart", rounds, time.Since(began), 3*missingBatch+1, missingBatch, missingEvery)
		}
	})
}

func TestReadsOfAFloodAreServedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		mono := func() time.Duration { return time.Since(began) }
		r := newRounds(func(context.Context) (uint64, error) {
			time.Sleep(time.Millisecond)
			return 1, nil
		}, func(_ uint64, do func(bool)) { do(true) }, mono)
		var idle atomic.Bool
		r.busy = func() bool { return !idle.Load() }
		var mu sync.Mutex // timers of a bubble run in no order
		var order []string
		served := func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(order)
		}
		note := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, what)
		}
		join := func(o fair.Owner, what string) {
			if !r.joinFor(o, listCost, func(uint64, error) { note(what) }) {
				note(what + " refused")
			}
		}
		for range 20 * roundCost / listCost {
			join(flooder, "flood")
		}
		join(polite, "polite")
		r.join(func(uint64, error) { note("peer") })
		ctx, cancel := context.WithCancel(t.Context())
		go r.run(ctx)
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if got := served(); !slices.Equal(got, []string{"peer"}) {
			t.Errorf("while too many reads wait for the table: %v, want only the peer to be served", got)
		}
		idle.Store(true)
		r.wake()
		time.Sleep(2500 * time.Microsecond)
		synctest.Wait()
		if got := served(); !slices.Contains(got[:min(3, len(got))], "polite") || len(got) > 3*roundCost/listCost {
			t.Errorf("after two rounds %d were served, another connection's as number %d; want few, and that one early", len(got), slices.Index(got, "polite"))
		}
		cancel()
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if len(served()) != 20*roundCost/listCost+2 {
			t.Errorf("%d were answered in the end, want all", len(served()))
		}
	})
}

func TestSizesOfCommandsAreAboutRight(t *testing.T) {
	name, value := string(make([]byte, 300)), make([]byte, 4000)
	labels := []fsm.Label{{Key: name, Value: name}}
	for _, c := range []fsm.Command{
		fsm.OpenSession{Holder: name, Labels: labels, Owner: name}, fsm.EndSession{Undelivered: make([]uint64, 100)},
		fsm.Acquire{Wants: []fsm.Want{{Lock: name}, {Lock: name}}, Holder: name, Value: value, Labels: labels, Owner: name},
		fsm.SetValue{Lock: name, Value: value}, fsm.Release{Lock: name}, fsm.Renew{Lock: name}, fsm.Cancel{},
		fsm.ForceRelease{Lock: name, Reason: name, Who: name},
	} {
		if got, want := sizeOf(c), len(fsm.AppendCommand(nil, c)); got < want || got > 2*want+1000 {
			t.Errorf("%T: %d bytes are counted, want about %d", c, got, want)
		}
	}
}

func BenchmarkProposer(b *testing.B) {
	for _, owners := range []uint64{1, 100} {
		b.Run(fmt.Sprintf("owners=%d", owners), func(b *testing.B) {
			began := time.Now()
			mono := func() time.Duration { return time.Since(began) }
			p := newProposer(1, newLeaderClock(0, mono), time.Now, func([]byte) (fsm.Applied, error) {
				return fsm.Applied{Results: make([]fsm.Result, maxEntryCommands+1)}, nil
			})
			go p.run()
			room := make(chan struct{}, 2*maxEntryCommands)
			done := func(outcome) { <-room }
			var c fsm.Command = fsm.Release{Lock: "orders/42", Token: 123456}
			b.ReportAllocs()
			for i := uint64(0); b.Loop(); i++ {
				room <- struct{}{}
				p.submit(fair.Owner{Address: 1, Connection: i % owners}, c, done)
			}
			p.close()
			<-p.done
		})
	}
}
