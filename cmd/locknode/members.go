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

// The commands that show the cluster, and change its leader and its members.

func (a *app) statusCommand() *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use:     "status",
		Short:   "show the state of each node",
		GroupID: groupCluster,
		Long: `Status asks every member of the cluster for its state. A node that does not answer is
listed as unreachable; if none answers, the exit code is 69.

With --check the exit code says whether the cluster is healthy. 0: every member answers,
is ready, and votes unless it is configured as a nonvoter. 1: locks can be acquired, but
that is not true of every member. 69: no node is ready. Without --check the exit code is
0 whatever the nodes answer.`,
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
	c.Flags().BoolVar(&check, "check", false, "exit with 1 if a member is not healthy, with 69 if none is ready")
	return c
}

// withinConnectTimeout bounds a command that only asks nodes and does not wait in a queue.
func (a *app) withinConnectTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, a.connectTimeout, fmt.Errorf("this was all within --connect-timeout %v", a.connectTimeout))
}

// checkHealth returns an error that says why the cluster is not healthy.
func checkHealth(nodes []nodeStatus) error {
	var ill, others []string // what is wrong with nodes; what nodes report about others
	serves := false
	for _, n := range nodes {
		if n.role == string(client.RoleNone) {
			continue // not a member
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
			case s.Voters == 0 || s.VoterReady: // 0: an earlier version, which does not say
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
			"start a majority of the voters, and check that they reach each other; the nodes' logs say more")}
	case text != "":
		return &exitError{exitOther, hinted(fmt.Errorf("status: locks can be acquired, but the cluster is not healthy: %s", text),
			"`locknode members` lists the members; remove one that is gone for good")}
	}
	return nil
}

// reason returns why a node did not answer, without the wrapping of the client's error.
func (n nodeStatus) reason() error {
	var unavailable *client.UnavailableError
	if errors.As(n.err, &unavailable) && unavailable.Last != nil {
		text := strings.TrimPrefix(unavailable.Last.Error(), n.address+": ")
		return errors.New(text)
	}
	return n.err
}

// nodeStatus is the status of one node, or why it did not answer.
type nodeStatus struct {
	id      string // as in the list of members
	address string // empty: gossip does not know it
	role    string // as in the list of members; empty: not asked for
	status  client.Status
	err     error // why there is no status; nil: there is one
}

// allStatus asks all members that one of the endpoints knows. A node that is in no cluster
// yet knows no members: the result is then its own status alone.
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
	c, err := client.Dial(ctx, []string{address}, append(a.security(), client.ConnectTimeout(a.connectTimeout))...)
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
		Long: `Members lists the members of the cluster, with roles and addresses, and the peers that
gossip sees besides them. "members remove" removes a member for good.`,
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
		Short: "remove a member from the cluster for good",
		Long: `Remove removes a member from the cluster's configuration. Stop the node first: one that
runs would ask to join again. A node that has lost its data can come back under its old
ID only after this.`,
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

// lookedAt adds a hint to the error of a change whose outcome is unknown: how to find out.
func lookedAt(err error) error {
	if apiv1.CodeOf(err) != apiv1.CodeUnknownOutcome {
		return err
	}
	return hinted(err, "it may have taken effect: `locknode members` shows who is a member, and who leads")
}

func (a *app) transferLeadershipCommand() *cobra.Command {
	var to string
	c := &cobra.Command{
		Use:     "transfer-leadership [ID]",
		Short:   "make another node the leader",
		GroupID: groupCluster,
		Long: `Transfer-leadership transfers leadership to the member with this ID, or without an ID
to the most up-to-date one. Clients notice no gap.`,
		Example: `  locknode transfer-leadership
  locknode transfer-leadership n2`,
		Args: arguments(0, 1, "at most one ID"),
	}
	a.clientFlags(c)
	c.Flags().StringVar(&to, "to", "", "ID of the member, instead of the argument ID")
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		switch {
		case len(args) == 1 && to != "":
			return usageError("ID and --to: are %q and %q, must not be given together", args[0], to)
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
