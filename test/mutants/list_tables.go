package main

// tableMutants are false rows of the tables of kinds and codes.
var tableMutants = []mutant{
	{
		name:    "grant-without-a-token",
		breaks:  "an answer to an acquire that has no token counts as a grant",
		promise: "S4",
		changes: []change{{"api/v1/kinds.go", "a.GetAcquire().GetToken() != 0 }", "a.GetAcquire() != nil }"}},
		caught:  []catcher{named("./api/v1", "TestOnlyTheResultOfAKindFitsIt")},
	},
	{
		name:    "release-loses-what-is-lost",
		breaks:  "a release of a lost grant that a node sends in its session starts no delay",
		promise: "S5",
		changes: []change{{"api/v1/kinds.go", "Token: r.GetToken(), Lost: r.GetLost()}", "Token: r.GetToken()}"}},
		caught:  []catcher{named("./api/v1", "TestAnotherRequestIDChangesNothingElse")},
	},
	{
		name:    "renewal-does-not-keep-alive",
		breaks:  "renewals can be refused because of other operations",
		promise: "liveness",
		changes: []change{{"api/v1/kinds.go", `name: "renew", method: "Renew", frees: true,`, `name: "renew", method: "Renew",`}},
		caught:  []catcher{named("./node", "TestEveryKindOfOperationHasItsPart")},
	},
	{
		name:    "reached-limit-is-asked-for-again",
		breaks:  "a request that a limit of the table refuses is retried instead of answered",
		promise: "liveness",
		changes: []change{{"api/v1/codes.go", "http.StatusTooManyRequests, exitOther, RetryNone}", "http.StatusTooManyRequests, exitOther, RetryLater}"}},
		caught:  []catcher{named("./api/v1", "TestPublishedCodesDoNotChange")},
	},
	{
		name:    "refused-cancel-is-forgotten",
		breaks:  "a cancel that the cluster has refused counts as carried out, and the place in the queue stays as long as the session",
		promise: "liveness",
		changes: []change{{"internal/window/giveup.go", "	return Refused\n", "	return GivenUp\n"}},
		caught: []catcher{
			named("./internal/host", "TestRefusedCancelsAreSentUnderAnotherSequence"),
			named("./client", "TestRefusedReleasesAndCancelsAreRepeated"),
		},
	},
	{
		name:    "time-begins-anew-at-its-end",
		breaks:  "a TTL that exceeds the range of time ends at once",
		promise: "S2",
		changes: []change{{"fsm/instant.go", "later >= i {", "true {"}},
		caught:  []catcher{named("./fsm", "TestInstantsStopAtTheEndOfTime")},
	},
	{
		name:    "command-line-names-no-lock",
		breaks:  "force-release prints other fields than HTTP returns",
		promise: "liveness",
		changes: []change{{"cmd/locknode/locks.go", "holderDocuments(released, true)", "holderDocuments(released, false)"}},
		caught:  []catcher{named("./cmd/locknode", "TestHTTPAndTheCommandLineSayTheSame")},
	},
	{
		name:    "resize-is-hosted-by-nobody",
		breaks:  "a resize without a session is sent without a request ID, and may be done twice",
		promise: "S6",
		changes: []change{{"api/v1/kinds.go", "name: \"resize\", method: \"Resize\", hosted: true,", "name: \"resize\", method: \"Resize\","}},
		caught:  []catcher{named("./internal/host", "TestWhatIsSentIsWhatWasAsked")},
	},
	{
		name:    "unknown-fields-travel-for-nothing",
		breaks:  "fields that a node does not know are not counted, and make a message too long for all on the stream",
		promise: "liveness",
		changes: []change{{"api/v1/measure.go", "24*len(id.Answered) + len(id.unknownFields)", "24*len(id.Answered)"}},
		caught:  []catcher{named("./api/v1", "TestAllThatTravelsIsMeasured")},
	},
}
