package simnet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dial tries for at most limit and says how long it took.
func dial(t *testing.T, h *Host, addr string, limit time.Duration) (net.Conn, time.Duration, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	start := time.Now()
	c, err := h.Dial(ctx, addr)
	return c, time.Since(start), err
}

// readByte reads one byte within limit.
func readByte(c net.Conn, limit time.Duration) error {
	_ = c.SetReadDeadline(time.Now().Add(limit))
	_, err := c.Read(make([]byte, 1))
	return err
}

const delay = 10 * time.Millisecond

func TestACutStallsOneDirectionUntilItIsMended(t *testing.T) {
	bubble(t, Options{Latency: delay}, func(t *testing.T, n *Network) {
		a, b := connected(t, n)
		_, _ = a.Write([]byte("1")) // under way when the cut comes
		n.Cut("a", "b")
		_, _ = a.Write([]byte("2"))
		_, _ = b.Write([]byte("3"))
		if err := readByte(a, time.Second); err != nil {
			t.Errorf("read against the cut: %v", err)
		}
		if err := readByte(b, time.Minute); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read through the cut: %v, want a timeout", err)
		}
		n.Mend("a", "b")
		_, _ = a.Write([]byte("4"))
		_ = b.SetReadDeadline(time.Now().Add(2 * time.Second))
		got := make([]byte, 3)
		if _, err := io.ReadFull(b, got); err != nil || !bytes.Equal(got, []byte("124")) {
			t.Errorf("read after the cut: %q, %v; want 124", got, err)
		}
	})
}

func TestWhatIsReadBehindACutIsNotAcknowledged(t *testing.T) {
	bubble(t, Options{Window: 100}, func(t *testing.T, n *Network) {
		a, b := connected(t, n)
		n.Cut("b", "a")
		_ = a.SetWriteDeadline(time.Now().Add(time.Minute))
		go func() { _, _ = io.Copy(io.Discard, b) }()
		if k, err := a.Write(make([]byte, 250)); k != 100 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write against a cut: %d, %v; want the window of 100 and a timeout", k, err)
		}
		n.Mend("b", "a")
		_ = a.SetWriteDeadline(time.Now().Add(time.Minute))
		if k, err := a.Write(make([]byte, 250)); k != 250 || err != nil {
			t.Errorf("Write after it: %d, %v; want 250", k, err)
		}
		_ = a.Close()
	})
}

func TestDialsThroughACutComeThroughAfterIt(t *testing.T) {
	for _, way := range [][2]string{{"a", "b"}, {"b", "a"}} {
		bubble(t, Options{Latency: delay}, func(t *testing.T, n *Network) {
			n.Host("a")
			l := mustListen(t, n.Host("b"), ":0")
			n.Cut(way[0], way[1])
			_, took, err := dial(t, n.Host("a"), l.Addr().String(), 5*time.Second)
			if !errors.Is(err, context.DeadlineExceeded) || took != 5*time.Second {
				t.Errorf("cut %v: dial %v after %v, want a timeout after 5s", way, err, took)
			}
			go func() {
				time.Sleep(3500 * time.Millisecond)
				n.Mend(way[0], way[1])
			}()
			_, took, err = dial(t, n.Host("a"), l.Addr().String(), time.Minute)
			if err != nil || took < 3500*time.Millisecond || took > 4600*time.Millisecond {
				t.Errorf("cut %v: dial %v after %v, want success about a second after 3.5s", way, err, took)
			}
		})
	}
}

func TestDialsAreRefusedOrNotAnswered(t *testing.T) {
	bubble(t, Options{Latency: delay}, func(t *testing.T, n *Network) {
		a := n.Host("a")
		l := mustListen(t, n.Host("b"), ":0")
		addr := l.Addr().String()
		check := func(what, addr string, want error, after time.Duration) {
			t.Helper()
			if c, took, err := dial(t, a, addr, 3*time.Second); !errors.Is(err, want) || took != after {
				t.Errorf("dial %s: %v, %v after %v, want %v after %v", what, c, err, took, want, after)
			}
		}
		check("b", addr, nil, 2*delay)
		check("by name", strings.Replace(addr, "10.1.0.2", "b", 1), nil, 2*delay)
		check("a port without listener", "b:7", syscall.ECONNREFUSED, 2*delay)
		check("an address without host", "10.1.0.99:7", syscall.EHOSTUNREACH, 0)
		n.Kill("b")
		check("a killed host", addr, syscall.ECONNREFUSED, 2*delay)
		n.Revive("b")
		check("a host that has begun again", addr, syscall.ECONNREFUSED, 2*delay)
		mustListen(t, n.Host("b"), addr)
		check("its new listener", addr, nil, 2*delay)
		n.PowerOff("b")
		check("a host without power", addr, context.DeadlineExceeded, 3*time.Second)
		var unknown *net.DNSError
		if _, _, err := dial(t, a, "nobody:7", time.Second); !errors.As(err, &unknown) || !unknown.IsNotFound {
			t.Errorf("dial an unknown name: %v, want a DNS error", err)
		}
		if _, _, err := dial(t, a, "b:70000", time.Second); err == nil {
			t.Error("dial port 70000 succeeded, want an error")
		}
	})
}

