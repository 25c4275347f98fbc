// Package certs has the certificates of nodes and clients: it makes them, reads them, notices
// when their files change, and says whose connection is accepted.
//
// An [Identity] is whom a certificate names: a node or a client, of which cluster. It is a URI in
// the certificate, locknode://CLUSTER/node/ID or locknode://CLUSTER/client/NAME, where CLUSTER is
// setting cluster_name; a cluster without a name has none there either (locknode:///node/n1).
//
// A [Source] is what a process knows from its files: its own certificate and the CAs. It gives out
// configurations for the four kinds of connections, all of which use what was read last, at
// each handshake:
//
//	                 accepts                                                 method
//	port for nodes   nodes of the own cluster                                [Source.ServePeers]
//	to a node        the node that is expected, of the own cluster           [Source.DialPeer]
//	port for all     anybody, or only clients and nodes with certificates    [Source.ServeClients]
//	to a server      a server that has the name that was dialled             [Source.DialServer]
//
// Files:
//   - identity.go: whom does a certificate name?
//   - source.go: what is in use, and when is it read again?
package certs
