package main

import (
	"log/slog"
	"runtime/debug"

	"github.com/locknode/locknode/internal/memory"
)

// memoryShare is which part of the memory that the process may take, in tenths, the runtime
// is told to stay below: stacks of the system, and pages that the kernel counts for the
// process, come on top.
const memoryShare = 9

// limitMemory has the garbage collector work harder before the process takes more memory
// than it may, unless GOMEMLIMIT says how much that is.
func (a *app) limitMemory(log *slog.Logger) {
	if set, ok := a.lookup("GOMEMLIMIT"); ok && set != "" {
		return // the runtime has read it
	}
	limit, ok := memory.Limit()
	if !ok {
		return
	}
	debug.SetMemoryLimit(limit / 10 * memoryShare)
	log.Debug("memory limit", "bytes", limit, "soft_limit", limit/10*memoryShare)
}
