//go:build !unix || solaris || aix || illumos

package disk

import "os"

// lockDir opens the lock file. Without flock, two processes on one directory
// are kept apart by the lock that bbolt takes on the stable store.
func lockDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}

// syncDir does nothing: directories cannot be fsync'd here.
func syncDir(string) error { return nil }
