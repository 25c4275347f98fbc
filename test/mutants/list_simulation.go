package main

// What only shows when many things come together: clients without sessions that ask
// again elsewhere, grants by the dozen, long lines. The simulation has to find these,
// with the first seeds of the profile that does such things.
var simulationMutants = []mutant{
	{
		name:    "ended-grant-is-told-as-held",
		breaks:  "a request ID whose grant has ended is answered as if it had just been granted",
		promise: "S6",
		changes: []change{{
			"fsm/detached.go",
			"		return t.hasEndedWith(m.token)\n	}\n	r, _ :=",
			"		return Result{Token: m.token, Deadline: sumTimes(t.now, c.TTL), Queued: t.now, Granted: t.now}\n	}\n	r, _ :=",
		}},
		caught: []catcher{simulated("scripts", 8)},
	},
	{
		name:    "repeated-id-is-told-the-whole-time",
		breaks:  "who repeats a request ID is told the time that was left when the grant was given",
		promise: "S3",
		changes: []change{{"fsm/detached.go", "	res := r.grantedResult()\n	res.Queued = t.now\n", "	res := r.grantedResult()\n"}},
		caught:  []catcher{simulated("scripts", 8)},
	},
	{
		name:    "cancel-takes-what-others-know",
		breaks:  "the cancel of one try releases a grant that another try was told of",
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
		breaks:  "a request ID that comes with other locks is answered with the grant of the first ones",
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
			"m.token, m.forget = r.token, sumTimes(t.now, t.limits.OnceNanos)\n",
			"m.token, m.forget = r.token, t.now\n",
		}},
		caught: []catcher{simulated("scripts", 8)},
	},
	{
		name:    "anybody-releases-a-sessions-grant",
		breaks:  "whoever knows the token of a session's grant releases it, and its client is not told",
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
		breaks:  "a request without an ID waits on after its caller has gone",
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
		breaks:  "a client that missed more revocations than are kept believes in the forgotten ones",
		promise: "S3",
		changes: []change{{"client/loss.go", "	if !gap {\n", "	if gap || !gap {\n"}},
		caught:  []catcher{simulated("masses", 3)},
	},
	{
		name:    "loss-is-given-back-as-if-by-choice",
		breaks:  "a holder that sees its loss before the cluster does skips the delay after it",
		promise: "delay",
		changes: []change{{"client/loss.go", "	l.release.request.Lost = true\n", ""}},
		caught:  []catcher{simulated("delays", 8)},
	},
	{
		name:    "window-refuses-behind-a-long-wait",
		breaks:  "a session with one long wait is refused everything once its window is full",
		promise: "liveness",
		changes: []change{
			{"internal/window/window.go", "	id.Answered = w.tell()\n", ""},
			{
				"fsm/window.go",
				"	if s.acked.has(id.Sequence) {\n		return Result{Code: StaleRequest}, true\n	}\n",
				"	if s.acked.has(id.Sequence) {\n		return Result{Code: StaleRequest}, true\n	}\n" +
					"	if len(s.window) >= t.limits.RequestsWindow {\n		return t.refuse(OverLimit, fullSession, 0), true\n	}\n",
			},
		},
		caught: []catcher{simulated("masses", 3)},
	},
}
