package server

import (
	"context"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/certs"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/rights"
)

// What needs force or admin is noted when it has ended (event.go). Here it is seen to that it
// is noted however it ends, and that it is not begun if it could not be noted.

// isForced reports whether an operation needs force.
func isForced(op *apiv1.Operation) bool {
	switch op.Kind() {
	case apiv1.KindForceRelease, apiv1.KindResize:
		return true
	}
	return false
}

// usesForce reports whether an operation ends or changes a grant that is not known to be the
// caller's own, which the right force allows. A grant that this node does not know yet counts as
// somebody else's: one line too many is better than none.
func (s *Server) usesForce(c *caller, op *apiv1.Operation) bool {
	_, token, ok := op.Grant()
	return ok && op.GetForce() && s.auth.GrantOwner != nil && s.auth.GrantOwner(token) != c.owner()
}

// start starts an operation of a client. One that needs force is run by a call of its own, which
// nobody abandons: otherwise nothing would be noted of a caller who goes away before the answer.
func (s *Server) start(c *caller, call *mux.Call) {
	if c.member || !isForced(call.Op) && !s.usesForce(c, call.Op) {
		s.backend.Start(call)
		return
	}
	own := &mux.Call{Op: call.Op, Owner: call.Owner, Readable: call.Readable, Done: func(a *apiv1.Answer) {
		s.noteForced(c, call.Op, a)
		call.Done(a)
	}}
	if s.cfg.Begin == nil {
		s.backend.Start(own)
		return
	}
	e := eventOf(call.Op)
	e.of(c)
	s.cfg.Begin(e, func(err error) {
		switch {
		case err != nil:
			own.Done(errorAnswer(call.Op.GetId(), apiv1.AsError(err)))
		case call.Abandoned():
			s.noteForced(c, call.Op, errorAnswer(0, apiv1.NewError(apiv1.CodeCancelled, "the caller has gone away: nothing was done")))
		default:
			s.backend.Start(own)
		}
	})
}

// begin waits until what needs force or admin may begin.
func (s *Server) begin(ctx context.Context, e Event) error {
	if s.cfg.Begin == nil {
		return nil
	}
	may := make(chan error, 1)
	s.cfg.Begin(e, func(err error) { may <- err })
	select {
	case err := <-may:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// remote is the address of the caller with its port, as far as it is known.
func (c *caller) remote() string {
	if c.conn == nil || c.conn.Conn == nil {
		return c.address
	}
	return c.conn.Conn.RemoteAddr().String()
}

// shownCert returns who the certificate of the caller's connection says he is, and its serial
// number. It is for what is noted where nobody is asked who he is.
func (c *caller) shownCert() (id rights.Identity, serial string) {
	who, ok := c.conn.identity()
	switch {
	case !ok || who.Name == "":
		return rights.Anonymous, ""
	case who.Role == certs.Node:
		return rights.Node(who.Name), c.conn.serial()
	}
	return rights.Cert(who.Name), c.conn.serial()
}
