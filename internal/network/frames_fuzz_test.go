package network

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/locknode/locknode/internal/disk"
	"github.com/locknode/locknode/internal/proof/fuzz"
	"github.com/locknode/locknode/internal/proof/rafttest"
)

// port is a net.Listener that is handed its connections, and a StreamLayer that
// dials whatever dial returns.
type port struct {
	in   chan net.Conn
	done chan struct{}
	once sync.Once
	dial func() (net.Conn, error)
}

func newPort() *port { return &port{in: make(chan net.Conn), done: make(chan struct{})} }

func (p *port) Accept() (net.Conn, error) {
	select {
	case c := <-p.in:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *port) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *port) Addr() net.Addr { return advertised("a:1") }

func (p *port) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) { return p.dial() }

// recording is a connection that keeps what is written and ends when it is read.
type recording struct {
	fuzz.Conn
	sent *bytes.Buffer
}

func (r recording) Write(b []byte) (int, error) { return r.sent.Write(b) }
func (recording) Read([]byte) (int, error)      { return 0, io.EOF }
func (recording) Close() error                  { return nil }

// framesOf are the bytes that raft sends for some requests.
func framesOf(t testing.TB, ask func(*Transport)) []byte {
	t.Helper()
	var sent bytes.Buffer
	layer := newPort()
	layer.dial = func() (net.Conn, error) { return recording{sent: &sent}, nil }
	trans := NewTransport(layer, TransportOptions{})
	ask(trans)
	if err := trans.Close(); err != nil {
		t.Fatal(err)
	}
	return sent.Bytes()
}

func header(id string) raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(id), Addr: []byte(id + ":1")}
}

var fuzzedVoters = raft.Configuration{Servers: []raft.Server{
	{ID: "a", Address: "a:1"}, {ID: "b", Address: "b:1"}, {ID: "c", Address: "c:1"},
}}

// appendFrames is a request to append these entries after entry 1 of term 1.
func appendFrames(t testing.TB, logs ...*raft.Log) []byte {
	return framesOf(t, func(trans *Transport) {
		_ = trans.AppendEntries("a", "a:1", &raft.AppendEntriesRequest{
			RPCHeader: header("b"), Term: 2, PrevLogEntry: 1, PrevLogTerm: 1, Entries: logs, LeaderCommitIndex: 3,
		}, &raft.AppendEntriesResponse{})
	})
}

// everyFrame has one or more frames of each kind.
func everyFrame(t testing.TB) map[string][]byte {
	t.Helper()
	config := &raft.Log{Index: 2, Term: 2, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(fuzzedVoters)}
	return map[string][]byte{
		"entries":   appendFrames(t, rafttest.Entries(2, 4, 2)...),
		"config":    appendFrames(t, config),
		"heartbeat": beatFrame(t),
		"vote": framesOf(t, func(trans *Transport) {
			_ = trans.RequestVote("a", "a:1", &raft.RequestVoteRequest{RPCHeader: header("b"), Term: 2, LastLogIndex: 9, LastLogTerm: 1}, &raft.RequestVoteResponse{})
		}),
		"pre-vote": framesOf(t, func(trans *Transport) {
			_ = trans.RequestPreVote("a", "a:1", &raft.RequestPreVoteRequest{RPCHeader: header("b"), Term: 2, LastLogIndex: 9, LastLogTerm: 1}, &raft.RequestPreVoteResponse{})
		}),
		"timeout now": framesOf(t, func(trans *Transport) {
			_ = trans.TimeoutNow("a", "a:1", &raft.TimeoutNowRequest{RPCHeader: header("b")}, &raft.TimeoutNowResponse{})
		}),
		"snapshot": framesOf(t, func(trans *Transport) {
			req := &raft.InstallSnapshotRequest{
				RPCHeader: header("b"), SnapshotVersion: 1, Term: 2, LastLogIndex: 9, LastLogTerm: 1, Size: 5,
				Configuration: raft.EncodeConfiguration(fuzzedVoters), ConfigurationIndex: 1,
			}
			_ = trans.InstallSnapshot("a", "a:1", req, &raft.InstallSnapshotResponse{}, bytes.NewReader([]byte("state")))
		}),
	}
}

