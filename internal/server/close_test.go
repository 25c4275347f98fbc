package server

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// counts is an Observer that tests read.
type counts struct {
	Observer
	cut, refused, cancelled, answered, denied atomic.Int64
	connections, streams                      atomic.Int64
	kinds                                     chan string
}

func (c *counts) Cut()                        { c.cut.Add(1) }
func (c *counts) Refused(string)              { c.refused.Add(1) }
func (c *counts) Cancelled()                  { c.cancelled.Add(1) }
func (c *counts) Denied(apiv1.Code, bool)     { c.denied.Add(1) }
func (c *counts) Connections(_ string, d int) { c.connections.Add(int64(d)) }
func (c *counts) Streams(d int)               { c.streams.Add(int64(d)) }
func (c *counts) Answered(road Road, kind string, code apiv1.Code, _ time.Duration) {
	c.answered.Add(1)
	if c.kinds != nil {
		c.kinds <- string(road) + " " + kind + " " + code.String()
	}
}

func closeWithin(t testing.TB, r *running, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return r.Close(ctx)
}

func TestGracefulStopDoesNotWaitForQueuedAcquires(t *testing.T) {
	r := serve(t, Config{})
	stream := openStream(t, r)
	sendOps(t, stream, acquireOp(1, "a", 0))
	receiveAnswers(t, stream, 1)
	for i := range 20 {
		sendOps(t, stream, inSession(acquireOp(uint64(100+i), "a", -1), uint64(i+1)))
	}
	unary := make(chan error, 1)
	go func() {
		_, err := r.client(t).Acquire(t.Context(), acquireOf("a", int64(time.Hour)))
		unary <- err
	}()
	overHTTP := make(chan int, 1)
	go func() {
		status, _ := post(t, r, "/v1/acquire", `{"name":"a","wait":"1h"}`)
		overHTTP <- status
	}()
	r.node.await(t, "22 waiters", func() bool { return len(r.node.queues["a"]) == 22 })

	begun := time.Now()
	if err := closeWithin(t, r, patience); err != nil {
		t.Errorf("Close: %v", err)
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("Close took %v", took)
	}
	for i, a := range receiveAnswers(t, stream, 20) {
		if a.GetId() != uint64(100+i) || apiv1.Code(a.GetError().GetCode()) != apiv1.CodeUnavailable {
			t.Fatalf("answer %d: %v, want unavailable for id %d", i, a, 100+i)
		}
	}
	if _, err := stream.Recv(); apiv1.CodeOf(err) != apiv1.CodeUnavailable {
		t.Errorf("the stream ended with %v, want unavailable", err)
	}
	if err := receiveWithin(t, "the unary answer", unary); apiv1.CodeOf(err) != apiv1.CodeUnavailable {
		t.Errorf("unary: %v, want unavailable", err)
	}
	if status := receiveWithin(t, "the HTTP answer", overHTTP); status != 503 {
		t.Errorf("HTTP: status %d, want 503", status)
	}
	// The two without a session have left the queue: nobody waits for their answers.
	r.node.await(t, "the 20 waiters whose client will retry", func() bool { return len(r.node.queues["a"]) == 20 })
}

func TestCloseLetsOperationsFinish(t *testing.T) {
	node := newFakeNode()
	held := make(chan *mux.Call, 1)
	node.on = func(c *mux.Call) bool {
		if c.Op.GetRelease() != nil {
			held <- c
			return true
		}
		return false
	}
	r := serve(t, Config{Backend: node})
	stream := openStream(t, r)
	sendOps(t, stream, &apiv1.Operation{Id: 9, Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{}}})
	call := receiveWithin(t, "the release", held)
	closed := make(chan error, 1)
	go func() { closed <- closeWithin(t, r, patience) }()
	<-r.stopping
	sendOps(t, stream, getOp(10, "a"))
	if a := receiveAnswers(t, stream, 1)[0]; a.GetId() != 10 || apiv1.Code(a.GetError().GetCode()) != apiv1.CodeUnavailable {
		t.Errorf("an operation after Close has begun: %v, want unavailable", a)
	}
	call.Done(&apiv1.Answer{Result: &apiv1.Answer_Release{Release: &apiv1.ReleaseResponse{}}})
	if a := receiveAnswers(t, stream, 1)[0]; a.GetId() != 9 || a.GetRelease() == nil {
		t.Errorf("the operation under way: %v, want its answer", a)
	}
	if err := receiveWithin(t, "the end of Close", closed); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestCloseEndsWithItsContext(t *testing.T) {
	node := newFakeNode()
	got := make(chan struct{}, 10)
	node.on = func(*mux.Call) bool { got <- struct{}{}; return true } // answers nothing, ever
	r := serve(t, Config{Backend: node})
	stream := openStream(t, r)
	sendOps(t, stream, getOp(1, "a"))
	unary := make(chan error, 1)
	go func() {
		_, err := r.client(t).Get(t.Context(), &apiv1.GetRequest{Name: "a"})
		unary <- err
	}()
	overHTTP := make(chan error, 1)
	go func() {
		_, err := http.Get("http://" + r.http + "/v1/locks/a")
		overHTTP <- err
	}()
	for range 3 {
		receiveWithin(t, "an operation", got)
	}
	begun := time.Now()
	if err := closeWithin(t, r, 50*time.Millisecond); err == nil {
		t.Error("Close cut requests and returned no error")
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("Close took %v, want about 50 ms", took)
	}
	if err := closeWithin(t, r, patience); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := receiveWithin(t, "the unary error", unary); err == nil {
		t.Error("the unary call had no error")
	}
	if err := receiveWithin(t, "the HTTP error", overHTTP); err == nil {
		t.Error("the HTTP request had no error")
	}
}

