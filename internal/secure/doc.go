// Package secure puts TLS under what a node listens on and dials, and lets one port take TLS
// and plain text while a cluster is moved from one to the other.
//
// Objects:
//   - [Mode] says what a node does: no TLS, both, or TLS only.
//   - [Port] is a listening port. [Port.Server] wraps an accepted connection, and returns at
//     once: the first byte of the client decides what the connection is, and the handshake
//     runs within the first Read or Write, with the deadlines that the port sets anyway.
//   - [Dialer] connects to a member and proves that it is that member. In [Permissive] mode
//     it falls back to plain text if what answers does not speak TLS, and counts that.
//   - [Conn] is a connection of either, in TLS or in plain text.
//
// Invariants:
//   - A connection of a [Required] port or dialer carries nothing that is not TLS, but for
//     the answer that says so to a client that speaks plain text.
//   - A dialer falls back only if the first bytes that the other end has sent are no TLS. An
//     end that sends nothing, hangs up, or whose certificate is refused is not asked again in
//     plain text.
//   - [Conn.Identity] is what a verified certificate says, on this very connection.
//   - Handshakes under way are bounded in number, time and bytes, and use at most half of the
//     processors, whatever strangers do: see port.go.
//   - Close never waits for the other end.
//
// Without TLS nothing of this package is between a port and its connections.
//
// Goroutines: none of its own. A handshake runs on the goroutine that reads or writes first.
//
// Files:
//   - mode.go: the modes. port.go: what a port takes, and the bounds of handshakes. conn.go:
//     a connection. dial.go: the other end. words.go: why a handshake failed, in words that
//     say what to do.
package secure
