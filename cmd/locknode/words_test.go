//go:build unix

package main

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// foreignWords are words from the errors of libraries, which do not help a user.
var foreignWords = []string{"http2", "frame", "preface", "rpc error", "desc =", "transport", "closed network connection", "become ready", "unknown_outcome", "context deadline", "EOF"}

// TestWrongEndpointsAreToldInPlainWords runs each command with an endpoint that is not an API
// port.
func TestWrongEndpointsAreToldInPlainWords(t *testing.T) {
	t.Parallel()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	nobody := listen()
	_ = nobody.Close()
	n := sharedCluster(t).Nodes()[0]
	for name, c := range map[string]struct{ address, want string }{
		"the HTTP port":     {n.HTTP(), "this is not the API port of a node: HTTP/1 is spoken there, as on a node's other ports"},
		"the Raft port":     {n.Raft(), "this is not the API port of a node: HTTP/1 is spoken there, as on a node's other ports"},
		"the gossip port":   {n.Gossip(), "this is not the API port of a node"},
		"nobody":            {nobody.Addr().String(), "connection refused: nothing listens there; is the node started, and is the port right?"},
		"a stopped process": {listen().Addr().String(), "it takes connections but does not answer: is the process stopped, or is this not the API port of a node?"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, args := range [][]string{
				{"get", "a"}, {"acquire", "a"}, {"release", "a", "1"}, {"members"}, {"status"}, {"transfer-leadership"},
				{"members", "remove", "n1"}, {"wait"},
			} {
				want, limit := exitUnavailable, "--connect-timeout"
				if args[0] == "wait" {
					want, limit = exitNotAcquired, "--timeout"
				}
				longer(t, time.Second, func(d time.Duration) string {
					o := locknodeAt(t, []string{c.address}, append(args[:len(args):len(args)], limit, d.String())...)
					if o.code != want || o.stdout != "" {
						t.Errorf("locknode %q: got %+v, want exit code %d", args, o, want)
					}
					if !strings.Contains(o.stderr, c.address+": "+c.want) {
						return fmt.Sprintf("locknode %q: got %+v, want %q", args, o, c.want)
					}
					for _, word := range foreignWords {
						if strings.Contains(o.stderr, word) {
							t.Errorf("locknode %q: %q: %q is a word of a library", args, o.stderr, word)
						}
					}
					return ""
				})
			}
		})
	}
}

// TestHangingEndpointsHoldUpNobody gives commands many endpoints that accept connections and
// do not answer: they still find the nodes among the other endpoints.
func TestHangingEndpointsHoldUpNobody(t *testing.T) {
	t.Parallel()
	var endpoints []string
	for range 16 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		endpoints = append(endpoints, l.Addr().String())
	}
	cluster := startCluster(t, clusterOptions())
	endpoints = append(endpoints, cluster.Endpoints()...)
	for _, args := range [][]string{{"members"}, {"status"}, {"status", "--check"}, {"get", "a"}, {"transfer-leadership"}, {"wait"}} {
		locknodeAt(t, endpoints, args...).succeeds(t)
	}
	if o := locknodeAt(t, endpoints, "members", "remove", "nobody"); o.code != exitOther || !strings.Contains(o.stderr, "no_member") {
		t.Errorf("members remove: got %+v, want no_member", o)
	}
}
