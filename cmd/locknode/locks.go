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

// The commands that work on locks with one request each. Their grants are
// detached: they belong to no session, and last for their TTL.

// withClient runs a command with a client, which is closed when the command returns.
func (a *app) withClient(f func(ctx context.Context, c *client.Client, args []string) error, opts ...client.Option) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.dial(cmd.Context(), opts...)
		if err != nil {
			return err
		}
		err = f(cmd.Context(), c, args)
		if left := c.Close(); left != nil && cmd.Context().Err() != nil {
			a.say("the cluster could not be reached, so a place in the queue is kept for up to %v: %v", keptPlace, left)
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
		Short:   "acquire a lock for some time",
		GroupID: groupLocks,
		Long: `Acquire acquires a lock until it is released or its TTL has passed, whether or not the
shell that ran it still exists. It prints the fencing token, which renews and releases
the lock and must be sent along with every write that the lock protects.

It tries once, unless --wait says how long to wait in the queue. If the lock is not
acquired the exit code is 75, and the message names the holder. If the token cannot be
written to standard output (exit code 74) the lock is released again. A wait for a lock
that a surrounding locknode run holds would never end, and is refused (64).

With --request-id a retry is safe: it finds the grant, or the place in the queue, of an
earlier try with the same ID, and the answer says how long the lock is held from now on.
When that grant has ended, the ID is refused (1) for some minutes; a try that was refused
is not remembered. Use a random ID, and use it for nothing else.`,
		Example: `  locknode acquire orders/42 --ttl 30s
  locknode acquire orders/42 --ttl 5m --wait 1m --holder "$USER" -o json
  id=$(uuidgen); until locknode acquire orders/42 --request-id "$id"; do sleep 1; done`,
		Args: arguments(1, 1, "NAME"),
	}
	a.clientFlags(c)
	addDuration(c.Flags(), &o.ttl, "ttl", "", 30*time.Second, "how long the lock is held unless it is renewed")
	addDuration(c.Flags(), &o.wait, "wait", "", 0, "wait in the queue for at most this long")
	c.Flags().StringVar(&o.holder, "holder", defaultHolder(), "name of the holder, shown to others")
	c.Flags().StringVar(&o.value, "value", "", "text to store with the lock, for others to read")
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
		}, client.Holder(o.holder), client.SessionTTL(keptPlace))(cmd, args)
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

// deliver prints the token. If that fails it releases the lock.
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
	// keptPlace is how long a place in the queue is kept after its acquire was killed.
	keptPlace = 5 * time.Second
	// giveBackWait bounds the release of a lock whose token could not be printed.
	giveBackWait = 5 * time.Second
)

