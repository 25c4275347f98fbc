// Package locktest breaks Locknode under your program, in your tests.
//
// [New] starts a whole cluster in memory: the nodes, Raft, gossip, gRPC and the Go
// client that you run in production, over a network, disks and clocks that the
// test can break. In a testing/synctest bubble time is virtual: a minute takes a
// fraction of a second, and what takes part in no race takes exactly as long as it
// says.
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
// Here work is the program under test. It takes a lock, looks at it for the last
// time, calls the function that it was given, which does nothing in production,
// and writes to a store with the token of its grant. The whole of it is in
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
// [Cluster.JumpWallClock]. [Cluster.CheckHistory] judges what Locknode has done by
// its own promises; what your program has done is for your test to judge.
//
// # In a bubble, or not
//
// Take a bubble wherever you can: it is some hundred times faster, and no busy
// machine makes it flicker. It asks something of the program under test:
//
//   - It reads time and waits for it through package time alone. The clocks of
//     clients and nodes are set for it; leave client.Clock alone.
//   - It uses no real network and no other process: who waits for a socket, a
//     pipe or a system call keeps time from moving. Files are no problem.
//   - No mutex is held while something is waited for. A goroutine that waits for
//     a mutex is not "durably blocked": if its owner sleeps, or waits for an
//     answer, time stands still and the test hangs. A channel with room for one
//     does the same without that.
//   - Its goroutines end with the test, or with what the test has cancelled. One
//     that is left panics the bubble.
//   - Channels, timers and WaitGroups come from inside the bubble.
//   - With the race detector, New sets GOMAXPROCS to 1 for the rest of the test
//     binary's life: otherwise the detector of Go 1.25 and 1.26 crashes now and
//     then (https://go.dev/issue/78156). It finds the same races.
//
// A test that hangs has broken one of these: its stack, after -timeout, shows a
// goroutine of the bubble that is not "(durable)".
//
// Outside a bubble everything works and takes real time: a second to start, a
// session's TTL to expire. For a busy machine take [Timing] of 500 ms.
//
// # What it does not model
//
// A paused process is one that neither hears nor says anything and that stops at
// its [Cluster.PausePoint]; other goroutines of it go on. A killed one's goroutines
// go on for a moment, cut off from everything. Timers run by real time whatever
// clocks show. Data is not damaged under way or on disks; bandwidth is
// endless. The order of goroutines that are ready at the same time is left to
// chance: a [Seed] repeats the delays of the network and not a whole run.
//
// The kit is not stable yet: names may change in any release.
//
// Objects: [Cluster], which owns all nodes and clients.
//
// Goroutines: those of nodes and clients. All end in the cleanup of the test.
//
// Files: cluster.go makes a cluster, options.go has what can be set; network.go, process.go and
// disk.go break it; check.go judges it; log.go writes to the test's log.
package locktest
