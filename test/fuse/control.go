//go:build linux

package faultfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Control carries out commands, one at a time.
type Control struct {
	Mount *Mount
}

var errQuit = errors.New("quit")

// Do carries out a command and returns the answer, which is one line. It reports
// whether it was the last one.
func (c *Control) Do(line string) (answer string, quit bool) {
	out, err := c.do(strings.Fields(line))
	switch {
	case errors.Is(err, errQuit):
		return "ok", true
	case err != nil:
		return "error: " + strings.ReplaceAll(err.Error(), "\n", "; "), false
	case out == nil:
		return "ok", false
	}
	b, err := json.Marshal(out)
	if err != nil {
		return "error: " + err.Error(), false
	}
	return "ok " + string(b), false
}

func (c *Control) do(words []string) (any, error) {
	if len(words) == 0 {
		return nil, errors.New("the line is empty: want a command")
	}
	v, f, args := c.Mount.v, &c.Mount.v.Faults, words[1:]
	want := func(least, most int, usage string) error {
		if len(args) < least || len(args) > most {
			return fmt.Errorf("%s has %d arguments: want %s", words[0], len(args), usage)
		}
		return nil
	}
	switch words[0] {
	case "fail":
		return nil, firstOf(want(2, 3, "OP ERRNO [COUNT]"), func() error { return fail(f, args) })
	case "hang":
		return nil, firstOf(want(1, 2, "OP [AFTER]"), func() error { return hang(f, args) })
	case "slow":
		return nil, firstOf(want(2, 2, "OP DURATION"), func() error { return slow(f, args) })
	case "lie":
		return nil, firstOf(want(1, 1, "on or off"), func() error { return lie(f, args[0]) })
	case "flip":
		return nil, firstOf(want(2, 2, "PATH OFFSET"), func() error { return c.flip(args) })
	case "powerloss":
		return c.powerLoss(args)
	}
	if err := want(0, 0, "none"); err != nil {
		return nil, err
	}
	switch words[0] {
	case "release":
		f.Release()
	case "clear":
		f.Clear()
	case "stats":
		return v.Stats(), nil
	case "quit":
		return nil, errQuit
	default:
		return nil, fmt.Errorf("command is %q: allowed are fail, hang, release, slow, lie, powerloss, flip, stats, clear, quit", words[0])
	}
	return nil, nil
}

func firstOf(err error, do func() error) error {
	if err != nil {
		return err
	}
	return do()
}

func fail(f *Faults, args []string) error {
	errno, err := parseErrno(args[1])
	if err != nil {
		return err
	}
	count := 0
	if len(args) == 3 {
		if count, err = strconv.Atoi(args[2]); err != nil || count < 1 {
			return fmt.Errorf("count is %q: at least 1, or none for all", args[2])
		}
	}
	return f.Fail(Op(args[0]), errno, count)
}

func hang(f *Faults, args []string) (err error) {
	after := 0
	if len(args) == 2 {
		if after, err = strconv.Atoi(args[1]); err != nil {
			return fmt.Errorf("after is %q: want a number, at least 0", args[1])
		}
	}
	return f.Hang(Op(args[0]), after)
}

func slow(f *Faults, args []string) error {
	d, err := time.ParseDuration(args[1])
	if err != nil {
		return fmt.Errorf("duration is %q: want one such as 20ms", args[1])
	}
	return f.Slow(Op(args[0]), d)
}

func lie(f *Faults, arg string) error {
	if arg != "on" && arg != "off" {
		return fmt.Errorf("lie is %q: allowed are on, off", arg)
	}
	f.Lie(arg == "on")
	return nil
}

func (c *Control) flip(args []string) error {
	off, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil || off < 0 {
		return fmt.Errorf("offset is %q: want a number, at least 0", args[1])
	}
	return c.Mount.Flip(args[0], off)
}

func (c *Control) powerLoss(args []string) (any, error) {
	switch {
	case len(args) == 0:
		return c.Mount.v.PowerLoss(nil)
	case len(args) == 2 && args[0] == "torn":
		seed, err := strconv.ParseUint(args[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("seed is %q: want a number, at least 0", args[1])
		}
		return c.Mount.v.PowerLoss(rand.New(rand.NewPCG(seed, 0)))
	}
	return nil, fmt.Errorf("powerloss has the arguments %q: want none, or torn SEED", args)
}

// Stats says what has happened to a volume so far.
type Stats struct {
	FaultStats
	UnsyncedFiles   int `json:"unsynced_files"`   // now
	UnsyncedSectors int `json:"unsynced_sectors"` // now
	UnsyncedNames   int `json:"unsynced_names"`   // now
	WrittenBack     int `json:"written_back"`     // files and directories made durable because of the limit
}

// Stats counts since the start.
func (v *Volume) Stats() Stats {
	s := Stats{FaultStats: v.Faults.Stats()}
	v.mu.RLock()
	defer v.mu.RUnlock()
	for x := range v.dirty {
		s.UnsyncedNames += len(x.names)
		if x.content != nil {
			s.UnsyncedFiles++
			s.UnsyncedSectors += len(x.content.old)
		}
	}
	s.WrittenBack = v.writtenBack
	return s
}

// flipPath inverts the bits of a byte of the file at a path, and returns the
// number by which the kernel may have cached it.
func (v *Volume) flipPath(path string, off int64) (id uint64, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	x := v.root
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		up := x
		x, err = v.find(up, name)
		v.drop(up)
		if err != nil {
			return 0, err
		}
	}
	defer v.drop(x)
	if x.kind != unix.S_IFREG {
		return 0, errors.New("it is not a regular file")
	}
	err = v.flip(x, off)
	if errors.Is(err, io.EOF) {
		err = errors.New("it is beyond the end of the file")
	}
	return x.id, err
}
