// Command locknode runs nodes of a lock cluster and works with its locks from
// the shell.
//
// It is flags, configuration, signals, exit codes and printing: what it does,
// a Go program can do with packages node and client. Results go to standard
// output, logs and errors to standard error.
//
// Goroutines: `run` has one that owns the child, keeps its thread and reaps all
// children; its watchdog has one that reads what run sends; `bench` has one for
// each worker and joins them; everything else is the calling goroutine's.
//
// Files:
//   - main.go starts; root.go finds the command and turns its error into an exit code; exit.go
//     lists the exit codes, and what to do about an error; flags.go has what flags share.
//   - serve.go runs a node; settings.go lists what can be configured, config.go says which
//     source wins, environment.go looks for misspelt variables, secrets.go reads the gossip
//     key, reload.go takes up a changed configuration; memory.go sets the runtime's limit.
//   - run.go runs a command under a lock; nested.go refuses to wait for a lock that a
//     surrounding run holds; supervise.go, supervise_linux.go and supervise_other.go own the
//     child; group.go, group_linux.go, group_darwin.go and group_other.go signal its processes;
//     watchdog.go and watchdog_main.go end it when locknode cannot; clock_linux.go and
//     clock_other.go are the clock of both.
//   - locks.go has acquire, release and the others that work on locks; waiting.go says what a
//     command waits for.
//   - members.go and wait.go say whether the cluster is well; operator.go has the commands
//     against clients that take too much; reseed.go is reseed; version.go is version.
//   - dev.go and demo.go start a cluster to try; bench.go measures, failover.go what a
//     killed leader costs; chaos.go breaks a cluster on purpose.
//   - output.go and output_operator.go print results, table.go puts them in columns.
//   - commands_unix.go and commands_other.go say which commands a system has.
package main
