package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/document"
)

// The commands for operators against clients that use too much, or that are gone and block
// others.

func (a *app) operatorCommands() []*cobra.Command {
	return []*cobra.Command{a.clearCommand(), a.resizeCommand(), a.sessionsCommand(), a.limitsCommand()}
}

func (a *app) sessionsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "sessions",
		Short:   "list the sessions of clients, or end them",
		GroupID: groupCluster,
		Long: `A session stands for a running client: its locks and its places in queues end with it.
"sessions ls" lists open sessions, "sessions kill" ends them. The ID of a session is a secret
of its client; all others see a hash of it.`,
		Example: `  locknode sessions ls
  locknode sessions ls --lock orders/42
  locknode sessions kill 3f2a9c0d11e5b7a4 --reason "host is gone"
  locknode sessions kill --owner 10.0.0.7 --reason "runs wild"`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return hinted(usageError("unknown command %q of sessions", args[0]), "see `locknode sessions --help`")
		},
	}
	c.AddCommand(a.sessionsLsCommand(), a.sessionsKillCommand())
	return c
}

func (a *app) sessionsLsCommand() *cobra.Command {
	var filter client.SessionsFilter
	var limit int
	c := &cobra.Command{
		Use:   "ls",
		Short: "list open sessions",
		Long: `Ls lists open sessions in the order in which they were opened. It shows the address that
each was opened from, the holder name that the client gave, how long the session lasts if
its client sends nothing more, how much it holds and waits for, and the hash that
"sessions kill" takes.`,
		Example: `  locknode sessions ls
  locknode sessions ls --owner 10.0.0.7 -o json`,
		Args: arguments(0, 0, ""),
	}
	a.clientFlags(c)
	c.Flags().StringVar(&filter.Owner, "owner", "", "only sessions opened from this address, as the list shows it")
	c.Flags().StringVar(&filter.Lock, "lock", "", "only sessions that hold this lock or wait for it")
	c.Flags().IntVar(&limit, "limit", 1000, "stop after this many; 0: all")
	c.Flags().Uint64Var(&filter.After, "page", 0, "continue a list that --limit cut off: its \"next\"")
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
		if limit < 0 {
			return usageError("--limit: is %d, must be 0 or more, 0 for all", limit)
		}
		ctx, cancel := a.withinConnectTimeout(ctx)
		defer cancel()
		sessions, next, err := listSessions(ctx, c, filter, limit)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(sessionsDocument(sessions, next))
		}
		return a.printSessions(sessions, next)
	})
	return c
}

// listSessions collects pages until limit is reached; 0: all of them. next is where the list
// continues; 0: it is complete.
func listSessions(ctx context.Context, c *client.Client, filter client.SessionsFilter, limit int) (all []client.SessionInfo, next uint64, err error) {
	for {
		filter.Limit = 1000
		if limit > 0 {
			filter.Limit = min(1000, limit-len(all))
		}
		page, next, err := c.Sessions(ctx, filter)
		if err != nil {
			return nil, 0, err
		}
		all = append(all, page...)
		if next == 0 || limit > 0 && len(all) >= limit {
			return all, next, nil
		}
		filter.After = next
	}
}

func (a *app) sessionsKillCommand() *cobra.Command {
	var owner, reason string
	c := &cobra.Command{
		Use:   "kill HASH | --owner ADDRESS",
		Short: "end sessions of any client",
		Long: `Kill ends one session, by its hash, or with --owner everything from one address:
sessions, and grants and waits that have no session, such as those of "locknode acquire"
and curl. Their locks go to the next waiters, and their waits end. The clients are
notified at once, with the reason and with the address that the command came from. A
client that still runs opens another session: to keep it out, stop it, or lower a limit
("locknode limits set").`,
		Example: `  locknode sessions kill 3f2a9c0d11e5b7a4 --reason "host is gone"
  locknode sessions kill --owner 10.0.0.7 --reason "runs wild"`,
		Args: arguments(0, 1, "one HASH, or --owner"),
	}
	a.clientFlags(c)
	c.Flags().StringVar(&owner, "owner", "", "end everything from this address, as \"sessions ls\" shows it")
	c.Flags().StringVar(&reason, "reason", "", "why, for the clients and the log; required")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case (len(args) == 1) == (owner != ""):
			return hinted(usageError("sessions kill: needs either a HASH or --owner"), "`locknode sessions ls` shows both")
		case reason == "":
			return hinted(usageError("--reason: is missing"), "sessions kill sends it to the clients and logs it")
		}
		return a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			killed, err := client.Killed{Sessions: 1}, error(nil)
			if owner != "" {
				killed, err = c.KillSessionsOf(ctx, owner, reason)
			} else {
				err = c.KillSession(ctx, args[0], reason)
			}
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(document.Killed{Killed: killed.Sessions, Grants: killed.Grants, Waiters: killed.Waiters})
			}
			if owner == "" {
				return a.printf("1 session ended\n")
			}
			return a.printf("%s ended, and %s and %s without a session\n", counted(killed.Sessions, "session"), counted(killed.Grants, "grant"), counted(killed.Waiters, "wait"))
		})(cmd, args)
	}
	return c
}

