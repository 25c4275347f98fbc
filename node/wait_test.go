package node

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/mux"
)

// waitBench applies entries to a table and wakes waits with their events, as a
// node does, one step at a time.
type waitBench struct {
	t       *testing.T
	waits   *waits
	machine *fsm.Machine
	index   uint64
}

func newWaitBench(t *testing.T) *waitBench {
	b := &waitBench{t: t, waits: newWaits()}
	b.machine = fsm.NewMachine(func(a fsm.Applied) { b.waits.observe(&a) })
	return b
}

// apply puts commands into one entry.
func (b *waitBench) apply(commands ...fsm.Command) fsm.Applied {
	b.t.Helper()
	b.index++
	data := fsm.AppendHeader(nil, 1, int64(b.index), 0, len(commands))
	for _, c := range commands {
		data = fsm.AppendCommand(data, c)
	}
	a, ok := b.machine.Apply(&raft.Log{Index: b.index, Term: 1, Type: raft.LogCommand, Data: data}).(fsm.Applied)
	if !ok || a.Refused != fsm.OK {
		b.t.Fatalf("entry %d: %+v", b.index, a)
	}
	return a
}

// try is one sending of an acquire that waits.
type try struct {
	call   *mux.Call
	cmd    fsm.Acquire
	answer *apiv1.Answer // nil: none yet
}

// enter is what happens before the try is proposed.
func (b *waitBench) enter(attempt uint64) *try {
	tr := &try{cmd: detachedAcquire("orders", 1, time.Hour)}
	tr.cmd.Wait, tr.cmd.ID.Sequence = int64(time.Hour), attempt
	tr.call = &mux.Call{
		Op:   &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{}}},
		Done: func(a *apiv1.Answer) { tr.answer = a },
	}
	b.waits.enter(keyOf(tr.cmd.ID), tr.call)
	return tr
}

// told is what happens when the result of the try's own entry arrives.
func (b *waitBench) told(tr *try, a fsm.Applied, i int) {
	if a.Results[i].Code == fsm.Queued {
		if end := b.waits.queued(keyOf(tr.cmd.ID), tr.call); end != nil {
			tr.call.Done(end)
		}
		return
	}
	if b.waits.remove(keyOf(tr.cmd.ID), tr.call) {
		tr.call.Done(answer(tr.call.Op, &a.Results[i], a.Index, a.Now))
	}
}

// held is the token of the lock's holder, 0 if it is free.
func (b *waitBench) held() (token uint64) {
	b.machine.View(func(t *fsm.Table) {
		if h := t.Lock("orders").Holders; len(h) > 0 {
			token = h[0].Token
		}
	})
	return token
}

// occupy has somebody else take the lock; the returned command frees it.
func (b *waitBench) occupy() fsm.Release {
	a := b.apply(detachedAcquire("orders", 99, time.Hour))
	return fsm.Release{Lock: "orders", Token: a.Results[0].Token}
}

// A waiter's node stops; the waiter asks another one. The second try is on its way
// when the grant comes, and the cancel of the first try is before it in the log:
// the grant is gone again when the second try is applied.
func TestATryOnItsWayIsNotToldOfTheGrantOfAnEarlierOne(t *testing.T) {
	b := newWaitBench(t)
	free := b.occupy()
	first := b.enter(1)
	b.told(first, b.apply(first.cmd), 0)
	first.call.Abandon()
	second := b.enter(2)
	b.apply(free) // grants the request
	b.apply(fsm.Cancel{Target: first.cmd.ID})
	if second.answer != nil {
		t.Fatalf("the second try was answered %v before it was applied; the lock is held with token %d", second.answer, b.held())
	}
	b.told(second, b.apply(second.cmd), 0)
	if got := second.answer.GetAcquire().GetToken(); got == 0 || got != b.held() {
		t.Errorf("the second try was given token %d, the lock is held with %d", got, b.held())
	}
}

// The same, with the cancel and the second try in one entry, and the lock taken by
// somebody else in between: the second try stands in line anew.
func TestATryThatQueuesAnewIsNotToldOfAnEarlierEnd(t *testing.T) {
	b := newWaitBench(t)
	free := b.occupy()
	first := b.enter(1)
	b.told(first, b.apply(first.cmd), 0)
	first.call.Abandon()
	second := b.enter(2)
	a := b.apply(fsm.Cancel{Target: first.cmd.ID}, second.cmd)
	b.told(second, a, 1)
	if second.answer != nil {
		t.Fatalf("the second try was answered %v while it stands in line", second.answer)
	}
	b.apply(free)
	if got := second.answer.GetAcquire().GetToken(); got == 0 || got != b.held() {
		t.Errorf("the second try was given token %d, the lock is held with %d", got, b.held())
	}
}

// The word that a call is in line comes later than its entry was applied; an end of
// the wait between the two must not be lost.
func TestAGrantBeforeTheWordQueuedIsDelivered(t *testing.T) {
	t.Run("in the same entry", func(t *testing.T) {
		b := newWaitBench(t)
		free := b.occupy()
		tr := b.enter(1)
		b.told(tr, b.apply(tr.cmd, free), 0)
		if got := tr.answer.GetAcquire().GetToken(); got == 0 || got != b.held() {
			t.Errorf("given token %d, the lock is held with %d", got, b.held())
		}
	})
	t.Run("in the next entry", func(t *testing.T) {
		b := newWaitBench(t)
		free := b.occupy()
		tr := b.enter(1)
		a := b.apply(tr.cmd)
		b.apply(free)
		if tr.answer != nil {
			t.Fatalf("answered %v before the word that it is queued", tr.answer)
		}
		b.told(tr, a, 0)
		if got := tr.answer.GetAcquire().GetToken(); got == 0 || got != b.held() {
			t.Errorf("given token %d, the lock is held with %d", got, b.held())
		}
		if b.waits.len() != 0 {
			t.Errorf("%d calls are left in the registry", b.waits.len())
		}
	})
	t.Run("for a retry that finds its place in line", func(t *testing.T) {
		b := newWaitBench(t)
		free := b.occupy()
		first := b.enter(1)
		b.told(first, b.apply(first.cmd), 0)
		second := b.enter(2)
		a := b.apply(second.cmd)
		b.apply(free)
		b.told(second, a, 0)
		for _, tr := range []*try{first, second} {
			if got := tr.answer.GetAcquire().GetToken(); got == 0 || got != b.held() {
				t.Errorf("try %d was given token %d, the lock is held with %d", tr.cmd.ID.Sequence, got, b.held())
			}
		}
	})
}
