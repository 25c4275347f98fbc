package window

import apiv1 "github.com/locknode/locknode/api/v1"

// Giving up an acquire is the same wherever somebody stops waiting for one, because its
// caller has gone, its time is over, its answer was lost, or the program stops:
//
//   - The call is abandoned. An answer that has come by then is looked at: after a refusal
//     there is nothing to give up.
//   - A cancel is sent in the acquire's own session, under a sequence of its own, until it has
//     been carried out: the acquire may be waiting, it may have been granted, and an earlier
//     copy of it may still be on its way. All three are ended by the cancel.
//   - Until then the acquire's sequence is not acknowledged, or the cluster would take a late
//     copy of it for one that was answered, and a cancel that comes before it for nothing.
//   - When the session is over, so is the wait; and there is nobody whom a cancel could be of.

// Cancel returns the operation that gives up the acquire with the request ID target. It is
// sent under id.
func Cancel(id, target *apiv1.RequestID) *apiv1.Operation {
	return &apiv1.Operation{Request: &apiv1.Operation_Cancel{Cancel: &apiv1.CancelRequest{
		Id: id, Target: &apiv1.RequestID{Session: target.GetSession(), Sequence: target.GetSequence()},
	}}}
}

// Fate is what has become of an acquire that was given up.
type Fate int

// The fates.
const (
	// GivenUp: it waits no more and holds nothing, and never will. Its sequence may be
	// acknowledged.
	GivenUp Fate = iota
	// SessionOver: its session is over, and its wait with it. A detached grant may have
	// outlived them.
	SessionOver
	// Refused: the cancel was not carried out. Another one is needed, under another sequence.
	Refused
)

// FateOf returns what the answer to a cancel, with this code, says of the acquire. What
// passes by itself ([apiv1.Code.Passes]) says nothing: that cancel is sent again as it is.
func FateOf(code apiv1.Code) Fate {
	switch code {
	case apiv1.CodeOK, apiv1.CodeNotHeld:
		return GivenUp
	case apiv1.CodeNoSession:
		return SessionOver
	}
	return Refused
}
