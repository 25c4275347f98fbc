package apiv1_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// row has the published properties of a code: a change of one breaks scripts.
type row struct {
	code   apiv1.Code
	number uint32
	name   string
	grpc   codes.Code
	http   int
	exit   int
	retry  apiv1.Retry
}

var published = []row{
	{apiv1.CodeOK, 0, "ok", codes.OK, 200, 0, apiv1.RetryNone},
	{apiv1.CodeQueued, 1, "queued", codes.Internal, 500, 1, apiv1.RetryNone},
	{apiv1.CodeBusy, 2, "busy", codes.FailedPrecondition, 409, 75, apiv1.RetryNone},
	{apiv1.CodeTimeout, 3, "timeout", codes.DeadlineExceeded, 409, 75, apiv1.RetryNone},
	{apiv1.CodeNotHeld, 4, "not_held", codes.NotFound, 404, 1, apiv1.RetryNone},
	{apiv1.CodeNoSession, 5, "no_session", codes.NotFound, 404, 1, apiv1.RetryAnew},
	{apiv1.CodeKindMismatch, 6, "kind_mismatch", codes.FailedPrecondition, 409, 1, apiv1.RetryNone},
	{apiv1.CodeLimit, 7, "limit", codes.ResourceExhausted, 429, 1, apiv1.RetryNone},
	{apiv1.CodeInvalid, 8, "invalid", codes.InvalidArgument, 400, 64, apiv1.RetryChanged},
	{apiv1.CodeCancelled, 9, "cancelled", codes.Canceled, 409, 1, apiv1.RetryNone},
	{apiv1.CodeStaleRequest, 10, "stale_request", codes.Aborted, 409, 1, apiv1.RetryAnew},
	{apiv1.CodeUnknownCommand, 11, "unknown_command", codes.Unimplemented, 400, 1, apiv1.RetryChanged},
	{apiv1.CodeMalformed, 12, "malformed", codes.InvalidArgument, 400, 1, apiv1.RetryChanged},
	{apiv1.CodeStaleStamp, 13, "stale_stamp", codes.Internal, 500, 1, apiv1.RetryLater},
	{apiv1.CodeRevoked, 14, "revoked", codes.Aborted, 409, 1, apiv1.RetryNone},
	{apiv1.CodeNotLeader, 64, "not_leader", codes.Unavailable, 503, 69, apiv1.RetryElsewhere},
	{apiv1.CodeUnavailable, 65, "unavailable", codes.Unavailable, 503, 69, apiv1.RetryElsewhere},
	{apiv1.CodeOverloaded, 66, "overloaded", codes.ResourceExhausted, 429, 69, apiv1.RetryLater},
	{apiv1.CodeUnknownOutcome, 67, "unknown_outcome", codes.Unknown, 503, 69, apiv1.RetrySameID},
	{apiv1.CodeDenied, 68, "denied", codes.PermissionDenied, 403, 77, apiv1.RetryChanged},
	{apiv1.CodeNoMember, 69, "no_member", codes.NotFound, 404, 1, apiv1.RetryNone},
	{apiv1.CodeInternal, 70, "internal", codes.Internal, 500, 1, apiv1.RetryNone},
	{apiv1.CodeTooLarge, 71, "too_large", codes.ResourceExhausted, 413, 1, apiv1.RetryChanged},
	{apiv1.CodeNotReady, 72, "not_ready", codes.Unavailable, 503, 69, apiv1.RetryElsewhere},
	{apiv1.CodeUnauthenticated, 73, "unauthenticated", codes.Unauthenticated, 401, 77, apiv1.RetryChanged},
}

func TestPublishedCodesDoNotChange(t *testing.T) {
	snake := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	names := map[string]bool{}
	for _, r := range published {
		got := row{r.code, uint32(r.code), r.code.String(), r.code.GRPC(), r.code.HTTPStatus(), r.code.ExitCode(), r.code.Retry()}
		if got != r {
			t.Errorf("code %d: got %+v, want %+v", r.number, got, r)
		}
		if !snake.MatchString(r.name) || names[r.name] {
			t.Errorf("code %d: name %q is not snake case or not unique", r.number, r.name)
		}
		names[r.name] = true
	}
}

func TestEveryKnownNumberIsPublished(t *testing.T) {
	known := map[apiv1.Code]bool{}
	for _, r := range published {
		known[r.code] = true
	}
	for c := apiv1.Code(0); c < 256; c++ {
		if unnamed := c.String() == fmt.Sprintf("code_%d", c); unnamed == known[c] {
			t.Errorf("code %d is called %q; listed in this test: %v", c, c, known[c])
		}
	}
}

