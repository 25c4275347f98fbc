package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// The log has one line for each cause and minute. Raft logs every try, and tries a peer that
// is down eight times a second for as long as it is down. That would be a hundred megabytes
// a day, in which nothing can be found. So the first line of a cause is written at once. The
// following lines are counted for a minute; then the latest is written with their number,
// and another minute begins. If no line came in a minute the cause is forgotten, and its
// next line is written at once again.
//
// The cause of one of the node's own lines is its level, message and values, but for counts,
// and for errors, which contain ports and times. So the same event with another term or
// another peer is always logged. The cause of one of Raft's lines, which count tries, is its
// level, message and the peer or snapshot that it is about.
//
// A stranger that fills the disk can vary its lines: another peer, an invented node, another
// reason each time. So at most 16 causes of one message are told apart within a minute. All
// beyond them are one more cause: its first line is written, and then the latest of them
// with their number, once a minute. Long values are cut, so that lines have a bounded length.
//
// Lines below info are for debugging, and are all written.

const (
	// repeatEvery is the time between two lines of one cause: a minute, and a second more so
	// that an hour has at most 60.
	repeatEvery = time.Minute + time.Second
	// maxCausesOfMessage is how many causes of one message are told apart in a minute.
	maxCausesOfMessage = 16
	// maxCauses is how many causes are told apart in all. Lines beyond that are told apart
	// by their level only.
	maxCauses = 512
	// maxValue is how long a text or an error in a line may be.
	maxValue = 1 << 10
)

// changing are the keys of the node's own lines whose values change although the cause is
// the same.
var changing = []string{"err", "open", "open_from_peer", "not_logged", "after"}

// raftSubjects are the keys of Raft's lines that name what they are about.
var raftSubjects = []string{"peer", "server_id", "target", "candidate", "from", "host", "id", "snapshot"}

// repeats knows what was logged in the last minute.
type repeats struct {
	mu       sync.Mutex // guards what follows; not held while a line is written
	causes   map[string]*repeated
	messages map[string]int // level and message → its causes; no zero entries
	closed   bool
}

// repeated is a cause of which a line was written less than a minute ago.
type repeated struct {
	latest  slog.Record // of those that were counted
	to      slog.Handler
	count   int    // lines since the last one that was written
	message string // level and message of this cause; empty: the cause is of many
	timer   *time.Timer
}

// sparing is the handler of a node's log.
type sparing struct {
	slog.Handler
	all  *repeats
	with string // what WithAttrs and WithGroup have added: part of the cause
	raft bool   // it gets Raft's lines
}

// newSparing returns a handler that writes to h. close writes what was counted.
func newSparing(h slog.Handler) *sparing {
	return &sparing{Handler: h, all: &repeats{causes: map[string]*repeated{}, messages: map[string]int{}}}
}

// forRaft is the same handler for Raft's lines.
func (s *sparing) forRaft() *sparing {
	return &sparing{Handler: s.Handler, all: s.all, with: s.with, raft: true}
}

// WithAttrs implements [slog.Handler].
func (s *sparing) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &sparing{Handler: s.Handler.WithAttrs(attrs), all: s.all, with: s.with + fmt.Sprint(attrs), raft: s.raft}
}

// WithGroup implements [slog.Handler].
func (s *sparing) WithGroup(name string) slog.Handler {
	return &sparing{Handler: s.Handler.WithGroup(name), all: s.all, with: s.with + " " + name, raft: s.raft}
}

// Handle implements [slog.Handler].
func (s *sparing) Handle(ctx context.Context, r slog.Record) error {
	r = shortened(r)
	if r.Level >= slog.LevelInfo && !s.all.take(s.cause(r), s.Handler, &r) {
		return nil
	}
	return s.Handler.Handle(ctx, r)
}