func TestIdleConnectionsDoNotHoldUpClose(t *testing.T) {
	t.Parallel()
	seen := &counts{}
	r := serve(t, Config{Observer: seen})
	for _, addr := range []string{r.grpc, r.http} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	r.node.await(t, "both connections", func() bool { return seen.connections.Load() == 2 })
	begun := time.Now()
	if err := closeWithin(t, r, patience); err != nil {
		t.Errorf("Close: %v", err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("Close took %v with no operation under way", took)
	}
}

func TestHealthFollowsReadiness(t *testing.T) {
	t.Parallel()
	r := serve(t, Config{})
	client := grpc_health_v1.NewHealthClient(r.dial(t))
	watch, err := client.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "locknode.v1.Locks"})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, service := range []string{"", "locknode.v1.Locks"} {
			got, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
			if err != nil || got.GetStatus() != want {
				t.Errorf("Check(%q) = %v, %v, want %v", service, got.GetStatus(), err, want)
			}
		}
		if got, err := watch.Recv(); err != nil || got.GetStatus() != want {
			t.Errorf("Watch: %v, %v, want %v", got.GetStatus(), err, want)
		}
	}
	expect(grpc_health_v1.HealthCheckResponse_SERVING)
	r.node.setReady(false, "no leader")
	expect(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	if status, body := get(t, r, "/readyz"); status != 503 || !strings.Contains(body, "no leader") {
		t.Errorf("/readyz = %d %s, want 503 and the reason", status, body)
	}
	if status, _ := get(t, r, "/healthz"); status != 200 {
		t.Errorf("/healthz of a node that is not ready = %d, want 200", status)
	}
	r.node.setReady(true, "")
	expect(grpc_health_v1.HealthCheckResponse_SERVING)
	if status, _ := get(t, r, "/readyz"); status != 200 {
		t.Errorf("/readyz = %d, want 200", status)
	}
	if got, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "voter"}); err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("Check of voter on a node that does not vote = %v, %v", got.GetStatus(), err)
	}
	if _, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "other"}); err == nil {
		t.Error("Check of an unknown service: no error")
	}
	all, err := client.List(t.Context(), &grpc_health_v1.HealthListRequest{})
	if err != nil || len(all.GetStatuses()) != 3 {
		t.Errorf("List = %v, %v, want three services", all, err)
	}
	go func() { _ = closeWithin(t, r, patience) }()
	if got, err := watch.Recv(); err == nil {
		t.Errorf("Watch of a stopping server: %v, want its end", got)
	}
}

func TestConnectionsOverTheLimitAreRefused(t *testing.T) {
	seen := &counts{}
	r := serve(t, Config{Observer: seen, Limits: Limits{ConnectionsPerIP: 2, Connections: 100}})
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", r.http)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	works := func(conn net.Conn) bool {
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = conn.Write([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))
		n, _ := conn.Read(make([]byte, 100))
		return n > 0
	}
	first, second := dial(), dial()
	if !works(first) || !works(second) {
		t.Fatal("connections within the limit do not work")
	}
	if third := dial(); works(third) || seen.refused.Load() != 1 {
		t.Errorf("a third connection works; %d were refused", seen.refused.Load())
	}
	_ = first.Close()
	r.node.await(t, "a connection less", func() bool { return seen.connections.Load() == 1 })
	if !works(dial()) {
		t.Error("a new connection is refused after another was closed")
	}
}

