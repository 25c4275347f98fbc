// Command locknode runs nodes of a lock cluster, and works with its locks from
// the shell.
//
// It has flags, configuration, signals, exit codes and printing, and no other
// logic: a Go program can do the same with packages node and client. Results go
// to standard output, logs and errors to standard error.
//
// Goroutines: `run` has one that starts the child, keeps its thread and reaps all
// children; its watchdog has one that reads the lines from run; `bench` has one for
// each worker and joins them; everything else runs in the calling goroutine.
//
// Files:
//   - main.go is the entry; root.go finds the command and turns its error into an exit code;
//     exit.go lists the exit codes and the advice below each error, whose own text is that of
//     package client; flags.go has helpers for flags.
//   - serve.go runs a node; settings.go lists the settings, config.go decides which source
//     wins, environment.go finds misspelt variables, secrets.go reads the gossip key,
//     reload.go applies a changed configuration and has the command for that, audit.go rotates
//     the audit, memory.go sets the runtime's memory limit.
//   - run.go runs a command under a lock; nested.go refuses to wait for a lock that a
//     surrounding run holds; supervise.go, supervise_linux.go and supervise_other.go own the
//     child; group.go, group_linux.go, group_darwin.go and group_other.go signal its processes;
//     watchdog.go and watchdog_main.go end it when locknode cannot; clock_linux.go and
//     clock_other.go have the clock that run and the watchdog share.
//   - locks.go has acquire, release and the other commands that work on locks; waiting.go
//     tells the user what a command waits for.
//   - members.go has status, members and transfer-leadership; wait.go waits until the
//     cluster is healthy; operator.go has the
//     commands against clients that use too much; gossipkey.go rotates the keys of gossip;
//     reseed.go and version.go have one command each.
//   - access.go reads the access token of a command, and has the settings for rights; token.go
//     makes and revokes access tokens; policy.go says who may do what, and policy_file.go reads
//     and writes files of policies.
//   - tls.go makes certificates, tls_inspect.go shows what they are good for; secure.go has the
//     flags and settings for TLS.
//   - dev.go and demo.go start a cluster to try, dev_auth.go gives it an access token; bench.go
//     measures a cluster, bench_tls.go one in TLS beside one in plain text, failover.go the
//     gap after a leader is killed; chaos.go injects faults.
//   - output.go and output_operator.go print results, table.go prints columns.
//   - commands_unix.go and commands_other.go list the commands that depend on the system.
package main
