//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/locknode/locknode/client"
)

type runOptions struct {
	try       bool
	wait      time.Duration
	limited   bool // --wait is given
	ttl       time.Duration
	killAfter time.Duration
	conflict  int
	holder    string
	value     string
	unwatched bool
}

func (a *app) runCommand() *cobra.Command {
	o := runOptions{}
	c := &cobra.Command{
		Use:     "run [-n | -w DURATION] [flags] NAME… -- COMMAND [ARGUMENT…]",
		Short:   "run a command under one or several locks",
		GroupID: groupLocks,
		Long: `Run waits in the queue for the lock (and on a terminal says so), runs the command, and
releases the lock when the command has ended. It keeps the lock alive meanwhile; if
locknode or its machine fails, the lock is free after --ttl.

The command has a process group of its own. It gets standard input, the signals that
locknode gets, and two variables: LOCKNODE_NAME, the name of the lock, and
LOCKNODE_FENCING_TOKEN, the fencing token, which must be sent along with every write that the
lock protects. If the lock is lost while the command runs, its group gets TERM, and KILL
if a process of the group is left after --kill-after.

If locknode is killed with KILL, is stopped or hangs, a watchdog ends the group. The
watchdog is a second process of locknode in a session of its own; it needs about 2 MB of
memory that the two do not share. It sends TERM at once if locknode is gone, or shortly
before the lock expires if locknode is stopped or hangs, and KILL before another client
can get the lock. It cannot end processes that have left the group (setsid, daemons) or
run as another user. It cannot act while its machine is paused, which only the token
protects against, or if it is killed as well; on Linux the kernel even then sends TERM to
the command itself. --no-watchdog runs the command without it.

Several locks are acquired one after the other, in the order of their names, and released
together; LOCKNODE_NAME and LOCKNODE_FENCING_TOKEN then have one line for each. A wait within the
command for a lock that run holds would never end, and is refused (64). Commands within
commands know the locks from LOCKNODE_HELD; without that variable nothing is refused.

Exit codes:
  the command's own      if it ended by itself; 128+N if signal N killed it
  75                     the lock was not acquired (-n, -w; -E changes the code)
  76                     the lock was lost while the command ran
  69                     the cluster was not reached within --connect-timeout
  77                     denied
  64                     the command line is wrong
  126, 127               the command or its watchdog cannot be run, or does not exist
  128+N                  signal N came during the wait for the lock`,
		Example: `  locknode run nightly -- ./backup.sh
  locknode run -n reports/2024 -- make report || echo "somebody else does it"
  locknode run -w 30s orders/42 -- sh -c 'curl -H "Fence: $LOCKNODE_FENCING_TOKEN" http://store/orders/42'
  locknode run a b -- ./move-from-a-to-b`,
		RunE: func(c *cobra.Command, args []string) error {
			dash := c.ArgsLenAtDash()
			if dash < 1 || dash == len(args) {
				return hinted(usageError("run: needs one or more names, then --, then a command"), "for example: locknode run nightly -- ./backup.sh")
			}
			o.limited = c.Flags().Changed("wait")
			return a.run(c.Context(), o, args[:dash], args[dash:])
		},
	}
	a.clientFlags(c)
	c.Flags().BoolVarP(&o.try, "nonblock", "n", false, "do not wait: give up at once if the lock is held")
	addDuration(c.Flags(), &o.wait, "wait", "w", 0, "wait at most this long (default: without a limit)")
	addDuration(c.Flags(), &o.ttl, "ttl", "", 10*time.Second, "how long the lock stays held if this program is killed")
	addDuration(c.Flags(), &o.killAfter, "kill-after", "", 5*time.Second, "time from TERM to KILL if the lock is lost")
	c.Flags().IntVarP(&o.conflict, "conflict-exit-code", "E", exitNotAcquired, "exit code if the lock is not acquired")
	c.Flags().StringVar(&o.holder, "holder", "", "name of the holder, shown to others (default: command@host:process)")
	c.Flags().StringVar(&o.value, "value", "", "text to store with the lock, for others to read")
	c.Flags().BoolVar(&o.unwatched, "no-watchdog", false, "do not start the process that ends the command if locknode cannot")
	return c
}