func TestResetEndsBothEndsAtOnce(t *testing.T) {
	bubble(t, Options{Latency: delay}, func(t *testing.T, n *Network) {
		a, b := connected(t, n)
		errs := make(chan error, 2)
		for _, c := range []net.Conn{a, b} {
			go func() {
				_, err := c.Read(make([]byte, 1))
				errs <- err
			}()
		}
		time.Sleep(time.Second)
		_, _ = a.Write([]byte("lost"))
		start := time.Now()
		n.Reset("b", "a")
		for range 2 {
			if err := <-errs; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("Read: %v, want ECONNRESET", err)
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the reset took %v", took)
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Write: %v, want ECONNRESET", err)
		}
		time.Sleep(time.Second)
		if n, err := b.Read(make([]byte, 9)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Read of what was under way: %d bytes, %v; want it lost", n, err)
		}
		_, _ = a.Close(), b.Close()
		if s := n.Stats(); s.Open != 0 || s.Reset != 1 {
			t.Errorf("stats %+v, want none open and one reset", s)
		}
	})
}

func TestAKilledProcessResetsItsPeersBehindItsLastWords(t *testing.T) {
	bubble(t, Options{Latency: delay, Jitter: 2 * delay}, func(t *testing.T, n *Network) {
		a, b := connected(t, n)
		for _, s := range []string{"la", "st", " w", "or", "ds"} {
			_, _ = b.Write([]byte(s))
		}
		start := time.Now()
		n.Kill("b")
		got, err := io.ReadAll(a)
		if string(got) != "last words" || !errors.Is(err, syscall.ECONNRESET) || time.Since(start) > 3*delay {
			t.Errorf("read %q, %v after %v; want the last words and ECONNRESET within %v", got, err, time.Since(start), 3*delay)
		}
		if _, err := b.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write of a dead process: %v, want net.ErrClosed", err)
		}
	})
}

func TestAKillBehindACutIsHeardOfAfterIt(t *testing.T) {
	bubble(t, Options{Latency: delay}, func(t *testing.T, n *Network) {
		a, _ := connected(t, n)
		n.Cut("b", "a")
		n.Kill("b")
		if err := readByte(a, time.Minute); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read behind the cut: %v, want a timeout", err)
		}
		n.Mend("b", "a")
		if err := readByte(a, 2*time.Second); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read after it: %v, want ECONNRESET", err)
		}
	})
}

func TestAPowerLossIsSilentUntilTheHostIsBack(t *testing.T) {
	bubble(t, Options{Latency: delay, Window: 100}, func(t *testing.T, n *Network) {
		a, b := connected(t, n)
		idle, _ := connected(t, n)
		later, _ := connected(t, n)
		_, _ = b.Write([]byte("lost on the way"))
		n.PowerOff("b")
		if err := readByte(a, time.Minute); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v, want a timeout", err)
		}
		_ = a.SetDeadline(time.Now().Add(time.Minute))
		if k, err := a.Write(make([]byte, 150)); k != 100 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %d, %v; want the window of 100 and a timeout", k, err)
		}
		n.Revive("b")
		if err := readByte(a, 2*time.Second); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read after the revival: %v, want ECONNRESET, as what was written is sent again", err)
		}
		_, _ = later.Write([]byte("x"))
		if err := readByte(later, 3*delay); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read after a write after the revival: %v, want ECONNRESET after a round trip", err)
		}
		if err := readByte(idle, probeEvery); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("idle connection after the revival: %v, want ECONNRESET by keep-alive", err)
		}
	})
}

