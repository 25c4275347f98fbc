package client

import (
	"context"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/embedded"
)

// The calls of an operator that concern nodes.

// GossipKeyInfo is one key that encrypts gossip between the nodes. The key itself is never returned.
type GossipKeyInfo struct {
	Fingerprint string   // hexadecimal; stands for the key
	Members     []string // IDs of the members that have it
	Primary     []string // IDs of those that encrypt with it; the others only decrypt
}

// MemberFault says what was wrong with one member.
type MemberFault struct {
	ID    string // of the member
	Fault string // in words
}

// GossipKeys names the keys that encrypt gossip, and which of the members have them. silent are the
// members that have not answered. The errors are those of [Client.Sessions], and ErrInvalid if
// gossip is in plain text.
func (c *Client) GossipKeys(ctx context.Context) (keys []GossipKeyInfo, members int, silent []MemberFault, err error) {
	r, err := administer(ctx, c, what{verb: "list gossip keys"}, func(a embedded.Operator, ctx context.Context) (*apiv1.ListGossipKeysResponse, error) {
		return a.ListGossipKeys(ctx, &apiv1.ListGossipKeysRequest{})
	})
	for _, k := range r.GetKeys() {
		keys = append(keys, GossipKeyInfo{k.GetFingerprint(), k.GetMembers(), k.GetPrimary()})
	}
	return keys, int(r.GetMembers()), faultsOf(r.GetSilent()), err
}

// GossipKeysChanged is what a change of the gossip keys has done.
type GossipKeysChanged struct {
	Fingerprint string        // of the key that it was about
	Members     []string      // IDs of those that have done it
	Faults      []MemberFault // of those that have not; in TLS they do so when they are back
}

// InstallGossipKey has all members know a key of 16, 24 or 32 bytes, which then decrypts gossip; nil: a
// new one, that no client gets to know. It needs nodes that require TLS. [ErrInvalid] says why
// nothing was done; other errors are those of [Client.Sessions]. After an error some members may
// have the key.
func (c *Client) InstallGossipKey(ctx context.Context, key []byte) (GossipKeysChanged, error) {
	return c.changeGossipKeys(ctx, what{verb: "install gossip key"}, &apiv1.ChangeGossipKeysRequest{Generate: len(key) == 0, Install: key})
}

// UseGossipKey has all members encrypt gossip with a key that is installed. It is refused with
// ErrInvalid, and nothing is changed, while a member does not have the key. withoutSilent goes on
// although members do not answer: where TLS is required these get the keys when they are
// back, and otherwise they stay out. Errors are those of [Client.InstallGossipKey].
func (c *Client) UseGossipKey(ctx context.Context, fingerprint string, withoutSilent bool) (GossipKeysChanged, error) {
	return c.changeGossipKeys(ctx, what{"use gossip key", fingerprint}, &apiv1.ChangeGossipKeysRequest{Use: fingerprint, WithoutSilent: withoutSilent})
}

// RemoveGossipKey has all members forget a key. It is refused with ErrInvalid, and nothing is
// changed, while a member encrypts with it. For the rest it is as [Client.UseGossipKey].
func (c *Client) RemoveGossipKey(ctx context.Context, fingerprint string, withoutSilent bool) (GossipKeysChanged, error) {
	return c.changeGossipKeys(ctx, what{"remove gossip key", fingerprint}, &apiv1.ChangeGossipKeysRequest{Remove: fingerprint, WithoutSilent: withoutSilent})
}

func (c *Client) changeGossipKeys(ctx context.Context, w what, q *apiv1.ChangeGossipKeysRequest) (GossipKeysChanged, error) {
	if err := checkText(w, "fingerprint", q.GetUse()+q.GetRemove(), !q.GetGenerate() && len(q.GetInstall()) == 0); err != nil {
		return GossipKeysChanged{}, err
	}
	r, err := administer(ctx, c, w, func(a embedded.Operator, ctx context.Context) (*apiv1.ChangeGossipKeysResponse, error) {
		return a.ChangeGossipKeys(ctx, q)
	})
	return GossipKeysChanged{r.GetFingerprint(), r.GetMembers(), faultsOf(r.GetFaults())}, err
}

func faultsOf(in []*apiv1.MemberFault) (out []MemberFault) {
	for _, f := range in {
		out = append(out, MemberFault{f.GetId(), f.GetFault()})
	}
	return out
}

// ReloadedMember is what one node has made of its files.
type ReloadedMember struct {
	ID    string         // of the node
	Fault string         // why it has not answered; empty: it has
	Items []ReloadedItem // what it reads
}

// ReloadedItem is one thing that a node reads from files while it runs.
type ReloadedItem struct {
	What    string // "settings", "certificates", "gossip_key"
	Changed bool   // what is in use now is not what was in use before
	Detail  string // what has changed
	Refused string // why what was in use before stays in use; empty: nothing is wrong
}

// Reload has the member with an ID read its files again, or every member if that is "": what SIGHUP
// does. It returns what each of them has made of that. The errors are those of
// [Client.Sessions], and one that says that there is no such member; after one some may have done
// it, and it may be repeated.
func (c *Client) Reload(ctx context.Context, member string) ([]ReloadedMember, error) {
	w := what{verb: "reload"}
	if err := checkText(w, "member", member, false); err != nil {
		return nil, err
	}
	r, err := administer(ctx, c, w, func(a embedded.Operator, ctx context.Context) (*apiv1.ReloadResponse, error) {
		return a.Reload(ctx, &apiv1.ReloadRequest{Member: member, AllMembers: member == ""})
	})
	var all []ReloadedMember
	for _, m := range r.GetMembers() {
		one := ReloadedMember{ID: m.GetId(), Fault: m.GetFault()}
		for _, i := range m.GetItems() {
			one.Items = append(one.Items, ReloadedItem{i.GetWhat(), i.GetChanged(), i.GetDetail(), i.GetRefused()})
		}
		all = append(all, one)
	}
	return all, err
}
