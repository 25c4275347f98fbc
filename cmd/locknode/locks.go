package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/document"
)

// The commands that work on locks one request at a time. Their grants are
// detached: they belong to no program, and live by their TTL.

// withClient gives a command a client that is closed when it is done.
func (a *app) withClient(f func(ctx context.Context, c *client.Client, args []string) error, opts ...client.Option) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.dial(cmd.Context(), opts...)
		if err != nil {
			return err
		}
		err = f(cmd.Context(), c, args)
		if left := c.Close(); left != nil && cmd.Context().Err() != nil {
			a.say("the cluster could not be told, a place in line is given up after %v: %v", placeInLine, left)
		}
		return err
	}
}

type acquireOptions struct {
	ttl, wait                time.Duration
	holder, value, requestID string
}

func (a *app) acquireCommand() *cobra.Command {
	o := acquireOptions{}
	c := &cobra.Command{
		Use:     "acquire NAME",
		Short:   "take a lock for some time",
		GroupID: groupLocks,
		Long: `Acquire takes a lock until it is released or its TTL is over, whatever happens to
the shell that asked for it. It prints the fencing token, which renews and releases
the lock, and is to be sent along with every write that the lock protects.

It tries once, unless --wait says how long to stand in line. When the lock is not
acquired the exit code is 75, and the message names the holder. When the token cannot
be written to standard output (exit code 74) the lock is released again. To wait for a
lock that a surrounding locknode run holds is refused (64): it would not end.

With --request-id a retry is safe: it finds the grant, or the place in line, of an earlier
try with the same ID, and the answer says how long the lock is held from now on. After
that grant has ended the ID is refused (1) for some minutes; a refusal is not remembered.
Use an ID that is random and not used for anything else.`,
		Example: `  locknode acquire orders/42 --ttl 30s
  locknode acquire orders/42 --ttl 5m --wait 1m --holder "$USER" -o json
  id=$(uuidgen); until locknode acquire orders/42 --request-id "$id"; do sleep 1; done`,
		Args: arguments(1, 1, "NAME"),
	}
	a.clientFlags(c)
	addDuration(c.Flags(), &o.ttl, "ttl", "", 30*time.Second, "how long the lock is held unless it is renewed")
	addDuration(c.Flags(), &o.wait, "wait", "", 0, "stand in line for at most this long")
	c.Flags().StringVar(&o.holder, "holder", defaultHolder(), "who takes the lock, for people")
	c.Flags().StringVar(&o.value, "value", "", "text stored with the lock for others to read")
	c.Flags().StringVar(&o.requestID, "request-id", "", "makes a retry safe: the same ID gets the same grant")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := notEmpty(cmd, "request-id"); err != nil {
			return err
		}
		return a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			g, err := a.acquire(ctx, o, c, args[0])
			if err != nil {
				return err
			}
			return a.deliver(ctx, c, g)
		}, client.Holder(o.holder), client.SessionTTL(placeInLine))(cmd, args)
	}
	return c
}

func (a *app) acquire(ctx context.Context, o acquireOptions, c *client.Client, name string) (client.DetachedGrant, error) {
	opts := []client.DetachedOption{client.Wait(o.wait), client.Value([]byte(o.value))}
	if o.requestID != "" {
		opts = append(opts, client.RequestID(requestIDOf(o.requestID)))
	}
	if o.wait > 0 {
		if err := a.refuseReentry(ctx, c, name); err != nil {
			return client.DetachedGrant{}, err
		}
		stop := a.sayWaiting(ctx, c, name)
		defer stop()
	}
	g, err := c.Detached().Acquire(ctx, name, o.ttl, opts...)
	return g, nameHolders(ctx, c, err)
}

// deliver prints the token, or releases the lock.
func (a *app) deliver(ctx context.Context, c *client.Client, g client.DetachedGrant) error {
	err := a.printGrant("acquired", document.NewGrant(g.Name, g.Token, g.ExpiresIn, g.Waited), g.Name, g.Token, g.ExpiresIn)
	if err == nil {
		err = a.result().flush()
	}
	if err != nil {
		return a.giveBack(ctx, c, g, err)
	}
	return nil
}

const (
	// placeInLine is how long a place in line outlives an acquire that was killed.
	placeInLine = 5 * time.Second
	// giveBackWait bounds the release of a lock whose token could not be printed.
	giveBackWait = 5 * time.Second
)

