package server

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/mux"
	"github.com/locknode/locknode/internal/proof/fuzz"
)

// taker is a Backend that accepts every operation, keeps the last one and answers it at
// once with a result of its kind.
type taker struct {
	*fakeNode
	started *apiv1.Operation
}

func newTaker() *taker {
	k := &taker{fakeNode: newFakeNode()}
	k.on = func(c *mux.Call) bool {
		k.started = c.Op
		c.Done(answerTo(c.Op))
		return true
	}
	return k
}

// answerTo has every field of an answer set.
func answerTo(op *apiv1.Operation) *apiv1.Answer {
	holder := []*apiv1.Holder{{Lock: "a", Token: 3, Holder: "h", Session: []byte{1}, Mode: apiv1.Mode_MODE_PERMITS, Value: []byte("\xff"), RemainingNs: 1}}
	lock := &apiv1.Lock{Name: op.GetGet().GetName(), Holders: holder, HolderCount: 1, DelayLeftNs: 5}
	a := &apiv1.Answer{Stamp: 5}
	switch op.GetRequest().(type) {
	case *apiv1.Operation_Acquire:
		a.Result = &apiv1.Answer_Acquire{Acquire: &apiv1.AcquireResponse{Token: 1, Deadline: 9, Granted: 5}}
	case *apiv1.Operation_Renew:
		a.Result = &apiv1.Answer_Renew{Renew: &apiv1.RenewResponse{Deadline: 9}}
	case *apiv1.Operation_Release:
		a.Result = &apiv1.Answer_Release{Release: &apiv1.ReleaseResponse{}}
	case *apiv1.Operation_Resize:
		a.Result = &apiv1.Answer_Resize{Resize: &apiv1.ResizeResponse{}}
	case *apiv1.Operation_ForceRelease:
		a.Result = &apiv1.Answer_ForceRelease{ForceRelease: &apiv1.ForceReleaseResponse{Released: holder}}
	case *apiv1.Operation_Get:
		a.Result = &apiv1.Answer_Get{Get: &apiv1.GetResponse{Lock: lock, AgeNs: 7}}
	case *apiv1.Operation_List:
		a.Result = &apiv1.Answer_List{List: &apiv1.ListResponse{Locks: []*apiv1.Lock{lock}, Next: "b"}}
	}
	return a
}

// loose is what a tolerant reader finds in a body.
type loose struct {
	Name, TTL, Wait, Holder, Value, Reason, To, ID string
	RequestID                                      string `json:"request_id"`
	Token                                          uint64
	Limit                                          uint32
}

// bodyPaths are the paths that take a body, each with a check that the operation that was
// started is the one in the body.
var bodyPaths = []struct {
	path string
	same func(op *apiv1.Operation, b loose) bool
}{
	{"/v1/acquire", func(op *apiv1.Operation, b loose) bool {
		a := op.GetAcquire()
		return a.GetLocks()[0].GetName() == b.Name && a.GetHolder() == b.Holder && string(a.GetValue()) == b.Value &&
			a.GetTtlNs() == nanos(b.TTL, defaultTTL) && a.GetTtlNs() > 0 && a.GetWaitNs() == nanos(b.Wait, 0) && a.GetWaitNs() >= 0 &&
			len(a.GetId().GetOnce()) == 16*min(1, len(b.RequestID)) && len(a.GetId().GetSession()) == 0
	}},
	{"/v1/renew", func(op *apiv1.Operation, b loose) bool {
		r := op.GetRenew()
		return r.GetName() == b.Name && r.GetToken() == b.Token && r.GetTtlNs() == nanos(b.TTL, defaultTTL) && r.GetTtlNs() > 0
	}},
	{"/v1/release", func(op *apiv1.Operation, b loose) bool {
		return op.GetRelease().GetName() == b.Name && op.GetRelease().GetToken() == b.Token
	}},
	{"/v1/force-release", func(op *apiv1.Operation, b loose) bool {
		r := op.GetForceRelease()
		return r.GetName() == b.Name && r.GetToken() == b.Token && r.GetReason() == b.Reason && r.GetWho() == ""
	}},
	{"/v1/resize", func(op *apiv1.Operation, b loose) bool {
		return op.GetResize().GetName() == b.Name && op.GetResize().GetLimit() == b.Limit && b.Limit > 0
	}},
	{"/v1/transfer-leadership", nil},
	{"/v1/members/remove", nil},
}

func nanos(text string, otherwise time.Duration) int64 {
	if text == "" {
		return int64(otherwise)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return -1
	}
	return int64(d)
}

