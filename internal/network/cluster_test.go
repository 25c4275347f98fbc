package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/proof/rafttest"
)

// memNet is a network of pipes, usable in virtual time.
type memNet struct {
	mu     sync.Mutex
	layers map[raft.ServerAddress]*memLayer
}

type memLayer struct {
	net  *memNet
	addr raft.ServerAddress
	in   chan net.Conn
	done chan struct{}
	once sync.Once
}

func newMemNet() *memNet { return &memNet{layers: map[raft.ServerAddress]*memLayer{}} }

func (n *memNet) listen(addr raft.ServerAddress) *memLayer {
	l := &memLayer{net: n, addr: addr, in: make(chan net.Conn), done: make(chan struct{})}
	n.mu.Lock()
	n.layers[addr] = l
	n.mu.Unlock()
	return l
}

func (l *memLayer) Addr() net.Addr { return advertised(l.addr) }

func (l *memLayer) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *memLayer) Accept() (net.Conn, error) {
	select {
	case c := <-l.in:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	_, at := SplitMember(addr)
	l.net.mu.Lock()
	to := l.net.layers[raft.ServerAddress(at)]
	l.net.mu.Unlock()
	if to == nil {
		return nil, fmt.Errorf("nobody listens on %s", addr)
	}
	ours, theirs := net.Pipe()
	select {
	case to.in <- theirs:
		return ours, nil
	case <-to.done:
		return nil, net.ErrClosed
	case <-time.After(timeout):
		return nil, errors.New("dial timeout")
	}
}

// faulty is an inner store whose operations can be made to hang or fail.
type faulty struct {
	*raft.InmemStore

	mu     sync.Mutex
	hang   chan struct{} // writes wait for it; nil: they do not
	slow   time.Duration // each write takes so long
	fail   error         // writes return it
	failOn string        // only the stable key with this name, "" for all writes
	hangOn string        // likewise for hang; "log" is the log
	unread map[uint64]error
	writes int // attempted
}

func newFaulty() *faulty { return &faulty{InmemStore: raft.NewInmemStore()} }

func (f *faulty) write(key string) error {
	f.mu.Lock()
	f.writes++
	hang, fail, slow := f.hang, f.fail, f.slow
	if f.failOn != "" && f.failOn != key {
		fail = nil
	}
	if f.hangOn != "" && f.hangOn != key {
		hang = nil
	}
	f.mu.Unlock()
	if hang != nil {
		<-hang
	}
	if slow > 0 {
		time.Sleep(slow)
	}
	return fail
}

func (f *faulty) attempts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writes
}

func (f *faulty) set(change func(*faulty)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *faulty) StoreLogs(l []*raft.Log) error {
	if err := f.write("log"); err != nil {
		return err
	}
	return f.InmemStore.StoreLogs(l)
}

func (f *faulty) StoreLog(l *raft.Log) error { return f.StoreLogs([]*raft.Log{l}) }

func (f *faulty) DeleteRange(from, to uint64) error {
	if err := f.write("log"); err != nil {
		return err
	}
	return f.InmemStore.DeleteRange(from, to)
}

func (f *faulty) Set(k, v []byte) error {
	if err := f.write(string(k)); err != nil {
		return err
	}
	return f.InmemStore.Set(k, v)
}

func (f *faulty) SetUint64(k []byte, v uint64) error {
	if err := f.write(string(k)); err != nil {
		return err
	}
	return f.InmemStore.SetUint64(k, v)
}

func (f *faulty) GetLog(i uint64, l *raft.Log) error {
	f.mu.Lock()
	err := f.unread[i]
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.InmemStore.GetLog(i, l)
}

// member is one node of a cluster in memory.
type member struct {
	id     string
	disk   *faulty
	stores *disk.Stores
	trans  *Transport
	raft   *raft.Raft
	fsm    *rafttest.Machine
	log    *lockedBuffer // of the stores

	link    gate        // an error here cuts the member off
	ungated atomic.Bool // the transport does not ask the stores

	mu       sync.Mutex
	failures []error // what OnFailure got
}