// giveBack releases a lock whose token could not be written: nobody else knows it,
// and the lock would be held for its TTL by nobody.
func (a *app) giveBack(ctx context.Context, c *client.Client, g client.DetachedGrant, cause error) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), giveBackWait) // a signal may have come meanwhile
	defer stop()
	err := c.Detached().Release(ctx, g.Name, g.Token)
	if err == nil || errors.Is(err, client.ErrNotHeld) {
		return &exitError{exitOutput, hinted(fmt.Errorf("acquire %q: the lock was released again, because its token is lost: %w", g.Name, cause),
			"look at where standard output goes; a request ID that was used is used up")}
	}
	return &exitError{exitOutput, hinted(fmt.Errorf("acquire %q: %w; the lock could not be released either, so it stays held with token %d until its TTL is over: %w",
		g.Name, cause, g.Token, err), "release it when the cluster answers: locknode release NAME TOKEN")}
}

func defaultHolder() string {
	user := os.Getenv("USER")
	if user == "" {
		user = "locknode"
	}
	host, err := os.Hostname()
	if err != nil {
		return user
	}
	return user + "@" + host
}

// requestIDOf makes an ID of any text, as the HTTP API does: a retry may take the
// other road.
func requestIDOf(text string) [16]byte {
	sum := sha256.Sum256([]byte(text))
	return [16]byte(sum[:16])
}

// tokenArgument takes the token from the command line: NAME TOKEN, or --token.
func tokenArgument(args []string, flag string) (uint64, error) {
	text := flag
	switch {
	case len(args) == 2 && flag != "":
		return 0, usageError("the token is given twice, as %q and with --token %q", args[1], flag)
	case len(args) == 2:
		text = args[1]
	case flag == "":
		return 0, hinted(usageError("no token is given"), "it is what acquire printed: locknode release NAME TOKEN")
	}
	token, err := strconv.ParseUint(text, 10, 64)
	if err != nil || token == 0 {
		return 0, usageError("token %q: a positive whole number is allowed, as acquire printed it", text)
	}
	return token, nil
}

func (a *app) renewCommand() *cobra.Command {
	var ttl time.Duration
	var token string
	c := &cobra.Command{
		Use:     "renew NAME TOKEN",
		Short:   "keep a lock for longer",
		GroupID: groupLocks,
		Long: `Renew makes a lock that was taken with acquire end --ttl from now, and never earlier
than it would have. It fails, and changes nothing, when TOKEN is not the current one.`,
		Example: `  locknode renew orders/42 17 --ttl 1m`,
		Args:    arguments(1, 2, "NAME and TOKEN"),
	}
	a.clientFlags(c)
	addDuration(c.Flags(), &ttl, "ttl", "", 30*time.Second, "how long the lock is held from now on")
	c.Flags().StringVar(&token, "token", "", "the token, instead of as an argument")
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		n, err := tokenArgument(args, token)
		if err != nil {
			return err
		}
		expiresIn, err := c.Detached().Renew(ctx, args[0], n, ttl)
		if err != nil {
			return err
		}
		return a.printGrant("renewed", document.NewRenewed(args[0], n, expiresIn), args[0], n, expiresIn)
	})
	return c
}

func (a *app) releaseCommand() *cobra.Command {
	var token string
	c := &cobra.Command{
		Use:     "release NAME TOKEN",
		Short:   "give a lock back",
		GroupID: groupLocks,
		Long: `Release gives a lock back that was taken with acquire. It fails, and changes nothing,
when TOKEN is not the current one: a holder that was too slow cannot release the lock
of its successor.`,
		Example: `  locknode release orders/42 17`,
		Args:    arguments(1, 2, "NAME and TOKEN"),
	}
	a.clientFlags(c)
	c.Flags().StringVar(&token, "token", "", "the token, instead of as an argument")
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		n, err := tokenArgument(args, token)
		if err != nil {
			return err
		}
		if err := c.Detached().Release(ctx, args[0], n); err != nil {
			return err
		}
		if a.json {
			return a.printJSON(document.Release{Name: args[0], Token: n})
		}
		return a.printf("%s: released, token %d\n", quoteName(args[0]), n)
	})
	return c
}

