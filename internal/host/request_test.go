package host

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/mux"
)

func TestARequestWithoutASessionIsSentInOne(t *testing.T) {
	inBubble(t, func(b *bench) {
		first := b.ask(release())
		session := b.open()
		sent := b.next()
		id := sent.Op.GetRelease().GetId()
		if string(id.GetSession()) != string(session) || id.GetSequence() != 1 || sent.Op.GetRelease().GetToken() != 5 {
			t.Errorf("sent %v, want the release of token 5 as request 1 of the session", sent.Op)
		}
		done(sent, released())
		if first.answer.GetRelease() == nil {
			t.Errorf("the caller was answered %v, want that it is released", first.answer)
		}
		b.ask(acquire(0, ""))
		a := b.next().Op.GetAcquire()
		if a.GetId().GetSequence() != 2 || a.GetId().GetAcknowledged() != 1 || !a.GetDetached() {
			t.Errorf("sent %v, want a detached acquire as request 2, with the first acknowledged", a)
		}
	})
}

func TestWhatWasAnsweredBehindAWaitIsAcknowledged(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.ask(acquire(time.Hour, ""))
		b.open()
		b.next()
		b.ask(release())
		done(b.next(), released())
		b.ask(release())
		id := b.next().Op.GetRelease().GetId()
		if s := id.GetAnswered(); len(s) != 1 || s[0].GetFirst() != 2 || s[0].GetLast() != 2 || id.GetAcknowledged() != 0 {
			t.Errorf("request ID %v, want that 2 is answered and 1 is not", id)
		}
	})
}

func TestAWaiterWithoutAnIDThatGoesAwayIsCancelledAtOnce(t *testing.T) {
	inBubble(t, func(b *bench) {
		c := b.ask(acquire(time.Hour, ""))
		b.open()
		wait := b.next()
		c.call.Abandon()
		cancel := b.next()
		b.isCancelOf(cancel, wait)
		if cancel.Op.GetCancel().GetId().GetAcknowledged() != 0 {
			t.Error("the acquire is acknowledged before its cancel was answered")
		}
		// The grant was on its way.
		done(wait, granted(9))
		done(cancel, cancelled())
		b.quiet("after the cancel was answered")
		if c.answer != nil {
			t.Errorf("a caller that is gone was answered %v", c.answer)
		}
		b.ask(release())
		if id := b.next().Op.GetRelease().GetId(); id.GetAcknowledged() != 2 {
			t.Errorf("request ID %v, want the acquire and its cancel acknowledged", id)
		}
	})
}

func TestAPlaceUnderARequestIDIsKeptForItsRepeat(t *testing.T) {
	inBubble(t, func(b *bench) {
		c := b.ask(acquire(time.Hour, "r-1"))
		b.open()
		first := b.next()
		c.call.Abandon()
		b.passes(keepPlace - time.Millisecond)
		b.quiet("before the place was kept for long enough")
		b.ask(acquire(time.Hour, "r-1"))
		second := b.next()
		if a, bb := first.Op.GetAcquire().GetId(), second.Op.GetAcquire().GetId(); string(a.GetOnce()) != string(bb.GetOnce()) || a.GetSequence() == bb.GetSequence() {
			t.Errorf("tries %v and %v, want the same once ID and two sequences", a, bb)
		}
		b.passes(time.Millisecond)
		cancel := b.next()
		b.isCancelOf(cancel, first)
		done(cancel, cancelled())
		b.passes(time.Minute)
		b.quiet("while the second caller waits")
	})
}

func TestCancelsAreRepeatedUntilTheyAreAnswered(t *testing.T) {
	inBubble(t, func(b *bench) {
		c := b.ask(acquire(time.Hour, ""))
		b.open()
		wait := b.next()
		c.call.Abandon()
		first := b.next()
		cancel := first
		for _, code := range []apiv1.Code{
			apiv1.CodeUnavailable, apiv1.CodeOverloaded, apiv1.CodeUnknownOutcome, apiv1.CodeNotReady, apiv1.CodeNotLeader, apiv1.CodeInternal,
		} {
			done(cancel, refused(code))
			b.passes(retryAfter)
			cancel = b.next()
			b.isCancelOf(cancel, wait)
			if !proto.Equal(cancel.Op, first.Op) {
				t.Errorf("sent again as %v, want %v", cancel.Op, first.Op)
			}
		}
		done(cancel, refused(apiv1.CodeNotHeld))
		b.passes(10 * time.Second)
		b.quiet("after the cancel was answered")
	})
}