func (m *member) gate() error {
	if err := m.link.get(); err != nil || m.ungated.Load() {
		return err
	}
	return m.stores.Gate()
}

func (m *member) reported() []error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]error(nil), m.failures...)
}

// startCluster starts a cluster and waits for its leader. Stop it with stop.
func startCluster(t *testing.T, ids ...string) []*member {
	t.Helper()
	return startClusterOn(t, newMemNet(), func(l *memLayer) raft.StreamLayer { return l }, ids...)
}

// stream is what a node has in production, over a memNet.
func (l *memLayer) stream(o StreamOptions) *Stream {
	o.Member = string(l.addr)
	o.Dial = func(ctx context.Context, to string) (net.Conn, error) {
		until, _ := ctx.Deadline()
		return l.Dial(raft.ServerAddress(to), time.Until(until))
	}
	return NewStream(l, o)
}

// startCalledBack is startCluster with all that strangers meet.
func startCalledBack(t *testing.T, network *memNet, ids ...string) []*member {
	t.Helper()
	return startClusterOn(t, network, func(l *memLayer) raft.StreamLayer {
		return l.stream(StreamOptions{CallBack: true, Cluster: func() ClusterIdentity { return ClusterIdentity{ID: secretID} }})
	}, ids...)
}

// secretID is the cluster's; a stranger is assumed to know it.
const secretID = "f00d-cafe"

func startClusterOn(t *testing.T, network *memNet, layer func(*memLayer) raft.StreamLayer, ids ...string) []*member {
	t.Helper()
	var servers raft.Configuration
	for _, id := range ids {
		servers.Servers = append(servers.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	var all []*member
	for _, id := range ids {
		m := &member{id: id, disk: newFaulty(), fsm: &rafttest.Machine{}, log: &lockedBuffer{}}
		m.stores = mustOpen(t, disk.StoreOptions{
			NodeID: id,
			Logger: rafttest.Logger(m.log),
			Memory: &disk.Memory{Log: m.disk, Stable: m.disk, Snapshots: raft.NewInmemSnapshotStore()},
			OnFailure: func(err error) {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.failures = append(m.failures, err)
			},
		})
		m.trans = NewTransport(layer(network.listen(raft.ServerAddress(id))), TransportOptions{Gate: m.gate})
		conf := rafttest.Config(id)
		if err := raft.BootstrapCluster(conf, m.stores.Log, m.stores.Stable, m.stores.Snapshots, m.trans, servers); err != nil {
			t.Fatal(err)
		}
		var err error
		if m.raft, err = NewRaft(conf, m.fsm, m.stores, m.trans); err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	leaderOf(t, all, 5*time.Second)
	return all
}

// leaderOf waits for one leader that all of the members know.
func leaderOf(t *testing.T, all []*member, limit time.Duration) *member {
	t.Helper()
	var leader *member
	rafttest.WaitFor(t, "a leader that all know", limit, func() bool {
		leader = nil
		for _, m := range all {
			if m.raft.State() == raft.Leader {
				leader = m
			}
		}
		if leader == nil {
			return false
		}
		for _, m := range all {
			if _, id := m.raft.LeaderWithID(); string(id) != leader.id {
				return false
			}
		}
		return true
	})
	return leader
}

func without(all []*member, m *member) []*member {
	var rest []*member
	for _, o := range all {
		if o != m {
			rest = append(rest, o)
		}
	}
	return rest
}

// stop ends all members and fails if one does not end.
func stop(t *testing.T, all []*member) {
	t.Helper()
	for _, m := range all {
		_ = m.trans.Close()
		if err := Shutdown(m.raft, 5*time.Second); err != nil {
			t.Errorf("member %s: %v", m.id, err)
		}
		_ = m.stores.Close()
	}
}
