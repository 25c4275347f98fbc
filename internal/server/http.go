package server

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/document"
	"github.com/locknode/locknode/internal/mux"
)

// route is what one path does, by method. GET also answers HEAD.
type route map[string]func(http.ResponseWriter, *http.Request)

const (
	locksPrefix = "/v1/locks/"
	debugPrefix = "/debug/"
)

// index is the page that a browser shows for the port.
const index = `This is a Locknode node: it keeps locks.

POST /v1/acquire              {"name":"orders/42","ttl":"30s","wait":"0s","holder":"me","value":"","request_id":""}
POST /v1/renew                {"name":"orders/42","token":1,"ttl":"30s"}
POST /v1/release              {"name":"orders/42","token":1}
POST /v1/force-release        {"name":"orders/42","token":1,"reason":"why"}
POST /v1/resize               {"name":"pool","limit":5}
GET  /v1/locks/NAME           ?stale=5s
GET  /v1/locks                ?prefix=&limit=&page=&stale=5s
GET  /v1/sessions             ?owner=&lock=&limit=&page=
POST /v1/sessions/kill        {"hash":"of one session"} or {"owner":"10.0.0.7"}, and "reason"
POST /v1/clear                {"name":"orders/42","reason":"why"}
GET  /v1/limits
POST /v1/limits               {"name":"sessions","value":200000}
GET  /v1/status
GET  /v1/members
POST /v1/transfer-leadership  {"to":"node ID, or nothing"}
POST /v1/members/remove       {"id":"node ID"}
GET  /v1/access-tokens        ?accessor=&limit=&page=
POST /v1/access-tokens        {"name":"shop","ttl":"720h","labels":{"team":"a"}}
POST /v1/access-tokens/revoke {"accessor":"of the token","end_sessions":false,"reason":"why"}
POST /v1/access-tokens/bootstrap {"proof":"what is in operator.key","again":false}
GET  /v1/policies             ?name=&page=
POST /v1/policies             {"policies":[{"name":"shop","for":["token:shop"],"rules":[{"allow":["read","lock"],"prefix":"orders/"}]}],"remove":[],"if":0}
GET  /v1/rights/check         ?identity=token:shop&right=lock&name=orders/42
GET  /v1/whoami
GET  /healthz  /readyz  /readyz?voter  /metrics
`

