package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/document"
	"github.com/locknode/locknode/internal/mux"
)

func send(t testing.TB, r *running, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.http+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
		return &http.Response{}, ""
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s %s: body: %v", method, path, err)
	}
	return resp, strings.TrimSuffix(string(got), "\n")
}

func post(t testing.TB, r *running, path, body string) (int, string) {
	t.Helper()
	resp, got := send(t, r, http.MethodPost, path, body)
	return resp.StatusCode, got
}

func get(t testing.TB, r *running, path string) (int, string) {
	t.Helper()
	resp, got := send(t, r, http.MethodGet, path, "")
	return resp.StatusCode, got
}

func postAborted(ctx context.Context, r *running, path, body string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.http+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err == nil {
		_ = resp.Body.Close()
	}
	return err
}

func TestStoryOverHTTP(t *testing.T) {
	r := serve(t, Config{})
	for _, step := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/v1/acquire", `{"name":"orders/42","ttl":"45s","holder":"alice","value":"v"}`, 200, `{"name":"orders/42","token":1,"expires_in":"45s","expires_in_ms":45000,"waited":"0s","waited_ms":0}`},
		{"POST", "/v1/acquire", `{"name":"orders/42"}`, 409,
			`{"error":{"code":"busy","message":"lock \"orders/42\": held","holders":[{"lock":"orders/42","token":1,"holder":"alice","mode":"exclusive","remaining":"45s","remaining_ms":45000,"since":"2023-11-14T22:13:20.123Z","value":"v"}]}}`},
		{"GET", "/v1/locks/orders/42", "", 200,
			`{"name":"orders/42","held":true,"holders":[{"token":1,"holder":"alice","mode":"exclusive","remaining":"45s","remaining_ms":45000,"since":"2023-11-14T22:13:20.123Z","value":"v"}],"holder_count":1,"waiters":0}`},
		{"POST", "/v1/renew", `{"name":"orders/42","token":1,"ttl":"1m"}`, 200, `{"name":"orders/42","token":1,"expires_in":"1m0s","expires_in_ms":60000}`},
		{"POST", "/v1/renew", `{"name":"orders/42","token":1}`, 200, `{"name":"orders/42","token":1,"expires_in":"30s","expires_in_ms":30000}`},
		{"POST", "/v1/release", `{"name":"orders/42","token":2}`, 404, `{"error":{"code":"not_held","message":"lock \"orders/42\": not held with this token"}}`},
		{"POST", "/v1/release", `{"name":"orders/42","token":1}`, 200, `{"name":"orders/42","token":1}`},
		{"GET", "/v1/locks/orders/42?stale=5s", "", 200, `{"name":"orders/42","held":false,"holders":[],"holder_count":0,"waiters":0,"age":"2.5s","age_ms":2500}`},
		{"POST", "/v1/acquire", `{"name":"b", "wait":"0s", "ttl": "1500ms", "request_id": null}`, 200, `{"name":"b","token":2,"expires_in":"1.5s","expires_in_ms":1500,"waited":"0s","waited_ms":0}`},
		{"POST", "/v1/resize", `{"name":"b","limit":4294967295}`, 200, `{"name":"b","limit":4294967295}`},
		{"POST", "/v1/resize", `{"name":"c","limit":1}`, 404, `{"error":{"code":"not_held","message":"semaphore \"c\": is not in use"}}`},
		{"POST", "/v1/force-release", `{"name":"b","token":2,"reason":"stuck"}`, 200,
			`{"name":"b","released":[{"lock":"b","token":2,"holder":"","mode":"exclusive","remaining":"1.5s","remaining_ms":1500,"since":"2023-11-14T22:13:20.123Z"}]}`},
		{"GET", "/v1/members", "", 200,
			`{"members":[{"id":"n1","api_address":"","http_address":"","raft_address":"","gossip_address":"","role":"leader","health":"alive","version":"","zone":"","feature_level":0,"tls":""}]}`},
		{"POST", "/v1/transfer-leadership", `{"to":"n2"}`, 200, `{"leader_id":"n2"}`},
		{"POST", "/v1/members/remove", `{"id":"n3"}`, 200, `{"removed":"n3"}`},
		{"GET", "/healthz", "", 200, `{"alive":true}`},
		{"GET", "/readyz", "", 200, `{"ready":true}`},
	} {
		resp, got := send(t, r, step.method, step.path, step.body)
		if resp.StatusCode != step.status || got != step.want {
			t.Errorf("%s %s %s\n got %d %s\nwant %d %s", step.method, step.path, step.body, resp.StatusCode, got, step.status, step.want)
		}
		if ct := resp.Header.Get("Content-Type"); ct != "application/json" {
			t.Errorf("%s %s: content type %q", step.method, step.path, ct)
		}
	}
	for _, op := range r.node.started {
		if f := op.GetForceRelease(); f != nil && (f.GetReason() != "stuck" || op.GetOwner() != "127.0.0.1") {
			t.Errorf("force-release: reason %q, owner %q; want both as given", f.GetReason(), op.GetOwner())
		}
	}
}

