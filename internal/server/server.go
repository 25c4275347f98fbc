package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// Server answers for one node. Its methods are safe for concurrent use.
type Server struct {
	cfg     Config
	backend Backend
	grpc    *grpc.Server
	http    *http.Server

	stopping  chan struct{} // closed when Close begins: who waits in line is told
	closed    chan struct{} // closed when Close has ended
	requests  counter       // calls, streams and HTTP requests under way
	receivers counter       // goroutines of streams

	mu        sync.Mutex // guards what follows
	streams   map[*stream]struct{}
	listeners []*limited
	closing   bool
}

// New returns a server that serves nothing yet. It reports every fault of cfg.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Observer == nil {
		cfg.Observer = nobody{}
	}
	if cfg.Unfit == nil {
		cfg.Unfit = func() error { return nil }
	}
	cfg.Limits = cfg.Limits.withDefaults()
	if files, ok := openFiles(); ok {
		if wanted := cfg.Limits.Connections; cfg.Limits.fit(files) {
			cfg.Logger.Warn("fewer connections are taken than configured: the process may open no more files",
				"connections", cfg.Limits.Connections, "configured", wanted, "open_files", files)
		}
	}
	s := &Server{
		cfg: cfg, backend: cfg.Backend,
		stopping: make(chan struct{}), closed: make(chan struct{}),
		streams: map[*stream]struct{}{},
	}
	s.grpc = s.newGRPC()
	s.http = s.newHTTP()
	return s, nil
}

func (s *Server) newGRPC() *grpc.Server {
	l := s.cfg.Limits
	g := grpc.NewServer(
		grpc.MaxRecvMsgSize(l.MessageBytes),
		grpc.MaxHeaderListSize(16<<10),
		grpc.MaxConcurrentStreams(uint32(l.StreamsPerConnection)),
		grpc.ConnectionTimeout(5*time.Second), // until the handshake is done
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			// The default of 5 minutes cuts clients that watch over a parked
			// acquire with pings.
			MinTime: l.PingMinTime, PermitWithoutStream: true,
		}),
		grpc.ChainUnaryInterceptor(s.countCall),
		grpc.ChainStreamInterceptor(s.countStream),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 15 * time.Second, Timeout: 10 * time.Second}),
	)
	apiv1.RegisterLocksServer(g, &locks{server: s})
	apiv1.RegisterPeersServer(g, &peers{server: s})
	grpc_health_v1.RegisterHealthServer(g, &health{server: s})
	reflection.Register(g)
	return g
}

func (s *Server) newHTTP() *http.Server {
	return &http.Server{
		Handler:           s.handler(),
		ConnContext:       withConn,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
}

// ServeGRPC answers gRPC on l until Close, and then returns nil.
func (s *Server) ServeGRPC(l net.Listener) error {
	err := s.grpc.Serve(greeting{s.limit(l, "grpc")})
	if err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve gRPC on %s: %w", l.Addr(), err)
	}
	return nil
}

// ServeHTTP answers HTTP on l until Close, and then returns nil.
func (s *Server) ServeHTTP(l net.Listener) error {
	err := s.http.Serve(s.limit(l, "http"))
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	}
	return nil
}

func (s *Server) limit(l net.Listener, name string) net.Listener {
	limited := newLimited(l, name, s.cfg)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = append(s.listeners, limited)
	return limited
}

// lastAnswers is how long answers may take to be written when nothing else is
// left to do.
const lastAnswers = 250 * time.Millisecond

// Close ends the server in good order: nothing new is accepted, whoever waits in
// line is answered unavailable in the order of arrival, and what else is under
// way gets its answer. When ctx ends first, the rest is cut, and Close returns
// the cause. The backend must work until Close returns, and is not used after
// it. Close may be called more than once.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		select {
		case <-s.closed:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	s.closing = true
	streams := make([]*stream, 0, len(s.streams))
	for st := range s.streams {
		streams = append(streams, st)
	}
	s.mu.Unlock()
	close(s.stopping)
	for _, st := range streams {
		st.drain()
	}

	var graceful counter // how many servers still have connections
	graceful.add(2)
	go func() { s.grpc.GracefulStop(); graceful.add(-1) }()
	go func() { _ = s.http.Shutdown(context.Background()); graceful.add(-1) }()
	err := s.requests.wait(ctx)
	if err == nil {
		// The last answers are on their way. Both servers would wait seconds for
		// a connection on which nothing was asked yet.
		brief, cancel := context.WithTimeout(ctx, lastAnswers)
		_ = graceful.wait(brief)
		cancel()
	}
	// grpc's Stop would wait for the handshakes, too.
	s.mu.Lock()
	listeners := s.listeners
	s.mu.Unlock()
	for _, l := range listeners {
		l.sever()
	}
	s.grpc.Stop()
	_ = s.http.Close()
	_ = graceful.wait(context.Background()) // their connections are closed
	// What held them is gone: they end by themselves.
	_ = s.receivers.wait(context.Background())
	close(s.closed)
	if err != nil {
		return fmt.Errorf("stop serving: some requests were cut: %w", err)
	}
	return nil
}

// addStream reports whether the server still takes streams.
func (s *Server) addStream(st *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.streams[st] = struct{}{}
	s.cfg.Observer.Streams(1)
	return true
}

func (s *Server) removeStream(st *stream) {
	s.mu.Lock()
	delete(s.streams, st)
	s.mu.Unlock()
	s.cfg.Observer.Streams(-1)
}

func (s *Server) countCall(ctx context.Context, r any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	s.requests.add(1)
	defer s.requests.add(-1)
	if mayWait(r) {
		conn := grpcConn(ctx)
		if refusal := conn.startCall(s.cfg.Limits.StreamsPerConnection); refusal != nil {
			return nil, grpcError(refusal)
		}
		defer conn.endCall()
	}
	return handle(ctx, r)
}

func (s *Server) countStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	s.requests.add(1)
	defer s.requests.add(-1)
	return handle(srv, stream)
}
