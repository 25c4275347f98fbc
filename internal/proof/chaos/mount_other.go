//go:build unix && !linux

package chaos

import "errors"

var errOnlyLinux = errors.New("only done on Linux")

func mountSmall(string) error { return errOnlyLinux }

func unmount(string) error { return errOnlyLinux }
