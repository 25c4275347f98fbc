package fsm

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// How scripts show what happened.

func codeName(c Code) string {
	names := [...]string{
		"ok", "queued", "busy", "timed out", "not held", "no session", "kind mismatch", "over limit", "invalid", "cancelled",
		"stale request", "unknown command", "malformed", "stale stamp", "revoked", "not owner",
	}
	return names[c]
}

func seconds[T int64 | Instant](at T) string { return time.Duration(at).String() }

// line collects the parts of a text that say something.
type line struct{ strings.Builder }

func (l *line) add(some bool, format string, args ...any) {
	if some {
		fmt.Fprintf(l, " "+format, args...)
	}
}

func resultText(r Result) string {
	var l line
	l.WriteString(codeName(r.Code))
	l.add(r.Field != "", "%s: %s", r.Field, r.Detail)
	l.add(r.Token != 0, "token=%d", r.Token)
	l.add(r.Deadline != 0, "deadline=%s", seconds(r.Deadline))
	l.add(r.Queued != r.Granted, "queued=%s", seconds(r.Queued))
	l.add(r.Granted != 0, "granted=%s", seconds(r.Granted))
	for _, h := range r.Holders {
		l.add(true, "[%s]", holderText(h))
	}
	for _, a := range r.Alive {
		l.add(a.Deadline == 0, "gone")
		l.add(a.Deadline != 0, "until=%s", seconds(a.Deadline))
		for _, v := range a.Revocations {
			l.add(true, "(revocation %d: token %d, %s, by %s)", v.Number, v.Token, v.Reason, v.Who)
		}
	}
	return l.String()
}

func holderText(h Holder) string {
	var l line
	fmt.Fprintf(&l, "%s token=%d", h.Lock, h.Token)
	l.add(h.Holder != "", "holder=%s", h.Holder)
	l.add(h.Session != SessionID{}, "session=%s", sessionName(h.Session))
	l.add(h.Mode == Shared, "shared")
	l.add(h.Mode == Permits, "permits=%d", h.Permits)
	l.add(true, "until=%s", seconds(h.Deadline))
	l.add(len(h.Value) > 0, "value=%s", h.Value)
	for _, label := range h.Labels {
		l.add(true, "%s:%s", label.Key, label.Value)
	}
	return l.String()
}

func sessionName(id SessionID) string { return string(bytes.TrimRight(id[:], "\x00")) }

func idText(id RequestID) string {
	text := fmt.Sprintf("%s/%d", sessionName(id.Session), id.Sequence)
	if id.Once != (OnceID{}) {
		text += "(" + string(bytes.TrimRight(id.Once[:], "\x00")) + ")"
	}
	return text
}

func eventText(e Event) string {
	names := map[EventKind]string{
		EventSessionOpened: "session opened", EventSessionEnded: "session ended", EventQueued: "queued", EventGranted: "granted",
		EventReleased: "released", EventExpired: "expired", EventRevoked: "revoked", EventWaitEnded: "wait ended", EventTryEnded: "try ended",
		EventResized: "resized",
	}
	var l line
	l.WriteString(names[e.Kind])
	if e.Kind == EventSessionOpened || e.Kind == EventSessionEnded {
		l.add(true, "%s", sessionName(e.Session))
	} else if e.Kind != EventResized {
		l.add(true, "%s", idText(e.Request))
		for _, other := range e.Others {
			l.add(true, "+ %s", idText(other))
		}
		l.add(e.Session == SessionID{}, "detached")
	}
	l.add(e.Holder != "", "holder=%s", e.Holder)
	l.add(e.Token != 0, "token=%d", e.Token)
	for _, w := range e.Wants {
		l.add(w.Mode == Exclusive, "%s", w.Lock)
		l.add(w.Mode == Shared, "%s:shared", w.Lock)
		l.add(w.Mode == Permits, "%s:%d/%d", w.Lock, w.Permits, w.Limit)
	}
	l.add(e.Kind == EventSessionEnded || e.Kind == EventWaitEnded || e.Kind == EventTryEnded, "(%s)", codeName(e.Code))
	l.add(e.Kind == EventGranted && e.Result.Deadline != 0, "until=%s", seconds(e.Result.Deadline))
	l.add(e.Waited != 0, "waited=%s", seconds(e.Waited))
	l.add(e.Held != 0, "held=%s", seconds(e.Held))
	l.add(e.Number != 0, "number=%d", e.Number)
	l.add(e.Reason != "" || e.Who != "", "because %s, by %s", e.Reason, e.Who)
	return l.String()
}

func (s *script) show(v LockView) {
	var l line
	l.WriteString(v.Name)
	l.add(v.HolderCount == 0, "free")
	for _, h := range v.Holders {
		l.add(true, "[%s]", holderText(h))
	}
	l.add(v.HolderCount > len(v.Holders), "and %d more", v.HolderCount-len(v.Holders))
	l.add(v.Waiters > 0, "waiters=%d", v.Waiters)
	l.add(v.Limit > 0, "limit=%d", v.Limit)
	l.add(v.DelayUntil != 0, "delayed until %s", seconds(v.DelayUntil))
	s.printf("%s", l.String())
}

func (s *script) list(a args) {
	limit := int(s.number(a.pairs["limit"]))
	if limit == 0 {
		limit = 100
	}
	locks, more := s.table.List(a.pairs["prefix"], a.pairs["after"], limit)
	for _, v := range locks {
		s.show(v)
	}
	if more {
		s.printf("more")
	}
}

func (s *script) session(name string) {
	v, ok := s.table.Session(scriptSession(name))
	if !ok {
		s.printf("no session %s", name)
		return
	}
	var l line
	l.WriteString(name)
	l.add(v.Holder != "", "holder=%s", v.Holder)
	l.add(true, "until=%s tokens=%v waiters=%d answers=%d acked=%d", seconds(v.Deadline), v.Tokens, v.Waiters, v.Answers, v.Acked)
	l.add(len(v.Revocations) > 0, "revocations=%d", len(v.Revocations))
	s.printf("%s", l.String())
}
