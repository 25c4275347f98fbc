package fsm

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// Within the default limits so many may wait for one lock, and belong to one session.
const many = 9_900

// The entries that gave the table most to do: all that they can be made to do is
// bounded by what they are told and by what comes of it, not by a product of two
// things that may both be large. Where an entry makes all who wait move on to another
// lock, each does that once for each of its locks.
func TestWorkOfAnEntryIsBounded(t *testing.T) {
	for name, shape := range map[string]struct {
		make func(c *crowd) []Command // the entry, after what comes before it
		most int
	}{
		"the end of a session that holds a lock for which all wait": {
			func(c *crowd) []Command {
				parentAndChild(c, many)
				return []Command{EndSession{Session: c.session(0)}}
			}, 2 * many,
		},
		"the end of a session that frees a lock many times, for many": {
			func(c *crowd) []Command {
				c.apply(c.acquire(0, many/10, wantShared("a"))...)
				c.apply(c.acquire(0, 1, wantExclusive("a"))...)
				c.apply(c.acquire(1, many, wantShared("a"))...)
				return []Command{EndSession{Session: c.session(0)}}
			}, 5 * many,
		},
		"releases of a lock for which all wait": {
			func(c *crowd) (entry []Command) {
				parentAndChild(c, many)
				for i := range uint64(2000) {
					entry = append(entry, c.release(0, 3*i+1))
				}
				return entry
			}, 3 * 2000,
		},
		"the release of a child of a lock that all share": {
			func(c *crowd) []Command {
				parentAndChild(c, many)
				return []Command{c.release(2, 1)}
			}, 10,
		},
		"cancels in the middle of the queue": {
			func(c *crowd) (entry []Command) {
				parentAndChild(c, many)
				for i := range uint64(2000) {
					entry = append(entry, c.cancel(1, many/3+2*i))
				}
				return entry
			}, 6 * 2000,
		},
		"the end of a session whose waits stand between those of others": {
			func(c *crowd) []Command {
				c.apply(c.acquire(0, 1, wantExclusive("a"))...)
				for range many / 3 {
					c.apply(append(append(c.acquire(1, 1, wantExclusive("a")), c.acquire(2, 1, wantShared("a"))...), c.acquire(3, 1, wantExclusive("a"))...)...)
				}
				return []Command{EndSession{Session: c.session(1)}, EndSession{Session: c.session(3)}}
			}, 2 * many,
		},
		"the release of a lock that keeps all from the next": {
			func(c *crowd) []Command {
				c.apply(c.acquire(0, 1, wantExclusive("parent"))...)
				c.apply(c.acquire(0, 1, wantExclusive("child"))...)
				c.apply(c.acquire(1, many, wantShared("parent"), wantShared("child"))...)
				return []Command{c.release(0, 1), c.release(0, 2)}
			}, 5 * 2 * many,
		},
		"the releases of all locks of requests for many": {
			func(c *crowd) (entry []Command) {
				var wants []Want
				for i := range 64 {
					wants = append(wants, wantShared(fmt.Sprint(i)))
					c.apply(c.acquire(0, 1, wantExclusive(fmt.Sprint(i)))...)
				}
				c.apply(c.acquire(1, 500, wants...)...)
				for i := range uint64(64) {
					entry = append(entry, c.release(0, i+1))
				}
				return entry
			}, 6 * 64 * 500,
		},
		"acquires and releases past waiters that are due": {
			func(c *crowd) []Command {
				_, entry := pastDueWaiters(c, many)
				for i := range uint64(1000) {
					id := c.next(2)
					entry = append(entry,
						Acquire{ID: id, Wants: []Want{wantShared("a")}},
						Release{ID: c.next(2), Token: c.t.lastToken + 1 + i})
				}
				return entry
			}, 3*many + 8*1000,
		},
		"the revival of a session whose waiters were passed over": {
			func(c *crowd) []Command {
				due, entry := pastDueWaiters(c, many)
				return append(entry, KeepAlive{Sessions: []KeepAliveSession{{Session: c.session(due)}}})
			}, 6 * many,
		},
		"the end of a delay": {
			func(c *crowd) []Command {
				c.apply(Acquire{ID: c.next(0), Wants: []Want{wantExclusive("a")}, TTL: 2 * second, Delay: 5 * second})
				c.apply(c.acquire(1, many, wantShared("a"), wantShared("b"))...)
				c.now = 2 * second
				c.apply()
				c.now = 7 * second
				return nil
			}, 5 * 2 * many,
		},
		"force-releases by token of a lock that is shared by many": {
			func(c *crowd) (entry []Command) {
				c.apply(c.acquire(0, many, wantShared("a"))...)
				for i := range uint64(2000) {
					entry = append(entry, ForceRelease{ID: c.next(1), Lock: "a", Token: many - 3*i})
				}
				return entry
			}, 2 * 2000,
		},
		"sizes of a semaphore that go up and down": {
			func(c *crowd) (entry []Command) {
				c.apply(c.acquire(0, 1, wantPermits("s", 10, 10))...)
				c.apply(c.acquire(1, many, wantPermits("s", 2, 10))...)
				for i := range uint32(2000) {
					entry = append(entry, Resize{ID: c.next(2), Lock: "s", Limit: 4 + i%2})
				}
				return entry
			}, 2000 * (many/64 + 4),
		},
		"cancels of what was acknowledged": {
			func(c *crowd) (entry []Command) {
				c.apply(c.acquire(0, many, wantShared("a"))...)
				release := Release{ID: c.next(0), Token: c.token(0, 1)}
				release.ID.Acked = many
				c.apply(release)
				for range 1000 {
					entry = append(entry, c.cancel(0, 1))
				}
				return entry
			}, 1000 * (many/64 + 4),
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCrowd(t, 5)
			entry := shape.make(c)
			a := c.run(entry...)
			if c.t.work > shape.most {
				t.Errorf("%d commands, %d events: looked at %d records, at most %d are to be", len(entry), len(a.Events), c.t.work, shape.most)
			}
			t.Logf("%d commands, %d events: looked at %d records of %d", len(entry), len(a.Events), c.t.work, shape.most)
			c.sound()
		})
	}
}

