package cluster

import (
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// warner says each thing once: a refused peer tries again every second.
type warner struct {
	log    *slog.Logger
	closed atomic.Bool // memberlist complains of its own closed sockets

	mu   sync.Mutex
	said map[string]time.Time // cause → when it was last logged
}

// The same cause is worth another line after repeatAfter; maxCauses bounds the
// memory that hostile names can take.
const (
	repeatAfter = time.Hour
	maxCauses   = 256
)

func newWarner(l *slog.Logger) *warner {
	return &warner{log: l, said: make(map[string]time.Time)}
}

func (w *warner) once(cause, msg string, args ...any) {
	if w.fresh(cause) {
		w.log.Warn(msg, args...)
	}
}

func (w *warner) fresh(cause string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if last, ok := w.said[cause]; ok && now.Sub(last) < repeatAfter {
		return false
	}
	if len(w.said) >= maxCauses {
		clear(w.said)
	}
	w.said[cause] = now
	return true
}

// forget makes the next once with this cause speak again.
func (w *warner) forget(cause string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.said, cause)
}

// memberlistLogger turns memberlist's lines into records. memberlist warns of
// what is its daily work (a peer that is slow, a refused alive message on each
// retry), so nothing of it is above Debug except errors, and of those each kind
// once an hour. What matters to operators is logged by this package itself.
func memberlistLogger(w *warner) *log.Logger {
	return log.New(&lineWriter{warn: w}, "", 0)
}

type lineWriter struct{ warn *warner }

func (l *lineWriter) Write(p []byte) (int, error) {
	line := strings.TrimSpace(string(p))
	level, text := "", line
	if strings.HasPrefix(line, "[") {
		if i := strings.IndexByte(line, ']'); i > 0 {
			level, text = line[1:i], strings.TrimSpace(line[i+1:])
		}
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	if level == "ERR" && !strings.HasPrefix(text, "Conflicting address") && !l.warn.closed.Load() {
		kind, _, _ := strings.Cut(text, ":")
		if l.warn.fresh("memberlist " + kind) {
			l.warn.log.Warn("gossip error", "err", text)
			return len(p), nil
		}
	}
	if l.warn.log.Enabled(context.Background(), slog.LevelDebug) {
		l.warn.log.Debug("gossip", "level", strings.ToLower(level), "text", text)
	}
	return len(p), nil
}
