//nolint:revive // the methods are the calls of locknode.proto, which describes them
package server

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/peerapi"
)

// locks is the service Locks. It has no methods for the calls that are one operation: unary
// serves them.
type locks struct {
	apiv1.UnimplementedLocksServer
	server *Server
}

// locksService is the service Locks with one handler for all calls that are one operation. The
// kind of operation decides the request that a call takes and the result that it returns.
func locksService() *grpc.ServiceDesc {
	d := apiv1.Locks_ServiceDesc
	d.Methods = slices.Clone(d.Methods)
	for i := range d.Methods {
		if m := &d.Methods[i]; apiv1.KindOfMethod(m.MethodName) != apiv1.KindPing {
			m.Handler = unary(apiv1.KindOfMethod(m.MethodName), "/"+d.ServiceName+"/"+m.MethodName)
		}
	}
	return &d
}

// unary is what the generated handler would be, for a kind of operation.
func unary(kind apiv1.Kind, method string) grpc.MethodHandler {
	return func(service any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		op, request := kind.New()
		if err := decode(request); err != nil {
			return nil, err
		}
		do := func(ctx context.Context, _ any) (any, error) {
			a, err := service.(*locks).server.do(ctx, RoadUnary, op)
			if err != nil {
				return nil, grpcError(err)
			}
			return kind.Result(a), nil
		}
		if intercept == nil {
			return do(ctx, request)
		}
		return intercept(ctx, request, &grpc.UnaryServerInfo{Server: service, FullMethod: method}, do)
	}
}

// maxBatchBytes bounds the answers of a batch: clients accept 4 MiB by default.
const maxBatchBytes = 3 << 20

// Batch starts all operations at once and answers when the last one is answered. If the
// caller goes away, all acquires without a session are given up, also those that were
// granted: the caller has not learned their tokens.
func (l *locks) Batch(ctx context.Context, r *apiv1.BatchRequest) (*apiv1.BatchResponse, error) {
	s, ops := l.server, r.GetOperations()
	if most := s.cfg.Limits.BatchOperations; len(ops) > most {
		return nil, apiv1.NewError(apiv1.CodeInvalid, "operations: are %d in one batch, must be at most %d", len(ops), most)
	}
	c := s.callerIn(ctx)
	var stop, revoked <-chan struct{}
	if slices.ContainsFunc(ops, mux.MayWait) {
		var leave func()
		revoked, leave = s.wait(c)
		defer leave()
		stop = s.stopping
	}
	answers, calls, done := s.startAll(ctx, ops, c)
	var err error
	select {
	case <-done:
		if ctx.Err() == nil {
			return &apiv1.BatchResponse{Answers: bounded(ops, answers)}, nil
		}
		err = context.Cause(ctx)
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-stop:
		err = stopping()
	case <-revoked:
		err = revokedMeanwhile()
	}
	for _, call := range calls {
		s.lose(call)
	}
	return nil, grpcError(err)
}

// startAll starts the operations. The answers, in the same order, may be read once done is
// closed.
func (s *Server) startAll(ctx context.Context, ops []*apiv1.Operation, c *caller) (answers []*apiv1.Answer, calls []*mux.Call, done <-chan struct{}) {
	begun, held := time.Now(), tallyOf(ctx)
	answers = make([]*apiv1.Answer, len(ops))
	all := make(chan struct{})
	var missing atomic.Int32
	for i, op := range ops {
		if op.GetRequest() == nil {
			answers[i] = errorAnswer(op.GetId(), apiv1.NewError(apiv1.CodeInvalid, "operations[%d].request: is missing or of a kind that this node does not know", i))
			continue
		}
		call := &mux.Call{Op: op}
		if refusal := s.admit(ctx, c, call); refusal != nil {
			answers[i] = errorAnswer(op.GetId(), refusal)
			continue
		}
		if problem := mux.Check(op); problem != nil {
			answers[i] = errorAnswer(op.GetId(), problem)
			continue
		}
		if refusal := held.startOp(op); refusal != nil {
			answers[i] = errorAnswer(op.GetId(), refusal)
			continue
		}
		calls = append(calls, call)
		call.Done = func(a *apiv1.Answer) {
			s.answered(RoadUnary, c, op, a, begun)
			a = held.answered(op, a)
			a.Id = op.GetId()
			answers[i] = a
			if missing.Add(-1) == 0 {
				close(all)
			}
		}
	}
	missing.Store(int32(len(calls)))
	if len(calls) == 0 {
		close(all)
	}
	for _, call := range calls {
		s.start(c, call)
	}
	return answers, calls, all
}

