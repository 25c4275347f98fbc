package main

const (
	secured   = "./internal/secure"
	transport = "TLS"
)

var secureMutants = []mutant{
	{
		name:    "required-port-takes-plain-text",
		breaks:  "a port that takes only TLS is as open as a permissive one",
		promise: transport,
		changes: []change{{"internal/secure/port.go", "	case p.o.Mode == Permissive:\n", "	case p.o.Mode != Off:\n"}},
		caught: []catcher{
			named(secured, "TestARequiredPortAnswersPlainTextAndClosesIt"),
			named("./node", "TestAClusterThatRequiresTLSServesClientsInTLSOnly"),
		},
	},
	{
		name:    "first-byte-is-lost",
		breaks:  "the byte by which TLS and plain text are told apart is not read again",
		promise: transport,
		changes: []change{{"internal/secure/conn.go", "	if len(w.first) > 0 && len(b) > 0 {\n", "	if w.first = nil; len(w.first) > 0 && len(b) > 0 {\n"}},
		caught:  []catcher{named(secured, "TestAPermissivePortTakesBothAndLosesNoByte")},
	},
	{
		name:    "plain-text-when-tls-is-required",
		breaks:  "a node that requires TLS calls another one in plain text if that has none",
		promise: transport,
		changes: []change{{"internal/secure/dial.go", "	if d.Mode != Permissive {\n", "	if d.Mode == Off {\n"}},
		caught: []catcher{
			named(secured, "TestADialerFallsBackOnlyIfNoTLSIsSpokenThere"),
			named("./internal/network", "TestPlainTextIsRefusedWithAReasonOnBothSides"),
		},
	},
	{
		name:    "plain-text-after-any-failure",
		breaks:  "a permissive node calls another one in plain text after any handshake that failed, also where the certificate was refused",
		promise: transport,
		changes: []change{{"internal/secure/dial.go", "	return errors.As(err, &notTLS) && notTLS.Conn != nil\n", "	return errors.As(err, &notTLS) || err != nil\n"}},
		caught:  []catcher{named(secured, "TestADialerFallsBackOnlyIfNoTLSIsSpokenThere")},
	},
	{
		name:    "handshakes-have-no-bound",
		breaks:  "any number of strangers can be in their handshakes",
		promise: transport,
		changes: []change{{"internal/secure/port.go", "	if len(p.shaking) >= maxHandshakes {\n", "	if len(p.shaking) >= 1<<30 {\n"}},
		caught:  []catcher{named(secured, "TestAMemberGetsThroughBesideAnyNumberOfHandshakes")},
	},
	{
		name:    "handshake-of-any-length",
		breaks:  "a stranger can have a node buffer as much of a handshake as crypto/tls takes",
		promise: transport,
		changes: []change{{"internal/secure/conn.go", "	if w.left <= 0 {\n", "	if w.left = handshakeBytes; w.left <= 0 {\n"}},
		caught:  []catcher{named(secured, "TestAHandshakeIsBoundedInBytes")},
	},
	{
		name:    "greeting-is-not-compared",
		breaks:  "a node can say in Raft's handshake that it is another one than its certificate names",
		promise: identity,
		changes: []change{{"internal/network/stream.go", "who.Role != certs.Node || who.Name != from {", "who.Role != certs.Node || from == \"\" {"}},
		caught: []catcher{
			named("./internal/network", "TestOnlyTheCertificateOfTheNodeThatIsMeantPasses"),
			named("./internal/network", "TestAQuestionIsAnsweredToTheNodeOfTheCertificate"),
		},
	},
	{
		name:    "any-node-answers",
		breaks:  "a node that dials another one accepts the certificate of any node of the cluster",
		promise: identity,
		changes: []change{{"internal/secure/dial.go", "	if who.Name != member {\n", "	if who.Name == \"\" {\n"}},
		caught:  []catcher{named("./internal/network", "TestOnlyTheCertificateOfTheNodeThatIsMeantPasses")},
	},
	{
		name:    "clients-on-the-raft-port",
		breaks:  "the Raft port takes the certificates of clients",
		promise: identity,
		changes: []change{{"node/secure.go", "Config: source.ServePeers(nil), Answer: network.RefusePlain", "Config: source.ServeClients(true), Answer: network.RefusePlain"}},
		caught:  []catcher{named("./node", "TestRaftRefusesACertificateThatIsNoMembers")},
	},
	{
		name:    "client-greets-as-a-node",
		breaks:  "a client's certificate counts in Raft's handshake as that of a node",
		promise: identity,
		changes: []change{{"internal/network/stream.go", "!ok || who.Role != certs.Node ||", "!ok || who.Role == certs.Role(\"\") ||"}},
		caught:  []catcher{named("./internal/network", "TestAClientDoesNotGreetAsANode")},
	},
	{
		name:    "removed-nodes-keep-their-raft",
		breaks:  "Raft of a node that has a leader lets in every certificate of the cluster",
		promise: identity,
		changes: []change{{"internal/network/refuse.go", "	if m == nil || t.inConfiguration(id) {\n		return nil\n	}\n	led", "	if m == nil || t.inConfiguration(id) || id != \"\" {\n		return nil\n	}\n	led"}},
		caught:  []catcher{named("./node", "TestRaftRefusesACertificateThatIsNoMembers")},
	},
	{
		name:    "clients-call-as-nodes",
		breaks:  "the nodes' own service answers clients",
		promise: identity,
		changes: []change{{"internal/server/identity.go", "	if !ok || who.Role != certs.Node {\n		return apiv1", "	if !ok {\n		return apiv1"}},
		caught:  []catcher{named("./node", "TestTheNodesOwnServiceIsForMembers")},
	},
	{
		name:    "join-for-another-node",
		breaks:  "a node that is no member can ask that another one joins",
		promise: identity,
		changes: []change{{"internal/server/identity.go", "join.GetNodeId() != who.Name && member != nil", "join.GetNodeId() == \"\" && member != nil"}},
		caught:  []catcher{named("./node", "TestTheNodesOwnServiceIsForMembers")},
	},
	{
		name:    "http-without-a-certificate",
		breaks:  "HTTP serves clients without a certificate where they need one",
		promise: identity,
		changes: []change{{"internal/server/identity.go", "	if !s.cfg.NeedCertificate || ", "	if s.cfg.NeedCertificate || "}},
		caught:  []catcher{named("./node", "TestClientsNeedCertificatesWithAClientCA")},
	},
}