// handler routes by itself: the name of a lock may contain what net/http's router would
// clean away, such as "//" or "..".
func (s *Server) handler() http.Handler {
	routes := map[string]route{
		"/":                           {http.MethodGet: s.httpIndex},
		"/v1/acquire":                 {http.MethodPost: s.httpAcquire},
		"/v1/renew":                   {http.MethodPost: s.httpRenew},
		"/v1/release":                 {http.MethodPost: s.httpRelease},
		"/v1/force-release":           {http.MethodPost: s.httpForceRelease},
		"/v1/resize":                  {http.MethodPost: s.httpResize},
		"/v1/locks":                   {http.MethodGet: s.httpList},
		locksPrefix:                   {http.MethodGet: s.httpGet},
		"/v1/sessions":                {http.MethodGet: s.httpSessions},
		"/v1/sessions/kill":           {http.MethodPost: s.httpKillSessions},
		"/v1/clear":                   {http.MethodPost: s.httpClear},
		"/v1/limits":                  {http.MethodGet: s.httpLimits, http.MethodPost: s.httpSetLimit},
		"/v1/status":                  {http.MethodGet: s.httpStatus},
		"/v1/members":                 {http.MethodGet: s.httpMembers},
		"/v1/transfer-leadership":     {http.MethodPost: s.httpTransferLeadership},
		"/v1/members/remove":          {http.MethodPost: s.httpRemoveMember},
		"/v1/access-tokens":           {http.MethodGet: s.httpAccessTokens, http.MethodPost: s.httpCreateAccessToken},
		"/v1/access-tokens/revoke":    {http.MethodPost: s.httpRevokeAccessToken},
		"/v1/access-tokens/bootstrap": {http.MethodPost: s.httpBootstrap},
		"/v1/policies":                {http.MethodGet: s.httpPolicies, http.MethodPost: s.httpChangePolicies},
		"/v1/rights/check":            {http.MethodGet: s.httpCheckRights},
		"/v1/whoami":                  {http.MethodGet: s.httpWhoAmI},
		"/healthz": {http.MethodGet: func(w http.ResponseWriter, _ *http.Request) {
			_ = writeJSON(w, http.StatusOK, map[string]bool{"alive": true})
		}},
		"/readyz": {http.MethodGet: s.httpReady},
	}
	if s.cfg.Metrics != nil {
		routes["/metrics"] = route{http.MethodGet: func(w http.ResponseWriter, r *http.Request) {
			if err := s.mayCall(r.Context(), s.callerIn(r.Context()), access{call: "metrics", right: fsm.RightAdmin, open: "metrics"}); err != nil {
				writeError(w, err)
				return
			}
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writePatience))
			s.cfg.Metrics.ServeHTTP(w, r)
		}}
	}
	if s.cfg.Debug != nil {
		routes[debugPrefix] = route{http.MethodGet: s.httpDebug, http.MethodPost: s.httpDebug}
	}
	crossOrigin := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != http.NoBody { // net/http also waits for a body that no handler reads
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.cfg.Limits.BodyTime))
		}
		if err := s.checkHost(r); err != nil {
			writeStatusError(w, http.StatusMisdirectedRequest, err)
			return
		}
		if err := s.needsCertificate(r); err != nil {
			writeStatusError(w, http.StatusForbidden, err)
			return
		}
		path := r.URL.EscapedPath()
		c := s.callerOf(httpConn(r.Context()), r.Header.Values("Authorization"))
		if !slices.Contains(unnamed, path) {
			if err := s.identify(r.Context(), c, path); err != nil {
				writeError(w, err)
				return
			}
		}
		r = r.WithContext(withCaller(r.Context(), c))
		for _, prefix := range [...]string{locksPrefix, debugPrefix} {
			if strings.HasPrefix(path, prefix) {
				path = prefix
			}
		}
		rt, ok := routes[path]
		if !ok {
			if err := s.mayCall(r.Context(), c, access{call: "path"}); err != nil {
				writeError(w, err)
				return
			}
			writeStatusError(w, http.StatusNotFound, apiv1.NewError(apiv1.CodeUnknownCommand, "path: is %q, must be one that GET / lists", r.URL.Path))
			return
		}
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		serve, ok := rt[method]
		if !ok {
			w.Header().Set("Allow", rt.allowed())
			writeStatusError(w, http.StatusMethodNotAllowed, apiv1.NewError(apiv1.CodeUnknownCommand, "method: is %s, must be one of %s", r.Method, rt.allowed()))
			return
		}
		// A web page must not reach the locks through its visitor's browser.
		if err := crossOrigin.Check(r); err != nil {
			writeError(w, apiv1.NewError(apiv1.CodeDenied, "%v", err))
			return
		}
		s.requests.add(1)
		defer s.requests.add(-1)
		conn := httpConn(r.Context())
		conn.begin()
		conn.work()
		defer conn.end()
		end, refusal := s.countHTTP(r)
		if refusal != nil {
			pause(r.Context(), refusedPause)
			writeError(w, refusal)
			return
		}
		defer end()
		// Remove the deadline of the connection's last answer.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
		serve(w, r)
	})
}

// httpDebug shows what only who may do everything with the node may see.
func (s *Server) httpDebug(w http.ResponseWriter, r *http.Request) {
	about := func(e *Event, _ *struct{}) { e.Names = []string{r.URL.Path} }
	_, err := operate(r.Context(), s.calls, access{call: "debug", right: fsm.RightAdmin}, about, func() (*struct{}, error) {
		s.cfg.Debug.ServeHTTP(w, r)
		return nil, nil //nolint:nilnil // the answer is written
	})
	if err != nil {
		writeError(w, apiv1.AsError(err))
	}
}

