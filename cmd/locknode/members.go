package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/document"
)

// The commands that look at the cluster and change who leads and who belongs to it.

func (a *app) statusCommand() *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use:     "status",
		Short:   "show how each node is doing",
		GroupID: groupCluster,
		Long: `Status asks every member of the cluster how it sees itself, and fails with exit code
69 when none answers. A node that does not answer is listed as unreachable.

With --check the exit code says how the cluster is: 0 when every member answers, is ready
and votes, if it is not set up as a nonvoter; 1 when locks can be taken, but a member does
not; 69 when no node is ready. Without it the exit code is 0 whatever the nodes say.`,
		Example: `  locknode status
  locknode status --check >/dev/null || page-somebody
  locknode status --endpoints 10.0.0.1:7400 -o json`,
		Args: arguments(0, 0, ""),
	}
	a.clientFlags(c)
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
		ctx, cancel := a.withinConnectTimeout(ctx)
		defer cancel()
		nodes, err := a.allStatus(ctx, c)
		if err != nil {
			return err
		}
		if a.json {
			err = a.printJSON(statusesJSON(nodes))
		} else {
			err = a.printStatus(nodes)
		}
		if err == nil && check {
			err = checkHealth(nodes)
		}
		return err
	})
	c.Flags().BoolVar(&check, "check", false, "exit with 1 if a member is not well, with 69 if none is ready")
	return c
}

// withinConnectTimeout bounds a command that looks and does not wait.
func (a *app) withinConnectTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, a.connectTimeout, fmt.Errorf("this was all within --connect-timeout %v", a.connectTimeout))
}

// checkHealth says why not all is well with the cluster.
func checkHealth(nodes []nodeStatus) error {
	var ill, others []string // of a node, and of the others as it sees them
	serves := false
	for _, n := range nodes {
		if n.role == string(client.RoleNone) {
			continue // it is no member, or not yet
		}
		s := n.status
		switch {
		case n.err != nil:
			ill = append(ill, fmt.Sprintf("%s does not answer: %v", n.id, n.reason()))
		case !s.Ready:
			ill = append(ill, fmt.Sprintf("%s is not ready: %s", n.id, s.NotReadyReason))
		default:
			serves = true
			switch {
			case s.Voters == 0 || s.VoterReady: // 0: an earlier version
			case s.Voter || s.Nonvoter:
				others = append(others, s.VoterReason)
			default:
				ill = append(ill, fmt.Sprintf("%s: %s", n.id, s.VoterReason))
			}
		}
	}
	slices.Sort(others)
	switch text := strings.Join(append(ill, slices.Compact(others)...), "; "); {
	case !serves:
		return &exitError{exitUnavailable, hinted(fmt.Errorf("status: no node is ready: %w", apiv1.NewError(apiv1.CodeUnavailable, "%s", text)),
			"start most of the voters, or let them reach each other; the nodes' logs say more")}
	case text != "":
		return &exitError{exitOther, hinted(fmt.Errorf("status: locks can be taken, but not all is well: %s", text),
			"`locknode members` shows who is a member; remove one that is gone for good")}
	}
	return nil
}

// reason is why a node has said nothing, without what stands around it.
func (n nodeStatus) reason() error {
	var unavailable *client.UnavailableError
	if errors.As(n.err, &unavailable) && unavailable.Last != nil {
		text := strings.TrimPrefix(unavailable.Last.Error(), n.address+": ")
		return errors.New(text)
	}
	return n.err
}

// nodeStatus is what one node said, or why it said nothing.
type nodeStatus struct {
	id      string // as members has it
	address string // empty: gossip does not know it
	role    string // as members has it; empty: not asked for
	status  client.Status
	err     error
}

// allStatus asks all members that any endpoint knows of. A node that belongs to
// no cluster yet knows of none, and speaks for itself.
func (a *app) allStatus(ctx context.Context, c *client.Client) ([]nodeStatus, error) {
	first, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	var nodes []nodeStatus
	if members, err := c.Members(ctx); err == nil {
		for _, m := range members {
			if m.APIAddress != "" || m.Role != client.RoleNone {
				nodes = append(nodes, nodeStatus{id: m.ID, address: m.APIAddress, role: string(m.Role)})
			}
		}
	}
	if len(nodes) == 0 {
		return []nodeStatus{{id: first.NodeID, status: first}}, nil
	}
	a.askAll(ctx, nodes)
	return nodes, nil
}

func (a *app) statusOf(ctx context.Context, address string) (client.Status, error) {
	c, err := client.Dial(ctx, []string{address}, client.ConnectTimeout(a.connectTimeout))
	if err != nil {
		return client.Status{}, err
	}
	defer closeQuietly(c)
	return c.Status(ctx)
}

func (a *app) membersCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "members",
		Short:   "list the members of the cluster",
		GroupID: groupCluster,
		Long: `Members lists who belongs to the cluster, with roles and addresses, and whom gossip
sees besides. "members remove" takes one out for good.`,
		Example: `  locknode members
  locknode members remove n3`,
		Args: arguments(0, 0, ""),
	}
	a.clientFlags(c)
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
		ctx, cancel := a.withinConnectTimeout(ctx)
		defer cancel()
		members, err := c.Members(ctx)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(membersDocument(members))
		}
		return a.printMembers(members)
	})
	c.AddCommand(a.membersRemoveCommand())
	return c
}

func (a *app) membersRemoveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "remove ID",
		Short: "take a member out of the cluster for good",
		Long: `Remove takes a member out of the cluster's configuration. Stop the node first: one
that runs would ask to join again. A node that was removed, or lost its data, comes
back under its old ID only after this.`,
		Example: `  locknode members remove n3`,
		Args:    arguments(1, 1, "ID"),
	}
	a.clientFlags(c)
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		if err := c.RemoveMember(ctx, args[0]); err != nil {
			return lookedAt(err)
		}
		if a.json {
			return a.printJSON(document.Removed{Removed: args[0]})
		}
		return a.printf("%s: removed\n", quoteName(args[0]))
	})
	return c
}

// lookedAt says how to find out what has become of a change that may have been done.
func lookedAt(err error) error {
	if apiv1.CodeOf(err) != apiv1.CodeUnknownOutcome {
		return err
	}
	return hinted(err, "it may have been done: `locknode members` shows who is a member, and who leads")
}

func (a *app) transferLeadershipCommand() *cobra.Command {
	var to string
	c := &cobra.Command{
		Use:     "transfer-leadership [ID]",
		Short:   "let another node lead",
		GroupID: groupCluster,
		Long: `Transfer-leadership hands leadership over without a gap that clients would notice: to
the member with this ID, or to the most up-to-date one.`,
		Example: `  locknode transfer-leadership
  locknode transfer-leadership n2`,
		Args: arguments(0, 1, "at most one ID"),
	}
	a.clientFlags(c)
	c.Flags().StringVar(&to, "to", "", "ID of the member, instead of as an argument")
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		switch {
		case len(args) == 1 && to != "":
			return usageError("the member is given twice, as %q and with --to %q", args[0], to)
		case len(args) == 1:
			to = args[0]
		}
		leader, err := c.TransferLeadership(ctx, to)
		if err != nil {
			return lookedAt(err)
		}
		if a.json {
			return a.printJSON(document.Leader{LeaderID: leader})
		}
		return a.printf("%s leads\n", quoteName(leader))
	})
	return c
}
