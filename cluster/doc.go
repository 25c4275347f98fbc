// Package cluster finds out who else is there, with gossip, and decides when
// nodes that have no cluster yet may form one. It knows neither Raft nor locks:
// gossip is a hint, Raft's configuration is the truth.
//
// It is exported for package node and is not stable: it may change in any release.
//
// # Objects and goroutines
//
// A [Cluster] wraps one memberlist. It owns two goroutines, both joined in
// Close: the join loop (contacts seeds and lost peers) and the publish loop
// (hands a changed [Meta] to memberlist); and one before them as long as the name
// that is to be advertised has no address. memberlist owns its own; its callbacks
// (delegate.go) run under its lock and only update the table of peers.
//
// The table remembers failed and left peers, which memberlist forgets after some
// seconds. A peer counts as left only if it said so itself in its meta before it
// went (see [Cluster.Leave]); one that merely stopped is failed, and expected
// back.
//
// A node that belongs to no cluster yet accepts other fresh nodes, and members only of the
// clusters that its seeds lead to (strangers.go). So a cluster that looks for a lost peer at
// an address does not admit a node that has this address now and was given seeds or told to
// expect others. With a label, packets without it are dropped.
//
// A peer of another cluster (another non-empty cluster ID) is refused in every
// alive message and in every exchange of state. A node ID belongs to one address as long as
// that is alive. A restarted node with a changed address is accepted once the old address is
// known to have failed or to have been stopped; its join loop tries until then.
//
// # Forming a cluster
//
// Nodes that have no Raft state agree on the first configuration with [Agree].
// Each is told to expect N voters. Its steps, each only after the one before:
//
//  1. It sees itself and exactly N-1 other fresh voters alive, all expecting N,
//     and no node that belongs to a cluster. Their sorted list of (node ID, Raft
//     address) is its intent, and it gossips the intent's hash. With more than N
//     it waits: any choice among them could be made differently elsewhere.
//  2. All N gossip the same hash, as an intent or as a promise, and nobody has
//     promised anything else. It promises the list: the list goes to disk first,
//     then the hash into gossip. It never promises another list.
//  3. All N have gossiped the promise, or a founder that belongs to a cluster by
//     now has. It writes down that it has state, says so in gossip, and starts
//     Raft with exactly this list.
//
// Why this never makes two clusters out of one set of N nodes:
//
//   - A list is only ever used to bootstrap after each of its N members has
//     promised it. A member promises one list in its life. So two lists that are
//     both used have no member in common, and need 2N nodes.
//   - Two halves of the N nodes that do not see each other count fewer than N
//     each and promise nothing. If they are cut apart after some have promised,
//     what can be formed is still only that one list, by Raft's majority.
//   - The list holds the addresses, so all N start with the same first log entry,
//     byte for byte. An address that changes after the promise does not change the
//     list; membership follows it later.
//   - Step 1 comes from gossip, which may be old, partial and different on each
//     node. Nothing above depends on it being right, only on promises being kept.
//
// The intent is for availability, not for safety. Without it four nodes that were told to
// expect three could promise different lists while they find each other, and be stuck for
// good. With it they wait, report why, and go on as soon as one is stopped.
//
// Limits. Two groups of N fresh nodes each that do not see one another are two
// sets and form two clusters, as they were configured. A promise is as durable as
// the data directory: deleting it while the node is among the founders, and starting the
// same node ID again within the seconds in which others still gossip the old state, makes a
// voter forget its vote. Promises that contradict each
// other (a founder lost its directory between steps 2 and 3) are not resolved by
// the nodes, because none of them can know which promise others rely on; they report which
// directories to delete. A node that expects 1 forms a cluster alone after it has
// tried its seeds once.
//
// # Files
//
//   - cluster.go: the configuration, Start, Leave and Close. listen.go binds the address.
//   - join.go: the join loop: whom to contact, and when. strangers.go: which clusters a node
//     without one may join.
//   - bootstrap.go: when fresh nodes may form a cluster, as above.
//   - meta.go: what a node says about itself, in bytes. peers.go: what is known of the others.
//     delegate.go: what memberlist calls.
//   - transport.go: hears nobody before memberlist is ready. checkmessages.go: refuses what
//     memberlist must not decode. refusals.go: says why two nodes do not come to gossip.
//   - keys.go: changes the encryption keys, and has nodes agree on them. warnonce.go: logs each cause once an hour, and
//     memberlist's own lines in the words of this package.
package cluster
