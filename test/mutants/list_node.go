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
		caught: []catcher{named("./node", "TestALeaderThatIsNoVoterAnyMoreNeedsTheOthers")},
	},
	{
		name:    "leader-removes-itself",
		breaks:  "a leader that is asked to remove itself does, and where it is cut off then nobody may ever lead again",
		promise: "liveness",
		changes: []change{{"node/admin.go", "req.GetId() == n.id && n.membership.canDoWithout(n.id) {\n", "req.GetId() == n.id && r == nil {\n"}},
		caught:  []catcher{named("./test/simulation", "TestALeaderThatIsRemovedWhileItIsCutOffLeavesOneThatCanLead")},
	},
	{
		name:    "round-covers-what-is-applied",
		breaks:  "a read round covers what the leader has applied, not what it has committed",
		promise: "S8",
		changes: []change{{"node/read.go", "	index, err := n.lastCommand(n.raft.Load().CommitIndex())\n", "	index, err := n.lastCommand(n.appliedIndex())\n"}},
		caught:  []catcher{named("./node", "TestReadsThroughAFollowerAndTheLeaderDoNotGoBack"), simulated("reads", 2)},
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
		name:    "snapshots-count-entries",
		breaks:  "a snapshot comes with the number of entries, however large they are, and a restart takes ever longer",
		promise: "liveness",
		changes: []change{{"node/snapshot.go", "	s.applied.Add(int64(bytes) + entryCost)\n", "	s.applied.Add(entryCost)\n"}},
		caught:  []catcher{named("./node", "TestASnapshotComesWithTheBytesOfTheLog")},
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
	{
		name:    "waiter-who-hung-up-is-not-cancelled",
		breaks:  "a request without an ID stands in line, and gets the lock, when its caller has gone",
		promise: "liveness",
		changes: []change{{"internal/host/request.go", "	case !r.settled:\n		h.cancelLocked(r)\n", "	case !r.settled:\n"}},
		caught:  []catcher{named("./node", "TestAWaiterWhoHangsUpHoldsNothingLater"), named("./internal/host", "TestAWaiterWithoutAnIDThatGoesAwayIsCancelledAtOnce")},
	},
	{
		name:    "waiter-told-unavailable-waits-on",
		breaks:  "a request that was answered unavailable stays in line and gets the lock later",
		promise: "liveness",
		changes: []change{{"internal/host/request.go", "		h.tellGivenUpLocked(r, a)\n		h.leaveLocked(r)\n", "		h.tellGivenUpLocked(r, a)\n		r.left = true\n"}},
		caught:  []catcher{named("./internal/host", "TestARequestThatWasGivenUpGetsNothingLater")},
	},
	{
		name:    "cancel-of-a-try-ends-the-next-one",
		breaks:  "the cancel of a try whose caller has gone takes away the grant that its repeat was told of",
		promise: "S2",
		changes: []change{{"fsm/detached.go", "	case r.extra.shared || !slices.Contains(r.extra.tries, y):\n		return false\n", ""}},
		caught:  []catcher{named("./node", "TestLateCopyOfATryTakesNothingAway")},
	},
	{
		name:    "place-is-not-kept-for-the-repeat",
		breaks:  "a request under an ID is cancelled as soon as its caller is cut off",
		promise: "S6",
		changes: []change{{"internal/host/request.go", "		if !r.settled {\n			h.keepLocked(r)\n		}\n", "		if !r.settled {\n			h.cancelLocked(r)\n		}\n"}},
		caught: []catcher{
			named("./node", "TestARepeatFindsItsPlaceThroughAnotherNode"),
			named("./internal/host", "TestAPlaceUnderARequestIDIsKeptForItsRepeat"),
		},
	},
	{
		name:    "kept-place-is-kept-for-ever",
		breaks:  "a request under an ID that nobody repeats stays in line, and gets the lock",
		promise: "liveness",
		changes: []change{{"internal/host/request.go", "	case r.gone:\n		h.cancelLocked(r)\n	default:\n", "	case r.gone:\n	default:\n"}},
		caught:  []catcher{named("./node", "TestAPlaceThatIsNotAskedForAgainIsGivenUp")},
	},
	{
		name:    "lost-answer-leaves-its-grant",
		breaks:  "an acquire whose answer came as its caller hung up is held by nobody",
		promise: "liveness",
		changes: []change{{"internal/host/request.go", "		h.releaseLocked(r, r.token)\n	}\n}\n", "	}\n}\n"}},
		caught:  []catcher{named("./internal/host", "TestAnAnswerThatReachesNobodyLeavesNoGrant")},
	},
	{
		name:    "answer-is-stamped-with-the-first-one",
		breaks:  "a repeated acquire is stamped with the entry of the first one, so that its caller counts the whole TTL again",
		promise: "S3",
		changes: []change{{"node/op.go", "	case *apiv1.Operation_Acquire:\n		a.Result", "	case *apiv1.Operation_Acquire:\n		a.Stamp = res.Queued\n		a.Result"}},
		caught:  []catcher{named("./node", "TestAnAnswerIsStampedWithTheEntryOfItsOwnCall")},
	},
	{
		name:    "wait-is-stamped-with-its-grant",
		breaks:  "the answer to a wait is stamped with the entry of the grant, after which its client sent nothing",
		promise: "T7",
		changes: []change{{"node/wait.go", "	a.Stamp = p.stamp\n", ""}},
		caught:  []catcher{named("./node", "TestAnAnswerIsStampedWithTheEntryOfItsOwnCall")},
	},
	{
		name:    "stop-leaves-its-waiters-in-line",
		breaks:  "a node that stops leaves what waits for callers without an ID to the end of its session",
		promise: "liveness",
		changes: []change{{"node/close.go", "	n.host.Close(given)\n", "	_ = given\n"}},
		caught:  []catcher{named("./node", "TestAStopWithoutKeptPlacesEndsTheNodesSession")},
	},
	{
		name:    "waits-are-lost-with-the-nodes-session",
		breaks:  "a wait whose session the cluster has ended is never told, though its caller is there",
		promise: "liveness",
		changes: []change{{"internal/host/request.go", "			h.passOnLocked(r, r.granted)\n		default:\n			h.moveLocked(r)\n", "			h.passOnLocked(r, r.granted)\n"}},
		caught:  []catcher{named("./node", "TestWaitersOfANodeThatWasCutOffStandInLineAgain")},
	},
	{
		name:    "grant-before-the-sessions-end-is-overlooked",
		breaks:  "a wait that was granted before the cluster ended the node's session stands in line again, behind its own grant",
		promise: "liveness",
		changes: []change{{"internal/host/request.go", "		case r.granted != nil: // it has outlived the session, and so it needs no confirmation\n			h.passOnLocked(r, r.granted)\n", ""}},
		caught:  []catcher{named("./internal/host", "TestAGrantBeforeTheEndOfTheSessionIsFoundInTheLog")},
	},
	{
		name:    "grant-out-of-a-wait-is-told-unconfirmed",
		breaks:  "a caller is told of a grant that ends with the session of its node",
		promise: "S2",
		changes: []change{{"internal/host/request.go", "r.token != 0 && r.waits && !r.gone {\n", "r.token != 0 && r.waits && !r.gone && false {\n"}},
		caught: []catcher{
			named("./node", "TestAGrantOutOfAWaitOutlivesItsNode"),
			named("./internal/host", "TestAGrantOutOfAWaitIsConfirmedBeforeItIsTold"),
		},
	},
	{
		name:    "grant-that-ended-is-told",
		breaks:  "a wait is told of a grant in the log that has ended with the node's session",
		promise: "S2",
		changes: []change{{"internal/host/host.go", "			h.ended(e.Token)\n", ""}},
		caught:  []catcher{named("./internal/host", "TestAGrantBeforeTheEndOfTheSessionIsFoundInTheLog")},
	},
	{
		name:    "releases-count-with-waits",
		breaks:  "acquires that wait in line take the room of the operations that would end their wait",
		promise: "liveness",
		changes: []change{
			{"internal/mux/class.go", "	if c == Waits {\n", "	if c == Waits && false {\n"},
			{"internal/mux/class.go", "		return l.Prompt < 2*room.Prompt\n", "		return l.Prompt < room.Prompt\n"},
		},
		caught: []catcher{
			named("./internal/server", "TestWaitsOfAStreamAreBoundedAndLeaveRoomForTheRest"),
			named("./locktest", "TestAClientIsServedHoweverManyOfItsAcquiresWait"),
		},
	},
	{
		name:    "waits-take-every-connection",
		breaks:  "acquires that wait over HTTP hold every connection that their address may have",
		promise: "liveness",
		changes: []change{{"internal/server/waits.go", "func shareOf(limit int) int { return max(limit*3/4, 1) }\n", "func shareOf(limit int) int { return limit }\n"}},
		caught: []catcher{
			named("./internal/server", "TestWaitsLeaveConnectionsForWhatFrees"),
			named("./internal/server", "TestWaitsLeavePlacesOfAConnectionForWhatFrees"),
		},
	},
}