func TestStatusOverHTTP(t *testing.T) {
	r := serve(t, Config{})
	code, body := get(t, r, "/v1/status")
	var got map[string]any
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != 200 {
		t.Fatalf("status %d, %v: %s", code, err, body)
	}
	for field, want := range map[string]any{"node_id": "n1", "ready": true, "digest": "fedcba9876543210", "cluster_time": "1m30s", "last_token": 0.0} {
		if got[field] != want {
			t.Errorf("%s = %v, want %v", field, got[field], want)
		}
	}
}

func TestWaitingAcquireOverHTTPIsPushed(t *testing.T) {
	r := serve(t, Config{})
	post(t, r, "/v1/acquire", `{"name":"a"}`)
	answer := make(chan string, 1)
	go func() { _, body := post(t, r, "/v1/acquire", `{"name":"a","wait":"1m"}`); answer <- body }()
	r.node.await(t, "the waiter", func() bool { return len(r.node.queues["a"]) == 1 })
	if _, body := get(t, r, "/v1/locks/a"); !strings.Contains(body, `"waiters":1`) {
		t.Errorf("lock: %s, want one waiter", body)
	}
	post(t, r, "/v1/release", `{"name":"a","token":1}`)
	if got, want := receiveWithin(t, "the grant", answer), `{"name":"a","token":2,"expires_in":"30s","expires_in_ms":30000,"waited":"0s","waited_ms":0}`; got != want {
		t.Errorf("grant %s, want %s", got, want)
	}
}

func TestRequestIDMakesTheSameRequest(t *testing.T) {
	r := serve(t, Config{})
	for _, id := range []string{"job 1", "job 1", "job 2", ""} {
		post(t, r, "/v1/acquire", fmt.Sprintf(`{"name":"a","request_id":%q}`, id))
	}
	var ids []string
	for _, op := range r.node.started {
		ids = append(ids, string(op.GetAcquire().GetId().GetOnce()))
	}
	if ids[0] != ids[1] || ids[0] == ids[2] || len(ids[0]) != 16 || ids[3] != "" {
		t.Errorf("once IDs %x, want the first two equal, another one, and none", ids)
	}
}

// TestErrorsNameTheFieldsOfJSON: the lock table has other names for them.
func TestErrorsNameTheFieldsOfJSON(t *testing.T) {
	node := newFakeNode()
	var message string
	node.on = func(c *mux.Call) bool {
		c.Done(errorAnswer(0, apiv1.NewError(apiv1.CodeNotHeld, "%s", message)))
		return true
	}
	r := serve(t, Config{Backend: node})
	for table, want := range map[string]string{
		"id: its grant, with token 7, has ended":   `request_id \"job 1\": its grant, with token 7, has ended`,
		"locks: must be as in the first request":   "name: must be as in the first request",
		"lock: must be UTF-8":                      "name: must be UTF-8",
		"ttl: must be as in the first request":     "ttl: must be as in the first request",
		"lock \"id: x\": held by id: y with token": `lock \"id: x\": held by id: y with token`,
	} {
		message = table
		if _, body := post(t, r, "/v1/acquire", `{"name":"a","request_id":"job 1"}`); !strings.Contains(body, `"message":"`+want+`"`) {
			t.Errorf("%q became %s, want %q", table, body, want)
		}
	}
}