func TestAddressesOfOneClientCountTogether(t *testing.T) {
	for _, c := range []struct{ addr, want string }{
		{"10.1.2.3:4000", "10.1.2.3"},
		{"[::ffff:10.1.2.3]:4000", "10.1.2.3"},
		{"[2001:db8:1:2:3:4:5:6]:4000", "2001:db8:1:2::/64"},
		{"[fe80::1%eth0]:4000", "fe80::/64"},
		{"[::1]:4000", "::1"},
		{"bufconn", "bufconn"},
	} {
		if got := ipOf(textAddr(c.addr)); got != c.want {
			t.Errorf("ipOf(%s) = %s, want %s", c.addr, got, c.want)
		}
	}
}

type textAddr string

func (textAddr) Network() string  { return "tcp" }
func (a textAddr) String() string { return string(a) }

func TestConfigReportsEveryFault(t *testing.T) {
	_, err := New(Config{Limits: Limits{InFlight: -1, BodyBytes: -5}})
	for _, want := range []string{"Backend", "InFlight: is -1", "BodyBytes: is -5"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want it to name %q", err, want)
		}
	}
}

func TestObserverSeesEveryRoad(t *testing.T) {
	seen := &counts{kinds: make(chan string, 10)}
	r := serve(t, Config{Observer: seen})
	stream := openStream(t, r)
	sendOps(t, stream, acquireOp(1, "a", 0))
	receiveAnswers(t, stream, 1)
	_, _ = r.client(t).Acquire(t.Context(), acquireOf("a", 0))
	post(t, r, "/v1/release", `{"name":"a","token":99}`)
	for _, want := range []string{"stream acquire ok", "unary acquire busy", "http release not_held"} {
		if got := receiveWithin(t, want, seen.kinds); got != want {
			t.Errorf("observed %q, want %q", got, want)
		}
	}
	if seen.streams.Load() != 1 {
		t.Errorf("%d streams are open, want 1", seen.streams.Load())
	}
}

func TestReadyzTellsWhetherTheNextNodeMayBeStopped(t *testing.T) {
	r := serve(t, Config{})
	for _, tt := range []struct {
		status *apiv1.StatusResponse
		path   string
		want   int
		body   string
	}{
		{&apiv1.StatusResponse{Ready: true, VoterReason: "not a voter yet"}, "/readyz", 200, `{"ready":true}`},
		{&apiv1.StatusResponse{Ready: true, VoterReason: "not a voter yet"}, "/readyz?voter", 503, "not a voter yet"},
		{&apiv1.StatusResponse{NotReadyReason: "no leader", VoterReady: true}, "/readyz?voter", 503, "no leader"},
		{&apiv1.StatusResponse{Ready: true, VoterReady: true, VotersHealthy: 2}, "/readyz?voter", 200, `{"ready":true}`},
		{&apiv1.StatusResponse{Ready: true, VoterReady: true, VotersHealthy: 2}, "/readyz?voter=true", 200, `{"ready":true}`},
		{&apiv1.StatusResponse{Ready: true, VoterReady: true, VoterReason: "does not vote"}, "/readyz?voter=1", 200, `{"ready":true,"note":"does not vote"}`},
		{&apiv1.StatusResponse{Ready: true, VoterReady: true, VotersHealthy: 2}, "/readyz?voters=3", 503, "2 voters answer the leader, must be at least 3"},
		{&apiv1.StatusResponse{Ready: true, VoterReady: true, VotersHealthy: 3}, "/readyz?voters=3", 200, `{"ready":true}`},
		{&apiv1.StatusResponse{Ready: true, VoterReady: true}, "/readyz?voters", 400, "voters: is"},
		{&apiv1.StatusResponse{Ready: true, VoterReady: true}, "/readyz?voters=0", 400, "voters: is"},
		{&apiv1.StatusResponse{Ready: true}, "/readyz?vote", 400, "must be"},
		{&apiv1.StatusResponse{Ready: true}, "/readyz?voter=false", 400, "must be"},
	} {
		r.node.mu.Lock()
		r.node.status = tt.status
		r.node.mu.Unlock()
		if status, body := get(t, r, tt.path); status != tt.want || !strings.Contains(body, tt.body) {
			t.Errorf("%s with %v = %d %s, want %d with %s", tt.path, tt.status, status, body, tt.want, tt.body)
		}
	}
}
