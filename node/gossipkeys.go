package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/internal/certs"
	"github.com/locknode/locknode/internal/gossipkeys"
	"github.com/locknode/locknode/internal/peerapi"
	"github.com/locknode/locknode/internal/secure"
)

// How does this node get the keys of gossip, and to whom does it give them? They travel between two
// nodes only in TLS, on the port of gossip, where both ends have shown the certificate of a node of
// this cluster. A node gives its keys to each such node, because one that is to join is not known
// yet. It takes keys from members, and before it is in a cluster from every node of it.

// keyTime bounds one exchange of keys.
const keyTime = 2 * time.Second

// openGossipKeys reads the keys of the data directory.
func (n *Node) openGossipKeys() (keys [][]byte, x cluster.KeyExchange, err error) {
	dir := n.cfg.DataDir
	if n.cfg.seams.Memory != nil {
		dir = ""
	}
	n.gossipKeys, err = gossipkeys.Open(gossipkeys.Options{
		Dir: dir, Configured: n.cfg.GossipKey, MakeUp: n.security.mode == secure.Required, Formed: n.stores.HasState(),
	})
	if err != nil || n.gossipKeys == nil {
		return nil, x, err
	}
	if n.security.source != nil {
		n.keyPort = secure.NewPort(secure.PortOptions{
			Mode: secure.Required, Config: n.security.source.ServePeers(nil),
			OnRefused: func(from net.Addr, err error) {
				n.log.Warn("refused a connection: no TLS came about", "listener", "gossip", "from", hostOf(from.String()), "err", err)
			},
		})
		x = cluster.KeyExchange{
			Ask:      func(conn net.Conn) error { return n.askGossipKeys(conn, "") },
			AskFirst: n.security.mode == secure.Required, Answer: n.answerGossipKeys,
		}
	}
	return n.gossipKeys.Ring().Keys, x, nil
}

// useGossipKeys has gossip use each ring of keys. A node that is in no cluster yet passes on at once
// what it has learned: all of them must have the same keys before they can form one.
func (n *Node) useGossipKeys() error {
	if n.gossipKeys == nil {
		return nil
	}
	gossip := n.cluster
	return n.gossipKeys.Use(func(r gossipkeys.Ring) error {
		if err := gossip.SetKeys(r.Keys); err != nil {
			return err
		}
		if r.Version == 0 {
			gossip.AskAll()
		}
		return nil
	})
}

// keyOffer is what this node shows other nodes of its cluster.
func (n *Node) keyOffer() gossipkeys.Offer {
	return gossipkeys.Offer{Cluster: n.knownCluster(), Ring: n.gossipKeys.Ring()}
}

// takeKeyOffer goes on with the keys of a node that has proved its ID, if they are newer and it may
// give them, and returns what this node offers then.
func (n *Node) takeKeyOffer(id string, o gossipkeys.Offer) (gossipkeys.Offer, error) {
	own := n.keyOffer()
	if own.Cluster != "" && o.Cluster != "" && own.Cluster != o.Cluster {
		return own, fmt.Errorf("gossip keys: node %q belongs to cluster %s, must belong to %s as this one does", id, o.Cluster, own.Cluster)
	}
	if !n.mayGiveKeys(id) {
		return own, nil
	}
	ring, changed, err := n.gossipKeys.Merge(o.Ring)
	if err != nil {
		return own, err
	}
	if changed {
		n.log.Info("gossip keys taken from another node", "peer", id, "version", ring.Version, "primary", ring.Fingerprints()[0])
	}
	own.Ring = ring
	return own, nil
}

// mayGiveKeys reports whether this node takes keys from another one: from a member, or from every
// node of the cluster as long as it is in none itself.
func (n *Node) mayGiveKeys(id string) bool {
	if n.stores.HasState() && n.raft.Load() == nil {
		return false // it is starting, and does not know the members yet
	}
	return n.memberOnly(id) == nil
}

// askGossipKeys exchanges keys with the node at the other end of a connection that this one has
// dialled: with the member that is meant, or with any node of the cluster if that is "".
func (n *Node) askGossipKeys(conn net.Conn, member string) error {
	_, err := n.exchangeKeys(conn, member)
	return err
}