// FuzzHTTPBody posts any body to any path that takes one. The operation that is started is
// what a tolerant reader finds in the body; a refused request starts none; and the answer
// is JSON either way.
func FuzzHTTPBody(f *testing.F) {
	seeds := []string{
		`{"name":"a","ttl":"30s","wait":"0s","holder":"h","value":"v","request_id":"r"}`, `{"name":"a","token":18446744073709551615,"ttl":"1ns"}`,
		`{"name":"a","token":1}`, `{"name":"a","token":1,"reason":"why"}`, `{"name":"a","limit":3}`, `{"name":"a","limit":0}`, `{"name":"a","limit":4294967296}`, `{"to":"n2"}`, `{"id":"n2"}`, `{}`, `{"name":null}`,
		`{"name":"a","name":"b"}`, `{"name":"\ud800"}`, `{"name":"\ufffd"}`, `{"Name":"a"}`, `{"name":"a"} x`, `[[[[`, `{"ttl":1e999}`,
		`{"name":"a","ttl":"-9223372036854775808ns"}`, "\xff", `{"name":{"a":[1,{}]}}`, `{"name":"a","token":1.5}`, `{"name":"a","token":-1}`, "",
	}
	for i := range bodyPaths {
		for _, seed := range seeds {
			f.Add(byte(i), []byte(seed))
		}
	}
	node := newTaker()
	s, err := New(Config{Backend: node})
	if err != nil {
		f.Fatal(err)
	}
	handler := s.handler()
	f.Fuzz(func(t *testing.T, path byte, body []byte) {
		p := bodyPaths[int(path)%len(bodyPaths)]
		node.started = nil
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "http://127.0.0.1"+p.path, bytes.NewReader(body)))
		checkJSON(t, w.Result())
		switch w.Code {
		case http.StatusOK:
			var b loose
			if err := json.Unmarshal(body, &b); err != nil {
				t.Fatalf("%q was accepted, and is not JSON: %v", body, err)
			}
			if p.same != nil && !p.same(node.started, b) {
				t.Fatalf("%s %q: started %v", p.path, body, node.started)
			}
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
			if node.started != nil {
				t.Fatalf("%s %q: refused and started", p.path, body)
			}
		default:
			t.Fatalf("%s %q: status %d", p.path, body, w.Code)
		}
	})
}

// checkJSON checks that an answer is one JSON value, and that an error has a code and a
// message.
func checkJSON(t *testing.T, resp *http.Response) {
	t.Helper()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Error *struct{ Code, Message string }
	}
	if err := json.Unmarshal(data, &answer); err != nil || !utf8.Valid(data) {
		t.Fatalf("status %d: %q is not JSON: %v", resp.StatusCode, data, err)
	}
	if resp.StatusCode >= 400 && (answer.Error == nil || answer.Error.Code == "" || answer.Error.Message == "") {
		t.Fatalf("status %d: error %q has no code or message", resp.StatusCode, data)
	}
}

// FuzzHTTPTarget requests any path and query. What is read is the lock or page that a
// tolerant reader finds in them.
func FuzzHTTPTarget(f *testing.F) {
	for _, target := range []string{
		"/", "/v1/locks/a", "/v1/locks/a%2Fb//..?stale=5s", "/v1/locks/%ff", "/v1/locks/", "/v1/locks?prefix=a&limit=3&page=b&stale=1ns", "/v1/locks?limit=0",
		"/v1/locks?limit=65537", "/v1/locks?stale=-1s", "/v1/locks?%zz", "/v1/locks?prefix=%ff", "/v1/status", "/v1/members", "/healthz", "/readyz", "/metrics",
		"/v1/acquire", "//v1/locks/a", "/v1/locks/a?stale=1s&stale=2s", "/v1/locks/%00%2e?;",
	} {
		f.Add(byte(0), target)
	}
	f.Add(byte(1), "/v1/locks/a")
	f.Add(byte(2), "/v1/locks")
	f.Add(byte(3), "/v1/status")
	methods := []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete, "BREW"}
	node := newTaker()
	s, err := New(Config{Backend: node})
	if err != nil {
		f.Fatal(err)
	}
	handler := s.handler()
	f.Fuzz(func(t *testing.T, method byte, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" {
			return // net/http answers that itself; see FuzzHTTPConnection
		}
		node.started = nil
		w := httptest.NewRecorder()
		r := &http.Request{
			Method: methods[int(method)%len(methods)], URL: u, Host: "127.0.0.1", Header: http.Header{}, Body: http.NoBody,
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: "10.0.0.9:1",
		}
		handler.ServeHTTP(w, r)
		resp := w.Result()
		if ct := resp.Header.Get("Content-Type"); strings.HasPrefix(ct, "application/json") && r.Method != http.MethodHead {
			checkJSON(t, resp)
		}
		if w.Code >= 500 && u.Path != "/readyz" {
			t.Fatalf("%s %q: status %d", r.Method, target, w.Code)
		}
		if node.started != nil && w.Code != http.StatusOK {
			t.Fatalf("%s %q: status %d, and started %v", r.Method, target, w.Code, node.started)
		}
		if get := node.started.GetGet(); get != nil && (locksPrefix+get.GetName() != u.Path || get.GetMaxStaleNs() < 0) {
			t.Fatalf("%s %q: read %v", r.Method, target, get)
		}
		if list := node.started.GetList(); list != nil {
			q := u.Query()
			if list.GetPrefix() != q.Get("prefix") || list.GetAfter() != q.Get("page") || list.GetLimit() > 1000 || list.GetMaxStaleNs() < 0 {
				t.Fatalf("%s %q: listed %v", r.Method, target, list)
			}
		}
	})
}

