package history

import (
	"math"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// Kind says what an operation requests.
type Kind string

// The kinds.
const (
	Acquire      Kind = "acquire" // Wait 0: a try
	Cancel       Kind = "cancel"
	Release      Kind = "release"
	Renew        Kind = "renew" // of a detached grant
	ForceRelease Kind = "force-release"
	Resize       Kind = "resize" // of a semaphore
	Get          Kind = "get"
	Open         Kind = "open"       // a session
	KeepAlive    Kind = "keep-alive" // of a session
	End          Kind = "end"        // of a session
)

// Outcome says how an operation ended.
type Outcome string

// The outcomes.
const (
	OK       Outcome = "ok"        // done; an acquire: granted
	Busy     Outcome = "busy"      // a try: Holders held it
	TimedOut Outcome = "timed-out" // the wait was over
	NotHeld  Outcome = "not-held"  // there was no such grant, nothing changed
	NoSess   Outcome = "no-session"
	Invalid  Outcome = "invalid" // an argument is out of range, or another one than before under the same ID
	Refused  Outcome = "refused" // for another reason, nothing changed
	Unknown  Outcome = "unknown" // no answer: it may take effect at any time, or never
)

// Never is the Return of an operation that was not answered.
const Never = time.Duration(math.MaxInt64)

// Op is one operation of one client, however often it was sent.
type Op struct {
	Client  string `json:"client"`
	Kind    Kind   `json:"kind"`
	Request string `json:"request,omitempty"` // once/ID, or session/sequence; empty: a node has given it those
	Try     string `json:"try,omitempty"`     // session/sequence of one that has a once ID, too
	Session string `json:"session,omitempty"` // hex: that sent it, and that an acquire's grant belongs to; empty: none
	Wants   []Want `json:"wants,omitempty"`   // the locks; all or none. Resize: the semaphore, its new size as Limit
	Target  string `json:"target,omitempty"`  // Cancel: session/sequence of the acquire

	TTL  time.Duration `json:"ttl,omitempty"`  // Acquire, Renew: of the grant itself, 0: the session's. Open: of the session
	Wait time.Duration `json:"wait,omitempty"` // Acquire: 0 tries, negative waits without limit

	Delay time.Duration `json:"delay,omitempty"` // Acquire: for how long the locks stay free after a loss by time

	Detached bool   `json:"detached,omitempty"` // Acquire: the grant belongs to any caller that knows its token
	Holder   string `json:"holder,omitempty"`   // Acquire, detached: the holder, for people
	Value    string `json:"value,omitempty"`    // Acquire: what is stored with the grant
	// Lost says that a Release is of a grant that its holder has lost by its own clock:
	// it ends as if by time.
	Lost bool `json:"lost,omitempty"`
	// Undelivered are the sequences of acquires that an End releases.
	Undelivered []uint64 `json:"undelivered,omitempty"`

	Call   time.Duration `json:"call"`   // before the first send
	Return time.Duration `json:"return"` // after the answer; Never without one

	Outcome Outcome       `json:"outcome"`
	Token   uint64        `json:"token,omitempty"`   // granted; or that of the grant to be released, renewed
	Holders []uint64      `json:"holders,omitempty"` // tokens, at most 64. Busy and Get: of the holders. ForceRelease: of the grants that were released
	Stale   time.Duration `json:"stale,omitempty"`   // Get: the age that was allowed; 0: linearizable
	Index   uint64        `json:"index,omitempty"`   // log index that the answer names
	Stamp   fsm.Instant   `json:"stamp,omitempty"`   // cluster time that the answer names
	Came    fsm.Instant   `json:"came,omitempty"`    // Acquire: cluster time at which its session and sequence came to the table
	Until   fsm.Instant   `json:"until,omitempty"`   // Acquire, Renew: cluster time that the answer names as the grant's end; 0: none
	Bare    bool          `json:"bare,omitempty"`    // the answer is from a call without an index
	Code    apiv1.Code    `json:"code,omitempty"`    // of the error that it was answered with
	Error   string        `json:"error,omitempty"`   // for people

	// Left is when its caller was gone without an answer, where that is known: its
	// connection had ended. 0: it is not.
	Left time.Duration `json:"left,omitempty"`

	// Before is how much earlier than Call the client may have begun to count
	// the TTL: it had no connection yet. Never: that is not known.
	Before time.Duration `json:"before,omitempty"`
}

// Want is one lock of an operation.
type Want struct {
	Lock    string   `json:"lock"`
	Mode    fsm.Mode `json:"mode"`
	Permits uint32   `json:"permits,omitempty"`
	Limit   uint32   `json:"limit,omitempty"`
}

// Belief is a time in which a client took a grant to be valid, as its library showed it to
// the program: from when the acquire was about to return until the unlock began or the loss
// was reported.
type Belief struct {
	Client string        `json:"client"`
	Wants  []Want        `json:"wants"`
	Token  uint64        `json:"token"`
	From   time.Duration `json:"from"`
	Until  time.Duration `json:"until"`          // Never: still valid at the end
	Lost   string        `json:"lost,omitempty"` // why it was lost: see the words below; empty: unlocked
	// Told is the latest time at which the program noticed the loss, where that is later than
	// Until because it checks only now and then. 0: at Until.
	Told time.Duration `json:"told,omitempty"`
}

// Why a belief ended with a loss.
const (
	LostDeadline = "deadline" // no keep-alive was answered in time
	LostExpired  = "expired"  // its own TTL is over, or its session was gone
	LostForced   = "forced"   // an operator released it
	LostClosed   = "closed"   // the client was closed
)

// Entry is one log entry as one node applied it.
type Entry struct {
	Node    string        `json:"node"`
	At      time.Duration `json:"at"`
	Applied fsm.Applied   `json:"applied"`
}

// Fault is a fault that was caused in the cluster, for the report.
type Fault struct {
	At    time.Duration `json:"at"`
	Until time.Duration `json:"until,omitempty"` // 0: it took no time
	What  string        `json:"what"`
}

// History is what happened to one cluster.
type History struct {
	Ops     []Op     `json:"ops"`
	Beliefs []Belief `json:"beliefs"`
	// Entries is the log as the nodes applied it; nil if no node could be
	// watched. The same index may appear once for each run of each node.
	Entries []Entry `json:"entries,omitempty"`
	Faults  []Fault `json:"faults,omitempty"`
	// Dropped counts the records for which there was no room. A history with gaps proves
	// nothing, and its check reports that.
	Dropped int `json:"dropped,omitempty"`
}

// Violation is a promise that was broken.
type Violation struct {
	Promise string `json:"promise"` // "S1" to "S9", "FIFO", "delay", "recovery"; "none" if nothing could be shown
	Check   string `json:"check"`   // which check found it: "record" or one of the checks that the package lists
	Lock    string `json:"lock,omitempty"`
	Text    string `json:"text"`
}

// Options of a check.
type Options struct {
	// RateError bounds how far monotonic clocks run from real time; default 0.005.
	RateError float64
	// PorcupineTimeout bounds the search for each lock; default 10 s. A search
	// that does not end is a violation, because it has shown nothing.
	PorcupineTimeout time.Duration
	// Late is how much later the end of a belief may be noticed: 0 in virtual time, and
	// otherwise the delay of a timer on a busy machine.
	Late time.Duration
	// Alone says that only the recorded clients have used the cluster, and that its table
	// remembers requests as by default. Without it the checks accept what the log shows of
	// revocations, of ends that no recorded client requested, and of requests without a
	// session that are repeated after their end.
	Alone bool
	// Revoked reports whether a holder, whom an access token made known, had none left at an
	// index of the log: what waits for it ends when its turn has come. Nil: nobody has.
	Revoked func(index uint64, holder string) bool
	// Gone is for how long, in cluster time, a request without a session may wait after its
	// caller is gone; default a minute. The node has to notice that, which takes as long as
	// the two are cut off from each other, and keeps the place for some seconds for a retry.
	// Or the node is gone itself, and its session has to end.
	Gone time.Duration
	// Watched says that nodes were recorded from their first entry on: without any entry
	// the history proves nothing.
	Watched bool
	// Working says that clients were at work: without an answer about a lock the history
	// proves nothing.
	Working bool
}

// Report is the judgement of a history.
type Report struct {
	Violations []Violation `json:"violations"`
	Stats      Stats       `json:"stats"`
}

// Stats say how much was judged.
type Stats struct {
	Ops, Unknown, Grants, Beliefs, Locks, Entries int
	// Resolved are unknown outcomes that the log decided.
	Resolved int
	// Searched is the time that Porcupine took, Longest that of the slowest lock.
	Searched, Longest time.Duration
}

// OK reports whether no promise was broken.
func (r Report) OK() bool { return len(r.Violations) == 0 }
