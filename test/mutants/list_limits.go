package main

// limitMutants concern what the system lets a node have: disk, rights, files, and the room
// for what it logs.
var limitMutants = []mutant{
	{
		name:    "full-disk-is-called-damage",
		breaks:  "an error of the system is taken for wrong contents, and the operator is told to throw the data away",
		promise: "S7",
		changes: []change{{"internal/disk/errors.go", "	if _, ok := systemErrno(e.cause); ok {\n", "	if _, ok := systemErrno(e.cause); ok && false {\n"}},
		caught: []catcher{
			named("./internal/disk", "TestErrorsOfTheSystemAreNotCalledDamage"),
			named("./internal/disk", "TestMissingRightsAreNotDamage"),
		},
	},
	{
		name:    "unreadable-snapshot-is-moved-aside",
		breaks:  "a snapshot that the disk cannot read now is moved aside as damaged",
		promise: "S7",
		changes: []change{{"internal/disk/snapshots.go", "			if _, ok := systemErrno(cause); ok { // it may be whole\n", "			if _, ok := systemErrno(cause); ok && false {\n"}},
		caught:  []catcher{named("./internal/disk", "TestFilesThatTheDiskCannotReadAreNotCalledDamaged")},
	},
	{
		name:    "unreadable-snapshot-is-left-out",
		breaks:  "a snapshot that cannot be read now counts as if it had never been written",
		promise: "S7",
		changes: []change{{"internal/disk/snapshots.go", "		case system:\n			return nil, fmt.Errorf(\"snapshot %s: %w\", e.Name(), err)\n", "		case system:\n"}},
		caught:  []catcher{named("./internal/disk", "TestSnapshotsThatCannotBeReadAreNotLeftOut")},
	},
	{
		name:    "reseed-gives-up-what-cannot-be-read-now",
		breaks:  "a re-seed takes an identity that cannot be read for lack of files for one that is lost",
		promise: "S7",
		changes: []change{{"internal/disk/reseed.go", "ok && errno != syscall.EIO {\n", "ok && errno == syscall.EIO {\n"}},
		caught:  []catcher{named("./internal/disk", "TestReseedDoesNotGiveUpDataThatOnlyCannotBeRead")},
	},
	{
		name:    "failed-segment-does-not-say-why",
		breaks:  "a segment of the log that cannot be begun ends the node without the cause",
		promise: "liveness",
		changes: []change{{"internal/raftlog/log.go", "		err = fmt.Errorf(\"begin segment %s: %w\", filepath.Join(l.o.Dir, h.name()), err)\n", "		err = fmt.Errorf(\"begin segment %s\", filepath.Join(l.o.Dir, h.name()))\n"}},
		caught:  []catcher{named("./internal/disk", "TestLastWordsNameTheCauseAndNotItsEcho")},
	},
	{
		name:    "clients-take-the-last-files",
		breaks:  "connections of clients take every file that the process may open",
		promise: "liveness",
		changes: []change{{"node/node.go", "Admit: leaveToPeers,", "Admit: nil,"}},
		caught:  []catcher{named("./node", "TestConnectionsLeaveFilesToTheNode")},
	},
	{
		name:    "strangers-take-the-last-files",
		breaks:  "connections to Raft take every file that the process may open",
		promise: "liveness",
		changes: []change{{"internal/network/room.go", "	if err := s.o.Admit(c); err != nil {\n", "	if err := s.o.Admit(c); err != nil && false {\n"}},
		caught:  []catcher{named("./node", "TestConnectionsLeaveFilesToTheNode")},
	},
	{
		name:    "gossip-takes-the-last-files",
		breaks:  "connections to gossip take every file that the process may open",
		promise: "liveness",
		changes: []change{{"cluster/transport.go", "			if g.admit != nil && g.admit(conn) != nil {\n", "			if g.admit != nil && false {\n"}},
		caught:  []catcher{named("./node", "TestConnectionsLeaveFilesToTheNode")},
	},
	{
		name:    "every-try-is-logged",
		breaks:  "Raft's lines are all written, thousands in ten minutes",
		promise: "liveness",
		changes: []change{{"node/logs.go", "	if r.Level >= slog.LevelInfo && !s.all.take(s.cause(r), s.Handler, &r) {\n", "	if r.Level > slog.LevelError && !s.all.take(s.cause(r), s.Handler, &r) {\n"}},
		caught:  []catcher{named("./node", "TestAnHourWithADeadPeerAndTenMinutesWithoutAMajorityFillNoLog")},
	},
	{
		name:    "repeated-lines-are-lost",
		breaks:  "what was counted is not told when the node ends",
		promise: "liveness",
		changes: []change{{"node/logs.go", "		if c.count > 0 {\n			last =", "		if c.count < 0 {\n			last ="}},
		caught:  []catcher{named("./node", "TestOneLineForEachCauseAndMinute")},
	},
	{
		name:    "causes-without-bound",
		breaks:  "strangers with another name each time take ever more memory",
		promise: "liveness",
		changes: []change{{"node/logs.go", "		case len(a.causes) >= maxCauses:\n", "		case false:\n"}},
		caught:  []catcher{named("./node", "TestLinesThatAStrangerCausesAreBounded")},
	},
	{
		name:    "id-is-free-after-each-round",
		breaks:  "a node says that its ID is its own again after each round that does not see the other one",
		promise: "liveness",
		changes: []change{{"cluster/join.go", "	case now.Sub(t.last) > c.timing.quiet:\n", "	case now.Sub(t.last) > 0:\n"}},
		caught:  []catcher{named("./cluster", "TestIDIsNotFreeAsLongAsItIsSeenElsewhere")},
	},
	{
		name:    "log-keeps-entries-of-any-size",
		breaks:  "the log keeps 2,048 entries more than snapshots need, however large they are",
		promise: "liveness",
		changes: []change{{"node/snapshot.go", "	if s.entry > 0 {\n", "	if s.entry < 0 {\n"}},
		caught:  []catcher{named("./node", "TestTheLogStaysShortHoweverLargeItsEntriesAre")},
	},
	{
		name:    "log-ends-at-the-newest-snapshot",
		breaks:  "the log does not reach back to the older snapshot, which is of no use without it",
		promise: "S7",
		changes: []change{{"node/snapshot.go", "	return (last - before) + (index-before)/slackShare + (last - index) + slack\n", "	return (before - before) + (last - index) + slack\n"}},
		caught:  []catcher{named("./node", "TestTheLogStaysShortHoweverLargeItsEntriesAre")},
	},
}
