package main

// rightsTableMutants concern what the table itself guards of rights: what belongs to whom, how
// much a caller may have, and until when an access token is valid.
var rightsTableMutants = []mutant{
	{
		name:    "release-by-another-identity",
		breaks:  "whoever guesses a fencing token can release, renew or change a detached grant of another identity",
		promise: "S10",
		changes: []change{{"fsm/release.go", "	if t.isGuarded(r.owner) {\n		return nil, NotOwner\n", "	if false {\n		return nil, NotOwner\n"}},
		caught: []catcher{
			named("./fsm", "TestWhatIsAnIdentitysIsForNobodyElse"), named("./fsm", "TestTableDoesWithRightsWhatTheModelDoes"),
			named("./fsm", "TestPromisesHoldForCallers"),
		},
	},
	{
		name:    "session-used-by-another-identity",
		breaks:  "whoever knows the ID of a session can use it as another identity",
		promise: "S10",
		changes: []change{{"fsm/apply.go", "	if t.usesForeignSession(id.Session) {\n", "	if false {\n"}},
		caught: []catcher{
			named("./fsm", "TestWhatIsAnIdentitysIsForNobodyElse"), named("./fsm", "TestTableDoesWithRightsWhatTheModelDoes"),
			named("./fsm", "TestPromisesHoldForCallers"),
		},
	},
	{
		name:    "session-ended-by-another-identity",
		breaks:  "whoever knows the ID of a session can end it as another identity",
		promise: "S10",
		changes: []change{{"fsm/session.go", "		return Result{Code: NoSession}\n	}\n	if t.isForeign(s.owner) {\n", "		return Result{Code: NoSession}\n	}\n	if false {\n"}},
		caught:  []catcher{named("./fsm", "TestWhatIsAnIdentitysIsForNobodyElse"), named("./fsm", "TestTableDoesWithRightsWhatTheModelDoes")},
	},
	{
		name:    "cancel-by-another-identity",
		breaks:  "anybody can cancel the detached request of an identity",
		promise: "S10",
		changes: []change{{"fsm/acquire.go", "		if t.isGuarded(r.owner) {\n", "		if false {\n"}},
		caught:  []catcher{named("./fsm", "TestWhatIsAnIdentitysIsForNobodyElse"), named("./fsm", "TestTableDoesWithRightsWhatTheModelDoes")},
	},
	{
		name:    "once-id-told-to-another-identity",
		breaks:  "another identity that knows a once ID gets the grant under it",
		promise: "S10",
		changes: []change{{"fsm/as.go", "	if m, ok := t.recordOf(c); ok && t.isForeign(m.owner) {\n", "	if m, ok := t.recordOf(c); ok && t.isForeign(m.owner) && false {\n"}},
		caught:  []catcher{named("./fsm", "TestWhatIsAnIdentitysIsForNobodyElse"), named("./fsm", "TestTableDoesWithRightsWhatTheModelDoes")},
	},
	{
		name:    "caller-makes-for-others",
		breaks:  "a caller can open sessions and take locks in the name of another identity",
		promise: "S10",
		changes: []change{{"fsm/as.go", "	case owner != t.as.caller && (isIdentity(owner) || isIdentity(t.as.caller)):\n", "	case false:\n"}},
		caught:  []catcher{named("./fsm", "TestWhatIsAnIdentitysIsForNobodyElse"), named("./fsm", "TestTableDoesWithRightsWhatTheModelDoes")},
	},
	{
		name:    "caller-stays-for-the-next-command",
		breaks:  "the command after one that came as somebody runs as the same caller",
		promise: "S10",
		changes: []change{{"fsm/as.go", "	t.as = asCaller{}\n	return res\n", "	return res\n"}},
		caught:  []catcher{named("./fsm", "TestTableDoesWithRightsWhatTheModelDoes")},
	},
	{
		name:    "expired-access-token-stays-valid",
		breaks:  "an access token whose time has come goes on being valid",
		promise: "S11",
		changes: []change{{"fsm/access_tokens.go", "	if a.Deadline != 0 {\n		a.timer", "	if a.Deadline < 0 {\n		a.timer"}},
		caught:  []catcher{named("./fsm", "TestAccessTokenIsValidToItsDeadline"), named("./fsm", "TestTableDoesWithRightsWhatTheModelDoes")},
	},
	{
		name:    "revoked-caller-takes-on",
		breaks:  "an operation that a node let in before it heard of a revocation still takes a lock after it",
		promise: "S11",
		changes: []change{{"fsm/as.go", "	case t.isRevoked(t.as.caller):\n", "	case false:\n"}},
		caught: []catcher{
			named("./fsm", "TestWhoIsNobodyAnyMoreGetsNothingMore"), named("./fsm", "TestTableDoesWithRightsWhatTheModelDoes"),
			named("./fsm", "TestPromisesHoldForCallers"),
		},
	},
	{
		name:    "revoked-caller-keeps-its-place",
		breaks:  "who waits when the last access token of its name is revoked is granted the lock later",
		promise: "S11",
		changes: []change{{"fsm/promote.go", "		if t.isStranded(r.owner) {\n", "		if false {\n"}},
		caught: []catcher{
			named("./fsm", "TestWhoIsNobodyAnyMoreGetsNothingMore"), named("./fsm", "TestTableDoesWithRightsWhatTheModelDoes"),
			named("./fsm", "TestPromisesHoldForCallers"),
		},
	},
	{
		name:    "revoked-caller-blocks-the-line",
		breaks:  "who waits when the last access token of its name is revoked keeps everybody behind it waiting, too",
		promise: "liveness",
		changes: []change{{"fsm/promote.go", "	for len(t.stranded) > 0 {\n", "	for len(t.stranded) > 1<<20 {\n"}},
		caught:  []catcher{named("./fsm", "TestWhoIsNobodyAnyMoreGetsNothingMore"), named("./fsm", "TestTableDoesWithRightsWhatTheModelDoes")},
	},
	{
		name:    "quota-is-not-counted",
		breaks:  "a policy's quota of grants bounds nobody",
		promise: "liveness",
		changes: []change{{"fsm/quotas.go", "	if b.value == 0 || own+more <= b.value {\n", "	if b.value == 0 || more <= b.value {\n"}},
		caught:  []catcher{named("./fsm", "TestQuotaBoundsItsCaller"), named("./fsm", "TestTableDoesWithRightsWhatTheModelDoes")},
	},
	{
		name:    "quota-of-the-last-policy",
		breaks:  "of several quotas of a caller the last one counts and not the smallest",
		promise: "liveness",
		changes: []change{{"fsm/quotas.go", "	if value != 0 && (b.value == 0 || value < b.value) {\n", "	if value != 0 {\n"}},
		caught:  []catcher{named("./fsm", "TestQuotaBoundsItsCaller")},
	},
	{
		name:    "policies-are-half-changed",
		breaks:  "a change of policies that is refused for one of them has put in those before it",
		promise: "S11",
		changes: []change{{"fsm/policies.go", "			return t.refusePolicy(Invalid, why, arg, c.Put[i].Name), true\n		}\n", "			return t.refusePolicy(Invalid, why, arg, c.Put[i].Name), true\n		}\n		half := c.Put[i]\n		t.removePolicy(half.Name)\n		t.enterPolicy(&half)\n"}},
		caught:  []catcher{named("./fsm", "TestPoliciesChangeTogetherOrNotAtAll"), named("./fsm", "TestTableDoesWithRightsWhatTheModelDoes")},
	},
	{
		name:    "policies-overwrite-each-other",
		breaks:  "a change of policies is made although somebody else has changed them since they were read",
		promise: "S11",
		changes: []change{{"fsm/policies.go", "	if c.If != 0 && c.If != t.rightsIndex {\n", "	if false {\n"}},
		caught:  []catcher{named("./fsm", "TestPoliciesChangeTogetherOrNotAtAll"), named("./fsm", "TestTableDoesWithRightsWhatTheModelDoes")},
	},
	{
		name:    "end-of-rights-goes-unseen",
		breaks:  "nodes are not told that an access token has ended by time, and go on with the rights that they know",
		promise: "S11",
		changes: []change{{"fsm/access_tokens.go", "	t.chargeRights(-a.costOf())\n	t.rightsChanged()\n", "	t.chargeRights(-a.costOf())\n"}},
		caught:  []catcher{named("./fsm", "TestAccessTokenIsValidToItsDeadline"), named("./fsm", "TestTableDoesWithRightsWhatTheModelDoes")},
	},
	{
		name:    "rights-are-free",
		breaks:  "access tokens use memory that the table does not count",
		promise: "liveness",
		changes: []change{{"fsm/cost.go", "	return costAccess + 2*costBytes(len(a.Accessor)) + costBytes(len(a.Name)) + costBytes(len(a.MadeBy)) + costLabels(a.Labels)\n", "	return costAccess\n"}},
		caught:  []catcher{named("./fsm", "TestTableTakesNoMoreThanItCosts")},
	},
}
