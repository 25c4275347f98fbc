package fsm

// Code says how a command ended.
type Code uint8

// The codes. They are written to disk and sent to clients, which know them by
// the same numbers: never renumbered or reused.
const (
	OK             Code = 0
	Queued         Code = 1  // the acquire waits; an event will say how it ends
	Busy           Code = 2  // held, and the request did not want to wait
	TimedOut       Code = 3  // the wait limit passed
	NotHeld        Code = 4  // no such grant: released, expired, revoked or never given
	NoSession      Code = 5  // no such session: ended, expired or never opened
	KindMismatch   Code = 6  // the lock is in use as another kind, or with another limit
	OverLimit      Code = 7  // a limit of the table is reached
	Invalid        Code = 8  // an argument is out of range
	Cancelled      Code = 9  // the wait was cancelled
	StaleRequest   Code = 10 // the sequence was acknowledged already
	UnknownCommand Code = 11 // a kind that this version does not know
	Malformed      Code = 12 // bytes that are no command
	StaleStamp     Code = 13 // the entry was stamped in another term and changed nothing
	Revoked        Code = 14 // an operator ended the wait
	NotOwner       Code = 15 // it belongs to somebody else; or, with the field "caller", who asks or waits has no valid access token any more. See [As]
)

// Result is the one answer to a command.
type Result struct {
	Code Code
	// Field and Detail explain Invalid, OverLimit, KindMismatch and NotOwner to people:
	// which field, and what is allowed; and NotHeld of an acquire. Detail is a text of this version and the
	// only part of a result that may differ between nodes of different versions.
	Field, Detail string

	Token    uint64  // Acquire: of the grant, also of one that has ended
	Deadline Instant // cluster time. Acquire, Renew: of the grant, 0 if it has none of its own. OpenSession: of the session
	Queued   Instant // Acquire: cluster time at which its session and sequence were first applied
	Granted  Instant // Acquire: cluster time of the grant

	// Busy: who holds the locks of the request; none if they wait for somebody
	// before it, or are in their delay. ForceRelease: who was released. At most
	// MaxHoldersShown. Read only: what is in it is shared with the table.
	Holders []Holder
	Alive   []Alive  // KeepAlive: one for each session
	Cleared *Cleared // Clear
}

// Alive is the result of a keep-alive for one session.
type Alive struct {
	Deadline    Instant // cluster time; 0: there is no such session
	Revocations []Revocation
}

// Revocation tells a session that an operator ended one of its grants. The last
// MaxRevocations are kept until they are seen. A client that finds a gap before
// the first number it is told does not know which of its grants are gone, and
// must take all of them for lost.
type Revocation struct {
	Number      uint64 // counts from 1 within the session
	Token       uint64
	Reason, Who string
}

// Holder describes a grant on one lock.
type Holder struct {
	Lock     string
	Token    uint64
	Holder   string
	Session  SessionID // zero: detached
	Mode     Mode
	Permits  uint32
	Deadline Instant // cluster time: the earlier of the grant's own and its session's
	Since    int64   // wall clock, Unix milliseconds, for people only
	Value    []byte
	Labels   []Label
}

// MaxHoldersShown bounds the holders named in one result or view.
const MaxHoldersShown = 64

// MaxRevocations bounds the unseen revocations that are kept for a session.
const MaxRevocations = 64

// EventKind tells events apart.
type EventKind uint8

// The kinds of events.
const (
	EventSessionOpened EventKind = iota + 1
	EventSessionEnded
	EventQueued
	EventGranted
	EventReleased  // by its holder
	EventExpired   // by time, its own or its session's
	EventRevoked   // by an operator
	EventWaitEnded // a queued request ended without a grant; Code says why
	EventTryEnded  // a try of a queued request left it, and others wait on; Code says why
	EventResized   // of a semaphore, by an operator: Wants has its name, and its size as Limit
)

// Event is one thing that happened in an apply, in the order in which it happened.
type Event struct {
	Kind    EventKind
	Code    Code        // EventWaitEnded: TimedOut, Cancelled, NoSession, Revoked (by an operator), NotOwner (who waits is nobody any more) or KindMismatch (a semaphore shrank below what it asks for). EventTryEnded: Cancelled or NoSession. EventSessionEnded: OK (by its client), TimedOut (expired) or NotHeld (killed)
	Request RequestID   // of the acquire, where the event is about one; of a detached one with several tries: the first, or that which left
	Others  []RequestID // EventGranted, EventWaitEnded: the other tries that waited. EventTryEnded: those that wait on
	Session SessionID   // zero: detached
	Token   uint64
	Wants   []Want // shared with the table: read only
	Holder  string
	Result  Result // EventGranted: the answer to its request; Queued is of the latest try that waited. EventWaitEnded with KindMismatch and NotOwner: why, for people
	Owner   string // of the request, where the event is about one
	Waited  int64  // EventGranted, EventWaitEnded: nanoseconds of cluster time in the queue
	Held    int64  // EventReleased, EventExpired, EventRevoked: nanoseconds of cluster time held
	Number  uint64 // EventRevoked of a session: the revocation's number
	Reason  string // EventRevoked; EventSessionEnded and EventWaitEnded by an operator
	Who     string
}

// Applied is what one log entry did.
type Applied struct {
	Index, Term uint64
	Now         Instant // cluster time after the entry
	Refused     Code    // StaleStamp or Malformed: the entry as a whole changed nothing and Results is empty
	Results     []Result
	Events      []Event
	MoreDue     bool    // a mass expiry was cut: more is due now and waits for the next entry
	NextDue     Instant // when something is next due, at Now or before if MoreDue; 0: nothing has a deadline. Set by who applies the entry
	Digest      uint64  // of everything applied up to this entry: equal on all nodes
}
