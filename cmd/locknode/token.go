package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/certs"
	"github.com/locknode/locknode/internal/document"
)

// The commands about access tokens.

func (a *app) tokenCommand() *cobra.Command {
	c := a.tlsGroup("token", "make and revoke access tokens",
		`An access token is a secret that says who a caller is: token:NAME. What he may do is in the
policies for that name ("locknode policy"). The cluster keeps no secret, only its hash; every
token has an accessor, a short text that names it and is no secret.

These commands need the right admin. The first access token is made by "token bootstrap".
What locks call their token is another thing: the fencing token of a grant.`,
		`  locknode token bootstrap --data-dir /var/lib/locknode --out root.token
  locknode token create shop --out shop.token
  locknode token ls
  locknode token revoke 3x7k2m9qp4ab --end-sessions`)
	c.GroupID = groupCluster
	c.AddCommand(a.tokenCreateCommand(), a.tokenLsCommand(), a.tokenInfoCommand(), a.tokenRevokeCommand(), a.tokenBootstrapCommand())
	return c
}

func (a *app) tokenCreateCommand() *cobra.Command {
	var ttl time.Duration
	var labels []string
	var out string
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "make an access token",
		Long: `Create makes an access token and prints its secret, which is shown nowhere else. With --out
it goes into a new file that only this user can read, and nothing secret is printed.

Several tokens may have one name: their callers are the same identity, and a token is
replaced without an outage by making the new one before the old one is revoked.`,
		Example: `  locknode token create shop --out shop.token
  locknode token create ci --ttl 720h --label team=build`,
		Args: arguments(1, 1, "NAME"),
	}
	a.clientFlags(c)
	addDuration(c.Flags(), &ttl, "ttl", "", 0, "the token ends after that (default: it has no end)")
	c.Flags().StringArrayVar(&labels, "label", nil, "label KEY=VALUE of the token, for policies and people; may be given several times")
	c.Flags().StringVar(&out, "out", "", "file for the secret, made with mode 0600; it must not exist")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		t := client.NewAccessToken{Name: args[0], TTL: ttl, Labels: map[string]string{}}
		if cmd.Flags().Changed("ttl") && ttl <= 0 {
			return usageError("--ttl: is %v, must be more than 0; leave it out to have no end", ttl)
		}
		for _, l := range labels {
			k, v, ok := strings.Cut(l, "=")
			if !ok || k == "" {
				return usageError("--label: is %q, must be KEY=VALUE", l)
			}
			t.Labels[k] = v
		}
		file, err := newSecretFile(out)
		if err != nil {
			return err
		}
		defer file.discard()
		return a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			made, secret, err := c.CreateAccessToken(ctx, t)
			if err != nil {
				return err
			}
			return a.giveSecret(ctx, c, file, made, secret)
		})(cmd, args)
	}
	return c
}

// secretFile is the new file for a secret; nil: it is printed. It is made before the secret, so
// that none is lost because the file cannot be.
type secretFile struct {
	path string
	file *os.File
	done bool
}

func newSecretFile(path string) (*secretFile, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, certs.ModeKey)
	if errors.Is(err, fs.ErrExist) {
		return nil, hinted(usageError("--out: is %q, must be a file that does not exist", path), "nothing was changed: a secret is never written over another file")
	}
	if err != nil {
		return nil, usageError("--out: %w", err)
	}
	return &secretFile{path: path, file: f}, nil
}

// discard removes a file that got no secret.
func (f *secretFile) discard() {
	if f != nil && !f.done {
		_ = f.file.Close() // there is nothing in it
		_ = os.Remove(f.path)
	}
}

