package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/locknode/locknode/client"
)

const (
	// waitEvery is the pause between two rounds of asking the endpoints.
	waitEvery = 250 * time.Millisecond
	// lookLimit bounds the wait for the answers of one round.
	lookLimit = 2 * time.Second
)

type waitOptions struct {
	voters  int
	timeout time.Duration
}

func (a *app) waitCommand() *cobra.Command {
	var o waitOptions
	c := &cobra.Command{
		Use:     "wait",
		Short:   "wait until the cluster is ready",
		GroupID: groupCluster,
		Long: `Wait returns with exit code 0 as soon as one of the endpoints is ready: there is a leader
that a majority confirms, so that locks can be acquired. Until then it keeps asking all
endpoints, even if none of them can be reached. When --timeout has passed the exit code
is 75, and the message says what was missing.

With --voters N it also waits until N voters answer the leader, until as many voters may
fail as in a healthy cluster of N (of 3: one, of 5: two), and until every endpoint that
answers votes, unless it is configured as a nonvoter. When you replace nodes one by one,
wait in between for the number of voters that the cluster is to have: a voter that is
gone but not removed yet still counts for the majority.

If all endpoints refuse who asks, because of the access token, the exit code is 77.`,
		Example: `  locknode wait --timeout 30s && ./use-the-locks
  locknode wait --voters 3 --timeout 5m          before the next node is stopped`,
		Args: arguments(0, 0, ""),
	}
	a.endpointsFlag(c)
	c.Flags().IntVar(&o.voters, "voters", 0, "wait for this many healthy voters as well")
	addDuration(c.Flags(), &o.timeout, "timeout", "", time.Minute, "give up, with exit code 75, after this long")
	c.PreRunE = func(c *cobra.Command, _ []string) error {
		a.connectTimeout = lookLimit
		switch {
		case o.voters < 0 || o.voters == 0 && c.Flags().Changed("voters"):
			return usageError("--voters: is %d, must be a positive whole number", o.voters)
		case o.timeout <= 0:
			return usageError("--timeout: is %v, must be more than 0", o.timeout)
		}
		return a.clientEnvironment(c)
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return a.wait(c.Context(), o) }
	return c
}

// wait asks the endpoints until the cluster is as o requires, or the timeout has passed.
func (a *app) wait(ctx context.Context, o waitOptions) error {
	limited, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	said := errors.New("") // the last message on the terminal
	begun := time.Now()
	for {
		nodes := a.look(limited)
		if err := allRefuse(nodes); err != nil {
			return fmt.Errorf("wait: %w", err)
		}
		found, missing := waitedFor(nodes, o.voters)
		if missing == nil {
			return a.printWaited(found)
		}
		if onTerminal(a.stderr) && time.Since(begun) > patience && said.Error() != missing.Error() {
			said = missing
			a.say("waiting: %v", missing)
		}
		if sleep(limited, waitEvery) == nil {
			continue
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait: %w: %w", missing, context.Cause(ctx))
		}
		return &exitError{exitNotAcquired, hinted(fmt.Errorf("wait: not within %v: %w", o.timeout, missing), "`locknode status` and `locknode members` show more")}
	}
}

// allRefuse returns why all nodes refuse who asks; nil if one does not.
func allRefuse(nodes []nodeStatus) (err error) {
	for _, n := range nodes {
		if !errors.Is(n.err, client.ErrUnauthenticated) && !errors.Is(n.err, client.ErrDenied) {
			return nil
		}
		err = n.err
	}
	return err
}

// look asks all endpoints at the same time.
func (a *app) look(ctx context.Context) []nodeStatus {
	ctx, cancel := context.WithTimeout(ctx, a.connectTimeout)
	defer cancel()
	nodes := make([]nodeStatus, 0, len(a.endpoints))
	for _, address := range a.addresses() {
		nodes = append(nodes, nodeStatus{address: address})
	}
	a.askAll(ctx, nodes)
	return nodes
}

// askAll asks each node for its status, at the same time.
func (a *app) askAll(ctx context.Context, nodes []nodeStatus) {
	var wg sync.WaitGroup
	for i := range nodes {
		if nodes[i].address == "" {
			nodes[i].err = errors.New("its API address is not known")
			continue
		}
		wg.Go(func() { nodes[i].status, nodes[i].err = a.statusOf(ctx, nodes[i].address) })
	}
	wg.Wait()
}

// waitedFor returns the status of a ready node, or what is missing. Of several ready nodes
// it returns that with the latest term: one with an earlier term may not have noticed yet
// that its leader was replaced.
func waitedFor(nodes []nodeStatus, voters int) (found client.Status, missing error) {
	var reasons []string
	for _, n := range nodes {
		switch {
		case n.err != nil:
			reasons = append(reasons, n.address+": "+n.reason().Error())
		case !n.status.Ready:
			reasons = append(reasons, n.status.NodeID+": "+n.status.NotReadyReason)
		case found.NodeID == "" || found.Term < n.status.Term:
			found = n.status
		}
	}
	if found.NodeID == "" {
		return found, fmt.Errorf("no node is ready: %s", strings.Join(reasons, "; "))
	}
	if voters == 0 {
		return found, nil
	}
	return found, votersMissing(found, nodes, voters)
}

// votersMissing returns an error that says why the voters are not those of a healthy
// cluster of n.
func votersMissing(found client.Status, nodes []nodeStatus, n int) error {
	all, healthy := found.Voters, found.VotersHealthy
	switch {
	case all == 0:
		return fmt.Errorf("%s does not know yet how many voters there are", found.NodeID)
	case healthy < n:
		return fmt.Errorf("%d of the cluster's %d voters answer the leader, %d must", healthy, all, n)
	case healthy-majority(all) < n-majority(n):
		return fmt.Errorf("%d of the cluster's %d voters do not answer the leader: fewer of the others may fail than in a cluster of %d; remove members that are gone for good", all-healthy, all, n)
	}
	for _, node := range nodes {
		if node.err == nil && !node.status.VoterReady {
			return fmt.Errorf("%s is not a voter yet: %s", node.status.NodeID, node.status.VoterReason)
		}
	}
	return nil
}

func majority(n int) int { return n/2 + 1 }

// waitedJSON is the result of wait.
type waitedJSON struct {
	Leader        string `json:"leader"`
	Term          uint64 `json:"term"`
	Voters        int    `json:"voters"`
	VotersHealthy int    `json:"voters_healthy"`
}

func (a *app) printWaited(s client.Status) error {
	if a.json {
		return a.printJSON(waitedJSON{s.LeaderID, s.Term, s.Voters, s.VotersHealthy})
	}
	if s.Voters == 0 {
		return a.printf("%s leads\n", quoteName(s.LeaderID))
	}
	return a.printf("%s leads, %d of %d voters answer it\n", quoteName(s.LeaderID), s.VotersHealthy, s.Voters)
}
