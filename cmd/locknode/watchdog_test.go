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

// herd is a process group in virtual time.
type herd struct {
	began  time.Time
	obeys  time.Duration // ends so long after TERM; negative: never
	events []string      // signals and when they came
	ends   time.Time     // zero: not told to end yet
	killed time.Duration // when KILL came first, 0: never
}

func (h *herd) since() time.Duration { return time.Since(h.began) }

func (h *herd) alive() bool { return h.ends.IsZero() || time.Now().Before(h.ends) }

func (h *herd) send(s syscall.Signal) {
	if s == syscall.SIGKILL && h.killed == 0 {
		h.killed, h.ends = h.since(), time.Now()
		h.events = append(h.events, fmt.Sprintf("KILL %v", h.killed))
	}
}

func (h *herd) told(how string) {
	h.events = append(h.events, fmt.Sprintf("%s %v", how, h.since()))
	if h.obeys >= 0 {
		h.ends = time.Now().Add(h.obeys)
	}
}

func (h *herd) terminate()        { h.told("TERM") }
func (h *herd) terminateOrphans() { h.told("TERM to the orphans") }

// A TTL of 10 s: a line every 0.5 s, gone 1 s before the end, told to end 2.5 s
// before that where time alone decides.
const watchedTTL = 10 * time.Second

// watchdogCases are what may become of run, and what the watchdog does when.
var watchdogCases = map[string]struct {
	obeys   time.Duration
	play    func(lines chan<- line) // what run does; then the socket is closed, if it is
	stays   bool                    // the socket is not closed
	nothing bool                    // no group is told
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
	"run lives, and deals with a loss for long": {
		obeys: -1,
		play: func(lines chan<- line) {
			for range 100 {
				lines <- until(0)
				time.Sleep(500 * time.Millisecond)
			}
		},
		want: []string{"KILL 50s"}, // when the socket is closed, and not before
	},
	"run lives, and its lock is kept alive": {
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
				h := &herd{began: time.Now(), obeys: c.obeys}
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
