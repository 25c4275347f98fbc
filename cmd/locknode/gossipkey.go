package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/gossipkeys"
)

// The commands that rotate the keys of gossip. A key is printed by generate alone; everywhere else its
// fingerprint stands for it.

func (a *app) gossipKeyCommand() *cobra.Command {
	c := a.tlsGroup("gossip-key", "rotate the keys that encrypt gossip",
		`Nodes tell each other by gossip who is there. It is no TLS, and is encrypted with a key that all
nodes have. Where tls.mode is required they agree on one by themselves; otherwise it is the
gossip_key of the settings. Each node keeps its keys in its data directory.

To rotate without losing a node: install a new key on all nodes, use it, remove the old one. Each
step is refused while it would keep a node from understanding the others. Keys are named by
their fingerprints.`,
		`  locknode gossip-key install
  locknode gossip-key ls
  locknode gossip-key use 3f2a9c0d11e5b7a4
  locknode gossip-key remove 88d03b6a40f1c2ee`)
	c.GroupID = groupNode
	c.AddCommand(a.gossipKeyGenerateCommand(), a.gossipKeyLsCommand(), a.gossipKeyInstallCommand(),
		a.gossipKeyChangeCommand("use", "encrypt gossip with a key that all nodes have",
			`Use has all members encrypt gossip with a key that was installed. It is refused, and names the
member, while one lacks the key.`, (*client.Client).UseGossipKey),
		a.gossipKeyChangeCommand("remove", "remove a key from all nodes",
			`Remove has all members forget a key. It is refused, and names the members, while one encrypts
with it.`, (*client.Client).RemoveGossipKey))
	return c
}

func (a *app) gossipKeyGenerateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "generate",
		Short: "print a new random key",
		Long: `Generate prints a random key of 32 bytes in base64, as gossip_key_file has it. It asks no node. Where
tls.mode is required no key has to be generated: the nodes make one.`,
		Example: `  (umask 077; locknode gossip-key generate >gossip.key)`,
		Args:    arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			return a.printf("%s\n", base64.StdEncoding.EncodeToString(gossipkeys.NewKey()))
		},
	}
}

// gossipKeyJSON is a key in the list.
type gossipKeyJSON struct {
	Fingerprint string   `json:"fingerprint"`
	Members     []string `json:"members"`
	Primary     []string `json:"primary"`
}

type memberFaultJSON struct {
	ID    string `json:"id"`
	Fault string `json:"fault"`
}

func faultDocuments(faults []client.MemberFault) []memberFaultJSON {
	documents := []memberFaultJSON{}
	for _, f := range faults {
		documents = append(documents, memberFaultJSON(f))
	}
	return documents
}

func (a *app) gossipKeyLsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ls",
		Short: "list the keys, and on how many nodes each is",
		Long: `Ls lists the keys that encrypt gossip by their fingerprints: on how many of the members each is,
and how many encrypt with it. The others only decrypt with it.`,
		Example: `  locknode gossip-key ls`,
		Args:    arguments(0, 0, ""),
	}
	a.clientFlags(c)
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
		keys, members, silent, err := c.GossipKeys(ctx)
		if err != nil {
			return err
		}
		if a.json {
			documents := []gossipKeyJSON{}
			for _, k := range keys {
				documents = append(documents, gossipKeyJSON{k.Fingerprint, append([]string{}, k.Members...), append([]string{}, k.Primary...)})
			}
			return a.printJSON(struct {
				Keys    []gossipKeyJSON   `json:"keys"`
				Members int               `json:"members"`
				Silent  []memberFaultJSON `json:"silent"`
			}{documents, members, faultDocuments(silent)})
		}
		var rows [][]string
		for _, k := range keys {
			use := strconv.Itoa(len(k.Primary))
			if len(k.Primary) == 0 {
				use = "no"
			}
			rows = append(rows, []string{k.Fingerprint, fmt.Sprintf("%d of %d", len(k.Members), members), use})
		}
		if err := a.table([]string{"KEY", "NODES", "ENCRYPTS ON"}, rows); err != nil {
			return err
		}
		for _, f := range silent {
			a.say("%s does not answer: %s", quoteName(f.ID), f.Fault)
		}
		return nil
	})
	return c
}

func (a *app) gossipKeyInstallCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "install [FILE]",
		Short: "have all nodes know one more key",
		Long: `Install has all members know a key: they decrypt with it, and do not encrypt with it yet. Without
FILE the nodes make a new one, which nobody else gets to know. With FILE it is the key in that file,
as "locknode gossip-key generate" prints it; - is standard input.

Keys travel between nodes in TLS alone, so that tls.mode must be required. Otherwise put the key into
the gossip_key_file of each node, and run "locknode reload --all-nodes".

To install a key again does no harm, and gives it to the members that lack it.`,
		Example: `  locknode gossip-key install
  locknode gossip-key install gossip.key`,
		Args: arguments(0, 1, "at most one FILE"),
	}
	a.clientFlags(c)
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		var key []byte
		if len(args) == 1 {
			var err error
			if key, err = a.readGossipKey(args[0]); err != nil {
				return err
			}
		}
		done, err := c.InstallGossipKey(ctx, key)
		return a.printKeyChange("installed", done, err)
	})
	return c
}

// readGossipKey reads the key in a file; "-" is standard input. Errors do not tell the key.
func (a *app) readGossipKey(path string) ([]byte, error) {
	in := a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, usageError("FILE: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxKeyFile))
	if err != nil {
		return nil, usageError("FILE: %w", err)
	}
	key, err := gossipKey(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, usageError("FILE: %s: its content %w", path, err)
	}
	return key, nil
}

func (a *app) gossipKeyChangeCommand(verb, short, long string, do func(*client.Client, context.Context, string, bool) (client.GossipKeysChanged, error)) *cobra.Command {
	var without bool
	c := &cobra.Command{
		Use: verb + " FINGERPRINT", Short: short,
		Long: long + ` So it is while a member does not answer,
unless --without-silent is given: where tls.mode is required, such a member gets the keys from the
others when it is back.`,
		Example: "  locknode gossip-key " + verb + " 3f2a9c0d11e5b7a4",
		Args:    arguments(1, 1, "FINGERPRINT"),
	}
	a.clientFlags(c)
	c.Flags().BoolVar(&without, "without-silent", false, "go on although members do not answer")
	c.RunE = a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
		done, err := do(c, ctx, args[0], without)
		return a.printKeyChange(map[string]string{"use": "in use", "remove": "removed"}[verb], done, err)
	})
	return c
}

// printKeyChange prints what has been done, and returns an error if not all members have done it.
func (a *app) printKeyChange(did string, done client.GossipKeysChanged, err error) error {
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(struct {
			Fingerprint string            `json:"fingerprint"`
			Members     []string          `json:"members"`
			Faults      []memberFaultJSON `json:"faults"`
		}{done.Fingerprint, append([]string{}, done.Members...), faultDocuments(done.Faults)})
	} else {
		err = a.printf("%s: %s on %s\n", done.Fingerprint, did, counted(len(done.Members), "node"))
	}
	faults := slices.Clone(done.Faults)
	for _, f := range faults {
		err = errors.Join(err, fmt.Errorf("gossip key %s: not %s on %s: %s", done.Fingerprint, did, quoteName(f.ID), f.Fault))
	}
	return err
}
