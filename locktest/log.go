package locktest

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
	"time"
)

// testLog writes to the log of a test until it is closed. The log of a test that has ended
// must not be used, and some goroutines of killed nodes may end later.
type testLog struct {
	t testing.TB

	mu     sync.Mutex // guards closed, and writing
	closed bool
}

// Write is part of io.Writer.
func (l *testLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.t.Logf("%s", bytes.TrimRight(line, "\n"))
	}
	return len(line), nil
}

func (l *testLog) close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

// time replaces times by the time since the beginning.
func (l *testLog) time(begin time.Time) func([]string, slog.Attr) slog.Attr {
	return func(groups []string, a slog.Attr) slog.Attr {
		// Some libraries also log other attributes named "time".
		if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
			return slog.String("at", a.Value.Time().Sub(begin).Round(time.Microsecond).String())
		}
		return a
	}
}
