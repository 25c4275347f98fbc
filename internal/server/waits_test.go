package server

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// ask sends a request on a new connection, and returns its answer.
func ask(t testing.TB, r *running, path, body string) <-chan string {
	t.Helper()
	conn, err := net.Dial("tcp", r.http)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body); err != nil {
		t.Fatal(err)
	}
	answer := make(chan string, 1)
	go func() {
		all, _ := io.ReadAll(conn)
		answer <- string(all)
	}()
	return answer
}

// Each wait over HTTP holds a connection. A client that frees what the others wait for can
// still connect.
func TestWaitsLeaveConnectionsForWhatFrees(t *testing.T) {
	r := serve(t, Config{Limits: Limits{ConnectionsPerIP: 8}})
	held := receiveWithin(t, "the grant", ask(t, r, "/v1/acquire", `{"name":"a"}`))
	if !strings.Contains(held, `"token":1`) {
		t.Fatalf("acquire: %s", held)
	}
	var waiting []<-chan string
	for i := range 6 {
		waiting = append(waiting, ask(t, r, "/v1/acquire", `{"name":"a","wait":"1m"}`))
		r.node.await(t, "the waiter", func() bool { return len(r.node.queues["a"]) == i+1 })
	}
	refused := receiveWithin(t, "the refusal", ask(t, r, "/v1/acquire", `{"name":"a","wait":"1m"}`))
	if !strings.Contains(refused, "overloaded") || !strings.Contains(refused, "acquires wait on 6 connections from 127.0.0.1") {
		t.Errorf("a wait on the seventh of eight connections: %s; want overloaded and why", refused)
	}
	if got := receiveWithin(t, "the other grant", ask(t, r, "/v1/acquire", `{"name":"b"}`)); !strings.Contains(got, `"token"`) {
		t.Errorf("an acquire that does not wait: %s, want a grant", got)
	}
	if got := receiveWithin(t, "the release", ask(t, r, "/v1/release", `{"name":"a","token":1}`)); !strings.Contains(got, "200 OK") {
		t.Errorf("release: %s", got)
	}
	if got := receiveWithin(t, "the grant of a waiter", waiting[0]); !strings.Contains(got, `"token"`) {
		t.Errorf("the first that waited got %s", got)
	}
	ask(t, r, "/v1/acquire", `{"name":"a","wait":"1m"}`)
	r.node.await(t, "the waiter on the connection that is free again", func() bool { return len(r.node.queues["a"]) == 6 })
}

// The same for Session streams, each on a connection of its own.
func TestWaitsOfStreamsLeaveConnectionsForWhatFrees(t *testing.T) {
	r := serve(t, Config{Limits: Limits{Connections: 4}})
	first := openStream(t, r)
	sendOps(t, first, acquireOp(1, "a", 0))
	token := receiveAnswers(t, first, 1)[0].GetAcquire().GetToken()
	sendOps(t, first, acquireOp(2, "a", -1), acquireOp(3, "a", -1), acquireOp(4, "a", -1))
	for range 2 {
		sendOps(t, openStream(t, r), acquireOp(1, "a", -1))
	}
	r.node.await(t, "the waiters", func() bool { return len(r.node.queues["a"]) == 5 })
	last := openStream(t, r)
	sendOps(t, last, acquireOp(1, "a", -1))
	if a := receiveAnswers(t, last, 1)[0]; apiv1.Code(a.GetError().GetCode()) != apiv1.CodeOverloaded {
		t.Errorf("a wait on the last of four connections: %v, want overloaded", a)
	}
	sendOps(t, last, releaseOp(2, "a", token))
	if a := receiveAnswers(t, last, 1)[0]; a.GetRelease() == nil {
		t.Errorf("a release on the last of four connections: %v", a)
	}
}

// HTTP/2 bounds the calls that are under way on a connection.
func TestWaitsLeavePlacesOfAConnectionForWhatFrees(t *testing.T) {
	r := serve(t, Config{Limits: Limits{StreamsPerConnection: 4}})
	client := r.client(t)
	held, err := client.Acquire(t.Context(), acquireOf("a", 0))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 10)
	wait := func() {
		_, err := client.Acquire(t.Context(), acquireOf("a", int64(time.Minute)))
		ended <- err
	}
	go wait()
	go wait()
	go func() {
		_, err := client.Batch(t.Context(), &apiv1.BatchRequest{Operations: []*apiv1.Operation{getOp(1, "a"), acquireOp(2, "a", int64(time.Minute))}})
		ended <- err
	}()
	r.node.await(t, "three waiters", func() bool { return len(r.node.queues["a"]) == 3 })
	go wait()
	if err := receiveWithin(t, "the refusal", ended); apiv1.CodeOf(err) != apiv1.CodeOverloaded {
		t.Errorf("a fourth wait on a connection that may have four calls: %v, want overloaded", err)
	}
	if _, err := client.Release(t.Context(), &apiv1.ReleaseRequest{Name: "a", Token: held.GetToken()}); err != nil {
		t.Errorf("release beside the waits: %v", err)
	}
	if err := receiveWithin(t, "the grant of a waiter", ended); err != nil {
		t.Errorf("the first that waited: %v", err)
	}
	go wait()
	r.node.await(t, "the waiter on the connection that is free again", func() bool { return len(r.node.queues["a"]) == 3 })
}

func TestConnectionsAreFewerThanFilesMayBeOpen(t *testing.T) {
	for files, want := range map[int]int{1 << 40: 10_000, 20_000: 10_000, 19_999: 9_999, 768: 384, 100: 50, 1: 8} {
		l := Limits{}.withDefaults()
		capped := l.fit(files)
		if l.Connections != want || capped != (want != 10_000) || l.ConnectionsPerIP > l.Connections {
			t.Errorf("with %d files: %d connections, %d from one address, capped %v; want %d", files, l.Connections, l.ConnectionsPerIP, capped, want)
		}
	}
	var log bytes.Buffer
	if _, err := New(Config{Backend: newFakeNode(), Logger: slog.New(slog.NewTextHandler(&log, nil)), Files: 768}); err != nil {
		t.Fatal(err)
	}
	if strings.Count(log.String(), "may open no more files") != 1 {
		t.Errorf("logged %q, want one line about it", log.String())
	}
}
