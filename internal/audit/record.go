package audit

import (
	"encoding/json"
	"slices"
	"strconv"
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

// line builds a JSON object. There may be tens of thousands of them a second, so it uses no
// reflection.
type line struct{ b []byte }

func (l *line) key(name string) {
	if l.b[len(l.b)-1] != '{' {
		l.b = append(l.b, ',')
	}
	l.b = append(append(append(l.b, '"'), name...), `":`...)
}

// text adds a field, unless it is empty.
func (l *line) text(name, value string) {
	if value != "" {
		l.key(name)
		l.quoted(value)
	}
}

// number adds a field, unless it is 0.
func (l *line) number(name string, value uint64) {
	if value != 0 {
		l.key(name)
		l.b = strconv.AppendUint(l.b, value, 10)
	}
}

// quoted appends a string. What cannot be printed is escaped: names and reasons come from
// anybody, and lines are shown on terminals.
func (l *line) quoted(text string) {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			b, err := json.Marshal(text)
			if err != nil {
				panic("encode a text: " + err.Error()) // every string can be encoded
			}
			l.b = append(l.b, quote.JSON(b)...)
			return
		}
	}
	l.b = append(append(append(l.b, '"'), text...), '"')
}

// encode returns the record as one line, with its end. Names of fields are part of the format:
// docs/operations.md lists them.
func (r *Record) encode(at time.Time, node, cluster string) []byte {
	l := line{make([]byte, 1, 384)}
	l.b[0] = '{'
	l.key("time")
	l.b = append(at.UTC().AppendFormat(append(l.b, '"'), time.RFC3339Nano), '"')
	l.text("node", node)
	l.text("cluster", cluster)
	l.key("event")
	l.quoted(r.Event)
	l.text("identity", r.Who.Identity)
	l.text("address", r.Who.Address)
	l.text("serial", r.Who.Serial)
	l.text("accessor", r.Who.Accessor)
	l.text("name", r.Name)
	if len(r.Names) > 0 {
		l.key("names")
		l.b = append(l.b, '[')
		for i, name := range r.Names {
			if i > 0 {
				l.b = append(l.b, ',')
			}
			l.quoted(name)
		}
		l.b = append(l.b, ']')
	}
	l.number("token", r.Token)
	l.text("session", r.Session)
	l.text("holder", r.Holder)
	l.text("reason", r.Reason)
	l.text("outcome", r.Outcome)
	l.text("error", r.Error)
	l.number("index", r.Index)
	l.number("part", uint64(max(r.Part, 0)))
	if r.Again {
		l.key("again")
		l.b = append(l.b, "true"...)
	}
	if len(r.Notes) > 0 {
		l.key("notes")
		l.b = append(l.b, '{')
		for i, n := range r.Notes {
			if i > 0 {
				l.b = append(l.b, ',')
			}
			l.quoted(n.Key)
			l.b = append(l.b, ':')
			l.quoted(n.Value)
		}
		l.b = append(l.b, '}')
	}
	return append(l.b, "}\n"...)
}
