package main

import "github.com/locknode/locknode/internal/proof/overlay"

// seedVariable is read by the runtime as it starts. Without it the seed is 1.
const seedVariable = "LOCKNODE_DETSIM_SEED"

// edited is what is changed in one file of the runtime.
type edited struct {
	file  string
	edits []overlay.Edit
}

// edits are all that make a bubble of testing/synctest repeat itself on one
// processor. The random numbers of a bubble come from a stream that is its own
// and starts with the seed, so that nothing outside of it, and no bubble before
// it, can shift them.
var edits = []edited{
	{"rand.go", []overlay.Edit{
		{
			Anchor: "\t\"internal/runtime/math\"\n",
			With:   "\t\"internal/runtime/atomic\"\n\t\"internal/runtime/math\"\n",
		},
		// Hash keys and the base of the heap follow from the seed.
		{
			Anchor: "\tglobalRand.state.Init(*seed)\n",
			With:   "\tdetsimInit(seed)\n\tglobalRand.state.Init(*seed)\n",
		},
		// Everything that draws: the order of maps, math/rand, hash/maphash.
		{
			Anchor: "\tmp := getg().m\n\tc := &mp.chacha8\n",
			With:   "\tif detsimOn {\n\t\treturn detsimRand()\n\t}\n\tmp := getg().m\n\tc := &mp.chacha8\n",
		},
		// Threads come when they like and must not take from the stream.
		{
			Anchor: "\tmp.cheaprand = rand()\n",
			With:   "\tmp.cheaprand = bootstrapRand()\n",
		},
		{
			Anchor: "// rand32 is uint32(rand()), called from compiler-generated code.\n",
			With:   streams + "// rand32 is uint32(rand()), called from compiler-generated code.\n",
		},
	}},
	{"select.go", []overlay.Edit{
		// Which of several ready cases is taken.
		{
			Anchor: "\t\tj := cheaprandn(uint32(norder + 1))\n",
			With:   "\t\tj := detsimRandn(uint32(norder + 1))\n",
		},
	}},
	{"time.go", []overlay.Edit{
		// Which of several timers of one instant is first.
		{
			Anchor: "\t\t\tt.rand = cheaprand()\n",
			With:   "\t\t\tt.rand = uint32(detsimRand())\n",
		},
	}},
	{"proc.go", []overlay.Edit{
		// A thread that is started takes memory of the heap, and the addresses of
		// everything after it are others: maps with pointers as keys, such as those
		// in contexts, are then walked in another order. When a thread is started
		// depends on how fast another one has gone to sleep. So there are enough of
		// them before the program begins.
		{
			Anchor: "\t\t\tnewm(sysmon, nil, -1)\n\t\t})\n\t}\n",
			With:   "\t\t\tnewm(sysmon, nil, -1)\n\t\t})\n\t}\n\tdetsimThreads()\n",
		},
		// A goroutine runs until it waits, however slow the machine is.
		{
			Anchor: "const forcePreemptNS = 10 * 1000 * 1000 // 10ms\n",
			With:   "const forcePreemptNS = 1 << 60\n",
		},
		// A system call keeps the processor, unless it takes so long that what it
		// waits for may need it.
		{
			Anchor: "\t\tif runqempty(pp) && sched.nmspinning.Load()+sched.npidle.Load() > 0 && pd.syscallwhen+10*1000*1000 > now {\n",
			With:   "\t\tif pd.syscallwhen+10*1000*1000*1000 > now {\n",
		},
		// Where the count to 61 stands depends on what ran before the bubble.
		{
			Anchor: "\tif pp.schedtick%61 == 0 && !sched.runq.empty() {\n",
			With:   "\tif !detsimOn && pp.schedtick%61 == 0 && !sched.runq.empty() {\n",
		},
		// Who wakes outside of the bubble, such as the scavenger, goes to the end of
		// the line and does not push the next one there.
		{
			Anchor: "\tif !haveSysmon && next {\n",
			With:   "\tif next && gp.bubble == nil {\n\t\tnext = false\n\t}\n\tif !haveSysmon && next {\n",
		},
		// The race detector would have goroutines started in a random order.
		{
			Anchor: "const randomizeScheduler = raceenabled\n",
			With:   "const randomizeScheduler = false\n",
		},
	}},
	{"sema.go", []overlay.Edit{
		// A mutex is handed over in another way to who has waited a millisecond of
		// real time. Here nobody has.
		{
			Anchor: "func internal_sync_nanotime() int64 {\n\treturn nanotime()\n",
			With:   "func internal_sync_nanotime() int64 {\n\treturn 1\n",
		},
	}},
	{"synctest.go", []overlay.Edit{
		{
			Anchor: "\tid      uint64 // unique id\n",
			With:   "\tdetsim  uint64 // state of the bubble's random numbers\n\tid      uint64 // unique id\n",
		},
		{
			Anchor: "\tbubble := &synctestBubble{\n",
			With:   "\tdetsimCheck()\n\tbubble := &synctestBubble{\n\t\tdetsim:  detsimSeed,\n",
		},
	}},
}

