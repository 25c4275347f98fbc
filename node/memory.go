package node

import (
	"runtime/debug"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/memory"
)

// tableBytes is the name of the limit whose default depends on the machine.
const tableBytes = "table_bytes"

const (
	// tableShare is which part of the memory that the process may take the table may have:
	// the heap grows to twice of what is on it, and snapshots, entries under way and
	// connections need memory, too.
	tableShare    = 4
	leastTable    = 16 << 20
	greatestTable = 16 << 30
)

// tableBytes is the limit of the table's memory where none is configured: a part of what
// this process may take.
func (n *Node) tableBytes() int64 {
	limit, ok := memory.Limit()
	if !ok || n.cfg.seams.Memory != nil { // a simulation is the same on every machine
		return fsm.Limits{}.WithDefaults().TableBytes
	}
	return min(max(limit/tableShare, leastTable), greatestTable) &^ (1<<20 - 1)
}

// serverShare is which part of the memory that the process may take each budget of the server
// may have: there are two and a half for each of two ports.
const (
	serverShare    = 32
	leastServer    = 4 << 20
	greatestServer = 64 << 20
)

// serverBytes is what each budget of the server is.
func serverBytes() int {
	limit := debug.SetMemoryLimit(-1) // as it is: GOMEMLIMIT, or a very large number
	if all, ok := memory.Limit(); ok {
		limit = min(limit, all)
	}
	return int(min(max(limit/serverShare, leastServer), greatestServer))
}

// foundingLimits are those that a new cluster gets.
func (n *Node) foundingLimits() fsm.Limits {
	limits := n.cfg.Limits
	if limits.TableBytes == 0 {
		limits.TableBytes = n.tableBytes()
	}
	return limits
}

// differingLimits names the limits that are configured otherwise than they are.
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
