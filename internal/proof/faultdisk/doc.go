// Package faultdisk starts and controls faultfs, the program of the module
// test/fuse: a directory on a disk that fails, hangs, lies and loses power on
// request. It uses only the command line and the protocol of the program, so that
// this module does not depend on FUSE.
//
// Objects: a [Disk] owns one process of faultfs and its mount.
//
// Goroutines: each Disk has one, which reads the answers of the process; it ends when
// the process does, and Close waits for that.
//
// Invariants: when this process exits or is killed, faultfs reads the end of its input
// and unmounts. After Close nothing is mounted any more.
//
// Files: disk.go starts, controls and ends a disk; unmount_linux.go and unmount_other.go
// remove a mount whose process is gone.
package faultdisk
