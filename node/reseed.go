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

// Reseeding says what [Reseed] is to do with a data directory that a node must not run on
// any more.
type Reseeding struct {
	// DataDir is the directory. Required.
	DataDir string
	// ID is the node's ID. It is required if the directory does not contain it any more,
	// and may be empty otherwise.
	ID string
	// Delete deletes the data instead of moving them to a folder in DataDir.
	Delete bool
}

// Reseeded is what [Reseed] has done.
type Reseeded struct {
	ID, ClusterID string // of the node, and of the cluster that it joins when it starts again
	Removed       bool   // it was a member until now
	MovedTo       string // where its data are now; empty when they were deleted
}

const (
	// absenceWait is how long Reseed waits until the others see that the node does not
	// run.
	absenceWait = 15 * time.Second
	absencePoll = 200 * time.Millisecond
)

// Reseed lets a node whose data are damaged, or whose state has diverged, get everything
// from the others: it removes the member from the cluster's configuration, through c, and
// then moves its data aside or deletes them. The node, started again as before, joins the
// cluster under its ID.
//
// Reseed waits at most 15 s until the other members see that the node does not run, and for
// the operations of c. It ends when ctx does.
//
// It returns an error, and has changed nothing in the directory, if the directory does not
// contain the ID and o.ID is empty, if o.ID is another node's than the directory's, while a
// node runs on the directory or a node of this ID runs elsewhere, if the cluster is not the
// one that the directory belongs to, and if the cluster cannot be reached or cannot do
// without the member. The member may have been removed if the outcome of that is unknown.
// After an error of the last step, moving or deleting the data, the member is removed and
// the directory is refused until Reseed succeeds. Reseed may be called again after any error.
//
// The ID can be used again because a majority of the others has agreed to its removal, and
// because a node that joins votes only once its log contains its joining
// (internal/network/votes.go): no vote that it has forgotten counts. The directory keeps the
// cluster's ID, so the node can join that cluster and neither form nor join another one.
func Reseed(ctx context.Context, c *client.Client, o Reseeding) (done Reseeded, err error) {
	if done, err = reseed(ctx, c, o); err != nil {
		return done, fmt.Errorf("re-seed %s: %w", o.DataDir, err)
	}
	return done, nil
}

func reseed(ctx context.Context, c *client.Client, o Reseeding) (done Reseeded, err error) {
	if o.DataDir == "" {
		return done, errors.New("data dir: is empty, must be the directory of the node")
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

// reseedID returns the ID of the node that the data belong to.
func reseedID(r *disk.Reseed, wanted string) (string, error) {
	known := r.Identity.NodeID
	switch {
	case known == "" && wanted == "":
		return "", fmt.Errorf("node ID: is empty, must be given because the directory does not contain it any more (%w)", r.Problem)
	case known != "" && wanted != "" && known != wanted:
		return "", fmt.Errorf("node ID: is %q, must be %q, whose data these are", wanted, known)
	case known == "":
		return wanted, nil
	}
	return known, nil
}

// reseedCluster returns the ID of the cluster that answers, which must be the one that the
// data belong to. The addresses that the directory remembers may lead to another cluster by
// now, in which a member may have the same ID.
func reseedCluster(ctx context.Context, c *client.Client, r *disk.Reseed, dir, id string) (string, error) {
	s, err := c.Status(ctx)
	if err != nil {
		return "", err
	}
	known := cmp.Or(r.Identity.ClusterID, readSeeds(dir).Cluster)
	switch {
	case s.ClusterID == "":
		return "", fmt.Errorf("node %q answers and belongs to no cluster", s.NodeID)
	case known != "" && known != s.ClusterID:
		return "", fmt.Errorf("the data belong to cluster %s, and node %q, which answers, to cluster %s", known, s.NodeID, s.ClusterID)
	case s.NodeID == id:
		return "", fmt.Errorf("node %q answers, and runs on other data than these", id)
	}
	return s.ClusterID, nil
}

// awaitAbsence waits until the others no longer see a node of this ID.
func awaitAbsence(ctx context.Context, c *client.Client, id string) error {
	ctx, cancel := context.WithTimeout(ctx, absenceWait)
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
			return fmt.Errorf("the others see that node %q runs at %s: stop it first, or check its ID: %w", id, at, context.Cause(ctx))
		case <-time.After(absencePoll):
		}
	}
}

// LikelyEndpoints guesses from a data directory the host:port of the APIs of other nodes:
// three ports before the gossip address at which they were last reached, as with one listen
// address for all four. It is empty if the directory has no such addresses or cannot be
// read. It changes nothing and waits for nothing, and a node may run on the directory. How
// it guesses is not stable.
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
