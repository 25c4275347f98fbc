package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/proof/simnet"
	"github.com/locknode/locknode/internal/proof/testall"
	"github.com/locknode/locknode/internal/seam"
)

// written is what was logged from info on, a line for each record.
type written struct {
	mu    sync.Mutex
	lines []string
}

func (w *written) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (w *written) WithAttrs([]slog.Attr) slog.Handler           { return w }
func (w *written) WithGroup(string) slog.Handler                { return w }

func (w *written) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	fmt.Fprint(&b, r.Level, " ", r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprint(&b, " ", a)
		return true
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, b.String())
	return nil
}

// take returns the lines since the last call.
func (w *written) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := w.lines
	w.lines = nil
	return lines
}

func TestOneLineForEachCauseAndMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w written
		s := newSparing(&w)
		log := slog.New(s)
		expect := func(want ...string) {
			t.Helper()
			synctest.Wait()
			if got := w.take(); !slices.Equal(got, want) {
				t.Fatalf("written: %q, want %q", got, want)
			}
		}
		log.Warn("lost", "peer", "n2", "err", errors.New("first"))
		expect("WARN lost peer=n2 err=first") // at once
		log.Warn("lost", "peer", "n2", "err", errors.New("second"))
		log.Warn("lost", "peer", "n2", "err", errors.New("third"))
		log.Warn("lost", "peer", "n3", "err", errors.New("other")) // another cause
		log.Info("lost", "peer", "n2")                             // and another one
		expect("WARN lost peer=n3 err=other", "INFO lost peer=n2")
		time.Sleep(repeatEvery - time.Nanosecond)
		expect()
		time.Sleep(time.Nanosecond)
		expect("WARN lost peer=n2 err=third repeated=2")
		log.Warn("lost", "peer", "n2", "err", errors.New("fourth"))
		time.Sleep(repeatEvery)
		expect("WARN lost peer=n2 err=fourth repeated=1")
		time.Sleep(repeatEvery) // a minute without one
		synctest.Wait()
		log.Warn("lost", "peer", "n2", "err", errors.New("fifth"))
		expect("WARN lost peer=n2 err=fifth")

		log.With("node", "n9").Warn("lost", "peer", "n2", "err", errors.New("with more"))
		log.Warn("refused", "from", "10.0.0.1:1000")
		log.Warn("refused", "from", "10.0.0.1:1001")
		expect("WARN lost peer=n2 err=with more", "WARN refused from=10.0.0.1:1000")
		log.Info("leading", "term", 1)
		log.Info("leading", "term", 2) // an event that happens again is not repeated
		expect("INFO leading term=1", "INFO leading term=2")
		counts := slog.New(s.forRaft())
		counts.Warn("no vote", "target", "n2", "term", 1)
		counts.Warn("no vote", "target", "n2", "term", 2)
		counts.Warn("no vote", "target", "n3", "term", 2)
		expect("WARN no vote target=n2 term=1", "WARN no vote target=n3 term=2")

		s.all.close() // writes what was counted, and then holds nothing back
		if got := w.take(); len(got) != 2 || !slices.Contains(got, "WARN refused from=10.0.0.1:1001 repeated=1") || !slices.Contains(got, "WARN no vote target=n2 term=2 repeated=1") {
			t.Errorf("written at the end: %q, want what was counted", got)
		}
		log.Warn("late")
		log.Warn("late")
		expect("WARN late", "WARN late")
	})
}

func (a *repeats) kept() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.causes)
}

// The lines that a stranger causes take a bounded amount of memory and disk, whatever it
// varies and however long it goes on.
func TestLinesThatAStrangerCausesAreBounded(t *testing.T) {
	const minutes, messages = 10, 5
	for name, c := range map[string]struct {
		line  func(i int, log *slog.Logger)
		most  int // lines a minute
		bytes int // of a line
	}{
		"another peer": {func(i int, log *slog.Logger) {
			log.Warn("refused", "peer", fmt.Sprintf("10.%d.%d.%d:%d", i>>16, i>>8&255, i&255, i&0xffff))
		},
			maxCausesOfMessage + 1, 500},
		"everything": {func(i int, log *slog.Logger) {
			log.Warn(fmt.Sprintf("message %d", i%messages), fmt.Sprintf("key %d", i%7), i, "reason", fmt.Sprint(i/3), "lock", strings.Repeat(fmt.Sprint(i), i%50),
				"err", errors.New(strings.Repeat("x", i)), "term", i)
		}, messages * (maxCausesOfMessage + 1), 5 * maxValue},
		"one of Raft's":  {func(i int, log *slog.Logger) { log.Info("rejecting vote", "candidate", i, "from", i) }, maxCausesOfMessage + 1, 500},
		"the message":    {func(i int, log *slog.Logger) { log.Error("no "+fmt.Sprint(i)+strings.Repeat("y", i), "n", i) }, maxCauses + 1, 2 * maxValue},
		"with a context": {func(i int, log *slog.Logger) { log.With("who", i).WithGroup(fmt.Sprint(i)).Info("hello", "a", i) }, maxCausesOfMessage + 1, 500},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var w written
				s := newSparing(&w)
				defer s.all.close()
				log := slog.New(s)
				if name == "one of Raft's" {
					log = slog.New(s.forRaft())
				}
				i, lines := 0, 0
				check := func() {
					for _, line := range w.take() {
						lines++
						if len(line) > c.bytes {
							t.Fatalf("a line of %d bytes, want at most %d", len(line), c.bytes)
						}
					}
				}
				for range minutes {
					for range 60 {
						for range 20 {
							i++
							c.line(i, log)
						}
						time.Sleep(repeatEvery / 60)
					}
					check()
					if got := s.all.kept(); got > c.most+1 {
						t.Fatalf("%d causes are kept, want at most %d", got, c.most+1)
					}
				}
				if lines > c.most*(minutes+1) || lines < minutes {
					t.Errorf("%d lines in %d minutes, want at most %d a minute, and some", lines, minutes, c.most)
				}
				time.Sleep(3 * repeatEvery)
				synctest.Wait()
				last := w.take()
				if got := s.all.kept(); got != 0 || len(s.all.messages) != 0 {
					t.Errorf("%d causes of %d messages are kept although none of them is new, want none", got, len(s.all.messages))
				}
				if i > c.most*minutes && !slices.ContainsFunc(last, func(l string) bool { return strings.Contains(l, "repeated=") }) {
					t.Errorf("at the end %q was written, want what was counted", last)
				}
			})
		})
	}
}

