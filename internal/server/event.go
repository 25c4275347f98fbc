package server

import (
	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/rights"
)

// Event is something that was refused, or that was done with the right force or admin. Every
// one of them passes through Server.note.
type Event struct {
	Identity  rights.Identity
	Accessor  string // of the access token that was shown, empty if none was
	Serial    string // of the certificate that was shown, hexadecimal; empty if none was
	Address   string
	Remote    string     // the same with its port, as far as it is known
	Operation string     // as in locknode.proto: "force_release", or a call such as "SetLimits"
	Names     []string   // of locks, members, limits, policies or access tokens that it is about
	Token     uint64     // fencing token that it names; 0: none
	Reason    string     // as the caller gave it
	Values    []int64    // to which what Names has is set, where it is: limits, the size of a semaphore
	Code      apiv1.Code // CodeOK: it was done
	Message   string     // of the error
	Index     uint64     // of its entry in the log; 0: not known, or none
	Enforced  bool       // of a refusal: false if it was done all the same, in mode log
	Refused   bool       // rights were missing
}

// of fills in who has called.
func (e *Event) of(c *caller) {
	now := c.standing()
	e.Identity, e.Accessor, e.Serial, e.Address, e.Remote = now.identity(), now.accessor(), c.serial, c.address, c.remote()
	if now == nobodyYet { // nobody has asked
		e.Identity, e.Serial = c.shownCert()
	}
}

// eventOf describes an operation.
func eventOf(op *apiv1.Operation) Event {
	e := Event{Operation: op.Kind().String(), Names: namesOf(op)}
	if _, token, ok := op.Grant(); ok {
		e.Token = token
	}
	if f := op.GetForceRelease(); f != nil {
		e.Token, e.Reason = f.GetToken(), f.GetReason()
	}
	if r := op.GetResize(); r != nil {
		e.Values = []int64{int64(r.GetLimit())}
	}
	return e
}

// note is where every refusal for want of rights passes, and everything that is done with the
// right force or admin, with its outcome: also what is done in mode off, when nobody knows who
// does it.
func (s *Server) note(e Event) {
	if e.Refused {
		s.cfg.Observer.Denied(e.Code, e.Enforced)
		message := "refused: the caller has no right to it"
		if !e.Enforced {
			message = "not refused, because auth.mode is log: the caller has no right to it"
		}
		name := ""
		if len(e.Names) > 0 {
			name = e.Names[0]
		}
		s.cfg.Logger.Warn(message, "identity", string(e.Identity), "accessor", e.Accessor, "peer", e.Address,
			"operation", e.Operation, "name", name, "why", e.Message)
	}
	if s.cfg.Audit != nil {
		s.cfg.Audit(e)
	}
}

// noteAnswer notes that the table has refused an operation, because it is about what belongs to
// somebody else.
func (s *Server) noteAnswer(c *caller, op *apiv1.Operation, a *apiv1.Answer) {
	if c == nil || c.member || apiv1.Code(a.GetError().GetCode()) != apiv1.CodeDenied || isForced(op) || s.usesForce(c, op) {
		return // what a member passes on, the node has noted that received it
	}
	s.noteForced(c, op, a)
}

// noteForced notes the outcome of an operation.
func (s *Server) noteForced(c *caller, op *apiv1.Operation, a *apiv1.Answer) {
	code := apiv1.Code(a.GetError().GetCode())
	e := eventOf(op)
	e.of(c)
	e.Code, e.Message, e.Index = code, a.GetError().GetMessage(), a.GetIndex()
	e.Enforced, e.Refused = true, code == apiv1.CodeDenied
	if e.Token == 0 && len(a.GetForceRelease().GetReleased()) == 1 {
		e.Token = a.GetForceRelease().GetReleased()[0].GetToken()
	}
	s.note(e)
}
