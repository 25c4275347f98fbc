package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/disk"
)

// Reseeding says what is to be done with a data directory that a node must not
// run on any more.
type Reseeding struct {
	// DataDir is the directory. Required.
	DataDir string
	// ID is the node's, where the directory cannot tell it any more.
	ID string
	// Delete deletes the data instead of moving them to a folder in DataDir.
	Delete bool
}

// Reseeded is what Reseed has done.
type Reseeded struct {
	ID, ClusterID string // of the node, and of the cluster that it joins when it starts again
	Removed       bool   // it was a member until now
	MovedTo       string // where its data are now; empty when they were deleted
}

const (
	// awaitDeath is how long Reseed waits until the others see that the node does
	// not run.
	awaitDeath      = 15 * time.Second
	awaitDeathEvery = 200 * time.Millisecond
)

// Reseed makes a node whose data are damaged, or whose state has diverged, come
// back from the others: it removes the member from the cluster's configuration,
// through c, and then moves its data aside. The node, started again as before,
// joins the cluster under its ID and gets everything from the others.
//
// The ID can be used again because its removal was agreed on by a majority of the
// others, and because a node that joins votes only when it has got that far in
// the log (internal/network/votes.go): no vote that it has forgotten counts. And the
// directory keeps the cluster's ID, so the node can join that cluster and neither
// form nor join another one.
//
// Reseed returns an error, and has changed nothing in the directory, while a node
// runs on it or a node of this ID runs elsewhere, when the cluster is not the one
// that the directory belongs to, and when it cannot be reached or cannot do without
// the member. It may be called again after any failure.
func Reseed(ctx context.Context, c *client.Client, o Reseeding) (done Reseeded, err error) {
	if done, err = reseed(ctx, c, o); err != nil {
		return done, fmt.Errorf("re-seed %s: %w", o.DataDir, err)
	}
	return done, nil
}

func reseed(ctx context.Context, c *client.Client, o Reseeding) (done Reseeded, err error) {
	if o.DataDir == "" {
		return done, errors.New("no data directory is named")
	}
	r, err := disk.BeginReseed(o.DataDir)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if done.ID, err = reseedID(r, o.ID); err != nil {
		return done, err
	}
	if done.ClusterID, err = reseedCluster(ctx, c, r, o.DataDir, done.ID); err != nil {
		return done, err
	}
	if err := awaitAbsence(ctx, c, done.ID); err != nil {
		return done, err
	}
	switch err := c.RemoveMember(ctx, done.ID); {
	case err == nil:
		done.Removed = true
	case apiv1.CodeOf(err) != apiv1.CodeNoMember:
		return done, err
	}
	done.MovedTo, err = r.Finish(done.ID, done.ClusterID, o.Delete)
	return done, err
}

// reseedID is the ID of the node that the data are of.
func reseedID(r *disk.Reseed, wanted string) (string, error) {
	known := r.Identity.NodeID
	switch {
	case known == "" && wanted == "":
		return "", fmt.Errorf("whose data these are cannot be read (%w): name the node's ID", r.Problem)
	case known != "" && wanted != "" && known != wanted:
		return "", fmt.Errorf("these are the data of node %q, not of %q", known, wanted)
	case known == "":
		return wanted, nil
	}
	return known, nil
}

// reseedCluster is the ID of the cluster that answers, which must be the one that
// the data are of. What the directory remembers of the others may lead to another
// cluster by now, in which a member may have the same ID.
func reseedCluster(ctx context.Context, c *client.Client, r *disk.Reseed, dir, id string) (string, error) {
	s, err := c.Status(ctx)
	if err != nil {
		return "", err
	}
	known := cmp.Or(r.Identity.ClusterID, readSeeds(dir).Cluster)
	switch {
	case s.ClusterID == "":
		return "", fmt.Errorf("node %q, which answers, belongs to no cluster", s.NodeID)
	case known != "" && known != s.ClusterID:
		return "", fmt.Errorf("the data are of cluster %s, and node %q, which answers, is of cluster %s", known, s.NodeID, s.ClusterID)
	case s.NodeID == id:
		return "", fmt.Errorf("node %q runs, on other data than these, and answers", id)
	}
	return s.ClusterID, nil
}

// awaitAbsence waits until the others do not see a node of this ID any more.
func awaitAbsence(ctx context.Context, c *client.Client, id string) error {
	ctx, cancel := context.WithTimeout(ctx, awaitDeath)
	defer cancel()
	for {
		members, err := c.Members(ctx)
		if err != nil {
			return err
		}
		at := ""
		for _, m := range members {
			if m.ID == id && m.Health == client.HealthAlive {
				at = m.APIAddress
			}
		}
		if at == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the others see node %q alive at %s: stop it first, or is its ID another one?: %w", id, at, context.Cause(ctx))
		case <-time.After(awaitDeathEvery):
		}
	}
}

// LikelyEndpoints guesses from a data directory where the APIs of the other nodes
// are: where gossip last reached them, three ports before, as with one listen
// address for all four. It is empty if the directory does not tell. It changes nothing, and
// a node may run on the directory. How it guesses is not stable.
func LikelyEndpoints(dir string) (endpoints []string) {
	remembered := rememberedSeeds(dir)
	for _, id := range slices.Sorted(maps.Keys(remembered)) {
		seed := remembered[id]
		host, port, err := net.SplitHostPort(seed)
		if err != nil {
			continue
		}
		if n, err := strconv.Atoi(port); err == nil && n > 3 {
			endpoints = append(endpoints, net.JoinHostPort(host, strconv.Itoa(n-3)))
		}
	}
	return endpoints
}
