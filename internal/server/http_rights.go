package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/fsm"
	"github.com/locknode/locknode/internal/document"
	"github.com/locknode/locknode/internal/rights"
)

// Access tokens and policies, as JSON over HTTP.

func (s *Server) httpAccessTokens(w http.ResponseWriter, r *http.Request) {
	q, problem := readQuery(r)
	if problem != nil {
		writeError(w, problem)
		return
	}
	got, err := s.calls.ListAccessTokens(r.Context(), &apiv1.ListAccessTokensRequest{
		Accessor: r.URL.Query().Get("accessor"), After: q.page, Limit: q.limit,
	})
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	d := document.AccessTokens{AccessTokens: []document.AccessToken{}, Next: got.GetNext()}
	for _, t := range got.GetAccessTokens() {
		d.AccessTokens = append(d.AccessTokens, tokenDocument(t))
	}
	_ = writeJSON(w, http.StatusOK, d)
}

func tokenDocument(t *apiv1.AccessToken) document.AccessToken {
	d := document.AccessToken{Accessor: t.GetAccessor(), Name: t.GetName(), Labels: labelsOf(t.GetLabels()), MadeBy: t.GetMadeBy()}
	d.SetTimes(time.UnixMilli(t.GetMadeAtUnixMs()), time.Duration(t.GetRemainingNs()))
	return d
}

func (s *Server) httpCreateAccessToken(w http.ResponseWriter, r *http.Request) {
	var name string
	var ttl time.Duration
	var labels []*apiv1.Label
	problem := s.readBody(w, r, fields{"name": text(&name), "ttl": duration(&ttl), "labels": labelsFrom(&labels)})
	if problem = firstProblem(problem, needed("name", name != ""), notNegative("ttl", ttl)); problem != nil {
		writeError(w, problem)
		return
	}
	got, err := s.calls.CreateAccessToken(r.Context(), &apiv1.CreateAccessTokenRequest{Name: name, TtlNs: int64(ttl), Labels: labels})
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	_ = writeJSON(w, http.StatusOK, document.NewAccessToken{AccessToken: tokenDocument(got.GetAccessToken()), Secret: got.GetSecret()})
}

func (s *Server) httpRevokeAccessToken(w http.ResponseWriter, r *http.Request) {
	var accessor, reason string
	var end bool
	problem := s.readBody(w, r, fields{"accessor": text(&accessor), "reason": text(&reason), "end_sessions": flag(&end)})
	if problem = firstProblem(problem, needed("accessor", accessor != "")); problem != nil {
		writeError(w, problem)
		return
	}
	got, err := s.calls.RevokeAccessToken(r.Context(), &apiv1.RevokeAccessTokenRequest{Accessor: accessor, EndSessions: end, Reason: reason})
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	_ = writeJSON(w, http.StatusOK, document.RevokedAccessToken{
		AccessToken: tokenDocument(got.GetAccessToken()), Killed: int(got.GetKilled()), Grants: int(got.GetGrants()), Waiters: int(got.GetWaiters()),
	})
}

func (s *Server) httpBootstrap(w http.ResponseWriter, r *http.Request) {
	var proof string
	var again bool
	problem := s.readBody(w, r, fields{"proof": text(&proof), "again": flag(&again)})
	if problem = firstProblem(problem, needed("proof", proof != "")); problem != nil {
		writeError(w, problem)
		return
	}
	got, err := s.calls.BootstrapAccessToken(r.Context(), &apiv1.BootstrapAccessTokenRequest{Proof: proof, Again: again})
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	_ = writeJSON(w, http.StatusOK, document.NewAccessToken{AccessToken: tokenDocument(got.GetAccessToken()), Secret: got.GetSecret()})
}

func (s *Server) httpPolicies(w http.ResponseWriter, r *http.Request) {
	q, problem := readQuery(r)
	if problem != nil {
		writeError(w, problem)
		return
	}
	got, err := s.calls.ListPolicies(r.Context(), &apiv1.ListPoliciesRequest{Name: r.URL.Query().Get("name"), After: q.page})
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	d := document.Policies{Policies: []document.Policy{}, Next: got.GetNext(), Index: got.GetIndex()}
	for _, p := range got.GetPolicies() {
		d.Policies = append(d.Policies, policyDocument(p))
	}
	_ = writeJSON(w, http.StatusOK, d)
}

func (s *Server) httpChangePolicies(w http.ResponseWriter, r *http.Request) {
	req := &apiv1.ChangePoliciesRequest{}
	if problem := s.readBody(w, r, fields{"policies": policies(&req.Put), "remove": texts(&req.Remove), "if": number(&req.If)}); problem != nil {
		writeError(w, problem)
		return
	}
	got, err := s.calls.ChangePolicies(r.Context(), req)
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	_ = writeJSON(w, http.StatusOK, document.PoliciesChanged{
		Added: orNone(got.GetAdded()), Changed: orNone(got.GetChanged()), Unchanged: orNone(got.GetUnchanged()), Removed: orNone(got.GetRemoved()),
	})
}

// orNone is a list that is [] in JSON, and not null, if it is empty.
func orNone(names []string) []string {
	if names == nil {
		return []string{}
	}
	return names
}

