package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/document"
	"github.com/locknode/locknode/internal/quote"
)

// The commands about policies, and those that explain them.

func (a *app) policyCommand() *cobra.Command {
	c := a.tlsGroup("policy", "say who may do what",
		`A policy gives rights to identities: read, lock, force and admin, each for a prefix of names
or for exact names. Of all rules for a caller that match a name the most specific one
decides: exact names before prefixes, longer prefixes before shorter ones, deny before
allow. What no rule allows is denied, where auth.mode of the nodes is required.`,
		`  locknode policy apply shop.yaml
  locknode policy ls
  locknode policy show shop
  locknode policy rm shop`)
	c.GroupID = groupCluster
	c.AddCommand(a.policyApplyCommand(), a.policyLsCommand(), a.policyShowCommand(), a.policyRmCommand())
	return c
}

func (a *app) policyApplyCommand() *cobra.Command {
	var prune bool
	c := &cobra.Command{
		Use:   "apply FILE",
		Short: "put the policies of a YAML file in effect",
		Long: `Apply puts policies in effect on all nodes within a second: all of the file in one step, or
nothing. A policy replaces the one with the same name; others stay, unless --prune removes
them. "-" reads standard input. What "policy show" prints can be applied.

A file has one or several documents, or one with a list of them below "policies":

  name: shop
  for: [token:shop]        # or cert:NAME, label:KEY=VALUE, anonymous, "*"
  rules:
    - {allow: [read, lock], prefix: orders/}
    - {deny: [lock], name: orders/frozen}
    - {allow: [lock], prefix: "own/${identity}/"}
  quota: {sessions: 10, ops_per_second: 100}

Fields of a quota: sessions, grants, waiters, bytes, ops_per_second, connections, streams,
unsent_bytes. A rule with admin is for no names. --prune never removes the policy root.`,
		Example: `  locknode policy apply shop.yaml
  locknode policy apply all-policies.yaml --prune`,
		Args: arguments(1, 1, "FILE"),
	}
	a.clientFlags(c)
	c.Flags().BoolVar(&prune, "prune", false, "remove the policies that the file does not have, except root")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		put, err := readPolicies(args[0], a.stdin)
		if err != nil {
			return hinted(usageError("policies:\n%w", err), "nothing was changed; see `locknode policy apply --help`")
		}
		return a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			var remove []string
			index := uint64(0)
			if prune {
				// The index keeps policies that somebody else adds at the same time.
				all, at, err := allPolicies(ctx, c)
				if err != nil {
					return err
				}
				index = at
				for _, p := range all {
					kept := p.Name == rootPolicy || slices.ContainsFunc(put, func(q client.Policy) bool { return q.Name == p.Name })
					if !kept {
						remove = append(remove, p.Name)
					}
				}
			}
			changed, err := c.ChangePolicies(ctx, put, remove, index)
			if err != nil {
				return err
			}
			return a.printPolicyChange(changed)
		})(cmd, args)
	}
	return c
}

// rootPolicy is the policy that `token bootstrap` makes.
const rootPolicy = "root"

// allPolicies lists all policies, and the index of the list.
func allPolicies(ctx context.Context, c *client.Client) (all []client.Policy, index uint64, err error) {
	for after := ""; ; {
		page, next, at, err := c.Policies(ctx, after)
		if err != nil {
			return nil, 0, err
		}
		if index == 0 || at < index {
			index = at // if they change between two pages, a change that depends on it is refused
		}
		if all = append(all, page...); next == "" {
			return all, index, nil
		}
		after = next
	}
}

