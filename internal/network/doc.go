// Package network has what lies between Raft and the network.
//
// Objects:
//   - [Transport] is a raft.Transport whose heartbeats change Raft on its main goroutine
//     only, that never pipelines, that keeps from Raft what would end the process or exhaust
//     its memory, and that sends nothing while the disk is stalled or has failed.
//   - [Stream] is the plain TCP layer below it: bounds for connections, a handshake in which
//     both ends say who they are and whom they mean, a call back to the node that dialled,
//     records with checksums, hooks for TLS.
//   - [HandOver] gives leadership away without Raft's own transfer, which can get stuck.
//   - [NewRaft], [Shutdown] and [Stop] start a Raft on stores and a transport, and end it
//     within a deadline.
//
// Invariants:
//   - Nothing but the preface is read from a connection before the node that the preface
//     names has confirmed it, at its known address or, if there is none, at the one in the
//     preface.
//   - No term and no index reaches Raft that is implausibly far ahead of its own.
//   - A vote or an answer counts only for the member that gave it, whatever its address.
//   - While the gate is closed (see disk.Stores.Gate) nothing is sent.
//
// Goroutines: a Stream owns its accept loop and one goroutine per handshake, all ended by
// Close. A Transport owns one that passes requests to Raft, one for each refused snapshot
// whose bytes it reads, and those of raft.NetworkTransport; they end with Close.
//
// Files, from the wire to Raft:
//   - stream.go accepts and dials; room.go bounds the connections; preface.go is the
//     handshake, greet.go its client side for tests and tools, callback.go the call back;
//     seal.go has the records; ask.go does a handshake only to ask who is there.
//   - conn.go gates a connection; decodelimits.go bounds what may be decoded from one.
//   - transport.go passes requests to Raft, and Raft's to others; member.go has addresses
//     that name members; unreachable.go waits for peers that do not answer; contact.go
//     records when a peer last answered.
//   - heartbeat.go answers heartbeats. Requests that must not reach Raft as they are:
//     refuse.go refuses damaged ones and wrong senders, plausible.go numbers too far ahead,
//     votes.go votes before the joining; commit.go lowers commit indexes, and
//     silentleader.go lets votes pass where the leader is silent.
//   - durable.go keeps what a leader has not written yet from having consequences.
//   - handover.go hands leadership over; shutdown.go starts and ends Raft.
package network
