package server

import (
	"context"
	"fmt"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/fair"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/rights"
)

// May the caller do that? The check is where a request enters the cluster, and nowhere else:
// the node that receives an operation decides, by its own copy of the policies, and passes on
// whose it is. What needs no right of its own, because it is about the caller's own session or
// grant, the lock table checks (see fsm.As), because only there it is known whose they are.

// admit checks an operation that came over a connection of a client, and sets on whose behalf it
// is run. It returns why the operation is refused.
func (s *Server) admit(ctx context.Context, c *caller, call *mux.Call) *apiv1.Error {
	op := call.Op
	op.Owner, op.Checked, op.Force, call.Owner, call.Readable = c.address, false, false, c.turns, nil
	if c.member { // a unary operation of another node
		return nil
	}
	mode, book, err := s.asks()
	if err != nil || mode == AuthOff {
		return err
	}
	now := c.resolve(book)
	if err := s.mistaken(c, now, mode, op.Kind().String()); err != nil {
		return err
	}
	failure := s.mayRun(ctx, c, now, op)
	if failure == nil && mode == AuthLog {
		failure = s.notOwner(c, now, op)
	}
	if failure != nil {
		if refused := s.refuse(c, mode, eventOf(op), failure); refused != nil {
			return refused
		}
	}
	op.Owner, call.Owner = c.owner(), c.takesTurns()
	if mode == AuthRequired {
		op.Checked, op.Force = true, hasForce(now.subject, op)
		if op.Kind().Pages() {
			call.Readable = now.subject.Readable()
		}
	}
	return nil
}

// mayRun returns why a caller may not run an operation, nil if he may.
func (s *Server) mayRun(ctx context.Context, c *caller, now *standing, op *apiv1.Operation) *apiv1.Error {
	switch kind := op.Kind(); kind {
	case apiv1.KindAcquire:
		for _, want := range op.GetAcquire().GetLocks() {
			if err := lacks(now.subject, fsm.RightLock, want.GetName()); err != nil {
				return err
			}
		}
		return s.authorized(ctx, c, now, kind.String(), fsm.RightLock, op)
	case apiv1.KindRenew:
		if name := op.GetRenew().GetName(); name != "" {
			if err := lacks(now.subject, fsm.RightLock, name); err != nil {
				return err
			}
		}
		return s.owns(ctx, c, now, op)
	case apiv1.KindGet:
		if err := lacks(now.subject, fsm.RightRead, op.GetGet().GetName()); err != nil {
			return err
		}
		return s.authorized(ctx, c, now, kind.String(), fsm.RightRead, op)
	case apiv1.KindList: // it shows only what may be read
		if err := mustBeKnown(now); err != nil {
			return err
		}
		return s.authorized(ctx, c, now, kind.String(), fsm.RightRead, op)
	case apiv1.KindForceRelease, apiv1.KindResize:
		if err := lacks(now.subject, fsm.RightForce, nameOf(op)); err != nil {
			return err
		}
		return s.authorized(ctx, c, now, kind.String(), fsm.RightForce, op)
	case apiv1.KindOpenSession, apiv1.KindKeepAlive, apiv1.KindEndSession, apiv1.KindCancel, apiv1.KindRelease, apiv1.KindSetValue:
		return s.owns(ctx, c, now, op)
	default: // a kind that nobody has thought about here
		if err := lacks(now.subject, fsm.RightAdmin, ""); err != nil {
			return err
		}
		return s.authorized(ctx, c, now, kind.String(), fsm.RightAdmin, op)
	}
}

// owns is for operations that are about what is the caller's own. The table checks that it is.
func (s *Server) owns(ctx context.Context, c *caller, now *standing, op *apiv1.Operation) *apiv1.Error {
	if err := mustBeKnown(now); err != nil {
		return err
	}
	return s.authorized(ctx, c, now, op.Kind().String(), 0, op)
}

// mustBeKnown refuses a caller about whom no policy says anything and who has proved nothing.
func mustBeKnown(now *standing) *apiv1.Error {
	if !now.identity().Known() && !now.subject.HasPolicies() {
		return nothingShown("")
	}
	return nil
}

// nameOf returns the lock that an operation is about, empty if it names none.
func nameOf(op *apiv1.Operation) string {
	switch op.Kind() {
	case apiv1.KindRelease:
		return op.GetRelease().GetName()
	case apiv1.KindRenew:
		return op.GetRenew().GetName()
	case apiv1.KindSetValue:
		return op.GetSetValue().GetName()
	case apiv1.KindForceRelease:
		return op.GetForceRelease().GetName()
	case apiv1.KindResize:
		return op.GetResize().GetName()
	case apiv1.KindGet:
		return op.GetGet().GetName()
	case apiv1.KindList:
		return op.GetList().GetPrefix()
	}
	return ""
}

// namesOf returns the locks that an operation is about.
func namesOf(op *apiv1.Operation) (names []string) {
	for _, want := range op.GetAcquire().GetLocks() {
		names = append(names, want.GetName())
	}
	if name := nameOf(op); name != "" {
		names = append(names, name)
	}
	return names
}

// hasForce reports whether the caller may also use what others hold. An operation that does not
// name the lock may be about any.
func hasForce(subject *rights.Subject, op *apiv1.Operation) bool {
	switch op.Kind() {
	case apiv1.KindForceRelease, apiv1.KindResize:
		return true // it was checked
	case apiv1.KindRelease, apiv1.KindRenew, apiv1.KindSetValue:
		if name := nameOf(op); name != "" {
			return subject.Decide(fsm.RightForce, name).Allowed
		}
		return subject.Everywhere(fsm.RightForce)
	case apiv1.KindCancel:
		return subject.Everywhere(fsm.RightForce)
	}
	return false
}

