package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/quote"
)

// What a caller can act on. Errors of this package wrap one of these; compare
// with [errors.Is]. What others have written, a reason or the words of a node, stands in the
// text of an error with what cannot be printed escaped, so that it can be logged as it is.
// The fields of an error have it raw.
var (
	// ErrBusy: the lock is held by another. A [*BusyError] names the holders.
	ErrBusy = errors.New("held by another")
	// ErrTimeout: the wait was over before the lock was free. The place in line
	// is given up. It is a [context.DeadlineExceeded] too. A [*TimeoutError] names
	// the holders.
	ErrTimeout error = timeout{}
	// ErrLost: the lock is no longer held. A [*LostError] says why.
	ErrLost = errors.New("lock lost")
	// ErrNotHeld: there is no such grant: it was released, lost or never given.
	// Nothing was changed. Every ErrLost is an ErrNotHeld too.
	ErrNotHeld = errors.New("not held")
	// ErrReentry: the context of the call belongs to a grant of the same lock,
	// so the wait would never end.
	ErrReentry = errors.New("already held by the caller")
	// ErrKind: the lock is in use in another mode.
	ErrKind = errors.New("lock is of another kind")
	// ErrLimit: a limit of the cluster is reached.
	ErrLimit = errors.New("limit reached")
	// ErrInvalid: an argument is out of range; the message names it.
	ErrInvalid = errors.New("invalid argument")
	// ErrDenied: the caller has no right to do this.
	ErrDenied = errors.New("denied")
	// ErrSession: the client's session has ended before the operation was answered;
	// where that leaves in doubt whether it was done, the message says so.
	ErrSession = errors.New("session ended")
	// ErrUnavailable: no node could be reached, or none knew a leader. An
	// [*UnavailableError] says what was tried.
	ErrUnavailable = errors.New("cluster is unavailable")
	// ErrOverloaded: the cluster refuses work for now; nothing was done.
	ErrOverloaded = errors.New("cluster is overloaded")
	// ErrClosed: the client was closed, or the node that it belongs to has ended.
	ErrClosed = errors.New("client is closed")
)

// timeout is the type of ErrTimeout.
type timeout struct{}

func (timeout) Error() string { return "wait timed out" }

// Timeout is for those who ask for a net.Error.
func (timeout) Timeout() bool { return true }

// Is makes it the end of a context, too.
func (timeout) Is(target error) bool { return target == context.DeadlineExceeded }

// BusyError says who holds the lock that [Client.TryLock] did not get.
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

// Unwrap makes a BusyError an ErrBusy.
func (e *BusyError) Unwrap() []error {
	return []error{ErrBusy, apiv1.NewError(apiv1.CodeBusy, "%s", e.Error())}
}

// TimeoutError says who holds the lock that was waited for in vain.
type TimeoutError struct {
	Lock string // its name
	// Holders are those at the end of the wait, at most 64. There are none if the
	// client ended the wait by itself, because its context was over before the
	// cluster could say so.
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

// Unwrap makes a TimeoutError an ErrTimeout and what ended the wait.
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
	// LostForced: somebody with the right to do so released it, or may have: of many
	// forced releases while the client was cut off the cluster tells only the last 64,
	// and the client then takes everything for lost that it held.
	LostForced
	// LostClosed: the client was closed while it held the lock, or its node has ended.
	LostClosed
)

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
	}
	return fmt.Sprintf("reason %d", int(r))
}

// LostError is the loss of a grant.
type LostError struct {
	Lock   string     // its name
	Token  uint64     // of the grant; 0 if that is not known
	Reason LostReason // never zero
	Who    string     // LostForced: who did it: an address, and in brackets what was said there
	Why    string     // more about it; LostForced: the reason given
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

// Unwrap makes a LostError an ErrLost and an ErrNotHeld.
func (e *LostError) Unwrap() []error {
	return []error{ErrLost, ErrNotHeld, apiv1.NewError(apiv1.CodeNotHeld, "%s", e.Error())}
}

// UnavailableError says what was tried before an operation was given up.
type UnavailableError struct {
	Op        string   // what was attempted: `lock "a"`
	Endpoints []string // empty: an embedded node
	Last      error    // the last thing that went wrong, nil if unknown
	Cause     error    // why it was given up: the end of the context, or nil for ConnectTimeout
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

// Unwrap makes an UnavailableError an ErrUnavailable and what ended the call.
func (e *UnavailableError) Unwrap() []error {
	errs := []error{ErrUnavailable, apiv1.NewError(apiv1.CodeUnavailable, "%s", e.Error())}
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}

// opError is an operation that ended without what was asked.
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

// kinds maps what the cluster answers to the sentinels.
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
}

// newError makes an error of this package from one that the cluster sent.
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

// what is the thing attempted and its object: the beginning of every error.
type what struct{ verb, object string }

func (w what) String() string {
	if w.object == "" {
		return w.verb
	}
	return fmt.Sprintf("%s %q", w.verb, w.object)
}
