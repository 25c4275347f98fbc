package cluster

import (
	"net"
	"testing"

	"github.com/hashicorp/memberlist"
)

// memberNode is a node as memberlist hands it to callbacks.
func memberNode(t *testing.T, m Meta, ip string, port uint16) *memberlist.Node {
	t.Helper()
	buf, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	return &memberlist.Node{Name: m.NodeID, Addr: net.ParseIP(ip), Port: port, Meta: buf}
}
