package history

import (
	"strings"
	"testing"
	"time"

	"github.com/locknode/locknode/fsm"
)

// onceLog makes a log of events, one entry a second from index 2 on, after the
// opening of a node's session.
type onceLog struct{ entries []Entry }

var (
	hostSession = fsm.SessionID{9}
	onceTested  = fsm.OnceID{7}
)

func tryNumber(n uint64) fsm.RequestID {
	return fsm.RequestID{Session: hostSession, Sequence: n, Once: onceTested}
}

func newOnceLog() *onceLog {
	l := &onceLog{}
	return l.at(1, fsm.Event{Kind: fsm.EventSessionOpened, Session: hostSession})
}

func (l *onceLog) at(index uint64, events ...fsm.Event) *onceLog {
	l.entries = append(l.entries, Entry{Node: "n1", At: time.Duration(index) * time.Second, Applied: fsm.Applied{
		Index: index, Term: 1, Now: fsm.Instant(index) * 1e9, Digest: index, Events: events,
	}})
	return l
}

func exclusively() []fsm.Want { return []fsm.Want{{Lock: "x", Mode: exclusive}} }

func (l *onceLog) granted(index, token uint64, id fsm.RequestID) *onceLog {
	now := fsm.Instant(index) * 1e9
	return l.at(index, fsm.Event{
		Kind: fsm.EventGranted, Request: id, Token: token, Wants: exclusively(),
		Result: fsm.Result{Token: token, Queued: now, Granted: now, Deadline: now + 60e9},
	})
}

func (l *onceLog) ended(index, token uint64, kind fsm.EventKind) *onceLog {
	return l.at(index, fsm.Event{Kind: kind, Request: tryNumber(1), Token: token, Wants: exclusively()})
}

// asked is one try, answered from an index or gone.
func asked(outcome Outcome, token, index uint64) Op {
	at := time.Duration(index) * time.Second
	o := Op{
		Client: "a", Kind: Acquire, Detached: true, Request: textOf(tryNumber(0)), Wants: []Want{{Lock: "x", Mode: exclusive}}, TTL: time.Minute,
		Call: at - time.Millisecond, Return: at + time.Millisecond, Outcome: outcome, Token: token, Index: index, Stamp: fsm.Instant(index) * 1e9,
	}
	if outcome == OK {
		o.Came, o.Until = o.Stamp, 62e9
	}
	return o
}

// A once ID is remembered for as long as its grant lasts, and for five minutes of cluster time
// after that, unless the grant was delivered to no caller.
func TestAnIDIsGrantedOnceWhileItIsRemembered(t *testing.T) {
	queued := fsm.Event{Kind: fsm.EventQueued, Request: tryNumber(1), Wants: exclusively()}
	waitOver := fsm.Event{Kind: fsm.EventWaitEnded, Code: fsm.TimedOut, Request: tryNumber(1), Wants: exclusively()}
	gone := asked(Unknown, 0, 2)
	gone.Return, gone.Left, gone.Index, gone.Stamp = Never, 3*time.Second, 0, 0
	for name, c := range map[string]struct {
		log   *onceLog
		ops   []Op
		alone bool
		twice bool
	}{
		"once":                                 {newOnceLog().granted(2, 1, tryNumber(1)), nil, true, false},
		"twice":                                {newOnceLog().granted(2, 1, tryNumber(1)).granted(3, 2, tryNumber(2)), nil, false, true},
		"again, and it may be configured":      {newOnceLog().granted(2, 1, tryNumber(1)).ended(3, 1, fsm.EventRevoked).granted(4, 2, tryNumber(2)), nil, false, false},
		"again, after it had ended":            {newOnceLog().granted(2, 1, tryNumber(1)).ended(3, 1, fsm.EventRevoked).granted(4, 2, tryNumber(2)), nil, true, true},
		"again, after a wait had ended":        {newOnceLog().at(2, queued).at(3, waitOver).granted(4, 1, tryNumber(2)), nil, true, false},
		"again, just before it is forgotten":   {newOnceLog().granted(2, 1, tryNumber(1)).ended(3, 1, fsm.EventRevoked).granted(302, 2, tryNumber(2)), nil, true, true},
		"again, after it is forgotten":         {newOnceLog().granted(2, 1, tryNumber(1)).ended(3, 1, fsm.EventRevoked).granted(303, 2, tryNumber(2)), nil, true, false},
		"again, the first was not delivered":   {newOnceLog().granted(2, 1, tryNumber(1)).ended(3, 1, fsm.EventReleased).granted(4, 2, tryNumber(2)), []Op{gone}, true, false},
		"again, somebody has released the one": {newOnceLog().granted(2, 1, tryNumber(1)).ended(3, 1, fsm.EventReleased).granted(4, 2, tryNumber(2)), []Op{asked(OK, 1, 2), released(1)}, true, true},
	} {
		if got := finds(c.log, c.ops, c.alone, "S6", "took effect again"); got != c.twice {
			t.Errorf("%s: found is %v, want %v", name, got, c.twice)
		}
	}
}

