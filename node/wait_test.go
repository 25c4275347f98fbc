package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/replica"
)

// waitBench applies entries to a table and passes their events to waits, as a node does, one
// step at a time.
type waitBench struct {
	t       *testing.T
	waits   *waits
	machine *replica.Table
	index   uint64
}

func newWaitBench(t *testing.T) *waitBench {
	b := &waitBench{t: t, waits: newWaits()}
	b.machine = replica.New(func(a fsm.Applied) { b.waits.observe(&a) })
	return b
}

// apply puts commands into one entry.
func (b *waitBench) apply(commands ...fsm.Command) fsm.Applied {
	b.t.Helper()
	b.index++
	data := fsm.AppendHeader(nil, 1, fsm.Instant(b.index), 0, len(commands))
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
	call    *mux.Call
	cmd     fsm.Acquire
	waiting *waitingCall
	answer  *apiv1.Answer // nil: none yet
}

// enter does what a node does before it proposes the try. Tries with the same sequence are
// copies of each other.
func (b *waitBench) enter(sequence int) *try {
	tr := &try{cmd: detachedAcquire("orders", sequence, time.Hour)}
	tr.cmd.Wait = int64(time.Hour)
	tr.call = &mux.Call{
		Op:   &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{Locks: []*apiv1.Want{{Name: "orders"}}}}},
		Done: func(a *apiv1.Answer) { tr.answer = a },
	}
	tr.waiting = b.waits.enter(keyOf(tr.cmd.ID), tr.call)
	return tr
}

// underOnce is enter for a try under one once ID.
func (b *waitBench) underOnce(sequence int, wait time.Duration) *try {
	tr := b.enter(sequence)
	tr.cmd.ID.Once, tr.cmd.Wait = fsm.OnceID{1}, int64(wait)
	return tr
}

// result does what a node does when the result of the try's own entry arrives.
func (b *waitBench) result(tr *try, a fsm.Applied, i int) {
	if a.Results[i].Code == fsm.Queued {
		if end := b.waits.queued(tr.waiting, outcome{result: a.Results[i], index: a.Index, now: a.Now}); end != nil {
			tr.call.Done(end)
		}
		return
	}
	if b.waits.remove(tr.waiting) {
		tr.call.Done(answer(tr.call.Op, &a.Results[i], a.Index, a.Now))
	}
}

// held returns the token of the lock's holder, 0 if it is free.
func (b *waitBench) held() (token uint64) {
	b.machine.View(func(t *fsm.Table) {
		if h := t.Lock("orders").Holders; len(h) > 0 {
			token = h[0].Token
		}
	})
	return token
}

// occupy acquires the lock in another session; the returned command releases it.
func (b *waitBench) occupy() fsm.Release {
	b.apply(openAcquirers())
	c := detachedAcquire("orders", 99, time.Hour)
	c.Holder = "alice"
	a := b.apply(c)
	return fsm.Release{Lock: "orders", Token: a.Results[0].Token}
}

// The request is sent again while its first copy waits. The second copy is on its way when
// the grant comes, and a cancel is before it in the log: the grant has ended when the copy
// is applied.
func TestACopyOnItsWayIsNotAnsweredWithTheGrantOfAnEarlierOne(t *testing.T) {
	b := newWaitBench(t)
	free := b.occupy()
	first := b.enter(1)
	b.result(first, b.apply(first.cmd), 0)
	first.call.Abandon()
	second := b.enter(1)
	b.apply(free) // grants the request
	b.apply(fsm.Cancel{Target: first.cmd.ID})
	if second.answer != nil {
		t.Fatalf("the copy was answered %v before it was applied; the lock is held with token %d", second.answer, b.held())
	}
	b.result(second, b.apply(second.cmd), 0)
	if got := apiv1.Code(second.answer.GetError().GetCode()); got != apiv1.CodeNotHeld {
		t.Errorf("the copy was answered %v, want not_held", second.answer)
	}
}

// TestEveryTryOfARequestIDIsAnswered: tries in several sequences, as different nodes
// send them, wait as one request.
func TestEveryTryOfARequestIDIsAnswered(t *testing.T) {
	b := newWaitBench(t)
	free := b.occupy()
	tries := []*try{b.underOnce(1, time.Hour), b.underOnce(2, time.Hour), b.underOnce(3, time.Hour)}
	for _, tr := range tries {
		b.result(tr, b.apply(tr.cmd), 0)
	}
	b.apply(fsm.Cancel{Target: tries[0].cmd.ID})
	if got := apiv1.Code(tries[0].answer.GetError().GetCode()); got != apiv1.CodeCancelled {
		t.Errorf("the try that was cancelled is answered %v", tries[0].answer)
	}
	if tries[1].answer != nil || tries[2].answer != nil {
		t.Fatalf("the others are answered %v and %v while they wait", tries[1].answer, tries[2].answer)
	}
	b.apply(free)
	for _, tr := range tries[1:] {
		if got := tr.answer.GetAcquire().GetToken(); got == 0 || got != b.held() {
			t.Errorf("try %d was given token %d, the lock is held with %d", tr.cmd.ID.Sequence, got, b.held())
		}
	}
}