func (a *app) printPolicyChange(changed client.PolicyChange) error {
	if a.json {
		list := func(names []string) []string { return append([]string{}, names...) }
		return a.printJSON(document.PoliciesChanged{
			Added: list(changed.Added), Changed: list(changed.Changed), Unchanged: list(changed.Unchanged), Removed: list(changed.Removed),
		})
	}
	for _, part := range []struct {
		what  string
		names []string
	}{{"added", changed.Added}, {"changed", changed.Changed}, {"unchanged", changed.Unchanged}, {"removed", changed.Removed}} {
		for _, name := range part.names {
			if err := a.printf("%s: %s\n", quoteName(name), part.what); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *app) policyLsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "ls",
		Short:   "list policies",
		Example: "  locknode policy ls\n  locknode policy ls -o json",
		Args:    arguments(0, 0, ""),
	}
	a.clientFlags(c)
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
		ctx, cancel := a.withinConnectTimeout(ctx)
		defer cancel()
		all, index, err := allPolicies(ctx, c)
		switch {
		case err != nil:
			return err
		case a.json:
			doc := document.Policies{Policies: []document.Policy{}, Index: index}
			for _, p := range all {
				doc.Policies = append(doc.Policies, policyDocument(p))
			}
			return a.printJSON(doc)
		case len(all) == 0:
			return a.printf("there is no policy\n")
		}
		var rows [][]string
		for _, p := range all {
			rows = append(rows, []string{a.nameCell(p.Name), a.nameCell(strings.Join(p.For, ", ")), counted(len(p.Rules), "rule")})
		}
		return a.table([]string{"POLICY", "FOR", "RULES"}, rows)
	})
	return c
}

func (a *app) policyShowCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "show NAME",
		Short:   "print a policy, in the form that apply reads",
		Example: "  locknode policy show shop >shop.yaml",
		Args:    arguments(1, 1, "NAME"),
	}
	a.clientFlags(c)
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		ctx, cancel := a.withinConnectTimeout(ctx)
		defer cancel()
		p, ok, err := c.Policy(ctx, args[0])
		switch {
		case err != nil:
			return err
		case !ok:
			return hinted(&exitError{exitOther, fmt.Errorf("there is no policy %q", args[0])}, "`locknode policy ls` lists them")
		case a.json:
			return a.printJSON(policyDocument(p))
		}
		return a.printf("%s", policiesYAML([]client.Policy{p}))
	})
	return c
}

func policyDocument(p client.Policy) document.Policy {
	d := document.Policy{Name: p.Name, For: append([]string{}, p.For...), Rules: []document.Rule{}}
	for _, r := range p.Rules {
		d.Rules = append(d.Rules, ruleDocument(r))
	}
	if q := p.Quota; q != (client.Quota{}) {
		d.Quota = &document.Quota{
			Sessions: q.Sessions, Grants: q.Grants, Waiters: q.Waiters, Bytes: q.Bytes,
			OpsPerSecond: q.OpsPerSecond, Connections: q.Connections, Streams: q.Streams, UnsentBytes: q.UnsentBytes,
		}
	}
	return d
}

func ruleDocument(r client.Rule) document.Rule {
	rights := []string{}
	for _, one := range r.Rights {
		rights = append(rights, string(one))
	}
	return document.NewRule(r.Deny, rights, r.Name, r.Exact)
}

func (a *app) policyRmCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "rm NAME…",
		Short:   "remove policies",
		Example: "  locknode policy rm shop",
		Args:    arguments(1, -1, "NAME"),
	}
	a.clientFlags(c)
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		changed, err := c.ChangePolicies(ctx, nil, args, 0)
		if err != nil {
			return err
		}
		if err := a.printPolicyChange(changed); err != nil {
			return err
		}
		for _, name := range args {
			if !slices.Contains(changed.Removed, name) {
				return hinted(&exitError{exitOther, fmt.Errorf("there is no policy %q", name)}, "`locknode policy ls` lists them")
			}
		}
		return nil
	})
	return c
}

func (a *app) authCommand() *cobra.Command {
	c := a.tlsGroup("auth", "explain who the caller is, and what an identity may do",
		`"auth whoami" says who the caller is to the nodes. "auth check" says whether an identity may
do something, and which rule of which policy decides.`,
		`  locknode auth whoami
  locknode auth check acquire orders/42
  locknode auth check --as token:shop acquire orders/42`)
	c.GroupID = groupCluster
	c.AddCommand(a.authWhoAmICommand(), a.authCheckCommand())
	return c
}