func (a *app) forceReleaseCommand() *cobra.Command {
	var token uint64
	var reason, who string
	c := &cobra.Command{
		Use:     "force-release NAME",
		Short:   "take a lock away from its holder",
		GroupID: groupLocks,
		Long: `Force-release ends somebody else's hold on a lock. The holder is told at once, with
the reason, and who did it. With --token it is done only if that is still the current
token, so that nobody but the holder you looked at can be hit.`,
		Example: `  locknode force-release orders/42 --token 17 --reason "host is gone, ticket 4711"`,
		Args:    arguments(1, 1, "NAME"),
	}
	a.clientFlags(c)
	c.Flags().Uint64Var(&token, "token", 0, "only if this is the current token (default: whoever holds it)")
	c.Flags().StringVar(&reason, "reason", "", "why, for the holder and for the record; required")
	c.Flags().StringVar(&who, "who", defaultHolder(), "who does it, for the holder and for the record")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if token == 0 && cmd.Flags().Changed("token") {
			return hinted(usageError("--token 0: a positive whole number is allowed"), "without --token the lock is taken away whoever holds it")
		}
		if reason == "" {
			return hinted(usageError("force-release wants --reason"), "it is told to the holder and kept for the record")
		}
		return a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			released, err := c.ForceRelease(ctx, args[0], token, reason)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(document.Released{Name: args[0], Released: holderDocuments(released, true)})
			}
			return a.printf("%s: released by force\n", quoteName(args[0]))
		}, client.Holder(who))(cmd, args)
	}
	return c
}

func (a *app) getCommand() *cobra.Command {
	var stale time.Duration
	c := &cobra.Command{
		Use:     "get NAME",
		Short:   "show one lock: who holds it, for how long, who waits",
		GroupID: groupLocks,
		Long: `Get shows who holds a lock, with which token and for how long, and how many wait.
A free lock is no error. The answer is linearizable: it sees everything that was
answered before it was asked. With --stale any node may answer from what it knows.`,
		Example: `  locknode get orders/42
  locknode get orders/42 --stale 5s -o json`,
		Args: arguments(1, 1, "NAME"),
	}
	a.clientFlags(c)
	addDuration(c.Flags(), &stale, "stale", "", 0, "an answer that is at most this old will do")
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		info, err := c.Get(ctx, args[0], readOptions(stale)...)
		if err != nil {
			return err
		}
		if a.json {
			d := lockDocument(info)
			d.Age = ageOf(stale, info.Age)
			return a.printJSON(d)
		}
		return a.printf("%s", lockText(info))
	})
	return c
}

func readOptions(stale time.Duration) []client.ReadOption {
	if stale == 0 {
		return nil
	}
	return []client.ReadOption{client.Stale(stale)}
}

func (a *app) lsCommand() *cobra.Command {
	var o client.ListOptions
	var limit int
	c := &cobra.Command{
		Use:     "ls [PREFIX]",
		Short:   "list locks that are held or waited for",
		GroupID: groupLocks,
		Long: `Ls lists the locks whose names begin with PREFIX, in the order of their names. A lock
that nobody holds or waits for does not exist, and is not listed.`,
		Example: `  locknode ls
  locknode ls orders/ -o json`,
		Args: arguments(0, 1, "at most one PREFIX"),
	}
	a.clientFlags(c)
	addDuration(c.Flags(), &o.Stale, "stale", "", 0, "an answer that is at most this old will do")
	c.Flags().IntVar(&limit, "limit", 0, "stop after this many (default: all)")
	c.Flags().StringVar(&o.After, "page", "", "go on where a list ended that --limit cut off: its \"next\"")
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		if limit < 0 {
			return usageError("--limit %d: 0 for all, or how many", limit)
		}
		prefix := strings.Join(args, "")
		all, err := listLocks(ctx, c, prefix, limit, o)
		if err != nil {
			return err
		}
		if !a.json {
			return a.printLocks(all.Locks, all.Next, prefix)
		}
		page := document.Page{Locks: make([]document.Lock, 0, len(all.Locks)), Next: all.Next, Age: ageOf(o.Stale, all.Age)}
		for _, l := range all.Locks {
			page.Locks = append(page.Locks, lockDocument(l))
		}
		return a.printJSON(page)
	})
	return c
}

// listLocks collects pages until limit is reached, 0 for all of them. Their age is that of
// the oldest.
func listLocks(ctx context.Context, c *client.Client, prefix string, limit int, o client.ListOptions) (all client.Page, err error) {
	for {
		o.Limit = 1000
		if limit > 0 {
			o.Limit = min(1000, limit-len(all.Locks))
		}
		page, err := c.List(ctx, prefix, o)
		if err != nil {
			return client.Page{}, err
		}
		all.Locks, all.Next, all.Age = append(all.Locks, page.Locks...), page.Next, max(all.Age, page.Age)
		if page.Next == "" || limit > 0 && len(all.Locks) >= limit {
			return all, nil
		}
		o.After = page.Next
	}
}

// noLocks is what ls says instead of an empty table.
func noLocks(prefix string) string {
	if prefix == "" {
		return "no lock is held or waited for\n"
	}
	return fmt.Sprintf("no lock whose name begins with %q is held or waited for\n", prefix)
}
