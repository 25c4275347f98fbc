// Package chaos injects faults into a cluster of real processes while real clients use it,
// and checks that its promises hold.
//
// Objects:
//   - a [Kind] is a kind of fault: how it is injected, ended, and recovered from;
//   - a [Schedule] selects kinds, as a pure function of its seed;
//   - a run owns a cluster (internal/proof/proc), probing clients, a keeper of locks, and
//     client processes: this executable again, as [RunWorker];
//   - a [Result] has what the run did and found, as text, JSON and HTML.
//
// What is checked: the histories that the client processes recorded
// (internal/proof/history), that locks which were granted and never released are still
// held at the end, that all nodes had the same state at the same log index, that no
// node ended by itself, that every call was answered, and how long probing clients had
// to wait after each fault.
//
// All times are readings of the machine's monotonic clock less one origin, so that
// those of different processes can be compared.
//
// Goroutines: Run injects all faults on the goroutine that calls it. Each probe,
// the keeper and the report of progress have one each; Run joins them.
//
// Files:
//   - options.go: what can be set? run.go: what does a run do? round.go: what do its client
//     processes do? progress.go: how far is it? clock.go: the clock of all processes.
//   - kinds.go: what is a kind of fault? A new one is a row in the table at the top of the
//     strikes file that injects it. schedule.go: which fault comes next?
//   - strikes_process.go, strikes_network.go, strikes_files.go, strikes_disk.go,
//     strikes_members.go: how is each kind injected, and ended? disks.go, mount_linux.go,
//     mount_other.go: on which disks?
//   - worker.go, roles.go: what do clients do meanwhile? probe.go: when does the cluster work?
//     keeper.go: which locks must still be there at the end?
//   - judge.go: what must be true at the end? result.go: what was found? text.go, html.go,
//     timeline.go: how is it shown?
//   - drill.go, drillworker.go, guardedset.go: what are tokens for, and what is lost without?
package chaos
