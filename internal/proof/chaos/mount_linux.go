package chaos

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// mountSmall mounts a small disk, in memory, at a directory.
func mountSmall(dir string) error {
	if err := unix.Mount("locknode-chaos", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", smallDisk)); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	return nil
}

func unmount(dir string) error {
	if err := unix.Unmount(dir, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}
