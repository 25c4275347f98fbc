// Package faultdisk starts and controls faultfs, the program of the module
// test/fuse: a directory shown through a disk that fails, hangs, lies and loses
// power on request. It knows the program only by its command line and its
// protocol, so that nothing of FUSE gets into this module.
//
// Objects: a [Disk] owns one process of faultfs and its mount.
//
// Goroutines: each Disk has one, which reads what the process answers; it ends when
// the process does, and Close waits for that.
//
// Invariants: when this process dies, however it dies, faultfs reads the end of its
// input and unmounts. After Close nothing is mounted any more.
//
// Files: disk.go starts, controls and ends a disk; unmount_linux.go and unmount_other.go take
// away a mount whose process is gone.
package faultdisk
