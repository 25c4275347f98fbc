package apiv1

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Code says how an operation ended. [Error] carries it on the wire.
type Code uint32

// The codes. Those below 64 are the results of the lock table (package fsm has
// the same numbers), those from 64 on come from the nodes. They are written to
// disk and wire: never renumbered or reused.
const (
	CodeOK             Code = 0
	CodeQueued         Code = 1  // between nodes only: the acquire waits in line
	CodeBusy           Code = 2  // held by others, and the request did not want to wait
	CodeTimeout        Code = 3  // the wait limit passed; held by others
	CodeNotHeld        Code = 4  // no such grant: released, expired, revoked or never given
	CodeNoSession      Code = 5  // no such session: ended, expired or never opened
	CodeKindMismatch   Code = 6  // the lock is in use in another mode or with another size
	CodeLimit          Code = 7  // a limit of the lock table is reached
	CodeInvalid        Code = 8  // an argument is out of range; the message names it
	CodeCancelled      Code = 9  // the wait was cancelled
	CodeStaleRequest   Code = 10 // the client said that it has the answer already
	CodeUnknownCommand Code = 11 // this version does not know the operation
	CodeMalformed      Code = 12 // bytes that are no operation
	CodeStaleStamp     Code = 13 // between nodes only: proposed again by the leader

	CodeNotLeader      Code = 64 // redirect was asked for; Error.Leader says where to go
	CodeUnavailable    Code = 65 // no leader, or the node is stopping or out of reach; a wait in a session of the client's own goes on
	CodeOverloaded     Code = 66 // a queue is full; nothing was done
	CodeUnknownOutcome Code = 67 // it may have been done: only the same request ID may be retried
	CodeDenied         Code = 68 // the caller has no right to do it
	CodeNoMember       Code = 69 // no such member of the cluster
	CodeInternal       Code = 70 // a defect of the node; its log says more
	CodeTooLarge       Code = 71 // the request exceeds a size limit
	CodeNotReady       Code = 72 // the node has not caught up yet
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

// codeTable is the one place where a code gets its name, its gRPC code, its
// HTTP status and its exit code. A wait that is over is no 408: programs send such a
// request again by themselves.
var codeTable = map[Code]struct {
	name string
	grpc codes.Code
	http int
	exit int
}{
	CodeOK:             {"ok", codes.OK, http.StatusOK, exitOK},
	CodeQueued:         {"queued", codes.Internal, http.StatusInternalServerError, exitOther},
	CodeBusy:           {"busy", codes.FailedPrecondition, http.StatusConflict, exitNotAcquired},
	CodeTimeout:        {"timeout", codes.DeadlineExceeded, http.StatusConflict, exitNotAcquired},
	CodeNotHeld:        {"not_held", codes.NotFound, http.StatusNotFound, exitOther},
	CodeNoSession:      {"no_session", codes.NotFound, http.StatusNotFound, exitOther},
	CodeKindMismatch:   {"kind_mismatch", codes.FailedPrecondition, http.StatusConflict, exitOther},
	CodeLimit:          {"limit", codes.ResourceExhausted, http.StatusTooManyRequests, exitOther},
	CodeInvalid:        {"invalid", codes.InvalidArgument, http.StatusBadRequest, exitUsage},
	CodeCancelled:      {"cancelled", codes.Canceled, http.StatusConflict, exitOther},
	CodeStaleRequest:   {"stale_request", codes.Aborted, http.StatusConflict, exitOther},
	CodeUnknownCommand: {"unknown_command", codes.Unimplemented, http.StatusBadRequest, exitOther},
	CodeMalformed:      {"malformed", codes.InvalidArgument, http.StatusBadRequest, exitOther},
	CodeStaleStamp:     {"stale_stamp", codes.Internal, http.StatusInternalServerError, exitOther},

	CodeNotLeader:      {"not_leader", codes.Unavailable, http.StatusServiceUnavailable, exitUnavailable},
	CodeUnavailable:    {"unavailable", codes.Unavailable, http.StatusServiceUnavailable, exitUnavailable},
	CodeOverloaded:     {"overloaded", codes.ResourceExhausted, http.StatusTooManyRequests, exitUnavailable},
	CodeUnknownOutcome: {"unknown_outcome", codes.Unknown, http.StatusServiceUnavailable, exitUnavailable},
	CodeDenied:         {"denied", codes.PermissionDenied, http.StatusForbidden, exitDenied},
	CodeNoMember:       {"no_member", codes.NotFound, http.StatusNotFound, exitOther},
	CodeInternal:       {"internal", codes.Internal, http.StatusInternalServerError, exitOther},
	CodeTooLarge:       {"too_large", codes.ResourceExhausted, http.StatusRequestEntityTooLarge, exitOther},
	CodeNotReady:       {"not_ready", codes.Unavailable, http.StatusServiceUnavailable, exitUnavailable},
}

// String returns the code's name as HTTP answers and logs show it.
func (c Code) String() string {
	if row, ok := codeTable[c]; ok {
		return row.name
	}
	return fmt.Sprintf("code_%d", uint32(c))
}

// GRPC returns the code of the gRPC status that carries c; [codes.Unknown] for
// a code that this version does not know.
func (c Code) GRPC() codes.Code {
	if row, ok := codeTable[c]; ok {
		return row.grpc
	}
	return codes.Unknown
}

// HTTPStatus returns the status of the HTTP answer that carries c; 500 for a
// code that this version does not know.
func (c Code) HTTPStatus() int {
	if row, ok := codeTable[c]; ok {
		return row.http
	}
	return http.StatusInternalServerError
}

// ExitCode returns what the locknode program exits with after c; 1 for a code
// that this version does not know.
func (c Code) ExitCode() int {
	if row, ok := codeTable[c]; ok {
		return row.exit
	}
	return exitOther
}

// NewError returns an error with a message for people.
func NewError(code Code, format string, args ...any) *Error {
	return &Error{Code: uint32(code), Message: fmt.Sprintf(format, args...)}
}

// Error returns the code's name and the message.
func (e *Error) Error() string {
	if e.GetMessage() == "" {
		return Code(e.GetCode()).String()
	}
	return Code(e.GetCode()).String() + ": " + e.GetMessage()
}

// GRPCStatus makes e a gRPC error: a handler may return it as it is, and the
// client finds it again with [AsError].
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
// that says [CodeOK] does not count: an error is never a success. An err without
// one is given the code that says the most: the nearest one for a
// gRPC status, [CodeUnknownOutcome] for the end of a context, and otherwise
// [CodeInternal]. It returns nil for nil.
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

// codeOfStatus maps a status that no Locknode node has made: grpc itself
// answers with these.
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
	case codes.PermissionDenied, codes.Unauthenticated:
		return CodeDenied
	case codes.Unimplemented:
		return CodeUnknownCommand
	default:
		return CodeInternal
	}
}

// CodeOf returns the code of err as [AsError] finds it, [CodeOK] for nil.
func CodeOf(err error) Code { return Code(AsError(err).GetCode()) }
