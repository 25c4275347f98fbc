package main

// programMutants are bugs of cmd/locknode.
var programMutants = []mutant{
	{
		name:    "wait-counts-living-voters-only",
		breaks:  "locknode wait --voters ignores voters that are gone and still count for the majority",
		promise: "liveness",
		changes: []change{{"cmd/locknode/wait.go", "	case healthy-majority(all) < n-majority(n):\n", "	case false:\n"}},
		caught:  []catcher{named("./cmd/locknode", "TestWaitEndsWhenOneMoreVoterMayFail")},
	},
	{
		name:    "wait-lets-a-nonvoter-count",
		breaks:  "locknode wait --voters returns although the node that it asked does not vote yet",
		promise: "liveness",
		changes: []change{{"cmd/locknode/wait.go", "		if node.err == nil && !node.status.VoterReady {\n", "		if node.err != nil && !node.status.VoterReady {\n"}},
		caught:  []catcher{named("./cmd/locknode", "TestWaitEndsWhenOneMoreVoterMayFail")},
	},
	{
		name:    "hangup-ends-a-node",
		breaks:  "SIGHUP, which logrotate and ExecReload send, ends a node",
		promise: "liveness",
		changes: []change{{"cmd/locknode/root.go", "		hangup = a.hangup\n", "		hangup = func() bool { return false }\n"}},
		caught:  []catcher{named("./cmd/locknode", "TestHangupReloadsAndNeverEndsANode")},
	},
	{
		name:    "faulty-file-is-taken-up",
		breaks:  "SIGHUP applies the valid parts of a configuration that has a fault",
		promise: "liveness",
		changes: []change{{"cmd/locknode/reload.go", "all settings stay as they are\", \"err\", err)\n		return append(", "all settings stay as they are\", \"err\", err)\n		_ = append("}},
		caught:  []catcher{named("./cmd/locknode", "TestReloadTakesUpWhatItCanAndNothingOfAFaultyFile")},
	},
	{
		name:    "check-is-content-in-an-outage",
		breaks:  "locknode status --check treats a node that answers as ready",
		promise: "liveness",
		changes: []change{{"cmd/locknode/members.go", "	serves := false\n", "	serves := true\n"}},
		caught:  []catcher{named("./cmd/locknode", "TestCheckTellsAnOutageFromALoss")},
	},
	{
		name:    "watchdog-tells-the-leader-twice",
		breaks:  "the watchdog sends TERM to a process that gets it from the kernel, and a program may exit at once at the second",
		promise: "liveness",
		changes: []change{{"cmd/locknode/group_linux.go", "ok && id == g.id && pid != g.id {", "ok && id == g.id {"}},
		caught:  []catcher{named("./cmd/locknode", "TestTheWatchdogTellsTheLeaderNothingThatTheKernelTells")},
	},
}
