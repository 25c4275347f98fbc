// Package chaos breaks a cluster of real processes, while real clients use it, and
// finds out whether a promise broke.
//
// Objects:
//   - a [Kind] is a kind of fault: how it is done, lifted, and recovered from;
//   - a [Schedule] deals kinds, a pure function of its seed;
//   - a run owns a cluster (internal/proc), probing clients, a keeper of locks, and
//     client processes: this executable once more, as [RunWorker];
//   - a [Result] is what was done and found, as text, JSON and HTML.
//
// What is checked: the histories that the client processes recorded
// (internal/history), that locks which were acknowledged and never released are
// there at the end, that all nodes were in the same state at the same place of
// their logs, that no node ended by itself, that every call was answered, and how
// long probing clients had to wait after each fault.
//
// All times are readings of the machine's monotonic clock less one origin, so that
// those of different processes can be compared.
//
// Goroutines: Run injects all faults on the goroutine that calls it. Each probe,
// the keeper and the teller of progress have one each; Run joins them.
package chaos
