//nolint:revive // the methods are the calls of grpc's health protocol
package server

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// healthEvery is how often a health is checked while it is watched.
const healthEvery = 250 * time.Millisecond

// health is the gRPC health service. It keeps no state but for watchers: each answer is
// the node's at that moment.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	server *Server
	watch  watch
}

// voterService is the name of a service that is healthy while the next node may be
// stopped, as for /readyz?voter.
const voterService = "voter"

// services are the names that have a health: the server as a whole, Locks, and the voter.
var services = []string{"", apiv1.Locks_ServiceDesc.ServiceName, voterService}

func known(service string) bool { return slices.Contains(services, service) }

func (h *health) now(ctx context.Context, service string) grpc_health_v1.HealthCheckResponse_ServingStatus {
	if ready, _ := h.server.passes(ctx, gate{voter: service == voterService}); ready {
		return grpc_health_v1.HealthCheckResponse_SERVING
	}
	return grpc_health_v1.HealthCheckResponse_NOT_SERVING
}

// all is the health of each service.
func (h *health) all(ctx context.Context) map[string]grpc_health_v1.HealthCheckResponse_ServingStatus {
	all := map[string]grpc_health_v1.HealthCheckResponse_ServingStatus{}
	for _, service := range services {
		all[service] = h.now(ctx, service)
	}
	return all
}

// gate is what a caller of /readyz requires besides a node that serves.
type gate struct {
	voter  bool   // the next node may be stopped
	voters uint64 // at least so many voters answer the leader
}

// gateOf reads the query of /readyz. An unknown parameter is an error: a deployment that
// misspells one would stop the next node too early.
func gateOf(query string) (g gate, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return g, apiv1.NewError(apiv1.CodeInvalid, "query: is %q: %v", query, err)
	}
	for key := range values {
		switch value := values.Get(key); {
		case key == "voter" && (value == "" || value == "true" || value == "1"):
			g.voter = true
		case key == "voters":
			g.voter = true
			if g.voters, err = strconv.ParseUint(value, 10, 8); err != nil || g.voters == 0 {
				return g, apiv1.NewError(apiv1.CodeInvalid, "voters: is %q, must be a number from 1 to 255", value)
			}
		default:
			return g, apiv1.NewError(apiv1.CodeInvalid, "query: is %q, must be \"voter\" or \"voters=N\"", query)
		}
	}
	return g, nil
}

// passes reports whether the node is as ready as g requires. note is the reason why not,
// or a remark if it is.
func (s *Server) passes(ctx context.Context, g gate) (ready bool, note string) {
	st, err := s.status(ctx)
	ready, note = serves(st, err)
	if !ready || !g.voter {
		return ready, note
	}
	if ready, note = st.GetVoterReady(), st.GetVoterReason(); ready && uint64(st.GetVotersHealthy()) < g.voters {
		return false, fmt.Sprintf("%d voters answer the leader, must be at least %d", st.GetVotersHealthy(), g.voters)
	}
	return ready, note
}

// status returns the node's status, or an error while the server stops.
func (s *Server) status(ctx context.Context) (*apiv1.StatusResponse, error) {
	select {
	case <-s.stopping:
		return nil, apiv1.NewError(apiv1.CodeUnavailable, "the node is stopping")
	default:
		return s.backend.Status(ctx)
	}
}

// serves reports whether a node with this status serves, and if not why.
func serves(st *apiv1.StatusResponse, err error) (ready bool, reason string) {
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
	return &grpc_health_v1.HealthCheckResponse{Status: h.now(ctx, r.GetService())}, nil
}

func (h *health) List(ctx context.Context, _ *grpc_health_v1.HealthListRequest) (*grpc_health_v1.HealthListResponse, error) {
	all := map[string]*grpc_health_v1.HealthCheckResponse{}
	for service, now := range h.all(ctx) {
		all[service] = &grpc_health_v1.HealthCheckResponse{Status: now}
	}
	return &grpc_health_v1.HealthListResponse{Statuses: all}, nil
}

func (h *health) Watch(r *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	defer h.watch.join(h)()
	last := grpc_health_v1.HealthCheckResponse_ServingStatus(-1)
	for {
		seen, changed := h.watch.look()
		now, ok := seen[r.GetService()]
		if !ok {
			now = grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
		}
		if now != last {
			if err := stream.Send(&grpc_health_v1.HealthCheckResponse{Status: now}); err != nil {
				return err
			}
			last = now
		}
		select {
		case <-changed:
		case <-h.server.stopping:
			return stopping()
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

// watch is the health that all watchers share: one goroutine checks it as long as there is
// a watcher, and wakes all when it has changed. The zero value is ready to use.
type watch struct {
	mu       sync.Mutex // guards what follows
	watchers int
	end      chan struct{}                                               // closed with the last watcher
	seen     map[string]grpc_health_v1.HealthCheckResponse_ServingStatus // by service; replaced, not changed
	changed  chan struct{}                                               // closed when seen is replaced
}

// join adds a watcher, until leave is called.
func (w *watch) join(h *health) (leave func()) {
	seen := h.all(context.Background())
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watchers++; w.watchers == 1 {
		w.seen, w.changed, w.end = seen, make(chan struct{}), make(chan struct{})
		h.server.receivers.add(1)
		go w.run(h, w.end)
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.watchers--; w.watchers == 0 {
			close(w.end)
		}
	}
}

// run is the goroutine that checks.
func (w *watch) run(h *health, end <-chan struct{}) {
	defer h.server.receivers.add(-1)
	ticker := time.NewTicker(healthEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-end:
			return
		case <-h.server.stopping:
			return
		}
		seen := h.all(context.Background())
		w.mu.Lock()
		if !maps.Equal(seen, w.seen) {
			close(w.changed)
			w.seen, w.changed = seen, make(chan struct{})
		}
		w.mu.Unlock()
	}
}

// look returns the health of the services, and a channel that is closed when it changes.
func (w *watch) look() (seen map[string]grpc_health_v1.HealthCheckResponse_ServingStatus, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen, w.changed
}
