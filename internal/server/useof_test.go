package server

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	apiv1 "github.com/locknode/locknode/api/v1"
)

func dialTo(t testing.TB, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ended reports whether the server has closed the connection.
func ended(t testing.TB, conn net.Conn) bool {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, conn)
	var timeout net.Error
	return err == nil || !errors.As(err, &timeout) || !timeout.Timeout()
}

func TestConnectionsThatSayNothingShutNobodyOut(t *testing.T) {
	for name, limits := range map[string]Limits{
		"address": {ConnectionsPerIP: 8, Connections: 100}, "all": {ConnectionsPerIP: 8, Connections: 8},
	} {
		t.Run(name, func(t *testing.T) {
			seen := &counts{Observer: nobody{}}
			r := serve(t, Config{Observer: seen, Limits: limits})
			stream := openStream(t, r) // is in use, and the oldest
			sendOps(t, stream, acquireOp(1, "a", 0))
			receiveAnswers(t, stream, 1)
			var idle []net.Conn
			for range 40 {
				idle = append(idle, dialTo(t, r.grpc))
			}
			r.node.await(t, "the refusals", func() bool { return seen.refused.Load() == 33 })
			if _, err := r.client(t).Release(t.Context(), &apiv1.ReleaseRequest{Name: "a", Token: 1}); err != nil {
				t.Errorf("a new connection beside 40 silent ones: %v", err)
			}
			if !ended(t, idle[0]) {
				t.Error("the first silent connection is still open")
			}
			sendOps(t, stream, getOp(2, "a"))
			receiveAnswers(t, stream, 1)
		})
	}
}

// A connection whose stream has had an operation is not closed to make room, however long
// ago that was: it may hold locks, or wait for one.
func TestConnectionsOfUseMakeNoRoom(t *testing.T) {
	seen := &counts{Observer: nobody{}}
	r := serve(t, Config{Observer: seen, Limits: Limits{ConnectionsPerIP: 3, Connections: 3}})
	var streams []apiv1.Locks_SessionClient
	for i := range 3 {
		streams = append(streams, openStreamOn(t, r.dial(t)))
		sendOps(t, streams[i], acquireOp(1, fmt.Sprint(i), 0))
		receiveAnswers(t, streams[i], 1)
	}
	for i, later := range []time.Duration{0, time.Hour} {
		l := budgetOf(r, "grpc")
		l.mu.Lock()
		for c := range l.conns {
			c.since = c.since.Add(-later)
		}
		l.mu.Unlock()
		newcomer := dialTo(t, r.grpc)
		r.node.await(t, "one is refused", func() bool { return seen.refused.Load() == int64(i+1) })
		for _, stream := range streams {
			sendOps(t, stream, getOp(uint64(i+2), "a"))
			receiveAnswers(t, stream, 1)
		}
		if !ended(t, newcomer) {
			t.Error("the new connection is still open")
		}
	}
}

// Of the connections that are of no use now, the least useful one is closed to make room,
// each kind after a time of its own, and one with an operation under way never is.
func TestWhoIsOfTheLeastUseMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(nil, "grpc", Config{
			Observer: nobody{}, Logger: slog.New(slog.DiscardHandler), Admit: func(net.Conn) error { return nil },
			Limits: Limits{Connections: 4, ConnectionsPerIP: 4, UselessTime: 24 * time.Hour},
		})
		enter := func() (c, displaced *limitedConn, ok bool) {
			c = &limitedConn{listener: l, ip: "10.0.0.1"}
			ok, displaced = l.admit(c)
			return c, displaced, ok
		}
		var conns [4]*limitedConn
		for i := range conns {
			conns[i], _, _ = enter()
		}
		idle, rests, isSilent, works := conns[0], conns[1], conns[2], conns[3]
		works.begin()
		works.work()
		isSilent.begin()
		rests.begin()
		rests.work()
		rests.end()
		for _, step := range []struct {
			after time.Duration
			want  *limitedConn // nil: the new one is refused
		}{
			{0, idle}, {time.Second - 1, nil}, {1, rests}, {4*time.Second - 1, nil}, {1, isSilent}, {time.Hour, nil},
		} {
			time.Sleep(step.after)
			c, displaced, ok := enter()
			if displaced != step.want || ok != (step.want != nil) {
				t.Errorf("%v later: accepted: %v, and another one closed for it: %v", step.after, ok, displaced != nil)
			}
			if ok {
				c.begin()
				c.work()
			}
		}
	})
}

func TestConnectionThatSaysNothingIsClosed(t *testing.T) {
	r := serve(t, Config{Limits: Limits{UselessTime: 50 * time.Millisecond}})
	c := dialRaw(t, r) // has done its handshake, and requests nothing
	stream := openStream(t, r)
	r.node.await(t, "one connection", func() bool {
		l := budgetOf(r, "grpc")
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.conns) == 1
	})
	if err := c.WritePing(false, [8]byte{}); err == nil {
		err = c.WritePing(false, [8]byte{})
		_ = err // the system may accept it all the same
	}
	sendOps(t, stream, getOp(1, "a"))
	receiveAnswers(t, stream, 1)
}

func TestAllWatchersOfHealthAreOneToTheNode(t *testing.T) {
	r := serve(t, Config{})
	hc := grpc_health_v1.NewHealthClient(r.dial(t))
	for range 50 {
		w, err := hc.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	r.receivers.mu.Lock()
	defer r.receivers.mu.Unlock()
	if r.receivers.n != 1 {
		t.Errorf("%d goroutines check health for 50 watchers, want one", r.receivers.n)
	}
}
