package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	apiv1 "github.com/locknode/locknode/api/v1"
	"github.com/locknode/locknode/client"
)

// Results as people read them and as JSON. The JSON has the names of the HTTP
// API: durations are Go strings, tokens are numbers.

// result is where results are printed.
func (a *app) result() resultWriter { return resultWriter{a.stdout} }

// resultWriter is standard output. Where a write fails the result is lost, which
// the exit code has to say.
type resultWriter struct{ io.Writer }

func (w resultWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if err != nil {
		return n, &outputError{err}
	}
	return n, nil
}

// flush returns when what was written is where it was to go: some file systems
// say only then that they are full.
func (w resultWriter) flush() error {
	f, ok := w.Writer.(*os.File)
	if !ok {
		return nil
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil // pipes and terminals have nothing to flush
	}
	if err := f.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) {
		return &outputError{err}
	}
	return nil
}

func (a *app) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(a.result(), format, args...)
	return err
}

// printJSON prints one value in one line.
func (a *app) printJSON(v any) error {
	encoder := json.NewEncoder(a.result())
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// left is a remaining time as JSON has it: rounded down, because whoever counts
// on it must not be told more than there is.
func left(d time.Duration) string { return max(0, d).Truncate(time.Millisecond).String() }

// roughly is a time for people.
func roughly(d time.Duration) string {
	if d >= 10*time.Second {
		return d.Truncate(time.Second).String()
	}
	return d.Truncate(100 * time.Millisecond).String()
}

type grantJSON struct {
	Name      string `json:"name"`
	Token     uint64 `json:"token"`
	ExpiresIn string `json:"expires_in"`
}

func (a *app) printGrant(verb, name string, token uint64, expiresIn time.Duration) error {
	if a.json {
		return a.printJSON(grantJSON{name, token, left(expiresIn)})
	}
	return a.printf("%s: %s, token %d, expires in %s\n", quoteName(name), verb, token, roughly(expiresIn))
}

type lockJSON struct {
	Name        string       `json:"name"`
	Held        bool         `json:"held"`
	Holders     []holderJSON `json:"holders"` // the first 64
	HolderCount int          `json:"holder_count"`
	Waiters     int          `json:"waiters"`
	Limit       int          `json:"limit,omitempty"`
	DelayLeft   string       `json:"delay_left,omitempty"`
	Age         string       `json:"age,omitempty"`
}

type holderJSON struct {
	Token       uint64            `json:"token"`
	Holder      string            `json:"holder"`
	Session     string            `json:"session,omitempty"`
	Mode        string            `json:"mode"`
	Permits     int               `json:"permits,omitempty"`
	Remaining   string            `json:"remaining"`
	Since       string            `json:"since"`
	Value       *string           `json:"value,omitempty"`
	ValueBase64 string            `json:"value_base64,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
}

func lockInfoJSON(l client.LockInfo) lockJSON {
	out := lockJSON{
		Name: l.Name, Held: l.Held(), Holders: holdersJSON(l.Holders), HolderCount: l.HolderCount,
		Waiters: l.Waiters, Limit: l.Limit,
	}
	if l.DelayLeft > 0 {
		out.DelayLeft = left(l.DelayLeft)
	}
	if l.Age > 0 {
		out.Age = l.Age.String()
	}
	return out
}

func holdersJSON(holders []client.HolderInfo) []holderJSON {
	out := make([]holderJSON, 0, len(holders))
	for _, h := range holders {
		j := holderJSON{
			Token: h.Token, Holder: h.Holder, Session: h.Session, Mode: mode(h), Permits: h.Permits,
			Remaining: left(h.Remaining), Since: h.Since.UTC().Format("2006-01-02T15:04:05.000Z07:00"), Labels: h.Labels,
		}
		switch text := string(h.Value); {
		case text == "":
		case utf8.ValidString(text):
			j.Value = &text
		default:
			j.ValueBase64 = base64.StdEncoding.EncodeToString(h.Value)
		}
		out = append(out, j)
	}
	return out
}

func mode(h client.HolderInfo) string {
	switch {
	case h.Shared:
		return "shared"
	case h.Permits > 0:
		return "permits"
	default:
		return "exclusive"
	}
}

// lockText is one lock for people.
func lockText(l client.LockInfo) string {
	var b strings.Builder
	name := quoteName(l.Name)
	switch {
	case l.Held() && l.Limit > 0:
		fmt.Fprintf(&b, "%s: %d holders of a semaphore of %d", name, l.HolderCount, l.Limit)
	case l.Held():
		fmt.Fprintf(&b, "%s: held", name)
	case l.DelayLeft > 0:
		fmt.Fprintf(&b, "%s: free, but not to be had for another %s", name, roughly(l.DelayLeft))
	default:
		fmt.Fprintf(&b, "%s: free", name)
	}
	if l.Waiters > 0 {
		fmt.Fprintf(&b, ", %d waiting", l.Waiters)
	}
	if l.Age > 0 {
		fmt.Fprintf(&b, " (as it was at most %s ago)", l.Age.Round(time.Millisecond))
	}
	b.WriteByte('\n')
	for _, h := range l.Holders {
		b.WriteString("  " + holderText(h) + "\n")
	}
	if more := l.HolderCount - len(l.Holders); more > 0 {
		fmt.Fprintf(&b, "  and %d more\n", more)
	}
	return b.String()
}

func holderText(h client.HolderInfo) string {
	text := fmt.Sprintf("by %s, token %d, %s left", quoteName(h.Holder), h.Token, roughly(h.Remaining))
	if h.Session != "" {
		text += " unless its session is kept alive"
	}
	switch {
	case h.Shared:
		text += ", shared"
	case h.Permits > 0:
		text += fmt.Sprintf(", %d permits", h.Permits)
	}
	text += ", since " + h.Since.Local().Format(time.DateTime)
	if len(h.Value) > 0 {
		text += fmt.Sprintf(", value %q", h.Value)
	}
	return text
}

type pageJSON struct {
	Locks []lockJSON `json:"locks"`
	More  bool       `json:"more,omitempty"` // --limit left some out
}

func locksJSON(locks []client.LockInfo, more bool) pageJSON {
	out := pageJSON{Locks: make([]lockJSON, 0, len(locks)), More: more}
	for _, l := range locks {
		out.Locks = append(out.Locks, lockInfoJSON(l))
	}
	return out
}

func (a *app) printLocks(locks []client.LockInfo, more bool, prefix string) error {
	if len(locks) == 0 {
		return a.printf("%s", noLocks(prefix))
	}
	var rows [][]string
	for _, l := range locks {
		row := []string{a.nameCell(l.Name), "", "", "", strconv.Itoa(l.Waiters)}
		if len(l.Holders) > 0 {
			h := l.Holders[0]
			row[1], row[2], row[3] = a.nameCell(h.Holder), strconv.FormatUint(h.Token, 10), roughly(h.Remaining)
		}
		if l.HolderCount > 1 {
			row[1] += fmt.Sprintf(" and %d more", l.HolderCount-1)
		}
		rows = append(rows, row)
	}
	if err := a.table([]string{"NAME", "HOLDER", "TOKEN", "LEFT", "WAITING"}, rows); err != nil || !more {
		return err
	}
	return a.printf("and more: --limit 0 lists all\n")
}

type statusJSON struct {
	NodeID         string `json:"node_id,omitempty"`
	Address        string `json:"api_address"`
	Error          string `json:"error,omitempty"`
	ClusterID      string `json:"cluster_id,omitempty"`
	Version        string `json:"version,omitempty"`
	State          string `json:"state"`
	Ready          bool   `json:"ready"`
	NotReadyReason string `json:"not_ready_reason,omitempty"`
	LeaderID       string `json:"leader_id,omitempty"`
	LeaderAddress  string `json:"leader_address,omitempty"`
	HTTPAddress    string `json:"http_address,omitempty"`
	Term           uint64 `json:"term"`
	CommitIndex    uint64 `json:"commit_index"`
	AppliedIndex   uint64 `json:"applied_index"`
	Locks          uint64 `json:"locks"`
	Sessions       uint64 `json:"sessions"`
	Waiters        uint64 `json:"waiters"`
	LastToken      uint64 `json:"last_token"`
	ClusterTime    string `json:"cluster_time,omitempty"`
	LogStore       string `json:"log_store,omitempty"`
	Digest         string `json:"digest,omitempty"` // hexadecimal
	DigestIndex    uint64 `json:"digest_index"`
}

func statusesJSON(nodes []nodeStatus) map[string][]statusJSON {
	out := make([]statusJSON, 0, len(nodes))
	for _, n := range nodes {
		if n.err != nil {
			out = append(out, statusJSON{NodeID: n.id, Address: n.address, State: "unreachable", Error: n.err.Error()})
			continue
		}
		s := n.status
		out = append(out, statusJSON{
			NodeID: s.GetNodeId(), Address: n.address, ClusterID: s.GetClusterId(), Version: s.GetVersion(), State: s.GetState(),
			Ready: s.GetReady(), NotReadyReason: s.GetNotReadyReason(), LeaderID: s.GetLeaderId(), LeaderAddress: s.GetLeaderAddress(),
			HTTPAddress: s.GetHttpAddress(), Term: s.GetTerm(), CommitIndex: s.GetCommitIndex(), AppliedIndex: s.GetAppliedIndex(),
			Locks: s.GetLocks(), Sessions: s.GetSessions(), Waiters: s.GetWaiters(), LastToken: s.GetLastToken(),
			ClusterTime: left(time.Duration(s.GetClusterTime())), LogStore: s.GetLogStore(),
			Digest: fmt.Sprintf("%016x", s.GetDigest()), DigestIndex: s.GetDigestIndex(),
		})
	}
	return map[string][]statusJSON{"nodes": out}
}

func (a *app) printStatus(nodes []nodeStatus) error {
	var rows [][]string
	for _, n := range nodes {
		if n.err != nil {
			rows = append(rows, []string{a.nameCell(n.id), quoteName(n.address), "unreachable", "", "", "", "", "", "no"})
			continue
		}
		s := n.status
		ready := "yes"
		if !s.GetReady() {
			ready = "no: " + printableText(s.GetNotReadyReason())
		}
		number := func(n uint64) string { return strconv.FormatUint(n, 10) }
		rows = append(rows, []string{
			a.nameCell(s.GetNodeId()), n.address, quoteName(s.GetState()), number(s.GetTerm()), fmt.Sprintf("%d of %d", s.GetAppliedIndex(), s.GetCommitIndex()),
			number(s.GetLocks()), number(s.GetWaiters()), number(s.GetSessions()), ready,
		})
	}
	return a.table([]string{"NODE", "API", "STATE", "TERM", "APPLIED", "LOCKS", "WAITING", "SESSIONS", "READY"}, rows)
}

type memberJSON struct {
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

func membersJSON(members []*apiv1.Member) map[string][]memberJSON {
	out := make([]memberJSON, 0, len(members))
	for _, m := range members {
		out = append(out, memberJSON{
			ID: m.GetId(), APIAddress: m.GetApiAddress(), HTTPAddress: m.GetHttpAddress(), RaftAddress: m.GetRaftAddress(),
			GossipAddress: m.GetGossipAddress(), Role: m.GetRole(), Health: m.GetHealth(), Version: m.GetVersion(), Zone: m.GetZone(),
		})
	}
	return map[string][]memberJSON{"members": out}
}

func (a *app) printMembers(members []*apiv1.Member) error {
	var rows [][]string
	for _, m := range members {
		row := []string{a.nameCell(m.GetId())}
		for _, cell := range []string{
			m.GetRole(), m.GetHealth(), m.GetApiAddress(), m.GetHttpAddress(), m.GetRaftAddress(), m.GetVersion(), m.GetZone(),
		} {
			if cell != "" {
				cell = a.nameCell(cell)
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	return a.table([]string{"ID", "ROLE", "HEALTH", "API", "HTTP", "RAFT", "VERSION", "ZONE"}, rows)
}

// The result of bench.

type benchJSON struct {
	Workload     string        `json:"workload"`
	Workers      int           `json:"workers"`
	OpsPerSecond float64       `json:"ops_per_second"`
	LatencyMS    latencyJSON   `json:"latency_ms"`
	Errors       int64         `json:"errors"`
	Failover     *failoverJSON `json:"failover,omitempty"` // of the workload failover only
}

type latencyJSON struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// failoverJSON is how long nothing was finished around each kill of the leader.
type failoverJSON struct {
	Kills       int     `json:"kills"`
	GapMedianMS float64 `json:"gap_median_ms"`
	GapMaxMS    float64 `json:"gap_max_ms"`
}