func (s *sparing) cause(r slog.Record) string {
	var b strings.Builder
	fmt.Fprint(&b, r.Level, " ", r.Message, s.with)
	r.Attrs(func(a slog.Attr) bool {
		switch {
		case s.raft && !slices.Contains(raftSubjects, a.Key), slices.Contains(changing, a.Key):
		case a.Key == "from", a.Key == "peer": // a stranger comes from another port each time
			fmt.Fprintf(&b, " %s=%s", a.Key, hostOf(a.Value.String()))
		default:
			fmt.Fprintf(&b, " %s=%s", a.Key, a.Value)
		}
		return true
	})
	return b.String()
}

func hostOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// shortened cuts the values of a line that are too long.
func shortened(r slog.Record) slog.Record {
	long := len(r.Message) > maxValue
	r.Attrs(func(a slog.Attr) bool {
		long = long || len(textOf(a.Value)) > maxValue
		return !long
	})
	if !long {
		return r
	}
	out := slog.NewRecord(r.Time, r.Level, cut(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if len(textOf(a.Value)) > maxValue {
			a.Value = slog.StringValue(cut(textOf(a.Value)))
		}
		out.AddAttrs(a)
		return true
	})
	return out
}

// textOf returns the text of a value of a kind that may be long; "" for other kinds.
func textOf(v slog.Value) string {
	switch v.Kind() {
	case slog.KindString, slog.KindAny, slog.KindLogValuer, slog.KindGroup:
		return v.Resolve().String()
	}
	return ""
}

func cut(text string) string {
	if len(text) <= maxValue {
		return text
	}
	return fmt.Sprintf("%s… and %d bytes more", strings.ToValidUTF8(text[:maxValue], ""), len(text)-maxValue)
}

// take reports whether a line is to be written at once. If not, it is counted.
func (a *repeats) take(cause string, to slog.Handler, r *slog.Record) bool {
	message := r.Level.String() + " " + r.Message
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return true
	}
	of := message
	if a.causes[cause] == nil {
		switch {
		case a.messages[message] >= maxCausesOfMessage:
			cause, of = message+" of many causes", ""
		case len(a.causes) >= maxCauses:
			cause, of = r.Level.String(), ""
		}
	}
	if of == "" {
		*r = r.Clone()
		r.AddAttrs(slog.String("causes", "more than are told apart; this is the latest"))
	}
	c := a.causes[cause]
	if c == nil {
		if of != "" {
			a.messages[of]++
		}
		a.causes[cause] = &repeated{to: to, message: of, timer: time.AfterFunc(repeatEvery, func() { a.writeLatest(cause) })}
		return true
	}
	c.latest, c.to = r.Clone(), to
	c.count++
	return false
}

// forgetLocked forgets a cause of which no line came for a minute.
func (a *repeats) forgetLocked(cause string) {
	message := a.causes[cause].message
	delete(a.causes, cause)
	if a.messages[message]--; a.messages[message] <= 0 {
		delete(a.messages, message)
	}
}

// writeLatest writes the latest line of a cause if there were any, and begins another
// minute.
func (a *repeats) writeLatest(cause string) {
	a.mu.Lock()
	c := a.causes[cause]
	if a.closed || c == nil {
		a.mu.Unlock()
		return
	}
	if c.count == 0 {
		a.forgetLocked(cause)
		a.mu.Unlock()
		return
	}
	write := c.written()
	c.timer.Reset(repeatEvery)
	a.mu.Unlock()
	write()
}

// written returns a function that writes the latest line, with the number of lines. The
// mutex is held.
func (c *repeated) written() (write func()) {
	to, r := c.to, c.latest
	r.Time = time.Now()
	r.AddAttrs(slog.Int("repeated", c.count))
	c.latest, c.count = slog.Record{}, 0
	return func() { _ = to.Handle(context.Background(), r) }
}

// close writes what was counted. After that every line is written.
func (a *repeats) close() {
	a.mu.Lock()
	var last []func()
	for _, c := range a.causes {
		c.timer.Stop()
		if c.count > 0 {
			last = append(last, c.written())
		}
	}
	a.causes, a.messages, a.closed = nil, nil, true
	a.mu.Unlock()
	for _, write := range last {
		write()
	}
}
