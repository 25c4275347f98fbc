package server

import (
	"encoding/hex"
	"net/http"
	"strconv"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/document"
)

// What an operator does about clients, as JSON over HTTP.

func (s *Server) httpSessions(w http.ResponseWriter, r *http.Request) {
	q, problem := readQuery(r)
	if problem != nil {
		writeError(w, problem)
		return
	}
	values := r.URL.Query()
	req := &apiv1.ListSessionsRequest{Owner: values.Get("owner"), Lock: values.Get("lock"), Limit: q.limit}
	if q.page != "" {
		after, err := strconv.ParseUint(q.page, 10, 64)
		if err != nil {
			writeError(w, apiv1.NewError(apiv1.CodeInvalid, "page: is %.40q, must be the next of an answer", q.page))
			return
		}
		req.After = after
	}
	got, err := s.calls.ListSessions(r.Context(), req)
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	d := document.Sessions{Sessions: []document.Session{}}
	for _, i := range got.GetSessions() {
		one := document.Session{
			Hash: hex.EncodeToString(i.GetHash()), Number: i.GetNumber(), Owner: i.GetOwner(), Holder: i.GetHolder(),
			Grants: int(i.GetGrants()), Waiters: int(i.GetWaiters()), TableBytes: i.GetTableBytes(), Labels: labelsOf(i.GetLabels()),
		}
		one.SetTimes(time.Duration(i.GetTtlNs()), time.Duration(i.GetRemainingNs()))
		d.Sessions = append(d.Sessions, one)
	}
	if next := got.GetNext(); next != 0 {
		d.Next = strconv.FormatUint(next, 10)
	}
	_ = writeJSON(w, http.StatusOK, d)
}

func (s *Server) httpKillSessions(w http.ResponseWriter, r *http.Request) {
	var hash, owner, reason string
	problem := s.readBody(w, r, fields{"hash": text(&hash), "owner": text(&owner), "reason": text(&reason)})
	h, err := hex.DecodeString(hash)
	switch {
	case problem != nil:
	case err != nil:
		problem = apiv1.NewError(apiv1.CodeInvalid, "hash: is %.40q, must be hexadecimal digits, as GET /v1/sessions shows them", hash)
	}
	if problem != nil {
		writeError(w, problem)
		return
	}
	got, err := s.calls.KillSessions(r.Context(), &apiv1.KillSessionsRequest{Hash: h, Owner: owner, Reason: reason})
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	_ = writeJSON(w, http.StatusOK, document.Killed{Killed: int(got.GetKilled()), Grants: int(got.GetGrants()), Waiters: int(got.GetWaiters())})
}

func (s *Server) httpClear(w http.ResponseWriter, r *http.Request) {
	var name, reason string
	problem := s.readBody(w, r, fields{"name": text(&name), "reason": text(&reason)})
	if problem = firstProblem(problem, needed("name", name != "")); problem != nil {
		writeError(w, problem)
		return
	}
	got, err := s.calls.ClearLock(r.Context(), &apiv1.ClearLockRequest{Name: name, Reason: reason})
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	_ = writeJSON(w, http.StatusOK, document.Cleared{Name: name, Grants: int(got.GetGrants()), Waiters: int(got.GetWaiters())})
}

func limitDocuments(limits []*apiv1.Limit) []document.Limit {
	documents := make([]document.Limit, 0, len(limits))
	for _, l := range limits {
		documents = append(documents, document.Limit{
			Name: l.GetName(), Value: l.GetValue(), Text: document.LimitText(l.GetName(), l.GetValue(), l.GetDuration()),
			Default: l.GetDefault(), Largest: l.GetLargest(),
		})
	}
	return documents
}

func (s *Server) httpLimits(w http.ResponseWriter, r *http.Request) {
	got, err := s.calls.GetLimits(r.Context(), &apiv1.GetLimitsRequest{})
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	_ = writeJSON(w, http.StatusOK, document.Limits{Limits: limitDocuments(got.GetLimits())})
}

func (s *Server) httpSetLimit(w http.ResponseWriter, r *http.Request) {
	var name string
	var value uint64
	problem := s.readBody(w, r, fields{"name": text(&name), "value": number(&value)})
	if problem = firstProblem(problem, needed("name", name != "")); problem != nil {
		writeError(w, problem)
		return
	}
	got, err := s.calls.SetLimits(r.Context(), &apiv1.SetLimitsRequest{
		Limits: []*apiv1.Limit{{Name: name, Value: int64(min(value, 1<<62))}},
	})
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	_ = writeJSON(w, http.StatusOK, document.LimitsSet{Before: limitDocuments(got.GetBefore()), After: limitDocuments(got.GetAfter())})
}
