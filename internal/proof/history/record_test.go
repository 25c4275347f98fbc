package history

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// wire is a recorded stream without a network. What the test puts into answers is
// received next.
type wire struct {
	grpc.ClientStream
	answers []*apiv1.Answer
}

func (*wire) SendMsg(any) error { return nil }

func (f *wire) RecvMsg(m any) error {
	if len(f.answers) == 0 {
		return io.EOF
	}
	m.(*apiv1.SessionResponse).Answers, f.answers = f.answers, nil
	return nil
}

// bench is a recorder with a clock that the test moves.
type bench struct {
	t   *testing.T
	now time.Duration
	*Recorder
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t}
	b.Recorder = NewRecorder(func() time.Duration { return b.now })
	return b
}

func (b *bench) stream() *stream {
	return &stream{ClientStream: &wire{}, r: b.Recorder, client: "c", opened: b.now, sent: make(map[uint64]sending)}
}

func (b *bench) send(s *stream, id uint64, o *apiv1.Operation) {
	b.t.Helper()
	o.Id = id
	if err := s.SendMsg(&apiv1.SessionRequest{Operations: []*apiv1.Operation{o}}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) receive(s *stream, a *apiv1.Answer) {
	b.t.Helper()
	s.ClientStream.(*wire).answers = []*apiv1.Answer{a}
	if err := s.RecvMsg(&apiv1.SessionResponse{}); err != nil {
		b.t.Fatal(err)
	}
}

func session(n byte) []byte { return slices.Repeat([]byte{n}, 16) }

func acquireOp(sequence uint64, lock string) *apiv1.Operation {
	return &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: &apiv1.AcquireRequest{
		Id: &apiv1.RequestID{Session: session(1), Sequence: sequence}, Locks: []*apiv1.Want{{Name: lock}}, WaitNs: -1,
	}}}
}

func grantAnswer(id, token uint64) *apiv1.Answer {
	return &apiv1.Answer{Id: id, Index: 10 + token, Stamp: 77, Result: &apiv1.Answer_Acquire{Acquire: &apiv1.AcquireResponse{Token: token}}}
}

func refusalAnswer(id uint64, code apiv1.Code) *apiv1.Answer {
	return &apiv1.Answer{Id: id, Index: 5, Result: &apiv1.Answer_Error{Error: apiv1.NewError(code, "no")}}
}

// TestRequestSentAgainIsOneOperation, from its first sending to its first final answer, over
// any streams.
func TestRequestSentAgainIsOneOperation(t *testing.T) {
	b := newBench(t)
	first, second := b.stream(), b.stream()
	b.now = 1
	b.send(first, 1, acquireOp(1, "a"))
	b.now = 2
	b.receive(first, refusalAnswer(1, apiv1.CodeUnknownOutcome))
	b.now = 3
	b.send(first, 2, acquireOp(1, "a"))
	b.send(second, 1, acquireOp(1, "a"))
	b.now = 4
	b.receive(second, grantAnswer(1, 3))
	b.now = 5
	b.receive(first, grantAnswer(2, 3))
	h := b.History()
	if len(h.Ops) != 1 {
		t.Fatalf("recorded %d operations, want 1: %+v", len(h.Ops), h.Ops)
	}
	want := Op{
		Client: "c", Kind: Acquire, Request: strings.Repeat("01", 16) + "/1", Session: strings.Repeat("01", 16),
		Wants: []Want{{Lock: "a", Mode: fsm.Exclusive}}, Wait: -1, Call: 1, Return: 4, Outcome: OK, Token: 3,
		Index: 13, Stamp: 77, Before: Never,
	}
	if got := h.Ops[0]; got.Request != want.Request || got.Call != 1 || got.Return != 4 || got.Outcome != OK ||
		got.Token != 3 || got.Index != 13 || got.Stamp != 77 || !slices.Equal(got.Wants, want.Wants) || got.Before != Never {
		t.Errorf("recorded %+v, want %+v", got, want)
	}
}

// TestOtherAnswerToTheSameRequestIsKept for the checks.
func TestOtherAnswerToTheSameRequestIsKept(t *testing.T) {
	b := newBench(t)
	first, second := b.stream(), b.stream()
	b.send(first, 1, acquireOp(1, "a"))
	b.now = 1
	b.send(second, 1, acquireOp(1, "a"))
	b.now = 2
	b.receive(first, grantAnswer(1, 3))
	b.receive(second, grantAnswer(1, 4))
	r := b.History().Check(Options{})
	if !slices.ContainsFunc(r.Violations, func(v Violation) bool { return v.Promise == "S6" }) {
		t.Errorf("two tokens for one request gave %+v, want a violation of S6", r.Violations)
	}
}

