package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// Exit codes, after sysexits.h and the shells. Those of answers from the
// cluster are in the table of codes in package apiv1.
const (
	exitOther       = 1
	exitUsage       = 64
	exitUnavailable = 69
	exitOutput      = 74 // the result could not be written
	exitNotAcquired = 75
	exitLost        = 76
	exitDenied      = 77
	exitNotExecuted = 126 // the command exists and cannot be run
	exitNotFound    = 127 // the command does not exist
	exitSignal      = 128 // plus the signal's number
)

// exitError ends the program with a code. If err is nil nothing is printed: the error was
// reported already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageError is an error in the command line or the configuration.
func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// hintedError is an error with a hint on what to do next.
type hintedError struct {
	error
	hint string
}

func (e *hintedError) Unwrap() error { return e.error }

func hinted(err error, format string, args ...any) error {
	return &hintedError{err, fmt.Sprintf(format, args...)}
}

// signalled is the cause of a context that a signal ended.
type signalled struct{ number int }

func (s signalled) Error() string { return fmt.Sprintf("ended by signal %d", s.number) }

// Is makes it a cancellation to errors.Is.
func (s signalled) Is(target error) bool { return target == context.Canceled }

// outputError is a result that could not be written.
type outputError struct{ cause error }

func (e *outputError) Error() string { return "write the result: " + e.cause.Error() }
func (e *outputError) Unwrap() error { return e.cause }

// isUnread reports whether err says only that the reader of standard output is gone, as in
// `locknode ls | head -1`. The program then prints nothing and exits as if by SIGPIPE, as
// other programs do.
func isUnread(err error) bool {
	var output *outputError
	var exit *exitError // there is another error to report
	return errors.As(err, &output) && errors.Is(output, syscall.EPIPE) && !errors.As(err, &exit)
}

// exitCode returns the exit code for err.
func exitCode(err error) int {
	var exit *exitError
	var sig signalled
	var output *outputError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	case isUnread(err):
		return exitSignal + int(syscall.SIGPIPE)
	case errors.As(err, &output):
		return exitOutput
	case errors.As(err, &sig):
		return exitSignal + sig.number
	default:
		return answerCode(err)
	}
}

// answerCode returns the exit code for an answer of the cluster, or for a cluster that was
// not reached.
func answerCode(err error) int { return apiv1.CodeOf(err).ExitCode() }

// deniedAdvice returns what to do about a refusal: because of rights, or of the state of the cluster.
func deniedAdvice(message string) string {
	switch {
	case strings.HasPrefix(message, "right "):
		return "nothing was changed: `locknode auth check ACTION NAME` says which rule decides, `locknode auth whoami` who you are; whoever has the right admin changes it with `locknode policy apply`"
	case strings.Contains(message, "belongs to another identity"):
		return "nothing was changed: use the access token with which it was made, or one with the right force"
	case strings.Contains(message, "voters"):
		return "nothing was changed: start the missing nodes first; `locknode members` lists them"
	}
	return "nothing was changed"
}

// advice returns what to do next about err, or "" if there is no advice.
func advice(err error) string {
	var h *hintedError
	if errors.As(err, &h) {
		return h.hint
	}
	var output *outputError
	if errors.As(err, &output) {
		return "the command itself was carried out"
	}
	var own *apiv1.Error
	if !errors.As(err, &own) {
		return ""
	}
	switch apiv1.Code(own.GetCode()) {
	case apiv1.CodeBusy:
		return "wait in the queue with --wait 30s, or look again: locknode get NAME"
	case apiv1.CodeTimeout:
		return "wait longer, or see who holds it: locknode get NAME"
	case apiv1.CodeNotHeld:
		return "nothing was changed; see who holds it: locknode get NAME"
	case apiv1.CodeUnavailable, apiv1.CodeNotReady, apiv1.CodeNotLeader:
		return "are most of the nodes up, and are --endpoints right? `locknode dev` starts a cluster on this machine"
	case apiv1.CodeOverloaded:
		return "nothing was changed: try again in a moment"
	case apiv1.CodeLimit:
		return "nothing was changed: `locknode limits get` shows the limits, `locknode status` and `locknode sessions ls` show who uses most"
	case apiv1.CodeRevoked:
		return "the message says who ended the wait and why; ask them before you try again"
	case apiv1.CodeUnknownOutcome:
		return "it may have taken effect: look with `locknode get NAME`, or repeat it with the same --request-id"
	case apiv1.CodeDenied:
		return deniedAdvice(own.GetMessage())
	case apiv1.CodeUnauthenticated:
		if strings.HasPrefix(own.GetMessage(), "proof") {
			return "nothing was changed: --data-dir and --endpoints must be of the same node, and the file is new at each of its starts"
		}
		return "nothing was changed: give the access token of the cluster with --token-file, LOCKNODE_TOKEN_FILE or LOCKNODE_TOKEN; whoever has the right admin lists and makes them with `locknode token`"
	case apiv1.CodeNoSession, apiv1.CodeStaleRequest:
		return "start again: the session has ended, and its locks are free"
	case apiv1.CodeUnknownCommand:
		return "the nodes run another version: compare `locknode version` with `locknode members`"
	case apiv1.CodeNoMember:
		return "`locknode members` lists the members"
	case apiv1.CodeInternal:
		return "the node's log says more"
	}
	return ""
}
