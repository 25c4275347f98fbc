// Package client takes locks in a Locknode cluster.
//
// A [Client] comes from [Dial], or from an embedded node. [Client.Lock] returns
// a [Grant]: the only thing that can be unlocked, with a fencing token and a
// context that ends when the lock is lost.
//
//	g, err := c.Lock(ctx, "orders/42")
//	if err != nil {
//		return err
//	}
//	defer g.Unlock()
//	return store.Save(g.Context(), order, g.Token())
//
// # What a grant means
//
// A client that holds or waits for something has a session, which it keeps
// alive at a third of its TTL. A grant lasts as long as its session, or shorter
// with [TTL]. A grant is valid until, by the client's own clock, the cluster
// could have given the lock to another: the client counts from before it sent the
// request or keep-alive that set the deadline, and subtracts one percent and ten
// milliseconds. It needs no network for that. When that time is over the grant is
// lost: [Grant.Lost] is closed, [Grant.Context] ends with a [LostError] as its
// cause, and [Grant.Err] returns it.
//
// Between the last check of a grant and the write that it protects a process
// may be paused for any time. Only the token protects against that: send it
// along and let the resource refuse a smaller one than it has seen. The same is
// true of a virtual machine that is copied or restored with a grant in its
// memory: its clock does not show it.
//
// # Outages
//
// While the cluster elects a leader, restarts or is partly down, operations are
// retried until the caller's context ends. Every request has an ID and is sent
// again, to another node if need be, until it is answered; it takes effect once.
// While no node answers, grants are lost when their time is up, but places in
// queues are kept: if the session has survived, its waiting Locks are where they
// were. If the cluster has ended the session, they are queued again, at the end,
// in a new session.
//
// # Stability
//
// From release 0.1.0 on, exported names change with a minor release only, and CHANGELOG
// describes how. Structs may get fields, and named strings values, in any release. The
// comment of a name that is less stable says so.
//
// # Inside
//
// Objects, and who owns which goroutine:
//
//   - Client: the current session, retiring sessions, and the backend.
//   - session: grants, unanswered operations by sequence, the time until which
//     it is valid. One goroutine each (session.run) sends keep-alives and
//     ends grants whose time is up. It ends with the session; Close joins it.
//   - op: one operation that is retried until it has a final answer. It has
//     no goroutine: answers arrive on the backend's, retries on timers.
//   - remote: the backend behind Dial. It knows endpoints and members by their
//     addresses. While it has no leader, one goroutine searches; Close joins it. An
//     error of it says why a node is not reached, and what to check (trouble.go).
//
// Invariants:
//
//   - a grant is returned only while now < bound(session) and now < bound(grant)
//   - bound(D) = t + (D-C)·0.99 - 10 ms, for a deadline D in cluster time and the
//     request, of all that were first sent at a local time t and applied at a
//     cluster time C, for which that is latest (see ticket), but never later than
//     a TTL after the answer that brought D arrived, whatever its stamp says
//   - every revocation of a grant that the session holds has been received, or the
//     grant was given after the last answer that showed a gap in the revocations
//   - no sequence is acknowledged whose answer is still needed
//   - a lock that was acquired is returned to its caller, or its release or the
//     end of its session is sent; of a detached acquire, either its caller got
//     the answer or the request that ends its session names it
//   - the end of a session is sent after the answers to its releases of lost grants
//     whose delay must not be skipped
//
// Mutexes are taken in the order Client.mu, session.mu; neither is held while
// the backend, a context or a caller's function is called.
//
// Files, from what a program calls to the wire:
//   - client.go is a Client: Dial, Close. options.go has the options; errors.go every
//     error and what to do about it.
//   - lock.go acquires (Lock, TryLock, Do); look.go keeps tries of a held lock out of the log;
//     mutex.go is Mutex and Guard; grant.go is what is held; release.go releases it;
//     detached.go is for grants without a session; read.go reads.
//   - status.go has the state of a node, and the members.
//   - admin.go, operator.go and operator_nodes.go are the calls of an operator, rights.go those
//     about access tokens and policies; command.go sends what changes
//     something and belongs to no grant.
//   - session.go keeps a session alive and wakes when the time of a grant is up; clock.go says
//     until when a grant is valid, clock_linux.go and clock_other.go read the clock; loss.go
//     ends the grants whose time is up, and reports it.
//   - op.go retries one operation until it has a final answer.
//   - remote.go is the backend behind Dial, remote_admin.go its calls of an operator; link.go
//     is the stream in use; peer.go a node and the connections to it.
//   - endpoints.go has the addresses of the members; lookup.go resolves names; search.go finds
//     the leader, survey.go asks all nodes at once; trouble.go says why a node is not reached.
//   - secure.go is for TLS: the options, and which certificates a connection uses. token.go has
//     the access token: when it is asked for, where it is sent, and what a refusal means.
package client
