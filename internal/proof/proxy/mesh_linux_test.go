package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// peer is a process of its own that dials, or this one.
const peerRole = "LOCKNODE_TEST_DIAL"

// TestDialPeer is that process: it dials, says a line, and waits for its end.
func TestDialPeer(t *testing.T) {
	address := os.Getenv(peerRole)
	if address == "" {
		t.Skip("it is run by other tests, as a process of its own")
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintln(conn, "from the peer"); err != nil {
		t.Fatal(err)
	}
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
}

// startPeer starts a process that dials an address; it ends with the test.
func startPeer(t *testing.T, address string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestDialPeer$")
	cmd.Env = append(os.Environ(), peerRole+"="+address)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the peer: %v", err)
		}
	})
	return cmd
}

// TestMeshTellsWhoHasDialled: two processes dial the same address, and only the way
// of one of them is cut.
func TestMeshTellsWhoHasDialled(t *testing.T) {
	address, heard := startServer(t)
	peer := make(chan int, 1)
	pids := map[int]string{os.Getpid(): "self"}
	m := NewMesh("127.0.0.2", func() map[int]string {
		select {
		case pid := <-peer:
			pids[pid] = "peer"
		default:
		}
		return pids
	})
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := m.Front("server", []string{address}, address); err != nil {
		t.Fatal(err)
	}
	at, err := m.Elsewhere(address)
	if err != nil || !strings.HasPrefix(at, "127.0.0.2:") {
		t.Fatalf("Elsewhere: got %s, %v", at, err)
	}
	m.Cut([]string{"peer"}, []string{"server"})
	cmd := startPeer(t, at)
	peer <- cmd.Process.Pid
	time.Sleep(quiet) // it dials, and is not heard
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(conn, "from here"); err != nil {
		t.Fatal(err)
	}
	if got := <-heard; got != "from here" {
		t.Errorf("heard %q first, want what was said on the way that is open", got)
	}
	_ = conn.Close()
	m.Heal()
	if got := <-heard; got != "from the peer" {
		t.Errorf("heard %q, want the peer", got)
	}
	m.Reset(func(from, to string) bool { return from == "peer" && to == "server" })
}

func TestMeshRelaysPacketsByWhoSendsThem(t *testing.T) {
	m := NewMesh("127.0.0.2", func() map[int]string { return nil })
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	var sockets []net.PacketConn
	for _, name := range []string{"a", "b", "c"} {
		s, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		if err := m.Front(name, nil, s.LocalAddr().String()); err != nil {
			t.Fatal(err)
		}
		sockets = append(sockets, s)
	}
	a, b, c := sockets[0], sockets[1], sockets[2]
	at, err := m.Elsewhere(c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	to, err := net.ResolveUDPAddr("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	m.Cut([]string{"a"}, []string{"c"})
	for _, s := range []struct {
		from net.PacketConn
		text string
	}{{a, "from a"}, {b, "from b"}} {
		if _, err := s.from.WriteTo([]byte(s.text), to); err != nil {
			t.Fatal(err)
		}
	}
	packet := make([]byte, 100)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	n, _, err := c.ReadFrom(packet)
	if got := string(packet[:n]); err != nil || got != "from b" {
		t.Errorf("received %q, %v: want what comes on the way that is open", got, err)
	}
}

// TestWhatStoodBeforeAProcessCanBeTakenAway: its ports are free for another one.
func TestWhatStoodBeforeAProcessCanBeTakenAway(t *testing.T) {
	m := NewMesh("127.0.0.2", func() map[int]string { return nil })
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	here, heard := startServer(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // its port is one that everybody may have
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	for range 3 {
		if err := m.Front("here", []string{here}, here); err != nil {
			t.Fatal(err)
		}
		if err := m.Front("there", nil, silent.Addr().String()); err != nil {
			t.Fatal(err)
		}
		at, err := m.Elsewhere(here)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintln(conn, "hello"); err != nil || <-heard != "hello" {
			t.Fatalf("through the proxy: %v", err)
		}
		for _, name := range []string{"here", "there", "nobody"} {
			if err := m.Withdraw(name); err != nil {
				t.Fatal(err)
			}
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the connection has no end")
		}
		_ = conn.Close()
	}
}

// TestMeshClosesWhilePacketsCome: a relay that is to end may be about to pass a packet on.
func TestMeshClosesWhilePacketsCome(t *testing.T) {
	for range 100 {
		closeWhilePacketsCome(t)
	}
}

func closeWhilePacketsCome(t *testing.T) {
	s, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	m := NewMesh("127.0.0.2", func() map[int]string { return nil })
	if err := m.Front("server", nil, s.LocalAddr().String()); err != nil {
		t.Fatal(err)
	}
	to := m.fronts["server"].relays[0].LocalAddr()
	var sending sync.WaitGroup
	enough := make(chan struct{})
	defer func() { close(enough); sending.Wait() }()
	for range 4 {
		sending.Go(func() {
			for {
				select {
				case <-enough:
					return
				default:
					_, _ = s.WriteTo([]byte("packet"), to) // packets may be lost
				}
			}
		})
	}
	if _, _, err := s.ReadFrom(make([]byte, 100)); err != nil { // the relay is at work
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() { closed <- m.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatalf("Close waits for more than %v", patience)
	}
}