// handed is a net.Listener whose connections come from the test.
type handed struct {
	in   chan net.Conn
	done chan struct{}
	once sync.Once
}

func newHanded() *handed { return &handed{in: make(chan net.Conn), done: make(chan struct{})} }

func (l *handed) Accept() (net.Conn, error) {
	select {
	case c := <-l.in:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *handed) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (*handed) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7401} }

// talk sends bytes on a new connection and returns the answers until the server closes it.
func (l *handed) talk(data []byte) []byte {
	ours, theirs := fuzz.Pipe()
	l.in <- theirs
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = ours.Write(data)
		_ = ours.CloseWrite()
	})
	answers, _ := io.ReadAll(ours)
	_ = ours.Close()
	wg.Wait()
	return answers
}

// FuzzHTTPConnection sends any bytes to the HTTP port. All answers are HTTP, the memory that
// is allocated is bounded by a multiple of what was sent, and the next caller is served.
func FuzzHTTPConnection(f *testing.F) {
	post := func(path, body string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
	}
	f.Add([]byte(post("/v1/acquire", `{"name":"a"}`) + post("/v1/release", `{"name":"a","token":1}`)))
	f.Add([]byte("GET /v1/locks/a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /v1/locks HTTP/1.0\r\n\r\n"))
	f.Add([]byte("POST /v1/renew HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n1a\r\n{\"name\":\"a\",\"token\":1,\"ttl\r\n0\r\n\r\n"))
	f.Add([]byte("POST /v1/acquire HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n\r\n{"))
	f.Add([]byte("POST /v1/acquire HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: 12\r\n\r\n{\"name\":\"a\"}"))
	f.Add([]byte("POST /v1/acquire HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	f.Add([]byte("\x16\x03\x01\x00"))
	s, err := New(Config{Backend: newTaker(), Limits: Limits{BodyTime: time.Hour}})
	if err != nil {
		f.Fatal(err)
	}
	l := newHanded()
	served := make(chan error, 1)
	go func() { served <- s.ServeHTTP(l) }()
	f.Cleanup(func() {
		if err := errors.Join(s.Close(f.Context()), <-served); err != nil {
			f.Errorf("end of the server: %v", err)
		}
	})
	good := []byte("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
	f.Fuzz(func(t *testing.T, data []byte) {
		defer fuzz.Watch()()
		var answers []byte
		if n := fuzz.Allocated(func() { answers = l.talk(data) }); n > 1<<20+1000*uint64(len(data)) {
			t.Errorf("%d bytes were allocated for a request of %d", n, len(data))
		}
		checkHTTP(t, data, answers)
		if got := l.talk(good); !bytes.HasPrefix(got, []byte("HTTP/1.1 200 OK\r\n")) {
			t.Fatalf("the next caller was answered %q", got)
		}
	})
}

// checkHTTP checks that answers is a sequence of HTTP answers.
func checkHTTP(t *testing.T, data, answers []byte) {
	t.Helper()
	in := bufio.NewReader(bytes.NewReader(answers))
	for {
		if _, err := in.Peek(1); err != nil {
			return
		}
		resp, err := http.ReadResponse(in, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		if bytes.Contains(data, []byte("HEAD")) {
			return // what it answers says how long another answer would have been
		}
		if err != nil {
			t.Fatalf("%q was answered with %q: %v", data, answers, err)
		}
		switch resp.StatusCode {
		case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		case http.StatusServiceUnavailable: // the caller has closed: it may have been given up
		default:
			if resp.StatusCode >= 500 {
				t.Fatalf("%q: status %d", data, resp.StatusCode)
			}
		}
	}
}
