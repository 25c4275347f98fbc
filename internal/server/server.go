package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/peerapi"
)

// Server serves one node over gRPC and HTTP. Its methods are safe for concurrent use.
type Server struct {
	cfg      Config
	auth     Auth // cfg.Auth, complete
	backend  Backend
	calls    *locks // the service Locks, also for HTTP
	failures failures
	turns    turns
	quotas   *quotas
	grpc     *grpc.Server
	http     *http.Server

	stopping  chan struct{}            // closed when Close begins: what waits is answered
	closed    chan struct{}            // closed when Close has ended
	requests  counter                  // calls, streams and HTTP requests under way
	receivers counter                  // goroutines of streams
	hosts     atomic.Pointer[[]string] // names under which HTTP is answered, in lower case
	edition   atomic.Pointer[edition]  // nil: there is no directory to send yet. Written under mu

	mu        sync.Mutex // guards what follows
	streams   map[*stream]struct{}
	waiting   map[*waiting]struct{} // calls that wait, and whose access token may be revoked
	listeners []*limited
	closing   bool
}

// New returns a server that serves nothing yet. Its error reports every fault of cfg.
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
	if cfg.Self == nil {
		cfg.Self = func() (node, cluster string) { return "", "" }
	}
	if cfg.Peer == nil {
		cfg.Peer = func(string) bool { return false }
	}
	if cfg.Unfit == nil {
		cfg.Unfit = func() error { return nil }
	}
	cfg.Limits = cfg.Limits.withDefaults()
	if cfg.Files == 0 {
		cfg.Files = math.MaxInt
	}
	if cfg.Admit == nil {
		cfg.Admit = func(net.Conn) error { return nil }
	}
	if wanted := cfg.Limits.Connections; cfg.Limits.fit(cfg.Files) {
		level := slog.LevelWarn
		if wanted == defaultConnections && cfg.Limits.Connections >= defaultConnections/10 {
			level = slog.LevelDebug // nobody has configured as many
		}
		cfg.Logger.Log(context.Background(), level, "the limit of connections is lower than configured: the process may open no more files",
			"connections", cfg.Limits.Connections, "configured", wanted, "files", cfg.Files)
	}
	s := &Server{
		quotas: newQuotas(cfg.QuotaOf, cfg.Observer.OverQuota), cfg: cfg, backend: cfg.Backend, turns: newTurns(),
		stopping: make(chan struct{}), closed: make(chan struct{}),
		streams: map[*stream]struct{}{}, waiting: map[*waiting]struct{}{},
		auth: cfg.Auth.withDefaults(),
	}
	s.calls = &locks{server: s}
	s.SetHosts(cfg.Hosts)
	s.grpc = s.newGRPC()
	s.http = s.newHTTP()
	return s, nil
}

func (s *Server) newGRPC() *grpc.Server {
	l := s.cfg.Limits
	g := grpc.NewServer(
		grpc.MaxRecvMsgSize(l.MessageBytes),
		grpc.MaxHeaderListSize(8<<10),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.InTapHandle(s.enter),
		// Half of the default: an idle connection keeps it.
		grpc.ReadBufferSize(16<<10),
		// By itself grpc lets flow-control windows grow to megabytes.
		grpc.StaticStreamWindowSize(256<<10), grpc.StaticConnWindowSize(1<<20),
		grpc.MaxConcurrentStreams(uint32(l.StreamsPerConnection)),
		grpc.ConnectionTimeout(5*time.Second), // until the handshake is done
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			// The default of 5 minutes cuts clients that send pings while an acquire
			// waits.
			MinTime: l.PingMinTime, PermitWithoutStream: true,
		}),
		grpc.ChainUnaryInterceptor(s.countCall),
		grpc.ChainStreamInterceptor(s.countStream),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 15 * time.Second, Timeout: 10 * time.Second,
			MaxConnectionIdle: idleTime, // without a call or stream
		}),
	)
	g.RegisterService(locksService(), s.calls)
	peerapi.RegisterPeersServer(g, &peers{server: s})
	grpc_health_v1.RegisterHealthServer(g, &health{server: s})
	reflection.Register(g)
	return g
}

// idleTime is how long a connection may be idle between two requests.
const idleTime = 2 * time.Minute

// maxHeaders is how many lines the head of an HTTP request may have.
const maxHeaders = 100

