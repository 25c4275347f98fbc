package simnet

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestBytesArriveInOrderAndWhole(t *testing.T) {
	for _, o := range []Options{
		{},
		{Window: 1},
		{Latency: 3 * time.Millisecond, Jitter: 20 * time.Millisecond, Window: 5000},
		{Latency: time.Millisecond, Loss: 0.2, Window: 70_000},
	} {
		bubble(t, o, func(t *testing.T, n *Network) {
			a, b := connected(t, n)
			rnd := rand.New(rand.NewPCG(1, 2))
			want := make([]byte, 300_000)
			if o.Window == 1 {
				want = want[:2000]
			}
			for i := range want {
				want[i] = byte(rnd.Uint32())
			}
			go func() {
				for rest := want; len(rest) > 0; {
					m := min(len(rest), 1+rnd.IntN(9000))
					if k, err := a.Write(rest[:m]); k != m || err != nil {
						t.Errorf("Write of %d: %d, %v", m, k, err)
						return
					}
					rest = rest[m:]
				}
				_ = a.Close()
			}()
			sizes := rand.New(rand.NewPCG(3, 4))
			var got []byte
			for {
				buf := make([]byte, 1+sizes.IntN(8000))
				k, err := b.Read(buf)
				got = append(got, buf[:k]...)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%+v: read %d bytes that differ from the %d written", o, len(got), len(want))
			}
			_ = b.Close()
			if open := n.Stats().Open; open != 0 {
				t.Errorf("%d connections are open after both ends were closed", open)
			}
		})
	}
}

func TestDeadlinesEndReadsAndWrites(t *testing.T) {
	bubble(t, Options{Window: 100}, func(t *testing.T, n *Network) {
		a, _ := connected(t, n)
		start := time.Now()
		check := func(op string, n, want int, err error, after time.Duration) {
			t.Helper()
			var timeout net.Error
			if !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("%s: error %v, want a timeout", op, err)
			}
			if n != want || time.Since(start) != after {
				t.Errorf("%s: %d bytes after %v, want %d after %v", op, n, time.Since(start), want, after)
			}
		}
		_ = a.SetReadDeadline(start.Add(time.Second))
		k, err := a.Read(make([]byte, 1))
		check("read", k, 0, err, time.Second)
		_ = a.SetWriteDeadline(start.Add(2 * time.Second))
		k, err = a.Write(make([]byte, 150))
		check("write", k, 100, err, 2*time.Second)
		_ = a.SetDeadline(time.Time{})
		go func() {
			time.Sleep(time.Second)
			_ = a.SetDeadline(time.Unix(1, 0)) // as servers do to interrupt
		}()
		k, err = a.Read(make([]byte, 1))
		check("interrupted read", k, 0, err, 3*time.Second)
	})
}

func TestWindowHoldsTheWriterBack(t *testing.T) {
	bubble(t, Options{Window: 1000}, func(t *testing.T, n *Network) {
		a, b := connected(t, n)
		start, took := time.Now(), make(chan time.Duration, 1)
		go func() {
			_, _ = a.Write(make([]byte, 1500))
			took <- time.Since(start)
		}()
		time.Sleep(time.Second)
		_, _ = io.ReadFull(b, make([]byte, 400)) // less than half of the window
		time.Sleep(time.Second)
		_, _ = io.ReadFull(b, make([]byte, 200))
		if got := <-took; got != 2*time.Second {
			t.Errorf("Write returned after %v, want 2s", got)
		}
	})
}

func TestCloseSendsWhatWasWrittenFirst(t *testing.T) {
	bubble(t, Options{Latency: 10 * time.Millisecond}, func(t *testing.T, n *Network) {
		a, b := connected(t, n)
		_, _ = a.Write([]byte("last words"))
		_ = a.Close()
		if got, err := io.ReadAll(b); string(got) != "last words" || err != nil {
			t.Errorf("ReadAll: %q, %v", got, err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read after Close: %v, want net.ErrClosed", err)
		}
		if err := a.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close: %v, want net.ErrClosed", err)
		}
		if _, err := b.Write([]byte("x")); err != nil {
			t.Errorf("first Write to a closed peer: %v, want none", err)
		}
		time.Sleep(time.Second)
		if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("later Write to a closed peer: %v, want ECONNRESET", err)
		}
	})
}

func TestCloseEndsWhoWaits(t *testing.T) {
	bubble(t, Options{Window: 1}, func(t *testing.T, n *Network) {
		a, b := connected(t, n)
		errs := make(chan error, 4)
		for range 2 {
			go func() { _, err := a.Read(make([]byte, 1)); errs <- err }()
			go func() { _, err := a.Write(make([]byte, 9)); errs <- err }()
		}
		time.Sleep(time.Second)
		_ = a.Close()
		for range 4 {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Errorf("error %v, want net.ErrClosed", err)
			}
		}
		_ = b.Close()
	})
}