// brokenWriter is a connection on which an answer cannot be sent.
type brokenWriter struct {
	*httptest.ResponseRecorder
	on error // of the flush; nil: the write fails
}

func (w brokenWriter) Write(b []byte) (int, error) {
	if w.on == nil {
		return 0, errors.New("broken pipe")
	}
	return len(b), nil
}

func (w brokenWriter) FlushError() error { return w.on }

// TestAGrantThatCouldNotBeSentIsGivenUp: the connection broke under the answer.
func TestAGrantThatCouldNotBeSentIsGivenUp(t *testing.T) {
	r := serve(t, Config{})
	for _, on := range []error{nil, errors.New("connection reset")} {
		req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/v1/acquire", strings.NewReader(`{"name":"a"}`))
		r.handler().ServeHTTP(brokenWriter{httptest.NewRecorder(), on}, req)
		r.node.await(t, "a free lock", func() bool { return r.node.tokens["a"] == 0 })
	}
	post(t, r, "/v1/acquire", `{"name":"a"}`)
	if _, body := get(t, r, "/v1/locks/a"); !strings.Contains(body, `"held":true`) {
		t.Errorf("lock: %s, want it held by the caller that got the answer", body)
	}
}

func TestRetriedAcquireTellsWhatIsLeft(t *testing.T) {
	node := newFakeNode()
	node.on = func(c *mux.Call) bool {
		c.Done(&apiv1.Answer{Stamp: int64(25 * time.Second), Result: &apiv1.Answer_Acquire{Acquire: &apiv1.AcquireResponse{
			Token: 1, Queued: int64(25 * time.Second), Granted: int64(5 * time.Second), Deadline: int64(35*time.Second + time.Microsecond),
		}}})
		return true
	}
	r := serve(t, Config{Backend: node})
	if _, body := post(t, r, "/v1/acquire", `{"name":"a","request_id":"x"}`); !strings.HasSuffix(body, `"expires_in":"10s","expires_in_ms":10000,"waited":"0s","waited_ms":0}`) {
		t.Errorf("answer %s, want the 10 s that are left", body)
	}
}

// TestAGrantAfterAWaitTellsWhatIsLeftThen: the TTL begins with the grant, not with
// the request.
func TestAGrantAfterAWaitTellsWhatIsLeftThen(t *testing.T) {
	node := newFakeNode()
	node.on = func(c *mux.Call) bool {
		c.Done(&apiv1.Answer{Stamp: int64(5 * time.Second), Result: &apiv1.Answer_Acquire{Acquire: &apiv1.AcquireResponse{
			Token: 1, Queued: int64(5 * time.Second), Granted: int64(25 * time.Second), Deadline: int64(55 * time.Second),
		}}})
		return true
	}
	r := serve(t, Config{Backend: node})
	if _, body := post(t, r, "/v1/acquire", `{"name":"a","wait":"1m"}`); !strings.HasSuffix(body, `"expires_in":"30s","expires_in_ms":30000,"waited":"20s","waited_ms":20000}`) {
		t.Errorf("answer %s, want 30 s that are left and 20 s of waiting", body)
	}
}

func TestNamesAreURLEscapedPaths(t *testing.T) {
	r := serve(t, Config{})
	for path, want := range map[string]string{
		"/v1/locks/orders/42":     "orders/42",
		"/v1/locks/a//b":          "a//b",
		"/v1/locks/../x":          "../x",
		"/v1/locks/a%2Fb%3Fc":     "a/b?c",
		"/v1/locks/%C3%A4%20%25":  "ä %",
		"/v1/locks/trailing/":     "trailing/",
		"/v1/locks/a+b;c=d&e":     "a+b;c=d&e",
		"/v1/locks/x?prefix=none": "x",
	} {
		status, body := get(t, r, path)
		var got struct{ Name string }
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || got.Name != want {
			t.Errorf("GET %s = %d %s, want lock %q", path, status, body, want)
		}
	}
	for _, path := range []string{"/v1/locks/%ff", "/v1/locks/"} {
		if status, body := get(t, r, path); status != 400 || !strings.Contains(body, "name") {
			t.Errorf("GET %s = %d %s, want 400 naming the field", path, status, body)
		}
	}
}

