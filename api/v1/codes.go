package apiv1

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/locknode/locknode/internal/quote"
)

// Code says how an operation ended. [Error] carries it on the wire.
type Code uint32

// The codes. Those below 64 are the results of the lock table (package fsm has
// the same numbers), those from 64 on come from the nodes. They are written to
// disk and wire: never renumbered or reused.
const (
	CodeOK             Code = 0
	CodeQueued         Code = 1  // between nodes only: the acquire waits in the queue
	CodeBusy           Code = 2  // held by others, and the request does not wait
	CodeTimeout        Code = 3  // the wait limit passed; held by others
	CodeNotHeld        Code = 4  // no such grant: released, expired, revoked or never given
	CodeNoSession      Code = 5  // no such session: ended, expired or never opened
	CodeKindMismatch   Code = 6  // the lock is in use in another mode or with another size
	CodeLimit          Code = 7  // a limit of the lock table is reached
	CodeInvalid        Code = 8  // an argument is out of range; the message names it
	CodeCancelled      Code = 9  // the wait was cancelled
	CodeStaleRequest   Code = 10 // its sequence was acknowledged before, or its answer is forgotten
	CodeUnknownCommand Code = 11 // this version does not know the operation
	CodeMalformed      Code = 12 // bytes that are no operation
	CodeStaleStamp     Code = 13 // between nodes only: the leader proposes it again
	CodeRevoked        Code = 14 // an operator ended the wait; the message says who did it, and why

	CodeNotLeader       Code = 64 // the operation asked for a redirect; Error.Leader is the leader's address
	CodeUnavailable     Code = 65 // no leader, or the node is stopping or not reachable; a wait in a session of the client goes on
	CodeOverloaded      Code = 66 // a queue is full; nothing was done
	CodeUnknownOutcome  Code = 67 // it may have been done: retry it only under the same request ID
	CodeDenied          Code = 68 // the caller has no right to do it
	CodeNoMember        Code = 69 // no such member of the cluster
	CodeInternal        Code = 70 // a bug of the node; see its log
	CodeTooLarge        Code = 71 // the request exceeds a size limit
	CodeNotReady        Code = 72 // the node has not caught up yet
	CodeUnauthenticated Code = 73 // the caller has not proved who it is: nothing was shown, or what is not valid
)

// Exit codes of the locknode program, after sysexits.h.
const (
	exitOK          = 0
	exitOther       = 1
	exitUsage       = 64
	exitUnavailable = 69
	exitNotAcquired = 75
	exitDenied      = 77
)

// Retry says whether a request that ended with a code may be sent again, and how.
type Retry uint8

// The kinds of retry.
const (
	// RetryNone: the answer is final. The same request gets the same answer, or another
	// one because something else has changed.
	RetryNone Retry = iota
	// RetryChanged: nothing was done, and the request fails each time until it or
	// the cluster is changed.
	RetryChanged
	// RetryAnew: it was not run this time, but an earlier copy of it may have been: send
	// another request, with the next sequence or in another session.
	RetryAnew
	// RetryLater: nothing was done; the same node accepts it in a moment.
	RetryLater
	// RetryElsewhere: this node did not do it: send it to another one, or later to this
	// one. An earlier copy of it may have been run.
	RetryElsewhere
	// RetrySameID: it may have been done: send it only under the same request ID.
	RetrySameID
)

var retryNames = [...]string{"no", "changed", "anew", "later", "elsewhere", "same ID"}

// String returns the name in docs/api.md.
func (r Retry) String() string {
	if int(r) < len(retryNames) {
		return retryNames[r]
	}
	return fmt.Sprintf("retry_%d", uint8(r))
}

// codeRow has the properties of a code.
type codeRow struct {
	name  string
	grpc  codes.Code
	http  int
	exit  int
	retry Retry
}

