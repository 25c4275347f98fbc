package main

var nodeMutants = []mutant{
	{
		name:    "leader-stamps-wall-time",
		breaks:  "the leader stamps what the machine's watch shows",
		promise: "T2, S2",
		changes: []change{{"node/clock.go", "	return c.base + int64(c.mono()-c.m0)\n", "	return time.Now().UnixNano()\n"}},
		caught:  []catcher{named("./node", "TestClusterTimeGoesOnWhereTheTableStood")},
	},
	{
		name:    "time-without-stamps-passes",
		breaks:  "a stamp may advance cluster time by any amount, so an outage eats the TTLs",
		promise: "T4",
		changes: []change{{"node/clock.go", "const maxAdvance = int64(time.Second)\n", "const maxAdvance = int64(time.Hour)\n"}},
		caught:  []catcher{named("./node", "TestTimeInWhichNothingIsStampedDoesNotPass")},
	},
	{
		name:    "excess-time-is-caught-up",
		breaks:  "time in which nothing was stamped is not dropped but made up for, a second for each stamp",
		promise: "T4",
		changes: []change{{"node/clock.go", "		c.base -= s - limit\n", ""}},
		caught:  []catcher{named("./node", "TestTimeInWhichNothingIsStampedDoesNotPass")},
	},
	{
		name:    "clock-of-an-earlier-term",
		breaks:  "a node that leads again goes on with the clock of its earlier term",
		promise: "T2",
		changes: []change{
			{"node/lead.go", "	clock := newLeaderClock(tableNow, n.cfg.seams.Mono)\n", "	clock := keptClock(n, tableNow)\n"},
			{
				"node/lead.go",
				"// add puts a command that nobody waits for into a batch.\n",
				`var keptClocks sync.Map

func keptClock(n *Node, tableNow int64) *leaderClock {
	kept, _ := keptClocks.LoadOrStore(n, newLeaderClock(tableNow, n.cfg.seams.Mono))
	c := *kept.(*leaderClock)
	c.last = tableNow
	return &c
}

// add puts a command that nobody waits for into a batch.
`,
			},
			{"node/lead.go", "	\"fmt\"\n", "	\"fmt\"\n	\"sync\"\n"},
		},
		caught: []catcher{named("./node", "TestALeaderThatComesBackStartsItsClockAtTheTable")},
	},
	{
		name:    "no-ticks",
		breaks:  "nothing moves cluster time while nobody asks for anything",
		promise: "T5",
		changes: []change{{"node/propose.go", "	if p.nextDue == 0 {\n		return 0, false\n	}\n	due := ", "	if p.nextDue == 0 || p.nextDue != 0 {\n		return 0, false\n	}\n	due := "}},
		caught:  []catcher{named("./node", "TestAnUnrenewedLockExpiresByTicksAlone")},
	},
	{
		name:    "keep-alives-queue-behind-acquires",
		breaks:  "a queue full of acquires refuses keep-alives",
		promise: "T5",
		changes: []change{{"node/propose.go", "	case len(p.alive.sessions) >= maxKeepAlives:\n", "	case len(p.alive.sessions) >= maxKeepAlives || len(p.queue.sizes) >= maxQueueCommands:\n"}},
		caught:  []catcher{named("./node", "TestKeepAlivesOvertakeAFullQueue")},
	},
	{
		name:    "unknown-outcome-is-told-as-failure",
		breaks:  "an entry that leadership was lost over is said to have changed nothing",
		promise: "S6",
		changes: []change{{"node/lead.go", "	default:\n		return fsm.Applied{}, fmt.Errorf(\"%w: %w\", errOutcomeUnknown, err)\n", "	default:\n		return fsm.Applied{}, fmt.Errorf(\"%w: %w\", errNotProposed, err)\n"}},
		caught:  []catcher{named("./node", "TestHowAnEntryFailsTellsWhetherItMayStillCount")},
	},
	{
		name:    "stale-stamp-is-told-as-done",
		breaks:  "the results of an entry that the table refused are handed out",
		promise: "T3",
		changes: []change{{"node/propose.go", "	if err == nil && applied.Refused != fsm.OK {\n", "	if false {\n"}},
		caught:  []catcher{named("./node", "TestAnEntryStoredInALaterTermChangesNothing")},
	},
	{
		name:    "stale-read",
		breaks:  "a leader that was deposed answers reads as if it were the leader",
		promise: "S8",
		changes: []change{{"node/read.go", "	if err := n.confirmTerm(ctx, e.term); err != nil {\n", "	if err := error(nil); err != nil {\n"}},
		caught:  []catcher{named("./node", "TestAReadRoundNeedsAMajorityInItsTerm")},
	},
	{
		name:    "vote-of-another-term-counts",
		breaks:  "a read round counts a voter that answers from another term",
		promise: "S8",
		changes: []change{{"node/read.go", "			votes <- err == nil && res.GetTerm() == term && res.GetNodeId() == id\n", "			votes <- err == nil && res.GetNodeId() == id\n"}},
		caught:  []catcher{named("./node", "TestAReadRoundNeedsAMajorityInItsTerm")},
	},
	{
		name:    "leader-counts-itself-though-it-is-no-voter",
		breaks:  "a leader that takes itself out of the configuration counts its own voice in read rounds",
		promise: "S8",
		changes: []change{{
			"node/read.go",
			"	votes := make(chan bool, len(voters))\n",
			"	votes := make(chan bool, len(voters)+1)\n	if _, voter := n.voter(r, n.id); !voter {\n		votes <- true\n	}\n",
		}},
		caught: []catcher{named("./locktest", "TestALeaderThatRemovesItselfConfirmsNoReadAlone")},
	},
	{
		name:    "round-covers-what-is-applied",
		breaks:  "a read round covers what the leader has applied, not what it has committed",
		promise: "S8",
		changes: []change{{"node/read.go", "	index, err := n.lastCommand(n.raft.Load().CommitIndex())\n", "	index, err := n.lastCommand(n.appliedIndex())\n"}},
		caught:  []catcher{named("./node", "TestReadsThroughAFollowerAndTheLeaderDoNotGoBack")},
	},
	{
		name:    "round-waits-for-rafts-own-entries",
		breaks:  "a read waits until a table has applied an entry that no table applies",
		promise: "liveness",
		changes: []change{{"node/read.go", "	index, err := n.lastCommand(n.raft.Load().CommitIndex())\n", "	index, err := n.raft.Load().CommitIndex(), error(nil)\n"}},
		caught:  []catcher{named("./node", "TestAReadAfterAChangeOfTheConfigurationNeedsNoCommand")},
	},
	{
		name:    "follower-answers-at-once",
		breaks:  "a follower that has asked the leader for an index does not wait until it has applied it",
		promise: "S8",
		changes: []change{{"node/readnow.go", "	if n.appliedIndex() >= index {\n		if ran, intact", "	if true {\n		if ran, intact"}},
		caught:  []catcher{named("./node", "TestAFollowerThatIsBehindAnswersNoReadBeforeItHasCaughtUp")},
	},
	{
		name:    "serves-before-its-barrier",
		breaks:  "a new leader serves before it has applied what earlier leaders committed",
		promise: "T2, S8",
		changes: []change{
			{"node/lead.go", "	if err := n.inTurn(func() error { return r.Barrier(applyTimeout).Error() }); err != nil {\n", "	if err := error(nil); err != nil {\n"},
			{"node/lead.go", "	if !e.proposer.propose(first) {\n", "	if founded {\n		return e, nil\n	}\n	if !e.proposer.propose(first) {\n"},
		},
		caught: []catcher{named("./node", "TestANewLeaderServesNothingBeforeItHasAppliedItsPast")},
	},
	{
		name:    "wiped-voter-is-taken-again",
		breaks:  "a voter that has lost its disk joins under its old ID and may vote twice",
		promise: "S7",
		changes: []change{{"node/membership_change.go", "	if s, ok := membershipFind(servers, id); ok && s.Suffrage != raft.Nonvoter {\n", "	if s, ok := membershipFind(servers, id); ok && s.Address == \"\" {\n"}},
		caught:  []catcher{named("./node", "TestWipedVoterIsRefusedUntilRemoved")},
	},
	{
		name:    "halves-form-two-clusters",
		breaks:  "nodes found a cluster when they see fewer others than they expect",
		promise: "forming",
		changes: []change{{"cluster/bootstrap.go", "	case len(list) < self.Expect:\n", "	case len(list) < (self.Expect+1)/2:\n"}},
		caught:  []catcher{named("./cluster", "TestHalvesNeverForm")},
	},
}
