package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"
	"google.golang.org/grpc"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/cluster"
)

// membershipRaft is what membership needs of a *raft.Raft.
type membershipRaft interface {
	autopilot.Raft
	LeaderWithID() (raft.ServerAddress, raft.ServerID)
	CommitIndex() uint64
	Barrier(timeout time.Duration) raft.Future
}

// membershipGossip is what membership needs of a *cluster.Cluster.
type membershipGossip interface {
	Addr() string
	Peers() []cluster.Peer
	Peer(id string) (cluster.Peer, bool)
	Changes() <-chan struct{}
	Settled() bool
	Conflict() string
	Meta() cluster.Meta
	SetMeta(cluster.Meta) error
}

type membershipConfig struct {
	id     string // of this node
	gossip membershipGossip
	// raft returns nil until Raft runs.
	raft func() membershipRaft
	// conn returns a connection to an API address; it does not wait for it.
	conn func(api string) (grpc.ClientConnInterface, error)
	// clusterID is the ID in the table, empty until there is one.
	clusterID func() string
	// promised is the list on disk, and keepPromise puts it there: when it
	// returns nil, the list survives a power loss.
	promised    []cluster.Founder
	keepPromise func([]cluster.Founder) error
	// waiting hears what a node without Raft waits for. It must not block.
	waiting func(reason string)

	timing            time.Duration // election timeout
	removeFailedAfter time.Duration // negative: never
	fast              bool
	log               *slog.Logger
}

// membership decides who is in Raft's configuration. Gossip proposes, Raft's
// configuration is the truth, and only the leader changes it:
//
//   - a fresh node asks to join (join) and becomes a nonvoter;
//   - autopilot watches its health and makes it a voter once it is caught up and
//     has been stable for a while (autopilot.go); a voter that was started again
//     as a nonvoter loses its vote;
//   - a member whose address changed is followed, one change at a time;
//   - a member that said that it leaves is removed, one that failed is removed
//     after removeFailedAfter, and neither if the rest would not be led by a
//     majority that is alive.
//
// Addresses are never handed from one member to another while both are members:
// Raft's votes are kept by address, so a voter could be counted twice in a term.
//
// Before there is Raft, formOrJoin (membership_form.go) gets the node into a
// cluster. All methods are safe for concurrent use, except that lead and follow
// are called by one goroutine.
type membership struct {
	cfg   membershipConfig
	times membershipTimes

	// changing is a lock that can be waited for with a context. It is held
	// through every change of Raft's configuration, from reading it to the commit,
	// so that each is decided on the result of the one before it.
	changing chan struct{}

	mu     sync.Mutex
	term   *membershipTerm   // guarded by mu; nil while another node leads
	closed bool              // guarded by mu: nothing may be started any more
	said   map[string]string // guarded by mu: cause → what was last warned of it

	asked   atomic.Int32   // changes that callers wait for
	running sync.WaitGroup // everything that start has started
}

// membershipTimes is what Fast changes.
type membershipTimes struct {
	update    time.Duration // between looks at every member's health
	reconcile time.Duration // between promotions and removals
	stable    time.Duration // healthy for this long before a nonvoter votes
	change    time.Duration // for one change to be taken in by raft
	call      time.Duration // for one call of a peer
	retryMin  time.Duration // between tries to join
	retryMax  time.Duration
}

func newMembership(cfg membershipConfig) *membership {
	m := &membership{cfg: cfg, changing: make(chan struct{}, 1), said: make(map[string]string)}
	m.times = membershipTimes{
		update: 2 * time.Second, reconcile: 5 * time.Second, stable: 10 * time.Second,
		change: 5 * time.Second, call: 5 * time.Second,
		retryMin: 200 * time.Millisecond, retryMax: 5 * time.Second,
	}
	if cfg.fast {
		m.times = membershipTimes{
			update: 200 * time.Millisecond, reconcile: 200 * time.Millisecond, stable: 300 * time.Millisecond,
			change: 2 * time.Second, call: 2 * time.Second,
			retryMin: 20 * time.Millisecond, retryMax: 500 * time.Millisecond,
		}
	}
	return m
}

