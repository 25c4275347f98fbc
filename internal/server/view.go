package server

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// The JSON that HTTP clients see. A duration is there twice, as a Go string for people
// and as a number of milliseconds for programs. Tokens are numbers: they stay below
// 2^53, so that JavaScript reads them exactly.

type grantView struct {
	Name        string `json:"name"`
	Token       uint64 `json:"token"`
	ExpiresIn   string `json:"expires_in"`
	ExpiresInMs int64  `json:"expires_in_ms"`
	Waited      string `json:"waited"`
	WaitedMs    int64  `json:"waited_ms"`
}

// grantViewOf says how long a grant lasts as of the answer: from the entry that
// decided it, which is that of the request itself or, after a wait, that of the grant.
func grantViewOf(name string, a *apiv1.Answer) grantView {
	got := a.GetAcquire()
	left := timeViewOf(got.GetDeadline() - max(got.GetGranted(), a.GetStamp()))
	waited := timeViewOf(got.GetGranted() - got.GetQueued())
	return grantView{
		Name: name, Token: got.GetToken(), ExpiresIn: left.text, ExpiresInMs: left.ms, Waited: waited.text, WaitedMs: waited.ms,
	}
}

type renewedView struct {
	Name        string `json:"name"`
	Token       uint64 `json:"token"`
	ExpiresIn   string `json:"expires_in"`
	ExpiresInMs int64  `json:"expires_in_ms"`
}

type releaseView struct {
	Name  string `json:"name"`
	Token uint64 `json:"token"`
}

type releasedView struct {
	Name     string       `json:"name"`
	Released []holderView `json:"released"`
}

type lockView struct {
	Name        string       `json:"name"`
	Held        bool         `json:"held"`
	Holders     []holderView `json:"holders"` // the first 64
	HolderCount uint32       `json:"holder_count"`
	Waiters     uint32       `json:"waiters"`
	Limit       uint32       `json:"limit,omitempty"`      // semaphores only
	DelayLeft   string       `json:"delay_left,omitempty"` // free, but not to be had for this long
	DelayLeftMs int64        `json:"delay_left_ms,omitempty"`
	Age         string       `json:"age,omitempty"` // stale reads only
	AgeMs       *int64       `json:"age_ms,omitempty"`
}

type pageView struct {
	Locks []lockView `json:"locks"`
	Next  string     `json:"next,omitempty"` // pass as page
	Age   string     `json:"age,omitempty"`
	AgeMs *int64     `json:"age_ms,omitempty"`
}

type holderView struct {
	Lock        string            `json:"lock,omitempty"`
	Token       uint64            `json:"token"`
	Holder      string            `json:"holder"`
	Session     string            `json:"session,omitempty"` // hex; none: a detached grant
	Mode        string            `json:"mode"`
	Permits     uint32            `json:"permits,omitempty"`
	Remaining   string            `json:"remaining"`
	RemainingMs int64             `json:"remaining_ms"`
	Since       string            `json:"since"`
	Value       *string           `json:"value,omitempty"`
	ValueBase64 string            `json:"value_base64,omitempty"` // of a value that is not UTF-8
	Labels      map[string]string `json:"labels,omitempty"`
}

func lockViewOf(l *apiv1.Lock) lockView {
	v := lockView{
		Name: l.GetName(), Held: len(l.GetHolders()) > 0, Holders: holderViews(l.GetHolders(), false),
		HolderCount: l.GetHolderCount(), Waiters: l.GetWaiters(), Limit: l.GetLimit(),
	}
	if l.GetDelayLeftNs() > 0 {
		left := timeViewOf(l.GetDelayLeftNs())
		v.DelayLeft, v.DelayLeftMs = left.text, left.ms
	}
	return v
}

// holderViews names the lock of each where it is not clear.
func holderViews(holders []*apiv1.Holder, named bool) []holderView {
	views := make([]holderView, 0, len(holders))
	for _, h := range holders {
		left := timeViewOf(h.GetRemainingNs())
		v := holderView{
			Token: h.GetToken(), Holder: h.GetHolder(), Session: hex.EncodeToString(h.GetSession()),
			Mode: modeView(h.GetMode()), Remaining: left.text, RemainingMs: left.ms,
			Since: time.UnixMilli(h.GetSinceUnixMs()).UTC().Format("2006-01-02T15:04:05.000Z07:00"),
		}
		if named {
			v.Lock = h.GetLock()
		}
		if h.GetMode() == apiv1.Mode_MODE_PERMITS {
			v.Permits = h.GetPermits()
		}
		switch value := h.GetValue(); {
		case len(value) == 0:
		case utf8.Valid(value):
			s := string(value)
			v.Value = &s
		default:
			v.ValueBase64 = base64.StdEncoding.EncodeToString(value)
		}
		for _, l := range h.GetLabels() {
			if v.Labels == nil {
				v.Labels = map[string]string{}
			}
			v.Labels[l.GetKey()] = l.GetValue()
		}
		views = append(views, v)
	}
	return views
}

func modeView(m apiv1.Mode) string {
	switch m {
	case apiv1.Mode_MODE_SHARED:
		return "shared"
	case apiv1.Mode_MODE_PERMITS:
		return "permits"
	default:
		return "exclusive"
	}
}

