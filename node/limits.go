package node

import "github.com/locknode/locknode/fsm"

// foundingLimits returns the limits of a new cluster. It is at level 1 at first: what came
// later can be set when all members know it, and until then is in differingLimits.
func (n *Node) foundingLimits() fsm.Limits {
	limits := n.cfg.Limits.OfLevel(1)
	if limits.TableBytes == 0 {
		limits.TableBytes = n.tableBytes()
	}
	return limits
}

// differingLimits returns the names of the limits whose configured value differs from the
// table's.
func (n *Node) differingLimits(are fsm.Limits) (names []string) {
	if n.cfg.Limits == (fsm.Limits{}) {
		return nil
	}
	want := n.cfg.Limits.WithDefaults()
	if n.cfg.Limits.TableBytes == 0 {
		want.TableBytes = are.TableBytes
	}
	have := are.All()
	for i, l := range want.All() {
		if l.Value != have[i].Value {
			names = append(names, "limits."+l.Name)
		}
	}
	return names
}