func (s *Server) httpIndex(w http.ResponseWriter, r *http.Request) {
	if err := s.mayCall(r.Context(), s.callerIn(r.Context()), access{call: "index"}); err != nil {
		writeError(w, err)
		return
	}
	writeText(w, index)
}

func (rt route) allowed() string {
	var methods []string
	for m := range rt {
		methods = append(methods, m)
		if m == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}

const defaultTTL = 30 * time.Second

func (s *Server) httpAcquire(w http.ResponseWriter, r *http.Request) {
	var name, holder, requestID string
	var value []byte
	ttl, wait := defaultTTL, time.Duration(0)
	if err := s.readBody(w, r, fields{
		"name": text(&name), "ttl": duration(&ttl), "wait": duration(&wait),
		"holder": text(&holder), "value": bytesOf(&value), "request_id": text(&requestID),
	}); err != nil {
		writeError(w, err)
		return
	}
	if err := firstProblem(needed("name", name != ""), notNegative("wait", wait), positive("ttl", ttl)); err != nil {
		writeError(w, err)
		return
	}
	acquire := &apiv1.AcquireRequest{
		Locks: []*apiv1.Want{{Name: name}}, TtlNs: int64(ttl), WaitNs: int64(wait), Holder: holder, Value: value,
	}
	if requestID != "" {
		sum := sha256.Sum256([]byte(requestID))
		acquire.Id = &apiv1.RequestID{Once: sum[:16]}
	}
	call := &mux.Call{Op: &apiv1.Operation{Request: &apiv1.Operation_Acquire{Acquire: acquire}}}
	a, err := s.run(r.Context(), RoadHTTP, call)
	if err != nil {
		writeError(w, asAsked(apiv1.AsError(err), requestID))
		return
	}
	if err := writeJSON(w, http.StatusOK, grantDocument(name, a)); err != nil {
		s.lose(call) // the answer was not sent in full: the caller does not have the token
	}
}

// asAsked gives an error of the lock table the names that the fields of an acquire have in
// JSON.
func asAsked(e *apiv1.Error, requestID string) *apiv1.Error {
	for _, field := range []struct{ table, json string }{
		{"id: ", fmt.Sprintf("request_id %.100q: ", requestID)}, {"locks: ", "name: "}, {"lock: ", "name: "},
	} {
		if rest, ok := strings.CutPrefix(e.GetMessage(), field.table); ok {
			return &apiv1.Error{Code: e.GetCode(), Message: field.json + rest, Holders: e.GetHolders(), Leader: e.GetLeader()}
		}
	}
	return e
}

func (s *Server) httpRenew(w http.ResponseWriter, r *http.Request) {
	var name string
	var token uint64
	ttl := defaultTTL
	if err := s.readBody(w, r, fields{"name": text(&name), "token": number(&token), "ttl": duration(&ttl)}); err != nil {
		writeError(w, err)
		return
	}
	if err := firstProblem(needed("name", name != ""), needed("token", token != 0), positive("ttl", ttl)); err != nil {
		writeError(w, err)
		return
	}
	op := &apiv1.Operation{Request: &apiv1.Operation_Renew{Renew: &apiv1.RenewRequest{Name: name, Token: token, TtlNs: int64(ttl)}}}
	if a := s.httpDo(w, r, op); a != nil {
		left := time.Duration(a.GetRenew().GetDeadline() - a.GetStamp())
		_ = writeJSON(w, http.StatusOK, document.NewRenewed(name, token, left))
	}
}

func (s *Server) httpRelease(w http.ResponseWriter, r *http.Request) {
	var name string
	var token uint64
	if err := s.readBody(w, r, fields{"name": text(&name), "token": number(&token)}); err != nil {
		writeError(w, err)
		return
	}
	if err := firstProblem(needed("name", name != ""), needed("token", token != 0)); err != nil {
		writeError(w, err)
		return
	}
	op := &apiv1.Operation{Request: &apiv1.Operation_Release{Release: &apiv1.ReleaseRequest{Name: name, Token: token}}}
	if a := s.httpDo(w, r, op); a != nil {
		_ = writeJSON(w, http.StatusOK, document.Release{Name: name, Token: token})
	}
}

func (s *Server) httpForceRelease(w http.ResponseWriter, r *http.Request) {
	var name, reason string
	var token uint64
	if err := s.readBody(w, r, fields{"name": text(&name), "token": number(&token), "reason": text(&reason)}); err != nil {
		writeError(w, err)
		return
	}
	if err := needed("name", name != ""); err != nil {
		writeError(w, err)
		return
	}
	op := &apiv1.Operation{Request: &apiv1.Operation_ForceRelease{ForceRelease: &apiv1.ForceReleaseRequest{
		Name: name, Token: token, Reason: reason,
	}}}
	if a := s.httpDo(w, r, op); a != nil {
		_ = writeJSON(w, http.StatusOK, document.Released{Name: name, Released: holderDocuments(a.GetForceRelease().GetReleased(), true)})
	}
}

func (s *Server) httpResize(w http.ResponseWriter, r *http.Request) {
	var name string
	var limit uint32
	problem := s.readBody(w, r, fields{"name": text(&name), "limit": size(&limit)})
	if problem = firstProblem(problem, needed("name", name != ""), needed("limit", limit != 0)); problem != nil {
		writeError(w, problem)
		return
	}
	op := &apiv1.Operation{Request: &apiv1.Operation_Resize{Resize: &apiv1.ResizeRequest{Name: name, Limit: limit}}}
	if a := s.httpDo(w, r, op); a != nil {
		_ = writeJSON(w, http.StatusOK, document.Resized{Name: name, Limit: int(limit)})
	}
}

// size takes the size of a semaphore.
func size(to *uint32) func(json.RawMessage) error {
	return func(raw json.RawMessage) error {
		if err := json.Unmarshal(raw, to); err != nil || *to == 0 {
			return fmt.Errorf("is %.40s, must be a whole number from 1 to %d", raw, uint32(math.MaxUint32))
		}
		return nil
	}
}

func (s *Server) httpGet(w http.ResponseWriter, r *http.Request) {
	name, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), locksPrefix))
	if err != nil || !utf8.ValidString(name) {
		writeError(w, apiv1.NewError(apiv1.CodeInvalid, "name: is not UTF-8, must be URL-escaped UTF-8"))
		return
	}
	q, problem := readQuery(r)
	if problem := firstProblem(problem, needed("name", name != "")); problem != nil {
		writeError(w, problem)
		return
	}
	op := &apiv1.Operation{Request: &apiv1.Operation_Get{Get: &apiv1.GetRequest{Name: name, MaxStaleNs: int64(q.stale)}}}
	if a := s.httpDo(w, r, op); a != nil {
		lock := a.GetGet().GetLock()
		d := lockDocument(lock)
		d.Age = q.age(a.GetGet().GetAgeNs())
		out := s.newJSONWriter(w)
		out.lock(d, lock.GetHolders())
		out.end()
	}
}

