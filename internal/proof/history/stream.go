package history

import (
	"context"
	"encoding/hex"
	"slices"
	"time"

	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
)

// DialOptions returns the options with which the client of that name is recorded: pass them
// to the client with client.GRPC. They record its Session streams, and its unary calls that
// change something.
func (r *Recorder) DialOptions(name string) []grpc.DialOption {
	intercept := func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		s, err := next(ctx, desc, cc, method, opts...)
		if err != nil || method != apiv1.Locks_Session_FullMethodName {
			return s, err
		}
		return &stream{ClientStream: s, r: r, client: name, opened: r.now(), sent: make(map[uint64]sending)}, nil
	}
	return []grpc.DialOption{grpc.WithChainStreamInterceptor(intercept), grpc.WithChainUnaryInterceptor(r.unary(name))}
}

// stream records the messages of one Session stream.
type stream struct {
	grpc.ClientStream
	r      *Recorder
	client string
	opened time.Duration
	sent   map[uint64]sending // by Operation.id, not answered. Guarded by r.mu
}

// sending is one operation on a stream that waits for its answer.
type sending struct {
	record int32
	call   time.Duration // of this sending
}

// callID identifies a call: the same one is the same call sent again.
type callID struct {
	kind    Kind
	request requestID
}

// record is an operation as it comes in. Its texts are made by History.
type record struct {
	op     Op
	id     callID
	target requestID
	final  bool // it has an answer that counts
}

// SendMsg records the operations before they are sent.
func (s *stream) SendMsg(m any) error {
	if q, ok := m.(*apiv1.SessionRequest); ok {
		s.r.mu.Lock()
		now := s.r.now()
		for _, o := range q.GetOperations() {
			// An operation that found no connection waits for a stream and is sent as
			// soon as there is one. Later ones can be held up by a stream that stalls,
			// which is given up after a second.
			before := Never
			if now-s.opened >= streamIsSettled {
				before = sendingTakes
			}
			if i, ok := s.r.noteLocked(s.client, o, now, before); ok {
				s.sent[o.GetId()] = sending{i, now}
			}
		}
		s.r.mu.Unlock()
	}
	return s.ClientStream.SendMsg(m)
}

// RecvMsg records the answers before the client gets them.
func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		s.r.mu.Lock()
		now := s.r.now()
		for id, sent := range s.sent {
			s.r.leftLocked(sent, now)
			delete(s.sent, id)
		}
		s.r.mu.Unlock()
	}
	if p, ok := m.(*apiv1.SessionResponse); ok && err == nil {
		s.r.mu.Lock()
		now := s.r.now()
		for _, a := range p.GetAnswers() {
			if sent, ok := s.sent[a.GetId()]; ok {
				delete(s.sent, a.GetId())
				s.r.answerLocked(sent, a, now)
			}
		}
		s.r.mu.Unlock()
	}
	return err
}

// noteLocked finds or makes the record of an operation that a client sends now;
// it is not ok if there is none. before is its Op.Before, if it is new.
func (r *Recorder) noteLocked(client string, o *apiv1.Operation, now, before time.Duration) (i int32, ok bool) {
	rec, again := r.describe(o)
	if rec.op.Kind == "" {
		return 0, false // not checked
	}
	if again {
		if i, ok := r.byID[rec.id]; ok {
			first := &r.records[i].op
			first.Wait = shorter(first.Wait, rec.op.Wait)
			return i, true
		}
	}
	if len(r.records) >= r.limit {
		r.dropped++
		return 0, false
	}
	rec.op.Client, rec.op.Call, rec.op.Return, rec.op.Outcome = client, now, Never, Unknown
	rec.op.Before = before
	i = int32(len(r.records))
	r.records = append(r.records, rec)
	if again {
		r.byID[rec.id] = i
	}
	return i, true
}

// shorter is the shorter of two waits for one request; negative ones have no limit.
// The table may have executed either.
func shorter(a, b time.Duration) time.Duration {
	if a < 0 || b < 0 {
		return max(a, b)
	}
	return min(a, b)
}