func TestSilenceEndsAConnectionInTheEnd(t *testing.T) {
	for what, silence := range map[string]func(*Network){
		"cut":        func(n *Network) { n.Cut("a", "b") },
		"cut back":   func(n *Network) { n.Cut("b", "a") },
		"power loss": func(n *Network) { n.PowerOff("b") },
	} {
		bubble(t, Options{Latency: delay}, func(t *testing.T, n *Network) {
			a, _ := connected(t, n)
			n.Cut("a", "b")
			time.Sleep(time.Minute)
			n.HealAll() // too early
			start := time.Now()
			silence(n)
			err := readByte(a, time.Hour)
			if !errors.Is(err, syscall.ETIMEDOUT) || time.Since(start) != defaultKeepAlive {
				t.Errorf("%s: read: %v after %v, want ETIMEDOUT after %v", what, err, time.Since(start), defaultKeepAlive)
			}
			n.HealAll()
			if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.ETIMEDOUT) {
				t.Errorf("%s: write: %v, want ETIMEDOUT for good", what, err)
			}
		})
	}
}

func TestADialWithoutDeadlineGivesUp(t *testing.T) {
	bubble(t, Options{Latency: delay}, func(t *testing.T, n *Network) {
		n.Host("b")
		n.PowerOff("b")
		start := time.Now()
		if _, err := n.Host("a").Dial(context.Background(), "b:1"); !errors.Is(err, syscall.ETIMEDOUT) || time.Since(start) != synGiveUp {
			t.Errorf("Dial: %v after %v, want ETIMEDOUT after %v", err, time.Since(start), synGiveUp)
		}
	})
}

func TestAnUnacceptedConnectionHearsNothingOfALossOfPower(t *testing.T) {
	bubble(t, Options{Latency: delay}, func(t *testing.T, n *Network) {
		a := n.Host("a")
		c := mustDial(t, a, mustListen(t, n.Host("b"), ":0").Addr().String())
		n.PowerOff("b")
		if err := readByte(c, time.Minute); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v, want a timeout", err)
		}
	})
}

func TestAnEarlierLifeReachesNobody(t *testing.T) {
	for _, end := range []func(*Network, string){(*Network).Kill, (*Network).PowerOff} {
		bubble(t, Options{Latency: delay}, func(t *testing.T, n *Network) {
			target := mustListen(t, n.Host("b"), ":9").Addr().String()
			old := n.Host("a")
			l := mustListen(t, old, ":8")
			packets := old.Packets(7)
			dialled := make(chan error, 1)
			n.Cut("a", "b")
			go func() {
				_, err := old.Dial(context.Background(), target)
				dialled <- err
			}()
			accepted := make(chan error, 1)
			go func() {
				_, err := l.Accept()
				accepted <- err
			}()
			time.Sleep(time.Second)
			end(n, "a")
			if err := <-dialled; !errors.Is(err, net.ErrClosed) {
				t.Errorf("Dial under way: %v, want net.ErrClosed", err)
			}
			if err := <-accepted; !errors.Is(err, net.ErrClosed) {
				t.Errorf("Accept under way: %v, want net.ErrClosed", err)
			}
			n.HealAll()
			fresh := n.Revive("a")
			if fresh == old || fresh != n.Host("a") || !fresh.IP().Equal(old.IP()) {
				t.Error("Revive must return a new life with the old address")
			}
			if _, err := old.Dial(t.Context(), target); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Dial: %v, want net.ErrClosed", err)
			}
			if _, err := old.Listen(":8"); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Listen: %v, want net.ErrClosed", err)
			}
			if _, err := packets.WriteTo([]byte("x"), "b:7"); !errors.Is(err, net.ErrClosed) {
				t.Errorf("WriteTo: %v, want net.ErrClosed", err)
			}
			mustListen(t, fresh, ":8")
			if c := mustDial(t, fresh, target); c == nil {
				t.Error("the new life cannot dial")
			}
		})
	}
}

func TestAnIsolatedHostIsAloneAlsoAmongNewOnes(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, n *Network) {
		a, b := n.Host("a"), n.Host("b")
		la := mustListen(t, a, ":1")
		n.Isolate("a")
		c := n.Host("c")
		lc := mustListen(t, c, ":1")
		if _, _, err := dial(t, c, la.Addr().String(), time.Second); err == nil {
			t.Error("a new host reaches the isolated one")
		}
		if _, _, err := dial(t, a, lc.Addr().String(), time.Second); err == nil {
			t.Error("the isolated host reaches a new one")
		}
		if _, _, err := dial(t, a, la.Addr().String(), time.Second); err != nil {
			t.Errorf("the isolated host does not reach itself: %v", err)
		}
		mustDial(t, b, lc.Addr().String())
		n.Rejoin("a")
		mustDial(t, c, la.Addr().String())
		n.Isolate("a")
		n.HealAll()
		mustDial(t, a, lc.Addr().String())
	})
}