// announce tells the peers that this node has Raft state and which cluster it
// belongs to, as far as that is known. It has to be called before Raft starts,
// so that no other node counts this one among the fresh ones, and again when the
// table's cluster ID becomes known or changes.
func (m *membership) announce() error {
	meta := m.cfg.gossip.Meta()
	meta.Formed, meta.ClusterID, meta.Intent = true, m.cfg.clusterID(), ""
	if err := m.cfg.gossip.SetMeta(meta); err != nil {
		return fmt.Errorf("announce membership: %w", err)
	}
	return nil
}

// lead starts to look after the configuration. It returns at once; the work
// ends with ctx or follow, whichever comes first.
func (m *membership) lead(ctx context.Context) {
	m.follow()
	term := &membershipTerm{m: m, gone: make(map[string]time.Time)}
	term.ctx, term.cancel = context.WithCancel(ctx)
	m.mu.Lock()
	m.term = term
	m.mu.Unlock()
	if !m.start(term.run) {
		term.cancel()
	}
}

// start runs f on a goroutine that close waits for; it refuses after close.
func (m *membership) start(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.running.Add(1)
	go func() {
		defer m.running.Done()
		f()
	}()
	return true
}

// follow ends what lead began. It does not wait: a change that is under way
// fails by itself, because this node does not lead any more.
func (m *membership) follow() {
	m.mu.Lock()
	term := m.term
	m.term = nil
	m.mu.Unlock()
	if term != nil {
		term.cancel()
	}
}

// close ends what lead began and waits until nothing of it runs any more, at
// most until ctx ends. Changes under way end when Raft is shut down, so that
// comes first.
func (m *membership) close(ctx context.Context) error {
	m.follow()
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	done := make(chan struct{})
	go func() { m.running.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close membership: %w", context.Cause(ctx))
	}
}

// apiAddress is the API address that gossip knows for a node, empty if it knows
// none. A failed node's address is given: it may be gossip that is wrong.
func (m *membership) apiAddress(id string) string {
	p, _ := m.cfg.gossip.Peer(id)
	return p.API
}

// ServerAddr implements [raft.ServerAddressProvider]: Raft dials a member where
// gossip sees it alive, and only otherwise where the configuration has it. So a
// cluster whose members all came back at other addresses finds itself again and
// can then write the addresses down.
func (m *membership) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if string(id) == m.cfg.id {
		return raft.ServerAddress(m.cfg.gossip.Meta().Raft), nil
	}
	if p, ok := m.cfg.gossip.Peer(string(id)); ok && p.State == cluster.Alive && p.Formed && p.Raft != "" {
		return raft.ServerAddress(p.Raft), nil
	}
	if r := m.cfg.raft(); r != nil {
		if s, ok := membershipFind(membershipServers(r), string(id)); ok {
			return s.Address, nil
		}
	}
	return "", fmt.Errorf("address of node %q is not known", id)
}

// members lists Raft's configuration and whoever else gossip sees, by node ID.
func (m *membership) members() *apiv1.MembersResponse {
	byID := make(map[string]*apiv1.Member)
	add := func(id string) *apiv1.Member {
		if byID[id] == nil {
			byID[id] = &apiv1.Member{Id: id, Role: "none", Health: "unknown"}
		}
		return byID[id]
	}
	describe := func(meta cluster.Meta, gossip, health string) {
		e := add(meta.NodeID)
		e.ApiAddress, e.HttpAddress, e.RaftAddress, e.GossipAddress = meta.API, meta.HTTP, meta.Raft, gossip
		e.Version, e.Zone, e.Health = meta.Version, meta.Zone, health
	}
	describe(m.cfg.gossip.Meta(), m.cfg.gossip.Addr(), cluster.Alive.String())
	for _, p := range m.cfg.gossip.Peers() {
		describe(p.Meta, p.Gossip, p.State.String())
	}
	if r := m.cfg.raft(); r != nil {
		_, leader := r.LeaderWithID()
		for _, s := range membershipServers(r) {
			e := add(string(s.ID))
			e.RaftAddress = string(s.Address)
			switch {
			case s.ID == leader:
				e.Role = "leader"
			case s.Suffrage == raft.Voter:
				e.Role = "voter"
			default:
				e.Role = "nonvoter"
			}
		}
	}
	res := &apiv1.MembersResponse{}
	for _, e := range byID {
		res.Members = append(res.Members, e)
	}
	sort.Slice(res.Members, func(i, j int) bool { return res.Members[i].Id < res.Members[j].Id })
	return res
}

