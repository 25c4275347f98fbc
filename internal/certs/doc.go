// Package certs has the certificates of nodes and clients: it makes them, reads them, notices
// when their files change, and says whose connection is accepted. It imports the standard
// library alone.
//
// An [Identity] is whom a certificate names: a node or a client, of which cluster. It is a URI in
// the certificate, locknode://CLUSTER/node/ID or locknode://CLUSTER/client/NAME, where CLUSTER is
// setting cluster_name; a cluster without a name has none there either (locknode:///node/n1). As
// CLUSTER is the host of a URI, a few names of clusters cannot stand there: [CheckCluster].
//
// A [Source] is what a process knows from its files: its own certificate and the CAs. It has a
// configuration for each of four kinds of connections. At each handshake they use what was
// read last, so that nothing else has to know of reloads:
//
//	                 accepts                                                 method
//	port for nodes   nodes of the own cluster                                [Source.ServePeers]
//	to a node        the node that is expected, of the own cluster           [Source.DialPeer]
//	port for all     anybody, or only clients and nodes with certificates    [Source.ServeClients]
//	to a server      a server that has the name that was dialled             [Source.DialServer]
//
// DialServer alone uses the CAs of the moment in which it is called: host names of IP addresses
// are not in what crypto/tls shows to a callback, so it leaves that check to crypto/tls. A
// client calls it for each connection. The names of protocols (NextProtos) are the caller's to
// set. [Source.Explain] says why it has refused a server; the others say it themselves.
//
// Invariants:
//   - Only a certificate with exactly one URI of a node of the own cluster, signed by a CA of
//     [Files.CA], passes as a node. A CA that is only in [Files.ClientCA] cannot make one.
//   - What is in use fits together: the key is that of the certificate, and a CA that is in use has
//     signed it. Files that do not fit are never used, and what was in use stays.
//   - No handshake is shortened by an earlier one: there are no session tickets.
//   - A private key leaves the process only into files that its user alone can read.
//
// The package starts no goroutine: the caller of [Source.Watch] owns the one that it runs in.
//
// Files:
//   - identity.go: whom does a certificate name? make.go: how is one made? write.go: how do files
//     get to their places? owner_unix.go and owner_other.go: whose are they then?
//   - read.go: what is in a file? load.go: do the files fit each other? source.go: what is in use,
//     and when is it read again? given.go: what if a program gives a configuration in place of files? warn.go: what should an operator know?
//   - verify.go: whose connection is accepted? explain.go: why was it not?
//   - inspect.go: what are these files, and what can they be used for? words.go has the words
//     for names and times.
package certs
