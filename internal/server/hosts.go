package server

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// Web pages must not reach the locks through their visitors' browsers. What a page sends to
// another site, http.CrossOriginProtection refuses. But a page of evil.example may have its
// name resolved to the address of a node after it was loaded (DNS rebinding): to the browser
// the node is then the page's own site. What gives it away is the Host of its requests, in
// which the browser puts evil.example. So a node answers only to names of which it knows.
//
// IP addresses are always answered to: a page cannot have one of a node for its own, unless
// the node has served it. So is localhost, which browsers do not look up, and a request
// without a Host, which no browser sends.

// unnamed are the paths that are answered under every name: health checks go by names that
// nobody has told the node of, and these change nothing and tell little.
var unnamed = []string{"/healthz", "/readyz"}

// SetHosts replaces the names under which HTTP is answered besides IP addresses and
// localhost: DNS names, or "*." and one, for all below it.
func (s *Server) SetHosts(names []string) {
	names = slices.Clone(names)
	for i := range names {
		names[i] = strings.ToLower(strings.TrimSuffix(names[i], "."))
	}
	s.hosts.Store(&names)
}

// checkHost refuses a request that was sent to a name of somebody else's. For HTTP/2, and
// where the target is a whole URL, net/http has put the host of that in r.Host.
func (s *Server) checkHost(r *http.Request) *apiv1.Error {
	if slices.Contains(unnamed, r.URL.EscapedPath()) || s.answersTo(r.Host) {
		return nil
	}
	return apiv1.NewError(apiv1.CodeDenied, "host %.100q: this node does not answer under that name, so that no web page reaches it by a name of its own (DNS rebinding): "+
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

// withoutPort takes the port and the brackets of IPv6 off a Host; false if it is none.
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
		return hostport, true // IPv6 without brackets, or nothing that is a name
	}
	return hostport[:i], isPort(hostport[i:])
}

// isPort reports whether s is a colon and digits, which may be missing.
func isPort(s string) bool { return s[0] == ':' && strings.Trim(s[1:], "0123456789") == "" }
