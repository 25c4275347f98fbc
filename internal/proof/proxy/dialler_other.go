//go:build !linux

package proxy

import "net"

// dialler cannot find out who has dialled without /proc: all are somebody else.
func dialler(func() map[int]string) func(net.Conn) string {
	return func(net.Conn) string { return "" }
}
