package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
)

func TestErrorsHaveTheirExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{usageError("no such flag"), 64},
		{fmt.Errorf("wrapped: %w", usageError("no such flag")), 64},
		{&client.UnavailableError{Op: "lock"}, 69},
		{&client.BusyError{Lock: "a"}, 75},
		{apiv1.NewError(apiv1.CodeTimeout, ""), 75},
		{apiv1.NewError(apiv1.CodeNotHeld, ""), 1},
		{apiv1.NewError(apiv1.CodeDenied, ""), 77},
		{apiv1.NewError(apiv1.CodeInvalid, ""), 64},
		{apiv1.NewError(apiv1.CodeNotReady, ""), 69},
		{apiv1.NewError(apiv1.CodeOverloaded, ""), 69},
		{&exitError{code: 3}, 3},
		{&exitError{exitLost, client.ErrLost}, 76},
		{signalled{int(syscall.SIGTERM)}, 143},
		{fmt.Errorf("stop: %w", signalled{int(syscall.SIGINT)}), 130},
		{hinted(&client.BusyError{Lock: "a"}, "wait"), 75},
		{&outputError{syscall.ENOSPC}, 74},
		{&outputError{syscall.EPIPE}, 141},
		{errors.Join(&outputError{syscall.EPIPE}, &exitError{exitOther, errors.New("not as promised")}), 1},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("exitCode(%v): got %d, want %d", c.err, got, c.want)
		}
	}
}

func TestSignalIsACancellation(t *testing.T) {
	if !errors.Is(signalled{2}, context.Canceled) {
		t.Error("a signal is no cancellation")
	}
}

// There is advice for every error that the cluster can answer to a command.
func TestFailuresSayWhatToDoNext(t *testing.T) {
	for code := apiv1.CodeOK; code < 256; code++ {
		if strings.HasPrefix(code.String(), "code_") {
			continue // there is no such code
		}
		switch code {
		case apiv1.CodeOK, apiv1.CodeQueued, apiv1.CodeStaleStamp: // only between nodes
			continue
		case apiv1.CodeInvalid, apiv1.CodeMalformed, apiv1.CodeTooLarge, apiv1.CodeKindMismatch:
			continue // the message says which argument to change
		case apiv1.CodeCancelled:
			continue // the caller cancelled it
		}
		if advice(apiv1.NewError(code, "x")) == "" {
			t.Errorf("no advice for %s", code)
		}
	}
	if got := advice(hinted(&client.BusyError{}, "do this")); got != "do this" {
		t.Errorf("advice: got %q, want the hint", got)
	}
	if got := advice(errors.New("x")); got != "" {
		t.Errorf("advice for an unknown error: got %q", got)
	}
}