// TestOnlyFinalAnswersEndAnOperation: after the others its outcome is open.
func TestOnlyFinalAnswersEndAnOperation(t *testing.T) {
	for code, want := range map[apiv1.Code]Outcome{
		apiv1.CodeNotLeader: Unknown, apiv1.CodeUnavailable: Unknown, apiv1.CodeNotReady: Unknown,
		apiv1.CodeUnknownOutcome: Unknown, apiv1.CodeOverloaded: Unknown, apiv1.CodeStaleStamp: Unknown,
		apiv1.CodeInternal: Unknown, apiv1.CodeStaleRequest: Unknown,
		apiv1.CodeBusy: Busy, apiv1.CodeTimeout: TimedOut, apiv1.CodeNotHeld: NotHeld, apiv1.CodeNoSession: NoSess,
		apiv1.CodeCancelled: Refused, apiv1.CodeLimit: Refused, apiv1.CodeKindMismatch: Refused, apiv1.CodeInvalid: Invalid,
	} {
		b := newBench(t)
		s := b.stream()
		b.send(s, 1, acquireOp(1, "a"))
		b.now = 1
		b.receive(s, refusalAnswer(1, code))
		got := b.History().Ops[0]
		if got.Outcome != want || (got.Return == Never) != (want == Unknown) {
			t.Errorf("after the answer %v the outcome is %s and it returned at %v, want %s", code, got.Outcome, got.Return, want)
		}
	}
}

// TestMessagesThatAreUsedAgainDoNotChangeTheRecord: a client may reuse its messages.
func TestMessagesThatAreUsedAgainDoNotChangeTheRecord(t *testing.T) {
	b := newBench(t)
	s := b.stream()
	o := acquireOp(1, "a")
	b.send(s, 1, o)
	q := o.GetAcquire()
	q.Id.Session[0], q.Id.Sequence, q.Locks[0].Name = 9, 9, "b"
	b.receive(s, grantAnswer(1, 1))
	got := b.History().Ops[0]
	if got.Wants[0].Lock != "a" || got.Request != strings.Repeat("01", 16)+"/1" {
		t.Errorf("the record changed with the message: %+v", got)
	}
}

// TestKeepAlivesAndReadsAreCallsOfTheirOwn, because they have no request ID. A read that was
// not answered shows nothing and is left out.
func TestKeepAlivesAndReadsAreCallsOfTheirOwn(t *testing.T) {
	b := newBench(t)
	s := b.stream()
	b.now = 3 * time.Second // the stream is no longer new
	alive := func() *apiv1.Operation {
		return &apiv1.Operation{Request: &apiv1.Operation_KeepAlive{KeepAlive: &apiv1.KeepAliveRequest{Session: session(2)}}}
	}
	get := func() *apiv1.Operation {
		return &apiv1.Operation{Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: "a"}}}
	}
	for id := range uint64(3) {
		b.send(s, id+1, alive())
	}
	b.send(s, 4, get())
	b.send(s, 5, get())
	b.receive(s, &apiv1.Answer{Id: 1, Result: &apiv1.Answer_KeepAlive{KeepAlive: &apiv1.KeepAliveResponse{Deadline: 9}}})
	b.receive(s, refusalAnswer(2, apiv1.CodeNoSession))
	b.receive(s, &apiv1.Answer{Id: 5, Result: &apiv1.Answer_Get{Get: &apiv1.GetResponse{Lock: &apiv1.Lock{
		Holders: []*apiv1.Holder{{Token: 8}, {Token: 7}},
	}}}})
	var outcomes []Outcome
	for _, o := range b.History().Ops {
		outcomes = append(outcomes, o.Outcome)
		if o.Kind == Get && !slices.Equal(o.Holders, []uint64{7, 8}) {
			t.Errorf("the read returned %d, want tokens 7 and 8", o.Holders)
		}
		if o.Before != sendingTakes {
			t.Errorf("%s may have begun %v before, want %v", o.Kind, o.Before, sendingTakes)
		}
	}
	if want := []Outcome{OK, NoSess, Unknown, OK}; !slices.Equal(outcomes, want) {
		t.Errorf("outcomes are %v, want %v", outcomes, want)
	}
}

// TestBeliefThatEndsBeforeItBeginsIsNone: a loss may be reported before the acquire returns.
func TestBeliefThatEndsBeforeItBeginsIsNone(t *testing.T) {
	b := newBench(t)
	b.now = 1
	b.disbelieve("c", "a", 1, LostForced)
	b.now = 2
	b.believe("c", "a", 1)
	b.now = 3
	b.believe("c", "a", 2)
	b.disbelieve("c", "a", 3, LostForced)
	b.now = 4
	b.disbelieve("c", "a", 2, "")
	for _, belief := range b.History().Beliefs {
		from, until := time.Duration(1), time.Duration(1)
		switch belief.Token {
		case 2:
			from, until = 3, 4
		case 3:
			from, until = 3, 3
		}
		if belief.From != from || belief.Until != until {
			t.Errorf("token %d was valid from %v to %v, want %v to %v", belief.Token, belief.From, belief.Until, from, until)
		}
	}
}