func TestPagesOverHTTP(t *testing.T) {
	r := serve(t, Config{})
	for i := range 5 {
		post(t, r, "/v1/acquire", fmt.Sprintf(`{"name":"p/%d"}`, i))
	}
	post(t, r, "/v1/acquire", `{"name":"q"}`)
	var names []string
	page := ""
	for range 10 {
		var got struct {
			Locks []struct{ Name string }
			Next  string
		}
		status, body := get(t, r, "/v1/locks?prefix=p/&limit=2&page="+page)
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 {
			t.Fatalf("page %q: %d %s", page, status, body)
		}
		for _, l := range got.Locks {
			names = append(names, l.Name)
		}
		if page = got.Next; page == "" {
			break
		}
	}
	if all := strings.Join(names, " "); all != "p/0 p/1 p/2 p/3 p/4" {
		t.Errorf("pages hold %s", all)
	}
	if _, body := get(t, r, "/v1/locks?prefix=none"); body != `{"locks":[]}` {
		t.Errorf("an empty page is %s", body)
	}
	for _, query := range []string{"limit=0", "limit=1001", "limit=x", "stale=5", "stale=-1s", "prefix=%ff", "page=%ff", "a=%zz"} {
		field, _, _ := strings.Cut(query, "=")
		if field == "a" {
			field = "query"
		}
		if status, body := get(t, r, "/v1/locks?"+query); status != 400 || !strings.Contains(body, field) {
			t.Errorf("?%s = %d %s, want 400 naming %s", query, status, body, field)
		}
	}
}

func TestUnknownFieldIsRefused(t *testing.T) {
	r := serve(t, Config{})
	for _, path := range []string{"/v1/acquire", "/v1/renew", "/v1/release", "/v1/force-release", "/v1/resize", "/v1/transfer-leadership", "/v1/members/remove"} {
		status, body := post(t, r, path, `{"lock_name":"a"}`)
		if status != 400 || !strings.Contains(body, `\"lock_name\"`) || !strings.Contains(body, `"invalid"`) {
			t.Errorf("POST %s = %d %s, want 400 naming the field", path, status, body)
		}
	}
	if len(r.node.started) != 0 {
		t.Errorf("%d operations were started", len(r.node.started))
	}
}