// arrived passes requests whose head has arrived to next.
func arrived(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn := httpConn(r.Context())
		conn.headArrived()
		defer conn.headAwaited()
		ctx, held := withTally(r.Context(), conn)
		held.json = true
		defer held.end()
		r = r.WithContext(ctx)
		lines := 0
		for _, values := range r.Header {
			lines += len(values)
		}
		if lines > maxHeaders {
			w.Header().Set("Connection", "close")
			writeStatusError(w, http.StatusRequestHeaderFieldsTooLarge, apiv1.NewError(apiv1.CodeTooLarge, "headers: are %d lines, must be at most %d", lines, maxHeaders))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) newHTTP() *http.Server {
	return &http.Server{
		Handler:           arrived(s.handler()),
		ConnContext:       withConn,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
}

// ServeGRPC serves gRPC on l, which it closes, until Close, and then returns nil. It
// returns an error if accepting fails before.
func (s *Server) ServeGRPC(l net.Listener) error {
	err := s.grpc.Serve(greeting{s.limit(l, "grpc")})
	if err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve gRPC on %s: %w", l.Addr(), err)
	}
	return nil
}

// ServeHTTP serves HTTP on l, which it closes, until Close, and then returns nil. It
// returns an error if accepting fails before.
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

// Close stops accepting connections and streams, answers acquires that wait with
// unavailable, in the order of their arrival, and waits until everything else under way
// has its answer. When ctx ends first, the rest is cut, and Close returns the cause. The
// backend must work until Close returns, and is not used after that. Close may be called
// more than once: later calls wait for the first, or until their ctx ends.
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
		// The last answers are being sent. Both servers would wait for seconds for a
		// connection on which no request has come yet.
		brief, cancel := context.WithTimeout(ctx, lastAnswers)
		_ = graceful.wait(brief)
		cancel()
	}
	// grpc's Stop would also wait for handshakes.
	s.mu.Lock()
	listeners := s.listeners
	s.mu.Unlock()
	for _, l := range listeners {
		l.sever()
	}
	s.grpc.Stop()
	_ = s.http.Close()
	_ = graceful.wait(context.Background()) // their connections are closed
	// Their streams have ended, so they end by themselves.
	_ = s.receivers.wait(context.Background())
	close(s.closed)
	if err != nil {
		return fmt.Errorf("stop serving: some requests were cut: %w", err)
	}
	return nil
}

// addStream registers a stream. It returns false once the server closes.
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

func (s *Server) countCall(ctx context.Context, r any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	s.requests.add(1)
	defer s.requests.add(-1)
	if refusal := s.misdirected(ctx); refusal != nil {
		_ = grpc.SetTrailer(ctx, wrongNode()) // without it the client takes the refusal for another one
		return nil, refusal
	}
	if refusal := s.strangerToPeers(ctx, info.FullMethod, r); refusal != nil {
		return nil, refusal
	}
	if call, ok := strings.CutPrefix(info.FullMethod, locksMethods); ok {
		c := s.caller(ctx)
		if refusal := s.identify(ctx, c, call); refusal != nil {
			return nil, refusal
		}
		ctx = withCaller(ctx, c)
	}
	conn := grpcConn(ctx)
	conn.begin()
	conn.work()
	defer conn.end()
	ctx, held := withTally(ctx, conn)
	use, refusal := s.useOf(ctx, info.FullMethod)
	if refusal != nil {
		pause(ctx, refusedPause)
		return nil, grpcError(refusal)
	}
	held.use = use
	defer use.leave(conn)
	defer held.end()
	if mayWait(r) {
		if refusal := conn.startCall(s.cfg.Limits.StreamsPerConnection); refusal != nil {
			return nil, grpcError(refusal)
		}
		defer conn.endCall()
	}
	response, err := handle(ctx, r)
	if err != nil || conn == nil {
		return nil, err
	}
	return owned{response, conn.out}, nil
}

// locksMethods is what the full names of the methods of the service Locks begin with.
const locksMethods = "/locknode.v1.Locks/"

// reflectionMethods is what those of reflection begin with.
const reflectionMethods = "/grpc.reflection."

func (s *Server) countStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	s.requests.add(1)
	defer s.requests.add(-1)
	if refusal := s.misdirected(stream.Context()); refusal != nil {
		stream.SetTrailer(wrongNode())
		return refusal
	}
	if strings.HasPrefix(info.FullMethod, reflectionMethods) {
		c := s.caller(stream.Context())
		if refusal := s.identify(stream.Context(), c, "reflection"); refusal != nil {
			return refusal
		}
		if refusal := s.mayCall(stream.Context(), c, access{call: "reflection", right: fsm.RightAdmin, open: "reflection"}); refusal != nil {
			return refusal
		}
	}
	conn := grpcConn(stream.Context())
	conn.begin()
	defer conn.end()
	if conn != nil {
		stream = owning{stream, conn.out}
	}
	return handle(srv, stream)
}