func (o *runOptions) validate() error {
	switch {
	case o.try && o.limited:
		return usageError("-n and -w: must not be given together")
	case o.limited && o.wait < 0:
		return usageError("--wait: is %v, must be 0 or more", o.wait)
	case o.killAfter < 0:
		return usageError("--kill-after: is %v, must be 0 or more", o.killAfter)
	case o.ttl <= 0:
		return usageError("--ttl: is %v, must be more than 0", o.ttl)
	case o.conflict < 0 || o.conflict > 255:
		return usageError("--conflict-exit-code: is %d, must be 0 to 255", o.conflict)
	}
	return nil
}

func (a *app) run(ctx context.Context, o runOptions, names, command []string) error {
	if err := o.validate(); err != nil {
		return err
	}
	path, err := findCommand(command[0])
	if err != nil {
		return err
	}
	if o.holder == "" {
		o.holder = runHolder(command[0])
	}
	c, err := a.dial(ctx, client.Holder(o.holder), client.SessionTTL(o.ttl))
	if err != nil {
		return err
	}
	var grants []*client.Grant
	if o.waits() {
		err = a.refuseReentry(ctx, c, names...)
	}
	if err == nil {
		grants, err = a.acquireAll(ctx, o, c, names)
	}
	if err != nil {
		closeQuietly(c)
		return o.conflictCode(err)
	}
	end, err := a.execute(ctx, o, grants, path, command)
	a.releaseAll(c, grants, end.lost)
	switch {
	case err != nil:
		return err
	case end.lost:
		return a.lostError(grants)
	case end.hung:
		return &exitError{exitLost, errWatchdog}
	default:
		return &exitError{code: end.code()}
	}
}

// findCommand finds the executable of the command, before a lock is acquired for it.
func findCommand(name string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path, nil
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EISDIR):
		return "", &exitError{exitNotExecuted, err}
	case errors.Is(err, exec.ErrNotFound) && !strings.Contains(name, "/") && onPath(name):
		return "", &exitError{exitNotExecuted, fmt.Errorf("%q: is in the PATH, but is not executable", name)}
	default:
		return "", &exitError{exitNotFound, err}
	}
}

// onPath reports whether the PATH has a file of that name, executable or not.
func onPath(name string) bool {
	return slices.ContainsFunc(filepath.SplitList(os.Getenv("PATH")), func(dir string) bool {
		info, err := os.Stat(filepath.Join(dir, name))
		return err == nil && info.Mode().IsRegular()
	})
}

func runHolder(command string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	holder := fmt.Sprintf("%s@%s:%d", filepath.Base(command), host, os.Getpid())
	return strings.ToValidUTF8(holder[:min(len(holder), 128)], "")
}

// waits reports whether run waits in the queue for a lock that is held.
func (o *runOptions) waits() bool { return !o.try && (!o.limited || o.wait != 0) }

// acquireAll acquires all locks, in the order of their names, so that programs cannot
// deadlock. On an error none is held.
func (a *app) acquireAll(ctx context.Context, o runOptions, c *client.Client, names []string) ([]*client.Grant, error) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	deadline := time.Now().Add(o.wait)
	var grants []*client.Grant
	for _, name := range names {
		g, err := a.acquireOne(ctx, o, c, name, deadline)
		if err != nil {
			for _, held := range grants {
				_ = held.Unlock() // if it fails: the session ends next, and its grants with it
			}
			return nil, err
		}
		grants = append(grants, g)
	}
	return grants, nil
}

func (a *app) acquireOne(ctx context.Context, o runOptions, c *client.Client, name string, deadline time.Time) (*client.Grant, error) {
	opts := []client.LockOption{client.Value([]byte(o.value))}
	if !o.waits() {
		return c.Lock(ctx, name, append(opts, client.Wait(0))...)
	}
	if o.limited {
		opts = append(opts, client.Wait(max(0, time.Until(deadline))))
	}
	stop := a.sayWaiting(ctx, c, name)
	defer stop()
	g, err := c.Lock(ctx, name, opts...)
	return g, nameHolders(ctx, c, err)
}

