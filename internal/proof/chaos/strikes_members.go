//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/proof/proc"
)

// memberPatience is how long a change of the members may take: a node that joins
// has to catch up and to be healthy for a while before it votes.
const memberPatience = time.Minute

var memberKinds = []Kind{
	{Name: "transfer", Family: "members", About: "another node is made the leader",
		strike: func(ctx context.Context, r *run, s strike) error {
			from := r.clock.now()
			if err := r.transfer(ctx); err != nil {
				r.remark("it was refused: %v", err)
			}
			return r.recovered(s, sinceFault, from, r.clock.now())
		}, beside: func(r *run, ctx context.Context, _ strike) error {
			_ = r.transfer(ctx) // nothing is promised while others fail
			return nil
		}},
	{Name: "add-node", Family: "members", About: "a node is added, the leader is killed meanwhile, and the node is removed again",
		strike: func(_ context.Context, r *run, s strike) error { return r.addNode(s) }},
}

// transfer asks for another leader.
func (r *run) transfer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := r.keeper.client.TransferLeadership(ctx, "")
	return err
}

func (r *run) addNode(s strike) error {
	ctx, cancel := context.WithTimeout(context.Background(), memberPatience)
	defer cancel()
	n, err := r.cluster.Add(ctx)
	if err != nil {
		return err
	}
	leader, err := r.leader()
	if err != nil {
		return err
	}
	if err := r.killSome(s, leader); err != nil {
		return err
	}
	if err := r.awaitVoter(ctx, n); err != nil {
		r.violate("liveness", "members", "", "%v", err)
	}
	if err := r.remove(ctx, n); err != nil {
		return err
	}
	lifted := r.clock.now()
	select {
	case <-n.Exited(): // by itself: it was told
	case <-time.After(patience):
		r.violate("liveness", "members", "", "node %s was removed %v ago and still runs", n.ID, patience)
	}
	r.readLogs(n)
	return errors.Join(r.cluster.Discard(n), r.unfront(n), r.recovered(s, sinceLift, lifted, lifted))
}

// remove takes a node out of the cluster. It is tried again while the cluster
// refuses: after a kill it may not count enough healthy members yet.
func (r *run) remove(ctx context.Context, n *proc.Node) error {
	for {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := r.keeper.client.RemoveMember(call, n.ID)
		cancel()
		if err == nil {
			return nil
		}
		if sleep(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("remove member %s: %w", n.ID, err)
		}
	}
}

// awaitVoter waits until a node votes.
func (r *run) awaitVoter(ctx context.Context, n *proc.Node) error {
	role := client.MemberRole("unknown")
	for {
		if members, err := r.keeper.client.Members(ctx); err == nil {
			for _, m := range members {
				if m.ID == n.ID {
					role = m.Role
				}
			}
		}
		if role == client.RoleVoter || role == client.RoleLeader {
			return nil
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("wait until node %s votes: its role is %s: %w", n.ID, role, err)
		}
	}
}