func TestSlowAddsToOneDirection(t *testing.T) {
	bubble(t, Options{Latency: delay}, func(t *testing.T, n *Network) {
		a, b := connected(t, n)
		n.Slow("a", "b", time.Second)
		start := time.Now()
		_, _ = a.Write([]byte("x"))
		_ = readByte(b, time.Minute)
		if took := time.Since(start); took != time.Second+delay {
			t.Errorf("a byte took %v, want 1.01s", took)
		}
		n.HealAll()
		start = time.Now()
		_, _ = b.Write([]byte("x"))
		_ = readByte(a, time.Minute)
		if took := time.Since(start); took != delay {
			t.Errorf("a byte back took %v, want %v", took, delay)
		}
	})
}

func TestCloseWithUnreadBytesResetsThePeer(t *testing.T) {
	bubble(t, Options{Latency: delay}, func(t *testing.T, n *Network) {
		a, b := connected(t, n)
		_, _ = a.Write([]byte("unread"))
		time.Sleep(time.Second)
		_, _ = b.Write([]byte("answer"))
		_ = b.Close()
		if got, err := io.ReadAll(a); string(got) != "answer" || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read %q, %v; want the answer and ECONNRESET", got, err)
		}
	})
}

func TestFaultsOfUnknownHostsPanic(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, n *Network) {
		n.Host("a")
		defer func() {
			if p, _ := recover().(string); !strings.Contains(p, `no host "b", there are: a`) {
				t.Errorf("panic %q, want one that names the hosts", p)
			}
		}()
		n.Cut("a", "b")
	})
}

func TestOptionsAreChecked(t *testing.T) {
	defer func() {
		p, _ := recover().(string)
		for _, want := range []string{"latency: is -1ns", "jitter: is -1ns", "window: is -1", "loss: is 2"} {
			if !strings.Contains(p, want) {
				t.Errorf("panic %q does not name %q", p, want)
			}
		}
	}()
	New(1, Options{Latency: -1, Jitter: -1, Window: -1, Loss: 2})
}

func TestPortsAreTakenOnceAndGivenBack(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, n *Network) {
		a := n.Host("a")
		l := mustListen(t, a, "10.1.0.1:80")
		if _, err := a.Listen(":80"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("second Listen: %v, want EADDRINUSE", err)
		}
		if _, _, err := a.Packets(80).FinalAdvertiseAddr("", 0); err == nil {
			t.Error("Packets on a port in use: no error")
		}
		if _, err := a.Listen("10.1.0.2:81"); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("Listen on another's address: %v, want EADDRNOTAVAIL", err)
		}
		pending := mustDial(t, a, "127.0.0.1:80")
		_ = l.Close()
		if err := readByte(pending, time.Second); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("connection that was not accepted: %v, want ECONNRESET", err)
		}
		mustListen(t, a, ":80")
		one, two := mustListen(t, a, ":0"), mustListen(t, a, "localhost:0")
		if one.Addr().String() == two.Addr().String() {
			t.Errorf("both listen on %v", one.Addr())
		}
	})
}

// A dial reaches the host that has the address now, even if the dial started before.
func TestExchangedAddressesLeadToTheOtherHost(t *testing.T) {
	bubble(t, Options{Latency: time.Millisecond}, func(t *testing.T, n *Network) {
		a, b, c := n.Host("a"), n.Host("b"), n.Host("c")
		ipA, ipB := a.IP(), b.IP()
		n.PowerOff("a") // nobody answers there
		n.Kill("b")
		dialled := make(chan net.Conn, 1)
		go func() {
			conn, err := c.Dial(t.Context(), net.JoinHostPort(ipA.String(), "7"))
			if err != nil {
				t.Error(err)
			}
			dialled <- conn
		}()
		time.Sleep(3 * time.Second)
		n.ExchangeAddresses("a", "b")
		if !a.IP().Equal(ipA) {
			t.Error("an address changed within a life")
		}
		b = n.Revive("b")
		if got, err := n.Lookup("b"); !b.IP().Equal(ipA) || !got.Equal(ipA) || err != nil {
			t.Errorf("b is at %v, its name stands for %v, %v; want %v", b.IP(), got, err, ipA)
		}
		l := mustListen(t, b, ":7")
		theirs, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		ours := <-dialled
		if !theirs.LocalAddr().(*net.TCPAddr).IP.Equal(ipA) || !ours.RemoteAddr().(*net.TCPAddr).IP.Equal(ipA) {
			t.Errorf("the connection is to %v by its one end, %v by the other, want %v", ours.RemoteAddr(), theirs.LocalAddr(), ipA)
		}
		if ip := n.Revive("a").IP(); !ip.Equal(ipB) {
			t.Errorf("a is at %v, want %v", ip, ipB)
		}
		_ = errors.Join(ours.Close(), theirs.Close())
	})
}
