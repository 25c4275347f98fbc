package host

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

func TestTheSessionIsKeptAliveAtAThirdOfItsTTL(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.ask(acquire(time.Hour, ""))
		b.open()
		b.next()
		begun := time.Now()
		for i := range 3 {
			c := <-b.calls // virtual time passes
			if got, want := time.Since(begun), time.Duration(i+1)*2*time.Second; c.Op.GetKeepAlive() == nil || got != want {
				t.Errorf("%v was sent after %v, want a keep-alive after %v", c.Op, got, want)
			}
			if i < 2 {
				c.Done(&apiv1.Answer{Result: &apiv1.Answer_KeepAlive{KeepAlive: &apiv1.KeepAliveResponse{Deadline: 1}}})
				continue
			}
			c.Done(refused(apiv1.CodeUnavailable))
			if c = <-b.calls; c.Op.GetKeepAlive() == nil || time.Since(begun) != want(i)+retryAfter {
				t.Errorf("after a refusal %v was sent at %v, want a keep-alive soon", c.Op, time.Since(begun))
			}
		}
	})
}

func want(i int) time.Duration { return time.Duration(i+1) * 2 * time.Second }

func TestAnIdleSessionIsEndedAndNothingIsSentAfterThat(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.ask(release())
		session := b.open()
		done(b.next(), released())
		b.passes(idleSession - time.Millisecond)
		b.quiet("within the time that a session is kept")
		b.passes(time.Millisecond)
		end := b.next()
		if r := end.Op.GetEndSession(); string(r.GetSession()) != string(session) || len(r.GetUndelivered()) > 0 {
			t.Errorf("sent %v, want the end of the session", end.Op)
		}
		done(end, &apiv1.Answer{Result: &apiv1.Answer_EndSession{EndSession: &apiv1.EndSessionResponse{}}})
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(b.calls) > 0 {
			t.Errorf("%d operations were sent in an hour in which nobody asked for anything: %v", len(b.calls), (<-b.calls).Op)
		}
		if len(*b.h.ids.Load()) != 0 || len(b.h.byID) != 0 {
			t.Errorf("the host still knows %d sessions", len(b.h.byID))
		}
		b.ask(release())
		b.open()
	})
}

func TestAFullSessionRetiresAndEndsWithItsLastRequest(t *testing.T) {
	for name, most := range map[string]int{"of unanswered requests": maxUnanswered, "of waits": 3} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				if most != maxUnanswered {
					b.limits.GrantsPerSession = most
				}
				b.ask(acquire(time.Hour, ""))
				first := b.open()
				var calls []*mux.Call
				for i := range most {
					if i > 0 {
						b.ask(acquire(time.Hour, ""))
					}
					calls = append(calls, b.next())
				}
				b.ask(acquire(time.Hour, ""))
				second := b.open()
				if id := b.next().Op.GetAcquire().GetId(); string(id.GetSession()) != string(second) || string(first) == string(second) {
					t.Errorf("sent as %v, want another session", id)
				}
				for _, c := range calls {
					b.quiet("before the last one was answered")
					done(c, granted(9))
					b.confirm(c, 9)
				}
				if r := b.next().Op.GetEndSession(); string(r.GetSession()) != string(first) {
					t.Errorf("sent %v, want the end of the first session", r)
				}
			})
		})
	}
}

func TestRequestsWaitForTheirSessionUntilTheirPatienceEnds(t *testing.T) {
	inBubble(t, func(b *bench) {
		early := b.ask(release())
		opening := b.next()
		b.passes(openPatience - time.Second)
		late, gone := b.ask(release()), b.ask(acquire(0, ""))
		gone.call.Abandon()
		done(opening, refused(apiv1.CodeUnavailable))
		b.passes(time.Second)
		if early.code() != apiv1.CodeUnavailable || late.answer != nil {
			t.Errorf("answered %v and %v, want unavailable and nothing yet", early.answer, late.answer)
		}
		b.open() // it was sent again
		done(b.next(), released())
		if late.answer.GetRelease() == nil {
			t.Errorf("answered %v, want that it is released", late.answer)
		}
		b.quiet("for a caller that has gone")
	})
}

func TestASessionThatIsOverBeforeItIsOpenIsOpenedUnderAnotherID(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.ask(release())
		first := b.next()
		done(first, refused(apiv1.CodeNoSession))
		if second := b.open(); string(second) == string(first.Op.GetOpenSession().GetSession()) {
			t.Error("the same ID was sent again")
		}
		b.next()
	})
}

// TestAGrantOfNobodyIsReleasedHoweverLongThereIsNoLeader: a session has to be opened for
// that, because the one that it came in is over.
func TestAGrantOfNobodyIsReleasedHoweverLongThereIsNoLeader(t *testing.T) {
	inBubble(t, func(b *bench) {
		c := b.ask(acquire(0, ""))
		b.open()
		done(b.next(), granted(9))
		b.passes(idleSession)
		done(b.next(), &apiv1.Answer{Result: &apiv1.Answer_EndSession{EndSession: &apiv1.EndSessionResponse{}}})
		c.call.Abandon() // the answer could not be sent
		opening := b.next()
		for range 5 {
			b.passes(openPatience)
			done(opening, refused(apiv1.CodeUnavailable))
			b.passes(retryAfter)
			opening = b.next()
		}
		done(opening, &apiv1.Answer{Result: &apiv1.Answer_OpenSession{OpenSession: &apiv1.OpenSessionResponse{Deadline: 1}}})
		if r := b.next().Op.GetRelease(); r.GetToken() != 9 {
			t.Errorf("sent %v, want the release of token 9", r)
		}
	})
}