// bounded answers reads with an error that would make the answers too long for a message.
func bounded(ops []*apiv1.Operation, answers []*apiv1.Answer) []*apiv1.Answer {
	total := 0
	for i, a := range answers {
		kind := ops[i].Kind()
		size := sizeOf(kind, a)
		if total+size > maxBatchBytes && isRead(kind, a) {
			answers[i] = errorAnswer(a.GetId(), apiv1.NewError(apiv1.CodeTooLarge, "operations[%d]: the answers of this batch are too long together; send this read in another batch", i))
			size = smallAnswer * 4
		}
		total += size
	}
	return answers
}

// peers is the service Peers.
type peers struct {
	peerapi.UnimplementedPeersServer
	server *Server
}

func (p *peers) Term(ctx context.Context, _ *peerapi.TermRequest) (*peerapi.TermResponse, error) {
	return passed(p.server.backend.Term(ctx))
}

func (p *peers) ReadIndex(ctx context.Context, _ *peerapi.ReadIndexRequest) (*peerapi.ReadIndexResponse, error) {
	return passed(p.server.backend.ReadIndex(ctx))
}

func (p *peers) Self(ctx context.Context, _ *peerapi.SelfRequest) (*peerapi.SelfResponse, error) {
	return passed(p.server.backend.Self(ctx))
}

func (p *peers) Join(ctx context.Context, r *peerapi.JoinRequest) (*peerapi.JoinResponse, error) {
	return passed(p.server.backend.Join(ctx, r))
}

func (p *peers) Digests(ctx context.Context, r *peerapi.DigestsRequest) (*peerapi.DigestsResponse, error) {
	return passed(p.server.backend.Digests(ctx, r))
}

func (p *peers) GossipKeys(ctx context.Context, _ *peerapi.GossipKeysRequest) (*peerapi.GossipKeysResponse, error) {
	return passed(p.server.backend.GossipKeys(ctx))
}

func (p *peers) ChangeGossipKeys(ctx context.Context, r *peerapi.ChangeGossipKeysRequest) (*peerapi.GossipKeysResponse, error) {
	if !p.server.isPeer(ctx) {
		return nil, apiv1.NewError(apiv1.CodeDenied, "this call is for nodes of the cluster; \"locknode gossip-key\" is for operators")
	}
	return passed(p.server.backend.ChangeOwnGossipKeys(ctx, r))
}

func passed[R any](r R, err error) (R, error) {
	if err != nil {
		var none R
		return none, grpcError(err)
	}
	return r, nil
}

// maxErrorBytes bounds what an error puts into the trailer: some clients accept
// 8 KiB of headers.
const maxErrorBytes = 3 << 10

// grpcError returns err in a form that becomes a gRPC status, without what is too long.
func grpcError(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err() // the caller has gone away: grpc's own code will do
	}
	var e *apiv1.Error
	if !errors.As(err, &e) {
		if _, ok := status.FromError(err); ok {
			return err
		}
		return apiv1.AsError(err)
	}
	if proto.Size(e) <= maxErrorBytes {
		return e
	}
	short := &apiv1.Error{Code: e.GetCode(), Message: e.GetMessage(), Leader: e.GetLeader()}
	size := 2 * len(short.GetMessage()) // which is also the status message
	for _, h := range e.GetHolders() {
		h = &apiv1.Holder{
			Lock: h.GetLock(), Token: h.GetToken(), Holder: h.GetHolder(), Session: h.GetSession(), Mode: h.GetMode(),
			Permits: h.GetPermits(), RemainingNs: h.GetRemainingNs(), SinceUnixMs: h.GetSinceUnixMs(),
		}
		if size += proto.Size(h); size > maxErrorBytes {
			break
		}
		short.Holders = append(short.Holders, h)
	}
	return short
}
