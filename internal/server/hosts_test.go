package server

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// sendRaw sends one request as it is and returns the status and the body of the answer.
func sendRaw(t *testing.T, r *running, request string) (int, string) {
	t.Helper()
	conn, err := net.Dial("tcp", r.http)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprint(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	defer func() { _ = resp.Body.Close() }()
	var body strings.Builder
	_ = resp.Write(&body)
	return resp.StatusCode, body.String()
}

// To the browser, a page of evil.example that resolves its own name to a node has the same
// origin as the node: Origin, Host and Sec-Fetch-Site are all as they should be.
func TestReboundPageDoesNotReachTheLocks(t *testing.T) {
	node := newFakeNode()
	r := serve(t, Config{Backend: node, Hosts: []string{"Locks.example.org", "*.svc.example.", "good"}})
	const body = `{"name":"orders/42"}`
	post := func(target, host string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nOrigin: http://%s\r\nSec-Fetch-Site: same-origin\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s",
			target, host, host, len(body), body)
	}
	for _, request := range []string{
		post("/v1/acquire", "evil.example"), post("/v1/acquire", "evil.example:7401"), post("/v1/force-release", "evil.example."),
		post("http://evil.example/v1/acquire", "127.0.0.1"), // an absolute URL, as to a proxy
		"GET /v1/locks HTTP/1.1\r\nHost: evil.example\r\n\r\n",
		"GET /v1/locks/orders/42 HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n",
		"GET /v1/members HTTP/1.0\r\nHost: evil.example\r\n\r\n",
		"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
		"GET /healthz/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
	} {
		status, answer := sendRaw(t, r, request)
		if status != http.StatusMisdirectedRequest || !strings.Contains(answer, "http_hosts") || !strings.Contains(answer, "evil.example") {
			t.Errorf("%q: got %d %s, want 421 with the host and the setting", request, status, answer)
		}
	}
	if len(node.started) != 0 {
		t.Errorf("%d operations were started", len(node.started))
	}
	if status, answer := sendRaw(t, r, "GET /v1/status HTTP/1.1\r\nHost: evil.example\r\n\r\n"); status != 421 || !strings.Contains(answer, `"code":"denied"`) {
		t.Errorf("got %d %s", status, answer)
	}
	for _, request := range []string{
		"GET /healthz HTTP/1.1\r\nHost: node-1.of.the.balancer\r\n\r\n", // a health check by name
		"GET /v1/status HTTP/1.0\r\n\r\n",                               // not from a browser
		"GET /v1/status HTTP/1.1\r\nHost: LOCKS.example.org.:80\r\n\r\n",
		"GET http://good/v1/status HTTP/1.1\r\nHost: evil.example\r\n\r\n", // the URL counts
	} {
		if status, answer := sendRaw(t, r, request); status != http.StatusOK {
			t.Errorf("%q: got %d %s", request, status, answer)
		}
	}
}

func TestHostsThatAreAnsweredTo(t *testing.T) {
	s := &Server{}
	s.SetHosts([]string{"Locks.Example.org.", "*.svc.example", "node_1"})
	for host, want := range map[string]bool{
		"": true, "127.0.0.1": true, "127.0.0.1:7401": true, "10.0.0.7:": true, "[::1]": true, "[::1]:7401": true, "::1": true,
		"[fe80::1%25eth0]:7401": true, "[fe80::1%eth0]": true, "[::ffff:10.0.0.1]:80": true,
		"localhost": true, "LocalHost:7401": true, "localhost.": true, "a.localhost:1": true,
		"locks.example.org": true, "LOCKS.EXAMPLE.ORG.:7401": true, "a.svc.example": true, "a.b.SVC.example:1": true, "node_1:7401": true,

		"evil.example": false, "localhost.evil.example": false, "127.0.0.1.evil.example": false, "evillocalhost": false,
		"svc.example": false, ".svc.example": false, "xsvc.example": false, "a.locks.example.org": false, "locks.example.org.evil": false,
		"[evil.example]": false, "[127.0.0.1]": false, "[::1": false, "[::1]evil.example": false, "[::1].evil.example:80": false, "evil.example:80:80": false,
		"127.0.0.1@evil.example": false, "evil.example:x": false, "127.0.0.1:80x": false, "0x7f.1": false, "127.1": false, "locks.example.org..": false,
	} {
		if got := s.answersTo(host); got != want {
			t.Errorf("host %q is answered to: %v, want %v", host, got, want)
		}
	}
	s.SetHosts(nil)
	if s.answersTo("node_1") {
		t.Error("a name that was removed is still answered to")
	}
}

// HTTP/2 sends the Host as :authority.
func TestAuthorityIsTheHost(t *testing.T) {
	r := serve(t, Config{Backend: newFakeNode()})
	s := httptest.NewUnstartedServer(r.handler())
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	transport := &http.Transport{Protocols: s.Config.Protocols}
	defer transport.CloseIdleConnections()
	for host, want := range map[string]int{"evil.example": http.StatusMisdirectedRequest, "127.0.0.1:1": http.StatusOK} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/v1/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.ProtoMajor != 2 || resp.StatusCode != want {
			t.Errorf("authority %q: got %s %d, want %d", host, resp.Proto, resp.StatusCode, want)
		}
	}
}
