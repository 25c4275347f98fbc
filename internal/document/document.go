package document

import (
	"time"
)

// A document has each duration twice, as a Go string for people and as a number of milliseconds
// for programs. Tokens are numbers: they stay below 2^53, so that JavaScript reads them exactly.

// Grant is the answer to acquire.
type Grant struct {
	Renewed
	Waited   string `json:"waited"`
	WaitedMs int64  `json:"waited_ms"`
}

// NewGrant returns the document of a grant that lasts for expiresIn from now on.
func NewGrant(name string, token uint64, expiresIn, waited time.Duration) Grant {
	g := Grant{Renewed: NewRenewed(name, token, expiresIn)}
	g.Waited, g.WaitedMs = Span(waited)
	return g
}

// Renewed is the answer to renew.
type Renewed struct {
	Name        string `json:"name"`
	Token       uint64 `json:"token"`
	ExpiresIn   string `json:"expires_in"`
	ExpiresInMs int64  `json:"expires_in_ms"`
}

// NewRenewed returns the document of a grant that lasts for expiresIn from now on.
func NewRenewed(name string, token uint64, expiresIn time.Duration) Renewed {
	r := Renewed{Name: name, Token: token}
	r.ExpiresIn, r.ExpiresInMs = Span(expiresIn)
	return r
}

// Release is the answer to release.
type Release struct {
	Name  string `json:"name"`
	Token uint64 `json:"token"`
}

// Released is the answer to force-release: the holders until then.
type Released struct {
	Name     string   `json:"name"`
	Released []Holder `json:"released"`
}

// Resized is the answer to resize.
type Resized struct {
	Name  string `json:"name"`
	Limit int    `json:"limit"` // the new size
}

// Lock is one lock.
type Lock struct {
	Name        string   `json:"name"`
	Held        bool     `json:"held"`
	Holders     []Holder `json:"holders"` // the first 64
	HolderCount int      `json:"holder_count"`
	Waiters     int      `json:"waiters"`
	Limit       int      `json:"limit,omitempty"`      // semaphores only
	DelayLeft   string   `json:"delay_left,omitempty"` // how long the free lock is not granted
	DelayLeftMs int64    `json:"delay_left_ms,omitempty"`
	Age                  // stale reads only
}

// SetDelay sets how long the free lock is not granted.
func (l *Lock) SetDelay(d time.Duration) {
	if d > 0 {
		l.DelayLeft, l.DelayLeftMs = Span(d)
	}
}

// Page is a page of locks.
type Page struct {
	Locks []Lock `json:"locks"`
	Next  string `json:"next,omitempty"` // pass as page; empty: this is the last one
	Age
}

// Age is how old a stale answer may be. Its zero value is for an answer that is not stale.
type Age struct {
	Age   string `json:"age,omitempty"`
	AgeMs *int64 `json:"age_ms,omitempty"`
}

// NewAge returns the age of an answer that may be stale.
func NewAge(d time.Duration) Age {
	text, ms := Span(d)
	return Age{text, &ms}
}

// Holder is a grant on a lock.
type Holder struct {
	Lock        string            `json:"lock,omitempty"` // where the document does not have it otherwise
	Token       uint64            `json:"token"`
	Holder      string            `json:"holder"`
	Session     string            `json:"session,omitempty"` // hexadecimal; empty: a detached grant
	Mode        string            `json:"mode"`
	Permits     int               `json:"permits,omitempty"`
	Remaining   string            `json:"remaining"`
	RemainingMs int64             `json:"remaining_ms"`
	Since       string            `json:"since"`
	Value       *string           `json:"value,omitempty"`
	ValueBase64 string            `json:"value_base64,omitempty"` // of a value that is not UTF-8
	Labels      map[string]string `json:"labels,omitempty"`
}

// The modes.
const (
	Exclusive = "exclusive"
	Shared    = "shared"
	Permits   = "permits"
)

