// Package fsm is the lock table: what a Raft log of commands means.
package fsm
