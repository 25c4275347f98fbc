package client

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/proof/simnet"
	"github.com/locknode/locknode/internal/proof/testall"
)

// ring is some nodes of one cluster, on real sockets.
type ring struct {
	t       *testing.T
	cluster *cluster
	nodes   []*testNode

	mu     sync.Mutex
	leader *testNode // nil: there is none
	shown  string    // the leader's address that followers report; empty: the right one
	id     string    // of the cluster, as nodes report it; empty: they do not
	// directory is what nodes report; changed is closed and replaced when it changes.
	directory *apiv1.Directory
	changed   chan struct{}
	network   *simnet.Network // nil: real sockets
	secret    string          // that callers need; empty: none
	open      bool            // the status needs none
	shownOps  map[string]int  // operations on streams, by the secret that was shown
}

// testNode is one node: it serves while it runs, and answers unless it is mute.
type testNode struct {
	apiv1.UnimplementedLocksServer
	ring *ring
	addr string
	at   string // the address to listen on after a restart

	mu        sync.Mutex
	server    *grpc.Server
	mute      bool
	breaks    bool // ends every stream at once
	hangs     bool // sends no answers on streams while it is set
	streams   int
	direct    int      // operations taken as the leader
	forward   int      // operations forwarded
	refused   int      // operations refused as a follower
	authority string   // of the last stream
	meant     []string // calls, with the cluster that they are meant for

	transfers    int  // hand-overs asked for
	losesAnswer  bool // carries out the next removal, and hand-overs, without an answer
	removed      bool
	neverRemoves bool // answers removals with an unknown outcome
	exits        bool // when it is to hand leadership over
}

// TestMain looks for goroutines that rings or their clients have left: real ones, those of
// bubbles are found by the bubble.
func TestMain(m *testing.M) {
	testall.AtOnce(8) // tests with rings wait for time limits
	goleak.VerifyTestMain(m)
}

// newRing starts n nodes; the first leads.
func newRing(t *testing.T, n int) *ring {
	t.Helper()
	r := &ring{t: t, cluster: newCluster(t), changed: make(chan struct{})}
	r.cluster.latency = 0
	for range n {
		r.add("127.0.0.1:0")
	}
	r.leader = r.nodes[0]
	return r
}

// newLabRing is a ring in a bubble, whose nodes listen on the hosts n1, n2 and so on of
// the network, all at the same port.
func newLabRing(t *testing.T, network *simnet.Network, n int) *ring {
	t.Helper()
	r := &ring{t: t, cluster: newCluster(t), changed: make(chan struct{}), network: network}
	for i := range n {
		r.add(fmt.Sprintf("n%d:7400", i+1))
	}
	r.leader = r.nodes[0]
	return r
}

// listen returns a listener at an address of this machine, or at a host of the network.
func (r *ring) listen(addr string) (net.Listener, error) {
	if r.network == nil {
		return net.Listen("tcp", addr)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return r.network.Host(host).Listen(":" + port)
}

// add starts one more node, which does not lead.
func (r *ring) add(addr string) *testNode {
	r.t.Helper()
	l, err := r.listen(addr)
	if err != nil {
		r.t.Fatal(err)
	}
	node := &testNode{ring: r, addr: l.Addr().String(), at: l.Addr().String()}
	if r.network != nil {
		node.at = addr
	}
	r.nodes = append(r.nodes, node)
	node.serve(l)
	r.t.Cleanup(node.stop)
	return node
}

// name gives the cluster an ID, and makes its nodes report these members. The
// ID of a member is its address, unless it is given as "ID=address".
func (r *ring) name(id string, index uint64, members ...string) {
	d := &apiv1.Directory{ClusterId: id, Index: index}
	for _, m := range members {
		name, addr, ok := strings.Cut(m, "=")
		if !ok {
			addr = name
		}
		d.Members = append(d.Members, &apiv1.Place{Id: name, ApiAddress: addr})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.id, r.directory = id, d
	close(r.changed)
	r.changed = make(chan struct{})
}

// directoryNow returns the cluster ID and directory that nodes report, and a channel that is
// closed when they change.
func (r *ring) directoryNow() (id string, d *apiv1.Directory, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.id, r.directory, r.changed
}

// dial returns a client of these nodes.
func (r *ring) dial(nodes []*testNode, opts ...Option) *Client {
	r.t.Helper()
	var endpoints []string
	for _, n := range nodes {
		endpoints = append(endpoints, n.addr)
	}
	c, err := Dial(r.t.Context(), endpoints, opts...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// lead makes n the leader; nil: there is none.
func (r *ring) lead(n *testNode) {
	r.mu.Lock()
	r.leader = n
	r.mu.Unlock()
	r.cluster.setDown(n == nil)
}

func (r *ring) leaderAddress() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shown != "" {
		return r.shown
	}
	if r.leader == nil {
		return ""
	}
	return r.leader.addr
}

func (r *ring) show(addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shown = addr
}

func (n *testNode) leads() bool {
	n.ring.mu.Lock()
	defer n.ring.mu.Unlock()
	return n.ring.leader == n
}

func (n *testNode) serve(l net.Listener) {
	s := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}))
	apiv1.RegisterLocksServer(s, n)
	n.mu.Lock()
	n.server = s
	n.mu.Unlock()
	go func() { _ = s.Serve(l) }()
}

