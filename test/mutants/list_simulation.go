package main

// What only shows when many things come together: clients without sessions that ask
// again elsewhere, grants by the dozen, long lines. The simulation has to find these,
// with the first seeds of the profile that does such things.
var simulationMutants = []mutant{
	{
		name:    "ended-grant-is-told-as-held",
		breaks:  "a request ID whose grant has ended is answered as if the grant were new",
		promise: "S6",
		changes: []change{{
			"fsm/detached.go",
			"		return t.hasEndedWith(m.token)\n	}\n	r, _ :=",
			"		return Result{Token: m.token, Deadline: t.now.Add(c.TTL), Queued: t.now, Granted: t.now}\n	}\n	r, _ :=",
		}},
		caught: []catcher{simulated("scripts", 8)},
	},
	{
		name:    "repeated-id-is-told-the-whole-time",
		breaks:  "a repeated request ID is answered with the time that was left when the grant was given",
		promise: "S3",
		changes: []change{{"fsm/detached.go", "	res := r.grantedResult()\n	res.Queued = t.now\n", "	res := r.grantedResult()\n"}},
		caught:  []catcher{simulated("scripts", 8)},
	},
	{
		name:    "cancel-takes-what-others-know",
		breaks:  "the cancel of one try releases a grant that was answered to another try",
		promise: "S5",
		changes: []change{{
			"fsm/detached.go",
			"	case r.extra.shared || !slices.Contains(r.extra.tries, y):\n		return false\n",
			"	case !slices.Contains(r.extra.tries, y):\n",
		}},
		caught: []catcher{simulated("scripts", 8)},
	},
	{
		name:    "id-is-granted-whatever-it-asks-for",
		breaks:  "a request ID that is used for other locks gets the grant of the first request",
		promise: "S6",
		changes: []change{{
			"fsm/detached.go",
			"	if why := m.asked.differs(askedFor(c)); why != noReason {\n",
			"	if why := noReason; why != noReason {\n",
		}},
		caught: []catcher{simulated("scripts", 8)},
	},
	{
		name:    "id-is-forgotten-with-its-grant",
		breaks:  "a request ID can be granted again as soon as its grant has ended",
		promise: "S6",
		changes: []change{{
			"fsm/detached.go",
			"m.token, m.forget = r.token, t.now.Add(t.limits.OnceNanos)\n",
			"m.token, m.forget = r.token, t.now\n",
		}},
		caught: []catcher{simulated("scripts", 8)},
	},
	{
		name:    "anybody-releases-a-sessions-grant",
		breaks:  "a caller that knows the token of a session's grant can release it, and the session's client is not notified",
		promise: "S5",
		changes: []change{{
			"fsm/release.go",
			"	if r.session != (SessionID{}) && r.session != id.Session {\n",
			"	if r.session != (SessionID{}) && r.session != id.Session && id.Sequence == 0 {\n",
		}},
		caught: []catcher{simulated("scripts", 8)},
	},
	{
		name:    "place-outlives-its-owner",
		breaks:  "a request without an ID goes on waiting after its caller is gone",
		promise: "liveness",
		changes: []change{{
			"internal/host/request.go",
			"	case !r.settled:\n		h.cancelLocked(r)\n	case r.token != 0:\n",
			"	case !r.settled:\n	case r.token != 0:\n",
		}},
		caught: []catcher{simulated("scripts", 8)},
	},
	{
		name:    "gap-in-revocations-is-overlooked",
		breaks:  "a client that missed more revocations than are kept keeps the grants of the forgotten ones",
		promise: "S3",
		changes: []change{{"client/loss.go", "	if !gap {\n", "	if gap || !gap {\n"}},
		caught:  []catcher{simulated("masses", 3)},
	},
	{
		name:    "loss-is-given-back-as-if-by-choice",
		breaks:  "a holder that notices its loss before the cluster does skips the delay after a loss",
		promise: "delay",
		changes: []change{{"client/loss.go", "	l.release.request.Lost = true\n", ""}},
		caught:  []catcher{simulated("delays", 8)},
	},
	{
		name:    "window-refuses-behind-a-long-wait",
		breaks:  "a session with one long wait is refused everything once its window is full",
		promise: "liveness",
		changes: []change{
			{"internal/window/window.go", "	id.Answered = w.report()\n", ""},
			{
				"fsm/window.go",
				"	if s.acked.has(id.Sequence) {\n		return Result{Code: StaleRequest}, true\n	}\n",
				"	if s.acked.has(id.Sequence) {\n		return Result{Code: StaleRequest}, true\n	}\n" +
					"	if len(s.window) >= t.limits.RequestsWindow {\n		return t.refuse(OverLimit, fullSession, 0), true\n	}\n",
			},
		},
		caught: []catcher{simulated("masses", 3)},
	},
	{
		name:    "waits-fill-the-room-of-the-rest",
		breaks:  "acquires that wait in queues count against the limit for operations that are answered at once",
		promise: "liveness",
		changes: []change{{"internal/mux/class.go", "	case MayWait(op):\n		return Waits\n", "	case MayWait(op):\n		return Prompt\n"}},
		caught:  []catcher{simulated("crowd", 6)},
	},
	{
		name:    "only-the-first-of-those-in-line-is-looked-at",
		breaks:  "of the waiters that a freed lock admits, only the first is granted or moves to its next queue",
		promise: "liveness",
		changes: []change{{"fsm/promote.go", "		if c.lock != nil {\n			t.nominate(c.lock, c.number)\n		}\n", ""}},
		caught:  []catcher{simulated("trees", 12)},
	},
	{
		name:    "closed-node-leaves-its-clients",
		breaks:  "a node that is closed does not close its embedded clients",
		promise: "shutdown",
		changes: []change{{"node/close.go", "	c.all = append(c.all, one)\n", ""}},
		caught:  []catcher{simulated("embedded", 8)},
	},
	{
		name:    "share-is-counted-twice",
		breaks:  "a session counts twice against its owner's share, and is subtracted once",
		promise: "shares",
		changes: []change{{"fsm/session.go", "	s.owner.use.Sessions++\n", "	s.owner.use.Sessions += 2\n"}},
		caught:  []catcher{simulated("greedy", 3)},
	},
	{
		name:    "share-is-never-given-back",
		breaks:  "sessions that have ended still count against their owner's share",
		promise: "shares",
		changes: []change{{"fsm/session.go", "	s.owner.use.Sessions--\n", ""}},
		caught:  []catcher{simulated("greedy", 3)},
	},
	{
		name:    "waits-stay-counted",
		breaks:  "waits that have ended still count against their owner's share",
		promise: "shares",
		changes: []change{{"fsm/owners.go", "	r.owner.use.Waiters += delta\n", "	r.owner.use.Waiters += max(delta, 0)\n"}},
		caught:  []catcher{simulated("greedy", 3)},
	},
	{
		name:    "bytes-stay-counted",
		breaks:  "the memory of a grant that has ended still counts against its owner's share",
		promise: "shares",
		changes: []change{{"fsm/release.go", "	t.charge(r.owner, -r.cost)\n", "	t.bytes -= r.cost\n"}},
		caught:  []catcher{simulated("greedy", 3)},
	},
	{
		name:    "memory-is-not-shared",
		breaks:  "one address can use up the memory of the table",
		promise: "shares",
		changes: []change{{"fsm/cost.go", "	return own+cost <= t.limits.TableBytes-t.bytes-cost\n", "	return own >= 0 && cost <= t.limits.TableBytes-t.bytes-cost\n"}},
		caught:  []catcher{simulated("greedy", 3)},
	},
	{
		name:    "releases-need-room",
		breaks:  "an owner that has used up its share of the memory cannot release",
		promise: "shares",
		changes: []change{{
			"fsm/release.go", "	e := Event{Kind: EventReleased}\n	if c.Lost {\n",
			"	if res, ok := t.roomFor(r.owner.name, costSession+costKept); !ok {\n		return res\n	}\n	e := Event{Kind: EventReleased}\n	if c.Lost {\n",
		}},
		caught: []catcher{simulated("greedy", 3)},
	},
	{
		name:    "shorter-values-need-room",
		breaks:  "an owner that has used up its share of the memory cannot set a shorter value",
		promise: "shares",
		changes: []change{{"fsm/release.go", "	if more := costBytes(len(c.Value)) - costBytes(len(e.value)); more > 0 {\n", "	if more := max(costBytes(len(c.Value)), costBytes(len(e.value))); more > 0 {\n"}},
		caught:  []catcher{simulated("greedy", 3)},
	},
	{
		name:    "ends-of-sessions-need-room",
		breaks:  "an owner that has used up its share of the sessions cannot end one",
		promise: "shares",
		changes: []change{{
			"fsm/session.go", "	t.releaseUndelivered(c.Session, s, c.Undelivered)\n",
			"	if res, ok := t.hasRoom(fullSessions, t.limits.Sessions, t.sessions.len, s.owner.use.Sessions); !ok {\n		return res\n	}\n	t.releaseUndelivered(c.Session, s, c.Undelivered)\n",
		}},
		caught: []catcher{simulated("greedy", 3)},
	},
	{
		name:    "keep-alives-need-room",
		breaks:  "the sessions of an owner that has used up its share are not kept alive",
		promise: "shares",
		changes: []change{{
			"fsm/session.go", "		if s == nil {\n			continue\n		}\n		s = t.extend(",
			"		if s == nil || s.owner.use.Sessions >= t.limits.Sessions-t.sessions.len {\n			continue\n		}\n		s = t.extend(",
		}},
		caught: []catcher{simulated("greedy", 3)},
	},
	{
		name:    "cancels-need-room",
		breaks:  "an owner that has used up its share of the waits cannot cancel one",
		promise: "shares",
		changes: []change{{
			"fsm/acquire.go", "		if !t.cancelTry(r, target) {\n",
			"		if res, ok := t.hasRoom(fullWaiters, t.limits.Waiters, t.waiters, r.owner.use.Waiters); !ok {\n			return res\n		}\n		if !t.cancelTry(r, target) {\n",
		}},
		caught: []catcher{simulated("greedy", 3)},
	},
	{
		name:    "followers-take-for-their-clients",
		breaks:  "requests through a follower count for the follower, so that all its clients have one share",
		promise: "shares",
		changes: []change{{"node/route.go", "		Owner: ownerOf(r.id, c.call.Op), Checked:", "		Owner: \"node \" + r.id, Checked:"}},
		caught:  []catcher{simulated("greedy", 3)},
	},
}
