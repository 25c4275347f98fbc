package cluster

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"sync"

	"github.com/hashicorp/memberlist"
)

// delegate has all callbacks of memberlist, which calls them with its own lock held: they
// do not block and do not call memberlist.
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
		return nil // our own, or a conflict, which NotifyConflict gets
	}
	return d.admit(n)
}

// NotifyMerge refuses the whole exchange with a node that brings peers of another cluster:
// it is misdirected, and both sides log the error. While this node has no cluster, an
// exchange that brings strangers is refused as a whole, unless a node at the address of a
// seed takes part; then only the strangers are left out.
func (d *delegate) NotifyMerge(nodes []*memberlist.Node) error {
	own, met := d.c.table.ownMeta(), false
	for pass := range 2 { // the first one learns where the seeds lead
		var strangers []string
		for _, n := range nodes {
			if n.Name == d.c.cfg.NodeID || (n.State != memberlist.StateAlive && n.State != memberlist.StateSuspect) {
				continue
			}
			meta, err := decodeMeta(n.Meta)
			if err == nil && !d.welcome(own, n, meta) {
				strangers = append(strangers, clusterKey(meta))
				continue
			}
			met = met || d.c.circle.isGiven(n.Address())
			if pass == 0 {
				continue
			}
			if err := d.admit(n); err != nil {
				return err
			}
		}
		if pass == 1 && len(strangers) > 0 && !met {
			return d.c.circle.refuse(strangers)
		}
	}
	return nil
}

// welcome asks the circle about one node.
func (d *delegate) welcome(own Meta, n *memberlist.Node, m Meta) bool {
	v := d.c.circle.judge(own, n.Address(), m)
	if v.again {
		d.c.askAgain()
	}
	if v.first {
		d.c.table.touch()
	}
	return v.ok
}

func (d *delegate) admit(n *memberlist.Node) error {
	meta, err := decodeMeta(n.Meta)
	switch {
	case err != nil:
		d.c.warn.some("meta", n.Name, "gossip peer refused: its description cannot be decoded",
			"peer", n.Name, "gossip", n.Address(), "err", err)
		return err
	case meta.NodeID != n.Name:
		d.c.warn.some("name", n.Name, "gossip peer refused: its description has another node ID",
			"peer", n.Name, "gossip", n.Address(), "meta_name", meta.NodeID)
		return fmt.Errorf("node ID: is %q in the description, must be %q", meta.NodeID, n.Name)
	}
	ownMeta := d.c.table.ownMeta()
	if own := ownMeta.ClusterID; !sameCluster(own, meta.ClusterID) {
		d.c.warn.some("cluster", n.Name+" "+meta.ClusterID, "gossip peer refused: it belongs to another cluster",
			"peer", n.Name, "gossip", n.Address(), "peer_cluster", meta.ClusterID, "cluster", own)
		d.c.table.elsewhere(n)
		return fmt.Errorf("node %q belongs to cluster %q, not to %q", n.Name, meta.ClusterID, own)
	}
	if !d.welcome(ownMeta, n, meta) {
		d.c.table.elsewhere(n)
		return fmt.Errorf("node %q is of a cluster to which no seed leads", n.Name)
	}
	if d.c.table.full(n.Name, n.Address(), d.c.circle.isGiven(n.Address())) {
		room := d.c.table.room()
		d.c.warn.once("full", "gossip peer refused: too many peers are no members", "peer", n.Name, "gossip", n.Address(), "at_most", room)
		return fmt.Errorf("node %q is one too many: at most %d peers that are no members are allowed", n.Name, room)
	}
	d.c.table.back(n)
	return nil
}

// NotifyConflict is called for one node ID at two addresses while the first still counts as
// alive. Either a node was restarted at another address and its failure is not detected
// yet, which resolves itself, or two processes run under one ID. memberlist keeps the first
// address in both cases.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	if existing.Name == d.c.cfg.NodeID {
		d.c.noteConflict(nodeAddress(other))
		return
	}
	d.c.table.claimed(existing.Name, other.Meta)
	d.c.warn.some("conflict", existing.Name+" "+other.Address(),
		"two addresses claim one node ID; the first is kept until it fails",
		"peer", existing.Name, "gossip", existing.Address(), "refused", other.Address())
}

func nodeAddress(n *memberlist.Node) string {
	return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
}
