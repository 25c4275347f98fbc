package network

import "net"

// Greet does the handshake of a [Stream] on a connection to the node to, in the name of any
// node. at is the Raft address in its preface, own the cluster. A stranger that speaks the
// protocol can do as much; it is for simulations and tests, members have a Stream.
//
// It waits for the answer until the connection's deadline. After an error the connection
// must be closed.
func Greet(c net.Conn, as, to, at string, own ClusterIdentity) (net.Conn, error) {
	nonce := newNonce()
	hello := preface{say: sayHello, cluster: own.hashed(nonce), from: as, to: to, raft: at, nonce: nonce}
	theirs, err := clientPreface(c, hello, own)
	if err != nil {
		return nil, err
	}
	return seal(c, nonce, theirs.nonce, true), nil
}
