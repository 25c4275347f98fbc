package sim

import (
	"slices"
	"time"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/replica"
)

// RightsChange is what access tokens and policies are from an entry of the log on.
type RightsChange struct {
	Index    uint64
	At       time.Duration // when the first node had applied the entry
	Tokens   []fsm.AccessToken
	Policies []fsm.Policy
}

// noteRights looks whether an entry that a node has just applied has changed rights. It is
// called on the node's goroutine that applies, so that the table is that of the entry.
func (c *Cluster) noteRights(a fsm.Applied, table *replica.Table) {
	if c.o.Auth == "" || table == nil {
		return
	}
	table.View(func(t *fsm.Table) {
		index := t.RightsIndex()
		c.rightsMu.Lock()
		defer c.rightsMu.Unlock()
		if n := len(c.rights); index != a.Index || n > 0 && c.rights[n-1].Index >= index {
			return
		}
		c.rights = append(c.rights, RightsChange{Index: index, At: c.Now(), Tokens: t.AccessTokens("", 1<<20), Policies: t.Policies()})
	})
}

// Rights are all changes of access tokens and policies so far, in the order of the log.
func (c *Cluster) Rights() []RightsChange {
	c.rightsMu.Lock()
	defer c.rightsMu.Unlock()
	return slices.Clone(c.rights)
}