func (s *Server) httpCheckRights(w http.ResponseWriter, r *http.Request) {
	values := r.URL.Query()
	right, ok := rights.RightOf(values.Get("right"))
	if !ok {
		writeError(w, apiv1.NewError(apiv1.CodeInvalid, "right: is %.40q, must be read, lock, force or admin", values.Get("right")))
		return
	}
	got, err := s.calls.CheckRights(r.Context(), &apiv1.CheckRightsRequest{
		Identity: values.Get("identity"), Right: apiv1.Right(right), Name: values.Get("name"),
	})
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	d := document.Decision{Identity: got.GetIdentity(), Allowed: got.GetAllowed(), Policy: got.GetPolicy(), Rule: int(got.GetRule()), Why: got.GetWhy()}
	if by := got.GetDecidedBy(); by != nil {
		rule := ruleDocument(by)
		d.DecidedBy = &rule
	}
	_ = writeJSON(w, http.StatusOK, d)
}

func (s *Server) httpWhoAmI(w http.ResponseWriter, r *http.Request) {
	got, err := s.calls.WhoAmI(r.Context(), nil)
	if err != nil {
		writeError(w, apiv1.AsError(err))
		return
	}
	d := document.Identity{Identity: got.GetIdentity(), Mode: got.GetMode(), Enforced: got.GetEnforced(), Policies: orNone(got.GetPolicies())}
	if t := got.GetAccessToken(); t != nil {
		token := tokenDocument(t)
		d.AccessToken = &token
	}
	_ = writeJSON(w, http.StatusOK, d)
}

func policyDocument(p *apiv1.Policy) document.Policy {
	d := document.Policy{Name: p.GetName(), For: orNone(p.GetFor()), Rules: []document.Rule{}}
	for _, r := range p.GetRules() {
		d.Rules = append(d.Rules, ruleDocument(r))
	}
	q := document.Quota{
		Sessions: int(p.GetQuota().GetSessions()), Grants: int(p.GetQuota().GetGrants()), Waiters: int(p.GetQuota().GetWaiters()), Bytes: p.GetQuota().GetBytes(),
		OpsPerSecond: int(p.GetQuota().GetOpsPerSecond()), Connections: int(p.GetQuota().GetConnections()), Streams: int(p.GetQuota().GetStreams()), UnsentBytes: p.GetQuota().GetUnsentBytes(),
	}
	if q != (document.Quota{}) {
		d.Quota = &q
	}
	return d
}

func ruleDocument(r *apiv1.Rule) document.Rule {
	var names []string
	for _, right := range r.GetRights() {
		names = append(names, rights.RightName(fsm.Right(right)))
	}
	return document.NewRule(r.GetDeny(), names, r.GetName(), r.GetExact())
}

// policies takes policies in the form in which they are shown.
func policies(to *[]*apiv1.Policy) func(json.RawMessage) error {
	return func(raw json.RawMessage) error {
		var all []document.Policy
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&all); err != nil {
			return fmt.Errorf("must be a list of policies: %w", err)
		}
		for _, d := range all {
			p := &apiv1.Policy{Name: d.Name, For: d.For}
			if q := d.Quota; q != nil {
				p.Quota = &apiv1.Quota{
					Sessions: int64(q.Sessions), Grants: int64(q.Grants), Waiters: int64(q.Waiters), Bytes: q.Bytes,
					OpsPerSecond: int64(q.OpsPerSecond), Connections: int64(q.Connections), Streams: int64(q.Streams), UnsentBytes: q.UnsentBytes,
				}
			}
			for i := range d.Rules {
				rule, err := ruleFrom(&d.Rules[i])
				if err != nil {
					return fmt.Errorf("policy %q, rule %d: %w", d.Name, i+1, err)
				}
				p.Rules = append(p.Rules, rule)
			}
			*to = append(*to, p)
		}
		return nil
	}
}

func ruleFrom(d *document.Rule) (*apiv1.Rule, error) {
	if (len(d.Allow) > 0) == (len(d.Deny) > 0) {
		return nil, errors.New("must have either allow or deny, with at least one right")
	}
	if d.Prefix != nil && d.Name != nil {
		return nil, errors.New("has both prefix and name, must have one of them")
	}
	r := &apiv1.Rule{Deny: len(d.Deny) > 0, Exact: d.Name != nil}
	switch {
	case d.Name != nil:
		r.Name = *d.Name
	case d.Prefix != nil:
		r.Name = *d.Prefix
	}
	for _, name := range append(d.Allow, d.Deny...) {
		right, ok := rights.RightOf(name)
		if !ok {
			return nil, fmt.Errorf("right is %.40q, must be read, lock, force or admin", name)
		}
		r.Rights = append(r.Rights, apiv1.Right(right))
	}
	return r, nil
}

func texts(to *[]string) func(json.RawMessage) error {
	return func(raw json.RawMessage) error {
		if err := json.Unmarshal(raw, to); err != nil {
			return errors.New("must be a list of strings")
		}
		return nil
	}
}

func flag(to *bool) func(json.RawMessage) error {
	return func(raw json.RawMessage) error {
		if err := json.Unmarshal(raw, to); err != nil {
			return errors.New("must be true or false")
		}
		return nil
	}
}

// labelsFrom takes an object of texts.
func labelsFrom(to *[]*apiv1.Label) func(json.RawMessage) error {
	return func(raw json.RawMessage) error {
		var all map[string]string
		if err := json.Unmarshal(raw, &all); err != nil {
			return errors.New("must be an object of strings")
		}
		for _, key := range slices.Sorted(maps.Keys(all)) {
			*to = append(*to, &apiv1.Label{Key: key, Value: all[key]})
		}
		return nil
	}
}
