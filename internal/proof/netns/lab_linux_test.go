package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The tests run in a namespace of their own: this binary starts itself again.
const inside = "LOCKNODE_TEST_NETNS"

func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		goleak.VerifyTestMain(m)
	}
	if err := Available(); err != nil {
		fmt.Println("skipped:", err)
		return
	}
	runtime.LockOSThread() // the child dies with this thread
	cmd := Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Println(err)
		os.Exit(1)
	}
}

// socket is a UDP socket at a host.
func socket(t *testing.T, l *Lab, name string) net.PacketConn {
	t.Helper()
	address, err := l.Host(name)
	if err != nil {
		t.Fatal(err)
	}
	type made struct {
		conn net.PacketConn
		err  error
	}
	done := make(chan made)
	go func() {
		runtime.LockOSThread() // thrown away with the goroutine
		if err := l.Enter(name); err != nil {
			done <- made{nil, err}
			return
		}
		conn, err := net.ListenPacket("udp", net.JoinHostPort(address, "0"))
		done <- made{conn, err}
	}()
	m := <-done
	if m.err != nil {
		t.Fatal(m.err)
	}
	t.Cleanup(func() { _ = m.conn.Close() })
	return m.conn
}

// reaches sends packets until one arrives, or for a while.
func reaches(t *testing.T, from, to net.PacketConn, d time.Duration) bool {
	t.Helper()
	packet := make([]byte, 10)
	for end := time.Now().Add(d); time.Now().Before(end); {
		if _, err := from.WriteTo([]byte("hello"), to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		_ = to.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, sender, err := to.ReadFrom(packet); err == nil && sender.String() == from.LocalAddr().String() {
			return true
		}
	}
	return false
}

func TestOneDirectionBetweenTwoHostsIsCutAndNothingElse(t *testing.T) {
	l, err := New("hub")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	sockets := map[string]net.PacketConn{}
	for _, name := range []string{"hub", "a", "b"} {
		sockets[name] = socket(t, l, name)
	}
	const sure, quiet = 5 * time.Second, 200 * time.Millisecond
	check := func(cut ...[2]string) {
		t.Helper()
		for from := range sockets {
			for to := range sockets {
				if from == to {
					continue
				}
				isCut := false
				for _, c := range cut {
					isCut = isCut || c == [2]string{from, to}
				}
				limit := sure
				if isCut {
					limit = quiet
				}
				if got := reaches(t, sockets[from], sockets[to], limit); got == isCut {
					t.Errorf("from %s to %s: arrives %v, with %v cut", from, to, got, cut)
				}
			}
		}
	}
	check()
	for _, cut := range [][2]string{{"a", "b"}, {"hub", "a"}, {"b", "hub"}} {
		if err := l.Cut([]string{cut[0]}, []string{cut[1]}); err != nil {
			t.Fatal(err)
		}
		check(cut)
		if err := l.Heal(); err != nil {
			t.Fatal(err)
		}
		check()
	}
	if err := l.Cut([]string{"a"}, []string{"nobody"}); err == nil {
		t.Error("a cut to nobody: want an error")
	}
}
