// Package host sends the requests of callers without a session in sessions of the
// node's own, so that a session's promises are theirs, too: a request takes effect
// once, however often the nodes send it to each other, and a place in line is given
// up when whoever waits is gone.
//
// Objects:
//
//   - Host: the sessions, and what is to be done later. It is made by [New], runs
//     in [Host.Run], and takes requests with [Host.Start].
//   - session: opened when a request needs one, kept alive, ended when it was of no
//     use for a minute. One takes new requests; it retires when it has too many
//     unanswered ones, and ends when they are answered.
//   - request: one caller's operation, sent in a session until it is answered, or
//     one of the host's own: the cancel of an acquire, the release of a grant.
//
// Whose answer reaches nobody leaves nothing behind. The caller of an acquire has
// gone away, or was told that no leader was found; or its answer was lost on the way
// to it:
//
//   - without a request ID the acquire is cancelled at once; and if it was answered
//     with a grant, that is released;
//   - with one its place in line, or its grant, is kept for some seconds: the same
//     request may come again, through this node or another one, and finds it. Then
//     this try is cancelled; the table leaves what another try has found.
//
// A grant that comes out of a wait ends with the session, like the wait, until it is
// renewed there. The host does that before it tells the caller: so a waiter whose node
// dies blocks nobody, and a caller who was told has all of the TTL.
//
// What the host sends for itself is sent again until it is answered, or its session
// is over: then nothing waits in it any more.
//
// When the cluster has ended a session, because the node was cut off for longer than
// the session's TTL, those who wait in it stand in line again, at the end, in a new
// session. A wait that was granted before is not repeated: the node finds the grant
// in its own copy of the log. If its caller has gone by then, it is released; under a
// request ID it is left to its TTL, because another try may have been told of it. Of
// other requests it is not known what they have done, and their callers are told so.
//
// Invariants:
//
//   - a sequence is acknowledged only when its answer is of no more use: it was
//     passed on, and a grant under a request ID has been kept for the time in which
//     it may turn out that it was not
//   - an acquire is unanswered, or answered with a grant that a caller was given,
//     or its cancel or release is on the way, or its place is kept, or its session
//     is over
//
// Goroutines: Run, which owns all that takes time. Answers are handled by whoever
// brings them. No mutex is held while a call is started or answered.
package host