// alter makes one change of the configuration: step reads the current one and
// hands in a change, or returns an error, or nil for nothing to do. alter waits
// until the change is committed, or this node stops leading; ctx bounds the wait
// for its turn only.
//
// The barrier before it makes sure that this node leads now, and that what step reads
// is committed. Otherwise "it is a member already" and "it is none" could be said of a
// change that an earlier leader has left in the log and that is lost in the end, or by
// a leader that does not know that it was deposed: a node that is told so forgets its
// data, or counts from there when it may vote.
func (m *membership) alter(ctx context.Context, step func(r membershipRaft, servers []raft.Server) (raft.IndexFuture, error)) error {
	select {
	case m.changing <- struct{}{}:
		defer func() { <-m.changing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	r := m.cfg.raft()
	if r == nil || r.State() != raft.Leader {
		return raft.ErrNotLeader
	}
	if err := r.Barrier(m.times.change).Error(); err != nil {
		return err
	}
	servers, err := configuration(r)
	if err != nil {
		return err
	}
	future, err := step(r, servers)
	if err != nil || future == nil {
		return err
	}
	return future.Error()
}

// membershipMaxAsked bounds the goroutines that peers can make this node start.
const membershipMaxAsked = 32

// alterFor is alter for a caller with a deadline. When ctx ends first, the
// change may still be made.
func (m *membership) alterFor(ctx context.Context, what string, step func(r membershipRaft, servers []raft.Server) (raft.IndexFuture, error)) error {
	if m.asked.Add(1) > membershipMaxAsked {
		m.asked.Add(-1)
		return apiv1.NewError(apiv1.CodeOverloaded, "%s: too many changes of the configuration are under way", what)
	}
	errs := make(chan error, 1)
	if !m.start(func() {
		defer m.asked.Add(-1)
		errs <- m.alter(ctx, step)
	}) {
		m.asked.Add(-1)
		return apiv1.NewError(apiv1.CodeUnavailable, "%s: this node is stopping", what)
	}
	var err error
	select {
	case err = <-errs:
	case <-ctx.Done():
		return apiv1.NewError(apiv1.CodeUnavailable, "%s: not committed in time: %v; ask again", what, context.Cause(ctx))
	}
	var coded *apiv1.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &coded):
		return coded
	case errors.Is(err, raft.ErrNotLeader):
		return apiv1.NewError(apiv1.CodeNotLeader, "%s: this node does not lead", what)
	}
	return apiv1.NewError(apiv1.CodeUnavailable, "%s: %v", what, err)
}

// warnOnce logs a warning unless it is the same that was last logged for cause.
func (m *membership) warnOnce(cause, msg string, args ...any) {
	text := fmt.Sprint(append([]any{msg}, args...)...)
	m.mu.Lock()
	same := m.said[cause] == text
	if len(m.said) >= 1024 { // causes name nodes, and nodes come and go
		clear(m.said)
	}
	m.said[cause] = text
	m.mu.Unlock()
	if !same {
		m.cfg.log.Warn(msg, args...)
	}
}

// warnAgain lets the next warnOnce for cause speak, whatever it says.
func (m *membership) warnAgain(cause string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.said, cause)
}

// configured is what has a configuration.
type configured interface {
	GetConfiguration() raft.ConfigurationFuture
}

// configuration is the latest one in the log, which may not be committed yet.
func configuration(r configured) ([]raft.Server, error) {
	f := r.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return f.Configuration().Servers, nil
}

// votersOf are the voters in the latest configuration. That there is none, or that it
// cannot be read, is an error: it does not mean that nobody has to agree.
func votersOf(r configured) (ids []string, err error) {
	servers, err := configuration(r)
	if err != nil {
		return nil, err
	}
	for _, s := range servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("the configuration has no voter: %v", servers)
	}
	return ids, nil
}

// membershipServers is the latest configuration, for who does not decide anything by
// it: none if it cannot be read.
func membershipServers(r configured) []raft.Server {
	servers, err := configuration(r)
	if err != nil {
		return nil
	}
	return servers
}

func membershipFind(servers []raft.Server, id string) (raft.Server, bool) {
	for _, s := range servers {
		if string(s.ID) == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

// membershipOwner returns the member other than id that has the address.
func membershipOwner(servers []raft.Server, address, id string) (string, bool) {
	for _, s := range servers {
		if string(s.Address) == address && string(s.ID) != id {
			return string(s.ID), true
		}
	}
	return "", false
}