// lacks returns the error for a right that is missing, nil if it is there. It says what is
// missing and nothing else, not even whether there is such a lock.
func lacks(subject *rights.Subject, right fsm.Right, name string) *apiv1.Error {
	if subject.Decide(right, name).Allowed {
		return nil
	}
	return missing(subject, right, name)
}

func missing(subject *rights.Subject, right fsm.Right, name string) *apiv1.Error {
	what := fmt.Sprintf("right %s on %q: is missing", rights.RightName(right), name)
	if right == fsm.RightAdmin {
		what = "right admin: is missing"
	}
	if !subject.Identity.Known() {
		return nothingShown(what)
	}
	return apiv1.NewError(apiv1.CodeDenied, "%s", what)
}

// authorized asks the embedder's authorizer. names is an operation or a list of names.
func (s *Server) authorized(ctx context.Context, c *caller, now *standing, operation string, right fsm.Right, about any) *apiv1.Error {
	if s.auth.Authorizer == nil {
		return nil
	}
	access := Access{Identity: string(now.identity()), Address: c.address, Operation: operation}
	if right != 0 {
		access.Right = rights.RightName(right)
	}
	switch about := about.(type) {
	case *apiv1.Operation:
		access.Names = namesOf(about)
	case []string:
		access.Names = about
	}
	if err := s.auth.Authorizer(ctx, access); err != nil {
		s.cfg.Logger.Debug("the authorizer has refused an operation", "operation", operation, "identity", access.Identity, "err", err)
		return apiv1.NewError(apiv1.CodeDenied, "%s: was not authorized", operation)
	}
	return nil
}

// notOwner returns what the table would answer, with mode required, to an operation on a session
// or grant of somebody else.
func (s *Server) notOwner(c *caller, now *standing, op *apiv1.Operation) *apiv1.Error {
	if s.auth.Owner == nil {
		return nil
	}
	owner := s.auth.Owner(op)
	if !rights.Identity(owner).Owns() || owner == c.owner() || hasForce(now.subject, op) {
		return nil
	}
	return apiv1.NewError(apiv1.CodeDenied, "session or grant: belongs to another identity")
}

// access is what a call needs that is no operation.
type access struct {
	call  string    // as in locknode.proto
	right fsm.Right // 0: none, but a known caller, unless open says otherwise
	name  string    // of a lock
	open  string    // the value of Auth.Open with which nothing is needed; empty: there is none
	all   bool      // nothing is needed
	quiet bool      // it is only asked, and no attempt of the caller
	noted bool      // its outcome is noted whatever right it needs
	// everywhere: the right is needed on the prefix of all names, and no rule may deny it anywhere.
	everywhere bool
}

// mayCall returns why the sender of a request may not make a call, nil if he may.
func (s *Server) mayCall(ctx context.Context, c *caller, a access) *apiv1.Error {
	if c.member || a.all || a.open != "" && s.isOpen(a.open) {
		return nil
	}
	mode, book, err := s.asks()
	if err != nil && a.right == 0 && c.bad == nil && !c.shown && c.proved != rights.Anonymous {
		return nil // that a certificate is valid is known without the table
	}
	if err != nil || mode == AuthOff {
		return err
	}
	now := c.resolve(book)
	failure := now.failure
	if failure == nil && a.right == fsm.RightAdmin {
		if err := s.auth.Deaf(); err != nil && mode == AuthRequired {
			return apiv1.NewError(apiv1.CodeUnavailable, "right admin: cannot be checked now: %v", err)
		}
	}
	switch {
	case failure != nil:
	case a.everywhere && !now.subject.Everywhere(a.right):
		failure = missing(now.subject, a.right, "")
	case a.right != 0:
		failure = lacks(now.subject, a.right, a.name)
	case !now.identity().Known():
		failure = nothingShown("")
	}
	if failure == nil {
		var names []string
		if a.name != "" {
			names = []string{a.name}
		}
		failure = s.authorized(ctx, c, now, a.call, a.right, names)
	}
	if failure == nil {
		return nil
	}
	if a.quiet && mode == AuthRequired {
		return failure
	} else if a.quiet {
		return nil
	}
	e := Event{Operation: a.call}
	if a.name != "" {
		e.Names = []string{a.name}
	}
	return s.refuse(c, mode, e, failure)
}

// mayOpen returns why a caller may not open a Session stream.
func (s *Server) mayOpen(ctx context.Context, c *caller) *apiv1.Error {
	if c.member {
		return nil
	}
	mode, book, err := s.asks()
	if err != nil || mode != AuthRequired {
		return err
	}
	if err := s.identify(ctx, c, "Session"); err != nil {
		return err
	}
	return s.refuse(c, mode, Event{Operation: "Session"}, mustBeKnown(c.resolve(book)))
}

// refuse notes that a caller has no right to something, and returns the error to answer, nil if
// it is done all the same. It returns nil for no failure.
func (s *Server) refuse(c *caller, mode AuthMode, e Event, failure *apiv1.Error) *apiv1.Error {
	if failure == nil {
		return nil
	}
	e.of(c)
	e.Refused = true
	e.Code, e.Message, e.Enforced = apiv1.Code(failure.GetCode()), failure.GetMessage(), mode == AuthRequired
	s.note(e)
	if mode != AuthRequired {
		return nil
	}
	return failure
}

// turnsOf is the owner in whose turns an operation is run that another node has passed on.
func turnsOf(op *apiv1.Operation) fair.Owner {
	return fair.Owner{Address: fair.AddressOf(op.GetOwner()), Connection: op.GetConnection()}
}