func TestBadBodyIsRefusedAndSaysWhy(t *testing.T) {
	r := serve(t, Config{})
	for _, c := range []struct{ path, body, code, word string }{
		{"/v1/acquire", ``, "malformed", "JSON object"},
		{"/v1/acquire", `[]`, "malformed", "JSON object"},
		{"/v1/acquire", `"a"`, "malformed", "JSON object"},
		{"/v1/acquire", `{"name":"a"`, "malformed", "body"},
		{"/v1/acquire", `{"name":"a"} {}`, "malformed", "goes on"},
		{"/v1/acquire", `{"name":"a"}}`, "malformed", "goes on"},
		{"/v1/acquire", `{name:"a"}`, "malformed", "body"},
		{"/v1/acquire", "{\"name\":\"\xff\"}", "malformed", "UTF-8"},
		{"/v1/acquire", `{"name":"\ud800"}`, "invalid", "name"},
		{"/v1/acquire", `{"name":"a","name":"b"}`, "invalid", "name: is given twice"},
		{"/v1/acquire", `{"Name":"a"}`, "invalid", "Name"},
		{"/v1/acquire", `{}`, "invalid", "name"},
		{"/v1/acquire", `{"name":""}`, "invalid", "name"},
		{"/v1/acquire", `{"name":7}`, "invalid", "name"},
		{"/v1/acquire", `{"name":["a"]}`, "invalid", "name"},
		{"/v1/acquire", `{"name":"a","ttl":30}`, "invalid", "ttl"},
		{"/v1/acquire", `{"name":"a","ttl":"30"}`, "invalid", "ttl"},
		{"/v1/acquire", `{"name":"a","ttl":"0s"}`, "invalid", "ttl"},
		{"/v1/acquire", `{"name":"a","ttl":"-1s"}`, "invalid", "ttl"},
		{"/v1/acquire", `{"name":"a","ttl":"9999999h"}`, "invalid", "ttl"},
		{"/v1/acquire", `{"name":"a","wait":"-1ns"}`, "invalid", "wait"},
		{"/v1/acquire", `{"name":"a","value":{}}`, "invalid", "value"},
		{"/v1/acquire", strings.Repeat(`{"name":`, 7000), "malformed", "body"},
		{"/v1/acquire", `{"name":` + strings.Repeat(`[`, 60000), "malformed", "body"},
		{"/v1/release", `{"name":"a"}`, "invalid", "token"},
		{"/v1/release", `{"token":1}`, "invalid", "name"},
		{"/v1/release", `{"name":"a","token":"1"}`, "invalid", "token"},
		{"/v1/release", `{"name":"a","token":1.5}`, "invalid", "token"},
		{"/v1/release", `{"name":"a","token":-1}`, "invalid", "token"},
		{"/v1/renew", `{"name":"a","token":1,"ttl":"0s"}`, "invalid", "ttl"},
		{"/v1/force-release", `{"reason":"x"}`, "invalid", "name"},
		{"/v1/resize", `{"limit":3}`, "invalid", "name: is missing"},
		{"/v1/resize", `{"name":"a"}`, "invalid", "limit: is missing"},
		{"/v1/resize", `{"name":"a","limit":0}`, "invalid", "limit: is 0, must be a whole number from 1 to 4294967295"},
		{"/v1/resize", `{"name":"a","limit":-1}`, "invalid", "limit: is -1, must be"},
		{"/v1/resize", `{"name":"a","limit":4294967296}`, "invalid", "limit: is 4294967296, must be"},
		{"/v1/resize", `{"name":"a","limit":"3"}`, "invalid", "limit: is"},
		{"/v1/resize", `{"name":"a","size":3}`, "invalid", "size"},
		{"/v1/members/remove", `{}`, "invalid", "id"},
	} {
		status, body := post(t, r, c.path, c.body)
		var got document.Failure
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 400 || got.Error.Code != c.code || !strings.Contains(got.Error.Message, c.word) {
			t.Errorf("POST %s %.60s = %d %s, want 400, %s and %q", c.path, c.body, status, body, c.code, c.word)
		}
	}
	if len(r.node.started) != 0 {
		t.Errorf("%d operations were started", len(r.node.started))
	}
}