func (f *secretFile) write(secret string) error {
	_, err := f.file.WriteString(secret + "\n")
	if err = errors.Join(err, f.file.Sync(), f.file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	f.done = true
	return nil
}

// giveSecret prints or stores the secret of a new access token. If that fails the token is
// revoked: nobody could use it.
func (a *app) giveSecret(ctx context.Context, c *client.Client, file *secretFile, made client.AccessToken, secret string) error {
	doc := document.NewAccessToken{AccessToken: tokenDocument(made), Secret: secret}
	var err error
	switch {
	case file != nil:
		doc.Secret = ""
		if err = file.write(secret); err == nil && !a.json {
			return a.printf("access token %s made for token:%s, its secret is in %s\n", made.Accessor, quoteName(made.Name), file.path)
		}
	case !a.json:
		a.say("access token %s made for token:%s; this is its secret, which is shown only now:", made.Accessor, quoteName(made.Name))
		err = a.printf("%s\n", secret)
	}
	if err == nil && a.json {
		err = a.printJSON(doc)
	}
	if err == nil && file == nil {
		err = a.result().flush()
	}
	if err == nil || file != nil && file.done {
		return err
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), giveBackWait)
	defer stop()
	if _, _, left := c.RevokeAccessToken(ctx, made.Accessor, false, "its secret could not be written"); left != nil {
		return &exitError{exitOutput, hinted(fmt.Errorf("the secret could not be written, and access token %s not revoked: %w", made.Accessor, errors.Join(err, left)),
			"revoke it: locknode token revoke %s", made.Accessor)}
	}
	return &exitError{exitOutput, fmt.Errorf("the access token was revoked again, because its secret could not be written: %w", err)}
}

func tokenDocument(t client.AccessToken) document.AccessToken {
	d := document.AccessToken{Accessor: t.Accessor, Name: t.Name, Labels: t.Labels, MadeBy: t.MadeBy}
	d.SetTimes(t.Made, t.Remaining)
	return d
}

func (a *app) tokenLsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "ls",
		Short:   "list access tokens",
		Long:    "Ls lists access tokens by their accessors. Their secrets are known to nobody but their owners.",
		Example: "  locknode token ls\n  locknode token ls -o json",
		Args:    arguments(0, 0, ""),
	}
	a.clientFlags(c)
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
		ctx, cancel := a.withinConnectTimeout(ctx)
		defer cancel()
		var all []client.AccessToken
		for after := ""; ; {
			page, next, err := c.AccessTokens(ctx, after)
			if err != nil {
				return err
			}
			if all = append(all, page...); next == "" {
				return a.printTokens(all)
			}
			after = next
		}
	})
	return c
}

func (a *app) printTokens(all []client.AccessToken) error {
	if a.json {
		doc := document.AccessTokens{AccessTokens: []document.AccessToken{}}
		for _, t := range all {
			doc.AccessTokens = append(doc.AccessTokens, tokenDocument(t))
		}
		return a.printJSON(doc)
	}
	if len(all) == 0 {
		return a.printf("there is no access token\n")
	}
	var rows [][]string
	for _, t := range all {
		left, labels := "no end", ""
		if len(t.Labels) > 0 {
			labels = a.nameCell(labelsText(t.Labels))
		}
		if t.Remaining > 0 {
			left = roughly(t.Remaining)
		}
		rows = append(rows, []string{t.Accessor, a.nameCell(t.Name), labels, left, t.Made.UTC().Format(time.DateTime), a.nameCell(t.MadeBy)})
	}
	return a.table([]string{"ACCESSOR", "NAME", "LABELS", "LEFT", "MADE (UTC)", "BY"}, rows)
}

func labelsText(labels map[string]string) string {
	var texts []string
	for k, v := range labels {
		texts = append(texts, k+"="+v)
	}
	slices.Sort(texts)
	return strings.Join(texts, ",")
}

func (a *app) tokenInfoCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "info ACCESSOR",
		Short:   "show one access token",
		Example: "  locknode token info 3x7k2m9qp4ab",
		Args:    arguments(1, 1, "ACCESSOR"),
	}
	a.clientFlags(c)
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		ctx, cancel := a.withinConnectTimeout(ctx)
		defer cancel()
		t, ok, err := c.AccessToken(ctx, args[0])
		switch {
		case err != nil:
			return err
		case !ok:
			return noSuchToken(args[0])
		case a.json:
			return a.printJSON(tokenDocument(t))
		}
		return a.printTokens([]client.AccessToken{t})
	})
	return c
}

func noSuchToken(accessor string) error {
	return hinted(&exitError{exitOther, fmt.Errorf("there is no access token %q", accessor)}, "`locknode token ls` lists them; a command takes the accessor, and never the secret")
}

