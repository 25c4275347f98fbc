package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
)

// Backend is the node behind the server. Its errors are an *apiv1.Error where
// the code matters; others reach clients as internal errors.
type Backend interface {
	// Start takes in an operation and never blocks. The answer belongs to
	// whoever gets it: the server changes its id.
	Start(*mux.Call)
	// Watch calls f, which does not block, for what happens to a session until
	// stop is called.
	Watch(session [16]byte, f func(*apiv1.Notice)) (stop func())
	// Status is asked for by every health and readiness check: it answers from
	// memory.
	Status(context.Context) (*apiv1.StatusResponse, error)
	Members(context.Context) (*apiv1.MembersResponse, error)
	TransferLeadership(context.Context, *apiv1.TransferLeadershipRequest) (*apiv1.TransferLeadershipResponse, error)
	RemoveMember(context.Context, *apiv1.RemoveMemberRequest) (*apiv1.RemoveMemberResponse, error)
	Term(context.Context) (*apiv1.TermResponse, error)
	ReadIndex(context.Context) (*apiv1.ReadIndexResponse, error)
	Join(context.Context, *apiv1.JoinRequest) (*apiv1.JoinResponse, error)
	Digests(context.Context, *apiv1.DigestsRequest) (*apiv1.DigestsResponse, error)
}

// Limits bound what clients may ask of one server. A zero field means its
// default.
type Limits struct {
	Connections          int           // of each listener; default 10,000, or what the process's limit of open files allows
	ConnectionsPerIP     int           // of each listener; default 2,048. On three quarters of both acquires may wait
	StreamsPerConnection int           // unary calls and streams under way; default 1,024. Three quarters may wait
	MessageBytes         int           // one gRPC message; default 1 MiB
	BodyBytes            int           // one HTTP body; default 64 KiB
	BodyTime             time.Duration // until an HTTP body has arrived; default 10 s
	BatchOperations      int           // default 128
	InFlight             int           // operations of one Session stream, unanswered or unsent; twice as many of those that free something or keep it alive; default 20,000
	WaitsPerStream       int           // acquires of one Session stream that wait, or whose answer is unsent; they count for no other limit; default 200,000
	UnsentAnswers        int           // of one Session stream; default 65,536
	UnsentBytes          int           // of one Session stream: reads are refused beyond it, and at twice as many the stream is cut; default 4 MiB
	WatchesPerStream     int           // sessions of one stream that get notices; default 4,096
	PingMinTime          time.Duration // grpc clients that ping more often are cut; default 5 s
}

// Config says what a Server serves. Backend is required.
type Config struct {
	Backend Backend
	Logger  *slog.Logger // nil: silent
	// Metrics answers GET /metrics; nil: 404.
	Metrics  http.Handler
	Observer Observer // nil: nobody counts
	Limits   Limits
	// Unfit is why the node cannot do what it has taken in, because its disk hangs,
	// say. Pings are answered with it, so that clients go elsewhere. nil: it always can.
	Unfit func() error
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		field *int
		value int
	}{
		{&l.Connections, 10_000},
		{&l.ConnectionsPerIP, 2048},
		{&l.StreamsPerConnection, 1024},
		{&l.MessageBytes, 1 << 20},
		{&l.BodyBytes, 64 << 10},
		{&l.BatchOperations, 128},
		{&l.InFlight, 20_000},
		{&l.WaitsPerStream, 200_000},
		{&l.UnsentAnswers, 65_536},
		{&l.UnsentBytes, 4 << 20},
		{&l.WatchesPerStream, 4096},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if l.BodyTime == 0 {
		l.BodyTime = 10 * time.Second
	}
	if l.PingMinTime == 0 {
		l.PingMinTime = 5 * time.Second
	}
	return l
}

// otherFiles is how many files a node opens beside connections of clients: its log,
// snapshots, connections with the other nodes.
const otherFiles = 256

// fit lowers the limit of connections to what a process may have that may open so many
// files, and reports whether it had to.
func (l *Limits) fit(files uint64) bool {
	const listeners = 2
	if files >= uint64(listeners*l.Connections+otherFiles) {
		return false
	}
	l.Connections = max(int(files)-otherFiles, int(files)/2) / listeners
	l.Connections = max(l.Connections, 8)
	l.ConnectionsPerIP = min(l.ConnectionsPerIP, l.Connections)
	return true
}

func (c Config) validate() error {
	var errs []error
	if c.Backend == nil {
		errs = append(errs, errors.New("config: Backend is nil: a node is needed"))
	}
	l := c.Limits
	for _, f := range []struct {
		name  string
		value int
	}{
		{"Connections", l.Connections}, {"ConnectionsPerIP", l.ConnectionsPerIP},
		{"StreamsPerConnection", l.StreamsPerConnection}, {"MessageBytes", l.MessageBytes},
		{"BodyBytes", l.BodyBytes}, {"BatchOperations", l.BatchOperations}, {"InFlight", l.InFlight},
		{"WaitsPerStream", l.WaitsPerStream},
		{"UnsentAnswers", l.UnsentAnswers}, {"UnsentBytes", l.UnsentBytes}, {"WatchesPerStream", l.WatchesPerStream},
		{"PingMinTime", int(l.PingMinTime)}, {"BodyTime", int(l.BodyTime)},
	} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("config: Limits.%s is %d: 0 or more is allowed", f.name, f.value))
		}
	}
	return errors.Join(errs...)
}
