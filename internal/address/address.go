// Package address says which addresses people may write down for a node, and what is
// wrong with others.
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

// names is what a host name looks like: RFC 1123, and underscores, which are in use.
var names = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$`)

// Host checks a host that others are to dial: a name, or an IP address, of IPv6 also
// in brackets. It returns the host without them.
func Host(s string) (string, error) {
	host := s
	if rest, ok := strings.CutPrefix(s, "["); ok {
		inside, ok := strings.CutSuffix(rest, "]")
		if !ok {
			return "", withPort(s)
		}
		if a, err := netip.ParseAddr(inside); err != nil || !a.Is6() {
			return "", errors.New("an IPv6 address is allowed in brackets, such as [fd00::1]")
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
		return "", errors.New("a host is allowed: a name, or an IP address")
	}
	return host, nil
}

// withPort is what is wrong with s, which is no host and has a colon.
func withPort(s string) error {
	if host, port, err := net.SplitHostPort(s); err == nil {
		return fmt.Errorf("a host without a port is allowed, such as %s: the port %s belongs to the address that is listened on", host, port)
	}
	return errors.New("a host without a port is allowed: a name, or an IP address")
}

func dialable(a netip.Addr) error {
	switch {
	case a.IsUnspecified():
		return errors.New("it stands for every address of this machine, and others cannot dial it: a name, or an address of this machine is allowed")
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return errors.New("it is no address of one machine: a name, or an address of this machine is allowed")
	case a.Zone() != "":
		return errors.New("its zone means something on this machine only: an address without one is allowed")
	}
	return nil
}

// Dial checks host:port of another node.
func Dial(s string) error {
	host, port, err := net.SplitHostPort(s)
	if n, e := strconv.Atoi(port); err != nil || e != nil || n < 1 || n > 65535 || host == "" {
		return errors.New("host:port is allowed, such as 10.0.0.1:7403, with a port from 1 to 65535")
	}
	if strings.HasPrefix(s, "[") {
		host = "[" + host + "]"
	}
	if _, err := Host(host); err != nil {
		return err
	}
	return nil
}

// Name checks a name under which a node answers: a DNS name, or "*." and one, which stands
// for every name below it.
func Name(s string) error {
	name := strings.TrimPrefix(s, "*.")
	if host, err := Host(name); err == nil && host == name {
		if _, err := netip.ParseAddr(name); err != nil {
			return nil
		}
		return errors.New("a name is allowed: IP addresses are always answered to")
	}
	return errors.New(`a name without a port is allowed, such as locks.example.org, or *.locks.example.org for all below it`)
}