func TestReplacementCharacterIsAnHonestName(t *testing.T) {
	var s string
	for _, raw := range []string{"\"\uFFFD\"", `"\ufffd"`, `"\uFFFD"`, `"\ud83d\ude00"`} {
		if err := text(&s)([]byte(raw)); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

func TestBodyOverLimitIs413(t *testing.T) {
	r := serve(t, Config{})
	fits := `{"name":"a","value":"` + strings.Repeat("x", 64<<10-23) + `"}`
	if status, body := post(t, r, "/v1/acquire", fits); status != 200 {
		t.Errorf("a body of %d bytes = %d %.100s, want 200", len(fits), status, body)
	}
	if status, body := post(t, r, "/v1/acquire", fits+" "); status != 413 || !strings.Contains(body, "too_large") {
		t.Errorf("a body of %d bytes = %d %.100s, want 413", len(fits)+1, status, body)
	}
}

func TestBodyThatTricklesIsNotWaitedFor(t *testing.T) {
	r := serve(t, Config{Limits: Limits{BodyTime: 50 * time.Millisecond}})
	conn, err := net.Dial("tcp", r.http)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "POST /v1/acquire HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
	_ = conn.SetDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusBadRequest || !resp.Close {
		t.Fatalf("answer %v, error %v; want 400 and the end of the connection", resp, err)
	}
	_ = resp.Body.Close()
	for _, request := range []string{"GET /v1/status", "POST /none", "DELETE /v1/locks"} { // the body is not read
		conn, err := net.Dial("tcp", r.http)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, request+" HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.ReadAll(conn); err != nil {
			t.Errorf("%s: %v, want an answer and the end of the connection", request, err)
		}
	}
}

func TestHTTPClientAtTheGRPCPortIsTold(t *testing.T) {
	r := serve(t, Config{})
	for _, method := range []string{"GET", "POST", "PUT", "DELETE", "OPTIONS"} {
		resp, body := send(t, &running{http: r.grpc}, method, "/v1/locks/a", "")
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "speaks gRPC") {
			t.Errorf("%s = %d %s, want 400 and the right port", method, resp.StatusCode, body)
		}
	}
	conn, err := net.Dial("tcp", r.grpc)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "G")
	time.Sleep(10 * time.Millisecond) // two packets
	_, _ = io.WriteString(conn, "ET / HTTP/1.0\r\n\r\n")
	_ = conn.SetDeadline(time.Now().Add(patience))
	if all, _ := io.ReadAll(conn); !strings.HasPrefix(string(all), "HTTP/1.1 400 ") {
		t.Errorf("a request in two packets: %q", all)
	}
}

func TestErrorsHaveTheirStatus(t *testing.T) {
	node := newFakeNode()
	var e *apiv1.Error
	node.on = func(c *mux.Call) bool { c.Done(errorAnswer(0, e)); return true }
	r := serve(t, Config{Backend: node})
	for code, want := range map[apiv1.Code]int{
		apiv1.CodeBusy: 409, apiv1.CodeTimeout: 409, apiv1.CodeCancelled: 409, apiv1.CodeNotHeld: 404, apiv1.CodeLimit: 429, apiv1.CodeInvalid: 400,
		apiv1.CodeOverloaded: 429, apiv1.CodeUnavailable: 503, apiv1.CodeUnknownOutcome: 503, apiv1.CodeDenied: 403,
	} {
		e = apiv1.NewError(code, "why")
		resp, body := send(t, r, http.MethodPost, "/v1/acquire", `{"name":"a"}`)
		if resp.StatusCode != want || body != fmt.Sprintf(`{"error":{"code":%q,"message":"why"}}`, code) {
			t.Errorf("%v: %d %s, want %d", code, resp.StatusCode, body, want)
		}
		if again := resp.Header.Get("Retry-After") != ""; again != (want == 503 || code == apiv1.CodeOverloaded) {
			t.Errorf("%v: Retry-After is there: %v", code, again)
		}
	}
}

func TestWrongMethodIs405(t *testing.T) {
	r := serve(t, Config{})
	for _, c := range []struct{ method, path, allow string }{
		{"GET", "/v1/acquire", "POST"}, {"DELETE", "/v1/locks/a", "GET, HEAD"}, {"POST", "/healthz", "GET, HEAD"}, {"PUT", "/", "GET, HEAD"},
	} {
		resp, body := send(t, r, c.method, c.path, "")
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != c.allow || !strings.Contains(body, `"error"`) {
			t.Errorf("%s %s = %d, Allow %q, %s; want 405 and %q", c.method, c.path, resp.StatusCode, resp.Header.Get("Allow"), body, c.allow)
		}
	}
	if resp, body := send(t, r, "HEAD", "/v1/locks/a", ""); resp.StatusCode != http.StatusOK || body != "" {
		t.Errorf("HEAD = %d %q", resp.StatusCode, body)
	}
	for _, path := range []string{"/v2/acquire", "/v1/acquire/", "/metrics", "//v1/locks"} {
		if status, body := get(t, r, path); status != 404 || !strings.Contains(body, `"error"`) {
			t.Errorf("GET %s = %d %s, want 404", path, status, body)
		}
	}
}

