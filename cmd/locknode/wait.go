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
	// waitEvery is the pause between two looks at the cluster.
	waitEvery = 250 * time.Millisecond
	// lookLimit bounds the wait for the answers of one look.
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
		Short:   "wait until the cluster serves",
		GroupID: groupCluster,
		Long: `Wait ends with exit code 0 as soon as one of the endpoints is ready: there is a leader
that a majority confirms, so that locks can be taken. Before that it asks all endpoints
again and again, also while none of them can be reached. When --timeout is over the exit
code is 75, and the message says what was missing.

With --voters N it also waits until N voters answer the leader, until as many of the
voters may fail as in a healthy cluster of N (3: one, 5: two), and until every endpoint
that answers votes, if it is not set up as a nonvoter. Between the replacement of one
node and the next, wait for as many voters as the cluster is to have: a voter that is
gone and not removed yet counts against it.`,
		Example: `  locknode wait --timeout 30s && ./use-the-locks
  locknode wait --voters 3 --timeout 5m          before the next node is stopped`,
		Args: arguments(0, 0, ""),
	}
	a.endpointsFlag(c)
	c.Flags().IntVar(&o.voters, "voters", 0, "wait for this many healthy voters, too")
	addDuration(c.Flags(), &o.timeout, "timeout", "", time.Minute, "give up, with exit code 75, after this long")
	c.PreRunE = func(c *cobra.Command, _ []string) error {
		a.connectTimeout = lookLimit
		switch {
		case o.voters < 0 || o.voters == 0 && c.Flags().Changed("voters"):
			return usageError("--voters %d: a positive whole number is allowed", o.voters)
		case o.timeout <= 0:
			return usageError("--timeout %v: a positive duration is allowed", o.timeout)
		}
		return a.clientEnvironment(c)
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return a.wait(c.Context(), o) }
	return c
}

// wait looks until what is waited for is there.
func (a *app) wait(ctx context.Context, o waitOptions) error {
	limited, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	said := errors.New("") // what the person at the terminal knows
	begun := time.Now()
	for {
		found, missing := waitedFor(a.look(limited), o.voters)
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

// look asks all endpoints at once.
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

// waitedFor returns the status of a node that serves, or what is missing. Of several
// that serve the one of the latest term counts: another may not have noticed yet that
// its leader is none any more.
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

// votersMissing says why the voters are not as they would be in a healthy cluster of n.
func votersMissing(found client.Status, nodes []nodeStatus, n int) error {
	all, healthy := found.Voters, found.VotersHealthy
	switch {
	case all == 0:
		return fmt.Errorf("%s does not know yet how many voters there are", found.NodeID)
	case healthy < n:
		return fmt.Errorf("%d of the cluster's %d voters answer the leader, %d are waited for", healthy, all, n)
	case healthy-majority(all) < n-majority(n):
		return fmt.Errorf("%d of the cluster's %d voters do not answer the leader: fewer of the others may fail than in a cluster of %d; remove what is gone for good", all-healthy, all, n)
	}
	for _, node := range nodes {
		if node.err == nil && !node.status.VoterReady {
			return fmt.Errorf("%s does not count as a voter yet: %s", node.status.NodeID, node.status.VoterReason)
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