func (s *Server) httpList(w http.ResponseWriter, r *http.Request) {
	q, problem := readQuery(r)
	if problem != nil {
		writeError(w, problem)
		return
	}
	op := &apiv1.Operation{Request: &apiv1.Operation_List{List: &apiv1.ListRequest{
		Prefix: q.prefix, Limit: q.limit, After: q.page, MaxStaleNs: int64(q.stale),
	}}}
	if a := s.httpDo(w, r, op); a != nil {
		page := document.Page{Locks: []document.Lock{}, Next: a.GetList().GetNext(), Age: q.age(a.GetList().GetAgeNs())}
		out := s.newJSONWriter(w)
		out.page(page, a.GetList().GetLocks())
		out.end()
	}
}

// query is the parameters of GET requests. Other parameters are ignored.
type query struct {
	prefix, page string
	limit        uint32
	stale        time.Duration
}

func readQuery(r *http.Request) (q query, problem *apiv1.Error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return q, apiv1.NewError(apiv1.CodeInvalid, "query: %v", err)
	}
	q.prefix, q.page = values.Get("prefix"), values.Get("page")
	if !utf8.ValidString(q.prefix) || !utf8.ValidString(q.page) {
		return q, apiv1.NewError(apiv1.CodeInvalid, "prefix, page: are not UTF-8, must be UTF-8")
	}
	if limit := values.Get("limit"); limit != "" {
		n, err := strconv.ParseUint(limit, 10, 16)
		if err != nil || n < 1 || n > 1000 {
			return q, apiv1.NewError(apiv1.CodeInvalid, "limit: is %.20q, must be 1 to 1000", limit)
		}
		q.limit = uint32(n)
	}
	if stale := values.Get("stale"); stale != "" {
		q.stale, err = time.ParseDuration(stale)
		if err != nil || q.stale < 0 {
			return q, apiv1.NewError(apiv1.CodeInvalid, `stale: is %.40q, must be a duration such as "5s"`, stale)
		}
	}
	return q, nil
}

