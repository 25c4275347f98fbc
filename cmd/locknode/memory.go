package main

import (
	"log/slog"
	"runtime/debug"

	"github.com/locknode/locknode/internal/memory"
)

// memoryShare is the soft limit of the Go runtime, in tenths of the memory that the process
// may use. The rest is for system stacks and for pages that the kernel charges to the
// process.
const memoryShare = 9

// limitMemory sets the runtime's soft limit, so that the garbage collector works harder
// before the process uses more memory than it may. GOMEMLIMIT takes precedence.
func (a *app) limitMemory(log *slog.Logger) {
	if set, ok := a.lookup("GOMEMLIMIT"); ok && set != "" {
		return // the runtime applies it
	}
	limit, ok := memory.Limit()
	if !ok {
		return
	}
	debug.SetMemoryLimit(limit / 10 * memoryShare)
	log.Debug("memory limit", "bytes", limit, "soft_limit", limit/10*memoryShare)
}