func TestRefusedCancelsAreSentUnderAnotherSequence(t *testing.T) {
	inBubble(t, func(b *bench) {
		c := b.ask(acquire(time.Hour, ""))
		b.open()
		wait := b.next()
		c.call.Abandon()
		cancel := b.next()
		for _, code := range []apiv1.Code{apiv1.CodeLimit, apiv1.CodeDenied} {
			before := cancel.Op.GetCancel().GetId()
			done(cancel, refused(code))
			b.quiet("at once")
			b.passes(retryAfter)
			cancel = b.next()
			b.isCancelOf(cancel, wait)
			if id := cancel.Op.GetCancel().GetId(); id.GetSequence() <= before.GetSequence() || id.GetAcknowledged() >= wait.Op.GetAcquire().GetId().GetSequence() {
				t.Errorf("after %v: cancelled under %v, before under %v; want another sequence, and the acquire's not acknowledged", code, id, before)
			}
		}
		done(cancel, cancelled())
		b.passes(10 * time.Second)
		b.quiet("after the cancel was answered")
	})
}

func TestAnAnswerThatReachesNobodyLeavesNoGrant(t *testing.T) {
	t.Run("without an ID", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			c := b.ask(acquire(0, ""))
			b.open()
			done(b.next(), granted(9))
			c.call.Abandon() // the caller hung up at the same moment
			if r := b.next().Op.GetRelease(); r.GetToken() != 9 || r.GetId().GetSequence() == 0 {
				t.Errorf("sent %v, want the release of token 9", r)
			}
		})
	})
	t.Run("with an ID", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			c := b.ask(acquire(0, "r-1"))
			b.open()
			sent := b.next()
			done(sent, granted(9))
			b.passes(time.Second)
			c.call.Abandon()
			b.ask(release())
			if id := b.next().Op.GetRelease().GetId(); id.GetAcknowledged() != 0 {
				t.Errorf("request ID %v acknowledges the grant, which is to be cancelled", id)
			}
			b.passes(keepPlace - time.Millisecond)
			b.quiet("while the grant is kept for a repeat")
			b.passes(time.Millisecond)
			b.isCancelOf(b.next(), sent)
		})
	})
	t.Run("passed on", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			for _, once := range []string{"", "r-1"} {
				c := b.ask(acquire(0, once))
				if once == "" {
					b.open()
				}
				done(b.next(), granted(9))
				if got := c.answer.GetAcquire().GetToken(); got != 9 || c.answer.GetId() != 7 {
					t.Errorf("answered %v, want token 9 for operation 7", c.answer)
				}
			}
			b.passes(2 * keepPlace)
			b.quiet("with two callers that have their grants")
			b.ask(release())
			if id := b.next().Op.GetRelease().GetId(); id.GetAcknowledged() != 2 {
				t.Errorf("request ID %v, want both acknowledged", id)
			}
		})
	})
}

// TestAGrantOutOfAWaitIsConfirmedBeforeItIsTold: until then it ends with the session,
// so that a node that dies leaves nothing behind.
func TestAGrantOutOfAWaitIsConfirmedBeforeItIsTold(t *testing.T) {
	inBubble(t, func(b *bench) {
		c := b.ask(acquire(time.Hour, ""))
		b.open()
		wait := b.next()
		done(wait, granted(9))
		if c.answer != nil {
			t.Fatalf("told %v before the grant is confirmed", c.answer)
		}
		renewal := b.next()
		done(renewal, refused(apiv1.CodeUnknownOutcome))
		b.passes(retryAfter)
		b.confirm(wait, 9)
		got := c.answer.GetAcquire()
		if got.GetToken() != 9 || got.GetDeadline() != 900 || c.answer.GetStamp() != 200 || c.answer.GetIndex() != 70 {
			t.Errorf("told %v, want the grant with the deadline and stamp of its renewal", c.answer)
		}
		b.quiet("after the caller was told")
	})
}

