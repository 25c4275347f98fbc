package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/hashicorp/raft"
)

// Who has dialled? The preface of a connection names a member, and anybody can write one:
// heartbeats in the name and term of a dead leader kept the others from electing one for as
// long as they came. So the node that was dialled calls back: it dials the member that the
// preface names, at the address known for that member, and asks whether the connection is
// the member's. The nonce in the preface identifies the connection. Only after a yes does
// the connection count as the member's; until then nothing but the preface is read from it.
//
//   - The address is the one that this node would dial for Raft, from gossip and the
//     configuration. Members have to reach each other in both directions anyway, because
//     each of them may lead.
//   - A node that is not known is asked at the address in its preface. A member that was
//     away while the others were replaced has to accept such a leader, and so has a node
//     that joins. notLeader bounds what an unknown node may do.
//   - The Stream answers the question, at once, whatever state the node is in, and without
//     calling back: so two nodes that dial each other at the same time do not wait for each
//     other. The answer confirms only that this process has dialled.
//   - It costs two round trips for each new connection, and nothing afterwards.
//
// This does not protect against somebody who takes over a member's address or listens to
// the traffic; that takes TLS, in which both ends of every connection, also of the one that
// asks, prove who they are. The question is asked there as well: it finds two processes that
// run with one certificate. Rejected:
//
//   - To compare the source address of the connection with the member's: on one machine
//     they are all the same, and behind a translator of addresses they differ.
//   - To accept all who claim to be members and refuse the rest: anybody can claim it.
//   - To ask the member on an existing connection: after a restart or an election there is
//     none, and Raft's connections have one request under way at a time.

// maxUnheardOf bounds how many unknown nodes are asked at a time: they can make this node
// dial any address.
const maxUnheardOf = 4

// whereIs returns the known addresses of a node, and whether it is in the latest
// configuration.
type whereIs func(id string) (places []string, member bool)

// bind gives a Stream what it needs to call back, and why a node that has proved who it is
// may not connect. Until then no connection is accepted.
func (s *Stream) bind(where whereIs, unwelcome func(id string) error) {
	s.binding.Do(func() {
		s.where, s.unwelcome = where, unwelcome
		close(s.bound)
	})
}

// callBack returns nil once the node that a preface names has confirmed that it has dialled.
// It also reports whether the node is in the configuration.
func (s *Stream) callBack(ctx context.Context, theirs preface) (member bool, err error) {
	if !s.o.CallBack {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.HandshakeTimeout/2)
	defer cancel()
	select {
	case <-s.bound:
	case <-ctx.Done():
		return false, errors.New("this node has just started")
	}
	places, member := s.where(theirs.from)
	if len(places) == 0 && theirs.raft != "" {
		select {
		case s.unheardOf <- struct{}{}:
			defer func() { <-s.unheardOf }()
		case <-ctx.Done():
			return false, fmt.Errorf("node %q is not known, and %d such nodes are being asked already", theirs.from, maxUnheardOf)
		}
		places = []string{theirs.raft}
	}
	places = slices.DeleteFunc(slices.Clone(places), s.ownAddress)
	if len(places) == 0 {
		return member, fmt.Errorf("node %q was not asked whether it has dialled: it is not known where it is", theirs.from)
	}
	if err := s.askAll(ctx, places, theirs); err != nil {
		return member, fmt.Errorf("node %q did not confirm that it has dialled (%w): members must reach each other's Raft ports in both directions, "+
			"is there a firewall, or a wrong advertise_host?", theirs.from, err)
	}
	return member, nil
}

// askAll asks at all addresses at the same time. One yes is enough.
func (s *Stream) askAll(ctx context.Context, places []string, theirs preface) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan error, len(places))
	for _, at := range places {
		s.wg.Go(func() {
			if err := s.ask(ctx, at, theirs); err != nil {
				answers <- fmt.Errorf("asked at %s: %w", at, err)
				return
			}
			answers <- nil
		})
	}
	var errs []error
	for range places {
		err := <-answers
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ask asks the node at an address whether it has sent a preface.
func (s *Stream) ask(ctx context.Context, at string, theirs preface) error {
	c, err := s.connect(ctx, at, theirs.from)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if until, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(until)
	}
	question := preface{say: sayAsk, cluster: s.o.Cluster().hashed(theirs.nonce), from: s.o.Member, to: theirs.from, nonce: theirs.nonce}
	if _, err := c.Write([]byte(question.line())); err != nil {
		return err
	}
	answer, err := readPreface(c)
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("no answer: %w", context.Cause(ctx))
	case err != nil:
		return err
	case answer.say == sayNo:
		return fmt.Errorf("it says no: %.*s", maxReason, answer.reason)
	case answer.say != sayYes:
		return fmt.Errorf("%w: it says %q", errStranger, answer.say)
	}
	return nil
}

// confirm answers such a question.
func (s *Stream) confirm(c net.Conn, question preface) error {
	tell, err := question.meant(s.o.Member, s.o.Cluster())
	if err == nil {
		_, err = proves(c, question.from)
		tell = textOf(err)
	}
	if err == nil {
		s.mu.Lock()
		to, dialled := s.dialled[question.nonce]
		ended := slices.Contains(s.ended, endedDial{question.nonce, question.from})
		s.mu.Unlock()
		switch {
		case ended:
			_, err = c.Write([]byte(preface{say: sayNo, reason: fmt.Sprintf("node %q does not wait for this any more", s.o.Member)}.line()))
			return err
		case !dialled || to != question.from:
			err = refusal{"somebody has used this node's name", fmt.Sprintf("node %q was dialled in the name of this one, %q, by somebody else", question.from, s.o.Member)}
			tell = fmt.Sprintf("node %q has not dialled", s.o.Member)
		}
	}
	answer := preface{say: sayYes}
	if err != nil {
		answer = preface{say: sayNo, reason: tell}
	}
	if _, failed := c.Write([]byte(answer.line())); err == nil && failed != nil {
		return failed
	}
	return err
}

// endedDial is a handshake that this node has begun and ended. A question about it may come
// late, from a busy node or because several addresses were asked; then nobody else has used
// this node's name.
type endedDial struct{ nonce, to string }

// maxEnded bounds those that are remembered: more than a node begins within the time that
// a question may take.
const maxEnded = 256

// dials notes that this node dials a member under a nonce, until done.
func (s *Stream) dials(nonce, member string) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialled[nonce] = member
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.dialled, nonce)
		if len(s.ended) == maxEnded {
			s.ended = append(s.ended[:0], s.ended[maxEnded/2:]...)
		}
		s.ended = append(s.ended, endedDial{nonce, member})
	}
}

// whereIs answers the Stream below the transport.
func (t *Transport) whereIs(id string) (places []string, member bool) {
	if t.addresses != nil {
		places = slices.Clone(t.addresses.RaftAddresses(raft.ServerID(id)))
	}
	m := t.member.Load()
	if m == nil {
		return places, false
	}
	for _, s := range m.GetConfiguration().Configuration().Servers {
		if string(s.ID) != id {
			continue
		}
		member = true
		if _, at := SplitMember(s.Address); at != "" && !slices.Contains(places, at) {
			places = append(places, at)
		}
	}
	return places, member
}
