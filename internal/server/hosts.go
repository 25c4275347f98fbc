package server

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// Web pages must not reach the locks through their visitors' browsers.
// http.CrossOriginProtection refuses what a page sends to another site. But a page of
// evil.example can have its name resolved to the address of a node after it was loaded (DNS
// rebinding): for the browser the node is then the page's own site. The Host of such a
// request is still evil.example. So a node answers only under names that are configured.
//
// IP addresses are always allowed: the site of a page cannot be the address of a node,
// unless the node has served the page. So is localhost, which browsers do not look up, and
// a request without a Host, which no browser sends.

// unnamed are the paths that are answered under every name: health checks use names that
// are not configured, and these paths change nothing and reveal little.
var unnamed = []string{"/healthz", "/readyz"}

// SetHosts replaces the names under which HTTP is answered besides IP addresses and
// localhost: DNS names, or "*." and a DNS name for all names below it. Upper and lower
// case are the same.
func (s *Server) SetHosts(names []string) {
	names = slices.Clone(names)
	for i := range names {
		names[i] = strings.ToLower(strings.TrimSuffix(names[i], "."))
	}
	s.hosts.Store(&names)
}

// checkHost refuses a request that was sent to a name that is not configured. For HTTP/2,
// and where the target is a whole URL, net/http has put its host into r.Host.
func (s *Server) checkHost(r *http.Request) *apiv1.Error {
	if slices.Contains(unnamed, r.URL.EscapedPath()) || s.answersTo(r.Host) {
		return nil
	}
	return apiv1.NewError(apiv1.CodeDenied, "host: is %.100q, must be an IP address, localhost or one of http_hosts, so that no web page reaches this node under its own name (DNS rebinding): "+
		"use an IP address, or add the name to http_hosts of the node", r.Host)
}

func (s *Server) answersTo(hostport string) bool {
	host, ok := withoutPort(hostport)
	if !ok {
		return false
	}
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return true
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	names := s.hosts.Load()
	return names != nil && slices.ContainsFunc(*names, func(name string) bool {
		if below, ok := strings.CutPrefix(name, "*"); ok {
			return len(host) > len(below) && strings.HasSuffix(host, below)
		}
		return host == name
	})
}

// withoutPort removes the port and the brackets of IPv6 from a Host. ok is false if it is
// no host.
func withoutPort(hostport string) (host string, ok bool) {
	if inside, bracket := strings.CutPrefix(hostport, "["); bracket {
		host, port, closed := strings.Cut(inside, "]")
		return host, closed && strings.Contains(host, ":") && (port == "" || isPort(port))
	}
	i := strings.IndexByte(hostport, ':')
	if i < 0 {
		return hostport, true
	}
	if strings.LastIndexByte(hostport, ':') != i {
		return hostport, true // IPv6 without brackets, or no name at all
	}
	return hostport[:i], isPort(hostport[i:])
}

// isPort reports whether s is a colon and any number of digits.
func isPort(s string) bool { return s[0] == ':' && strings.Trim(s[1:], "0123456789") == "" }
