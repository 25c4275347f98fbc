package history

import (
	"testing"
	"time"

	"github.com/locknode/locknode/fsm"
)

// TestWhatEndsHasACause: each history ends with one event, and each row has the promises that
// it breaks.
func TestWhatEndsHasACause(t *testing.T) {
	const second = time.Second
	id := fsm.SessionID{1}
	exclusively := []fsm.Want{{Lock: "x", Mode: exclusive}}
	counted := []fsm.Want{{Lock: "x", Mode: fsm.Permits, Permits: 2, Limit: 2}}
	opened := fsm.Event{Kind: fsm.EventSessionOpened, Session: id}
	event := func(kind fsm.EventKind, code fsm.Code, wants []fsm.Want) fsm.Event {
		e := fsm.Event{Kind: kind, Code: code, Session: id, Request: fsm.RequestID{Session: id, Sequence: 1}, Wants: wants}
		if kind != fsm.EventQueued && kind != fsm.EventWaitEnded {
			e.Token, e.Result = 1, fsm.Result{Token: 1, Queued: fsm.Instant(1 * second)}
		}
		return e
	}
	ended := func(code fsm.Code) fsm.Event {
		return fsm.Event{Kind: fsm.EventSessionEnded, Session: id, Code: code}
	}
	granted := event(fsm.EventGranted, fsm.OK, exclusively)
	queued := event(fsm.EventQueued, fsm.OK, exclusively)
	resized := func(size uint32) fsm.Event {
		return fsm.Event{Kind: fsm.EventResized, Wants: []fsm.Want{{Lock: "x", Mode: fsm.Permits, Limit: size}}}
	}
	waitEnds := func(code fsm.Code) fsm.Event { return event(fsm.EventWaitEnded, code, exclusively) }
	acquire := Op{Client: "a", Kind: Acquire, Request: textOf(queued.Request), Session: hexOf(id), Wants: []Want{Want(exclusively[0])}, Wait: 2 * second, Return: Never, Outcome: Unknown}
	force := Op{Client: "b", Kind: ForceRelease, Wants: acquire.Wants, Call: 3 * second, Return: Never, Outcome: Unknown}
	resize := Op{Client: "b", Kind: Resize, Wants: []Want{{Lock: "x", Mode: fsm.Permits, Limit: 3}}, Call: 3 * second, Return: Never, Outcome: Unknown}
	late := force
	late.Call = 9 * second
	for name, c := range map[string]struct {
		begun    fsm.Event
		ends     []fsm.Event // at 4 s
		ops      []Op
		alone    bool
		promises string
	}{
		"revoked by somebody who is not recorded": {granted, []fsm.Event{event(fsm.EventRevoked, 0, exclusively)}, nil, false, ""},
		"revoked by nobody":                       {granted, []fsm.Event{event(fsm.EventRevoked, 0, exclusively)}, []Op{acquire}, true, "S5"},
		"revoked by a client":                     {granted, []fsm.Event{event(fsm.EventRevoked, 0, exclusively)}, []Op{acquire, force}, true, ""},
		"revoked before it was asked for":         {granted, []fsm.Event{event(fsm.EventRevoked, 0, exclusively)}, []Op{acquire, late}, true, "S5"},
		"with a session that was killed":          {granted, []fsm.Event{ended(fsm.NotHeld), event(fsm.EventRevoked, 0, exclusively)}, nil, false, ""},
		"otherwise than its session":              {granted, []fsm.Event{ended(fsm.NotHeld), event(fsm.EventExpired, 0, exclusively)}, nil, false, "S5"},
		"a session without a reason":              {opened, []fsm.Event{ended(fsm.Busy)}, nil, false, "S5"},
		"a wait, in time":                         {queued, []fsm.Event{waitEnds(fsm.TimedOut)}, []Op{acquire}, true, ""},
		"a wait, with its session":                {queued, []fsm.Event{ended(fsm.NotHeld), waitEnds(fsm.NoSession)}, []Op{acquire}, false, ""},
		"a wait, with no session":                 {queued, []fsm.Event{waitEnds(fsm.NoSession)}, []Op{acquire}, false, "FIFO"},
		"a wait for permits, of a smaller number": {event(fsm.EventQueued, 0, counted), []fsm.Event{resized(1), event(fsm.EventWaitEnded, fsm.KindMismatch, counted)}, nil, false, ""},
		"a wait for permits, of the same number":  {event(fsm.EventQueued, 0, counted), []fsm.Event{resized(2), event(fsm.EventWaitEnded, fsm.KindMismatch, counted)}, nil, false, "FIFO"},
		"a wait for permits, by nobody":           {event(fsm.EventQueued, 0, counted), []fsm.Event{event(fsm.EventWaitEnded, fsm.KindMismatch, counted)}, nil, false, "FIFO"},
		"a size that a client asked for":          {event(fsm.EventQueued, 0, counted), []fsm.Event{resized(3)}, []Op{resize}, true, ""},
		"a size that nobody asked for":            {event(fsm.EventQueued, 0, counted), []fsm.Event{resized(4)}, []Op{resize}, true, "S6"},
		"a size twice":                            {event(fsm.EventQueued, 0, counted), []fsm.Event{resized(3), resized(3)}, []Op{resize}, true, "S6"},
		"a size that is too small for who waits":  {event(fsm.EventQueued, 0, counted), []fsm.Event{resized(1)}, nil, false, "FIFO"},
		"a size of what is no semaphore":          {queued, []fsm.Event{resized(1)}, []Op{acquire}, false, "S1"},
		"a wait for what is not counted":          {queued, []fsm.Event{waitEnds(fsm.KindMismatch)}, []Op{acquire}, true, "FIFO"},
		"a wait, cancelled by nobody":             {queued, []fsm.Event{waitEnds(fsm.Cancelled)}, []Op{acquire}, false, "FIFO"},
		"a wait, cancelled by a stranger":         {queued, []fsm.Event{waitEnds(fsm.Cancelled)}, nil, false, ""},
	} {
		first := []fsm.Event{opened, c.begun}
		if c.begun.Kind == fsm.EventSessionOpened {
			first = first[:1]
		}
		h := &History{Ops: c.ops, Entries: []Entry{
			{Node: "n1", At: 1 * second, Applied: fsm.Applied{Index: 1, Term: 1, Now: fsm.Instant(1 * second), Digest: 1, Events: first}},
			{Node: "n1", At: 4 * second, Applied: fsm.Applied{Index: 2, Term: 1, Now: fsm.Instant(4 * second), Digest: 2, Events: c.ends}},
		}}
		promises := ""
		r := h.Check(Options{Alone: c.alone})
		for _, v := range r.Violations {
			promises += v.Promise
		}
		if promises != c.promises {
			t.Errorf("%s: found %q, want %q: %v", name, promises, c.promises, r.Violations)
		}
	}
}

// TestOfTwoWaitsOfARequestTheShorterCounts, because it is not known which of them came to the
// table first.
func TestOfTwoWaitsOfARequestTheShorterCounts(t *testing.T) {
	for _, c := range [][3]time.Duration{{1, 2, 1}, {2, 1, 1}, {-1, 2, 2}, {2, -1, 2}, {-1, -1, -1}, {0, -1, 0}} {
		if got := shorter(c[0], c[1]); got != c[2] {
			t.Errorf("shorter(%d, %d) = %d, want %d", c[0], c[1], got, c[2])
		}
	}
}