func (n *Node) exchangeKeys(conn net.Conn, member string) (theirs gossipkeys.Ring, err error) {
	ctx, cancel := context.WithTimeout(n.ctx, keyTime)
	defer cancel()
	c, err := secure.Client(ctx, conn, n.security.source.DialPeer(func(who certs.Identity) error {
		if member == "" {
			return nil
		}
		return secure.Meant(who, member)
	}))
	if err != nil {
		return theirs, err
	}
	who, ok := c.Identity()
	if !ok {
		return theirs, errors.New("the other end has not proved who it is")
	}
	other, err := gossipkeys.Ask(c, n.keyOffer())
	if err == nil {
		_, err = n.takeKeyOffer(who.Name, other)
	}
	return other.Ring, err
}

// answerGossipKeys is the other end of askGossipKeys.
func (n *Node) answerGossipKeys(conn net.Conn) {
	c := n.keyPort.Server(conn)
	if c.Handshake() != nil {
		return // it is logged
	}
	who, ok := c.Identity()
	if !ok {
		return
	}
	err := gossipkeys.Answer(c, func(o gossipkeys.Offer) (gossipkeys.Offer, error) { return n.takeKeyOffer(who.Name, o) })
	if err != nil {
		n.log.Warn("an exchange of gossip keys has failed", "peer", who.Name, "from", hostOf(conn.RemoteAddr().String()), "err", err)
	}
}

// TakeGossipKey installs a key as that of [Config.GossipKey] is at the start: it decrypts gossip, and
// `locknode gossip-key use` has it encrypt once all members have it. Where TLS is required it is
// installed on all members; otherwise each node has to be given it. fresh is false if it is the
// one that was taken last: then nothing is done.
//
// It waits for the members, and ends when ctx does. After an error it may be installed on some
// of them, also on this one. A node whose gossip is in plain text takes no key before its next start.
func (n *Node) TakeGossipKey(ctx context.Context, key []byte) (fresh bool, err error) {
	if err := gossipkeys.CheckKey(key); err != nil {
		return false, err
	}
	if n.gossipKeys == nil {
		return false, errors.New("gossip key: gossip of this node is in plain text, and the key takes effect at its next start")
	}
	if fresh, err = n.gossipKeys.TakeConfigured(key); err != nil || !fresh || n.security.mode != secure.Required {
		return fresh, err
	}
	res, err := wire{n}.ChangeGossipKeys(ctx, &apiv1.ChangeGossipKeysRequest{Install: key})
	if err != nil {
		return true, err
	}
	for _, f := range res.GetFaults() {
		err = errors.Join(err, fmt.Errorf("gossip key %s: is not on node %q: %s", res.GetFingerprint(), f.GetId(), f.GetFault()))
	}
	return true, err
}

// GossipKeys names this node's keys for another node.
func (n wire) GossipKeys(context.Context) (*peerapi.GossipKeysResponse, error) {
	return n.ownKeys(), nil
}

func (n *Node) ownKeys() *peerapi.GossipKeysResponse {
	res := &peerapi.GossipKeysResponse{NodeId: n.id}
	if n.gossipKeys == nil {
		return res
	}
	ring := n.gossipKeys.Ring()
	res.Version = ring.Version
	for _, f := range ring.Fingerprints() {
		res.Fingerprints = append(res.Fingerprints, string(f))
	}
	return res
}

// ChangeOwnGossipKeys does on this node what the leader does on all.
func (n wire) ChangeOwnGossipKeys(_ context.Context, req *peerapi.ChangeGossipKeysRequest) (*peerapi.GossipKeysResponse, error) {
	if n.gossipKeys == nil {
		return nil, apiv1.NewError(apiv1.CodeInvalid, "gossip keys: gossip of node %q is in plain text", n.id)
	}
	var err error
	var ring gossipkeys.Ring
	switch use, remove := gossipkeys.Fingerprint(req.GetUse()), gossipkeys.Fingerprint(req.GetRemove()); {
	case (use == "") == (remove == ""):
		return nil, apiv1.NewError(apiv1.CodeInvalid, "use, remove: must be one of them")
	case use != "":
		ring, err = n.gossipKeys.Encrypt(use, req.GetVersion())
	default:
		ring, err = n.gossipKeys.Remove(remove, req.GetVersion())
	}
	if err != nil {
		return nil, apiv1.NewError(apiv1.CodeInvalid, "%v", err)
	}
	n.log.Info("gossip keys changed", "use", req.GetUse(), "remove", req.GetRemove(), "version", ring.Version)
	return n.ownKeys(), nil
}
