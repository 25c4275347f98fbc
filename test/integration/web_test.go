//go:build unix

package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// webAnswer is an answer of the HTTP API.
type webAnswer struct {
	status int
	body   []byte
}

// web is a client of one HTTP address.
type web struct {
	base   string
	client *http.Client
}

// browse returns a client of the HTTP API at an address; it ends with the test.
func browse(t *testing.T, address string) *web {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &web{base: "http://" + address, client: &http.Client{Transport: transport}}
}

// try sends a request; a body that is nil makes it a GET.
func (w *web) try(ctx context.Context, path string, body any) (webAnswer, error) {
	method, content := http.MethodGet, []byte(nil)
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return webAnswer{}, err
		}
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, w.base+path, bytes.NewReader(content))
	if err != nil {
		return webAnswer{}, err
	}
	res, err := w.client.Do(req)
	if err != nil {
		return webAnswer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return webAnswer{res.StatusCode, b}, err
}

func (w *web) do(t *testing.T, path string, body any) webAnswer {
	t.Helper()
	a, err := w.try(within(t, patience), path, body)
	if err != nil {
		t.Fatalf("%s%s: %v", w.base, path, err)
	}
	return a
}

// object is a JSON object to be sent.
type object map[string]any

// rawConn is a connection for HTTP without a library, so that a test knows when a request has
// been sent.
type rawConn struct{ net.Conn }

func connect(t *testing.T, address string) rawConn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return rawConn{conn}
}

// send returns when the other side's system has the request, even if the process is paused.
func (c rawConn) send(t *testing.T, method, path, body string) {
	t.Helper()
	_, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		method, path, len(body), body)
	must(t, err)
}

func (c rawConn) answer(t *testing.T) webAnswer {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(patience)))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	must(t, err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	must(t, err)
	return webAnswer{res.StatusCode, b}
}

// answered reads an answer that must have this status.
func answered[T any](t *testing.T, a webAnswer, status int) (v T) {
	t.Helper()
	if a.status != status {
		t.Fatalf("got HTTP status %d, want %d: %s", a.status, status, a.body)
	}
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("HTTP body %q: %v", a.body, err)
	}
	return v
}