func (a *app) authWhoAmICommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "whoami",
		Short:   "show who the caller is to the nodes",
		Example: "  locknode auth whoami",
		Args:    arguments(0, 0, ""),
	}
	a.clientFlags(c)
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
		ctx, cancel := a.withinConnectTimeout(ctx)
		defer cancel()
		who, err := c.WhoAmI(ctx)
		if err != nil {
			return err
		}
		if a.json {
			d := document.Identity{Identity: who.Name, Mode: who.Mode, Enforced: who.Enforced, Policies: append([]string{}, who.Policies...)}
			if who.AccessToken.Accessor != "" {
				t := tokenDocument(who.AccessToken)
				d.AccessToken = &t
			}
			return a.printJSON(d)
		}
		how := ""
		if t := who.AccessToken; t.Accessor != "" {
			how = ", by access token " + t.Accessor
			if t.Remaining > 0 {
				how += ", which ends in " + roughly(t.Remaining)
			}
		}
		policies := "none"
		if len(who.Policies) > 0 {
			policies = strings.Join(who.Policies, ", ")
		}
		enforced := "rights are not enforced"
		if who.Enforced {
			enforced = "rights are enforced"
		}
		return a.printf("%s%s\npolicies: %s\nauth.mode: %s, %s\n", quote.Text(who.Name), how, quote.Text(policies), quote.Text(who.Mode), enforced)
	})
	return c
}

// rightOf are the rights that what people want to do needs.
var rightOf = map[string]client.Right{
	"acquire": client.RightLock, "renew": client.RightLock, "run": client.RightLock,
	"get": client.RightRead, "ls": client.RightRead, "watch": client.RightRead,
	"force-release": client.RightForce, "clear": client.RightForce, "resize": client.RightForce,
}

func (a *app) authCheckCommand() *cobra.Command {
	var as string
	c := &cobra.Command{
		Use:   "check ACTION [NAME]",
		Short: "say whether an identity may do something, and which rule decides",
		Long: `Check says whether an identity has a right on a name of a lock, and which rule of which
policy decides. The action is a right (read, lock, force, admin) or a command: acquire,
renew, run, get, ls, force-release, clear, resize. Without --as it is about the caller; about
others only those with the right admin may ask.

The exit code is 0 if it is allowed, and 77 if it is denied. A decision is made from the
policies alone, whatever auth.mode of the nodes is.`,
		Example: `  locknode auth check acquire orders/42
  locknode auth check --as token:shop acquire orders/42
  locknode auth check --as cert:ops admin`,
		Args: arguments(1, 2, "ACTION and NAME"),
	}
	a.clientFlags(c)
	c.Flags().StringVar(&as, "as", "", "identity that is asked about: token:NAME, cert:NAME or anonymous (default: the caller)")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := notEmpty(cmd, "as"); err != nil {
			return err
		}
		right, ok := rightOf[args[0]]
		if !ok {
			if right = client.Right(args[0]); !slices.Contains(rightNames, args[0]) {
				return usageError("action: is %q, must be %s", args[0], either(append(sortedKeys(rightOf), rightNames...)))
			}
		}
		name := ""
		if len(args) == 2 {
			name = args[1]
		}
		if (right == client.RightAdmin) != (name == "") {
			return usageError("auth check: %s, must have %s", map[bool]string{true: "has no NAME", false: "has a NAME"}[name == ""],
				map[bool]string{true: "one, because " + string(right) + " is for names", false: "none, because admin is for no names"}[name == ""])
		}
		return a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			ctx, cancel := a.withinConnectTimeout(ctx)
			defer cancel()
			d, err := c.CheckRights(ctx, as, right, name)
			if err != nil {
				return err
			}
			return a.printDecision(d)
		})(cmd, args)
	}
	return c
}

func (a *app) printDecision(d client.Decision) error {
	var err error
	if a.json {
		doc := document.Decision{Identity: d.Identity, Allowed: d.Allowed, Policy: d.Policy, Rule: d.Number, Why: d.Why}
		if d.Policy != "" {
			rule := ruleDocument(d.Rule)
			doc.DecidedBy = &rule
		}
		err = a.printJSON(doc)
	} else {
		err = a.printf("%s\n", quote.Text(d.Why))
	}
	if err == nil && !d.Allowed {
		return &exitError{code: exitDenied}
	}
	return err
}
