package fsm

// SessionID names a session. The client chooses it at random; the zero value
// means "no session".
type SessionID [16]byte

// OnceID names a detached acquire through all its tries. The zero value means
// "none".
type OnceID [16]byte

// RequestID makes a command take effect once however often it is sent. Session
// and Sequence are set, or nothing: then the command is not remembered, and is no
// acquire.
//
// The first answer is remembered until it is acknowledged. An ID that comes again
// is answered with it and changes nothing; an acquire that still waits gets
// [Queued]. What an answer says beyond that is true now: [Busy] names the holders
// of now; a detached acquire is told the deadline of now, or [NotHeld] once its
// grant has ended. A session's own grant that has ended is answered with its token
// and times all the same. An ID that comes again with another command is
// [Invalid]; only Acked and Answered may differ.
//
// A session remembers at least the last Limits.RequestsWindow answers. Older ones
// count as acknowledged: a copy that comes later is a [StaleRequest].
//
// A session ends with its window: from then on every ID in it gets [NoSession],
// and it cannot be opened again while that is remembered; see [OpenSession].
//
// Once is the caller's own ID of a detached acquire, beside session and sequence.
// Each sequence in which the acquire is sent under it is a try; see [Acquire].
type RequestID struct {
	Session  SessionID
	Sequence uint64  // counts from 1 within the session
	Acked    uint64  // the client has the answers of all sequences up to this one
	Answered [2]Span // and of these, above Acked; unused ones are zero
	Once     OnceID
}

// Span is the sequences from First to Last, both included.
type Span struct{ First, Last uint64 }

// Mode is how a grant shares its lock.
type Mode uint8

// The modes. They are written to disk: never renumbered or reused.
const (
	Exclusive Mode = 1 // alone
	Shared    Mode = 2 // with other shared grants
	Permits   Mode = 3 // some of a semaphore's permits
)

// Want is one lock of a request.
type Want struct {
	Lock    string
	Mode    Mode
	Permits uint32 // Permits only, at least 1
	Limit   uint32 // Permits only: the semaphore's size
}

// Label is a fact about a session or grant, for people. Labels are kept in the
// order in which they were given.
type Label struct {
	Key, Value string
}

// Kind tells commands apart in the log.
type Kind uint8

// The kinds. They are written to disk: never renumbered or reused.
const (
	KindOpenSession  Kind = 1
	KindKeepAlive    Kind = 2
	KindEndSession   Kind = 3
	KindKillSession  Kind = 4
	KindAcquire      Kind = 5
	KindCancel       Kind = 6
	KindRelease      Kind = 7
	KindRenew        Kind = 8
	KindSetValue     Kind = 9
	KindForceRelease Kind = 10
	KindResize       Kind = 11
	KindConfigure    Kind = 12
	KindFound        Kind = 13
	_                Kind = 14 // was Recover, of which no entry was ever written
	KindClear        Kind = 15
	KindRaiseLevel   Kind = 16

	// Of level 2; see rights.go.
	KindPutAccessToken    Kind = 17
	KindRevokeAccessToken Kind = 18
	KindChangePolicies    Kind = 19
	KindAs                Kind = 20
	KindConfigureRights   Kind = 21 // a [Configure] with limits that came with them
)

// Command is one of the command types of this file and of rights.go.
type Command interface {
	kind() Kind
	encode(*encoder) // the payload after the kind; codec_commands.go
}

// OpenSession starts a session, or answers as [KeepAlive] does if it is open:
// the session then keeps its first TTL, holder and labels.
//
// A session ends once. For Limits.OnceNanos after its end OpenSession of its ID
// answers [NoSession] and changes nothing: it is a late copy, and so may be the
// requests that follow. No session of another ID is opened beyond Limits.Sessions, nor
// while these and those that are remembered are Limits.EndedRemembered; nor beyond its
// owner's share of either: [OverLimit].
type OpenSession struct {
	Session SessionID
	TTL     int64 // nanoseconds
	Holder  string
	Labels  []Label
	// Owner is whose share of the limits the session and its requests take, and, if it is an
	// identity, whose they are (see As): the caller's identity, the address
	// that it was opened from, or the node. The node writes it, not the client.
	Owner string
}

// KeepAlive moves the deadlines of many sessions to now + TTL. Its result
// carries one [Alive] for each, in the same order.
type KeepAlive struct {
	Sessions []KeepAliveSession
}

// KeepAliveSession is one session of a [KeepAlive].
type KeepAliveSession struct {
	Session         SessionID
	RevocationsSeen uint64 // revocations up to this number are forgotten
}

// EndSession releases all grants of a session and leaves all queues.
type EndSession struct {
	Session SessionID
	// Undelivered are sequences of detached acquires whose answer nobody got: what
	// they were granted is released, as [Cancel] does it.
	Undelivered []uint64
}

// KillSession is EndSession by an operator.
type KillSession struct {
	Session     SessionID
	Reason, Who string
}

