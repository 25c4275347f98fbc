package audit

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/locknode/locknode/internal/quote"
)

// Who has done it.
type Who struct {
	// Identity is who the caller has proved to be, or where it calls from if it has not:
	// token:NAME, cert:NAME, node:ID, embedded, anonymous.
	Identity string
	Address  string // of the caller, with its port
	Serial   string // of the certificate that it has shown, in hexadecimal digits
	Accessor string // of the access token that it has shown
}

// Record is one line.
type Record struct {
	Event   string // what was done: one of the constants
	Who     Who
	Name    string   // of what it was done to: a lock, a member, a limit, a policy
	Names   []string // the same, where there are several
	Token   uint64   // fencing token
	Session string   // the hash of a session, in hexadecimal digits
	Holder  string   // what the session or the holder calls itself
	Reason  string   // as the caller has given it
	Outcome string   // "ok", the name of a code of docs/api.md, or "begun"
	Error   string   // the message, where the outcome is not "ok"
	Index   uint64   // of the entry in the log; 0: not known, or there is none
	// Part numbers the records of one entry, from 1: together with Index it is different for
	// each of them. 0: the record is not of an entry alone.
	Part int
	// Again says that another node may have written the same record, with the same Index
	// and Part: it is written once more because the leader has changed.
	Again bool
	Notes []Note // everything else, in this order
}

// Note is one fact.
type Note struct{ Key, Value string }

// The events. They are part of the format: never renamed.
const (
	EventStart        = "node_start"
	EventStop         = "node_stop"
	EventReseeded     = "node_reseeded" // it starts with an empty directory in a cluster that it was a member of
	EventRestored     = "node_restored" // its table was replaced by a snapshot of another node
	EventFormed       = "cluster_formed"
	EventMember       = "member_changed"
	EventLevel        = "level_raised"
	EventSettings     = "settings_reloaded"
	EventForceRelease = "force_release"
	EventResize       = "resize"
	EventClear        = "clear_lock"
	EventKill         = "kill_sessions"
	EventSetLimits    = "set_limits"
	EventTransfer     = "transfer_leadership"
	EventRemove       = "remove_member"

	EventCreateToken    = "create_access_token"
	EventRevokeToken    = "revoke_access_token"
	EventBootstrapToken = "bootstrap_access_token"
	EventChangePolicies = "change_policies"

	EventDenied    = "denied"
	EventNotDenied = "would_be_denied" // auth.mode is log
	EventGrant     = "grant"
	EventGrantEnd  = "grant_end"
	EventLost      = "records_lost" // so many before this line could not be written
)

// The outcomes that are no codes.
const (
	OutcomeOK    = "ok"
	OutcomeBegun = "begun" // it was not done yet: another line follows
)

// maxText is how many bytes of a text a line has at most, and maxNames how many names: a
// caller must not be able to write lines of any length.
const (
	maxText  = 1024
	maxNames = 64
)

// clip shortens a text that is too long, and does not keep the memory of which it is part.
func clip(text string) string {
	if len(text) <= maxText {
		return text
	}
	end := maxText
	for end > maxText-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.Clone(text[:end]) + "…"
}

// clipped returns a copy of the record with all its texts bounded, which shares nothing that
// the caller may change.
func (r Record) clipped() Record {
	for _, text := range []*string{
		&r.Event, &r.Who.Identity, &r.Who.Address, &r.Who.Serial, &r.Who.Accessor, &r.Name, &r.Session, &r.Holder, &r.Reason, &r.Outcome, &r.Error,
	} {
		*text = clip(*text)
	}
	r.Names = slices.Clone(r.Names[:min(len(r.Names), maxNames)])
	for i, name := range r.Names {
		r.Names[i] = clip(name)
	}
	r.Notes = slices.Clone(r.Notes[:min(len(r.Notes), maxNames)])
	for i, n := range r.Notes {
		r.Notes[i] = Note{clip(n.Key), clip(n.Value)}
	}
	return r
}

// line is a record as it is written.
type line struct {
	Time     string            `json:"time"`
	Node     string            `json:"node,omitempty"`
	Cluster  string            `json:"cluster,omitempty"`
	Event    string            `json:"event"`
	Identity string            `json:"identity,omitempty"`
	Address  string            `json:"address,omitempty"`
	Serial   string            `json:"serial,omitempty"`
	Accessor string            `json:"accessor,omitempty"`
	Name     string            `json:"name,omitempty"`
	Names    []string          `json:"names,omitempty"`
	Token    uint64            `json:"token,omitempty"`
	Session  string            `json:"session,omitempty"`
	Holder   string            `json:"holder,omitempty"`
	Reason   string            `json:"reason,omitempty"`
	Outcome  string            `json:"outcome,omitempty"`
	Error    string            `json:"error,omitempty"`
	Index    uint64            `json:"index,omitempty"`
	Part     int               `json:"part,omitempty"`
	Again    bool              `json:"again,omitempty"`
	Notes    map[string]string `json:"notes,omitempty"`
}

// encode returns the record as one line, with its end. What cannot be printed is escaped:
// names and reasons come from anybody, and lines are shown on terminals.
func (r *Record) encode(at time.Time, node, cluster string) []byte {
	l := line{
		Time: at.UTC().Format(time.RFC3339Nano), Node: node, Cluster: cluster, Event: r.Event,
		Identity: r.Who.Identity, Address: r.Who.Address, Serial: r.Who.Serial, Accessor: r.Who.Accessor,
		Name: r.Name, Names: r.Names, Token: r.Token, Session: r.Session, Holder: r.Holder,
		Reason: r.Reason, Outcome: r.Outcome, Error: r.Error, Index: r.Index, Part: r.Part, Again: r.Again,
	}
	if len(r.Notes) > 0 {
		l.Notes = make(map[string]string, len(r.Notes))
		for _, n := range r.Notes {
			l.Notes[n.Key] = n.Value
		}
	}
	b, err := json.Marshal(&l)
	if err != nil {
		panic("encode an audit record: " + err.Error()) // it has only texts and numbers
	}
	return append(quote.JSON(b), '\n')
}
