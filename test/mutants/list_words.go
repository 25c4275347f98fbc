package main

// wordMutants are bugs of what people are told.
var wordMutants = []mutant{
	{
		name:    "encrypted-gossip-is-a-number",
		breaks:  "a node without a key logs only the message type of encrypted gossip",
		promise: "liveness",
		changes: []change{{"cluster/checkmessages.go", "		return errEncrypted\n", "		return fmt.Errorf(\"messages of type %d are not taken here\", t)\n"}},
		caught:  []catcher{named("./cluster", "TestGossipTroubleIsToldOnBothSides")},
	},
	{
		name:    "seeds-are-not-explained",
		breaks:  "a node whose seed is not a gossip port does not say so",
		promise: "liveness",
		changes: []change{{"cluster/join.go", "				whys[i] = c.gate.dialled.of(addr, err)\n", "				whys[i] = err\n"}},
		caught:  []catcher{named("./cluster", "TestSeedThatIsNoGossipPortIsToldInPlainWords")},
	},
	{
		name:    "strangers-choose-their-cause",
		breaks:  "each refused message with another reason is another line in the log",
		promise: "bounds",
		changes: []change{{"cluster/warnonce.go", "	if slices.Contains(lasting, why) {\n		cause", "	if slices.Contains(lasting, why) || why != nil {\n		cause"}},
		caught:  []catcher{named("./cluster", "TestRefusedMessagesOfAllKindsAreOneCause")},
	},
	{
		name:    "calls-between-nodes-speak-grpc",
		breaks:  "the error of a call between nodes is in grpc's words",
		promise: "liveness",
		changes: []change{{"node/trouble.go", "	e.text = fmt.Sprintf(\"node %q at %s: %s\", at.id, at.api, e.text)\n", "	e.text = fmt.Sprintf(\"node %q at %s: %v\", at.id, at.api, err)\n"}},
		caught:  []catcher{named("./node", "TestCallsToOtherNodesFailInPlainWords")},
	},
}
