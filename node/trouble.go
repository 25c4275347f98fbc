package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/secure"
)

// peerError is the error of a call to another node with a text for people. Its status and
// cause are grpc's.
type peerError struct {
	text   string
	status *status.Status
	cause  error
}

func (e *peerError) Error() string { return e.text }

// GRPCStatus returns the status, with the code and the details that the other node has sent.
func (e *peerError) GRPCStatus() *status.Status { return e.status }

func (e *peerError) Unwrap() error { return e.cause }

// plainly replaces grpc's text in an error of a call: by the error that the other node has
// answered, or, without an answer, by why the node cannot be reached. dialled is how the
// last dial of the connection failed.
func plainly(at place, err, dialled error) error {
	var own *apiv1.Error
	var byGRPC interface{ GRPCStatus() *status.Status }
	if err == nil || errors.Is(err, io.EOF) || errors.As(err, &own) || !errors.As(err, &byGRPC) {
		return err
	}
	s := byGRPC.GRPCStatus()
	e := &peerError{text: s.Message(), status: s, cause: err}
	if len(s.Details()) > 0 {
		e.text = apiv1.AsError(s.Err()).GetMessage()
		return e
	}
	switch s.Code() {
	case codes.DeadlineExceeded:
		e.text = "it does not answer"
	case codes.Unavailable:
		e.text = dialTrouble(dialled)
	default:
		return e
	}
	e.text = fmt.Sprintf("node %q at %s: %s", at.id, at.api, e.text)
	e.status = status.New(s.Code(), e.text)
	return e
}

// dialTrouble returns why there is no connection.
func dialTrouble(err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return "the connection was cut"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused: nothing listens there"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "it does not answer"
	}
	return "no connection came about: " + err.Error()
}

// lastDial dials for one connection of grpc and keeps the error of the last dial: grpc
// passes on only its text.
type lastDial struct {
	over func(ctx context.Context, addr string) (net.Conn, error)
	err  atomic.Pointer[error]
	conn atomic.Pointer[secure.Conn] // what it has made, in TLS
}

func (l *lastDial) dial(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := l.over(ctx, addr)
	l.err.Store(&err)
	if secured, ok := conn.(*secure.Conn); ok {
		l.conn.Store(secured)
	}
	return conn, err
}

func (l *lastDial) trouble() error {
	if err := l.err.Load(); err != nil && *err != nil {
		return *err
	}
	if conn := l.conn.Load(); conn != nil {
		return conn.Refusal() // which comes after the handshake of this end
	}
	return nil
}