func TestAGrantThatCannotBeConfirmed(t *testing.T) {
	begin := func(b *bench, once string) (c *caller, wait, renewal *mux.Call) {
		c = b.ask(acquire(time.Hour, once))
		b.open()
		wait = b.next()
		done(wait, granted(9))
		return c, wait, b.next()
	}
	t.Run("is gone", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			c, _, renewal := begin(b, "")
			b.passes(10 * time.Minute)
			done(renewal, refused(apiv1.CodeNotHeld))
			if a := b.next().Op.GetAcquire(); a.GetWaitNs() != int64(50*time.Minute) || c.answer != nil {
				t.Errorf("sent %v and told %v, want another wait for what is left", a, c.answer)
			}
		})
	})
	t.Run("the session is over", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			c, _, renewal := begin(b, "")
			endSession(renewal, 50)
			b.open()
			if r := b.next().Op.GetRelease(); r.GetToken() != 9 {
				t.Errorf("sent %v, want the release of a grant that an earlier copy may have confirmed", r)
			}
			if a := b.next().Op.GetAcquire(); a.GetId().GetSequence() != 2 || c.answer != nil {
				t.Errorf("sent %v and told %v, want another wait", a, c.answer)
			}
		})
	})
	t.Run("nobody leads", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			c, wait, renewal := begin(b, "")
			done(renewal, refused(apiv1.CodeUnavailable))
			if c.code() != apiv1.CodeUnavailable {
				t.Errorf("told %v, want unavailable", c.answer)
			}
			b.isCancelOf(b.next(), wait)
		})
	})
	t.Run("its caller hangs up", func(t *testing.T) {
		for _, once := range []string{"", "r-1"} {
			inBubble(t, func(b *bench) {
				c, wait, renewal := begin(b, once)
				c.call.Abandon()
				if once != "" {
					b.quiet("while the grant is kept")
					b.passes(keepPlace)
				}
				b.isCancelOf(b.next(), wait)
				done(renewal, renewed())
				b.quiet("after the renewal")
				if c.answer != nil {
					t.Errorf("told %v", c.answer)
				}
			})
		}
	})
	t.Run("the node stops", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			c, _, _ := begin(b, "")
			sent, _ := b.closed()
			if len(sent) != 1 || len(sent[0].Op.GetEndSession().GetUndelivered()) != 1 || c.code() != apiv1.CodeUnavailable {
				t.Errorf("sent %v and told %v, want the session's end with an undelivered request, and unavailable", sent, c.answer)
			}
		})
	})
}

func TestARequestThatWasGivenUpGetsNothingLater(t *testing.T) {
	inBubble(t, func(b *bench) {
		c := b.ask(acquire(time.Hour, ""))
		b.open()
		wait := b.next()
		done(wait, refused(apiv1.CodeUnknownOutcome))
		if c.code() != apiv1.CodeUnavailable {
			t.Errorf("answered %v, want unavailable", c.answer)
		}
		b.isCancelOf(b.next(), wait)

		c = b.ask(acquire(time.Hour, "r-1"))
		wait = b.next()
		done(wait, refused(apiv1.CodeUnavailable))
		if c.code() != apiv1.CodeUnavailable || !strings.Contains(c.answer.GetError().GetMessage(), "same request ID") {
			t.Errorf("answered %v, want unavailable and what to do", c.answer)
		}
		b.quiet("while the place is kept")
		b.passes(keepPlace)
		b.isCancelOf(b.next(), wait)
	})
}

func TestRefusalsAreNotCancelled(t *testing.T) {
	for _, code := range []apiv1.Code{
		apiv1.CodeBusy, apiv1.CodeTimeout, apiv1.CodeNotHeld, apiv1.CodeLimit, apiv1.CodeInvalid, apiv1.CodeOverloaded,
	} {
		inBubble(t, func(b *bench) {
			for i, once := range []string{"", "r-1"} {
				c := b.ask(acquire(time.Hour, once))
				if i == 0 {
					b.open()
				}
				done(b.next(), refused(code))
				if c.code() != code {
					t.Errorf("answered %v, want %v", c.answer, code)
				}
				c.call.Abandon()
			}
			b.passes(2 * keepPlace)
			b.quiet("after two refusals")
		})
	}
}

