// Package address checks the addresses that people configure for nodes. Its errors complete
// the sentence "field: is X, ...".
package address

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// names matches host names: those of RFC 1123, and underscores, which are in use.
var names = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$`)

// Host checks a host that other nodes and clients dial: a name, or an IP address, of IPv6 also
// in brackets. It returns the host without brackets.
func Host(s string) (string, error) {
	host := s
	if rest, ok := strings.CutPrefix(s, "["); ok {
		inside, ok := strings.CutSuffix(rest, "]")
		if !ok {
			return "", withPort(s)
		}
		if a, err := netip.ParseAddr(inside); err != nil || !a.Is6() {
			return "", errors.New("must have an IPv6 address in the brackets, such as [fd00::1]")
		}
		host = inside
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return host, dialable(a.Unmap())
	}
	if strings.Contains(host, ":") {
		return "", withPort(s)
	}
	if last := host[strings.LastIndexByte(strings.TrimSuffix(host, "."), '.')+1:]; strings.Trim(last, "0123456789.") == "" || !names.MatchString(host) || len(host) > 253 {
		return "", errors.New("must be a host: a name, or an IP address")
	}
	return host, nil
}

// withPort returns the error for s, which is no host and has a colon.
func withPort(s string) error {
	if host, port, err := net.SplitHostPort(s); err == nil {
		return fmt.Errorf("must be a host without a port, such as %s: the port %s belongs to the address that is listened on", host, port)
	}
	return errors.New("must be a host without a port: a name, or an IP address")
}

// dialable returns an error for an address that others cannot dial.
func dialable(a netip.Addr) error {
	switch {
	case a.IsUnspecified():
		return errors.New("must be a name, or an address of this machine: it stands for every address, and others cannot dial it")
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return errors.New("must be a name, or an address of this machine: it is no address of one machine")
	case a.Zone() != "":
		return errors.New("must be an address without a zone, which has a meaning on this machine only")
	}
	return nil
}

// Dial checks the address of another node, host:port.
func Dial(s string) error {
	host, port, err := net.SplitHostPort(s)
	if n, e := strconv.Atoi(port); err != nil || e != nil || n < 1 || n > 65535 || host == "" {
		return errors.New("must be host:port, such as 10.0.0.1:7403, with a port from 1 to 65535")
	}
	if strings.HasPrefix(s, "[") {
		host = "[" + host + "]"
	}
	if _, err := Host(host); err != nil {
		return err
	}
	return nil
}

// Name checks a host name for which a node serves HTTP: a DNS name, or "*." and a DNS name,
// which stands for every name below it.
func Name(s string) error {
	name := strings.TrimPrefix(s, "*.")
	if host, err := Host(name); err == nil && host == name {
		if _, err := netip.ParseAddr(name); err != nil {
			return nil
		}
		return errors.New("must be a name: requests for IP addresses are always answered")
	}
	return errors.New(`must be a name without a port, such as locks.example.org, or *.locks.example.org for all below it`)
}