// streams is added to rand.go. What is called while the runtime starts, or
// holds a lock, neither allocates nor grows the stack.
const streams = `// detsimOn says that the runtime was built to repeat itself.
const detsimOn = true

var (
	detsimSeed    uint64 = 1
	detsimOutside uint64 // state of the random numbers outside of bubbles
)

// detsimInit reads the seed from the environment, which is not copied yet.
func detsimInit(seed *[32]byte) {
	const prefix = "` + seedVariable + `="
	n := int32(0)
	for argv_index(argv, argc+1+n) != nil {
		p := argv_index(argv, argc+1+n)
		n++
		s := unsafe.String(p, findnull(p))
		if len(s) < len(prefix) || s[:len(prefix)] != prefix {
			continue
		}
		detsimSeed = 0
		for _, c := range []byte(s[len(prefix):]) {
			if c < '0' || c > '9' || detsimSeed > 1<<59 {
				throw("` + seedVariable + ` is not a number below 2^60")
			}
			detsimSeed = detsimSeed*10 + uint64(c-'0')
		}
	}
	detsimOutside = ^detsimSeed
	clear(seed[:])
	for i := range 8 {
		seed[i] = byte(detsimSeed >> (8 * i))
	}
}

// detsimCheck refuses what cannot repeat itself.
func detsimCheck() {
	if gomaxprocs != 1 || debug.asyncpreemptoff == 0 || gcController.gcPercent.Load() >= 0 {
		panic(plainError("detsim: a bubble that repeats itself needs GOMAXPROCS=1 GODEBUG=asyncpreemptoff=1 GOGC=off"))
	}
}

// detsimRand draws from the stream of the goroutine's bubble, or from the one
// outside. (splitmix64: the state is a counter, so that threads need no lock.)
//
//go:nosplit
func detsimRand() uint64 {
	state := &detsimOutside
	if bubble := getg().bubble; bubble != nil {
		state = &bubble.detsim
	}
	x := atomic.Xadd64(state, -0x61c8864680b583eb)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// detsimThreads starts more threads than one processor ever has waiting in
// system calls, and waits until they sleep.
func detsimThreads() {
	systemstack(func() {
		const enough = 16
		for range enough {
			newm(detsimIdle, nil, -1)
		}
		for {
			lock(&sched.lock)
			idle := sched.nmidle
			unlock(&sched.lock)
			if idle >= enough {
				return
			}
			usleep(50)
		}
	})
}

// detsimIdle is where such a thread begins.
func detsimIdle() {
	stopm()
	schedule()
}

//go:nosplit
func detsimRandn(n uint32) uint32 {
	return uint32((uint64(uint32(detsimRand())) * uint64(n)) >> 32)
}

`