// codeTable is the one place where a code gets its name, its gRPC code, its HTTP status, its
// exit code and its kind of retry. The status of CodeTimeout is not 408, because HTTP clients
// retry such a request by themselves.
var codeTable = [...]codeRow{
	CodeOK:             {"ok", codes.OK, http.StatusOK, exitOK, RetryNone},
	CodeQueued:         {"queued", codes.Internal, http.StatusInternalServerError, exitOther, RetryNone},
	CodeBusy:           {"busy", codes.FailedPrecondition, http.StatusConflict, exitNotAcquired, RetryNone},
	CodeTimeout:        {"timeout", codes.DeadlineExceeded, http.StatusConflict, exitNotAcquired, RetryNone},
	CodeNotHeld:        {"not_held", codes.NotFound, http.StatusNotFound, exitOther, RetryNone},
	CodeNoSession:      {"no_session", codes.NotFound, http.StatusNotFound, exitOther, RetryAnew},
	CodeKindMismatch:   {"kind_mismatch", codes.FailedPrecondition, http.StatusConflict, exitOther, RetryNone},
	CodeLimit:          {"limit", codes.ResourceExhausted, http.StatusTooManyRequests, exitOther, RetryNone},
	CodeInvalid:        {"invalid", codes.InvalidArgument, http.StatusBadRequest, exitUsage, RetryChanged},
	CodeCancelled:      {"cancelled", codes.Canceled, http.StatusConflict, exitOther, RetryNone},
	CodeStaleRequest:   {"stale_request", codes.Aborted, http.StatusConflict, exitOther, RetryAnew},
	CodeUnknownCommand: {"unknown_command", codes.Unimplemented, http.StatusBadRequest, exitOther, RetryChanged},
	CodeMalformed:      {"malformed", codes.InvalidArgument, http.StatusBadRequest, exitOther, RetryChanged},
	CodeRevoked:        {"revoked", codes.Aborted, http.StatusConflict, exitOther, RetryNone},
	CodeStaleStamp:     {"stale_stamp", codes.Internal, http.StatusInternalServerError, exitOther, RetryLater},

	CodeNotLeader:       {"not_leader", codes.Unavailable, http.StatusServiceUnavailable, exitUnavailable, RetryElsewhere},
	CodeUnavailable:     {"unavailable", codes.Unavailable, http.StatusServiceUnavailable, exitUnavailable, RetryElsewhere},
	CodeOverloaded:      {"overloaded", codes.ResourceExhausted, http.StatusTooManyRequests, exitUnavailable, RetryLater},
	CodeUnknownOutcome:  {"unknown_outcome", codes.Unknown, http.StatusServiceUnavailable, exitUnavailable, RetrySameID},
	CodeDenied:          {"denied", codes.PermissionDenied, http.StatusForbidden, exitDenied, RetryChanged},
	CodeNoMember:        {"no_member", codes.NotFound, http.StatusNotFound, exitOther, RetryNone},
	CodeInternal:        {"internal", codes.Internal, http.StatusInternalServerError, exitOther, RetryNone},
	CodeTooLarge:        {"too_large", codes.ResourceExhausted, http.StatusRequestEntityTooLarge, exitOther, RetryChanged},
	CodeNotReady:        {"not_ready", codes.Unavailable, http.StatusServiceUnavailable, exitUnavailable, RetryElsewhere},
	CodeUnauthenticated: {"unauthenticated", codes.Unauthenticated, http.StatusUnauthorized, exitDenied, RetryChanged},
}

// unknownCode is the row of a code that this version does not know.
var unknownCode codeRow

// row returns the properties of c; ok is false for a code that this version does not know.
func (c Code) row() (row *codeRow, ok bool) {
	if int(c) >= len(codeTable) || codeTable[c].name == "" {
		return &unknownCode, false
	}
	return &codeTable[c], true
}

// String returns the code's name as HTTP answers and logs show it.
func (c Code) String() string {
	if row, ok := c.row(); ok {
		return row.name
	}
	return fmt.Sprintf("code_%d", uint32(c))
}

