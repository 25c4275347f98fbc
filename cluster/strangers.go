package cluster

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// circle decides, for a node that belongs to no cluster yet, which clusters it may join:
// those that its seeds lead to. Any cluster may contact the node, for example one that looks
// for a lost peer at an address that this node has now. Such a cluster must not admit the
// node, and through it all others that it was meant to form a cluster with.
//
// A cluster is one that the seeds lead to if a member of it is at an address of a
// seed, if a founder of it has made the same promise as this node, or if a seed whose
// address no peer has (a load balancer, a mapped port) answered with members of it.
// All others are strangers. Their members are kept out of gossip on this node; nodes
// without a cluster are always accepted.
//
// The circle is not used by a node with a label, which keeps clusters apart; by a node that
// knows its cluster; and by a node without seeds that expects nobody: it waits to be found.
type circle struct {
	on      bool // false: every cluster is accepted
	unnamed bool // there are no seeds either, which reason mentions

	mu        sync.Mutex
	given     map[string][]string // seed → the addresses that it had last
	led       map[string]bool     // clusterKey → the seeds lead there
	strangers map[string]stranger // clusterKey → one of its members
	refusals  map[string][]string // text of an error → the clusters that it was about
	count     int                 // of refusals, for their texts
}

type stranger struct {
	id, gossip, cluster string
	seen                time.Time
}

// A stranger that was not seen for strangerFor is not logged any more, and at most
// maxStrangers are remembered.
const (
	strangerFor  = 5 * time.Minute
	maxStrangers = 16
)

func newCircle(cfg Config) *circle {
	return &circle{
		on: cfg.Label == "" && (len(cfg.Seeds) > 0 || cfg.Meta.Expect > 1), unnamed: len(cfg.Seeds) == 0,
		given: make(map[string][]string), led: make(map[string]bool),
		strangers: make(map[string]stranger), refusals: make(map[string][]string),
	}
}

// clusterKey identifies the cluster of a node: by its ID, or by its founders while they do
// not know the ID; "" for a fresh node.
func clusterKey(m Meta) string {
	if m.ClusterID == "" && m.Formed {
		return foundersKey(m)
	}
	return m.ClusterID
}

func foundersKey(m Meta) string { return "founders " + m.Promise }

// give sets the addresses of a seed.
func (c *circle) give(seed string, addrs []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.given[seed] = addrs
}

// isGiven reports whether a seed is at an address.
func (c *circle) isGiven(addr string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isGivenLocked(addr)
}

func (c *circle) isGivenLocked(addr string) bool {
	for _, addrs := range c.given {
		if slices.Contains(addrs, addr) {
			return true
		}
	}
	return false
}

// verdict is about one node.
type verdict struct {
	ok bool
	// again: members of its cluster were refused before it was known that the seeds
	// lead there.
	again bool
	first bool // of these strangers
}

// judge decides whether one node at a gossip address is accepted.
func (c *circle) judge(own Meta, gossip string, m Meta) verdict {
	key := clusterKey(m)
	if !c.on || own.ClusterID != "" || key == "" {
		return verdict{ok: true}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	promised := m.Promise != "" && m.Promise == own.Promise
	if promised || c.isGivenLocked(gossip) || c.led[key] || m.Promise != "" && c.led[foundersKey(m)] {
		return verdict{ok: true, again: c.leadLocked(key)}
	}
	_, known := c.strangers[key]
	if !known && len(c.strangers) == maxStrangers {
		return verdict{}
	}
	c.strangers[key] = stranger{id: m.NodeID, gossip: gossip, cluster: m.ClusterID, seen: time.Now()}
	return verdict{first: !known}
}

// leadLocked notes that the seeds lead to a cluster.
func (c *circle) leadLocked(key string) (again bool) {
	c.led[key] = true
	_, again = c.strangers[key]
	delete(c.strangers, key)
	return again
}

// refuse makes the error for an exchange that brought members of clusters to which the
// seeds do not lead. memberlist passes on only its text; see vouch.
func (c *circle) refuse(keys []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	text := fmt.Sprintf("refusal %d: members of a cluster to which no seed leads", c.count)
	if len(c.refusals) >= 4*maxStrangers { // they came from exchanges that others began
		clear(c.refusals)
	}
	c.refusals[text] = keys
	return strangersError(text)
}

type strangersError string

func (e strangersError) Error() string { return string(e) }

// vouch takes the error of an exchange with the address of a seed. If that is a refusal of
// strangers, the seed leads to their clusters, though none of their members has its address
// (a load balancer). It reports whether the exchange should be tried again.
func (c *circle) vouch(err error) (again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for text, keys := range c.refusals {
		if strings.Contains(err.Error(), text) {
			for _, key := range keys {
				c.leadLocked(key)
			}
			delete(c.refusals, text)
			again = true
		}
	}
	return again
}

// met returns the strangers that were seen lately, in a fixed order.
func (c *circle) met() []stranger {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []stranger
	for key, s := range c.strangers {
		if time.Since(s.seen) > strangerFor {
			delete(c.strangers, key)
			continue
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b stranger) int { return cmp.Compare(a.cluster, b.cluster) })
	return all
}

// reason says, for people, why this node does not join a cluster that has found it.
func (c *circle) reason(s stranger) string {
	why := "none of the addresses to join leads there: add one that does"
	if c.unnamed {
		why = "this node was given no address to join: give it one"
	}
	return fmt.Sprintf("cluster %s, of which %s at %s is a member, is not joined: %s, or give its nodes and this one the same cluster_name",
		cmp.Or(s.cluster, "without an ID yet"), s.id, s.gossip, why)
}

// Hint says why gossip does not lead to a cluster, and what to do about it: the advertised
// name has no address, or a cluster has found this node and is not joined, because no seed
// leads there. It is empty if neither is the case.
func (c *Cluster) Hint() string {
	c.stateMu.Lock()
	unnamed := c.unnamed
	c.stateMu.Unlock()
	if unnamed != "" {
		return unnamed
	}
	if met := c.circle.met(); len(met) > 0 && c.table.clusterID() == "" {
		return c.circle.reason(met[0])
	}
	return ""
}

// tellStrangers logs each stranger once. It is called after a round in which the
// seeds were asked: until then anybody may turn out to be one of theirs.
func (c *Cluster) tellStrangers() {
	if c.table.clusterID() != "" {
		return
	}
	for _, s := range c.circle.met() {
		c.warn.some("stranger", s.cluster, "a cluster has found this node and is not joined", "reason", c.circle.reason(s))
	}
}

// hostPort is the usual form of an address.
func hostPort(host, port string) string {
	if ip := net.ParseIP(host); ip != nil {
		host = ip.String()
	}
	return net.JoinHostPort(host, port)
}
