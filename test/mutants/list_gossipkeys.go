package main

const (
	rings     = "./internal/gossipkeys"
	keySecret = "the keys of gossip are for nodes of the cluster"
	keyOrder  = "no member is cut off by a rotation"
)

var gossipKeyMutants = []mutant{
	{
		name:    "key-is-used-before-all-have-it",
		breaks:  "a gossip key encrypts while a member lacks it",
		promise: keyOrder,
		changes: []change{{"node/gossipkeys_operator.go", "		case !slices.Contains(m.prints, f):\n			lack", "		case f == \"\":\n			lack"}},
		caught:  []catcher{named("./node", "TestAKeyIsNotUsedWhileAMemberLacksIt")},
	},
	{
		name:    "silent-members-have-every-key",
		breaks:  "a gossip key encrypts though a member that may lack it does not answer",
		promise: keyOrder,
		changes: []change{{"node/gossipkeys_operator.go", "		case m.fault != nil && withoutSilent:\n		case m.fault != nil:\n			return silentMember(m)\n		case !slices", "		case m.fault != nil:\n		case !slices"}},
		caught:  []catcher{named("./node", "TestAKeyIsNotUsedWhileAMemberIsSilent")},
	},
	{
		name:    "primary-key-is-removed-everywhere",
		breaks:  "the leader removes a gossip key with which members encrypt",
		promise: keyOrder,
		changes: []change{{"node/gossipkeys_operator.go", "		case m.primary() == f:\n", "		case m.primary() == \"\":\n"}},
		caught:  []catcher{named("./node", "TestAGossipKeyIsRotatedInOrder")},
	},
	{
		name:    "primary-key-is-removed",
		breaks:  "a node removes the gossip key with which it encrypts",
		promise: keyOrder,
		changes: []change{{"internal/gossipkeys/ring.go", "	case i == 0:\n		return r, fmt.Errorf(\"gossip key %s: encrypts", "	case i < -1:\n		return r, fmt.Errorf(\"gossip key %s: encrypts"}},
		caught:  []catcher{named(rings, "TestTheKeyThatEncryptsIsNotRemoved")},
	},
	{
		name:    "clients-get-the-gossip-keys",
		breaks:  "the certificate of a client gets the keys of gossip",
		promise: keySecret,
		changes: []change{{"node/gossipkeys.go", "Config: n.security.source.ServePeers(nil),", "Config: n.security.source.ServeClients(true),"}},
		caught:  []catcher{named("./node", "TestOnlyNodesOfTheClusterGetTheGossipKeys")},
	},
	{
		name:    "strangers-replace-the-gossip-keys",
		breaks:  "a node that is no member replaces the keys of a cluster",
		promise: keySecret,
		changes: []change{{"node/gossipkeys.go", "	return n.memberOnly(id) == nil\n", "	return true\n"}},
		caught:  []catcher{named("./node", "TestKeysOfANodeThatIsNoMemberAreNotTaken")},
	},
	{
		name:    "another-cluster-gets-the-keys",
		breaks:  "a node that belongs to another cluster with the same CA and name gets the keys of gossip",
		promise: keySecret,
		changes: []change{{"node/gossipkeys.go", "o.Cluster != \"\" && own.Cluster != o.Cluster {", "o.Cluster == \"\" && own.Cluster != own.Cluster {"}},
		caught:  []catcher{named("./node", "TestKeysOfANodeThatIsNoMemberAreNotTaken")},
	},
	{
		name:    "a-cluster-takes-a-made-up-key",
		breaks:  "the key that a fresh node has made up replaces that of the cluster",
		promise: keyOrder,
		changes: []change{{"internal/gossipkeys/ring.go", "	r.Version = cmp.Or(r.Version, 1)\n", "	r.Version = cmp.Or(r.Version, 0)\n"}},
		caught:  []catcher{named(rings, "TestAMadeUpKeyNeverReplacesThatOfACluster")},
	},
	{
		name:    "older-keys-win",
		breaks:  "a node that was away while keys were rotated brings the old ones back",
		promise: keyOrder,
		changes: []change{{"internal/gossipkeys/ring.go", "		return r.Version > o.Version\n", "		return r.Version < o.Version\n"}},
		caught:  []catcher{named(rings, "TestOfTwoRingsThatDifferOneIsNewer")},
	},
	{
		name:    "a-removed-key-comes-back",
		breaks:  "a gossip key that was removed is there again after a restart, because the settings have it",
		promise: keySecret,
		changes: []change{{"internal/gossipkeys/store.go", "len(o.Configured) > 0 && f != taken {", "len(o.Configured) > 0 && f != \"\" {"}},
		caught:  []catcher{named(rings, "TestTheRingSurvivesARestart")},
	},
	{
		name:    "gossip-keys-for-everybody",
		breaks:  "every user of the machine can read the file with the gossip keys",
		promise: keySecret,
		changes: []change{{"internal/gossipkeys/file.go", "f.Chmod(0o600)", "f.Chmod(0o644)"}},
		caught:  []catcher{named(rings, "TestTheRingSurvivesARestart")},
	},
	{
		name:    "gossip-key-in-plain-text",
		breaks:  "an operator's gossip key is taken though it came in plain text from another machine",
		promise: keySecret,
		changes: []change{{"internal/server/operator_nodes.go", "len(r.GetInstall()) > 0 && !secret(grpcConn(ctx))", "len(r.GetInstall()) > 1<<20 && !secret(grpcConn(ctx))"}},
		caught:  []catcher{named("./internal/server", "TestAGossipKeyIsNotTakenInPlainTextFromElsewhere")},
	},
	{
		name:    "anybody-changes-a-nodes-keys",
		breaks:  "who is no node of the cluster changes the gossip keys of one node alone",
		promise: keyOrder,
		changes: []change{{"internal/server/unary.go", "	if !p.server.isPeer(ctx) {\n", "	if p.server == nil {\n"}},
		caught:  []catcher{named("./internal/server", "TestOnlyPeersChangeTheGossipKeysOfANode")},
	},
	{
		name:    "a-given-certificate-names-anybody",
		breaks:  "an embedded node runs with a certificate of another node or of a client",
		promise: identity,
		changes: []change{{"internal/certs/given.go", "	if err := s.check(b); err != nil {\n", "	if err := s.check(b); err != nil && false {\n"}},
		caught:  []catcher{named("./internal/certs", "TestAConfigurationThatCannotBeUsedIsRefused")},
	},
	{
		name:    "plain-text-by-its-port",
		breaks:  "the log names a client in plain text by the port of its first connection",
		promise: transport,
		changes: []change{{"node/secure.go", "is permissive\", \"listener\", listener, \"from\", hostOf(from.String()))", "is permissive\", \"listener\", listener, \"from\", from.String())"}},
		caught:  []catcher{named("./node", "TestConnectionsInPlainTextAreLoggedByTheirHost")},
	},
}
