package node

import (
	"testing"

	"github.com/locknode/locknode/internal/network"
)

// An entry that is longer than a follower accepts would stop replication for ever.
func TestEveryEntryFitsIntoARequest(t *testing.T) {
	const (
		message   = 1 << 20 // a gRPC message, which is one command at most
		keepAlive = 32      // one session
		head      = 1 << 10
	)
	if longest := max(maxEntryBytes, message) + maxEntryCommands*keepAlive + head; longest > network.MaxEntryBytes {
		t.Errorf("an entry may have %d bytes, and a follower accepts %d", longest, network.MaxEntryBytes)
	}
}
