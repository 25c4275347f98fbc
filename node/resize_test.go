package node_test

import (
	"strings"
	"testing"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// permits is an acquire of some permits of a semaphore, without a session.
func permits(name, holder string, n, size uint32, wait time.Duration) *apiv1.AcquireRequest {
	r := request(name, holder, time.Minute, wait, "")
	r.Locks[0].Mode, r.Locks[0].Permits, r.Locks[0].Limit = apiv1.Mode_MODE_PERMITS, n, size
	return r
}

func (w *world) resize(node, name string, size uint32) error {
	_, err := w.at(node).Resize(w.t.Context(), &apiv1.ResizeRequest{Name: name, Limit: size})
	return err
}

// out is how many permits of a semaphore are held, and its size.
func (w *world) out(node, name string) (out, size uint32) {
	w.t.Helper()
	l := w.get(node, name)
	for _, h := range l.GetHolders() {
		out += h.GetPermits()
	}
	return out, l.GetLimit()
}

func (w *world) wantOut(when, name string, out, size uint32) {
	w.t.Helper()
	if got, limit := w.out(w.leader, name); got != out || limit != size {
		w.t.Errorf("%s: %d permits of %d are held, want %d of %d", when, got, limit, out, size)
	}
}

func TestALargerSemaphoreIsGivenToItsWaitersAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.take(w.leader, permits("pool", "a", 2, 2, 0))
		first := w.wait(w.followers[0], permits("pool", "b", 2, 2, time.Minute))
		second := w.wait(w.followers[1], permits("pool", "c", 1, 2, time.Minute))
		w.stands(w.leader, "pool", 2, "before")
		begun := time.Now()
		w.must(w.resize(w.followers[0], "pool", 4))
		<-first.done
		if took := time.Since(begun); first.err != nil || took > time.Second || second.over() {
			t.Errorf("after %v the first waiter has token %d, %v; the second, which needs more permits than are left, is over: %v", took, first.token, first.err, second.over())
		}
		w.wantOut("with a waiter more", "pool", 4, 4)
		w.must(w.resize(w.leader, "pool", 5))
		<-second.done
		w.must(second.err)
		w.wantOut("with both", "pool", 5, 5)
	})
}

func TestASmallerSemaphoreTakesNothingAwayAndDrains(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.take(w.leader, permits("pool", "a", 2, 4, 0))
		b := w.take(w.leader, permits("pool", "b", 2, 4, 0))
		w.must(w.resize(w.followers[0], "pool", 2))
		w.wantOut("made smaller", "pool", 4, 2)
		next := w.wait(w.followers[0], permits("pool", "c", 1, 2, time.Minute))
		w.free(w.leader, "pool", a)
		time.Sleep(time.Second)
		if next.over() {
			t.Errorf("with 2 permits of 2 held, one more was granted: token %d, %v", next.token, next.err)
		}
		w.free(w.leader, "pool", b)
		<-next.done
		w.must(next.err)
		w.wantOut("drained", "pool", 1, 2)

		// The size lasts as long as the use: the next acquire sets another one.
		w.free(w.leader, "pool", next.token)
		w.take(w.leader, permits("pool", "d", 3, 3, 0))
		w.wantOut("used anew", "pool", 3, 3)
	})
}

func TestAWaiterForMoreThanTheNewSizeGetsBothNumbers(t *testing.T) {
	inWorld(t, func(w *world) {
		w.take(w.leader, permits("pool", "a", 1, 4, 0))
		wide := permits("pool", "b", 4, 4, time.Minute)
		wide.Locks = append(wide.Locks[:1:1], &apiv1.Want{Name: "other"})
		through := map[string]*waiting{"leader": w.wait(w.leader, wide), "follower": w.wait(w.followers[0], permits("pool", "c", 3, 4, time.Minute))}
		fits := w.wait(w.followers[1], permits("pool", "d", 1, 4, time.Minute))
		w.must(w.resize(w.followers[1], "pool", 2))
		for road, asked := range map[string]string{"leader": "4 permits", "follower": "3 permits"} {
			p := through[road]
			<-p.done
			if text := p.err.Error(); p.code() != apiv1.CodeKindMismatch || !strings.Contains(text, "asks for "+asked) || !strings.Contains(text, "it has 2") {
				t.Errorf("through the %s, a wait for %s of 2 ended with %v", road, asked, p.err)
			}
		}
		<-fits.done
		w.must(fits.err)
		w.stands(w.leader, "pool", 0, "afterwards")
		w.stands(w.leader, "other", 0, "afterwards")
		if _, err := w.at(w.leader).Acquire(w.t.Context(), permits("pool", "e", 1, 4, time.Minute)); apiv1.CodeOf(err) != apiv1.CodeKindMismatch || !strings.Contains(err.Error(), "in use with limit 2") {
			t.Errorf("an acquire that names the old size: %v", err)
		}
	})
}

func TestWhatIsNoSemaphoreInUseIsNotResized(t *testing.T) {
	inWorld(t, func(w *world) {
		w.take(w.leader, request("mutex", "a", time.Minute, 0, ""))
		w.take(w.leader, permits("pool", "a", 1, 2, 0))
		for _, c := range []struct {
			name string
			size uint32
			code apiv1.Code
			word string
		}{
			{"nobody/uses/it", 3, apiv1.CodeNotHeld, `semaphore "nobody/uses/it": is not in use, so it has no size: the next acquire sets one`},
			{"mutex", 3, apiv1.CodeKindMismatch, "is in use, and not as a semaphore"},
			{"pool", 0, apiv1.CodeInvalid, "limit: must be at least 1"},
			{"", 1, apiv1.CodeNotHeld, "is not in use"},
		} {
			for _, node := range []string{w.leader, w.followers[0]} {
				if err := w.resize(node, c.name, c.size); apiv1.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.word) {
					t.Errorf("resize of %q to %d: %v, want %v and %q", c.name, c.size, err, c.code, c.word)
				}
			}
		}
		w.wantOut("afterwards", "pool", 1, 2)
	})
}

func TestALateCopyOfAResizeChangesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.take(w.leader, permits("pool", "a", 1, 2, 0))
		session := []byte("0123456789abcdef")
		_, err := w.at(w.leader).OpenSession(w.t.Context(), &apiv1.OpenSessionRequest{Session: session, TtlNs: int64(time.Minute)})
		w.must(err)
		first := &apiv1.ResizeRequest{Id: &apiv1.RequestID{Session: session, Sequence: 1}, Name: "pool", Limit: 9}
		for _, node := range []string{w.leader, w.followers[0]} {
			_, err = w.at(node).Resize(w.t.Context(), first)
			w.must(err)
			w.must(w.resize(w.leader, "pool", 3))
		}
		w.wantOut("after the copy", "pool", 1, 3)
	})
}
