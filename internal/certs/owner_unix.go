//go:build unix

package certs

import (
	"io/fs"
	"os"
	"syscall"
)

// own gives a file to the owner and group of another one.
func own(path string, as fs.FileInfo) error {
	stat, ok := as.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return os.Chown(path, int(stat.Uid), int(stat.Gid))
}