func TestIndexListsEveryPath(t *testing.T) {
	r := serve(t, Config{})
	status, body := get(t, r, "/")
	if status != 200 {
		t.Fatalf("GET / = %d", status)
	}
	for line := range strings.Lines(index) {
		if words := strings.Fields(line); len(words) > 1 && strings.HasPrefix(words[1], "/") {
			path := strings.Replace(words[1], "NAME", "a", 1)
			if status, _ := get(t, r, path); status == 404 {
				t.Errorf("the index lists %s, which does not exist", path)
			}
		}
	}
	if !strings.Contains(body, "/v1/acquire") {
		t.Errorf("the index is %s", body)
	}
}

func TestMetricsAreServedIfThereAreAny(t *testing.T) {
	r := serve(t, Config{Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "up 1") })})
	if status, body := get(t, r, "/metrics"); status != 200 || body != "up 1" {
		t.Errorf("/metrics = %d %s", status, body)
	}
}

func TestWebPagesOfOthersReachNothing(t *testing.T) {
	r := serve(t, Config{})
	for _, header := range [][]string{{"Origin", "https://evil.example"}, {"Sec-Fetch-Site", "cross-site"}} {
		resp, body := send(t, r, http.MethodPost, "/v1/acquire", `{"name":"a"}`, header...)
		if resp.StatusCode != http.StatusForbidden || !strings.Contains(body, `"denied"`) {
			t.Errorf("with %v: %d %s, want 403", header, resp.StatusCode, body)
		}
	}
	if resp, _ := send(t, r, http.MethodPost, "/v1/acquire", `{"name":"a"}`, "Origin", "http://"+r.http); resp.StatusCode != http.StatusOK {
		t.Errorf("from its own origin: %d, want 200", resp.StatusCode)
	}
}

func TestValuesThatAreNoTextAreBase64(t *testing.T) {
	v := holderDocuments([]*apiv1.Holder{
		{Value: []byte{0xff, 0}, Session: []byte{0xab, 0xcd}, Mode: apiv1.Mode_MODE_PERMITS, Permits: 3, RemainingNs: -5},
		{Value: []byte("text"), Mode: apiv1.Mode_MODE_SHARED, Permits: 9, Labels: []*apiv1.Label{{Key: "k", Value: "v"}}},
	}, false)
	if h := v[0]; h.Value != nil || h.ValueBase64 != "/wA=" || h.Session != "abcd" || h.Mode != "permits" || h.Permits != 3 || h.Remaining != "0s" {
		t.Errorf("first holder: %+v", h)
	}
	if h := v[1]; h.Value == nil || *h.Value != "text" || h.ValueBase64 != "" || h.Mode != "shared" || h.Permits != 0 || h.Labels["k"] != "v" {
		t.Errorf("second holder: %+v", h)
	}
}

func TestHTTPServerIsBounded(t *testing.T) {
	s, err := New(Config{Backend: newFakeNode()})
	if err != nil {
		t.Fatal(err)
	}
	if h := s.http; h.ReadHeaderTimeout != 5*time.Second || h.IdleTimeout != 2*time.Minute || h.MaxHeaderBytes != 8<<10 {
		t.Errorf("header timeout %v, idle %v, header bytes %d", h.ReadHeaderTimeout, h.IdleTimeout, h.MaxHeaderBytes)
	}
	if s.http.ReadTimeout != 0 || s.http.WriteTimeout != 0 {
		t.Error("a timeout for the whole request would end acquires that wait")
	}
}

func TestKeptAliveConnectionServesAfterAnAcquireThatWaited(t *testing.T) {
	r := serve(t, Config{})
	conn, err := net.Dial("tcp", r.http)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	ask := func(body string) int {
		_, _ = fmt.Fprintf(conn, "POST /v1/acquire HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	for _, want := range []int{200, 409, 409} {
		if got := ask(`{"name":"a"}`); got != want {
			t.Errorf("status %d, want %d", got, want)
		}
	}
}