// Acquire asks for all of its locks or none of them, in a session. Its grant is
// the session's and ends with it, unless Detached is set.
//
// The grant of a detached acquire belongs to any caller that knows its token and lasts for its
// TTL, which is required. While it waits, the acquire is a part of its session, and so is
// the grant that comes out of a wait, until a [Renew] in that session confirms it or
// another try is answered with it: a waiter that is gone must not hold a lock for a whole TTL.
// It has a limited Wait, up to Limits.MaxWait.
//
// Under a once ID a detached acquire is remembered while it waits, while its grant
// is held and for Limits.OnceNanos after that. Another try, in any session, must ask
// for the same locks, TTL, Delay and Value, or is [Invalid]. If the request waits,
// a try that waits joins it, at most 16 in all: the request is queued while one
// of its tries does, and up to the latest of their wait limits; a try that does not
// wait is [Busy]. If the grant is held, the answer is the grant; if it has ended,
// [NotHeld] with its token. Refusals are not remembered: the next try runs as new.
type Acquire struct {
	ID       RequestID
	Wants    []Want
	TTL      int64  // own deadline after the grant; 0: as long as the session
	Wait     int64  // 0: try once; > 0: at most this long; -1: until cancelled (not if detached)
	Holder   string // of a detached grant; others have the session's
	Value    []byte
	Labels   []Label
	Delay    int64 // after a loss by time the locks stay free of holders this long
	Detached bool
	Owner    string // of a detached one; see [OpenSession]. Copies and tries may differ in it
}

// Cancel ends the wait of the Acquire with the session and sequence of Target, or
// releases its grant if that came first. [NotHeld] says that there is neither any
// more, or that the grant is detached and another try waited for it or was told of
// it, too: then it is not ended. A Target that was never seen answers OK and is
// [Cancelled] when it comes. A try that is cancelled while other tries of its
// request wait leaves them queued. A cancelled request's once ID is forgotten.
type Cancel struct {
	ID     RequestID
	Target RequestID // only Session and Sequence are looked at and kept
}

// Release gives a grant back. [NotHeld] if there is no grant with the token, if
// it is not on Lock, or if it belongs to a session and the ID is of none or of
// another. A detached grant is released by any ID. The same holds for [Renew] and
// [SetValue].
type Release struct {
	ID    RequestID
	Lock  string // optional: must be a lock of the grant
	Token uint64
	Lost  bool // the holder has lost it by its own clock: it ends as if by time
}

// Renew moves the own deadline of a grant to now + TTL, never back. A grant that
// lives as long as its session has none and gets none.
type Renew struct {
	ID    RequestID
	Lock  string // optional: must be a lock of the grant
	Token uint64
	TTL   int64
}

// SetValue replaces the value of a grant.
type SetValue struct {
	ID    RequestID
	Lock  string // optional: must be a lock of the grant
	Token uint64
	Value []byte
}

// ForceRelease ends grants on a lock against their holders' will. A grant over
// several locks ends on all of them. [NotHeld] if there is none.
type ForceRelease struct {
	ID          RequestID
	Lock        string
	Token       uint64 // 0: all grants on the lock
	Reason, Who string
}

// Resize changes the size of a semaphore, by an operator, for as long as it is in use.
// [NotHeld] if the lock is not in use, [KindMismatch] if it is in use and not as a
// semaphore. Growing grants waiting requests at once. Shrinking takes nothing away from
// holders: nothing is granted until they have released enough for the new size; waiting
// requests for more permits than that end with [KindMismatch]. New requests must name the
// new size.
type Resize struct {
	ID    RequestID
	Lock  string
	Limit uint32
}

// Clear ends all grants on a lock and all requests that wait for it, by an operator: at
// most some hundred at a time, which [Cleared] tells. Waits end with [Revoked]. [NotHeld]
// if there are none.
//
// With an Owner instead of a Lock it ends what is the owner's and of no session: detached
// grants, and detached requests that wait. Cleared then says where to go on.
type Clear struct {
	Lock        string
	Owner       string
	After       uint64 // with Owner: what Cleared said, to go on
	UpTo        uint64 // 0: all that there are now; what Cleared said, to go on
	Reason, Who string
}

// Configure replaces the limits.
type Configure struct {
	Limits Limits
}

// Found gives the cluster its ID, and its nodes a key that they alone know. It changes
// nothing if there is one.
type Found struct {
	Cluster [16]byte
	Key     [16]byte
}

func (OpenSession) kind() Kind  { return KindOpenSession }
func (KeepAlive) kind() Kind    { return KindKeepAlive }
func (EndSession) kind() Kind   { return KindEndSession }
func (KillSession) kind() Kind  { return KindKillSession }
func (Acquire) kind() Kind      { return KindAcquire }
func (Cancel) kind() Kind       { return KindCancel }
func (Release) kind() Kind      { return KindRelease }
func (Renew) kind() Kind        { return KindRenew }
func (SetValue) kind() Kind     { return KindSetValue }
func (ForceRelease) kind() Kind { return KindForceRelease }
func (Resize) kind() Kind       { return KindResize }
func (Found) kind() Kind        { return KindFound }
func (Clear) kind() Kind        { return KindClear }

// kind is the first one where that says it all, because a payload is never extended.
func (c Configure) kind() Kind {
	for i := firstLimits; i < len(limitTable); i++ {
		if v := limitTable[i].get(&c.Limits); v != 0 && v != limitTable[i].def {
			return KindConfigureRights
		}
	}
	return KindConfigure
}
