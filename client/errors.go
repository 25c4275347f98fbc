package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/quote"
)

// The errors that a caller can act on. Errors of this package wrap one of these, or the end
// of a context; compare with [errors.Is]. In the text of an error everything is escaped that
// cannot be printed, so that it can be logged: it may hold what others have written, such as
// a reason or the message of a node. The fields of an error hold it unchanged.
var (
	// ErrBusy: another holds the lock. A [*BusyError] names the holders.
	ErrBusy = errors.New("held by another")
	// ErrTimeout: the wait was over before the lock was free. The place in the queue
	// is given up. It also is a [context.DeadlineExceeded]. A [*TimeoutError] names
	// the holders.
	ErrTimeout error = timeout{}
	// ErrLost: the lock is no longer held: stop the work that it protects. A [*LostError]
	// says why.
	ErrLost = errors.New("lock lost")
	// ErrNotHeld: there is no such grant: it was released, lost or never given.
	// Nothing was changed. Every ErrLost also is an ErrNotHeld.
	ErrNotHeld = errors.New("not held")
	// ErrReentry: the context of the call belongs to a grant of the same lock,
	// so the wait would never end.
	ErrReentry = errors.New("already held by the caller")
	// ErrKind: the lock is in use in another mode, or is a semaphore of another size. Nothing
	// was changed.
	ErrKind = errors.New("lock is of another kind")
	// ErrLimit: a limit of the cluster is reached; the message names it. Nothing was changed.
	ErrLimit = errors.New("limit reached")
	// ErrInvalid: an argument is out of range; the message names it.
	ErrInvalid = errors.New("invalid argument")
	// ErrDenied: the caller has no right to do this. Nothing was changed.
	ErrDenied = errors.New("denied")
	// ErrUnauthenticated: the cluster does not know who calls: the access token is wrong, was
	// revoked or has ended, or there is none. The last try of the operation changed nothing. See
	// [Token].
	ErrUnauthenticated = errors.New("not authenticated")
	// ErrSession: the client's session ended before the operation was answered; the
	// message says so if the outcome is unknown. Of [Client.KillSession]: there is no such
	// session.
	ErrSession = errors.New("session ended")
	// ErrUnavailable: no node could be reached, or none knew a leader. An
	// [*UnavailableError] says what was tried.
	ErrUnavailable = errors.New("cluster is unavailable")
	// ErrOverloaded: the cluster has too much to do; nothing was done. Try again later.
	ErrOverloaded = errors.New("cluster is overloaded")
	// ErrClosed: the client was closed, or the node that it belongs to has ended.
	ErrClosed = errors.New("client is closed")
)

// timeout is the type of ErrTimeout.
type timeout struct{}

func (timeout) Error() string { return "wait timed out" }

// Timeout makes it a net.Error whose time was over.
func (timeout) Timeout() bool { return true }

// Is makes it a context.DeadlineExceeded as well.
func (timeout) Is(target error) bool { return target == context.DeadlineExceeded }

// BusyError names the holders of the lock that [Client.TryLock] did not get.
type BusyError struct {
	Lock    string       // its name
	Holders []HolderInfo // at the time of the try; at most 64
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("lock %q: %s", e.Lock, heldByText(e.Holders))
}

// heldByText names some holders, for people.
func heldByText(holders []HolderInfo) string {
	return quote.HeldBy(len(holders), func(i int) (string, uint64) { return holders[i].Holder, holders[i].Token })
}

// Unwrap returns ErrBusy, and the error of the protocol.
func (e *BusyError) Unwrap() []error {
	return []error{ErrBusy, apiv1.NewError(apiv1.CodeBusy, "%s", e.Error())}
}

// TimeoutError names the holders of a lock that was not granted before the wait was over.
type TimeoutError struct {
	Lock string // its name
	// Holders are those at the end of the wait, at most 64. It is empty if the
	// caller's context ended before the cluster had answered.
	Holders []HolderInfo
	Cause   error // the end of the caller's context; nil: [Wait] was over
}

func (e *TimeoutError) Error() string {
	text := fmt.Sprintf("lock %q: wait timed out", e.Lock)
	if len(e.Holders) > 0 {
		text += ": " + heldByText(e.Holders)
	}
	return text
}

// Unwrap returns ErrTimeout, the error of the protocol, and Cause.
func (e *TimeoutError) Unwrap() []error {
	errs := []error{ErrTimeout, apiv1.NewError(apiv1.CodeTimeout, "%s", e.Error())}
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}

// LostReason says why a lock was lost.
type LostReason int

// The reasons.
const (
	// LostDeadline: no keep-alive was answered in time, so that the cluster may
	// have given the lock away. The client gives it back as lost as soon as it can.
	LostDeadline LostReason = iota + 1
	// LostExpired: the grant's own TTL is over, or the cluster has ended it or
	// its session by time.
	LostExpired
	// LostForced: an operator released it, or may have: the cluster reports only the last
	// 64 force-releases to a client that was cut off, and if there were more, all that it
	// held is lost.
	LostForced
	// LostClosed: the client was closed while it held the lock, or its node has ended.
	LostClosed
	// LostRefused: keep-alives were answered, but refused: the access token was revoked or has
	// ended, or the session belongs to another caller, until the cluster may have given the
	// lock away. The error is an [ErrUnauthenticated] or [ErrDenied] as well, and Why is
	// what the node said.
	LostRefused
)

