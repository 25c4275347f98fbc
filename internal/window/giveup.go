package window

import apiv1 "github.com/locknode/locknode/api/v1"

// An acquire is given up because its caller has gone, its time is over, its answer was lost, or
// the program stops. The steps are always the same:
//
//   - The call is abandoned. If its answer has come by then and is a refusal, there is
//     nothing to give up.
//   - A cancel is sent in the acquire's own session, under a sequence of its own, until it has
//     been carried out. It ends the acquire if that waits, if it has been granted, and if a
//     copy of it arrives later.
//   - Until then the acquire's sequence is not acknowledged: otherwise the cluster would treat a
//     late copy of it as answered, and ignore a cancel that comes before it.
//   - When the session has ended, so has the wait, and no cancel is needed.

// Cancel returns the operation that gives up the acquire with the request ID target. Its own
// request ID is id, which the caller fills before it sends it.
func Cancel(id, target *apiv1.RequestID) *apiv1.Operation {
	return &apiv1.Operation{Request: &apiv1.Operation_Cancel{Cancel: &apiv1.CancelRequest{
		Id: id, Target: &apiv1.RequestID{Session: target.GetSession(), Sequence: target.GetSequence()},
	}}}
}

// Fate is what has become of an acquire that was given up.
type Fate int

// The fates.
const (
	// GivenUp: it does not wait, holds nothing, and never will. Its sequence may be
	// acknowledged.
	GivenUp Fate = iota
	// SessionOver: its session has ended, and its wait too. A detached grant may have
	// outlasted them.
	SessionOver
	// Refused: the cancel was not carried out. Another one is needed, under another sequence.
	Refused
)

// FateOf returns the fate of the acquire by the code of the answer to its cancel. Codes that
// pass by themselves ([apiv1.Code.Passes]) are not for it: such a cancel is sent again
// unchanged.
func FateOf(code apiv1.Code) Fate {
	switch code {
	case apiv1.CodeOK, apiv1.CodeNotHeld:
		return GivenUp
	case apiv1.CodeNoSession:
		return SessionOver
	}
	return Refused
}
