package node

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"

	"github.com/locknode/locknode/cluster"
	"github.com/locknode/locknode/internal/address"
)

// seedsFile has the addresses at which gossip last reached the other members, so that a node
// that is restarted without seeds finds its cluster again. It is a hint: a missing, old or
// damaged file costs only time.
const seedsFile = "seeds.json"

// seedList is what is in seedsFile.
type seedList struct {
	// Cluster is the ID of their cluster: if the node's own identity is damaged, nodes of
	// another cluster are not taken for members.
	Cluster string            `json:"cluster,omitempty"`
	Members map[string]string `json:"members"` // node ID → gossip address
}

// maxSeeds bounds what is remembered.
const maxSeeds = 16

// rememberedSeeds returns the gossip addresses of an earlier run, by node ID. What is no
// valid address is left out: it must not keep a node from starting.
func rememberedSeeds(dir string) map[string]string { return readSeeds(dir).Members }

func readSeeds(dir string) (list seedList) {
	data, err := os.ReadFile(filepath.Join(dir, seedsFile))
	if err != nil || json.Unmarshal(data, &list) != nil || len(list.Members) > maxSeeds {
		return seedList{}
	}
	maps.DeleteFunc(list.Members, func(_, addr string) bool { return address.Dial(addr) != nil })
	return list
}

// with returns the list with the addresses at which gossip reaches the other members now. A
// member that it does not reach keeps its address. A node that is no member is removed,
// because its address may belong to another process by now.
func (l seedList) with(clusterID string, peers []cluster.Peer, members map[string]bool) seedList {
	seeds := make(map[string]string)
	for id, addr := range l.Members {
		if members[id] {
			seeds[id] = addr
		}
	}
	for _, p := range peers {
		if p.State == cluster.Alive && p.Formed && members[p.NodeID] && (len(seeds) < maxSeeds || seeds[p.NodeID] != "") {
			seeds[p.NodeID] = p.Gossip
		}
	}
	return seedList{Cluster: clusterID, Members: seeds}
}

// write writes the list to a data directory.
func (l seedList) write(dir string) error {
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, seedsFile)
	if err := os.WriteFile(path+".tmp", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// rememberSeeds writes to disk where gossip reaches the other members, if that has changed.
func (n *Node) rememberSeeds(clusterID string, peers []cluster.Peer, members map[string]bool) {
	list := n.seeds.with(clusterID, peers, members)
	if maps.Equal(list.Members, n.seeds.Members) && list.Cluster == n.seeds.Cluster {
		return
	}
	if err := list.write(n.cfg.DataDir); err != nil {
		n.log.Debug("seeds not written", "err", err)
		return
	}
	n.seeds = list
}
