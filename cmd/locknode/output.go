package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/locknode/locknode/client"
	"github.com/locknode/locknode/internal/document"
	"github.com/locknode/locknode/internal/quote"
)

// Results as text and as JSON. The JSON is that of the HTTP API: the documents of package
// document, which are filled here from the types of package client.

// result is where results are printed.
func (a *app) result() resultWriter { return resultWriter{a.stdout} }

// resultWriter is standard output. A write that fails returns an [outputError]: the result
// is lost, which the exit code has to say.
type resultWriter struct{ io.Writer }

func (w resultWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	if err != nil {
		return n, &outputError{err}
	}
	return n, nil
}

// flush returns when the output is stored: some file systems report only then that they are
// full.
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
	_, err := io.WriteString(a.result(), quote.Page(fmt.Sprintf(format, args...)))
	return err
}

// printJSON prints one value in one line.
func (a *app) printJSON(v any) error { return writeJSON(a.result(), v) }

// writeJSON writes one value in one line. It escapes characters that cannot be printed.
func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(quote.JSON(b.Bytes()))
	return err
}

// pageWriter escapes characters that cannot be printed. Each write must have whole characters.
type pageWriter struct{ io.Writer }

func (w pageWriter) Write(b []byte) (int, error) {
	if _, err := io.WriteString(w.Writer, quote.Page(string(b))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// jsonWriter escapes characters in JSON that cannot be printed. Each write must have whole
// lines.
type jsonWriter struct{ io.Writer }

func (w jsonWriter) Write(b []byte) (int, error) {
	if _, err := w.Writer.Write(quote.JSON(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// roughly formats a duration without digits that do not matter.
func roughly(d time.Duration) string {
	if d >= 10*time.Second {
		return d.Truncate(time.Second).String()
	}
	return d.Truncate(100 * time.Millisecond).String()
}

func (a *app) printGrant(verb string, d any, name string, token uint64, expiresIn time.Duration) error {
	if a.json {
		return a.printJSON(d)
	}
	return a.printf("%s: %s, token %d, expires in %s\n", quoteName(name), verb, token, roughly(expiresIn))
}

// lockDocument is the JSON of a lock. The caller adds its age.
func lockDocument(l client.LockInfo) document.Lock {
	d := document.Lock{
		Name: l.Name, Held: l.Held(), Holders: holderDocuments(l.Holders, false), HolderCount: l.HolderCount,
		Waiters: l.Waiters, Limit: l.Limit,
	}
	d.SetDelay(l.DelayLeft)
	return d
}

// holderDocuments is the JSON of holders. With named, each has the name of its lock.
func holderDocuments(holders []client.HolderInfo, named bool) []document.Holder {
	documents := make([]document.Holder, 0, len(holders))
	for _, h := range holders {
		d := document.Holder{
			Token: h.Token, Holder: h.Holder, Session: h.Session, Mode: mode(h), Permits: h.Permits, Labels: h.Labels,
		}
		d.SetTimes(h.Remaining, h.Since)
		d.SetValue(h.Value)
		if named {
			d.Lock = h.Lock
		}
		documents = append(documents, d)
	}
	return documents
}

// ageOf is the JSON of an answer's age, empty if no stale answer was accepted.
func ageOf(stale, age time.Duration) document.Age {
	if stale == 0 {
		return document.Age{}
	}
	return document.NewAge(age)
}

func mode(h client.HolderInfo) string {
	switch {
	case h.Shared:
		return document.Shared
	case h.Permits > 0:
		return document.Permits
	default:
		return document.Exclusive
	}
}

// lockText is the text for one lock.
func lockText(l client.LockInfo) string {
	var b strings.Builder
	name := quoteName(l.Name)
	switch {
	case l.Held() && l.Limit > 0:
		fmt.Fprintf(&b, "%s: %d holders of a semaphore of %d", name, l.HolderCount, l.Limit)
	case l.Held():
		fmt.Fprintf(&b, "%s: held", name)
	case l.DelayLeft > 0:
		fmt.Fprintf(&b, "%s: free, but not granted for another %s", name, roughly(l.DelayLeft))
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

func (a *app) printLocks(locks []client.LockInfo, next, prefix string) error {
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
	if err := a.table([]string{"NAME", "HOLDER", "TOKEN", "LEFT", "WAITING"}, rows); err != nil || next == "" {
		return err
	}
	return a.printf("and more: --limit 0 lists all, --page %s the next ones\n", quoteName(next))
}

// nodeJSON is one node of status: its own answer, or why it did not answer.
type nodeJSON struct {
	APIAddress string `json:"api_address"`
	Error      string `json:"error,omitempty"`
	document.Status
}

func statusesJSON(nodes []nodeStatus) map[string][]nodeJSON {
	out := make([]nodeJSON, 0, len(nodes))
	for _, n := range nodes {
		one := nodeJSON{APIAddress: n.address}
		if n.err != nil {
			one.NodeID, one.State, one.Error = n.id, "unreachable", n.reason().Error()
		} else {
			one.Status = statusDocument(n)
		}
		out = append(out, one)
	}
	return map[string][]nodeJSON{"nodes": out}
}

func statusDocument(n nodeStatus) document.Status {
	s := n.status
	d := document.Status{
		NodeID: s.NodeID, ClusterID: s.ClusterID, Version: s.Version, State: string(s.State),
		Ready: s.Ready, NotReadyReason: s.NotReadyReason, LeaderID: s.LeaderID, LeaderAddress: s.LeaderAddress,
		HTTPAddress: s.HTTPAddress, Term: s.Term, CommitIndex: s.CommitIndex, AppliedIndex: s.AppliedIndex,
		Locks: s.Locks, Sessions: s.Sessions, Waiters: s.Waiters, LastToken: s.LastToken,
		LogStore: s.LogStore,
		Voter:    s.Voter, Nonvoter: s.Nonvoter, Voters: s.Voters, VotersHealthy: s.VotersHealthy,
		VoterReady: s.VoterReady, VoterReason: s.VoterReason,
		Grants: s.Grants, Owners: s.Owners, TopOwners: []document.Owner{},
		TableBytes: s.TableBytes, TableBytesLimit: s.TableBytesLimit,
		FeatureLevel: s.FeatureLevel, FeatureLevelKnown: s.FeatureLevelKnown,
		AuthMode: s.AuthMode, AuthEnforced: s.AuthEnforced, AuthNote: s.AuthNote,
	}
	d.SetTable(s.ClusterTime, s.Digest, s.DigestIndex)
	for _, o := range s.TopOwners {
		d.TopOwners = append(d.TopOwners, document.Owner{
			Owner: o.Owner, Sessions: o.Sessions, Grants: o.Grants, Waiters: o.Waiters,
			OnceRemembered: o.RequestIDs, EndedRemembered: o.EndedSessions, TableBytes: o.Bytes,
		})
	}
	return d
}

func (a *app) printStatus(nodes []nodeStatus) error {
	var rows [][]string
	for _, n := range nodes {
		if n.err != nil {
			rows = append(rows, []string{a.nameCell(n.id), quoteName(n.address), "unreachable", "", "", "", "", "", "no: " + quote.Text(n.reason().Error())})
			continue
		}
		s := n.status
		ready := "yes"
		if !s.Ready {
			ready = "no: " + quote.Text(s.NotReadyReason)
		}
		number := func(n uint64) string { return strconv.FormatUint(n, 10) }
		rows = append(rows, []string{
			a.nameCell(s.NodeID), quoteName(n.address), quoteName(string(s.State)), number(s.Term), fmt.Sprintf("%d of %d", s.AppliedIndex, s.CommitIndex),
			strconv.Itoa(s.Locks), strconv.Itoa(s.Waiters), strconv.Itoa(s.Sessions), ready,
		})
	}
	if err := a.table([]string{"NODE", "API", "STATE", "TERM", "APPLIED", "LOCKS", "WAITING", "SESSIONS", "READY"}, rows); err != nil {
		return err
	}
	return a.printOwners(nodes)
}

func membersDocument(members []client.Member) document.Members {
	d := document.Members{Members: make([]document.Member, 0, len(members))}
	for _, m := range members {
		d.Members = append(d.Members, document.Member{
			ID: m.ID, APIAddress: m.APIAddress, HTTPAddress: m.HTTPAddress, RaftAddress: m.RaftAddress,
			GossipAddress: m.GossipAddress, Role: string(m.Role), Health: string(m.Health), Version: m.Version, Zone: m.Zone, FeatureLevel: m.FeatureLevel, TLS: m.TLS,
		})
	}
	return d
}

func (a *app) printMembers(members []client.Member) error {
	var rows [][]string
	for _, m := range members {
		row := []string{a.nameCell(m.ID)}
		for _, cell := range []string{
			string(m.Role), string(m.Health), m.APIAddress, m.HTTPAddress, m.RaftAddress, m.Version, orNothing(m.FeatureLevel), m.TLS, m.Zone,
		} {
			if cell != "" {
				cell = a.nameCell(cell)
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	return a.table([]string{"ID", "ROLE", "HEALTH", "API", "HTTP", "RAFT", "VERSION", "LEVEL", "TLS", "ZONE"}, rows)
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

// failoverJSON has the longest time without a finished cycle after each kill of the leader.
type failoverJSON struct {
	Kills       int     `json:"kills"`
	GapMedianMS float64 `json:"gap_median_ms"`
	GapMaxMS    float64 `json:"gap_max_ms"`
}

// orNothing formats a number for a table; 0 means unknown, and is empty.
func orNothing(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