func TestTableResultsKeepTheirNumbersOnTheWire(t *testing.T) {
	for table, wire := range map[fsm.Code]apiv1.Code{
		fsm.OK: apiv1.CodeOK, fsm.Queued: apiv1.CodeQueued, fsm.Busy: apiv1.CodeBusy, fsm.TimedOut: apiv1.CodeTimeout,
		fsm.NotHeld: apiv1.CodeNotHeld, fsm.NoSession: apiv1.CodeNoSession, fsm.KindMismatch: apiv1.CodeKindMismatch,
		fsm.OverLimit: apiv1.CodeLimit, fsm.Invalid: apiv1.CodeInvalid, fsm.Cancelled: apiv1.CodeCancelled,
		fsm.StaleRequest: apiv1.CodeStaleRequest, fsm.UnknownCommand: apiv1.CodeUnknownCommand,
		fsm.Revoked:   apiv1.CodeRevoked,
		fsm.Malformed: apiv1.CodeMalformed, fsm.StaleStamp: apiv1.CodeStaleStamp,
	} {
		if uint32(table) != uint32(wire) {
			t.Errorf("fsm code %d is %d on the wire", table, wire)
		}
	}
}

func TestUnknownCodeIsAnError(t *testing.T) {
	c := apiv1.Code(4711)
	if c.String() != "code_4711" || c.GRPC() == codes.OK || c.HTTPStatus() != 500 || c.ExitCode() == 0 {
		t.Errorf("code 4711: %s, %v, %d, %d", c, c.GRPC(), c.HTTPStatus(), c.ExitCode())
	}
}

func TestErrorSurvivesTheStatus(t *testing.T) {
	for _, r := range published[1:] {
		sent := apiv1.NewError(r.code, "lock %q", "orders/42")
		sent.Leader = "127.0.0.1:7400"
		sent.Holders = []*apiv1.Holder{{Lock: "orders/42", Token: 7, Holder: "alice"}}

		// What the wire does: the status becomes a message and is read again.
		received := status.ErrorProto(status.Convert(fmt.Errorf("acquire: %w", sent)).Proto())

		if got := status.Code(received); got != r.grpc {
			t.Errorf("%s: grpc code = %v, want %v", r.name, got, r.grpc)
		}
		if got := apiv1.AsError(received); !proto.Equal(got, sent) {
			t.Errorf("%s: AsError = %v, want %v", r.name, got, sent)
		}
	}
}

func TestCodeOfFindsTheCode(t *testing.T) {
	busy := apiv1.NewError(apiv1.CodeBusy, "held")
	for _, c := range []struct {
		name string
		err  error
		want apiv1.Code
	}{
		{"nil", nil, apiv1.CodeOK},
		{"own", busy, apiv1.CodeBusy},
		{"wrapped", fmt.Errorf("lock: %w", busy), apiv1.CodeBusy},
		{"joined", errors.Join(errors.New("other"), busy), apiv1.CodeBusy},
		{"status with detail", busy.GRPCStatus().Err(), apiv1.CodeBusy},
		{"wrapped status", fmt.Errorf("call: %w", busy.GRPCStatus().Err()), apiv1.CodeBusy},
		{"connection lost", status.Error(codes.Unavailable, "closing"), apiv1.CodeUnavailable},
		{"call timed out", status.Error(codes.DeadlineExceeded, "late"), apiv1.CodeUnknownOutcome},
		{"message too big", status.Error(codes.ResourceExhausted, "big"), apiv1.CodeTooLarge},
		{"no such method", status.Error(codes.Unimplemented, "?"), apiv1.CodeUnknownCommand},
		{"no certificate", status.Error(codes.Unauthenticated, "?"), apiv1.CodeUnauthenticated},
		{"bad bytes", status.Error(codes.InvalidArgument, "?"), apiv1.CodeInvalid},
		{"defect", status.Error(codes.Internal, "?"), apiv1.CodeInternal},
		{"context", context.DeadlineExceeded, apiv1.CodeUnknownOutcome},
		{"cancelled context", fmt.Errorf("get: %w", context.Canceled), apiv1.CodeUnknownOutcome},
		{"other", errors.New("boom"), apiv1.CodeInternal},
	} {
		if got := apiv1.CodeOf(c.err); got != c.want {
			t.Errorf("CodeOf(%s) = %v, want %v", c.name, got, c.want)
		}
	}
}

// Such an answer once made a failed command of the program exit with 0.
func TestErrorIsNeverASuccess(t *testing.T) {
	inDetail, err := status.New(codes.Unknown, "odd").WithDetails(&apiv1.Error{})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{&apiv1.Error{}, &apiv1.Error{Message: "odd"}, inDetail.Err()} {
		if code := apiv1.CodeOf(err); code == apiv1.CodeOK || code.ExitCode() == 0 {
			t.Errorf("%v has code %v and exit code %d", err, code, code.ExitCode())
		}
	}
}

func TestErrorTextNamesTheCode(t *testing.T) {
	if got, want := apiv1.NewError(apiv1.CodeBusy, "lock %q is held", "a").Error(), `busy: lock "a" is held`; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	if got, want := (&apiv1.Error{Code: uint32(apiv1.CodeNotHeld)}).Error(), "not_held"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}
