package main

import (
	"context"
	"sync"

	"github.com/spf13/cobra"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
)

// The commands that look at the cluster and change who leads and who belongs to it.

func (a *app) statusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "status",
		Short:   "show how each node is doing",
		GroupID: groupCluster,
		Long: `Status asks every member of the cluster how it sees itself, and fails with exit code
69 when none answers. A node that does not answer is listed as unreachable.`,
		Example: `  locknode status
  locknode status --endpoints 10.0.0.1:7400 -o json`,
		Args: arguments(0, 0, ""),
	}
	a.clientFlags(c)
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
		ctx, cancel := context.WithTimeout(ctx, a.connectTimeout)
		defer cancel()
		nodes, err := a.allStatus(ctx, c)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(statusesJSON(nodes))
		}
		return a.printStatus(nodes)
	})
	return c
}

// nodeStatus is what one node said, or why it said nothing.
type nodeStatus struct {
	id      string // as members has it
	address string
	status  *apiv1.StatusResponse
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
		for _, m := range members.GetMembers() {
			if m.GetApiAddress() != "" {
				nodes = append(nodes, nodeStatus{id: m.GetId(), address: m.GetApiAddress()})
			}
		}
	}
	if len(nodes) == 0 {
		return []nodeStatus{{id: first.GetNodeId(), status: first}}, nil
	}
	var wg sync.WaitGroup
	for i := range nodes {
		wg.Go(func() { nodes[i].status, nodes[i].err = a.statusOf(ctx, nodes[i].address) })
	}
	wg.Wait()
	return nodes, nil
}

func (a *app) statusOf(ctx context.Context, address string) (*apiv1.StatusResponse, error) {
	c, err := client.Dial(ctx, []string{address}, client.ConnectTimeout(a.connectTimeout))
	if err != nil {
		return nil, err
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
		ctx, cancel := context.WithTimeout(ctx, a.connectTimeout)
		defer cancel()
		res, err := c.Members(ctx)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(membersJSON(res.GetMembers()))
		}
		return a.printMembers(res.GetMembers())
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
			return err
		}
		if a.json {
			return a.printJSON(map[string]string{"removed": args[0]})
		}
		return a.printf("%s: removed\n", quoteName(args[0]))
	})
	return c
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
			return err
		}
		if a.json {
			return a.printJSON(map[string]string{"leader": leader})
		}
		return a.printf("%s leads\n", quoteName(leader))
	})
	return c
}