// TestWhatFreesALockNeedsNoRoomForASession: the table has too many sessions.
func TestWhatFreesALockNeedsNoRoomForASession(t *testing.T) {
	inBubble(t, func(b *bench) {
		freed, wanted := b.ask(release()), b.ask(acquire(0, ""))
		done(b.next(), refused(apiv1.CodeLimit))
		if wanted.code() != apiv1.CodeLimit {
			t.Errorf("the acquire was answered %v, want limit", wanted.answer)
		}
		sent := b.next()
		if r := sent.Op.GetRelease(); r.GetToken() != 5 || r.GetId() != nil {
			t.Errorf("sent %v, want the release without a request ID", sent.Op)
		}
		done(sent, released())
		if freed.answer.GetRelease() == nil {
			t.Errorf("the release was answered %v, want that it is released", freed.answer)
		}
	})
}

func TestASessionIsWithinTheLimits(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.ask(release())
		if r := b.next().Op.GetOpenSession(); r.GetTtlNs() != int64(6*time.Second) || r.GetHolder() != "node n1" {
			t.Errorf("sent %v, want a TTL of 6 s and the node's name", r)
		}
	})
	inBubble(t, func(b *bench) {
		b.limits.MaxTTL, b.limits.HolderBytes = int64(3*time.Second), 5
		b.ask(release())
		if r := b.next().Op.GetOpenSession(); r.GetTtlNs() != int64(3*time.Second) || r.GetHolder() != "" {
			t.Errorf("sent %v, want a TTL of 3 s and no name", r)
		}
	})
}

// closed calls Close, and returns what was sent.
func (b *bench) closed() (sent []*mux.Call, ended <-chan struct{}) {
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Second)
	done := make(chan struct{})
	go func() {
		defer cancel()
		b.h.Close(ctx)
		close(done)
	}()
	synctest.Wait()
	for len(b.calls) > 0 {
		sent = append(sent, <-b.calls)
	}
	return sent, done
}

func TestCloseEndsWaitsAndGrantsThatNobodyWasToldOf(t *testing.T) {
	inBubble(t, func(b *bench) {
		waits, gone, has := b.ask(acquire(time.Hour, "")), b.ask(acquire(time.Hour, "")), b.ask(acquire(0, ""))
		session := b.open()
		b.next()
		b.next()
		done(b.next(), granted(9))
		gone.call.Abandon()
		cancel := b.next()
		sent, ended := b.closed()
		if waits.code() != apiv1.CodeUnavailable || has.answer.GetAcquire().GetToken() != 9 {
			t.Errorf("answered %v and %v, want unavailable and a grant", waits.answer, has.answer)
		}
		if len(sent) != 1 || sent[0].Op.GetEndSession() == nil {
			t.Fatalf("%d operations were sent, want the end of the session", len(sent))
		}
		end := sent[0].Op.GetEndSession()
		if u := end.GetUndelivered(); string(end.GetSession()) != string(session) || len(u) != 2 || u[0] != 1 || u[1] != 2 {
			t.Errorf("sent %v, want the session, with requests 1 and 2 as undelivered", end)
		}
		select {
		case <-ended:
			t.Error("Close has not waited for the end of the session")
		default:
		}
		done(sent[0], &apiv1.Answer{Result: &apiv1.Answer_EndSession{EndSession: &apiv1.EndSessionResponse{}}})
		endSession(cancel, 50)
		select {
		case <-ended:
		default:
			t.Error("Close still waits")
		}
		if late := b.ask(release()); late.code() != apiv1.CodeUnavailable {
			t.Errorf("answered %v after Close, want unavailable", late.answer)
		}
		b.quiet("after Close")
	})
}

func TestCloseLeavesTheSessionOfAKeptPlace(t *testing.T) {
	inBubble(t, func(b *bench) {
		named, other := b.ask(acquire(time.Hour, "r-1")), b.ask(acquire(time.Hour, ""))
		b.open()
		b.next()
		wait := b.next()
		named.call.Abandon()
		sent, ended := b.closed()
		if other.code() != apiv1.CodeUnavailable {
			t.Errorf("answered %v, want unavailable", other.answer)
		}
		if len(sent) != 2 || sent[1].Op.GetKeepAlive() == nil {
			t.Fatalf("sent %v, want the cancel of the other wait and a last keep-alive", sent)
		}
		b.isCancelOf(sent[0], wait)
		done(sent[0], cancelled())
		select {
		case <-ended:
		default:
			t.Error("Close still waits")
		}
		b.quiet("after Close")
	})
}

func TestCloseEndsWithItsContext(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.ask(acquire(time.Hour, ""))
		b.open()
		b.next()
		begun := time.Now()
		_, ended := b.closed()
		<-ended
		if took := time.Since(begun); took != time.Second {
			t.Errorf("Close took %v, want a second", took)
		}
	})
}
