// Command locknode runs nodes of a lock cluster and works with its locks from
// the shell.
//
// It is flags, configuration, signals, exit codes and printing: what it does,
// a Go program can do with packages node and client. Results go to standard
// output, logs and errors to standard error.
//
// Files: one for each command, and
//
//   - root.go: how is a command found, and how does an error become an exit code?
//   - exit.go: which exit codes are there, and what should one do about an error?
//   - settings.go, config.go: what can be configured, and which source wins?
//   - supervise.go, group.go: how does a command run under a lock?
//   - watchdog.go, watchdog_main.go: who ends it when locknode cannot?
//   - bench.go, failover.go: what is measured, and how?
//   - output.go: how do results look?
//
// Goroutines: `run` has one that owns the child, keeps its thread and reaps all
// children; its watchdog has one that reads what run sends; `bench` has one for
// each worker and joins them; everything else is the calling goroutine's.
package main