// GRPC returns the code of the gRPC status that carries c; [codes.Unknown] for
// a code that this version does not know.
func (c Code) GRPC() codes.Code {
	if row, ok := c.row(); ok {
		return row.grpc
	}
	return codes.Unknown
}

// HTTPStatus returns the status of the HTTP answer that carries c; 500 for a
// code that this version does not know.
func (c Code) HTTPStatus() int {
	if row, ok := c.row(); ok {
		return row.http
	}
	return http.StatusInternalServerError
}

// ExitCode returns what the locknode program exits with after c; 1 for a code
// that this version does not know.
func (c Code) ExitCode() int {
	if row, ok := c.row(); ok {
		return row.exit
	}
	return exitOther
}

// Retry returns whether a request that ended with c may be sent again, and how; [RetryNone]
// for a code that this version does not know.
func (c Code) Retry() Retry {
	row, _ := c.row()
	return row.retry
}

// Passes reports whether the reason of c passes by itself: the same request, under the
// same request ID, may be sent again unchanged.
func (c Code) Passes() bool { return c.Retry() >= RetryLater }

// NewError returns an error with a message for people.
func NewError(code Code, format string, args ...any) *Error {
	return &Error{Code: uint32(code), Message: fmt.Sprintf(format, args...)}
}

// Error returns the code's name and the message, in one line. What cannot be printed in the
// message is escaped, because others may have written it.
func (e *Error) Error() string {
	if e.GetMessage() == "" {
		return Code(e.GetCode()).String()
	}
	return Code(e.GetCode()).String() + ": " + quote.Text(e.GetMessage())
}

// GRPCStatus makes e a gRPC error: a handler may return it as it is, and the
// client gets it with [AsError].
func (e *Error) GRPCStatus() *status.Status {
	s := status.New(Code(e.GetCode()).GRPC(), e.GetMessage())
	if s.Code() == codes.OK {
		return s
	}
	if with, err := s.WithDetails(e); err == nil {
		return with
	}
	return s
}

// AsError returns the *Error that err is, wraps or carries as a gRPC detail. One
// with [CodeOK] is ignored: an error is never a success. For an err without one it returns
// an *Error with the nearest code for a gRPC status, [CodeUnknownOutcome] for the
// end of a context, and otherwise [CodeInternal]. It returns nil for nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	var own *Error
	if errors.As(err, &own) && own != nil {
		if Code(own.GetCode()) == CodeOK {
			return NewError(CodeInternal, "%s", own.GetMessage())
		}
		return own
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return NewError(CodeUnknownOutcome, "%v", err)
	}
	s, ok := status.FromError(err)
	if !ok {
		return NewError(CodeInternal, "%v", err)
	}
	for _, detail := range s.Details() {
		if e, ok := detail.(*Error); ok && Code(e.GetCode()) != CodeOK {
			return e
		}
	}
	return NewError(codeOfStatus(s.Code()), "%s", s.Message())
}

// codeOfStatus maps a status without an *Error: one that grpc itself has made.
func codeOfStatus(c codes.Code) Code {
	switch c {
	case codes.OK:
		return CodeOK
	case codes.Unavailable:
		return CodeUnavailable
	case codes.Canceled, codes.DeadlineExceeded, codes.Unknown, codes.Aborted:
		return CodeUnknownOutcome
	case codes.ResourceExhausted:
		return CodeTooLarge
	case codes.InvalidArgument, codes.OutOfRange:
		return CodeInvalid
	case codes.PermissionDenied:
		return CodeDenied
	case codes.Unauthenticated:
		return CodeUnauthenticated
	case codes.Unimplemented:
		return CodeUnknownCommand
	default:
		return CodeInternal
	}
}

// CodeOf returns the code of err as [AsError] finds it, [CodeOK] for nil.
func CodeOf(err error) Code { return Code(AsError(err).GetCode()) }
