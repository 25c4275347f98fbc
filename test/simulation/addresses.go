package simulation

import "github.com/locknode/locknode/internal/proof/sim"

// addressFaults are those of the profile in which addresses change hands: the votes of
// one that is taken for two count where there are cuts.
var addressFaults = []string{
	"exchange-addresses", "exchange-addresses", "take-address", "take-address", "shift-addresses",
	"split", "isolate", "bridge", "transfer", "kill", "stop",
}

// partner is another node than s.Who to exchange addresses with.
func partner(c *sim.Cluster, s Step) string {
	if s.Other != s.Who {
		return s.Other
	}
	return others(c, s.Who)[0]
}

// exchange has two nodes come back at each other's address, when the fault is lifted.
func exchange(c *sim.Cluster, s Step) error {
	other := partner(c, s)
	_ = each([]string{s.Who, other}, c.Kill) // one that is down already is as good
	return c.Exchange(s.Who, other)
}

// takeAddress has one node come back at once at the address of another, which comes
// back when the fault is lifted.
func takeAddress(c *sim.Cluster, s Step) error {
	if err := exchange(c, s); err != nil {
		return err
	}
	return startOne(c, partner(c, s))
}

// shiftAddresses gives every node the address of the next one.
func shiftAddresses(c *sim.Cluster, _ Step) error {
	all := c.Nodes()
	_ = each(all, c.Kill)
	for i := range all[1:] {
		if err := c.Exchange(all[i], all[i+1]); err != nil {
			return err
		}
	}
	return nil
}
