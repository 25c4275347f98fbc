//go:build unix

// Package netns gives processes network namespaces of their own, wired to one
// bridge, in which the way from any one to any other can be cut. It needs Linux,
// root and the program ip; [Available] says whether it can be done.
//
// Objects: a [Lab] is the bridge and the hosts at it. The process that makes a lab
// is one of the hosts, the hub, and has to run in a network namespace of its own:
// [Command] starts a program in one. Namespaces have no names and no files, so the
// kernel removes all of it when the processes have ended, however they end.
//
// A way is cut by a neighbour that is not there: the sender's kernel is told a
// hardware address that nobody has, so that packets leave and arrive nowhere. That
// is the silence of a real network: nothing is refused, TCP sends again and gives
// up or goes on, as the kernel does it. It needs no packet filter.
//
// Goroutines: each host has one, which keeps a thread in the namespace.
package netns