// counted returns a number with its noun, in the plural where that is needed.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}

func (a *app) clearCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:     "clear NAME",
		Short:   "end all grants of a lock and all waits for it",
		GroupID: groupLocks,
		Long: `Clear ends all grants of a lock and all waits for it in one step, so that none of the
waiters gets the lock in between. It is meant for a queue full of clients that are gone.
All of them are notified at once, with the reason and with the address that the command
came from. Later requests for the lock are not affected; a client that still runs may
request it again.`,
		Example: `  locknode clear orders/42 --reason "9,000 waiters of a crashed deployment"`,
		Args:    arguments(1, 1, "NAME"),
	}
	a.clientFlags(c)
	c.Flags().StringVar(&reason, "reason", "", "why, for the clients and the log; required")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if reason == "" {
			return hinted(usageError("--reason: is missing"), "clear sends it to the clients and logs it")
		}
		return a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			grants, waiters, err := c.Clear(ctx, args[0], reason)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(document.Cleared{Name: args[0], Grants: grants, Waiters: waiters})
			}
			return a.printf("%s: %s and %s ended\n", quoteName(args[0]), counted(grants, "grant"), counted(waiters, "wait"))
		})(cmd, args)
	}
	return c
}

func (a *app) resizeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "resize NAME SIZE",
		Short:   "change how many permits a semaphore in use has",
		GroupID: groupLocks,
		Long: `Resize changes the size of a semaphore, for as long as it has a holder or a waiter. If there
are more permits, waiters are granted them at once. If there are fewer, holders keep theirs,
and no permits are granted until enough of them are released; a wait for more permits than
the new size ends with kind_mismatch.

Programs that name another size are refused (kind_mismatch) while the semaphore is in use:
change the size there as well. Once it is not in use, the next acquire sets its size.`,
		Example: `  locknode resize pool 5
  locknode get pool`,
		Args: arguments(2, 2, "NAME and SIZE"),
	}
	a.clientFlags(c)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		size, err := strconv.ParseUint(args[1], 10, 32)
		if err != nil || size == 0 {
			return usageError("size: is %q, must be a whole number from 1 to %d", args[1], uint32(math.MaxUint32))
		}
		return a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			err := c.Resize(ctx, args[0], int(size))
			switch {
			case errors.Is(err, client.ErrSession):
				return hinted(err, "`locknode get %s` shows the size; the command may be repeated", quoteName(args[0]))
			case err != nil:
				return err
			case a.json:
				return a.printJSON(document.Resized{Name: args[0], Limit: int(size)})
			}
			return a.printf("%s: resized to %s\n", quoteName(args[0]), counted(int(size), "permit"))
		})(cmd, args)
	}
	return c
}

