package node

import (
	"fmt"
	"net"
	"syscall"
)

// Every connection is an open file, and the number of open files of a process is limited.
// Clients can open as many connections as they like. A node that has no file left for the
// next segment of its log has to end, and one that has none left for its peers is of no use.
// So incoming connections never get the last ones:
//
//   - a connection to Raft or gossip leaves an eighth of all for the log, for snapshots
//     and for the connections that the node itself opens, and at most 512;
//   - a connection of a client leaves twice as many.
//
// The files are not counted, because a program that embeds a node has files of its own.
// Instead the number of a file decides: the system gives a new file the lowest number that
// is free. So a connection with one of the highest numbers is refused, and those numbers
// are left for everything else.

// maxReserve bounds how many files connections of clients leave. A node with a table of
// some gigabytes has a few hundred segments of its log open.
const maxReserve = 1024

// reserve is how many files connections of clients leave when the process may open limit.
func reserve(limit uint64) uint64 {
	return min(max(limit/4, 64), limit/2, maxReserve)
}

// clientFiles is how many files connections of clients may take; 0: there is no limit, and
// a simulated connection is no file.
func (n *Node) clientFiles() int {
	limit, ok := fileLimit()
	if !ok || n.cfg.seams.Network != nil || limit > 1<<31-1 {
		return 0
	}
	return int(limit - reserve(limit))
}

// leaveToPeers refuses a connection of a client that would take a file which is kept for
// the node itself and for its peers.
func leaveToPeers(c net.Conn) error {
	limit, ok := fileLimit()
	if !ok {
		return nil
	}
	return refuseLast(c, limit, reserve(limit))
}

// leaveToDisk does the same for a connection to Raft or gossip, of a peer or a stranger.
func leaveToDisk(c net.Conn) error {
	limit, ok := fileLimit()
	if !ok {
		return nil
	}
	return refuseLast(c, limit, reserve(limit)/2)
}

func refuseLast(c net.Conn, limit, last uint64) error {
	number, ok := fileNumber(c)
	if !ok || number < limit-last {
		return nil
	}
	return fmt.Errorf("the process may open %d files, and the last %d are kept for the node itself: raise the limit (ulimit -n, LimitNOFILE=)", limit, last)
}

// fileNumber returns the number of a connection's file. ok is false in a simulation, where
// a connection is no file.
func fileNumber(c net.Conn) (number uint64, ok bool) {
	sc, is := c.(syscall.Conn)
	if !is {
		return 0, false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Control(func(fd uintptr) { number = uint64(fd) })
	return number, err == nil
}
