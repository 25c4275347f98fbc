package node

import (
	"fmt"
	"net"
	"syscall"
)

// Every connection is an open file, and a process may open only so many of them. Clients
// can take as many as they like; a node that has none left for the next segment of its
// log has to end, and one that has none left for its peers is as good as dead. So
// connections that come in never get the last ones:
//
//   - a connection to Raft or gossip leaves an eighth of all for the log, for snapshots
//     and for the connections that the node itself opens, and at most 512;
//   - a connection of a client leaves twice as many.
//
// They are not counted, because a program that embeds a node has files of its own. The
// system gives a new file the lowest number that is free: what is never given to a
// connection is the range of the highest numbers, and there is always room in it for the
// rest.

// maxReserve bounds what connections of clients leave. A node with a table of some
// gigabytes has a few hundred segments of its log open.
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

// leaveToDisk does the same for a connection of a peer, or of who says so.
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

// fileNumber is the number of the file that a connection is; in a simulation it is none.
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
