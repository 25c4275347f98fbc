//go:build unix && !linux

package netns

import (
	"errors"
	"os/exec"
)

var errOnlyLinux = errors.New("network namespaces are only on Linux")

// Available says why labs cannot be made here, nil if they can.
func Available() error { return errOnlyLinux }

// Command is a program to be run in a network namespace of its own.
func Command(name string, args ...string) *exec.Cmd { return exec.Command(name, args...) }

// Lab is a bridge and the hosts at it.
type Lab struct{}

// New makes the bridge.
func New(string) (*Lab, error) { return nil, errOnlyLinux }

// Host makes a host.
func (*Lab) Host(string) (string, error) { return "", errOnlyLinux }

// Enter moves the calling goroutine's thread into a host's namespace.
func (*Lab) Enter(string) error { return errOnlyLinux }

// Cut cuts the ways from some hosts to others.
func (*Lab) Cut(_, _ []string) error { return errOnlyLinux }

// Heal opens all ways.
func (*Lab) Heal() error { return errOnlyLinux }

// Close lets the namespaces go.
func (*Lab) Close() error { return nil }
