package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/locknode/locknode/internal/proof/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// sink is a writer that fails or blocks when a test wants it.
type sink struct {
	mu    sync.Mutex
	bytes bytes.Buffer
	fail  error         // what Write returns
	after int           // bytes that are written before it fails
	hang  chan struct{} // Write waits until it is closed
}

func (s *sink) Write(b []byte) (int, error) {
	s.mu.Lock()
	hang := s.hang
	s.mu.Unlock()
	if hang != nil {
		<-hang
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		n := min(s.after, len(b))
		s.bytes.Write(b[:n])
		return n, s.fail
	}
	return s.bytes.Write(b)
}

func (s *sink) set(f func(*sink)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// lines are those that are JSON objects, and rest all others that are not empty.
func (s *sink) lines(t *testing.T) (lines []map[string]any, rest []string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for text := range strings.Lines(s.bytes.String()) {
		var l map[string]any
		if err := json.Unmarshal([]byte(text), &l); err == nil {
			lines = append(lines, l)
		} else if text != "\n" {
			rest = append(rest, text)
		}
	}
	return lines, rest
}

func closed(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestARecordIsOneLineWithAllOfIt(t *testing.T) {
	to := &sink{}
	l := New(Options{
		To: to, Node: func() (string, string) { return "n1", "c0ffee" },
		Now: func() time.Time { return time.Date(2026, 12, 1, 10, 0, 0, 5, time.FixedZone("", 3600)) },
	})
	l.Put(Record{
		Event: EventForceRelease, Who: Who{Identity: "token:shop", Address: "10.0.0.7:4711", Serial: "ab", Accessor: "acc"},
		Name: "orders/\n\u202e1", Token: 7, Reason: `"why"`, Outcome: "ok", Index: 12, Notes: []Note{{"limit", "3"}},
	})
	closed(t, l)
	const want = `{"time":"2026-12-01T09:00:00.000000005Z","node":"n1","cluster":"c0ffee","event":"force_release","identity":"token:shop",` +
		`"address":"10.0.0.7:4711","serial":"ab","accessor":"acc","name":"orders/\n\u202e1","token":7,"reason":"\"why\"","outcome":"ok","index":12,"notes":{"limit":"3"}}` + "\n"
	if got := to.bytes.String(); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

func TestTextsOfAnyLengthMakeLinesOfBoundedLength(t *testing.T) {
	to := &sink{}
	l := New(Options{To: to})
	long := strings.Repeat("\u202e", 100_000)
	names := make([]string, 10_000)
	notes := make([]Note, 10_000)
	for i := range names {
		names[i], notes[i] = long, Note{strconv.Itoa(i), long}
	}
	l.Put(Record{Event: EventDenied, Who: Who{long, long, long, long}, Name: long, Names: names, Reason: long, Error: long, Holder: long, Notes: notes})
	closed(t, l)
	if n := to.bytes.Len(); n > 1<<20 {
		t.Errorf("the line has %d bytes, want at most %d", n, 1<<20)
	}
	if lines, rest := to.lines(t); len(lines) != 1 || len(rest) != 0 {
		t.Errorf("%d lines and %d others, want one line", len(lines), len(rest))
	}
}

// A disk that is full for a while costs the lines of that while, and says so afterwards. A line
// of which a part was written does not take the next one with it.
func TestWhatCouldNotBeWrittenIsCountedAndSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &sink{fail: errors.New("no space"), after: 10}
		var written, lost int
		l := New(Options{To: to, Written: func(n int) { written += n }, Lost: func(n int) { lost += n }})
		for range 3 {
			l.Put(Record{Event: EventDenied})
			synctest.Wait()
		}
		if l.Failing() == nil {
			t.Error("Failing() = nil after a write has failed")
		}
		to.set(func(s *sink) { s.fail = nil })
		l.Put(Record{Event: EventGrant})
		synctest.Wait()
		if err := l.Failing(); err != nil {
			t.Errorf("Failing() = %v after a write that has not", err)
		}
		closed(t, l)
		lines, rest := to.lines(t)
		if len(lines) != 2 || lines[0]["event"] != EventLost || lines[0]["notes"].(map[string]any)["records"] != "3" || lines[1]["event"] != EventGrant {
			t.Errorf("lines %v, want that 3 were lost and then the grant", lines)
		}
		if len(rest) != 3 {
			t.Errorf("%d torn lines, want that each stands for itself: %q", len(rest), rest)
		}
		if written != 1 || lost != 3 {
			t.Errorf("%d written and %d lost, want 1 and 3", written, lost)
		}
	})
}

func TestAWriterThatHangsBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &sink{hang: make(chan struct{})}
		lost := 0
		l := New(Options{To: to, Lost: func(n int) { lost += n }})
		l.Put(Record{Event: EventStart})
		synctest.Wait() // it is being written
		const grants = maxQueued * 3 / 4
		for range grants + 5 {
			l.Put(Record{Event: EventGrant})
		}
		if lost != 5 || l.Failing() == nil {
			t.Errorf("%d lost, Failing() = %v; want 5 and an error", lost, l.Failing())
		}
		for range maxQueued - grants + 2 { // grants leave room for what else there is
			l.Put(Record{Event: EventDenied})
		}
		if lost != 7 {
			t.Errorf("%d lost, want 7: two of the denials", lost)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Close(ctx); err == nil {
			t.Error("Close waited for a writer that hangs, or had nothing to say")
		}
		close(to.hang)
		closed(t, l)
		lines, _ := to.lines(t)
		if len(lines) != 1+1+maxQueued {
			t.Errorf("%d lines, want the first, how many were lost, and %d", len(lines), maxQueued)
		}
	})
}

func TestNothingIsRecordedAfterClose(t *testing.T) {
	to := &sink{}
	lost := 0
	l := New(Options{To: to, Lost: func(n int) { lost += n }})
	closed(t, l)
	l.Put(Record{Event: EventGrant})
	closed(t, l)
	if lost != 1 || to.bytes.Len() != 0 {
		t.Errorf("%d lost and %q written, want 1 and nothing", lost, to.bytes.String())
	}
}

// FuzzRecord checks that whatever callers send, a record is one line, and says what was sent.
func FuzzRecord(f *testing.F) {
	f.Add("orders/1", "why", "10.0.0.7:1", uint64(1))
	f.Add("\n{\"event\":\"grant\"}\n", "\u2028\x00\xff", "\\", uint64(1)<<63)
	f.Fuzz(func(t *testing.T, name, reason, address string, token uint64) {
		r := Record{Event: EventDenied, Name: name, Names: []string{name, reason}, Reason: reason, Who: Who{Address: address}, Token: token, Notes: []Note{{name, reason}}}
		r = r.clipped()
		b := r.encode(time.Unix(0, 0), name, reason)
		if n := bytes.Count(b, []byte("\n")); n != 1 || b[len(b)-1] != '\n' {
			t.Fatalf("%q has %d ends of lines", b, n)
		}
		var l struct {
			Event, Name, Reason, Node string
			Token                     uint64
			Names                     []string
			Notes                     map[string]string
		}
		if err := json.Unmarshal(b, &l); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		valid := func(s string) string { return strings.ToValidUTF8(s, "\ufffd") }
		if len(name) <= maxText && strings.ToValidUTF8(l.Name, "\ufffd") != l.Name || l.Token != token || l.Event != EventDenied {
			t.Fatalf("%q is not %+v", b, r)
		}
		if len(name) <= maxText && valid(name) == name && l.Name != name {
			t.Fatalf("name is %q, want %q", l.Name, name)
		}
	})
}
