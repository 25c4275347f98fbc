// Package chaos breaks a cluster of real processes, while real clients use it, and
// finds out whether a promise broke.
//
// Objects:
//   - a [Kind] is a kind of fault: how it is done, lifted, and recovered from;
//   - a [Schedule] deals kinds, a pure function of its seed;
//   - a run owns a cluster (internal/proof/proc), probing clients, a keeper of locks, and
//     client processes: this executable once more, as [RunWorker];
//   - a [Result] is what was done and found, as text, JSON and HTML.
//
// What is checked: the histories that the client processes recorded
// (internal/proof/history), that locks which were acknowledged and never released are
// there at the end, that all nodes were in the same state at the same place of
// their logs, that no node ended by itself, that every call was answered, and how
// long probing clients had to wait after each fault.
//
// All times are readings of the machine's monotonic clock less one origin, so that
// those of different processes can be compared.
//
// Goroutines: Run injects all faults on the goroutine that calls it. Each probe,
// the keeper and the report of progress have one each; Run joins them.
//
// Files:
//   - options.go: what can be set? run.go: how does a run go? round.go: and its client
//     processes? progress.go: how far is it? clock.go: the clock of all processes.
//   - kinds.go: what is a kind of fault? schedule.go: which fault comes next?
//   - strikes_process.go, strikes_network.go, strikes_files.go, strikes_disk.go,
//     strikes_members.go: how is each kind done, and lifted? disks.go, mount_linux.go,
//     mount_other.go: on which disks?
//   - worker.go, roles.go: what do clients do meanwhile? probe.go: when does the cluster work?
//     keeper.go: which locks must still be there at the end?
//   - judge.go: what must be true at the end? result.go: what was found? text.go, html.go,
//     timeline.go: how is it shown?
//   - drill.go, drillworker.go, guardedset.go: what are tokens for, and what happens without?
package chaos
