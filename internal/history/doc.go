// Package history records what clients of a cluster asked, were told and
// believed, and what the nodes applied, and checks it against the promises S1 to
// S9 of docs/design.md.
//
// Objects:
//   - a [History] is the record: plain data, which can be written down and read
//     back;
//   - a [Recorder] collects one while a cluster runs: calls and answers from an
//     interceptor of the client's streams, beliefs from the client's trace,
//     applied entries from the nodes' hook;
//   - [History.Check] judges it, by several independent ways.
//
// All times of one history are readings of one clock, which nobody skews: the
// virtual clock of a simulation, or the monotonic clock of the process that all
// clients run in. A clock of a client or a node never appears in it.
package history