func TestWhatMayHaveBeenDoneIsNotSaidToBeUndone(t *testing.T) {
	inBubble(t, func(b *bench) {
		for _, c := range []struct {
			doubt bool
			code  apiv1.Code
			want  apiv1.Code
		}{
			{false, apiv1.CodeUnavailable, apiv1.CodeUnavailable},
			{true, apiv1.CodeUnavailable, apiv1.CodeUnknownOutcome},
			{true, apiv1.CodeNotReady, apiv1.CodeUnknownOutcome},
			{true, apiv1.CodeInternal, apiv1.CodeInternal},
			{false, apiv1.CodeUnknownOutcome, apiv1.CodeUnknownOutcome},
		} {
			asked := b.ask(release())
			sent := b.look()
			if sent.Op.GetOpenSession() != nil {
				done(sent, &apiv1.Answer{Result: &apiv1.Answer_OpenSession{OpenSession: &apiv1.OpenSessionResponse{Deadline: 1}}})
				sent = b.next()
			}
			if c.doubt {
				sent.Doubt()
			}
			done(sent, refused(c.code))
			if asked.code() != c.want {
				t.Errorf("%v of a release, tried before is %v: answered %v, want %v", c.code, c.doubt, asked.answer, c.want)
			}
		}
	})
}

// endSession answers a call that its session is over, as the entry at an index says.
func endSession(c *mux.Call, index uint64) {
	a := refused(apiv1.CodeNoSession)
	a.Index = index
	done(c, a)
}

func TestWaitsMoveToAnotherSessionWhenTheirsHasEnded(t *testing.T) {
	inBubble(t, func(b *bench) {
		c := b.ask(acquire(time.Hour, "r-1"))
		old := b.open()
		first := b.next()
		b.passes(10 * time.Minute)
		endSession(first, 50)
		b.quiet("before this node knows what came before the session's end")
		b.h.Observe(&fsm.Applied{Index: 50})
		if session := b.open(); string(session) == string(old) {
			t.Fatal("the session that has ended is opened again")
		}
		second := b.next().Op.GetAcquire()
		if second.GetWaitNs() != int64(50*time.Minute) || string(second.GetId().GetOnce()) != "r-1" || second.GetId().GetSequence() != 1 {
			t.Errorf("sent %v, want the same request with the 50 minutes that are left", second)
		}
		if c.answer != nil {
			t.Errorf("answered %v while it waits", c.answer)
		}
	})
}

func TestAWaitWhoseTimeIsUpMovesNowhere(t *testing.T) {
	inBubble(t, func(b *bench) {
		c := b.ask(acquire(time.Minute, ""))
		b.open()
		wait := b.next()
		b.passes(time.Minute)
		endSession(wait, 0)
		if c.code() != apiv1.CodeTimeout || !strings.Contains(c.answer.GetError().GetMessage(), `"x"`) {
			t.Errorf("answered %v, want a timeout that names the lock", c.answer)
		}
		b.quiet("after the timeout")
	})
}

// grantIn is what the log says when it grants the request.
func grantIn(c *mux.Call, index uint64, token uint64) *fsm.Applied {
	id := c.Op.GetAcquire().GetId()
	return &fsm.Applied{Index: index, Events: []fsm.Event{{
		Kind: fsm.EventGranted, Token: token,
		Request: fsm.RequestID{Session: fsm.SessionID(id.GetSession()), Sequence: id.GetSequence()},
		Result:  fsm.Result{Token: token, Deadline: 700, Queued: 100, Granted: 600},
	}}}
}

func TestAGrantBeforeTheEndOfTheSessionIsFoundInTheLog(t *testing.T) {
	t.Run("for a caller that waits", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			c := b.ask(acquire(time.Hour, ""))
			b.open()
			wait := b.next()
			endSession(wait, 50)
			b.h.Observe(grantIn(wait, 49, 9))
			b.h.Observe(&fsm.Applied{Index: 50})
			b.quiet("for a request that was granted")
			if got := c.answer.GetAcquire(); got.GetToken() != 9 || got.GetDeadline() != 700 || c.answer.GetStamp() != 100 {
				t.Errorf("answered %v, want the grant that the log has", c.answer)
			}
		})
	})
	t.Run("that ended with it", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			c := b.ask(acquire(time.Hour, ""))
			b.open()
			wait := b.next()
			endSession(wait, 50)
			b.h.Observe(grantIn(wait, 49, 9))
			b.h.Observe(&fsm.Applied{Index: 50, Events: []fsm.Event{{Kind: fsm.EventExpired, Token: 9}}})
			b.open()
			if b.next().Op.GetAcquire() == nil || c.answer != nil {
				t.Errorf("told %v, want another wait", c.answer)
			}
		})
	})
	t.Run("for a caller that is gone", func(t *testing.T) {
		inBubble(t, func(b *bench) {
			c := b.ask(acquire(time.Hour, ""))
			b.open()
			wait := b.next()
			c.call.Abandon()
			cancel := b.next()
			endSession(cancel, 50)
			b.h.Observe(grantIn(wait, 49, 9))
			b.h.Observe(&fsm.Applied{Index: 50})
			b.open()
			if r := b.next().Op.GetRelease(); r.GetToken() != 9 {
				t.Errorf("sent %v, want the release of the grant that no caller got", r)
			}
		})
	})
}