func beat(trans *Transport) error {
	return trans.AppendEntries("a", "a:1", &raft.AppendEntriesRequest{RPCHeader: header("b"), Term: 2}, &raft.AppendEntriesResponse{})
}

// victim is a follower with one entry in its log, whose port the test talks to.
type victim struct {
	raft    *raft.Raft
	trans   *Transport
	port    *port
	machine *rafttest.Machine
	failed  chan error
}

func startVictim(t testing.TB) *victim {
	t.Helper()
	v := &victim{port: newPort(), machine: &rafttest.Machine{}, failed: make(chan error, 1)}
	stores, err := disk.OpenStores(disk.StoreOptions{NodeID: "a", Memory: memory(), OnFailure: func(err error) { v.failed <- err }})
	if err != nil {
		t.Fatal(err)
	}
	v.trans = NewTransport(NewStream(v.port, StreamOptions{Member: "a"}), TransportOptions{})
	conf := rafttest.Config("a")
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = time.Hour, time.Hour, time.Hour
	if err := raft.BootstrapCluster(conf, stores.Log, stores.Stable, stores.Snapshots, v.trans, fuzzedVoters); err != nil {
		t.Fatal(err)
	}
	if v.raft, err = NewRaft(conf, v.machine, stores, v.trans); err != nil {
		t.Fatal(err)
	}
	return v
}

// feed sends bytes as peer b would after the preface, and returns what is
// answered to them when the other side has taken all of them or has closed.
func (v *victim) feed(data []byte) []byte { return v.feedAs("b", data) }

func (v *victim) feedAs(from string, data []byte) []byte {
	ours, theirs := fuzz.Pipe()
	v.port.in <- theirs
	c, err := greetAs(ours, from, "a")
	if err != nil {
		return nil
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = c.Write(data)
		_ = ours.CloseWrite()
	})
	answers, _ := io.ReadAll(c)
	_ = ours.Close()
	wg.Wait()
	return answers
}

// greetAs shakes hands with a node of no cluster.
func greetAs(c net.Conn, from, to string) (net.Conn, error) {
	return Greet(c, from, to, "", ClusterIdentity{})
}

func (v *victim) stop(t testing.TB) {
	t.Helper()
	if err := Stop(v.raft, v.trans, 0, 10*time.Second); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// FuzzRaftFrames feeds bytes to a follower's port. Whatever comes, the process
// lives, the follower works on, no write of it was one that its log refuses, and
// memory is a multiple of what was sent.
func FuzzRaftFrames(f *testing.F) {
	var all []byte
	for _, frames := range everyFrame(f) {
		f.Add(frames)
		all = append(all, frames...)
	}
	f.Add(all)
	f.Add([]byte{0, 0xdd, 0xff, 0xff, 0xff, 0xff}) // an array of four thousand million
	f.Add([]byte("\x00\x81\xa1x" + hugeExtension))
	f.Add([]byte{0, 0x81, 0xa7, 'E', 'n', 't', 'r', 'i', 'e', 's', 0x91}) // cut off
	f.Add(append([]byte{0, 0x81, 0xa1, 'x'}, bytes.Repeat([]byte{0x91}, 3000)...))
	afterwards := beatFrame(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		defer fuzz.Watch()()
		v := startVictim(t)
		defer v.stop(t)
		if n := fuzz.Allocated(func() { v.feed(data) }); n > 4<<20+300*uint64(len(data)) {
			t.Errorf("%d bytes allocated for %d", n, len(data))
		}
		if answers := v.feed(afterwards); len(answers) == 0 {
			t.Error("a heartbeat is not answered any more")
		}
		select {
		case err := <-v.failed:
			t.Errorf("a write failed: %v", err)
		default:
		}
	})
}

// beatFrame is a heartbeat. Its term may be old by the time it is sent; it is
// answered all the same.
func beatFrame(t testing.TB) []byte {
	t.Helper()
	return framesOf(t, func(trans *Transport) { _ = beat(trans) })
}

