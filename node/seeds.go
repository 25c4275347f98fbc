package node

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"github.com/locknode/locknode/cluster"
)

// seedsFile remembers where gossip last reached the others, so that a node that
// is restarted without seeds finds its cluster again. It is a hint: a missing,
// old or damaged file costs time and nothing else.
const seedsFile = "seeds.json"

// maxSeeds bounds what is remembered.
const maxSeeds = 16

// rememberedSeeds returns the gossip addresses of an earlier run.
func rememberedSeeds(dir string) []string {
	data, err := os.ReadFile(filepath.Join(dir, seedsFile))
	if err != nil {
		return nil
	}
	var seeds []string
	if json.Unmarshal(data, &seeds) != nil || len(seeds) > maxSeeds {
		return nil
	}
	return seeds
}

// rememberSeeds writes the gossip addresses of the peers that are alive, if they
// have changed. While nobody is seen, the old ones stay.
func (n *Node) rememberSeeds(peers []cluster.Peer) {
	var seeds []string
	for _, p := range peers {
		if p.State == cluster.Alive && p.Formed && len(seeds) < maxSeeds {
			seeds = append(seeds, p.Gossip)
		}
	}
	slices.Sort(seeds)
	if len(seeds) == 0 || slices.Equal(seeds, n.seeds) {
		return
	}
	data, err := json.Marshal(seeds)
	if err != nil {
		return
	}
	path := filepath.Join(n.cfg.DataDir, seedsFile)
	if err := os.WriteFile(path+".tmp", data, 0o600); err != nil {
		n.log.Debug("seeds not written", "err", err)
		return
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		n.log.Debug("seeds not written", "err", err)
		return
	}
	n.seeds = seeds
}

// allSeeds joins the configured seeds with the remembered ones. A remembered
// address that no seed can be made of is left out: it must not keep a node down.
func allSeeds(configured, remembered []string) []string {
	seeds := slices.Clone(configured)
	for _, s := range remembered {
		if isHostPort(s) && !slices.Contains(seeds, s) {
			seeds = append(seeds, s)
		}
	}
	return seeds
}