// conflictCode gives an error of a lock that was not acquired the exit code of -E.
func (o *runOptions) conflictCode(err error) error {
	if errors.Is(err, client.ErrBusy) || errors.Is(err, client.ErrTimeout) {
		return &exitError{o.conflict, err}
	}
	return err
}

// execute runs the command. It returns when the command has been reaped.
func (a *app) execute(ctx context.Context, o runOptions, grants []*client.Grant, path string, command []string) (ended, error) {
	signals := make(chan os.Signal, 16)
	notifyForwarded(signals)
	defer signal.Stop(signals)
	if ctx.Err() != nil { // a signal came before there is a command to forward it to
		return ended{}, context.Cause(ctx)
	}
	lost := make(chan struct{})
	anyLost, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	for _, g := range grants {
		stop := context.AfterFunc(g.Context(), cancel)
		defer stop()
	}
	stop := context.AfterFunc(anyLost, func() { close(lost) })
	defer stop()

	var dog *watchdog
	if !o.unwatched {
		var err error
		dog, err = startWatchdog(o.ttl, o.killAfter, func() time.Duration { return certain(grants) })
		if err != nil {
			return ended{}, &exitError{exitNotExecuted, hinted(err, "to run the command without a watchdog, give --no-watchdog")}
		}
	}
	child, err := startChild(path, command, childEnvironment(grants), a.say, dog)
	if err != nil {
		dog.farewell()
		return ended{}, &exitError{exitNotExecuted, fmt.Errorf("run %s: %w", path, err)}
	}
	end := child.supervise(signals, lost, o.killAfter)
	end.lost = end.lost || certain(grants) <= 0 // expired, and the loss was not signalled yet
	end.hung = dog.farewell()
	return end, nil
}

// certain returns how much longer all of the grants are valid.
func certain(grants []*client.Grant) time.Duration {
	left := time.Duration(1<<63 - 1)
	for _, g := range grants {
		left = min(left, time.Until(g.Deadline()))
	}
	return left
}

func childEnvironment(grants []*client.Grant) []string {
	var names, tokens, held []string
	for _, h := range surroundingLocks(os.Getenv(heldVariable)) {
		held = append(held, h.String())
	}
	for _, g := range grants {
		names = append(names, g.Name())
		tokens = append(tokens, strconv.FormatUint(g.Token(), 10))
		held = append(held, outerLock{g.Name(), g.Token()}.String())
	}
	env := os.Environ()
	for _, v := range []struct {
		name  string
		lines []string
	}{{"LOCKNODE_NAME", names}, {"LOCKNODE_FENCING_TOKEN", tokens}, {heldVariable, held}} {
		env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, v.name+"=") })
		env = append(env, v.name+"="+strings.Join(v.lines, "\n"))
	}
	return env
}

// releaseAll releases the locks. An error is printed and does not change the exit code: the
// locks are free after their TTL in any case.
func (a *app) releaseAll(c *client.Client, grants []*client.Grant, lost bool) {
	for _, g := range slices.Backward(grants) {
		if err := g.Unlock(); err != nil && !lost {
			a.say("release: %v", err)
		}
	}
	if err := c.Close(); err != nil && !lost {
		a.say("the locks could not be released, they are free after their TTL: %v", err)
	}
}

// errWatchdog is the error if the watchdog ended the command shortly before the lock would
// have been lost.
var errWatchdog = errors.New("locknode was stopped or hung until its lock had nearly expired, so its watchdog ended the command")

// lostError says which lock was lost, and why.
func (a *app) lostError(grants []*client.Grant) error {
	for _, g := range grants {
		if err := g.Err(); errors.Is(err, client.ErrLost) {
			return &exitError{exitLost, hinted(err, "the command was sent TERM; what it did after the loss was not protected by the lock")}
		}
	}
	return &exitError{exitLost, client.ErrLost}
}