// describe makes the record of an operation. It reports whether a retry of the operation
// would be the same call.
func (r *Recorder) describe(o *apiv1.Operation) (rec record, again bool) {
	switch q := o.GetRequest().(type) {
	case *apiv1.Operation_Acquire:
		rec.requested(Acquire, q.Acquire.GetId())
		rec.op.Wants = wants(q.Acquire.GetLocks())
		rec.op.TTL = time.Duration(q.Acquire.GetTtlNs())
		rec.op.Wait = time.Duration(q.Acquire.GetWaitNs())
		rec.op.Delay = time.Duration(q.Acquire.GetDelayNs())
		rec.op.Value = string(q.Acquire.GetValue())
		rec.op.Detached = q.Acquire.GetDetached() || rec.id.request.session == [16]byte{}
	case *apiv1.Operation_Release:
		rec.requested(Release, q.Release.GetId())
		rec.op.Wants, rec.op.Token, rec.op.Lost = named(q.Release.GetName()), q.Release.GetToken(), q.Release.GetLost()
	case *apiv1.Operation_Cancel:
		rec.requested(Cancel, q.Cancel.GetId())
		rec.target = idOf(q.Cancel.GetTarget())
	case *apiv1.Operation_Renew:
		rec.requested(Renew, q.Renew.GetId())
		rec.op.Wants, rec.op.Token = named(q.Renew.GetName()), q.Renew.GetToken()
		rec.op.TTL = time.Duration(q.Renew.GetTtlNs())
	case *apiv1.Operation_ForceRelease:
		rec.requested(ForceRelease, q.ForceRelease.GetId())
		rec.op.Wants, rec.op.Token = named(q.ForceRelease.GetName()), q.ForceRelease.GetToken()
	case *apiv1.Operation_Resize:
		rec.requested(Resize, q.Resize.GetId())
		rec.op.Wants = []Want{{Lock: q.Resize.GetName(), Mode: fsm.Permits, Limit: q.Resize.GetLimit()}}
	case *apiv1.Operation_Get:
		rec.op.Kind = Get
		rec.op.Wants, rec.op.Stale = named(q.Get.GetName()), time.Duration(q.Get.GetMaxStaleNs())
	case *apiv1.Operation_OpenSession:
		rec.op.Kind, rec.op.TTL = Open, time.Duration(q.OpenSession.GetTtlNs())
		rec.id = callID{kind: Open, request: requestID{session: id16(q.OpenSession.GetSession())}}
	case *apiv1.Operation_EndSession:
		rec.op.Kind, rec.op.Undelivered = End, q.EndSession.GetUndelivered()
		rec.id = callID{kind: End, request: requestID{session: id16(q.EndSession.GetSession())}}
	case *apiv1.Operation_KeepAlive:
		rec.op.Kind = KeepAlive
		rec.op.Session = r.nameLocked(id16(q.KeepAlive.GetSession()))
		return rec, false // each is a call of its own
	default:
		return record{}, false
	}
	if rec.op.Detached {
		rec.op.Holder = o.GetAcquire().GetHolder()
	} else {
		rec.op.Session = r.nameLocked(rec.id.request.session)
	}
	// Without an ID it is another request each time.
	return rec, rec.id.request.session != [16]byte{}
}

func (rec *record) requested(kind Kind, id *apiv1.RequestID) {
	rec.op.Kind = kind
	rec.id = callID{kind: kind, request: idOf(id)}
}

func idOf(id *apiv1.RequestID) requestID {
	return requestID{session: id16(id.GetSession()), sequence: id.GetSequence(), once: id16(id.GetOnce())}
}

func id16(b []byte) (id [16]byte) {
	copy(id[:], b)
	return id
}

// nameLocked returns a session's ID in hexadecimal, always the same string.
func (r *Recorder) nameLocked(id [16]byte) string {
	if id == [16]byte{} {
		return ""
	}
	name, ok := r.names[id]
	if !ok {
		name = hex.EncodeToString(id[:])
		if len(r.names) < r.limit {
			r.names[id] = name
		}
	}
	return name
}