func (n *testNode) stop() {
	n.mu.Lock()
	s := n.server
	n.server = nil
	n.mu.Unlock()
	if s != nil {
		s.Stop()
	}
}

func (n *testNode) start() {
	n.ring.t.Helper()
	var l net.Listener
	eventually(n.ring.t, "listen again on "+n.addr, func() bool {
		var err error
		l, err = n.ring.listen(n.at)
		return err == nil
	})
	n.serve(l)
}

func (n *testNode) setMute(mute bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mute = mute
}

func (n *testNode) isMute() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mute
}

func (n *testNode) setHangs(hangs bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hangs = hangs
}

func (n *testNode) isHanging() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hangs
}

func (n *testNode) counts() (direct, forward, refused int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.direct, n.forward, n.refused
}

// require has the nodes require a secret from now on, also of streams that are open.
func (r *ring) require(secret string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secret = secret
}

// secretOf returns what a caller has shown, and why it is refused.
func (r *ring) secretOf(ctx context.Context) (secret string, refusal *apiv1.Error) {
	secret = strings.TrimPrefix(strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), " "), "Bearer ")
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.secret != "" && r.secret != secret {
		return secret, apiv1.NewError(apiv1.CodeUnauthenticated, "the access token is not valid")
	}
	return secret, nil
}

// operations returns how many operations were done for who showed a secret.
func (r *ring) operations(secret string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shownOps[secret]
}

func (n *testNode) Status(ctx context.Context, _ *apiv1.StatusRequest) (*apiv1.StatusResponse, error) {
	if _, refusal := n.ring.secretOf(ctx); refusal != nil && !n.ring.open {
		return nil, refusal
	}
	if n.isMute() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	id, directory, _ := n.ring.directoryNow()
	status := &apiv1.StatusResponse{NodeId: n.addr, State: "follower", Ready: true, LeaderAddress: n.ring.leaderAddress(), ClusterId: id, Directory: directory}
	if n.leads() {
		status.State, status.LeaderAddress = "leader", n.addr
	}
	return status, nil
}

// noteMeant notes which cluster a call is meant for.
func (n *testNode) noteMeant(ctx context.Context, call string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.meant = append(n.meant, strings.TrimSpace(call+" "+strings.Join(metadata.ValueFromIncomingContext(ctx, mux.ClusterHeader), " ")))
}

func (n *testNode) Members(ctx context.Context, _ *apiv1.MembersRequest) (*apiv1.MembersResponse, error) {
	n.noteMeant(ctx, "/Members")
	if _, refusal := n.ring.secretOf(ctx); refusal != nil {
		return nil, refusal
	}
	r := &apiv1.MembersResponse{}
	for _, m := range n.ring.nodes {
		r.Members = append(r.Members, &apiv1.Member{Id: m.addr, ApiAddress: m.addr})
	}
	return r, nil
}

func (n *testNode) RemoveMember(_ context.Context, q *apiv1.RemoveMemberRequest) (*apiv1.RemoveMemberResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.neverRemoves {
		return nil, apiv1.NewError(apiv1.CodeUnknownOutcome, "it may have been done")
	}
	if n.losesAnswer {
		n.losesAnswer, n.removed = false, true
		return nil, apiv1.NewError(apiv1.CodeUnknownOutcome, "the leader changed")
	}
	switch {
	case !n.leads():
		e := apiv1.NewError(apiv1.CodeNotLeader, "not the leader")
		e.Leader = n.ring.leaderAddress()
		return nil, e
	case q.GetId() != "known" || n.removed:
		return nil, apiv1.NewError(apiv1.CodeNoMember, "no member %q", q.GetId())
	}
	return &apiv1.RemoveMemberResponse{}, nil
}

