//go:build unix

// Package netns gives processes network namespaces of their own, wired to one
// bridge, in which each direction between two can be cut. It needs Linux,
// root and the program ip; [Available] reports whether it works here.
//
// Objects: a [Lab] is the bridge and the hosts at it. The process that makes a lab
// is one of the hosts, the hub, and has to run in a network namespace of its own:
// [Command] starts a program in one. Namespaces have no names and no files, so the
// kernel removes everything when the processes have ended.
//
// A direction is cut by a false neighbour entry: the sender's kernel gets a hardware address
// that no host has, so that packets are sent and arrive nowhere. That is what a broken network
// does: nothing is refused, and the kernel's TCP retransmits and gives up or goes on. It needs
// no packet filter.
//
// Goroutines: each host has one, which keeps a thread in the namespace.
//
// Files: lab_linux.go has all of it; lab_other.go returns an error on other systems.
package netns
