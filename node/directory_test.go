package node

import (
	"testing"

	apiv1 "github.com/locknode/locknode/api/v1"
)

func TestDirectoryHasTheMembersOfTheConfiguration(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	want := map[string]string{}
	for _, n := range c.nodes {
		want[n.ID()] = n.APIAddr()
	}
	for _, n := range c.nodes {
		c.eventually("every node knows where all members are", func() bool {
			s, err := wire{n}.Status(c.ctx())
			d := s.GetDirectory()
			if err != nil || d.GetClusterId() == "" || d.GetClusterId() != s.GetClusterId() || len(d.GetMembers()) != len(want) {
				return false
			}
			for _, p := range d.GetMembers() {
				if want[p.GetId()] != p.GetApiAddress() {
					return false
				}
			}
			return true
		})
	}
	// A node that was removed is no longer in it, although gossip still sees it.
	gone := c.follower()
	if _, err := (wire{c.leader()}).RemoveMember(c.ctx(), &apiv1.RemoveMemberRequest{Id: gone.ID()}); err != nil {
		t.Fatal(err)
	}
	for _, p := range c.leader().directory().GetMembers() {
		if p.GetId() == gone.ID() {
			t.Errorf("the directory still has %v", p)
		}
	}
}
