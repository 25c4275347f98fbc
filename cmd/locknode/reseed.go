package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/node"
)

// reseedJSON is printed by reseed -o json.
type reseedJSON struct {
	NodeID    string `json:"node_id"`
	ClusterID string `json:"cluster_id"`
	Removed   bool   `json:"removed"`
	MovedTo   string `json:"moved_to,omitempty"`
}

func (a *app) reseedCommand() *cobra.Command {
	var o node.Reseeding
	c := &cobra.Command{
		Use:     "reseed --data-dir DIR",
		Short:   "let a node with damaged data get them again from the others",
		GroupID: groupNode,
		Long: `Reseed is for a node that refuses to run on its data directory because a file is damaged
or missing, or because its state has diverged. It asks the others to remove the member,
moves its data to a folder in the directory, and keeps what the node needs to join again.
Then start the node with the same command line as before: it joins under its old ID and
gets everything from the others.

Reseed changes nothing while a node runs on the directory, or if the others cannot be
reached or need the member for a majority. Without --endpoints it looks for the others at
the addresses where the node last saw them.`,
		Example: `  locknode reseed --data-dir /var/lib/locknode
  locknode reseed --data-dir data3 --endpoints 10.0.0.1:7400,10.0.0.2:7400
  locknode reseed --data-dir data3 --node-id n3 --delete`,
		Args: arguments(0, 0, ""),
	}
	a.clientFlags(c)
	c.Flags().StringVar(&o.DataDir, "data-dir", "", "the node's data directory (LOCKNODE_DATA_DIR)")
	c.Flags().StringVar(&o.ID, "node-id", "", "the node's ID, if it cannot be read from the directory any more")
	c.Flags().BoolVar(&o.Delete, "delete", false, "delete the data instead of moving them aside")
	run := a.withClient(func(ctx context.Context, c *client.Client, _ []string) error { return a.reseed(ctx, c, o) })
	c.RunE = func(c *cobra.Command, args []string) error {
		if o.DataDir == "" {
			o.DataDir, _ = a.lookup("LOCKNODE_DATA_DIR")
		}
		if o.DataDir == "" {
			return hinted(usageError("--data-dir: is missing"), "see `%s --help`", c.CommandPath())
		}
		if len(a.endpoints) == 0 {
			a.endpoints = node.LikelyEndpoints(o.DataDir) // empty: the default
		}
		return run(c, args)
	}
	return c
}

func (a *app) reseed(ctx context.Context, c *client.Client, o node.Reseeding) error {
	done, err := node.Reseed(ctx, c, o)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(reseedJSON{done.ID, done.ClusterID, done.Removed, done.MovedTo})
	}
	was := "was not a member any more"
	if done.Removed {
		was = "removed from the cluster"
	}
	data := "its data were deleted"
	if done.MovedTo != "" {
		data = "its data are in " + done.MovedTo
	}
	return a.printf("%s: %s; %s\nstart the node as before: it joins again and gets everything from the others\n", done.ID, was, data)
}