func (a *app) limitsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "limits",
		Short:   "show or change the limits of the lock table",
		GroupID: groupCluster,
		Long: `The limits of the lock table belong to the cluster: they are the same on all nodes.
The limits in a node's configuration only apply when the cluster is formed.`,
		Example: `  locknode limits get
  locknode limits set sessions=200000 max_ttl=1h`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return hinted(usageError("unknown command %q of limits", args[0]), "see `locknode limits --help`")
		},
	}
	get := &cobra.Command{
		Use:     "get [NAME…]",
		Short:   "show the current limits",
		Example: "  locknode limits get\n  locknode limits get sessions table_bytes",
		Args:    cobra.ArbitraryArgs,
	}
	a.clientFlags(get)
	get.RunE = a.withClient(func(ctx context.Context, c *client.Client, names []string) error {
		ctx, cancel := a.withinConnectTimeout(ctx)
		defer cancel()
		limits, err := c.Limits(ctx)
		if err != nil {
			return err
		}
		if limits, err = limitsNamed(limits, names); err != nil {
			return err
		}
		if a.json {
			return a.printJSON(document.Limits{Limits: limitDocuments(limits)})
		}
		return a.printLimits(limits)
	})
	set := &cobra.Command{
		Use:   "set NAME=VALUE…",
		Short: "change limits, permanently and for all nodes",
		Long: `Set changes limits of the lock table, all of the given ones in one step. A value is a
number, a duration such as 10m, or a size such as 100MiB; 0 is the default. Nothing that
exists is taken away: a client that has more than a new limit allows keeps it, and gets no
more.`,
		Example: `  locknode limits set sessions=200000
  locknode limits set table_bytes=512MiB max_ttl=1h`,
		Args: arguments(1, -1, "NAME=VALUE"),
	}
	a.clientFlags(set)
	set.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		ctx, cancel := a.withinConnectTimeout(ctx)
		defer cancel()
		known, err := c.Limits(ctx)
		if err != nil {
			return err
		}
		values, err := limitValues(known, args)
		if err != nil {
			return err
		}
		before, after, err := c.SetLimits(ctx, values)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(document.LimitsSet{Before: limitDocuments(before), After: limitDocuments(after)})
		}
		for i, l := range after {
			if err := a.printf("%s: %s, was %s\n", l.Name, limitText(l), limitText(before[i])); err != nil {
				return err
			}
		}
		return a.printf("in effect on all nodes; nothing that exists is taken away\n")
	})
	c.AddCommand(get, set)
	return c
}

// limitsNamed returns the limits with these names; without names, all.
func limitsNamed(limits []client.LimitInfo, names []string) ([]client.LimitInfo, error) {
	if len(names) == 0 {
		return limits, nil
	}
	var some []client.LimitInfo
	for _, name := range names {
		l, err := limitNamed(limits, name)
		if err != nil {
			return nil, err
		}
		some = append(some, l)
	}
	return some, nil
}

func limitNamed(limits []client.LimitInfo, name string) (client.LimitInfo, error) {
	name = strings.TrimPrefix(name, "limits.")
	for _, l := range limits {
		if l.Name == name {
			return l, nil
		}
	}
	return client.LimitInfo{}, hinted(usageError("there is no limit %q", name), "`locknode limits get` lists them")
}

// limitValues parses arguments NAME=VALUE.
func limitValues(known []client.LimitInfo, args []string) (map[string]int64, error) {
	values := make(map[string]int64)
	for _, arg := range args {
		name, text, ok := strings.Cut(arg, "=")
		if !ok || text == "" {
			return nil, usageError("argument: is %q, must be NAME=VALUE", arg)
		}
		l, err := limitNamed(known, name)
		if err != nil {
			return nil, err
		}
		if _, twice := values[l.Name]; twice {
			return nil, usageError("%s: is given twice, must be given once", l.Name)
		}
		value, err := limitValue(l, text)
		if err != nil {
			return nil, usageError("%s: %w", l.Name, wrong(text, err))
		}
		values[l.Name] = value
	}
	return values, nil
}

func limitValue(l client.LimitInfo, text string) (int64, error) {
	if l.Duration {
		d, err := parseDuration(text)
		return int64(d), err
	}
	if strings.HasSuffix(l.Name, "_bytes") {
		return parseBytes(text)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("must be a whole number of 0 or more")
	}
	return n, nil
}

// limitText formats the value of a limit, in a form that limits set accepts.
func limitText(l client.LimitInfo) string { return document.LimitText(l.Name, l.Value, l.Duration) }

// parseBytes parses a size, with or without a unit.
func parseBytes(text string) (int64, error) {
	unit := int64(1)
	for _, u := range document.Units {
		if rest, ok := strings.CutSuffix(text, u.Name); ok {
			text, unit = strings.TrimSpace(rest), u.Size
			break
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return 0, fmt.Errorf("must be a size, such as 104857600, 100MiB or 2GB")
	}
	return n * unit, nil
}
