package faultfs

import (
	"errors"
	"flag"
	"fmt"
	"io"
)

// DefaultLimit is how many bytes of undo logs a volume keeps.
const DefaultLimit = 256 << 20

// The exit codes of the program.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitCannotMount = 3
)

// ErrCannotMount says that FUSE cannot be used here: no device, or no right to.
var ErrCannotMount = errors.New("cannot mount here")

// commands is what the program understands.
const commands = `  fail OP ERRNO [COUNT]  the next COUNT operations fail, all if there is no COUNT
  hang OP [AFTER]        operations hang until release, or until their process is killed;
                         AFTER of them pass before
  release                lets go what hangs
  slow OP DURATION       each operation takes longer, at most 1m; 0s ends it
  lie on|off             while on, fsync says ok and makes nothing durable
  powerloss [torn SEED]  undoes all that is not durable; with torn, a random part of it
  flip PATH OFFSET       inverts the bits of a byte; PATH is below --root
  stats                  what has happened so far, as JSON
  clear                  ends all faults and lets go what hangs
  quit                   unmounts and ends

  OP     read, write, fsync, open, create, rename, remove, any
  ERRNO  EIO, ENOSPC, EROFS`

// Help describes the commands that the program understands.
func Help() string { return commands }

// settings are the flags of the program.
type settings struct {
	root, mount string
	limit       int64
}

// parse reads the flags. It returns ok if the program is to go on, else the exit
// code.
func parse(args []string, stderr io.Writer) (s settings, code int, ok bool) {
	flags := flag.NewFlagSet("faultfs", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.root, "root", "", "the `directory` to show")
	flags.StringVar(&s.mount, "mount", "", "the `directory` to show it at")
	flags.Int64Var(&s.limit, "undo-limit", DefaultLimit, "the `bytes` to remember of what is not synced; what is beyond is written back")
	flags.Usage = func() {
		_, _ = fmt.Fprint(stderr, "faultfs shows a directory through a disk that can be broken.\n\n"+
			"  faultfs --root DIR --mount DIR\n\nFlags:\n")
		flags.PrintDefaults()
		_, _ = fmt.Fprintf(stderr, "\nIt prints \"ready\", then reads commands, one a line, and answers each with a line:\n"+
			"ok, ok and JSON, or error: and what is wrong.\n\n%s\n\n"+
			"It ends at the end of its input, on SIGTERM and on quit. Exit codes: 0, 1 after\n"+
			"an error, 2 for wrong flags, 3 where it cannot mount.\n", commands)
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return s, exitOK, false
		}
		return s, exitUsage, false
	}
	for _, wrong := range []struct {
		is   bool
		says string
	}{
		{flags.NArg() > 0, fmt.Sprintf("argument %q: there are only flags", flags.Arg(0))},
		{s.root == "", "--root is empty: want an existing directory"},
		{s.mount == "", "--mount is empty: want an existing directory"},
		{s.limit < 1, fmt.Sprintf("--undo-limit is %d: want at least 1", s.limit)},
	} {
		if wrong.is {
			_, _ = fmt.Fprintf(stderr, "faultfs: %s\n", wrong.says)
			return s, exitUsage, false
		}
	}
	return s, exitOK, true
}