// giveBack releases a lock whose token could not be written. Otherwise the lock would be
// held for its TTL, and nobody could release it.
func (a *app) giveBack(ctx context.Context, c *client.Client, g client.DetachedGrant, cause error) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), giveBackWait) // a signal may have come meanwhile
	defer stop()
	err := c.Detached().Release(ctx, g.Name, g.Token)
	if err == nil || errors.Is(err, client.ErrNotHeld) {
		return &exitError{exitOutput, hinted(fmt.Errorf("acquire %q: the lock was released again, because its token could not be printed: %w", g.Name, cause),
			"check where standard output goes; use another --request-id for the next try")}
	}
	return &exitError{exitOutput, hinted(fmt.Errorf("acquire %q: %w; the lock could not be released either, so it is held with token %d until its TTL has passed: %w",
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

// requestIDOf makes an ID of any text, in the same way as the HTTP API: a retry may be
// sent over HTTP.
func requestIDOf(text string) [16]byte {
	sum := sha256.Sum256([]byte(text))
	return [16]byte(sum[:16])
}

// tokenArgument returns the token on the command line: NAME TOKEN, or --token.
func tokenArgument(args []string, flag string) (uint64, error) {
	text := flag
	switch {
	case len(args) == 2 && flag != "":
		return 0, usageError("TOKEN and --token: are %q and %q, must not be given together", args[1], flag)
	case len(args) == 2:
		text = args[1]
	case flag == "":
		return 0, hinted(usageError("TOKEN: is missing"), "give the token that acquire printed: locknode release NAME TOKEN")
	}
	token, err := strconv.ParseUint(text, 10, 64)
	if err != nil || token == 0 {
		return 0, usageError("TOKEN: is %q, must be a positive whole number, as acquire printed it", text)
	}
	return token, nil
}

func (a *app) renewCommand() *cobra.Command {
	var ttl time.Duration
	var token string
	c := &cobra.Command{
		Use:     "renew NAME TOKEN",
		Short:   "extend the TTL of a lock",
		GroupID: groupLocks,
		Long: `Renew extends a lock that was acquired with "locknode acquire": it then expires --ttl
from now, and never earlier than it would have. If TOKEN is not the current token, renew
fails and changes nothing.`,
		Example: `  locknode renew orders/42 17 --ttl 1m`,
		Args:    arguments(1, 2, "NAME and TOKEN"),
	}
	a.clientFlags(c)
	addDuration(c.Flags(), &ttl, "ttl", "", 30*time.Second, "how long the lock is held from now on")
	c.Flags().StringVar(&token, "token", "", "the token, instead of the argument TOKEN")
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
		Short:   "release a lock",
		GroupID: groupLocks,
		Long: `Release releases a lock that was acquired with "locknode acquire". If TOKEN is not the
current token, release fails and changes nothing: a holder that was too slow cannot
release the lock of the next holder.`,
		Example: `  locknode release orders/42 17`,
		Args:    arguments(1, 2, "NAME and TOKEN"),
	}
	a.clientFlags(c)
	c.Flags().StringVar(&token, "token", "", "the token, instead of the argument TOKEN")
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
		Long: `Force-release takes a lock away from its holder. The holder is notified at once, with
the reason and with who did it. With --token the lock is released only if that is still
the current token, so that a later holder cannot lose it by mistake.`,
		Example: `  locknode force-release orders/42 --token 17 --reason "host is gone, ticket 4711"`,
		Args:    arguments(1, 1, "NAME"),
	}
	a.clientFlags(c)
	c.Flags().Uint64Var(&token, "token", 0, "release only if this is the current token (default: any)")
	c.Flags().StringVar(&reason, "reason", "", "why, for the holder and the log; required")
	c.Flags().StringVar(&who, "who", defaultHolder(), "who does it, for the holder and the log")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if token == 0 && cmd.Flags().Changed("token") {
			return hinted(usageError("--token: is 0, must be a positive whole number"), "to release the lock whatever its token is, leave --token out")
		}
		if reason == "" {
			return hinted(usageError("--reason: is missing"), "force-release sends it to the holder and logs it")
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
		Short:   "show one lock: its holder, its time left, its queue",
		GroupID: groupLocks,
		Long: `Get shows who holds a lock, with which token and for how long, and how many wait for it.
A free lock is not an error. The answer is linearizable: it reflects every operation that
was answered before get was run. With --stale any node may answer from its own copy.`,
		Example: `  locknode get orders/42
  locknode get orders/42 --stale 5s -o json`,
		Args: arguments(1, 1, "NAME"),
	}
	a.clientFlags(c)
	addDuration(c.Flags(), &stale, "stale", "", 0, "accept an answer that is at most this old")
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
		Long: `Ls lists the locks whose names begin with PREFIX, sorted by name. A lock that nobody
holds or waits for does not exist, and is not listed.`,
		Example: `  locknode ls
  locknode ls orders/ -o json`,
		Args: arguments(0, 1, "at most one PREFIX"),
	}
	a.clientFlags(c)
	addDuration(c.Flags(), &o.Stale, "stale", "", 0, "accept an answer that is at most this old")
	c.Flags().IntVar(&limit, "limit", 0, "stop after this many (default: all)")
	c.Flags().StringVar(&o.After, "page", "", "continue a list that --limit cut off: its \"next\"")
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		if limit < 0 {
			return usageError("--limit: is %d, must be 0 or more, 0 for all", limit)
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

// listLocks collects pages until limit is reached; 0: all of them. The age of the result is
// that of the oldest page.
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

// noLocks is what ls prints instead of an empty table.
func noLocks(prefix string) string {
	if prefix == "" {
		return "no lock is held or waited for\n"
	}
	return fmt.Sprintf("no lock whose name begins with %q is held or waited for\n", prefix)
}