func released(token uint64) Op {
	return Op{Client: "b", Kind: Release, Token: token, Call: 2500 * time.Millisecond, Return: 3001 * time.Millisecond, Outcome: OK, Index: 3, Stamp: 3e9}
}

func finds(l *onceLog, ops []Op, alone bool, promise, text string) bool {
	for _, v := range (&History{Ops: ops, Entries: l.entries}).Check(Options{Alone: alone}).Violations {
		if v.Promise == promise && strings.Contains(v.Text, text) {
			return true
		}
	}
	return false
}

// The answer to a try has to be true in the entry that it is from.
func TestTheAnswerToATryIsTrue(t *testing.T) {
	log := func() *onceLog {
		return newOnceLog().granted(2, 1, tryNumber(1)).at(5).ended(10, 1, fsm.EventRevoked).at(12)
	}
	told := func(change func(*Op)) []Op {
		o := asked(OK, 1, 5)
		change(&o)
		force := Op{Client: "b", Kind: ForceRelease, Wants: o.Wants, Call: 6 * time.Second, Return: 10001 * time.Millisecond, Outcome: OK, Holders: []uint64{1}, Index: 10, Stamp: 10e9}
		return []Op{asked(OK, 1, 2), o, force}
	}
	for name, c := range map[string]struct {
		ops     []Op
		promise string // "": it is correct
	}{
		"that it is held":                  {told(func(*Op) {}), ""},
		"that it came long ago":            {told(func(o *Op) { o.Came = 2e9 }), "S3"},
		"that it is held for longer":       {told(func(o *Op) { o.Until = 66e9 }), "S3"},
		"that it is held after its end":    {told(func(o *Op) { *o = asked(OK, 1, 12) }), "S6"},
		"that it has ended after its end":  {told(func(o *Op) { *o = asked(NotHeld, 0, 12) }), ""},
		"that it has ended before its end": {told(func(o *Op) { *o = asked(NotHeld, 0, 5) }), "S3"},
		"that somebody holds the lock":     {told(func(o *Op) { *o = asked(Busy, 0, 5); o.Holders = []uint64{1} }), "S6"},
		"that it asks for something else":  {told(func(o *Op) { *o = asked(Invalid, 0, 5) }), "S6"},
		"that it asks for what it does":    {told(func(o *Op) { *o = asked(Invalid, 0, 5); o.TTL = time.Hour }), ""},
		"of a grant with another TTL":      {told(func(o *Op) { o.Wants = []Want{{Lock: "y", Mode: exclusive}} }), "S6"},
	} {
		r := (&History{Ops: c.ops, Entries: log().entries}).Check(Options{Alone: true})
		found := ""
		for _, v := range r.Violations {
			found += v.Promise
		}
		if c.promise == "" && found != "" || !strings.Contains(found, c.promise) {
			t.Errorf("%s: found %q, want %q: %v", name, found, c.promise, r.Violations)
		}
	}
}

// A node cancels a grant that it cannot deliver; a grant that was delivered is not taken away.
func TestADeliveredGrantIsNotTakenAway(t *testing.T) {
	log := newOnceLog().granted(2, 1, tryNumber(1)).at(3).ended(4, 1, fsm.EventReleased)
	gone := asked(Unknown, 0, 2)
	gone.Return, gone.Left, gone.Index, gone.Stamp = Never, 3*time.Second, 0, 0
	own := asked(OK, 1, 2)
	own.Try = tryOf(hexOf(hostSession), 1)
	cancel := Op{Client: "a", Kind: Cancel, Target: own.Try, Call: 2500 * time.Millisecond, Return: 4001 * time.Millisecond, Outcome: OK, Index: 4, Stamp: 4e9}
	for name, c := range map[string]struct {
		ops   []Op
		taken bool
	}{
		"none was answered":                       {[]Op{gone}, false},
		"one was answered":                        {[]Op{asked(OK, 1, 2)}, true},
		"one was answered, another one was gone":  {[]Op{gone, asked(OK, 1, 3)}, true},
		"one was answered and cancelled it":       {[]Op{own, cancel}, false},
		"one was answered, another one cancelled": {[]Op{own, cancel, asked(OK, 1, 3)}, true},
	} {
		if got := finds(log, c.ops, true, "S5", "was released, and no client had requested it"); got != c.taken {
			t.Errorf("%s: found is %v, want %v", name, got, c.taken)
		}
	}
}