// TestFullRecorderSaysSo: a history with gaps is not called correct.
func TestFullRecorderSaysSo(t *testing.T) {
	b := newBench(t)
	b.Limit(2)
	s := b.stream()
	for n := range uint64(4) {
		b.send(s, n+1, acquireOp(n+1, "a"))
	}
	h := b.History()
	if r := h.Check(Options{}); len(h.Ops) != 2 || h.Dropped != 2 || r.OK() {
		t.Errorf("%d operations, %d dropped, violations %v; want 2, 2, and one violation", len(h.Ops), h.Dropped, r.Violations)
	}
}

// TestEqualEntriesShareTheirEvents, so that three nodes do not take three times the memory.
func TestEqualEntriesShareTheirEvents(t *testing.T) {
	b := newBench(t)
	for _, node := range []string{"n1", "n2"} {
		b.Applied(node)(fsm.Applied{Index: 1, Digest: 5, Events: []fsm.Event{{Kind: fsm.EventQueued}}})
	}
	b.Applied("n3")(fsm.Applied{Index: 1, Digest: 6, Events: []fsm.Event{{Kind: fsm.EventQueued}}})
	e := b.History().Entries
	if &e[0].Applied.Events[0] != &e[1].Applied.Events[0] || &e[0].Applied.Events[0] == &e[2].Applied.Events[0] {
		t.Error("events are shared by entries that differ, or not by equal ones")
	}
}

// TestWrittenHistoryIsJudgedAlike: everything that the checks use is written.
func TestWrittenHistoryIsJudgedAlike(t *testing.T) {
	for _, kind := range []string{"", "double grant", "acknowledged grant lost", "digest differs", "early expiry"} {
		h, _ := simulate(profile{seed: 3, clients: 4, locks: 1, ops: 200, end: time.Minute, wrong: kind})
		h.Faults = []Fault{{What: "kill n1", At: time.Second}}
		checkWritten(t, h)
		var buf bytes.Buffer
		if err := h.Write(&buf); err != nil {
			t.Fatal(err)
		}
		again, err := Read(&buf)
		if err != nil {
			t.Fatal(err)
		}
		want, got := h.Check(Options{}), again.Check(Options{})
		if !slices.Equal(got.Violations, want.Violations) {
			t.Errorf("%q: read again it has the violations\n%v\nwant\n%v", kind, got.Violations, want.Violations)
		}
	}
}

func TestReadNamesWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "empty",
		"{\"history\":2}\n":     "field \"history\" is 2",
		"{\"history\":1}\n{}\n": "line 2: must be an op",
		"{\"history\":1}\n{\"entry\":{\"digest\":\"xyz\"}}\n":                                                   "digest \"xyz\"",
		"{\"history\":1}\n{\"entry\":{\"digest\":\"1\",\"events\":[{\"kind\":4,\"request\":\"01/x\"}]}}\n":      "request \"01\"",
		"{\"history\":1}\n{\"entry\":{\"digest\":\"1\",\"events\":[{\"kind\":4,\"session\":\"01\"}]}}\n":        "session \"01\"",
		"{\"history\":1}\n{\"entry\":{\"digest\":\"1\",\"events\":[{\"kind\":4,\"request\":\"once/zz\"}]}}\nno": "request \"zz\"",
		"{\"history\":1}\nno\n": "line 2: invalid character",
	} {
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Read(%q) = %v, want an error with %q", text, err, want)
		}
	}
}

// FuzzRead: any history that Read accepts can be checked.
func FuzzRead(f *testing.F) {
	h, _ := simulate(profile{seed: 5, clients: 3, locks: 1, ops: 40, end: 20 * time.Second})
	h.Entries = h.Entries[:20]
	var buf bytes.Buffer
	if err := h.Write(&buf); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Add([]byte("{\"history\":1}\n{\"op\":{\"kind\":\"acquire\",\"outcome\":\"ok\"}}\n{\"belief\":{\"token\":1}}\n"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		h, err := Read(bytes.NewReader(data))
		if err == nil {
			h.Check(Options{PorcupineTimeout: 100 * time.Millisecond})
		}
	})
}

// TestPictureShowsALock, or returns why it cannot.
func TestPictureShowsALock(t *testing.T) {
	h, _ := simulate(profile{seed: 4, clients: 5, locks: 1, ops: 150, end: time.Minute, wrong: "double grant"})
	var buf bytes.Buffer
	if err := h.Picture(&buf, "lock0"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(buf.String(), "token") || !strings.Contains(buf.String(), "<html") {
		t.Error("the picture shows no token")
	}
	if err := h.Picture(&buf, "nothing"); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("a picture of a lock that was not used: %v, want an error that names it", err)
	}
}
