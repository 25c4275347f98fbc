package membership

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/network"
)

// What does Raft's configuration say?

// Configured is what has a configuration.
type Configured interface {
	GetConfiguration() raft.ConfigurationFuture
}

// Configuration is the latest one in the log, which may not be committed yet.
func Configuration(r Configured) ([]raft.Server, error) {
	f := r.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return f.Configuration().Servers, nil
}

// Voters returns the voters in the latest configuration. It is an error if there is none or
// it cannot be read: that does not mean that no vote is needed.
func Voters(r Configured) (ids []string, err error) {
	servers, err := Configuration(r)
	if err != nil {
		return nil, err
	}
	if ids = votersIn(servers); len(ids) == 0 {
		return nil, fmt.Errorf("the configuration has no voter: %v", servers)
	}
	return ids, nil
}

// votersIn are the voters in a configuration.
func votersIn(servers []raft.Server) (ids []string) {
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

// Servers returns the latest configuration, empty if it cannot be read. Nothing may be
// decided by it.
func Servers(r Configured) []raft.Server {
	servers, err := Configuration(r)
	if err != nil {
		return nil
	}
	return servers
}

// Find returns a member of a configuration.
func Find(servers []raft.Server, id string) (raft.Server, bool) {
	for _, s := range servers {
		if string(s.ID) == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

// Place is the address of a member in the configuration: host:port.
func Place(s raft.Server) string {
	_, hostport := network.SplitMember(s.Address)
	return hostport
}
