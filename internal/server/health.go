//nolint:revive // the methods are the calls of grpc's health protocol
package server

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// healthEvery is how often a watched health is looked at.
const healthEvery = 250 * time.Millisecond

// health is the gRPC health service. It keeps no state: ready is what the node
// says when it is asked.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	server *Server
}

// services are the names that have a health: the server as a whole and Locks.
var services = []string{"", apiv1.Locks_ServiceDesc.ServiceName}

func known(service string) bool { return service == services[0] || service == services[1] }

func (h *health) now(ctx context.Context) grpc_health_v1.HealthCheckResponse_ServingStatus {
	if ready, _ := h.server.ready(ctx); ready {
		return grpc_health_v1.HealthCheckResponse_SERVING
	}
	return grpc_health_v1.HealthCheckResponse_NOT_SERVING
}

// ready says whether the node serves, and otherwise why not.
func (s *Server) ready(ctx context.Context) (ready bool, reason string) {
	select {
	case <-s.stopping:
		return false, "the node is stopping"
	default:
	}
	st, err := s.backend.Status(ctx)
	switch {
	case err != nil:
		return false, apiv1.AsError(err).GetMessage()
	case !st.GetReady() && st.GetNotReadyReason() == "":
		return false, "the node has not caught up yet"
	default:
		return st.GetReady(), st.GetNotReadyReason()
	}
}

func (h *health) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if !known(r.GetService()) {
		return nil, status.Errorf(codes.NotFound, "no service %q", r.GetService())
	}
	return &grpc_health_v1.HealthCheckResponse{Status: h.now(ctx)}, nil
}

func (h *health) List(ctx context.Context, _ *grpc_health_v1.HealthListRequest) (*grpc_health_v1.HealthListResponse, error) {
	all := map[string]*grpc_health_v1.HealthCheckResponse{}
	for _, service := range services {
		all[service] = &grpc_health_v1.HealthCheckResponse{Status: h.now(ctx)}
	}
	return &grpc_health_v1.HealthListResponse{Statuses: all}, nil
}

func (h *health) Watch(r *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	ticker := time.NewTicker(healthEvery)
	defer ticker.Stop()
	last := grpc_health_v1.HealthCheckResponse_ServingStatus(-1)
	for {
		now := grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
		if known(r.GetService()) {
			now = h.now(stream.Context())
		}
		if now != last {
			if err := stream.Send(&grpc_health_v1.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			last = now
		}
		select {
		case <-ticker.C:
		case <-h.server.stopping:
			return stopping()
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}
