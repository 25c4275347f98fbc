package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/embedded"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/peerapi"
	"github.com/locknode/locknode/internal/secure"
)

// Backend is the node behind the server. Its methods are safe for concurrent use. Its
// errors are an *apiv1.Error where the code matters; others reach clients as internal
// errors.
type Backend interface {
	// Start begins an operation and never blocks. The answer belongs to the server,
	// which changes its id.
	Start(*mux.Call)
	// Watch calls f for each notice of a session until stop is called. f does not block.
	Watch(session [16]byte, f func(*apiv1.Notice)) (stop func())
	// Operator has the calls that a node's own clients make as well. Its Status answers
	// from memory: every health and readiness check calls it.
	embedded.Operator
	// Rights has the calls about access tokens and policies. The server answers WhoAmI itself.
	embedded.Rights
	Term(context.Context) (*peerapi.TermResponse, error)
	ReadIndex(context.Context) (*peerapi.ReadIndexResponse, error)
	Self(context.Context) (*peerapi.SelfResponse, error)
	Join(context.Context, *peerapi.JoinRequest) (*peerapi.JoinResponse, error)
	Digests(context.Context, *peerapi.DigestsRequest) (*peerapi.DigestsResponse, error)
	// GossipKeys and ChangeOwnGossipKeys are about this node alone.
	GossipKeys(context.Context) (*peerapi.GossipKeysResponse, error)
	ChangeOwnGossipKeys(context.Context, *peerapi.ChangeGossipKeysRequest) (*peerapi.GossipKeysResponse, error)
}

// Limits bound what clients may ask of one server. A zero field means its
// default.
type Limits struct {
	Connections          int           // of each listener; default 10,000, or what Config.Files allows. On three quarters of them acquires may wait
	ConnectionsPerIP     int           // of each listener; default 2,048. On three quarters of them acquires may wait
	StreamsPerConnection int           // unary calls and streams under way; default 1,024. Three quarters of them may be acquires that wait
	MessageBytes         int           // one gRPC message; default 1 MiB
	BodyBytes            int           // one HTTP body; default 64 KiB
	BodyTime             time.Duration // until an HTTP body has arrived; default 10 s
	BatchOperations      int           // default 128
	InFlight             int           // operations of one Session stream, unanswered or unsent; twice as many of those that free something or keep it alive; default 20,000
	WaitsPerStream       int           // acquires of one Session stream that wait, or whose answer is unsent; they count for no other limit; default 200,000
	UnsentAnswers        int           // of one Session stream; default 65,536
	UnsentBytes          int           // of one Session stream: reads are refused beyond it, and at twice as many the stream is cut; default 4 MiB
	WatchesPerStream     int           // sessions of one stream that get notices; default 4,096
	StreamsTotal         int           // calls and streams under way on all connections; twice as many of those that free something; default 20,000
	Memory               int           // bytes of each listener for answers that are not sent; as many for long operations under way, and half as many for requests that have not arrived whole; default 64 MiB
	UselessTime          time.Duration // a connection on which no valid request has come is closed after it; default 30 s
	PingMinTime          time.Duration // grpc clients that ping more often are cut; default 5 s
}

// Config says what a Server serves. Backend is required.
type Config struct {
	Backend Backend
	Logger  *slog.Logger // nil: silent
	// Metrics answers GET /metrics; nil: 404.
	Metrics  http.Handler
	Observer Observer // nil: nobody counts
	// Hosts are the names under which HTTP is answered at first: see [Server.SetHosts].
	Hosts  []string
	Limits Limits
	// Files is how many files the connections of all listeners may take; 0: as many as
	// the limits allow.
	Files int
	// Admit returns why a connection that is within the limits is refused, or nil. nil:
	// none is.
	Admit func(net.Conn) error
	// Self returns the IDs of this node and of its cluster, empty as long as they are not
	// known: calls that are meant for another node or cluster are refused. nil: none is.
	Self func() (node, cluster string)
	// Peer reports whether a key is that of the cluster's nodes: see [mux.PeerHeader]. nil:
	// no stream is another node's.
	Peer func(key string) bool
	// SecureGRPC and SecureHTTP put TLS below gRPC and HTTP. nil: plain text, and nobody
	// proves who they are.
	SecureGRPC, SecureHTTP *secure.Port
	// NeedCertificate makes HTTP, but for the checks of health, need a certificate of who
	// comes in TLS. For gRPC the configuration of SecureGRPC does that.
	NeedCertificate bool
	// Member returns why a node of this cluster, which has proved its ID, may not make the
	// calls of members, or nil. nil: every node may.
	Member func(id string) error
	// Auth says whether callers have to prove who they are.
	Auth Auth
	// Audit gets every event: see [Event]. It must not block for long: requests wait for it. nil:
	// nobody does.
	Audit func(Event)
	// Begin is called before what needs force or admin is done, with the event as far as it is
	// known, and calls then once, from any goroutine: with an error it is not done. It does not
	// block. nil: nothing is refused.
	Begin func(e Event, then func(error))
	// QuotaOf returns what an owner may have: an identity, or an address. It is called while a
	// lock is held, so it must be quick, and its answer is used for a second. nil: there are no
	// quotas.
	QuotaOf func(owner string) Quota
	// Debug answers GET and POST below /debug/ to callers with the right admin; nil: 404.
	Debug http.Handler
	// Unfit returns why the node cannot run operations, for example because its disk
	// hangs, or nil. Pings are answered with that error, so that clients go to another
	// node. nil: it always can.
	Unfit func() error
}

const defaultConnections = 10_000

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		field *int
		value int
	}{
		{&l.Connections, defaultConnections},
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
		{&l.StreamsTotal, 20_000},
		{&l.Memory, 64 << 20},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if l.BodyTime == 0 {
		l.BodyTime = 10 * time.Second
	}
	if l.UselessTime == 0 {
		l.UselessTime = 30 * time.Second
	}
	if l.PingMinTime == 0 {
		l.PingMinTime = 5 * time.Second
	}
	return l
}

// fit lowers the limit of connections so that all listeners together take no more files
// than that, and reports whether it had to.
func (l *Limits) fit(files int) bool {
	const listeners = 2
	capped := files/listeners < l.Connections
	if capped {
		l.Connections = max(files/listeners, 8)
	}
	l.ConnectionsPerIP = min(l.ConnectionsPerIP, l.Connections)
	return capped
}

func (c Config) validate() error {
	var errs []error
	if c.Backend == nil {
		errs = append(errs, errors.New("config: Backend: is nil, must be a node"))
	}
	if c.Files < 0 {
		errs = append(errs, fmt.Errorf("config: Files: is %d, must be 0 or more", c.Files))
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
		{"StreamsTotal", l.StreamsTotal}, {"Memory", l.Memory}, {"UselessTime", int(l.UselessTime)},
		{"PingMinTime", int(l.PingMinTime)}, {"BodyTime", int(l.BodyTime)},
	} {
		if f.value < 0 {
			errs = append(errs, fmt.Errorf("config: Limits.%s: is %d, must be 0 or more", f.name, f.value))
		}
	}
	return errors.Join(errs...)
}
