// Package locktest injects faults into Locknode while your tests run your program.
//
// [New] starts a whole cluster in memory: the nodes, Raft, gossip, gRPC and the Go
// client that you run in production, over a network, disks and clocks that the
// test can break. In a testing/synctest bubble time is virtual: a minute takes a
// fraction of a second, and what depends on no race takes exactly as long as
// configured.
//
//	func TestAWorkerThatWasPausedForAMinuteDoesNotWrite(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			cluster, s := locktest.New(t, 3), &store{}
//			err := work(t.Context(), cluster.Client("worker"), s, func() {
//				cluster.Pause("worker")
//				time.Sleep(30 * time.Second)
//				if err := work(t.Context(), cluster.Client("other"), s, func() {}); err != nil {
//					t.Errorf("the lock of a worker that is paused was not free in time: %v", err)
//				}
//				time.Sleep(30 * time.Second)
//				cluster.Resume("worker")
//			})
//			if !errors.Is(err, client.ErrLost) || !errors.Is(err, errOldToken) || s.writes != 1 {
//				t.Errorf("the worker says %v, and there are %d writes", err, s.writes)
//			}
//			cluster.CheckHistory()
//		})
//	}
//
// Here work is the program under test. It takes a lock, checks it for the last
// time, calls the function that it was given, which does nothing in production,
// and writes to a store with the token of its grant. The complete test is in
// docs/testing.md.
//
// # What there is
//
// Programs use [Cluster.Client], as if they had called client.Dial, or embed a
// [Cluster.Node]. The network has [Cluster.Partition], [Cluster.Isolate],
// [Cluster.Cut], [Cluster.Slow], [Cluster.Reset], [Cluster.DropNextResponse] and
// [Cluster.Heal]; processes have [Cluster.Kill], [Cluster.Stop],
// [Cluster.Restart], [Cluster.Pause], [Cluster.KillClient], [Cluster.Expire];
// disks [Cluster.SlowDisk], [Cluster.HangDisk], [Cluster.FailDisk],
// [Cluster.LyingDisk], [Cluster.LoseUnsynced]; clocks [Cluster.SkewClock] and
// [Cluster.JumpWallClock]. [Cluster.CheckHistory] checks what Locknode has done against
// its own promises; your test checks what your program has done.
//
// # In a bubble, or not
//
// Use a bubble wherever you can: it is some hundred times faster, and a busy machine
// does not make it fail at random. It requires of the program under test:
//
//   - It reads time and waits for it through package time alone. The clocks of
//     clients and nodes are set for it; leave client.Clock alone.
//   - It uses no real network and no other process: a goroutine that waits for a
//     socket, a pipe or a system call stops the time. Files are no problem.
//   - It holds no mutex while it waits. A goroutine that waits for
//     a mutex is not "durably blocked": if the one that holds it sleeps, or waits for an
//     answer, time stands still and the test hangs. Use a channel of capacity one
//     instead.
//   - Its goroutines end before the test does. One that is left panics the bubble.
//   - Channels, timers and WaitGroups come from inside the bubble.
//   - With the race detector, New sets GOMAXPROCS to 1 until the test binary ends:
//     otherwise the detector of Go 1.25 and 1.26 crashes now and then
//     (https://go.dev/issue/78156). It finds the same races.
//
// A test that hangs violates one of these: its stack, after -timeout, shows a
// goroutine of the bubble that is not "(durable)".
//
// Outside a bubble everything works and takes real time: a second to start, a
// session's TTL to expire. On a busy machine use a [Timing] of 500 ms.
//
// # What it does not model
//
// A paused process neither receives nor sends anything and stops at
// its [Cluster.PausePoint]; its other goroutines go on. The goroutines of a killed one
// go on for a moment, cut off from everything. Timers run by real time, also where a
// clock is skewed. Data is not damaged in the network or on disks; bandwidth is
// unlimited. The order of goroutines that are ready at the same time is random: a [Seed]
// repeats the delays of the network and not a whole run.
//
// The kit is not stable yet: names may change in any release.
//
// Objects: [Cluster], which owns all nodes and clients.
//
// Goroutines: those of nodes and clients. All end in the cleanup of the test.
//
// Files: cluster.go makes a cluster, options.go has the options; network.go, process.go and
// disk.go inject faults; check.go checks the history; log.go writes to the test's log.
package locktest
