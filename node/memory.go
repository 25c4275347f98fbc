package node

import (
	"runtime/debug"

	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/memory"
)

// tableBytes is the name of the limit whose default depends on the machine.
const tableBytes = "table_bytes"

const (
	// tableShare is the share of the table in the memory that the process may take, as a
	// divisor: the heap grows to twice of what is on it, and snapshots, entries under way
	// and connections need memory as well.
	tableShare    = 4
	leastTable    = 16 << 20
	greatestTable = 16 << 30
)

// tableBytes returns the limit of the table's memory if none is configured: a share of what
// this process may take.
func (n *Node) tableBytes() int64 {
	limit, ok := memory.Limit()
	if !ok || n.cfg.seams.Memory != nil { // a simulation is the same on every machine
		return fsm.Limits{}.WithDefaults().TableBytes
	}
	return min(max(limit/tableShare, leastTable), greatestTable) &^ (1<<20 - 1)
}

// serverShare is the share of each budget of the server in the memory that the process may
// take, as a divisor: there are two and a half budgets for each of two ports.
const (
	serverShare    = 32
	leastServer    = 4 << 20
	greatestServer = 64 << 20
)

// serverBytes returns the bytes of each budget of the server.
func serverBytes() int {
	limit := debug.SetMemoryLimit(-1) // as it is: GOMEMLIMIT, or a very large number
	if all, ok := memory.Limit(); ok {
		limit = min(limit, all)
	}
	return int(min(max(limit/serverShare, leastServer), greatestServer))
}
