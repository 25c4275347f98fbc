// Package seam is where a simulation takes the place of the world: the clocks,
// the network and the disk of a node. Other modules cannot name its types, so
// nothing here is a promise to them. A world reaches node.Open in its context.
package seam

import (
	"context"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/embedded"
	"github.com/locknode/locknode/internal/replica"
)

// Node is the world of one node. A nil field means the real one.
type Node struct {
	// Mono is a monotonic clock of arbitrary origin. Timers stay real.
	Mono func() time.Duration
	// Wall is what people's watches show.
	Wall func() time.Time
	// Network carries everything the node says and hears.
	Network Network
	// Memory replaces the data directory.
	Memory *disk.Memory
	// Applying is called before each command entry is applied, on the goroutine that
	// applies.
	Applying func(index uint64)
	// Applied sees every applied entry, after the table has changed, on the
	// goroutine that applies.
	Applied func(fsm.Applied)
	// Stamped is called between the stamping of an entry and its hand-in.
	Stamped func(term uint64)
	// SnapshotBytes is how many bytes of entries are applied between two snapshots;
	// zero is the node's own bound.
	SnapshotBytes int64
	// Raft may change how Raft is configured.
	Raft func(*raft.Config)
	// Machine is given the node's state machine before it is used.
	Machine func(*replica.Table)
	// Client may change what clients of this very node are made of.
	Client func(embedded.Node, []client.Option) (embedded.Node, []client.Option)
}

type key struct{}

// With returns a context with which node.Open starts a node in this world.
func With(ctx context.Context, world Node) context.Context {
	return context.WithValue(ctx, key{}, world)
}

// From returns the world that [With] has put into ctx, if any.
func From(ctx context.Context) (world Node, ok bool) {
	world, ok = ctx.Value(key{}).(Node)
	return world, ok
}

// Network is a network as one host sees it. Addresses are IP:port.
type Network interface {
	Listen(addr string) (net.Listener, error)
	Dial(ctx context.Context, addr string) (net.Conn, error)
	// Gossip is gossip's transport at addr: datagrams and streams.
	Gossip(addr string) (memberlist.Transport, error)
}
