package main

// strangerMutants are about who belongs to a cluster and who does not.
var strangerMutants = []mutant{
	{
		name:    "join-takes-any-name",
		breaks:  "a leader accepts a node that belongs to a cluster with another name",
		promise: "membership",
		changes: []change{{"internal/membership/join.go", "	if req.GetClusterName() != m.cfg.ClusterName {\n", "	if false {\n"}},
		caught:  []catcher{named("./internal/membership", "TestNodeOfAnotherClusterNameIsNotTakenIn")},
	},
	{
		name:    "gossip-of-other-names-is-heard",
		breaks:  "gossip ignores the cluster name",
		promise: "membership",
		changes: []change{{"node/join.go", "Label: n.cfg.ClusterName, ", ""}},
		caught:  []catcher{named("./node", "TestClustersOfDifferentNamesMayHaveTheSameIDs")},
	},
	{
		name:    "fresh-node-joins-who-finds-it",
		breaks:  "a new node joins any cluster that finds it",
		promise: "membership",
		changes: []change{{"cluster/strangers.go", "	if !c.on || own.ClusterID", "	if true || own.ClusterID"}},
		caught: []catcher{
			named("./node", "TestAFounderDoesNotJoinAClusterThatRemembersItsAddress"),
			named("./cluster", "TestAFreshNodeIsNotFoundByStrangers"),
		},
	},
	{
		name:    "removed-members-are-looked-for",
		breaks:  "the last address of a peer that is not a member is dialled for ever",
		promise: "membership",
		changes: []change{{"cluster/peers.go", "	if t.members == nil {\n		return\n", "	if true {\n		return\n"}},
		caught:  []catcher{named("./cluster", "TestNobodyLooksForWhoIsNoMemberAnyMore")},
	},
	{
		name:    "strangers-are-remembered-as-seeds",
		breaks:  "a node remembers the addresses of peers that are not members",
		promise: "membership",
		changes: []change{{"node/seeds.go", "p.Formed && members[p.NodeID] && (", "p.Formed && ("}},
		caught:  []catcher{named("./node", "TestPeersThatAreNotMembersAreNotRemembered")},
	},
	{
		name:    "identity-before-the-addresses",
		breaks:  "a new data directory is bound to an ID by a node that could not start",
		promise: "configuration",
		changes: []change{{"node/node.go", "		BeforeNew: func() error { return n.bind(ctx) },\n", ""}},
		caught:  []catcher{named("./node", "TestAFirstStartMayBeCorrected")},
	},
	{
		name:    "directory-changes-hands",
		breaks:  "a data directory that belongs to a member is opened under another ID",
		promise: "membership",
		changes: []change{{"internal/disk/identity.go", "	return !id.HasState && !id.HasLog && len(id.Promise) == 0 && id.ClusterID == \"\" && id.VotesFrom == 0 && id.Diverged == \"\"\n", "	return true\n"}},
		caught:  []catcher{named("./internal/disk", "TestDirectoryBelongsToOneNodeID")},
	},
	{
		name:    "advertised-host-takes-a-port",
		breaks:  "a node advertises a host that includes a port",
		promise: "configuration",
		changes: []change{{"internal/address/address.go", "	if strings.Contains(host, \":\") {\n		return \"\", withPort(s)\n", "	if strings.Contains(host, \":\") {\n		return host, nil\n"}},
		caught: []catcher{
			named("./internal/address", "TestHostIsWhatOthersDial"),
			named("./cmd/locknode", "TestServeReportsAllFaultsAtOnce"),
		},
	},
	{
		name:    "unresolved-name-ends-the-node",
		breaks:  "a node whose advertised name has no address yet does not start",
		promise: "configuration",
		changes: []change{{"cluster/cluster.go", "		c.wait(mc, cfg.Advertise, err)\n		return c, nil\n", "		c.gate.abandon()\n		return nil, err\n"}},
		caught:  []catcher{named("./cluster", "TestGossipBeginsWhenTheAdvertisedNameHasAnAddress")},
	},
	{
		name:    "misspelled-variables-are-silent",
		breaks:  "a variable whose name is misspelt is ignored without a message",
		promise: "configuration",
		changes: []change{{"cmd/locknode/serve.go", ", a.environmentFault())", ")"}},
		caught:  []catcher{named("./cmd/locknode", "TestServeReportsAllFaultsAtOnce")},
	},
	{
		name:    "faults-come-in-two-rounds",
		breaks:  "settings that contradict each other are reported only once each is valid by itself",
		promise: "configuration",
		changes: []change{{"cmd/locknode/serve.go", "together(cfg), ", ""}},
		caught:  []catcher{named("./cmd/locknode", "TestServeReportsAllFaultsAtOnce")},
	},
	{
		name:    "loopback-is-not-said",
		breaks:  "a node that listens only on loopback does not log that other machines cannot reach it",
		promise: "configuration",
		changes: []change{{"node/bind.go", "	n.warnLoopback()\n", ""}},
		caught:  []catcher{named("./node", "TestLoopbackIsSaidInTheLog")},
	},
	{
		name:    "seeds-lead-nowhere-through-mapped-ports",
		breaks:  "a seed at an address that no member has does not lead to the cluster",
		promise: "liveness",
		changes: []change{{"cluster/join.go", "c.circle.isGiven(addr) && c.circle.vouch(err)", "c.circle.isGiven(addr) && false"}},
		caught:  []catcher{named("./cluster", "TestASeedLeadsThroughAMappedPort")},
	},
	{
		name:    "peer-that-is-elsewhere-stays-alive",
		breaks:  "a node of another cluster that answers at a peer's address counts as that peer",
		promise: "membership",
		changes: []change{{"cluster/peers.go", "time.Now(), true\n	t.changeLocked()", "time.Now(), true\n	e.peer.State = Alive\n	t.changeLocked()"}},
		caught:  []catcher{named("./cluster", "TestAPeerThatBelongsElsewhereIsNotAlive")},
	},
}
