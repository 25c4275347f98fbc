// Package host sends the requests of callers without a session in sessions of the node, so
// that they get the guarantees of a session: a request takes effect once, however often the
// nodes send it to each other, and a wait is given up when the caller has gone away.
//
// Objects:
//
//   - Host: the sessions, and what is due later. It is made by [New], runs in [Host.Run],
//     and takes requests with [Host.Start].
//   - session: opened when a request needs one, kept alive, ended after a minute without
//     use. One session takes new requests; it retires when it has too many unanswered ones,
//     and ends when they are answered.
//   - request: one caller's operation, sent in a session until it is answered, or
//     one of the host's own: the cancel of an acquire, the release of a grant.
//
// An acquire whose answer does not reach its caller leaves nothing behind. The caller may
// have gone away, may have got the answer that no leader was found, or the answer was lost:
//
//   - Without a once ID the acquire is cancelled at once, and its grant, if there is one, is
//     released.
//   - With one, its place in the queue or its grant is kept for some seconds: a retry,
//     through this node or another one, finds it. After that this try is cancelled; the
//     table keeps what another try has found.
//
// A grant that comes out of a wait ends with the session, like the wait, until it is renewed
// in the session. The host renews it before it answers the caller. So a waiter whose node
// fails blocks nobody, and a caller that got the answer has the whole TTL.
//
// The host's own requests are retried until they are answered or their session is over;
// then nothing waits in it any more.
//
// When the cluster has ended a session, because the node was cut off for longer than the
// session's TTL, its waiting acquires are sent in a new session and go to the end of the
// queue. An acquire that was granted before is not sent again: the node finds the grant in
// its own copy of the log. If the caller has gone away by then, the grant is released; under
// a once ID it is left to its TTL, because another try may have been answered with it. The
// outcome of other requests is unknown, and their callers get that answer.
//
// Invariants:
//
//   - a sequence is acknowledged only when its answer is no longer needed: it was passed
//     on, and a grant under a once ID has been kept for the time in which a retry may come
//   - an acquire is unanswered, or answered with a grant that a caller was given,
//     or its cancel or release is on the way, or its place is kept, or its session
//     is over
//
// Goroutines: Run, which does all that has to wait. Answers are processed on the goroutine
// that brings them. No mutex is held while a call is started or answered.
//
// Files:
//   - host.go: the configuration, Run, and what is done later.
//   - request.go: one operation, from Start to its answer or its cancel.
//   - session.go: the sessions: opened, kept alive, retired, ended.
package host