func TestOtherRequestsOfASessionThatHasEnded(t *testing.T) {
	inBubble(t, func(b *bench) {
		known, unknown := b.ask(release()), b.ask(release())
		b.open()
		first, second := b.next(), b.next()
		second.Doubt()
		endSession(first, 50)
		endSession(second, 50)
		if unknown.code() != apiv1.CodeUnknownOutcome {
			t.Errorf("a release that may have run is answered %v, want unknown_outcome", unknown.answer)
		}
		b.open()
		done(b.next(), released())
		if known.answer.GetRelease() == nil {
			t.Errorf("a release that has not run is answered %v, want that it was sent in another session", known.answer)
		}
	})
}

// TestWhatIsSentIsWhatWasAsked fills every field that a caller can set.
func TestWhatIsSentIsWhatWasAsked(t *testing.T) {
	id := &apiv1.RequestID{Session: []byte("0123456789abcdef"), Sequence: 3, Once: []byte("r-1")}
	for _, op := range []*apiv1.Operation{
		{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{}}},
		{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{}}},
		{Request: &apiv1.Operation_Renew{Renew: &apiv1.RenewRequest{}}},
		{Request: &apiv1.Operation_SetValue{SetValue: &apiv1.SetValueRequest{}}},
		{Request: &apiv1.Operation_ForceRelease{ForceRelease: &apiv1.ForceReleaseRequest{}}},
		{Request: &apiv1.Operation_Resize{Resize: &apiv1.ResizeRequest{}}},
	} {
		request := func(op *apiv1.Operation) protoreflect.Message {
			m := op.ProtoReflect()
			return m.Get(m.WhichOneof(m.Descriptor().Oneofs().ByName("request"))).Message()
		}
		fill(request(op))
		if !Takes(op) {
			t.Errorf("%v is not taken", op)
		}
		got := withID(op, id, time.Hour)
		want := proto.CloneOf(op)
		m := request(want)
		m.Set(m.Descriptor().Fields().ByName("id"), protoreflect.ValueOfMessage(id.ProtoReflect()))
		if !proto.Equal(got, want) {
			t.Errorf("sent %v, want %v", got, want)
		}
	}
}

// fill sets every field but the ID to something.
func fill(m protoreflect.Message) {
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		switch {
		case f.Name() == "id":
		case f.IsList():
			m.Mutable(f).List().AppendMutable()
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString("text"))
		case f.Kind() == protoreflect.BytesKind:
			m.Set(f, protoreflect.ValueOfBytes([]byte("bytes")))
		case f.Kind() == protoreflect.BoolKind:
			m.Set(f, protoreflect.ValueOfBool(true))
		case f.Kind() == protoreflect.Uint64Kind:
			m.Set(f, protoreflect.ValueOfUint64(7))
		case f.Kind() == protoreflect.Uint32Kind:
			m.Set(f, protoreflect.ValueOfUint32(6))
		case f.Kind() == protoreflect.Int64Kind:
			m.Set(f, protoreflect.ValueOfInt64(8))
		}
	}
}

func TestOnlyChangesWithoutASessionAreTaken(t *testing.T) {
	session := &apiv1.RequestID{Session: make([]byte, 16), Sequence: 1}
	for _, op := range []*apiv1.Operation{
		{},
		{Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{}}},
		{Request: &apiv1.Operation_List{List: &apiv1.ListRequest{}}},
		{Request: &apiv1.Operation_OpenSession{OpenSession: &apiv1.OpenSessionRequest{}}},
		{Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{}}},
		{Request: &apiv1.Operation_EndSession{EndSession: &apiv1.EndSessionRequest{}}},
		{Request: &apiv1.Operation_Cancel{Cancel: &apiv1.CancelRequest{Target: session}}},
		{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{Id: session}}},
		{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Id: &apiv1.RequestID{Sequence: 1}}}},
	} {
		if Takes(op) {
			t.Errorf("%v is taken", op)
		}
	}
}