// timeView is a duration in whole milliseconds, rounded down: who counts on it must
// not be told more than there is.
type timeView struct {
	text string
	ms   int64
}

func timeViewOf(ns int64) timeView {
	d := max(0, time.Duration(ns)).Truncate(time.Millisecond)
	return timeView{d.String(), d.Milliseconds()}
}

type statusView struct {
	NodeID         string `json:"node_id"`
	ClusterID      string `json:"cluster_id"`
	Version        string `json:"version"`
	State          string `json:"state"`
	Ready          bool   `json:"ready"`
	NotReadyReason string `json:"not_ready_reason,omitempty"`
	LeaderID       string `json:"leader_id"`
	LeaderAddress  string `json:"leader_address"`
	HTTPAddress    string `json:"http_address"`
	Term           uint64 `json:"term"`
	CommitIndex    uint64 `json:"commit_index"`
	AppliedIndex   uint64 `json:"applied_index"`
	Locks          uint64 `json:"locks"`
	Sessions       uint64 `json:"sessions"`
	Waiters        uint64 `json:"waiters"`
	LastToken      uint64 `json:"last_token"`
	ClusterTime    string `json:"cluster_time"`
	LogStore       string `json:"log_store"`
	Digest         string `json:"digest"` // hex: it does not fit a JSON number
	DigestIndex    uint64 `json:"digest_index"`
}

func statusViewOf(s *apiv1.StatusResponse) statusView {
	return statusView{
		NodeID: s.GetNodeId(), ClusterID: s.GetClusterId(), Version: s.GetVersion(), State: s.GetState(),
		Ready: s.GetReady(), NotReadyReason: s.GetNotReadyReason(),
		LeaderID: s.GetLeaderId(), LeaderAddress: s.GetLeaderAddress(), HTTPAddress: s.GetHttpAddress(),
		Term: s.GetTerm(), CommitIndex: s.GetCommitIndex(), AppliedIndex: s.GetAppliedIndex(),
		Locks: s.GetLocks(), Sessions: s.GetSessions(), Waiters: s.GetWaiters(), LastToken: s.GetLastToken(),
		ClusterTime: timeViewOf(s.GetClusterTime()).text, LogStore: s.GetLogStore(),
		Digest: fmt.Sprintf("%016x", s.GetDigest()), DigestIndex: s.GetDigestIndex(),
	}
}

type membersView struct {
	Members []memberView `json:"members"`
}

type memberView struct {
	ID            string `json:"id"`
	APIAddress    string `json:"api_address"`
	HTTPAddress   string `json:"http_address"`
	RaftAddress   string `json:"raft_address"`
	GossipAddress string `json:"gossip_address"`
	Role          string `json:"role"`
	Health        string `json:"health"`
	Version       string `json:"version"`
	Zone          string `json:"zone"`
}

func membersViewOf(m *apiv1.MembersResponse) membersView {
	v := membersView{Members: []memberView{}}
	for _, p := range m.GetMembers() {
		v.Members = append(v.Members, memberView{
			ID: p.GetId(), APIAddress: p.GetApiAddress(), HTTPAddress: p.GetHttpAddress(), RaftAddress: p.GetRaftAddress(),
			GossipAddress: p.GetGossipAddress(), Role: p.GetRole(), Health: p.GetHealth(), Version: p.GetVersion(), Zone: p.GetZone(),
		})
	}
	return v
}

type errorView struct {
	Error struct {
		Code    string       `json:"code"`
		Message string       `json:"message"`
		Holders []holderView `json:"holders,omitempty"`
	} `json:"error"`
}

func writeError(w http.ResponseWriter, err *apiv1.Error) {
	writeStatusError(w, apiv1.Code(err.GetCode()).HTTPStatus(), err)
}

func writeStatusError(w http.ResponseWriter, status int, err *apiv1.Error) {
	var v errorView
	v.Error.Code, v.Error.Message = apiv1.Code(err.GetCode()).String(), err.GetMessage()
	if len(err.GetHolders()) > 0 {
		v.Error.Holders = holderViews(err.GetHolders(), true)
	}
	if status == http.StatusServiceUnavailable || apiv1.Code(err.GetCode()) == apiv1.CodeOverloaded {
		w.Header().Set("Retry-After", "1")
	}
	_ = writeJSON(w, status, v)
}

// writePatience is how long a client may take to read an answer.
const writePatience = 30 * time.Second

// writeJSON returns an error if the client cannot have got all of it.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // the views are plain: a defect
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return err
	}
	return write(w, status, "application/json", buf.Bytes())
}

func writeText(w http.ResponseWriter, s string) {
	_ = write(w, http.StatusOK, "text/plain; charset=utf-8", []byte(s)) // a client that has gone away
}

func write(w http.ResponseWriter, status int, contentType string, body []byte) error {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(writePatience)) // not every ResponseWriter can
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, err := w.Write(body)
	flushErr := control.Flush() // before the request counts as done: Close may follow
	if err == nil && !errors.Is(flushErr, http.ErrNotSupported) {
		err = flushErr
	}
	return err
}