// A stranger that causes one message many times keeps no other line from being written.
func TestAStrangersLinesHideNobodyElses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w written
		s := newSparing(&w)
		defer s.all.close()
		log := slog.New(s)
		for i := range 10_000 {
			log.Warn("refused", "peer", i)
		}
		w.take()
		log.Warn("disk is stalled")
		log.Info("refused", "peer", "n2") // at another level
		if got := w.take(); len(got) != 2 {
			t.Errorf("written: %q, want both", got)
		}
		log.Warn("refused", "peer", 3) // is known
		time.Sleep(repeatEvery)
		synctest.Wait()
		lines := w.take()
		if len(lines) != 2 || !slices.ContainsFunc(lines, func(l string) bool {
			return strings.Contains(l, "repeated=9983") && strings.Contains(l, "this is the latest")
		}) {
			t.Errorf("written: %q, want the one that was repeated, and how many others there were", lines)
		}
	})
}

// openLogged starts three nodes in virtual time, with what each of them logs.
func openLogged(t *testing.T, network *simnet.Network) (c *testCluster, logs map[*Node]*written) {
	t.Helper()
	logs = map[*Node]*written{}
	c = &testCluster{t: t}
	var join []string
	for i := range 3 {
		join = append(join, network.Host(fmt.Sprintf("n%d", i+1)).IP().String()+":7403")
	}
	for i := range 3 {
		host, store, log := network.Host(fmt.Sprintf("n%d", i+1)), raft.NewInmemStore(), &written{}
		n, err := Open(seam.With(t.Context(), seam.Node{
			Network: host,
			Memory:  &disk.Memory{Log: store, Stable: store, Snapshots: raft.NewInmemSnapshotStore()},
		}), Config{
			ID: host.Name(), Listen: host.IP().String() + ":7400", HTTPAddr: "off", Insecure: true,
			BootstrapExpect: 3, Join: join, Logger: slog.New(log),
		})
		if err != nil {
			t.Fatal(err)
		}
		c.nodes, logs[n] = append(c.nodes, n), log
	}
	c.awaitReady()
	return c, logs
}

// ofEachCause counts lines by message and subject, and fails where there are more than most.
func ofEachCause(t *testing.T, n *Node, lines []string, most int) {
	t.Helper()
	count := map[string]int{}
	for _, line := range lines {
		cause, rest, _ := strings.Cut(line, " ")
		for _, word := range strings.Fields(rest) {
			key, _, isPair := strings.Cut(word, "=")
			if isPair && !slices.Contains(raftSubjects, key) {
				break
			}
			cause += " " + word
		}
		count[cause]++
	}
	for cause, n2 := range count {
		if n2 > most {
			t.Errorf("%s: %d lines of %q, want at most %d", n.ID(), n2, cause, most)
		}
	}
	if len(lines) > 0 {
		t.Logf("%s: %d lines of %d causes", n.ID(), len(lines), len(count))
	}
}

func TestAnHourWithADeadPeerAndTenMinutesWithoutAMajorityFillNoLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New(1, simnet.Options{Latency: 200 * time.Microsecond})
		defer network.Close()
		c, logs := openLogged(t, network)
		leader := c.leader()
		var dead, other *Node
		for _, n := range c.nodes {
			switch {
			case n == leader:
			case dead == nil:
				dead = n
			default:
				other = n
			}
		}
		check := func(what string, most int) {
			t.Helper()
			told := 0
			for _, n := range c.nodes {
				lines := logs[n].take()
				told += len(lines)
				ofEachCause(t, n, lines, most)
			}
			if told == 0 {
				t.Errorf("%s: no node has logged anything", what)
			}
		}
		for _, log := range logs {
			log.take()
		}
		if err := dead.Close(); err != nil {
			t.Fatal(err)
		}
		hour := time.Hour
		if !testall.On() { // with the race detector it takes minutes
			hour = 10 * time.Minute
		}
		time.Sleep(hour)
		check("an hour with a dead peer", int(hour/time.Minute))
		network.Cut(leader.id, other.id)
		network.Cut(other.id, leader.id)
		time.Sleep(10 * time.Minute)
		check("ten minutes without a majority", 11)
		c.closeSimulated(network)
	})
}
