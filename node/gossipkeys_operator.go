package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/gossipkeys"
	"github.com/locknode/locknode/internal/membership"
	"github.com/locknode/locknode/internal/peerapi"
	"github.com/locknode/locknode/internal/secure"
)

// How does an operator rotate the keys of gossip? The leader does it on all members, one change at a
// time: a key is installed on all, then it encrypts, then the old one is removed. It asks all
// members first, and refuses what would keep one of them from understanding the others.

// memberKeys are the keys of one member.
type memberKeys struct {
	id      string
	version uint64
	prints  []string
	fault   error // why it has not answered
}

// primary is the fingerprint of the key with which the member encrypts.
func (m *memberKeys) primary() string {
	if len(m.prints) == 0 {
		return ""
	}
	return m.prints[0]
}

// onMembers does something for each member of the configuration at the same time.
func (n *Node) onMembers(ctx context.Context, do func(ctx context.Context, id string)) {
	ctx, cancel := context.WithTimeout(ctx, 2*keyTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range membership.Servers(n.raft.Load()) {
		wg.Go(func() { do(ctx, string(s.ID)) })
	}
	wg.Wait()
}

// surveyKeys asks all members for their keys. They are sorted by ID.
func (n *Node) surveyKeys(ctx context.Context) (all []memberKeys) {
	var mu sync.Mutex
	n.onMembers(ctx, func(ctx context.Context, id string) {
		m := memberKeys{id: id}
		res, err := n.ownKeys(), error(nil)
		if id != n.id {
			res, err = askPeer(n, id, func(c peerapi.PeersClient) (*peerapi.GossipKeysResponse, error) {
				return c.GossipKeys(ctx, &peerapi.GossipKeysRequest{})
			})
		}
		m.version, m.prints, m.fault = res.GetVersion(), res.GetFingerprints(), err
		mu.Lock()
		defer mu.Unlock()
		all = append(all, m)
	})
	slices.SortFunc(all, func(a, b memberKeys) int { return strings.Compare(a.id, b.id) })
	return all
}

// askPeer makes a call of another node.
func askPeer[R any](n *Node, id string, call func(peerapi.PeersClient) (R, error)) (R, error) {
	peer, err := n.peers.peer(id)
	if err != nil {
		var none R
		return none, err
	}
	return call(peer)
}

// pushKeys exchanges keys with a member, in TLS on its port of gossip, and returns an error if it
// does not have this node's keys then.
func (n *Node) pushKeys(ctx context.Context, id string) error {
	p, ok := n.cluster.Peer(id)
	if !ok {
		return fmt.Errorf("gossip has not found it: it gets the keys when it is back")
	}
	ctx, cancel := context.WithTimeout(ctx, keyTime)
	defer cancel()
	conn, err := dialTCP(ctx, p.Gossip)
	if err != nil {
		return fmt.Errorf("%w; it gets the keys when it is back", err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(keyTime)); err != nil {
		return err
	}
	theirs, err := n.exchangeKeys(conn, id)
	if err != nil {
		return err
	}
	if own := n.gossipKeys.Ring(); !theirs.Equal(own) {
		return fmt.Errorf("its gossip keys have version %d, must have %d: were they changed there at the same time?", theirs.Version, own.Version)
	}
	return nil
}

// ListGossipKeys names the keys of all members.
func (n wire) ListGossipKeys(ctx context.Context, req *apiv1.ListGossipKeysRequest) (*apiv1.ListGossipKeysResponse, error) {
	return atLeader(ctx, n.Node, func(*epoch) (*apiv1.ListGossipKeysResponse, error) {
		if err := n.hasKeys(); err != nil {
			return nil, err
		}
		res := &apiv1.ListGossipKeysResponse{}
		for _, m := range n.surveyKeys(ctx) {
			res.Members++
			if m.fault != nil {
				res.Silent = append(res.Silent, &apiv1.MemberFault{Id: m.id, Fault: m.fault.Error()})
				continue
			}
			for i, f := range m.prints {
				at := slices.IndexFunc(res.Keys, func(k *apiv1.GossipKey) bool { return k.GetFingerprint() == f })
				if at < 0 {
					at = len(res.Keys)
					res.Keys = append(res.Keys, &apiv1.GossipKey{Fingerprint: f})
				}
				k := res.Keys[at]
				k.Members = append(k.Members, m.id)
				if i == 0 {
					k.Primary = append(k.Primary, m.id)
				}
			}
		}
		return res, nil
	}, func(c apiv1.LocksClient) (*apiv1.ListGossipKeysResponse, error) { return c.ListGossipKeys(ctx, req) })
}

// hasKeys returns an error on a node whose gossip is in plain text.
func (n *Node) hasKeys() error {
	if n.gossipKeys != nil {
		return nil
	}
	return apiv1.NewError(apiv1.CodeInvalid, "gossip keys: there are none, gossip of node %q is in plain text: "+
		"set tls.mode to required, or give all nodes the same gossip_key_file, and start them again", n.id)
}

// ChangeGossipKeys installs a key on all members, has one encrypt on all, or removes one from all.
// It changes nothing if that would keep a member from understanding the others. After another
// error, and where the answer has faults, some members may have changed; it may be repeated.
func (n wire) ChangeGossipKeys(ctx context.Context, req *apiv1.ChangeGossipKeysRequest) (*apiv1.ChangeGossipKeysResponse, error) {
	if err := n.checkKeyChange(req); err != nil {
		return nil, err
	}
	req.Who = n.whoAsks(req.GetWho())
	return atLeader(ctx, n.Node, func(*epoch) (*apiv1.ChangeGossipKeysResponse, error) {
		if err := n.hasKeys(); err != nil {
			return nil, err
		}
		n.changesKeys.Lock() // two changes at a time would not know of each other
		defer n.changesKeys.Unlock()
		var res *apiv1.ChangeGossipKeysResponse
		var err error
		if req.GetUse() == "" && req.GetRemove() == "" {
			res, err = n.installKey(ctx, req.GetInstall())
		} else {
			res, err = n.useOrRemoveKey(ctx, req)
		}
		if err != nil {
			return nil, err
		}
		slices.Sort(res.Members)
		slices.SortFunc(res.Faults, func(a, b *apiv1.MemberFault) int { return strings.Compare(a.GetId(), b.GetId()) })
		n.log.Info("gossip keys changed by an operator", "key", res.GetFingerprint(), "install", req.GetGenerate() || len(req.GetInstall()) > 0,
			"use", req.GetUse() != "", "remove", req.GetRemove() != "", "members", len(res.GetMembers()), "faults", len(res.GetFaults()), "who", req.GetWho())
		return res, nil
	}, func(c apiv1.LocksClient) (*apiv1.ChangeGossipKeysResponse, error) {
		return c.ChangeGossipKeys(ctx, req)
	})
}

// checkKeyChange looks at a request alone, and at how keys get to the other nodes.
func (n *Node) checkKeyChange(req *apiv1.ChangeGossipKeysRequest) error {
	set := 0
	for _, is := range []bool{req.GetGenerate(), len(req.GetInstall()) > 0, req.GetUse() != "", req.GetRemove() != ""} {
		if is {
			set++
		}
	}
	switch {
	case set != 1:
		return apiv1.NewError(apiv1.CodeInvalid, "generate, install, use, remove: must be exactly one of them")
	case len(req.GetInstall()) > 0:
		if err := gossipkeys.CheckKey(req.GetInstall()); err != nil {
			return apiv1.NewError(apiv1.CodeInvalid, "%v", err)
		}
		fallthrough
	case req.GetGenerate():
		if n.security.mode != secure.Required {
			return apiv1.NewError(apiv1.CodeInvalid, "install: tls.mode of node %q is not required, and keys are sent in TLS only: "+
				"put the new key into the gossip_key_file of every node, and run \"locknode reload --all-nodes\"", n.id)
		}
	}
	return nil
}

// newestVersion is the greatest one of all members that have answered.
func newestVersion(all []memberKeys) (version uint64) {
	for i := range all {
		version = max(version, all[i].version)
	}
	return version
}

// installKey has all members know a key, a new one if it is empty.
func (n *Node) installKey(ctx context.Context, key []byte) (*apiv1.ChangeGossipKeysResponse, error) {
	if len(key) == 0 {
		key = gossipkeys.NewKey()
	}
	all := n.surveyKeys(ctx)
	n.bringUpToDate(ctx, all)
	version := newestVersion(all) + 1
	if _, err := n.gossipKeys.Install(key, version); err != nil {
		return nil, apiv1.NewError(apiv1.CodeInvalid, "%v", err)
	}
	res := &apiv1.ChangeGossipKeysResponse{Fingerprint: string(gossipkeys.FingerprintOf(key))}
	n.collect(ctx, res, func(ctx context.Context, id string) error {
		if id == n.id {
			return nil
		}
		return n.pushKeys(ctx, id)
	})
	return res, nil
}

// collect does something on all members, and adds to an answer who has done it and who has not.
func (n *Node) collect(ctx context.Context, res *apiv1.ChangeGossipKeysResponse, do func(ctx context.Context, id string) error) {
	var mu sync.Mutex
	n.onMembers(ctx, func(ctx context.Context, id string) {
		err := do(ctx, id)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			res.Faults = append(res.Faults, &apiv1.MemberFault{Id: id, Fault: err.Error()})
			return
		}
		res.Members = append(res.Members, id)
	})
}

// useOrRemoveKey has all members encrypt with a key, or forget one.
func (n *Node) useOrRemoveKey(ctx context.Context, req *apiv1.ChangeGossipKeysRequest) (*apiv1.ChangeGossipKeysResponse, error) {
	all := n.surveyKeys(ctx)
	if n.security.source != nil && n.bringUpToDate(ctx, all) {
		all = n.surveyKeys(ctx)
	}
	var err error
	f := req.GetUse()
	if f != "" {
		err = mayUse(f, all, req.GetWithoutSilent())
	} else {
		f = req.GetRemove()
		err = mayRemove(f, all, req.GetWithoutSilent())
	}
	if err != nil {
		return nil, err
	}
	change := &peerapi.ChangeGossipKeysRequest{Use: req.GetUse(), Remove: req.GetRemove(), Version: newestVersion(all) + 1}
	res := &apiv1.ChangeGossipKeysResponse{Fingerprint: f}
	n.collect(ctx, res, func(ctx context.Context, id string) error {
		if id == n.id {
			_, err := wire{n}.ChangeOwnGossipKeys(ctx, change)
			return err
		}
		_, err := askPeer(n, id, func(c peerapi.PeersClient) (*peerapi.GossipKeysResponse, error) {
			return c.ChangeGossipKeys(ctx, change)
		})
		return err
	})
	res.Faults = slices.DeleteFunc(res.Faults, func(f *apiv1.MemberFault) bool { // those were silent before
		return slices.ContainsFunc(all, func(m memberKeys) bool { return m.id == f.GetId() && m.fault != nil })
	})
	return res, nil
}

// bringUpToDate gives the members this node's keys, or takes theirs, where they differ in their
// version. It reports whether there were such.
func (n *Node) bringUpToDate(ctx context.Context, all []memberKeys) (differed bool) {
	own := n.gossipKeys.Ring().Version
	for i := range all {
		if m := &all[i]; m.fault == nil && m.version != own {
			differed = true
			if err := n.pushKeys(ctx, m.id); err != nil {
				n.log.Warn("gossip keys were not exchanged with a member", "peer", m.id, "err", err)
			}
		}
	}
	return differed
}

// mayUse returns why a key must not encrypt yet.
func mayUse(f string, all []memberKeys, withoutSilent bool) error {
	var lack []string
	for i := range all {
		switch m := &all[i]; {
		case m.fault != nil && withoutSilent:
		case m.fault != nil:
			return silentMember(m)
		case !slices.Contains(m.prints, f):
			lack = append(lack, m.id)
		}
	}
	switch {
	case len(lack) == len(all):
		return apiv1.NewError(apiv1.CodeInvalid, "gossip key %.40q: no member has it; \"locknode gossip-key ls\" shows those that there are", f)
	case len(lack) > 0:
		return apiv1.NewError(apiv1.CodeInvalid, "gossip key %s: is not on %v, must be installed on all members before it is used", f, lack)
	}
	return nil
}

// mayRemove returns why a key must not be removed yet.
func mayRemove(f string, all []memberKeys, withoutSilent bool) error {
	known := false
	var use []string
	for i := range all {
		m := &all[i]
		switch {
		case m.fault != nil && withoutSilent:
		case m.fault != nil:
			return silentMember(m)
		case m.primary() == f:
			use = append(use, m.id)
		}
		known = known || slices.Contains(m.prints, f)
	}
	switch {
	case len(use) > 0:
		return apiv1.NewError(apiv1.CodeInvalid, "gossip key %s: encrypts gossip on %v, must not be removed before another one is in use everywhere", f, use)
	case !known:
		return apiv1.NewError(apiv1.CodeInvalid, "gossip key %.40q: no member has it; \"locknode gossip-key ls\" shows those that there are", f)
	}
	return nil
}

func silentMember(m *memberKeys) error {
	return apiv1.NewError(apiv1.CodeInvalid, "gossip keys of member %q are not known: %v; start it or remove it, or, where TLS is required, "+
		"go on without it: it gets the keys when it is back", m.id, m.fault)
}
