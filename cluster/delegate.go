package cluster

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"sync"

	"github.com/hashicorp/memberlist"
)

// delegate is everything that memberlist calls. It calls with its own lock
// held, so nothing here blocks or calls memberlist back.
type delegate struct {
	c *Cluster

	mu   sync.Mutex
	meta []byte // what NodeMeta hands out
}

var (
	_ memberlist.Delegate         = (*delegate)(nil)
	_ memberlist.EventDelegate    = (*delegate)(nil)
	_ memberlist.AliveDelegate    = (*delegate)(nil)
	_ memberlist.MergeDelegate    = (*delegate)(nil)
	_ memberlist.ConflictDelegate = (*delegate)(nil)
)

func (d *delegate) setMeta(buf []byte) (changed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed = !bytes.Equal(d.meta, buf)
	d.meta = buf
	return changed
}

// NodeMeta implements [memberlist.Delegate]. The size was checked by encode.
func (d *delegate) NodeMeta(int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meta
}

// NotifyMsg implements [memberlist.Delegate]. No messages of our own are
// gossiped: the meta says everything.
func (d *delegate) NotifyMsg([]byte) {}

// GetBroadcasts implements [memberlist.Delegate].
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements [memberlist.Delegate].
func (d *delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState implements [memberlist.Delegate].
func (d *delegate) MergeRemoteState([]byte, bool) {}

// NotifyJoin implements [memberlist.EventDelegate].
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.c.table.alive(n) }

// NotifyUpdate implements [memberlist.EventDelegate].
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.c.table.alive(n) }

// NotifyLeave implements [memberlist.EventDelegate].
func (d *delegate) NotifyLeave(n *memberlist.Node) { d.c.table.gone(n) }

// NotifyAlive refuses peers that are not of this cluster. memberlist asks for
// every alive message, also for those that come through third nodes.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	if n.Name == d.c.cfg.NodeID {
		return nil // our own, or a conflict, which NotifyConflict hears of
	}
	return d.admit(n)
}

// NotifyMerge refuses the whole exchange with a node that brings peers of
// another cluster: it is misdirected, and its error says so on both sides.
func (d *delegate) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		if n.Name == d.c.cfg.NodeID || (n.State != memberlist.StateAlive && n.State != memberlist.StateSuspect) {
			continue
		}
		if err := d.admit(n); err != nil {
			return err
		}
	}
	return nil
}

func (d *delegate) admit(n *memberlist.Node) error {
	meta, err := decodeMeta(n.Meta)
	switch {
	case err != nil:
		d.c.warn.once("meta "+n.Name, "gossip peer refused: its description is not readable",
			"peer", n.Name, "gossip", n.Address(), "err", err)
		return err
	case meta.NodeID != n.Name:
		d.c.warn.once("name "+n.Name, "gossip peer refused: it calls itself by another name",
			"peer", n.Name, "gossip", n.Address(), "meta_name", meta.NodeID)
		return fmt.Errorf("node %q calls itself %q", n.Name, meta.NodeID)
	}
	if own := d.c.table.clusterID(); !sameCluster(own, meta.ClusterID) {
		d.c.warn.once("cluster "+n.Name+" "+meta.ClusterID, "gossip peer refused: it belongs to another cluster",
			"peer", n.Name, "gossip", n.Address(), "peer_cluster", meta.ClusterID, "cluster", own)
		return fmt.Errorf("node %q belongs to cluster %q, not to %q", n.Name, meta.ClusterID, own)
	}
	if d.c.table.full(n.Name) {
		d.c.warn.once("full", "gossip peer refused: there are too many", "peer", n.Name, "gossip", n.Address(), "at_most", maxAlive)
		return fmt.Errorf("node %q is one too many: at most %d peers are allowed", n.Name, maxAlive)
	}
	return nil
}

// NotifyConflict hears of one node ID at two addresses while gossip believes
// the first to be alive. Either a node was restarted at another address and
// its failure is not noticed yet, which heals by itself, or two processes run
// under one ID. memberlist keeps the first address in both cases.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	if existing.Name == d.c.cfg.NodeID {
		d.c.noteConflict(nodeAddress(other))
		return
	}
	d.c.warn.once("conflict "+existing.Name+" "+other.Address(),
		"two addresses claim one node ID; the first is kept until it fails",
		"peer", existing.Name, "gossip", existing.Address(), "refused", other.Address())
}

func nodeAddress(n *memberlist.Node) string {
	return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
}
