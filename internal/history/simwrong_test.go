package history

import (
	"time"

	"github.com/locknode/locknode/fsm"
)

// wrong makes the world wrong in one way. Its zero value does nothing.
type wrong struct {
	w     *world
	kind  string
	fired int
}

func (x *wrong) advance(d time.Duration) time.Duration    { return d }
func (x *wrong) change(c fsm.Command) fsm.Command         { return c }
func (x *wrong) again(c fsm.Command, try int) fsm.Command { return c }
func (x *wrong) applied(a *fsm.Applied)                   {}
func (x *wrong) answer(c fsm.Command, r *fsm.Result)      {}
func (x *wrong) bound(at time.Duration) time.Duration     { return at }
func (x *wrong) view(lock string, v view) view            { return v }
func (x *wrong) holders(lock string) []uint64             { return tokensOf(x.w.table.Lock(lock).Holders) }
func (x *wrong) afterwards()                              {}
