// Package faultfs is a file system with a disk that can be broken on request: a
// passthrough of a directory through FUSE, which fails, hangs, slows down, lies
// about fsync, flips bytes and loses power. A harness needs only the program in
// cmd/faultfs. It is a module of its own, so that users of Locknode do not depend on
// a FUSE library. It runs on Linux.
//
// # The program
//
//	faultfs --root DIR --mount DIR
//
// serves at --mount what is in --root. It prints "ready" when it does, then reads
// commands from its standard input, one a line, and answers each with one line:
// "ok", "ok" and JSON, or "error: " and the reason. At the end of its input, on
// SIGTERM and on quit it releases operations that hang, unmounts and exits with 0.
// It exits with 2 if its flags are wrong, and with 3 if it cannot mount here, so that
// a caller can skip its tests. See [Help] for the commands.
//
// A command takes effect before it is answered: it affects every operation that
// starts after that.
//
// # What survives powerloss
//
// The disk has, beside what processes see, a durable state. The model is what
// POSIX guarantees, which is less than what ext4 with its default options does;
// a program that survives it survives there too:
//
//   - Content and size of a file are durable as they were when it was last
//     synced: fsync, fdatasync, or a write through O_SYNC or O_DSYNC. Closing a
//     file, and renaming it, makes nothing durable. A new file is empty.
//   - The names in a directory are durable as they were when the directory was
//     last synced: creations, links, removals and renames after that are undone.
//     Syncing a file does not sync its name. (On ext4 an fsync of any file commits
//     the journal, and with it all names before it.)
//   - A rename is undone or kept as a whole. If it moves between two directories,
//     syncing either of them makes the changes of both durable, as one transaction
//     of a journal would.
//   - A directory whose own name is not durable takes all that is in it along.
//   - A removed file whose directory was not synced is back with its content.
//   - After a failed fsync, what was to be written is lost: the next fsync says ok
//     and does not make it durable, as Linux does, unless it was written again.
//   - While lie is on, fsync makes nothing durable. A correct fsync after that does.
//   - Permissions, owners, times and preallocated blocks are durable at once.
//     There are no extended attributes.
//
// "powerloss" goes back to exactly this state. "powerloss torn SEED" models what a
// kernel may have written by itself before: of each file every sector of 512 bytes
// that is not durable survives or not, the size too, and all names or none. Where
// the size survives and a sector does not, it reads as zeros, or as what it was.
//
// After a loss of power every file is a new one to the kernel, and nothing that was
// open can be used any more: kill the processes before. What is in --root is then
// what the mount shows. If faultfs itself is killed, --root keeps what the
// processes saw; nothing is rolled back.
//
// # Objects
//
//   - [Faults] decides what happens to an operation, and counts.
//   - [Volume] is the directory with its undo logs: of files, the sectors as they
//     were at the last sync; of directories, the names. Both are filled at the
//     first change after a sync, and have limits: what has been dirty for longest
//     is then written back, that is, becomes durable.
//   - [Mount] is a volume that the kernel serves; [Control] the commands.
//
// Goroutines: those of go-fuse, one for each request, which end with Unmount.
//
// Files:
//   - run.go, run_linux.go, run_other.go: the program, its flags and help. control.go: its
//     commands. mount.go: does the kernel take it? serve.go: what the kernel asks for.
//   - fault.go: which faults are there? dying_linux.go: is the waiting process being killed?
//   - volume.go: a directory with its undo logs. content.go: what was in a file at the last
//     sync? names.go: which names were there? powerloss.go: going back to that.
package faultfs
