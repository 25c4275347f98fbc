// Package simnet is a network in memory: hosts, streams and datagrams between
// them, and faults. It is made for simulations of whole clusters in a
// testing/synctest bubble, where a real socket would stop virtual time, and works
// outside of one as well.
//
// Objects:
//   - [Network] holds the hosts and the faults. Each ordered pair of hosts has a
//     link with its own latency, cut and source of randomness.
//   - [Host] is one machine during one run: connections and listeners from before a
//     [Network.Kill] or [Network.PowerOff] refuse everything from then on, so that
//     goroutines of an ended process reach no other host.
//   - Connections are net.Conn with the addresses, deadlines and errors of TCP.
//   - [Packets] is a memberlist.NodeAwareTransport.
//
// Invariants:
//   - The bytes of a stream arrive in order, each once, or the reader gets an
//     error; what was written before Close arrives before io.EOF does.
//   - At most Options.Window bytes are in flight in each direction; a writer of more waits.
//   - All waiting is on channels and timers made in the caller's bubble.
//     Mutexes are held for short sections only, in the order Network, pair, link.
//   - Nothing depends on the order of a map: with a deterministic scheduler the
//     same seed and calls give the same run.
//
// Left out: bandwidth, congestion, and the time that acknowledgements take.
// TCP's timeouts are those of Linux and Go: a dial gives up after 127 s, a connection on
// which nothing arrives after 150 s.
// Loopback addresses are aliases of the host's own.
//
// Goroutines: none, except one short call for each datagram in flight.
//
// Files:
//   - network.go: the options, and all hosts. host.go: one of them. link.go: the path from one
//     to another.
//   - dial.go: how is a connection made? conn.go: one end of it. pair.go: both, and the bytes
//     in flight. packets.go: datagrams, for memberlist.
//   - faults.go: which faults are there?
package simnet