func (n *testNode) TransferLeadership(ctx context.Context, _ *apiv1.TransferLeadershipRequest) (*apiv1.TransferLeadershipResponse, error) {
	n.mu.Lock()
	n.transfers++
	n.mu.Unlock()
	if n.exits {
		go n.stop()
		<-ctx.Done()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.losesAnswer {
		return nil, apiv1.NewError(apiv1.CodeUnknownOutcome, "handed over, but no new leader was seen")
	}
	return &apiv1.TransferLeadershipResponse{LeaderId: n.addr}, nil
}

func (n *testNode) transferCount() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.transfers
}

func (n *testNode) Batch(_ context.Context, q *apiv1.BatchRequest) (*apiv1.BatchResponse, error) {
	r := &apiv1.BatchResponse{}
	for _, op := range q.GetOperations() {
		r.Answers = append(r.Answers, &apiv1.Answer{Id: op.GetId(), Result: &apiv1.Answer_Get{Get: &apiv1.GetResponse{
			Lock: &apiv1.Lock{Name: op.GetGet().GetName(), HolderCount: 1}, AgeNs: int64(time.Second),
		}}})
	}
	return r, nil
}

// Session serves a stream as a node does.
func (n *testNode) Session(stream grpc.BidiStreamingServer[apiv1.SessionRequest, apiv1.SessionResponse]) error {
	out := make(chan *apiv1.SessionResponse, 10_000)
	ctx := stream.Context()
	n.noteMeant(ctx, "/Session")
	if _, refusal := n.ring.secretOf(ctx); refusal != nil {
		return refusal
	}
	n.mu.Lock()
	n.streams++
	n.authority = strings.Join(metadata.ValueFromIncomingContext(ctx, ":authority"), " ")
	breaks := n.breaks
	n.mu.Unlock()
	if breaks {
		return apiv1.NewError(apiv1.CodeUnavailable, "not today")
	}
	go func() {
		for last := (*apiv1.Directory)(nil); ; {
			_, directory, changed := n.ring.directoryNow()
			if directory != last {
				last = directory
				if !n.isMute() && stream.Send(&apiv1.SessionResponse{Directory: directory}) != nil {
					return
				}
			}
			select {
			case <-changed:
			case r := <-out:
				for n.isHanging() && ctx.Err() == nil {
					time.Sleep(5 * time.Millisecond)
				}
				if !n.isMute() && stream.Send(r) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	watched := map[[16]byte]func(){}
	defer func() {
		for _, stop := range watched {
			stop()
		}
	}()
	for {
		q, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, op := range q.GetOperations() {
			id := op.GetKeepAlive().GetSession()
			if id == nil {
				id = op.GetOpenSession().GetSession()
			}
			if len(id) == 16 && watched[[16]byte(id)] == nil {
				watched[[16]byte(id)] = n.ring.cluster.Watch([16]byte(id), func(notice *apiv1.Notice) {
					out <- &apiv1.SessionResponse{Notices: []*apiv1.Notice{notice}}
				})
			}
			secret, refusal := n.ring.secretOf(ctx)
			if refusal != nil && op.GetRequest() != nil {
				out <- &apiv1.SessionResponse{Answers: []*apiv1.Answer{{Id: op.GetId(), Result: &apiv1.Answer_Error{Error: refusal}}}}
				continue
			}
			n.ring.mu.Lock()
			if n.ring.shownOps == nil {
				n.ring.shownOps = map[string]int{}
			}
			n.ring.shownOps[secret]++
			n.ring.mu.Unlock()
			n.operate(op, out)
		}
	}
}

func (n *testNode) operate(op *apiv1.Operation, out chan<- *apiv1.SessionResponse) {
	answer := func(a *apiv1.Answer) {
		a.Id = op.GetId()
		out <- &apiv1.SessionResponse{Answers: []*apiv1.Answer{a}}
	}
	leads := n.leads()
	n.mu.Lock()
	mute := n.mute
	switch {
	case mute:
	case leads:
		n.direct++
	case op.GetRedirect():
		n.refused++
	default:
		n.forward++
	}
	n.mu.Unlock()
	switch {
	case mute:
	case op.GetRequest() == nil: // a ping
		answer(&apiv1.Answer{})
	case !leads && op.GetRedirect():
		e := apiv1.NewError(apiv1.CodeNotLeader, "not the leader")
		e.Leader = n.ring.leaderAddress()
		answer(&apiv1.Answer{Result: &apiv1.Answer_Error{Error: e}})
	default:
		n.ring.cluster.Start(&mux.Call{Op: op, Done: answer})
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
