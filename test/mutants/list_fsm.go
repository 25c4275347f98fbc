package main

var fsmMutants = []mutant{
	{
		name:    "stale-release-frees-the-successor",
		breaks:  "a release with a token that is not current any more ends the current grant of the lock",
		promise: "S5",
		changes: []change{{
			file:   "fsm/release.go",
			anchor: "	r, bad := t.held(c.ID, c.Lock, c.Token)\n	if r == nil {\n		return t.notHeld(bad)\n	}\n	e := Event{Kind: EventReleased}\n",
			with: `	r, bad := t.held(c.ID, c.Lock, c.Token)
	if l, ok := t.locks.get(c.Lock); r == nil && ok && l.holders.len() > 0 {
		n, _, _ := l.holders.first()
		r, _ = t.requests.get(n)
	}
	if r == nil {
		return t.notHeld(bad)
	}
	e := Event{Kind: EventReleased}
`,
		}},
		caught: []catcher{named("./fsm", "TestStaleReleaseChangesNothing")},
	},
	{
		name:    "release-by-another-session",
		breaks:  "a session can release a grant of another session if it knows the token",
		promise: "S5",
		changes: []change{{
			file:   "fsm/release.go",
			anchor: "	if r.session != (SessionID{}) && r.session != id.Session {\n",
			with:   "	if r.session != (SessionID{}) && id.Session == (SessionID{}) {\n",
		}},
		caught: []catcher{named("./fsm", "TestTableDoesWhatTheModelDoes")},
	},
	{
		name:    "release-by-a-stranger",
		breaks:  "a caller without a session can release a session's grant if it knows the token",
		promise: "S5",
		changes: []change{{
			file:   "fsm/release.go",
			anchor: "	if r.session != (SessionID{}) && r.session != id.Session {\n",
			with:   "	if r.session != (SessionID{}) && id.Session != (SessionID{}) && r.session != id.Session {\n",
		}},
		caught: []catcher{named("./fsm", "TestSessionsGrantIsForItsSessionAlone")},
	},
	{
		name:    "table-reads-a-clock",
		breaks:  "the table reads the machine's clock instead of the stamp",
		promise: "T1, S9",
		changes: []change{
			{"fsm/apply.go", "package fsm\n", "package fsm\n\nimport \"time\"\n"},
			{"fsm/apply.go", "		t.now = max(t.now, h.stamp)\n", "		t.now = max(t.now, Instant(time.Now().UnixNano()))\n"},
		},
		caught: []catcher{named("./fsm", "TestReplayIsByteIdentical")},
	},
	{
		name:    "time-goes-back",
		breaks:  "cluster time is set to the last stamp, even if that is earlier than the one before",
		promise: "T1",
		changes: []change{{"fsm/apply.go", "		t.now = max(t.now, h.stamp)\n", "		t.now = h.stamp\n"}},
		caught:  []catcher{named("./fsm", "TestTimeNeverGoesBack")},
	},
	{
		name:    "stamp-of-another-term",
		breaks:  "an entry that was stamped in an earlier term is applied",
		promise: "T3",
		changes: []change{{"fsm/apply.go", "	case h.term != term:\n", "	case false:\n"}},
		caught:  []catcher{named("./fsm", "TestStampFromAnotherTermIsRefused")},
	},
	{
		name:    "expires-a-tick-early",
		breaks:  "a deadline within the next 100 ms expires with the current entry",
		promise: "S2",
		changes: []change{{
			"fsm/apply.go",
			"		if at, ok := t.NextDeadline(); !ok || at > t.now {\n",
			"		if at, ok := t.NextDeadline(); !ok || at > t.now+100_000_000 {\n",
		}},
		caught: []catcher{
			named("./fsm", "TestRenewalEarlierInTheLogWinsOverExpiry"),
			named("./client", "TestGrantIsLostBeforeTheClusterGivesItsLockAway"),
		},
	},
	{
		name:    "expires-a-moment-late",
		breaks:  "a deadline that is exactly now is left to the next entry",
		promise: "T1",
		changes: []change{{
			"fsm/apply.go",
			"		if at, ok := t.NextDeadline(); !ok || at > t.now {\n",
			"		if at, ok := t.NextDeadline(); !ok || at >= t.now {\n",
		}},
		caught: []catcher{named("./fsm", "TestEqualDeadlinesEndInTheOrderInWhichTheyCame")},
	},
	{
		name:    "expired-waiter-is-granted",
		breaks:  "a lock freed by one expiry is granted before the other expiries of the same entry are handled",
		promise: "T1",
		changes: []change{
			{"fsm/apply.go", "		t.endNext()\n	}\n	t.promote()\n", "		t.endNext()\n		t.promote()\n	}\n"},
			{"fsm/promote.go", "return t.isDue(r) || t.lastToken >= maxToken", "return t.lastToken >= maxToken"},
		},
		caught: []catcher{named("./fsm", "TestExpiredWaiterIsNotGranted")},
	},
	{
		name:    "renewal-shortens",
		breaks:  "a renewal with a smaller TTL moves the deadline to an earlier time",
		promise: "T6",
		changes: []change{{"fsm/release.go", "r.deadline != 0 && until > r.deadline {", "r.deadline != 0 {"}},
		caught:  []catcher{named("./fsm", "TestDeadlineNeverMovesBack")},
	},
	{
		name:    "keep-alive-revives-a-session",
		breaks:  "a keep-alive reopens a session that has ended",
		promise: "T6",
		changes: []change{{
			"fsm/session.go",
			"		if s == nil {\n			continue\n		}\n		s = t.extend(k.Session, s)\n",
			`		if s == nil {
			t.openSession(&OpenSession{Session: k.Session, TTL: t.limits.MinTTL})
			if s = t.session(k.Session); s == nil {
				continue
			}
		}
		s = t.extend(k.Session, s)
`,
		}},
		caught: []catcher{named("./fsm", "TestTableDoesWhatTheModelDoes")},
	},
	{
		name:    "token-of-the-leader",
		breaks:  "tokens are counted from 1 in each term",
		promise: "S4",
		changes: []change{
			{"fsm/table.go", "	recent   *session // the session that was looked up last; derived from the state\n", "	recent   *session\n	term     uint64\n"},
			{"fsm/apply.go", "		t.wall, t.applying = h.wall, index\n", "		t.wall, t.applying = h.wall, index\n		if t.term != term {\n			t.term, t.lastToken = term, 0\n		}\n"},
		},
		caught: []catcher{named("./fsm", "TestPromisesHoldWhateverIsAsked")},
	},
	{
		name:    "token-is-not-in-the-snapshot",
		breaks:  "after a restore, tokens continue from the largest that is still held",
		promise: "S4",
		changes: []change{{
			"fsm/snapshot.go",
			"	b.uint(s.lastToken)\n",
			"	last := uint64(0)\n	for token := range s.tokens.all() {\n		last = token\n	}\n	b.uint(last)\n",
		}},
		caught: []catcher{named("./fsm", "TestSnapshotRoundTrip")},
	},
	{
		name:    "answers-are-not-in-the-snapshot",
		breaks:  "a node that restores a snapshot has forgotten which requests were answered",
		promise: "S6",
		changes: []change{
			{"fsm/snapshot.go", "		for i := range v.window {\n", "		for i := range v.window[:0] {\n"},
			{"fsm/snapshot.go", "	b.uint(uint64(len(s.window)))\n", "	b.uint(0)\n"},
		},
		caught: []catcher{named("./fsm", "TestSnapshotRoundTrip")},
	},
	{
		name:    "snapshot-in-map-order",
		breaks:  "the locks in a snapshot are written in the order of a Go map",
		promise: "S9",
		changes: []change{{
			"fsm/snapshot.go",
			"	for name, l := range s.locks.all() {\n		if l.hasFacts() {\n			b.record()\n",
			"	unordered := make(map[string]*lock)\n	for name, l := range s.locks.all() {\n		unordered[name] = l\n	}\n	for name, l := range unordered {\n		if l.hasFacts() {\n			b.record()\n",
		}},
		caught: []catcher{named("./fsm", "TestSnapshotIsCanonical")},
	},
	{
		name:    "retry-runs-again",
		breaks:  "a request that is sent again takes effect again",
		promise: "S6",
		changes: []change{{"fsm/window.go", "	if i, ok := s.find(id.Sequence); ok {\n		a := &s.window[i]\n		if a.kind != kind ", "	if i, ok := s.find(id.Sequence); ok && s.acked.upTo > id.Sequence {\n		a := &s.window[i]\n		if a.kind != kind "}},
		caught:  []catcher{named("./fsm", "TestRetryGetsTheFirstAnswerAndChangesNothing")},
	},
	{
		name:    "detached-retry-runs-again",
		breaks:  "a once ID and its grant are forgotten when the grant ends",
		promise: "S6",
		changes: []change{{"fsm/detached.go", "	m.token, m.forget = r.token, t.now.Add(t.limits.OnceNanos)\n", "	m.token, m.forget = r.token, t.now\n"}},
		caught:  []catcher{named("./fsm", "TestRepeatedAcquireIsToldWhatIsTrueNow")},
	},
	{
		name:    "cancel-takes-a-shared-grant",
		breaks:  "a late cancel of one try ends a grant that was answered to another try",
		promise: "S6",
		changes: []change{{"fsm/detached.go", "	case r.extra.shared || !slices.Contains(r.extra.tries, y):\n", "	case false:\n"}},
		caught:  []catcher{named("./fsm", "TestLateCopyOfATryTakesNothingAway")},
	},
	{
		name:    "unconfirmed-grant-outlives-its-sessions",
		breaks:  "a detached grant after a wait belongs to no session at once, even if its waiter was killed",
		promise: "liveness",
		changes: []change{{"fsm/detached.go", "	x.unconfirmed = true\n	r.extra = &x\n	for _, y := range x.tries {\n", "	x.tries, x.shared = x.tries[:1], r.tries() > 1\n	r.extra = &x\n	for _, y := range x.tries[:0] {\n"}},
		caught:  []catcher{named("./fsm", "TestGrantThatNobodyIsToldOfEndsWithItsSessions")},
	},
	{
		name:    "refusal-remembered-for-a-new-try",
		breaks:  "a wait that timed out is the answer to another try under the same once ID",
		promise: "S6",
		changes: []change{{
			"fsm/release.go",
			"		t.deleteRecord(once) // the next try runs as new\n",
			"		t.settleRecord(r)\n",
		}},
		caught: []catcher{named("./fsm", "TestRefusalIsNotRememberedForAnotherTry")},
	},
	{
		name:    "another-request-gets-the-first-ones-grant",
		breaks:  "a second request under a once ID is not compared with the first one",
		promise: "S6",
		changes: []change{{"fsm/detached.go", "m.asked.differs(askedFor(c)); why", "m.asked.differs(m.asked); why"}},
		caught:  []catcher{named("./fsm", "TestOtherRequestUnderTheSameIDIsInvalid")},
	},
	{
		name:    "another-request-gets-the-answer-of-its-sequence",
		breaks:  "a request that is sent again in a session is only compared by its kind",
		promise: "S6",
		changes: []change{{"fsm/window.go", "		if a.kind != kind || a.asked != asked && a.asked != 0 {\n", "		if a.kind != kind {\n"}},
		caught:  []catcher{named("./fsm", "TestSequenceOfAnotherRequestIsInvalid")},
	},
	{
		name:    "copy-is-told-what-was-true-once",
		breaks:  "a repeated acquire gets the answer to the first copy, even if the grant has ended since",
		promise: "S6",
		changes: []change{{"fsm/acquire.go", "	if !ran {\n		t.bringUpToDate(&c, &res)\n", "	if !ran && c.Wait < 0 {\n		t.bringUpToDate(&c, &res)\n"}},
		caught:  []catcher{named("./fsm", "TestRepeatedAcquireIsToldWhatIsTrueNow")},
	},
	{
		name:    "once-id-is-forgotten-early",
		breaks:  "beyond the limit, a new once ID replaces the oldest one",
		promise: "S6",
		changes: []change{{
			"fsm/acquire.go",
			"		if res, ok := t.hasRoom(fullOnces, t.limits.OnceRemembered, t.records.len, use.Once); !ok {\n			return res, false\n		}\n",
			"		if _, id, ok := t.forgets.first(); ok && t.records.len >= t.limits.OnceRemembered {\n			m, _ := t.records.get(id)\n			t.forget(id, m)\n		}\n",
		}},
		caught: []catcher{named("./fsm", "TestOnceIDsAreNeverForgottenEarly")},
	},
	{
		name:    "forgotten-answer-runs-again",
		breaks:  "an answer that a full window drops does not count as acknowledged",
		promise: "S6",
		changes: []change{{"fsm/window.go", "			s.acked.add(Span{a.sequence, a.sequence})\n", ""}},
		caught:  []catcher{named("./fsm", "TestForgottenAnswerIsStale")},
	},
	{
		name:    "grant-that-nobody-was-told-of-stays",
		breaks:  "the end of a session leaves detached grants whose answers were not delivered",
		promise: "liveness",
		changes: []change{{"fsm/session.go", "	t.releaseUndelivered(c.Session, s, c.Undelivered)\n", ""}},
		caught:  []catcher{named("./fsm", "TestUndeliveredGrantIsReleasedWithItsSession")},
	},
	{
		name:    "wait-ends-with-its-first-try",
		breaks:  "a request leaves the queue when one of its tries is cancelled, although others wait",
		promise: "liveness",
		changes: []change{{"fsm/detached.go", "	if r.tries() == 1 {\n		t.endWait(r, code)\n", "	if r.tries() >= 1 {\n		t.endWait(r, code)\n"}},
		caught:  []catcher{named("./fsm", "TestWaitEndsWithItsLastTry")},
	},
	{
		name:    "loss-told-by-the-client-has-no-delay",
		breaks:  "a release that reports a loss skips the delay after a loss",
		promise: "delay",
		changes: []change{{"fsm/release.go", "	if c.Lost {\n", "	if c.Lost && c.Token == 0 {\n"}},
		caught:  []catcher{named("./fsm", "TestLostGrantIsFollowedByItsDelay")},
	},
	{
		name:    "ended-session-opens-again",
		breaks:  "a late copy of the command that opened a session opens it again after its end",
		promise: "S6",
		changes: []change{{"fsm/session.go", "	if t.hasEnded(c.Session) {\n", "	if t.hasEnded(c.Session) && c.TTL == 0 {\n"}},
		caught:  []catcher{named("./fsm", "TestEndedSessionStaysEnded")},
	},
	{
		name:    "ended-session-is-forgotten-early",
		breaks:  "beyond the limit, a session that ends replaces the one that ended first",
		promise: "S6",
		changes: []change{{"fsm/window.go", "	t.endings.put(key, id)\n", "	t.endings.put(key, id)\n	if t.endings.len > t.limits.EndedRemembered {\n		t.forgetEnded()\n	}\n"}},
		caught:  []catcher{named("./fsm", "TestEndedSessionsAreNeverForgottenEarly")},
	},
	{
		name:    "cancelled-waiter-is-granted",
		breaks:  "a cancel is answered, but the acquire goes on waiting",
		promise: "liveness",
		changes: []change{{"fsm/detached.go", "		t.leave(r, y, Cancelled)\n", ""}},
		caught:  []catcher{named("./fsm", "TestCancelledWaiterLeavesNoTrace")},
	},
	{
		name:    "cancel-overtakes-its-acquire",
		breaks:  "an acquire that arrives after its cancel is granted, and nobody uses the grant",
		promise: "S6",
		changes: []change{{
			"fsm/acquire.go",
			"	t.keep(target.session, answer{sequence: target.sequence, kind: KindAcquire, code: Cancelled})\n",
			"",
		}},
		caught: []catcher{named("./fsm", "TestAcquireThatArrivesAfterItsCancelIsNotGranted")},
	},
	{
		name:    "waiter-of-an-ended-session-is-granted",
		breaks:  "a session that ends keeps its places in queues",
		promise: "liveness",
		changes: []change{
			{"fsm/session.go", "	for number := range waits.of.all() {\n", "	for number := range waits.of.all() {\n		if number > 0 {\n			break\n		}\n"},
			{"fsm/detached.go", "		if t.session(r.try(i).session).deadline > t.now {\n", "		if s := t.session(r.try(i).session); s == nil || s.deadline > t.now {\n"},
			{"fsm/detached.go", "		s := t.session(r.session)\n		s.grants.put(", "		s := t.session(r.session)\n		if s == nil {\n			return\n		}\n		s.grants.put("},
			{"fsm/window.go", "	s := t.changeSession(y.session, t.session(y.session))\n	s.waits", "	if t.session(y.session) == nil {\n		return 0\n	}\n	s := t.changeSession(y.session, t.session(y.session))\n	s.waits"},
		},
		caught: []catcher{named("./fsm", "TestEndedSessionsWaiterIsNeverGranted")},
	},
	{
		name:    "newest-waiter-first",
		breaks:  "a lock is granted to the newest waiter",
		promise: "liveness",
		changes: []change{
			{"fsm/queue.go", "number > barrier || some && first < number {\n", "some && first < 1 {\n"},
			{
				"fsm/promote.go",
				"	if n, ok := l.queue.registered.after(behind); ok && l.admits(n) {\n",
				"	n, ok := uint64(0), false\n	for number := range l.queue.registered.all() {\n		n, ok = number, number > behind\n	}\n	if ok && l.admits(n) {\n",
			},
		},
		caught: []catcher{named("./fsm", "TestScripts")},
	},
	{
		name:    "newcomer-overtakes-the-queue",
		breaks:  "a request for few permits is granted before an earlier waiter for many",
		promise: "liveness",
		changes: []change{{"fsm/queue.go", "	return l.queue.len() == 0\n", "	return w.Mode == Permits || l.queue.len() == 0\n"}},
		caught:  []catcher{named("./fsm", "TestTableDoesWhatTheModelDoes")},
	},
	{
		name:    "reader-beside-a-writer",
		breaks:  "a shared request is granted while the lock is held exclusively",
		promise: "S1",
		changes: []change{{"fsm/queue.go", "		return !l.heldAlone\n", "		return true\n"}},
		caught:  []catcher{named("./fsm", "TestPromisesHoldWhateverIsAsked")},
	},
	{
		name:    "one-permit-too-many",
		breaks:  "a semaphore grants one permit more than its size",
		promise: "S1",
		changes: []change{{"fsm/queue.go", "<= uint64(size)\n", "<= uint64(size)+1\n"}},
		caught:  []catcher{named("./fsm", "TestPromisesHoldWhateverIsAsked")},
	},
	{
		name:    "shrunk-semaphore-keeps-its-queue",
		breaks:  "a waiter for more permits than a semaphore has after a resize stays in the queue, and blocks all behind it",
		promise: "liveness",
		changes: []change{{"fsm/release.go", "	if shrinks {\n", "	if false && shrinks {\n"}},
		caught:  []catcher{named("./fsm", "TestShrunkSemaphoreDoesNotBlockItsLine")},
	},
	{
		name:    "grown-semaphore-wakes-nobody",
		breaks:  "waiters are not granted the permits that a resize adds until a holder releases some",
		promise: "liveness",
		changes: []change{{"fsm/release.go", "	t.free(l)\n	t.promote()\n	return Result{}\n}\n\n// refuseShrunk", "	t.promote()\n	return Result{}\n}\n\n// refuseShrunk"}},
		caught:  []catcher{named("./node", "TestALargerSemaphoreIsGivenToItsWaitersAtOnce")},
	},
	{
		name:    "waiter-is-registered-nowhere",
		breaks:  "a waiter that is first in one of its queues is not considered when its next lock is freed",
		promise: "liveness",
		changes: []change{{"fsm/promote.go", "		r.register(at, to)\n	}\n}\n", "		_ = at\n	}\n}\n"}},
		caught: []catcher{
			named("./fsm", "TestAWaiterThatMovesFromLockToLockIsGranted"),
			named("./fsm", "TestTableDoesWhatTheModelDoes"),
		},
	},
	{
		name:    "semaphore-hands-on-to-one",
		breaks:  "after a grant over several locks, the next waiter of a semaphore with free permits is not considered",
		promise: "liveness",
		changes: []change{{"fsm/promote.go", "		if r.wants[i].Mode == Permits && l != from {\n", "		if r.wants[i].Mode == Permits && l == nil {\n"}},
		caught:  []catcher{named("./fsm", "TestAGrantLeavesRoomAtASemaphore")},
	},
	{
		name:    "revived-waiter-stays-passed-over",
		breaks:  "a waiter that was skipped because its session was due is not considered again after a keep-alive",
		promise: "liveness",
		changes: []change{{"fsm/promote.go", "	if r.registered == 0 {\n", "	if r.registered < 0 {\n"}},
		caught:  []catcher{named("./fsm", "TestRevivedWaitersAreLookedAtAgain")},
	},
	{
		name:    "freed-lock-counts-once-for-each-grant",
		breaks:  "the waiters of a lock are considered once for each grant that leaves it, instead of once",
		promise: "bounds",
		changes: []change{
			{"fsm/queue.go", "	if l.queue.len() > 0 && !l.queue.freed {\n", "	if l.queue.len() > 0 {\n"},
			{
				"fsm/promote.go",
				"		r, _ := t.requests.get(c.number)\n		t.tryGrant(r, c.lock)\n",
				"		if r, _ := t.requests.get(c.number); r.token == 0 {\n			t.tryGrant(r, c.lock)\n		}\n",
			},
		},
		caught: []catcher{named("./fsm", "TestWorkOfAnEntryIsBounded")},
	},
	{
		name:    "due-waiter-is-looked-at-again",
		breaks:  "after a mass expiry that was cut short, waiters that are due are considered again whenever a grant ends",
		promise: "bounds",
		changes: []change{{"fsm/promote.go", "	case to == nil:\n		r.unregister(from)\n", "	case to == nil:\n"}},
		caught:  []catcher{named("./fsm", "TestWorkOfAnEntryIsBounded")},
	},
	{
		name:    "some-of-many-locks",
		breaks:  "a request for several locks is granted if the last one is free",
		promise: "S1",
		changes: []change{{"fsm/acquire.go", "		free = free && l.roomForNew(w)\n", "		free = l.roomForNew(w)\n"}},
		caught:  []catcher{named("./fsm", "TestManyLocksAreGrantedTogetherOrNotAtAll")},
	},
	{
		name:    "no-delay-after-a-loss",
		breaks:  "a lock is granted at once, although its holder asked for a delay after a loss",
		promise: "delay",
		changes: []change{{"fsm/release.go", "e.Kind == EventExpired && delay > 0 && !unconfirmed {", "e.Kind == EventExpired && delay < 0 && !unconfirmed {"}},
		caught: []catcher{
			named("./fsm", "TestScripts"),
			named("./client", "TestDelayAfterLossKeepsTheLockFree"),
		},
	},
	{
		name:    "acknowledged-answers-are-kept",
		breaks:  "answers that the client has acknowledged are never forgotten",
		promise: "bounds",
		changes: []change{{"fsm/window.go", "		if span.First == 0 || span.First > span.Last {\n", "		if span.First == 0 || span.First > span.Last || len(s.window) > 0 {\n"}},
		caught:  []catcher{named("./fsm", "TestAcknowledgedSequenceIsRefusedLater")},
	},
	{
		name:    "restored-deadlines-are-lost",
		breaks:  "a node that restores a snapshot has no deadlines for sessions and grants",
		promise: "S9",
		changes: []change{{"fsm/restore.go", "	if r.deadline != 0 {\n		r.timer = t.deadlines.add(r.deadline, r.number, nil)\n	}\n	t.requests.put(r.number, r)\n", "	t.requests.put(r.number, r)\n"}},
		caught:  []catcher{named("./fsm", "TestSnapshotRoundTrip")},
	},
}
