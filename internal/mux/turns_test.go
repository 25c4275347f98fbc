package mux

import (
	"testing"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/fair"
)

// A node forwards for many clients over one stream.
func TestForwardedCallsTakeTurns(t *testing.T) {
	for _, lane := range []struct {
		name string
		op   *apiv1.Operation
	}{
		{"work", &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{}}}},
		{"keep-alives", &apiv1.Operation{Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{}}}},
	} {
		c := &Conn{pending: map[uint64]*Call{}, cfg: Config{Patience: NewPatience(0)}}
		start := func(connection uint64) uint64 {
			c.lastID++
			call := &Call{Op: lane.op, Owner: fair.Owner{Address: 1, Connection: connection}}
			c.queueLocked(queued{c.lastID, call})
			return c.lastID
		}
		for range 10 * MaxOperations {
			start(1)
		}
		late := start(2)
		var ahead, work outbox
		c.take(&ahead, &work)
		next := append(ahead.rest, work.rest...)
		if len(next) != MaxOperations || next[1].id != late {
			t.Errorf("%s: of %d in the next message, number 2 is %d; want that another client's, %d, takes its turn", lane.name, len(next), next[1].id, late)
		}
	}
}
