//go:build unix && !linux

package faultdisk

// unmount does nothing: faultfs mounts nothing here.
func unmount(string) {}
