package cluster

import (
	"context"
	"log"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// warner logs each cause once an hour: a refused peer tries again every second.
type warner struct {
	log    *slog.Logger
	closed atomic.Bool // from then on errors are those of closed sockets

	mu    sync.Mutex
	said  map[string]time.Time // cause → when it was last logged
	kinds map[string]*spoken   // kind of cause → how many causes were logged in this hour
}

// spoken counts what was logged since a time.
type spoken struct {
	since time.Time
	lines int
}

// The same cause is logged again after repeatAfter. maxCauses bounds the memory that
// made-up names can take. Causes of one kind differ only in what others can make up, so
// only maxOfKind of them are logged in that time.
const (
	repeatAfter = time.Hour
	maxCauses   = 256
	maxOfKind   = 16
)

func newWarner(l *slog.Logger) *warner {
	return &warner{log: l, said: make(map[string]time.Time), kinds: make(map[string]*spoken)}
}

// some is once for causes of which others can make up any number, by names and addresses:
// these must not fill the log.
func (w *warner) some(kind, cause, msg string, args ...any) {
	w.mu.Lock()
	now := time.Now()
	k := w.kinds[kind]
	if k == nil || now.Sub(k.since) >= repeatAfter {
		k = &spoken{since: now}
		w.kinds[kind] = k
	}
	last, known := w.said[kind+" "+cause]
	again := known && now.Sub(last) < repeatAfter
	if !again {
		k.lines++
	}
	lines := k.lines
	w.mu.Unlock()
	switch {
	case again || lines > maxOfKind:
	case lines == maxOfKind:
		w.once(kind+" "+cause, msg, append(args, "note", "no more of this kind are logged for an hour")...)
	default:
		w.once(kind+" "+cause, msg, args...)
	}
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

// refused logs a refused connection. Causes that an operator can remove are logged
// separately; all others count as one, so that made-up ones do not fill the log.
func (w *warner) refused(from string, why error) {
	cause := "message"
	if slices.Contains(lasting, why) {
		cause = why.Error()
	}
	w.once("refused "+cause, "gossip refused", "from", from, "err", why)
}

// forget lets the next once with this cause log again.
func (w *warner) forget(cause string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.said, cause)
}

// memberlistLogger turns memberlist's lines into records. memberlist warns of normal
// events (a slow peer, a refused alive message on each retry), so all but its errors are
// logged at Debug, and each kind of error once an hour. What matters to operators is logged
// by this package itself.
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
	if label, of := otherLabel(text); of != "" {
		l.warn.some("label", label, "gossip refused: the other end has another cluster_name", "from", of, "its_cluster_name", label)
		return len(p), nil
	}
	if level == "ERR" && !l.warn.closed.Load() && l.foreign(text) {
		return len(p), nil
	}
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

// foreign logs errors of memberlist in the words of this package where it has some, and
// drops those that follow from a connection that this node has closed. It reports whether
// the line was dealt with.
func (l *lineWriter) foreign(text string) bool {
	if strings.Contains(text, errTold.Error()) || strings.Contains(text, net.ErrClosed.Error()) {
		return true
	}
	why := translate(text)
	if why != nil {
		_, from, _ := strings.Cut(text, " from=")
		l.warn.refused(from, why)
	}
	return why != nil
}

// otherLabel parses memberlist's line about a packet or a stream with another label than
// this node's.
func otherLabel(text string) (label, from string) {
	_, rest, found := strings.Cut(text, " with unacceptable label ")
	if !found {
		return "", ""
	}
	quoted, from, _ := strings.Cut(rest, ": ")
	label, err := strconv.Unquote(quoted)
	if err != nil {
		label = quoted
	}
	return label, strings.TrimPrefix(from, "from=")
}
