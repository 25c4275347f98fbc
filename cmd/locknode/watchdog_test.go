//go:build unix

package main

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// fakeGroup is a process group in virtual time.
type fakeGroup struct {
	began  time.Time
	obeys  time.Duration // time from TERM to its end; negative: it ignores TERM
	events []string      // signals and when they came
	ends   time.Time     // zero: no signal came that ends it
	killed time.Duration // when the first KILL came; 0: none came
}

func (h *fakeGroup) since() time.Duration { return time.Since(h.began) }

func (h *fakeGroup) alive() bool { return h.ends.IsZero() || time.Now().Before(h.ends) }

func (h *fakeGroup) send(s syscall.Signal) {
	if s == syscall.SIGKILL && h.killed == 0 {
		h.killed, h.ends = h.since(), time.Now()
		h.events = append(h.events, fmt.Sprintf("KILL %v", h.killed))
	}
}

func (h *fakeGroup) told(how string) {
	h.events = append(h.events, fmt.Sprintf("%s %v", how, h.since()))
	if h.obeys >= 0 {
		h.ends = time.Now().Add(h.obeys)
	}
}

func (h *fakeGroup) terminate()        { h.told("TERM") }
func (h *fakeGroup) terminateOrphans() { h.told("TERM to the orphans") }

// With a TTL of 10 s, a line is due every 0.5 s, the group is killed 1 s before the end, and
// gets TERM 2.5 s before that if lines have stopped coming.
const watchedTTL = 10 * time.Second

// watchdogCases have what happens to run, and what the watchdog does and when.
var watchdogCases = map[string]struct {
	obeys   time.Duration
	play    func(lines chan<- line) // what run does, before the socket is closed
	stays   bool                    // the socket stays open
	nothing bool                    // there is no group
	want    []string
}{
	"run is killed, the group obeys": {
		obeys: time.Second,
		play:  func(lines chan<- line) { lines <- until(10 * time.Second); time.Sleep(3 * time.Second) },
		want:  []string{"TERM to the orphans 3s"},
	},
	"run is killed, the group does not obey": {
		obeys: -1,
		play:  func(lines chan<- line) { lines <- until(20 * time.Second); time.Sleep(3 * time.Second) },
		want:  []string{"TERM to the orphans 3s", "KILL 8s"}, // after --kill-after
	},
	"run is killed, and little time is left": {
		obeys: -1,
		play: func(lines chan<- line) {
			for range 6 {
				lines <- until(5 * time.Second)
				time.Sleep(500 * time.Millisecond)
			}
		},
		want: []string{"TERM to the orphans 3s", "KILL 4s"},
	},
	"run is killed after a loss": {
		obeys: -1,
		play: func(lines chan<- line) {
			lines <- until(10 * time.Second)
			lines <- until(0)
			time.Sleep(time.Second)
		},
		want: []string{"KILL 1s"},
	},
	"run is killed after it has passed TERM on": {
		obeys: -1,
		play: func(lines chan<- line) {
			lines <- until(10 * time.Second)
			lines <- line{"warned", 1, -1}
			time.Sleep(time.Second)
		},
		want: []string{"KILL 1s"},
	},
	"run is killed before anything was started": {
		play:    func(lines chan<- line) { lines <- until(10 * time.Second) },
		nothing: true,
	},
	"run hangs": {
		obeys: -1,
		play:  func(lines chan<- line) { lines <- until(10 * time.Second) },
		stays: true,
		want:  []string{"TERM 6.5s", "KILL 9s"},
	},
	"run hangs after a loss": {
		obeys: -1,
		play:  func(lines chan<- line) { lines <- until(0) },
		stays: true,
		want:  []string{"KILL 2s"}, // four lines were missed
	},
	"run works, and handles a loss for long": {
		obeys: -1,
		play: func(lines chan<- line) {
			for range 100 {
				lines <- until(0)
				time.Sleep(500 * time.Millisecond)
			}
		},
		want: []string{"KILL 50s"}, // when the socket is closed, and not before
	},
	"run works, and its lock is kept alive": {
		play: func(lines chan<- line) {
			for i := range 100 {
				lines <- until(time.Duration(i/7)*3500*time.Millisecond + 10*time.Second)
				time.Sleep(500 * time.Millisecond)
			}
		},
		want: []string{"TERM to the orphans 50s"}, // when the socket is closed, and not before
	},
}

func TestWatchdogDecides(t *testing.T) {
	for name, c := range watchdogCases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &fakeGroup{began: time.Now(), obeys: c.obeys}
				lines := make(chan line)
				w := &watch{rules: rulesFor(watchedTTL, 5*time.Second), now: h.since, lines: lines}
				if !c.nothing {
					w.group = h
				}
				go func() {
					c.play(lines)
					if !c.stays {
						close(lines)
					}
				}()
				w.run()
				if !slices.Equal(h.events, c.want) {
					t.Errorf("got %q, want %q", h.events, c.want)
				}
			})
		})
	}
}

func until(d time.Duration) line { return line{"until", int64(d), -1} }