func (a *app) tokenRevokeCommand() *cobra.Command {
	var end bool
	var reason string
	c := &cobra.Command{
		Use:   "revoke ACCESSOR",
		Short: "end an access token for good",
		Long: `Revoke ends an access token: no node accepts it any more a second later, as long as a
majority of the nodes can talk. What its callers hold stays theirs until their sessions
end, which they can no more keep alive. With --end-sessions all that the name holds and
waits for is ended at once, also by other tokens with that name.`,
		Example: `  locknode token revoke 3x7k2m9qp4ab
  locknode token revoke 3x7k2m9qp4ab --end-sessions --reason "laptop was stolen"`,
		Args: arguments(1, 1, "ACCESSOR"),
	}
	a.clientFlags(c)
	c.Flags().BoolVar(&end, "end-sessions", false, "also end its sessions, grants and waits")
	c.Flags().StringVar(&reason, "reason", "", "why, for the clients and the log")
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		t, killed, err := c.RevokeAccessToken(ctx, args[0], end, reason)
		switch {
		case errors.Is(err, client.ErrNotHeld):
			return noSuchToken(args[0])
		case err != nil:
			return err
		case a.json:
			return a.printJSON(document.RevokedAccessToken{AccessToken: tokenDocument(t), Killed: killed.Sessions, Grants: killed.Grants, Waiters: killed.Waiters})
		case !end:
			return a.printf("access token %s of token:%s revoked\n", t.Accessor, quoteName(t.Name))
		}
		return a.printf("access token %s of token:%s revoked; %s ended, and %s and %s without a session\n", t.Accessor, quoteName(t.Name),
			counted(killed.Sessions, "session"), counted(killed.Grants, "grant"), counted(killed.Waiters, "wait"))
	})
	return c
}

// operatorKeyFile is the file in a node's data directory that proves that its reader may make
// an access token with all rights.
const operatorKeyFile = "operator.key"

func (a *app) tokenBootstrapCommand() *cobra.Command {
	var dir, out string
	var again bool
	c := &cobra.Command{
		Use:   "bootstrap --data-dir DIR",
		Short: "make the first access token, which has all rights",
		Long: `Bootstrap makes an access token named root, and the policy root that gives it all rights.
It needs no access token: what proves that it may is the file operator.key in the data
directory of a running node, which only the node's user can read, and which is new at each
start of the node. The endpoint must be that node.

It is refused if there is an access token root, unless --again is given: so a lost one is
replaced. Revoke the old one afterwards.`,
		Example: `  locknode token bootstrap --data-dir /var/lib/locknode --out root.token
  locknode token bootstrap --data-dir /var/lib/locknode --endpoints n1:7400 --tls-ca ca.crt --again`,
		Args: arguments(0, 0, ""),
	}
	a.clientFlags(c)
	c.Flags().StringVar(&dir, "data-dir", "", "data directory of the node that is asked; required")
	c.Flags().BoolVar(&again, "again", false, "also if there is an access token root")
	c.Flags().StringVar(&out, "out", "", "file for the secret, made with mode 0600; it must not exist")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if dir == "" {
			return usageError("--data-dir: is missing, must be the data directory of the node that is asked")
		}
		if len(a.endpoints) == 0 {
			a.endpoints = defaultEndpoints[:1]
		}
		if len(a.endpoints) > 1 {
			return usageError("--endpoints: are %d, must be one: that of the node with the data directory", len(a.endpoints))
		}
		proof, err := os.ReadFile(filepath.Join(dir, operatorKeyFile))
		if err != nil {
			return hinted(&exitError{exitOther, fmt.Errorf("read the proof: %w", err)}, "run it as the user of the node, on its machine, while the node runs")
		}
		file, err := newSecretFile(out)
		if err != nil {
			return err
		}
		defer file.discard()
		a.secret = nil // the one that was lost would be refused
		return a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			ctx, cancel := a.withinConnectTimeout(ctx)
			defer cancel()
			made, secret, err := c.BootstrapAccessToken(ctx, strings.TrimSpace(string(proof)), again)
			if errors.Is(err, client.ErrDenied) && !again {
				return hinted(err, "if the access token root is lost, --again makes another one")
			}
			if err != nil {
				return err
			}
			return a.giveSecret(ctx, c, file, made, secret)
		})(cmd, args)
	}
	return c
}
