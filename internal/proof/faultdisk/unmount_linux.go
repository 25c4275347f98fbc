package faultdisk

import (
	"errors"
	"syscall"
)

// unmount takes away a mount whose process is gone. It fails where nothing is
// mounted, which is what is wanted.
func unmount(dir string) {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); errors.Is(err, syscall.ENOTCONN) {
		_ = syscall.Unmount(dir, syscall.MNT_DETACH)
	}
}
