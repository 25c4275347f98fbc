package main

// limitMutants concern what the system lets a node have: disk, rights, files, and the room
// for what it logs.
var limitMutants = []mutant{
	{
		name:    "full-disk-is-called-damage",
		breaks:  "an error of the system is reported as damage, and the operator is advised to discard the data",
		promise: "S7",
		changes: []change{{"internal/disk/errors.go", "	if _, ok := systemErrno(e.cause); ok {\n", "	if _, ok := systemErrno(e.cause); ok && false {\n"}},
		caught: []catcher{
			named("./internal/disk", "TestErrorsOfTheSystemAreNotCalledDamage"),
			named("./internal/disk", "TestMissingRightsAreNotDamage"),
		},
	},
	{
		name:    "unreadable-snapshot-is-moved-aside",
		breaks:  "a snapshot that the disk cannot read at the moment is moved aside as damaged",
		promise: "S7",
		changes: []change{{"internal/disk/snapshots.go", "			if _, ok := systemErrno(cause); ok { // it may be whole\n", "			if _, ok := systemErrno(cause); ok && false {\n"}},
		caught:  []catcher{named("./internal/disk", "TestFilesThatTheDiskCannotReadAreNotCalledDamaged")},
	},
	{
		name:    "unreadable-snapshot-is-left-out",
		breaks:  "a snapshot that cannot be read at the moment is treated as if it did not exist",
		promise: "S7",
		changes: []change{{"internal/disk/snapshots.go", "		case system:\n			return nil, fmt.Errorf(\"snapshot %s: %w\", e.Name(), err)\n", "		case system:\n"}},
		caught:  []catcher{named("./internal/disk", "TestSnapshotsThatCannotBeReadAreNotLeftOut")},
	},
	{
		name:    "reseed-gives-up-what-cannot-be-read-now",
		breaks:  "a re-seed treats an identity that cannot be read at the moment as lost",
		promise: "S7",
		changes: []change{{"internal/disk/reseed.go", "ok && errno != syscall.EIO {\n", "ok && errno == syscall.EIO {\n"}},
		caught:  []catcher{named("./internal/disk", "TestReseedDoesNotGiveUpDataThatOnlyCannotBeRead")},
	},
	{
		name:    "failed-segment-does-not-say-why",
		breaks:  "a node that cannot create a segment of its log ends without naming the cause",
		promise: "liveness",
		changes: []change{{"internal/raftlog/log.go", "		err = fmt.Errorf(\"begin segment %s: %w\", filepath.Join(l.o.Dir, h.name()), err)\n", "		err = fmt.Errorf(\"begin segment %s\", filepath.Join(l.o.Dir, h.name()))\n"}},
		caught:  []catcher{named("./internal/disk", "TestLastWordsNameTheCauseAndNotItsEcho")},
	},
	{
		name:    "clients-take-the-last-files",
		breaks:  "connections of clients use up all files that the process may open",
		promise: "liveness",
		changes: []change{{"node/node.go", "Admit: leaveToPeers,", "Admit: nil,"}},
		caught:  []catcher{named("./node", "TestConnectionsLeaveFilesToTheNode")},
	},
	{
		name:    "strangers-take-the-last-files",
		breaks:  "connections to the Raft port use up all files that the process may open",
		promise: "liveness",
		changes: []change{{"internal/network/room.go", "	if err := s.o.Admit(c); err != nil {\n", "	if err := s.o.Admit(c); err != nil && false {\n"}},
		caught:  []catcher{named("./node", "TestConnectionsLeaveFilesToTheNode")},
	},
	{
		name:    "gossip-takes-the-last-files",
		breaks:  "connections to the gossip port use up all files that the process may open",
		promise: "liveness",
		changes: []change{{"cluster/transport.go", "			if g.admit != nil && g.admit(conn) != nil {\n", "			if g.admit != nil && false {\n"}},
		caught:  []catcher{named("./node", "TestConnectionsLeaveFilesToTheNode")},
	},
	{
		name:    "every-try-is-logged",
		breaks:  "every line of Raft is logged: thousands in ten minutes",
		promise: "liveness",
		changes: []change{{"node/logs.go", "	if r.Level >= slog.LevelInfo && !s.all.take(s.cause(r), s.Handler, &r) {\n", "	if r.Level > slog.LevelError && !s.all.take(s.cause(r), s.Handler, &r) {\n"}},
		caught:  []catcher{named("./node", "TestAnHourWithADeadPeerAndTenMinutesWithoutAMajorityFillNoLog")},
	},
	{
		name:    "repeated-lines-are-lost",
		breaks:  "the count of repeated lines is not logged when the node ends",
		promise: "liveness",
		changes: []change{{"node/logs.go", "		if c.count > 0 {\n			last =", "		if c.count < 0 {\n			last ="}},
		caught:  []catcher{named("./node", "TestOneLineForEachCauseAndMinute")},
	},
	{
		name:    "causes-without-bound",
		breaks:  "strangers that use a new name each time take ever more memory",
		promise: "liveness",
		changes: []change{{"node/logs.go", "		case len(a.causes) >= maxCauses:\n", "		case false:\n"}},
		caught:  []catcher{named("./node", "TestLinesThatAStrangerCausesAreBounded")},
	},
	{
		name:    "id-is-free-after-each-round",
		breaks:  "a node logs that its ID is unique again after each round in which it does not see the other node",
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
		breaks:  "the log does not reach back to the older snapshot, which cannot be used without it",
		promise: "S7",
		changes: []change{{"node/snapshot.go", "	return (last - before) + (index-before)/slackShare + (last - index) + slack\n", "	return (before - before) + (last - index) + slack\n"}},
		caught:  []catcher{named("./node", "TestTheLogStaysShortHoweverLargeItsEntriesAre")},
	},
}
