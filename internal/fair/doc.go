// Package fair shares queues and bounds among those who use them.
//
// Each operation has an [Owner]. A [Queue] serves its owners in turn, so that an owner with
// ten thousand queued operations delays the first one of another owner by one. A bound is
// shared as well: an owner is refused when it has as much as is still free. So there is room
// for others whatever one owner does, and refusals hit those who flood.
//
// Owners are nested: turns are taken by addresses, and within an address by
// connections. So many connections of one address take nothing from other addresses.
// The same holds for the bounds: one owner alone gets a third of a bound, an address
// never more than half.
//
// Every operation of this package takes constant time, however many owners there are, and an
// item takes no memory besides its place in the queue. Nothing here is safe for concurrent
// use, and nothing starts goroutines.
//
// Files:
//   - owner.go: who is an owner? tree.go: what does each owner have, on each level?
//   - queue.go: whose turn is it? shares.go: may an owner have one more?
package fair