// String returns the reason as errors show it.
func (r LostReason) String() string {
	switch r {
	case LostDeadline:
		return "no keep-alive was answered in time"
	case LostExpired:
		return "expired"
	case LostForced:
		return "released by force"
	case LostClosed:
		return "client closed"
	case LostRefused:
		return "keep-alives were refused"
	}
	return fmt.Sprintf("reason %d", int(r))
}

// LostError is the loss of a grant.
type LostError struct {
	Lock   string     // its name
	Token  uint64     // of the grant; 0 if that is not known
	Reason LostReason // never zero
	Who    string     // LostForced: the address of the operator, and in brackets the holder name of its client
	Why    string     // more about the reason; LostForced: the reason that the operator gave

	refused error // LostRefused: ErrUnauthenticated or ErrDenied
}

func (e *LostError) Error() string {
	text := fmt.Sprintf("lock %q (token %d) lost: %s", e.Lock, e.Token, e.Reason)
	if e.Who != "" {
		text += " by " + e.Who
	}
	if e.Why != "" {
		text += ": " + e.Why
	}
	return quote.Text(text)
}

// Unwrap returns ErrLost, ErrNotHeld, and the error of the protocol.
func (e *LostError) Unwrap() []error {
	errs := []error{ErrLost, ErrNotHeld, apiv1.NewError(apiv1.CodeNotHeld, "%s", e.Error())}
	if e.refused != nil {
		errs = append(errs, e.refused)
	}
	return errs
}

// UnavailableError says what was tried before an operation failed with ErrUnavailable.
type UnavailableError struct {
	Op        string   // what was attempted: `lock "a"`
	Endpoints []string // empty: an embedded node
	Last      error    // the last error; nil: not known
	Cause     error    // the end of the context; nil: the [ConnectTimeout] was over
}

func (e *UnavailableError) Error() string {
	text := e.Op + ": cluster is unavailable"
	if len(e.Endpoints) > 0 {
		text += " (tried " + strings.Join(e.Endpoints, ", ") + ")"
	}
	if e.Last != nil {
		text += ": " + e.Last.Error()
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return quote.Text(text)
}

// Unwrap returns ErrUnavailable, the error of the protocol, and Cause.
func (e *UnavailableError) Unwrap() []error {
	errs := []error{ErrUnavailable, apiv1.NewError(apiv1.CodeUnavailable, "%s", e.Error())}
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}

// opError is the error of an operation.
type opError struct {
	op    string // what was attempted: `lock "a"`
	kind  error  // the sentinel, nil if there is none
	text  string // says more than kind
	api   *apiv1.Error
	cause error
}

func (e *opError) Error() string { return quote.Text(e.words()) }

func (e *opError) words() string {
	switch {
	case e.text != "":
		return e.op + ": " + e.text
	case e.cause != nil:
		return e.op + ": " + e.cause.Error()
	case e.kind != nil:
		return e.op + ": " + e.kind.Error()
	}
	return e.op + ": " + e.api.Error()
}

func (e *opError) Unwrap() []error {
	errs := make([]error, 0, 3)
	if e.kind != nil {
		errs = append(errs, e.kind)
	}
	if e.api != nil {
		errs = append(errs, e.api)
	}
	if e.cause != nil {
		errs = append(errs, e.cause)
	}
	return errs
}

// kinds maps the codes of answers to the sentinels.
var kinds = map[apiv1.Code]error{
	apiv1.CodeNotHeld:      ErrNotHeld,
	apiv1.CodeNoSession:    ErrSession,
	apiv1.CodeKindMismatch: ErrKind,
	apiv1.CodeLimit:        ErrLimit,
	apiv1.CodeInvalid:      ErrInvalid,
	apiv1.CodeTooLarge:     ErrInvalid,
	apiv1.CodeCancelled:    context.Canceled,
	apiv1.CodeDenied:       ErrDenied,
	apiv1.CodeNotLeader:    ErrUnavailable,
	apiv1.CodeUnavailable:  ErrUnavailable,
	apiv1.CodeNotReady:     ErrUnavailable,
	apiv1.CodeOverloaded:   ErrOverloaded,

	apiv1.CodeUnauthenticated: ErrUnauthenticated,
}

// newError returns the error of this package for an error that the cluster sent.
func newError(w what, e *apiv1.Error) error {
	code := apiv1.Code(e.GetCode())
	switch code {
	case apiv1.CodeBusy:
		return &BusyError{Lock: w.object, Holders: holders(e.GetHolders())}
	case apiv1.CodeTimeout:
		return &TimeoutError{Lock: w.object, Holders: holders(e.GetHolders())}
	}
	kind := kinds[code]
	text := e.GetMessage()
	switch {
	case text == "" && kind == nil:
		text = code.String()
	case kind == nil:
		text = code.String() + ": " + text
	case text != "" && !strings.Contains(text, kind.Error()):
		text = kind.Error() + ": " + text
	}
	return &opError{op: w.String(), kind: kind, text: text, api: e}
}

func invalid(w what, format string, args ...any) error {
	text := "invalid argument: " + fmt.Sprintf(format, args...)
	return &opError{op: w.String(), kind: ErrInvalid, text: text, api: apiv1.NewError(apiv1.CodeInvalid, "%s", text)}
}

// what is what was attempted, and its object: every error begins with it.
type what struct{ verb, object string }

func (w what) String() string {
	if w.object == "" {
		return w.verb
	}
	return fmt.Sprintf("%s %q", w.verb, w.object)
}