// age is the age of an answer, empty unless the query allowed a stale one.
func (q query) age(ns int64) document.Age {
	if q.stale == 0 {
		return document.Age{}
	}
	return document.NewAge(time.Duration(ns))
}

func (s *Server) httpStatus(w http.ResponseWriter, r *http.Request) {
	st, err := s.calls.Status(r.Context(), nil)
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	_ = writeJSON(w, http.StatusOK, statusDocument(st))
}

func (s *Server) httpMembers(w http.ResponseWriter, r *http.Request) {
	m, err := s.calls.Members(r.Context(), nil)
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	_ = writeJSON(w, http.StatusOK, membersDocument(m))
}

func (s *Server) httpTransferLeadership(w http.ResponseWriter, r *http.Request) {
	var to string
	if err := s.readBody(w, r, fields{"to": text(&to)}); err != nil {
		writeError(w, err)
		return
	}
	got, err := s.calls.TransferLeadership(r.Context(), &apiv1.TransferLeadershipRequest{To: to})
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	_ = writeJSON(w, http.StatusOK, document.Leader{LeaderID: got.GetLeaderId()})
}

func (s *Server) httpRemoveMember(w http.ResponseWriter, r *http.Request) {
	var id string
	err := s.readBody(w, r, fields{"id": text(&id)})
	if err = firstProblem(err, needed("id", id != "")); err != nil {
		writeError(w, err)
		return
	}
	if _, err := s.calls.RemoveMember(r.Context(), &apiv1.RemoveMemberRequest{Id: id}); err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	_ = writeJSON(w, http.StatusOK, document.Removed{Removed: id})
}

func (s *Server) httpReady(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	g, err := gateOf(r.URL.RawQuery)
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	ready, note := s.passes(ctx, g)
	if !ready {
		writeError(w, apiv1.NewError(apiv1.CodeNotReady, "%s", note))
		return
	}
	_ = writeJSON(w, http.StatusOK, readyView{Ready: true, Note: note})
}

type readyView struct {
	Ready bool   `json:"ready"`
	Note  string `json:"note,omitempty"`
}

// httpDo runs op and returns its answer. After an error it returns nil, and has answered
// the request.
func (s *Server) httpDo(w http.ResponseWriter, r *http.Request, op *apiv1.Operation) *apiv1.Answer {
	a, err := s.do(r.Context(), RoadHTTP, op)
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return nil
	}
	return a
}
