package client

import (
	"context"
	"errors"
	"fmt"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// command sends an operation that changes something and concerns no grant of a
// session. It is sent in a session nevertheless, so that it takes effect once
// however often it is sent. If the session ends first, its outcome is unknown: it is made
// again in another session only if it is repeatable.
func (c *Client) command(ctx context.Context, w what, repeatable bool, make func(*apiv1.RequestID) *apiv1.Operation) (*apiv1.Answer, error) {
	unknown := false // of an earlier try
	for again := 0; ; again++ {
		if err := c.admit(ctx, w); err != nil {
			return nil, err
		}
		s, err := c.session(ctx, w)
		if err != nil {
			return nil, err
		}
		a, outcomeUnknown, err := s.command(ctx, w, make)
		switch {
		case unknown && errors.Is(err, ErrNotHeld):
			return nil, fmt.Errorf("%w; an earlier try may have done it", err)
		case !errors.Is(err, errAgain):
			return a, err
		case outcomeUnknown && !repeatable:
			if err := c.ready(w); err != nil {
				return nil, err
			}
			return nil, &opError{op: w.String(), kind: ErrSession, text: "session ended before the answer: it may have been done"}
		}
		unknown = unknown || outcomeUnknown
		pause(ctx, again)
	}
}

// command sends an operation once in this session. It returns errAgain if the session
// does not accept it or ends, and then whether its outcome is unknown.
func (s *session) command(ctx context.Context, w what, make func(*apiv1.RequestID) *apiv1.Operation) (_ *apiv1.Answer, outcomeUnknown bool, _ error) {
	s.mu.Lock()
	err := s.takesLocked()
	s.mu.Unlock()
	if err != nil {
		s.c.retire(s)
		if !errors.Is(err, errAgain) {
			err = fmt.Errorf("%s: %w", w, err)
		}
		return nil, false, err
	}
	return s.exchange(ctx, w, make)
}

// exchange is command for an operation that belongs to this session, also to a retired one.
func (s *session) exchange(ctx context.Context, w what, make func(*apiv1.RequestID) *apiv1.Operation) (_ *apiv1.Answer, outcomeUnknown bool, _ error) {
	id := &apiv1.RequestID{}
	o := &waited{}
	o.prepare(s.c)
	o.call.Op = make(id)
	s.mu.Lock()
	if s.cause != nil {
		s.mu.Unlock()
		return nil, false, errAgain
	}
	s.signLocked(id, &o.op)
	s.mu.Unlock()
	defer s.forgo(id, o)
	s.c.send(&o.op)
	select {
	case a := <-o.answers:
		e := a.GetError()
		switch apiv1.Code(e.GetCode()) {
		case apiv1.CodeOK:
			return a, false, nil
		case apiv1.CodeNoSession:
			s.expired()
			return nil, o.call.Doubtful(), errAgain
		case apiv1.CodeStaleRequest:
			return nil, true, errAgain
		}
		return nil, false, s.c.failure(w, e)
	case <-ctx.Done():
		return nil, true, s.c.ended(ctx, w, &o.op)
	case <-s.over:
		return nil, true, errAgain
	}
}

// forgo notes that the answer to a command is not needed any more, whether it came or
// not. A command that arrives after that is acknowledged never takes effect.
func (s *session) forgo(id *apiv1.RequestID, o *waited) {
	o.call.Abandon()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window.Answered(id.GetSequence())
}