// scripted is a peer that says what it was told to say, whatever it is asked.
type scripted struct {
	fuzz.Conn
	says *bytes.Reader
}

func (scripted) Write(b []byte) (int, error)        { return len(b), nil }
func (s scripted) Read(b []byte) (int, error)       { return s.says.Read(b) }
func (scripted) Close() error                       { return nil }
func (s scripted) SetReadDeadline(time.Time) error  { return nil }
func (s scripted) SetWriteDeadline(time.Time) error { return nil }

func scriptedDial(says []byte) func() (net.Conn, error) {
	return func() (net.Conn, error) { return scripted{says: bytes.NewReader(says)}, nil }
}

// answersOf are the bytes that a follower answers to the frames.
func answersOf(t testing.TB, frames []byte) []byte {
	t.Helper()
	v := startVictim(t)
	defer v.stop(t)
	return v.feed(frames)
}

// FuzzRaftAnswers answers a node's requests with any bytes. Each request ends,
// an answer is only taken from bytes that spell one, and memory is a multiple of
// what was sent.
func FuzzRaftAnswers(f *testing.F) {
	kinds := []string{"entries", "heartbeat", "vote", "pre-vote", "timeout now", "snapshot"}
	frames := everyFrame(f)
	for i, name := range kinds {
		if name == "timeout now" {
			continue // the follower would begin an election
		}
		f.Add(byte(i), answersOf(f, frames[name]))
	}
	f.Add(byte(0), []byte("\xa0\xc0"))
	f.Add(byte(0), []byte("\xa0\x81\xa1x"+hugeExtension))
	f.Add(byte(0), []byte("\xa4nope\xc0"))
	f.Add(byte(2), []byte{0xdb, 0xff, 0xff, 0xff, 0xff}) // an error of four thousand million bytes
	f.Add(byte(2), append([]byte{0xa0, 0x81, 0xa1, 'x'}, bytes.Repeat([]byte{0x91}, 3000)...))
	f.Fuzz(func(t *testing.T, kind byte, says []byte) {
		defer fuzz.Watch()()
		layer := newPort()
		layer.dial = scriptedDial(says)
		trans := NewTransport(layer, TransportOptions{MaxFrame: 1 << 20})
		defer trans.Close()
		var yes bool
		var err error
		n := fuzz.Allocated(func() { yes, err = ask(trans, kinds[int(kind)%len(kinds)]) })
		if n > 1<<20+300*uint64(len(says)) {
			t.Errorf("%d bytes allocated for an answer of %d", n, len(says))
		}
		const trues = "\xc3\x01" // the decoder takes a 1, too
		if err == nil && yes && !bytes.ContainsAny(says, trues) {
			t.Errorf("%q was taken for a yes", says)
		}
	})
}

// ask sends a request of a kind and reports whether the answer was yes.
func ask(trans *Transport, kind string) (yes bool, err error) {
	var appended raft.AppendEntriesResponse
	var vote raft.RequestVoteResponse
	var preVote raft.RequestPreVoteResponse
	var installed raft.InstallSnapshotResponse
	switch kind {
	case "entries":
		err = trans.AppendEntries("b", "b", &raft.AppendEntriesRequest{Term: 2, PrevLogEntry: 1, Entries: rafttest.Entries(2, 4, 2)}, &appended)
	case "heartbeat":
		err = trans.AppendEntries("b", "b", &raft.AppendEntriesRequest{Term: 2}, &appended)
	case "vote":
		err = trans.RequestVote("b", "b", &raft.RequestVoteRequest{Term: 2}, &vote)
	case "pre-vote":
		err = trans.RequestPreVote("b", "b", &raft.RequestPreVoteRequest{Term: 2}, &preVote)
	case "timeout now":
		err = trans.TimeoutNow("b", "b", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{})
	default:
		err = trans.InstallSnapshot("b", "b", &raft.InstallSnapshotRequest{Size: 5}, &installed, bytes.NewReader([]byte("state")))
	}
	return appended.Success || vote.Granted || preVote.Granted || installed.Success, err
}
