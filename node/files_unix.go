//go:build unix

package node

import "syscall"

// fileLimit returns how many files the process may open; the runtime has raised that to the
// hard limit.
func fileLimit() (limit uint64, ok bool) {
	var r syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r) != nil {
		return 0, false
	}
	return uint64(r.Cur), true //nolint:unconvert // on some systems it is signed
}