// SetTimes sets how long the grant lasts if it is not renewed, and since when it exists.
func (h *Holder) SetTimes(remaining time.Duration, since time.Time) {
	h.Remaining, h.RemainingMs = Span(remaining)
	h.Since = since.UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// Status is the state of a node, as it reports it.
type Status struct {
	NodeID         string `json:"node_id"`
	ClusterID      string `json:"cluster_id"`
	Version        string `json:"version"`
	State          string `json:"state"`
	Ready          bool   `json:"ready"`
	NotReadyReason string `json:"not_ready_reason,omitempty"`
	Voter          bool   `json:"voter"`
	Nonvoter       bool   `json:"nonvoter"`
	Voters         int    `json:"voters"`
	VotersHealthy  int    `json:"voters_healthy"`
	VoterReady     bool   `json:"voter_ready"`
	VoterReason    string `json:"voter_reason,omitempty"`
	LeaderID       string `json:"leader_id"`
	LeaderAddress  string `json:"leader_address"`
	HTTPAddress    string `json:"http_address"`
	Term           uint64 `json:"term"`
	CommitIndex    uint64 `json:"commit_index"`
	AppliedIndex   uint64 `json:"applied_index"`
	Locks          int    `json:"locks"`
	Sessions       int    `json:"sessions"`
	Waiters        int    `json:"waiters"`
	LastToken      uint64 `json:"last_token"`
	ClusterTime    string `json:"cluster_time"`
	LogStore       string `json:"log_store"`
	Digest         string `json:"digest"` // hexadecimal: it does not fit a JSON number
	DigestIndex    uint64 `json:"digest_index"`

	Grants            int     `json:"grants"`
	Owners            int     `json:"owners"`
	TopOwners         []Owner `json:"top_owners"`
	TableBytes        int64   `json:"table_bytes"`
	TableBytesLimit   int64   `json:"table_bytes_limit"`
	FeatureLevel      int     `json:"feature_level"`
	FeatureLevelKnown int     `json:"feature_level_known"`
	AuthMode          string  `json:"auth_mode"`
	AuthEnforced      bool    `json:"auth_enforced"`
	AuthNote          string  `json:"auth_note,omitempty"`
}

// SetTable sets the cluster time of the table, its digest, and the index of the digest.
func (s *Status) SetTable(clusterTime time.Duration, digest, index uint64) {
	s.ClusterTime, _ = Span(clusterTime)
	s.Digest, s.DigestIndex = hexadecimal(digest), index
}

// Owner is what the sessions and requests of one address have in the table.
type Owner struct {
	Owner           string `json:"owner"`
	Sessions        int    `json:"sessions"`
	Grants          int    `json:"grants"`
	Waiters         int    `json:"waiters"`
	OnceRemembered  int    `json:"once_remembered"`
	EndedRemembered int    `json:"ended_remembered"`
	TableBytes      int64  `json:"table_bytes"`
}

// Members are the members of the cluster.
type Members struct {
	Members []Member `json:"members"`
}

// Member is a member or peer, as one node knows it.
type Member struct {
	ID            string `json:"id"`
	APIAddress    string `json:"api_address"`
	HTTPAddress   string `json:"http_address"`
	RaftAddress   string `json:"raft_address"`
	GossipAddress string `json:"gossip_address"`
	Role          string `json:"role"`
	Health        string `json:"health"`
	Version       string `json:"version"`
	Zone          string `json:"zone"`
	FeatureLevel  int    `json:"feature_level"`
	TLS           string `json:"tls"` // off, permissive or required; empty: not known
}

// Leader is the answer to a transfer of leadership.
type Leader struct {
	LeaderID string `json:"leader_id"`
}

// Removed is the answer to the removal of a member.
type Removed struct {
	Removed string `json:"removed"`
}

// Sessions is a page of open sessions.
type Sessions struct {
	Sessions []Session `json:"sessions"`
	Next     string    `json:"next,omitempty"` // pass as page; empty: this is the last one
}

// Session is an open session.
type Session struct {
	Hash        string            `json:"hash"`
	Number      uint64            `json:"number"`
	Owner       string            `json:"owner"`
	Holder      string            `json:"holder"`
	TTL         string            `json:"ttl"`
	TTLMs       int64             `json:"ttl_ms"`
	Remaining   string            `json:"remaining"`
	RemainingMs int64             `json:"remaining_ms"`
	Grants      int               `json:"grants"`
	Waiters     int               `json:"waiters"`
	TableBytes  int64             `json:"table_bytes"`
	Labels      map[string]string `json:"labels,omitempty"`
}

// SetTimes sets how long the session lasts without keep-alives, and how much of that is left.
func (s *Session) SetTimes(ttl, remaining time.Duration) {
	s.TTL, s.TTLMs = Span(ttl)
	s.Remaining, s.RemainingMs = Span(remaining)
}

// Killed is the answer when an operator ends sessions.
type Killed struct {
	Killed  int `json:"killed"`
	Grants  int `json:"grants"` // that belonged to no session, as the waiters
	Waiters int `json:"waiters"`
}

// Cleared is the answer to clear.
type Cleared struct {
	Name    string `json:"name"`
	Grants  int    `json:"grants"`
	Waiters int    `json:"waiters"`
}

// Limits are limits of the lock table.
type Limits struct {
	Limits []Limit `json:"limits"`
}

// LimitsSet is the answer to a change of limits.
type LimitsSet struct {
	Before []Limit `json:"before"`
	After  []Limit `json:"after"`
}

// Limit is one limit of the lock table.
type Limit struct {
	Name    string `json:"name"`
	Value   int64  `json:"value"` // of a duration in nanoseconds
	Text    string `json:"text"`  // the value for people, and for "limits set"
	Default int64  `json:"default"`
	Largest int64  `json:"largest"`
}

// Failure is the answer, or the output on standard error, when there is an error.
type Failure struct {
	Error Error `json:"error"`
}

// Error is the error of an operation.
type Error struct {
	Code     string   `json:"code"`
	Message  string   `json:"message"`
	Holders  []Holder `json:"holders,omitempty"`
	ExitCode int      `json:"exit_code,omitempty"` // of the command
	Hint     string   `json:"hint,omitempty"`      // of the command
}
