package main

// Who has done what, and how much may one caller do?
var auditMutants = []mutant{
	{
		name:    "audit-misses-grants-of-others",
		breaks:  "who ends another identity's grant by its token and the right force leaves no line",
		promise: "audit",
		changes: []change{{"internal/server/audited.go", "!isForced(call.Op) && !s.usesForce(c, call.Op)", "!isForced(call.Op)"}},
		caught:  []catcher{named("./internal/server", "TestWhatIsDoneToGrantsOfOthersIsNoted")},
	},
	{
		name:    "audit-forgets-who-goes-away",
		breaks:  "who sends a forced operation and goes away leaves no line",
		promise: "audit",
		changes: []change{
			{"internal/server/audited.go", "		default:\n			s.backend.Start(own)\n", "		default:\n			call.OnAbandon(own.Abandon)\n			s.backend.Start(own)\n"},
			{"internal/audit/calls.go", "	if !l.o.Refuse {\n		start(own)\n", "	if !l.o.Refuse {\n		call.OnAbandon(own.Abandon)\n		start(own)\n"},
		},
		caught: []catcher{
			named("./internal/server", "TestWhatACallerWhoHasGoneAwayDoesByForceIsNoted"),
			named("./internal/audit", "TestAnOperationWhoseCallerHasGoneAwayIsRecorded"),
		},
	},
	{
		name:    "audit-is-not-asked-first",
		breaks:  "with on_error refuse a call of an operator is done though it could not be recorded",
		promise: "audit",
		changes: []change{{"internal/server/operator.go", "	err := s.begin(ctx, e)\n", "	err := error(nil)\n"}},
		caught:  []catcher{named("./internal/server", "TestWhatMayNotBeginIsNotDone")},
	},
	{
		name:    "profiles-for-everybody",
		breaks:  "whoever has proved who he is sees the profiles of the node",
		promise: "rights",
		changes: []change{{"internal/server/http.go", "access{call: \"debug\", right: fsm.RightAdmin}", "access{call: \"debug\"}"}},
		caught:  []catcher{named("./internal/server", "TestDebugNeedsAdmin")},
	},
	{
		name:    "policies-have-no-quotas-at-the-node",
		breaks:  "the quotas of a policy bound nothing but the lock table",
		promise: "quotas",
		changes: []change{{"node/quotas.go", "		own := book.Subject(id).Quota()\n", "		own := book.Subject(rights.Anonymous).Quota()\n		_ = id\n"}},
		caught:  []catcher{named("./node", "TestAFloodOfOneIdentityIsRefusedAndAnotherWorksOn")},
	},
	{
		name:    "audit-that-fails-refuses-nothing",
		breaks:  "with on_error refuse a forced operation is done though its line could not be written",
		promise: "audit",
		changes: []change{{"internal/audit/calls.go", "		switch {\n		case err != nil:\n			own.Done", "		switch {\n		case err == errClosed:\n			own.Done"}},
		caught:  []catcher{named("./internal/audit", "TestWhatCannotBeRecordedIsNotDoneIfThatIsWanted")},
	},
	{
		name:    "audit-joins-torn-lines",
		breaks:  "a line after one that was cut off by a full disk cannot be read",
		promise: "audit",
		changes: []change{{"internal/audit/log.go", "		if l.torn {\n", "		if l.torn && said == 0 {\n"}},
		caught:  []catcher{named("./internal/audit", "TestWhatCouldNotBeWrittenIsCountedAndSaid")},
	},
	{
		name:    "audit-queue-has-no-end",
		breaks:  "records queue without a bound while the disk hangs",
		promise: "bounded memory",
		changes: []change{{"internal/audit/log.go", "	case len(l.queue) >= roomFor(&r):\n", "	case roomFor(&r) == 0:\n"}},
		caught:  []catcher{named("./internal/audit", "TestAWriterThatHangsBlocksNobody")},
	},
	{
		name:    "audit-has-forwarded-calls-twice",
		breaks:  "what a follower forwards is recorded by the leader as well",
		promise: "audit",
		changes: []change{{"internal/server/operator.go", "	if c.member || !a.noted &&", "	if !a.noted &&"}},
		caught:  []catcher{named("./node", "TestWhatIsDoneByForceIsRecordedOnceWhereItHasEntered")},
	},
	{
		name:    "grants-are-recorded-by-all",
		breaks:  "every node records every grant",
		promise: "audit",
		changes: []change{{"node/grants.go", "leads := g.serves(a.Term); leads {", "leads := g.serves(a.Term) || a.Index > 0; leads {"}},
		caught:  []catcher{named("./node", "TestEachGrantHasOneLineInTheCluster")},
	},
	{
		name:    "grants-of-a-lost-leader-are-lost",
		breaks:  "grants that a leader had no time to record have no line",
		promise: "audit",
		changes: []change{{"node/grants.go", "		g.keepLocked(keptRecord{r, a.Now})\n", "		_ = keptRecord{r, a.Now}\n"}},
		caught:  []catcher{named("./node", "TestRecordsOfAnEarlierLeaderAreWrittenByTheNext")},
	},
	{
		name:    "quota-keeps-locks",
		breaks:  "a release is refused because its caller has sent too many acquires",
		promise: "what frees is not refused",
		changes: []change{{"internal/server/quota.go", "	if u == nil || class == mux.Frees {\n", "	if u == nil {\n"}},
		caught: []catcher{
			named("./internal/server", "TestOperationsOverTheQuotaAreRefusedUntilThereIsRoom"),
			named("./internal/server", "TestOverTheQuotaHTTPSaysWhenToComeAgain"),
		},
	},
	{
		name:    "quota-is-new-for-each-call",
		breaks:  "a caller that ends its calls has its operations a second once more",
		promise: "quotas",
		changes: []change{{"internal/server/quota.go", "(r == nil || r.TokensAt(now) >= float64(r.Burst()))", "(r == nil || r.TokensAt(now) >= 0)"}},
		caught:  []catcher{named("./internal/server", "TestCallersThatHaveNothingAreForgotten")},
	},
	{
		name:    "quota-is-asked-for-once",
		breaks:  "a change of a quota has no effect on callers that stay",
		promise: "quotas",
		changes: []change{{"internal/server/quota.go", "now.UnixNano()-read < int64(quotaEvery)", "now.UnixNano() >= read"}},
		caught:  []catcher{named("./internal/server", "TestAQuotaThatChangesTakesEffectWithinASecond")},
	},
}