// parentAndChild has session 0 hold the parent n times, session 1 wait n times for
// parent and child, and session 2 hold the child.
func parentAndChild(c *crowd, n int) {
	c.apply(c.acquire(2, 1, wantExclusive("child"))...)
	c.apply(c.acquire(0, n, wantShared("parent"))...)
	c.apply(c.acquire(1, n, wantExclusive("child"), wantShared("parent"))...)
}

// pastDueWaiters has n wait for a Shared in a session that is due when the entry
// comes, and is left for the next one. The entry frees a.
func pastDueWaiters(c *crowd, n int) (due int, entry []Command) {
	c.apply(Configure{Limits: Limits{ExpiriesPerEntry: 1, WaitersPerLock: crowdInQueue}})
	c.openSession(10 * second)
	due = c.openSession(10 * second)
	c.apply(c.acquire(0, 1, wantExclusive("a"))...)
	c.apply(c.acquire(due, n, wantShared("a"))...)
	c.now = 10 * second
	return due, []Command{c.release(0, 1)}
}

// However locks and those who want them are mixed: a request costs a few looks at each
// of its locks in all, from its coming to its end, and a command a few more.
func TestWorkIsPaidForByRequests(t *testing.T) {
	checkMany(t, 1, func(rt *rapid.T) {
		f := newForest(rt)
		work, locks, commands := 0, 0, 0
		for range 30 {
			entry := f.entry()
			commands += len(entry)
			for _, c := range entry {
				if a, ok := c.(Acquire); ok {
					locks += len(a.Wants)
				}
			}
			f.run(entry...)
			work += f.t.work
		}
		if most := 8*locks + 2*commands; work > most {
			rt.Fatalf("%d commands for %d locks: looked at %d records, at most %d are to be", commands, locks, work, most)
		}
		f.sound()
	})
}

// forest is a crowd that wants the leaves of trees of locks Exclusive, and what is
// above them Shared, sometimes with permits of a semaphore, and sometimes what is above
// them Exclusive.
type forest struct {
	*crowd
	rnd                   *rand.Rand
	depth, width          int
	roots, ends, releases int   // how many in a hundred
	open                  []int // the sessions
}

func newForest(rt *rapid.T) *forest {
	draw := func(low, high int, what string) int { return rapid.IntRange(low, high).Draw(rt, what) }
	f := &forest{
		crowd: newCrowd(rt, draw(1, 12, "sessions")),
		rnd:   rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1)),
		depth: draw(1, 5, "depth"), width: draw(1, 4, "width"),
		roots: draw(0, 20, "roots"), ends: draw(0, 4, "ends"), releases: draw(0, 80, "releases"),
	}
	for i := range f.sequences {
		f.open = append(f.open, i)
	}
	return f
}

func (f *forest) wants() (wants []Want) {
	name := fmt.Sprint(f.rnd.IntN(f.width))
	for range f.rnd.IntN(f.depth) {
		wants = append(wants, wantShared(name))
		name += fmt.Sprint("/", f.rnd.IntN(f.width))
		if f.rnd.IntN(100) < f.roots {
			break
		}
	}
	last := wantExclusive(name)
	if f.rnd.IntN(8) == 0 {
		last.Mode = Shared
	}
	wants = append(wants, last)
	if f.rnd.IntN(4) == 0 {
		wants = append(wants, wantPermits(f.semaphore(), uint32(f.rnd.IntN(3))+1, 3))
	}
	f.rnd.Shuffle(len(wants), func(i, k int) { wants[i], wants[k] = wants[k], wants[i] })
	return wants
}

func (f *forest) semaphore() string { return fmt.Sprint("slots/", f.rnd.IntN(f.width)) }

// entry is one of up to 80 commands.
func (f *forest) entry() (entry []Command) {
	for range f.rnd.IntN(80) + 1 {
		at := f.rnd.IntN(len(f.open))
		i := f.open[at]
		some := uint64(f.rnd.IntN(int(f.sequences[i]) + 1))
		switch k := f.rnd.IntN(100); {
		case k < f.ends:
			f.open[at] = len(f.sequences)
			f.sequences = append(f.sequences, 0)
			entry = append(entry, EndSession{Session: f.session(i)}, OpenSession{Session: f.session(f.open[at]), TTL: 3600 * second})
		case k >= 98: // back to 3 mostly, which is what the acquires say
			entry = append(entry, Resize{ID: f.next(i), Lock: f.semaphore(), Limit: []uint32{2, 3, 3}[f.rnd.IntN(3)]})
		case k < f.ends+f.releases && f.token(i, some) != 0:
			entry = append(entry, f.release(i, some))
		case k < f.ends+f.releases/4:
			entry = append(entry, f.cancel(i, some+1))
		default:
			entry = append(entry, f.acquire(i, 1, f.wants()...)...)
		}
	}
	return entry
}
