package server

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/internal/document"
	"github.com/locknode/locknode/internal/quote"
)

// The documents that HTTP clients get are those of package document. Here they are filled
// from the messages of the API.

// grantDocument fills in how long a grant lasts as of the answer: from the entry that
// decided it, which is that of the request itself or, after a wait, that of the grant.
func grantDocument(name string, a *apiv1.Answer) document.Grant {
	got := a.GetAcquire()
	left := got.GetDeadline() - max(got.GetGranted(), a.GetStamp())
	return document.NewGrant(name, got.GetToken(), time.Duration(left), time.Duration(got.GetGranted()-got.GetQueued()))
}

// lockDocument returns a document without the holders.
func lockDocument(l *apiv1.Lock) document.Lock {
	d := document.Lock{
		Name: l.GetName(), Held: len(l.GetHolders()) > 0, Holders: []document.Holder{},
		HolderCount: int(l.GetHolderCount()), Waiters: int(l.GetWaiters()), Limit: int(l.GetLimit()),
	}
	d.SetDelay(time.Duration(l.GetDelayLeftNs()))
	return d
}

// holderDocuments names the lock of each holder if named is true.
func holderDocuments(holders []*apiv1.Holder, named bool) []document.Holder {
	documents := make([]document.Holder, 0, len(holders))
	for _, h := range holders {
		d := document.Holder{
			Token: h.GetToken(), Holder: h.GetHolder(), Session: hex.EncodeToString(h.GetSession()),
			Mode: modeOf(h.GetMode()), Labels: labelsOf(h.GetLabels()),
		}
		d.SetTimes(time.Duration(h.GetRemainingNs()), time.UnixMilli(h.GetSinceUnixMs()))
		d.SetValue(h.GetValue())
		if named {
			d.Lock = h.GetLock()
		}
		if h.GetMode() == apiv1.Mode_MODE_PERMITS {
			d.Permits = int(h.GetPermits())
		}
		documents = append(documents, d)
	}
	return documents
}

func modeOf(m apiv1.Mode) string {
	switch m {
	case apiv1.Mode_MODE_SHARED:
		return document.Shared
	case apiv1.Mode_MODE_PERMITS:
		return document.Permits
	default:
		return document.Exclusive
	}
}

func labelsOf(labels []*apiv1.Label) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	out := make(map[string]string, len(labels))
	for _, l := range labels {
		out[l.GetKey()] = l.GetValue()
	}
	return out
}

func statusDocument(s *apiv1.StatusResponse) document.Status {
	d := document.Status{
		NodeID: s.GetNodeId(), ClusterID: s.GetClusterId(), Version: s.GetVersion(), State: s.GetState(),
		Ready: s.GetReady(), NotReadyReason: s.GetNotReadyReason(),
		Voter: s.GetVoter(), Nonvoter: s.GetNonvoter(), Voters: int(s.GetVoters()), VotersHealthy: int(s.GetVotersHealthy()),
		VoterReady: s.GetVoterReady(), VoterReason: s.GetVoterReason(),
		LeaderID: s.GetLeaderId(), LeaderAddress: s.GetLeaderAddress(), HTTPAddress: s.GetHttpAddress(),
		Term: s.GetTerm(), CommitIndex: s.GetCommitIndex(), AppliedIndex: s.GetAppliedIndex(),
		Locks: int(s.GetLocks()), Sessions: int(s.GetSessions()), Waiters: int(s.GetWaiters()), LastToken: s.GetLastToken(),
		LogStore: s.GetLogStore(),
		Grants:   int(s.GetGrants()), Owners: int(s.GetOwners()), TopOwners: []document.Owner{},
		TableBytes: s.GetTableBytes(), TableBytesLimit: s.GetTableBytesLimit(),
		FeatureLevel: int(s.GetFeatureLevel()), FeatureLevelKnown: int(s.GetFeatureLevelKnown()),
		AuthMode: s.GetAuthMode(), AuthEnforced: s.GetAuthEnforced(), AuthNote: s.GetAuthNote(),
	}
	d.SetTable(time.Duration(s.GetClusterTime()), s.GetDigest(), s.GetDigestIndex())
	for _, o := range s.GetTopOwners() {
		d.TopOwners = append(d.TopOwners, document.Owner{
			Owner: o.GetOwner(), Sessions: int(o.GetSessions()), Grants: int(o.GetGrants()), Waiters: int(o.GetWaiters()),
			OnceRemembered: int(o.GetOnceRemembered()), EndedRemembered: int(o.GetEndedRemembered()), TableBytes: o.GetTableBytes(),
		})
	}
	return d
}

func membersDocument(m *apiv1.MembersResponse) document.Members {
	d := document.Members{Members: []document.Member{}}
	for _, p := range m.GetMembers() {
		d.Members = append(d.Members, document.Member{
			ID: p.GetId(), APIAddress: p.GetApiAddress(), HTTPAddress: p.GetHttpAddress(), RaftAddress: p.GetRaftAddress(),
			GossipAddress: p.GetGossipAddress(), Role: p.GetRole(), Health: p.GetHealth(), Version: p.GetVersion(), Zone: p.GetZone(), FeatureLevel: int(p.GetFeatureLevel()), TLS: p.GetTls(),
		})
	}
	return d
}

func writeError(w http.ResponseWriter, err *apiv1.Error) {
	writeStatusError(w, apiv1.Code(err.GetCode()).HTTPStatus(), err)
}

func writeStatusError(w http.ResponseWriter, status int, err *apiv1.Error) {
	d := document.Failure{Error: document.Error{Code: apiv1.Code(err.GetCode()).String(), Message: err.GetMessage()}}
	if len(err.GetHolders()) > 0 {
		d.Error.Holders = holderDocuments(err.GetHolders(), true)
	}
	if apiv1.Code(err.GetCode()) == apiv1.CodeUnauthenticated {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if apiv1.Code(err.GetCode()).Passes() {
		w.Header().Set("Retry-After", "1")
	}
	if wait := err.GetRetryAfterNs(); wait > 0 { // in whole seconds, as HTTP has it
		w.Header().Set("Retry-After", strconv.FormatInt((wait+1e9-1)/1e9, 10))
	}
	_ = writeJSON(w, status, d)
}

// writePatience is how long a client may take to read an answer.
const writePatience = 30 * time.Second

// writeJSON writes v as JSON. It returns an error if the client cannot have got all of it.
// Characters that cannot be printed are escaped, because curl shows them on a terminal.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // a bug: every document can be encoded
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return err
	}
	return write(w, status, "application/json", quote.JSON(buf.Bytes()))
}

func writeText(w http.ResponseWriter, s string) {
	_ = write(w, http.StatusOK, "text/plain; charset=utf-8", []byte(s)) // a client that has gone away
}

func write(w http.ResponseWriter, status int, contentType string, body []byte) error {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	beginAnswer(w, status, contentType)
	_, err := w.Write(body)
	flushErr := http.NewResponseController(w).Flush() // before the request is counted as done: Close may follow
	if err == nil && !errors.Is(flushErr, http.ErrNotSupported) {
		err = flushErr
	}
	return err
}