func named(lock string) []Want {
	if lock == "" {
		return nil
	}
	return []Want{{Lock: lock}}
}

func wants(in []*apiv1.Want) []Want {
	out := make([]Want, len(in))
	for i, w := range in {
		out[i] = Want{Lock: w.GetName(), Mode: fsm.Mode(w.GetMode()), Permits: w.GetPermits(), Limit: w.GetLimit()}
		if w.GetMode() == apiv1.Mode_MODE_UNSPECIFIED {
			out[i].Mode = fsm.Exclusive
		}
	}
	return out
}

// answerLocked records an answer. The first final one counts. A later one that differs is
// kept as another operation with the same request ID, for the checks to find.
func (r *Recorder) answerLocked(sent sending, a *apiv1.Answer, now time.Duration) {
	rec := &r.records[sent.record]
	if !final(rec.op.Kind, a) {
		r.leftLocked(sent, now)
		return
	}
	op := rec.op
	op.Call = min(op.Call, sent.call)
	op.Return = now
	op.take(a)
	switch {
	case !rec.final:
		rec.op, rec.final = op, true
		if op.Kind == Acquire && op.Outcome == OK {
			r.granted[op.Token] = op.Wants
		}
	case op.Outcome == rec.op.Outcome && op.Token == rec.op.Token:
	case rec.op.Kind == Open || rec.op.Kind == End:
		// After the end of its session the answer is another one.
	case len(r.records) >= r.limit:
		r.dropped++
	default:
		op.Call, op.Before = sent.call, Never
		other := record{op: op, id: rec.id, target: rec.target, final: true}
		r.records = append(r.records, other)
	}
}

// final reports whether an answer ends a call. The others do not say whether it has taken
// effect, or say that it must be sent again. That a request is stale says that it was
// answered, not how.
func final(kind Kind, a *apiv1.Answer) bool {
	code := apiv1.Code(a.GetError().GetCode())
	return !code.Passes() && code != apiv1.CodeInternal && (code != apiv1.CodeStaleRequest || kind == Get)
}

// take copies an answer into the record.
func (op *Op) take(a *apiv1.Answer) {
	op.Index, op.Stamp = a.GetIndex(), fsm.Instant(a.GetStamp())
	if e := a.GetError(); e != nil {
		op.Code, op.Error = apiv1.Code(e.GetCode()), e.GetMessage()
		op.Outcome = outcome(op.Code)
		if op.Outcome == Busy {
			op.Holders = tokens(e.GetHolders())
		}
		return
	}
	op.Outcome = OK
	switch q := a.GetResult().(type) {
	case *apiv1.Answer_Acquire:
		op.Token, op.Until, op.Came = q.Acquire.GetToken(), fsm.Instant(q.Acquire.GetDeadline()), fsm.Instant(q.Acquire.GetQueued())
	case *apiv1.Answer_Renew:
		op.Until = fsm.Instant(q.Renew.GetDeadline())
	case *apiv1.Answer_ForceRelease:
		op.Holders = tokens(q.ForceRelease.GetReleased())
	case *apiv1.Answer_Get:
		op.Holders = tokens(q.Get.GetLock().GetHolders())
	case *apiv1.Answer_KeepAlive:
		if q.KeepAlive.GetDeadline() == 0 {
			op.Outcome = NoSess
		}
	}
}

func outcome(code apiv1.Code) Outcome {
	switch code {
	case apiv1.CodeOK:
		return OK
	case apiv1.CodeBusy:
		return Busy
	case apiv1.CodeTimeout:
		return TimedOut
	case apiv1.CodeNotHeld:
		return NotHeld
	case apiv1.CodeNoSession:
		return NoSess
	case apiv1.CodeInvalid:
		return Invalid
	}
	return Refused
}

func tokens(in []*apiv1.Holder) []uint64 {
	if len(in) == 0 {
		return nil
	}
	out := make([]uint64, len(in))
	for i, h := range in {
		out[i] = h.GetToken()
	}
	slices.Sort(out)
	return slices.Compact(out) // a grant on several of the locks is named for each
}