// TestAnAnswerIsStampedWithTheEntryOfItsOwnCall: a client counts the TTL from when it sent
// the call that is answered. After a wait that is not the time of the grant, and for a retry
// not that of the first try.
func TestAnAnswerIsStampedWithTheEntryOfItsOwnCall(t *testing.T) {
	b := newWaitBench(t)
	free := b.occupy() // index and cluster time are the same here
	first := b.underOnce(1, time.Hour)
	b.result(first, b.apply(first.cmd), 0)
	came := int64(b.index)
	b.apply()
	second := b.underOnce(2, time.Hour)
	b.result(second, b.apply(second.cmd), 0)
	later := int64(b.index)
	b.apply()
	b.apply(free)
	granted := int64(b.index)
	b.apply()
	third := b.underOnce(3, 0)
	b.result(third, b.apply(third.cmd), 0)
	repeated := int64(b.index)
	b.apply()
	again := b.underOnce(1, time.Hour) // a copy of the first
	b.result(again, b.apply(again.cmd), 0)
	for i, want := range []struct{ stamp, queued int64 }{{came, came}, {later, later}, {repeated, repeated}, {int64(b.index), came}} {
		tr := []*try{first, second, third, again}[i]
		got := tr.answer.GetAcquire()
		if tr.answer.GetStamp() != want.stamp || got.GetQueued() != want.queued || got.GetGranted() != granted || got.GetDeadline() != granted+int64(time.Hour) {
			t.Errorf("try %d: stamp %d and %v, want stamp %d, queued %d, granted %d", i+1, tr.answer.GetStamp(), got, want.stamp, want.queued, granted)
		}
	}
}

// TestATimeoutNamesTheHolder: the present one, as busy does.
func TestATimeoutNamesTheHolder(t *testing.T) {
	b := newWaitBench(t)
	b.waits.holders = func(wants []fsm.Want) (holders []fsm.Holder) {
		b.machine.View(func(t *fsm.Table) { holders = t.HoldersOf(wants) })
		return holders
	}
	b.occupy()
	tr := b.underOnce(1, 3)
	b.result(tr, b.apply(tr.cmd), 0)
	for range 4 {
		b.apply()
	}
	e := tr.answer.GetError()
	if apiv1.Code(e.GetCode()) != apiv1.CodeTimeout || len(e.GetHolders()) != 1 || e.GetHolders()[0].GetHolder() != "alice" {
		t.Fatalf("answered %v, want a timeout with alice as the holder", tr.answer)
	}
	if want := `lock "orders": wait timed out: held by "alice" (token 1)`; e.GetMessage() != want {
		t.Errorf("message %q, want %q", e.GetMessage(), want)
	}
}

// TestCallsOfCallersWhoHaveGoneAreDropped: a client that reconnects leaves a call behind each
// time. Entering another one does not check all of them each time.
func TestCallsOfCallersWhoHaveGoneAreDropped(t *testing.T) {
	w := newWaits()
	key := waitKey{sequence: 1}
	var calls []*waitingCall
	for range 10_000 {
		call := &mux.Call{Op: &apiv1.Operation{}, Done: func(*apiv1.Answer) {}}
		calls = append(calls, w.enter(key, call))
		call.Abandon()
		if n := w.calls[key].n; n > 2*fewCalls {
			t.Fatalf("%d calls are kept for one that waits", n)
		}
	}
	for _, p := range calls {
		w.remove(p)
	}
	if w.len() != 0 {
		t.Errorf("%d requests are left in the registry", w.len())
	}
}

// That a call is queued is reported after its entry was applied. If the wait ends between
// the two, the answer must not be lost.
func TestAGrantBeforeTheResultQueuedIsDelivered(t *testing.T) {
	t.Run("in the same entry", func(t *testing.T) {
		b := newWaitBench(t)
		free := b.occupy()
		tr := b.enter(1)
		b.result(tr, b.apply(tr.cmd, free), 0)
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
			t.Fatalf("answered %v before the result that it is queued", tr.answer)
		}
		b.result(tr, a, 0)
		if got := tr.answer.GetAcquire().GetToken(); got == 0 || got != b.held() {
			t.Errorf("given token %d, the lock is held with %d", got, b.held())
		}
		if b.waits.len() != 0 {
			t.Errorf("%d calls are left in the registry", b.waits.len())
		}
	})
	t.Run("for a retry that finds its place in the queue", func(t *testing.T) {
		b := newWaitBench(t)
		free := b.occupy()
		first := b.enter(1)
		b.result(first, b.apply(first.cmd), 0)
		second := b.enter(1)
		a := b.apply(second.cmd)
		b.apply(free)
		b.result(second, a, 0)
		for _, tr := range []*try{first, second} {
			if got := tr.answer.GetAcquire().GetToken(); got == 0 || got != b.held() {
				t.Errorf("try %d was given token %d, the lock is held with %d", tr.cmd.ID.Sequence, got, b.held())
			}
		}
	})
}

// An operation enters and removes one of n calls of one request. It must take the same time
// however many there are, because the apply of an entry waits for the mutex.
func BenchmarkCallsOfOneRequest(b *testing.B) {
	for _, n := range []int{1, 1_000, 20_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			calls := make([]*mux.Call, n)
			for i := range calls {
				calls[i] = &mux.Call{Op: &apiv1.Operation{}, Done: func(*apiv1.Answer) {}}
			}
			waiting := make([]*waitingCall, n)
			for done := 0; done < b.N; done += n {
				w := newWaits()
				for i, call := range calls {
					waiting[i] = w.enter(waitKey{sequence: 1}, call)
				}
				for _, p := range waiting {
					w.queued(p, outcome{})
				}
				for i := range waiting {
					if !w.remove(waiting[(i+n/2)%n]) {
						b.Fatalf("call %d of %d was gone", i, n)
					}
				}
			}
		})
	}
}
