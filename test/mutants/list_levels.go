package main

var levelMutants = []mutant{
	{
		name:    "later-commands-run-below-their-level",
		breaks:  "a node runs a command of a later feature level before the table has reached it, and nodes that do not know it do not",
		promise: "S8",
		changes: []change{{"fsm/apply.go", "	if kind.level() > t.level {", "	if kind.level() > Level+1 {"}},
		caught:  []catcher{named("./fsm", "TestKindOfALaterLevelIsUnknownUntilTheTableIsThere")},
	},
	{
		name:    "levels-fall",
		breaks:  "a late command to raise the feature level lowers it",
		promise: "S8",
		changes: []change{{"fsm/level.go", "	if c.Level > t.level {", "	if c.Level != t.level {"}},
		caught:  []catcher{named("./fsm", "TestLevelRisesAndNeverFalls")},
	},
	{
		name:    "too-old-runs-on",
		breaks:  "a program that does not know the feature level of the table goes on applying entries",
		promise: "S8",
		changes: []change{{"internal/replica/table.go", "	if t.broken = t.table.KnownLevel(); t.broken != nil {", "	if false {"}},
		caught:  []catcher{named("./internal/replica", "TestAProgramTooOldRefusesATableOfALaterLevel")},
	},
	{
		name:    "above-the-level-is-written",
		breaks:  "the leader writes a command of a later feature level than the table's",
		promise: "S8",
		changes: []change{{"node/propose.go", "	if p.level != nil {\n		if res, below", "	if false {\n		if res, below"}},
		caught:  []catcher{named("./node", "TestCommandAboveTheTablesLevelIsRefusedAndNotWritten")},
	},
	{
		name:    "silent-members-agree",
		breaks:  "the feature level rises although a member has not agreed",
		promise: "S8",
		changes: []change{{"internal/membership/level.go", "		l := of(id)\n", "		l := of(id)\n		if l <= 1 {\n			continue\n		}\n"}},
		caught:  []catcher{named("./internal/membership", "TestTheFeatureLevelWaitsForEveryMember")},
	},
	{
		name:    "too-old-joins",
		breaks:  "a node that cannot run the table's feature level is accepted as a member",
		promise: "S8",
		changes: []change{{"internal/membership/join.go", "			err = m.knowsLevel(req)\n", "			_ = m.knowsLevel(req)\n"}},
		caught:  []catcher{named("./internal/membership", "TestANodeThatIsTooOldForTheTableDoesNotJoin")},
	},
}
