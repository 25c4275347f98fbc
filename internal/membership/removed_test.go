package membership

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/peerapi"
)

func TestOnlyALeaderSaysThatANodeWasRemoved(t *testing.T) {
	members := func(pairs ...string) *apiv1.MembersResponse {
		var res apiv1.MembersResponse
		for i := 0; i < len(pairs); i += 2 {
			res.Members = append(res.Members, &apiv1.Member{Id: pairs[i], Role: pairs[i+1]})
		}
		return &res
	}
	for name, c := range map[string]struct {
		res  *apiv1.MembersResponse
		want bool
	}{
		"the leader does not know it":                 {members("a", "leader", "b", "voter"), true},
		"the leader hears it by gossip alone":         {members("a", "leader", "x", "none"), true},
		"the leader has it":                           {members("a", "leader", "x", "voter"), false},
		"a follower has not got the configuration":    {members("a", "voter", "b", "leader", "x", "none"), false},
		"nobody leads, as far as the other one knows": {members("a", "voter", "b", "voter"), false},
	} {
		if got := removedFrom(c.res, "a", "x"); got != c.want {
			t.Errorf("%s: removed is %v, want %v", name, got, c.want)
		}
	}
}

// remover is a connection to a node that says it leads, without another one in its
// configuration.
type remover struct {
	leads bool // as its voters see it
}

func (r remover) Invoke(_ context.Context, method string, _, reply any, _ ...grpc.CallOption) error {
	switch method {
	case apiv1.Locks_Members_FullMethodName:
		reply.(*apiv1.MembersResponse).Members = []*apiv1.Member{{Id: "a", Role: "leader"}}
		return nil
	case peerapi.Peers_ReadIndex_FullMethodName:
		if !r.leads {
			return errors.New("1 of 3 voters said yes, 2 are needed")
		}
		return nil
	}
	return fmt.Errorf("unexpected call %s", method)
}

func (remover) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("no streams here")
}

// TestALeaderThatWasDeposedRemovesNobody: it says from memory that it leads, and may
// have a change in its log that nobody else has.
func TestALeaderThatWasDeposedRemovesNobody(t *testing.T) {
	for _, leads := range []bool{true, false} {
		m := New(Config{ID: "x", Conn: func(string, string) (grpc.ClientConnInterface, error) { return remover{leads}, nil }})
		if got := m.saysRemoved(t.Context(), place{"a", "a:4"}); got != leads {
			t.Errorf("a leader that its voters confirm: %v; removed: %v", leads, got)
		}
	}
}
