package history

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/locknode/locknode/fsm"
)

// A written history is a line of JSON for each record, after a line with the format's version.
// Of a log entry, only the parts that the checks use are written.

const formatVersion = 1

// maxLine bounds the length of a line for Read.
const maxLine = 16 << 20

// line has one field set.
type line struct {
	Format  int        `json:"history,omitempty"` // the first line: the version
	Op      *Op        `json:"op,omitempty"`
	Belief  *Belief    `json:"belief,omitempty"`
	Entry   *entryLine `json:"entry,omitempty"`
	Fault   *Fault     `json:"fault,omitempty"`
	Dropped int        `json:"dropped,omitempty"`
}

type entryLine struct {
	Node    string        `json:"node"`
	At      time.Duration `json:"at"`
	Index   uint64        `json:"index"`
	Term    uint64        `json:"term"`
	Now     fsm.Instant   `json:"now"`
	Refused fsm.Code      `json:"refused,omitempty"`
	Digest  string        `json:"digest"`
	Same    bool          `json:"same,omitempty"` // events as in an earlier line with this index and digest
	Events  []eventLine   `json:"events,omitempty"`
}

type eventLine struct {
	Kind     fsm.EventKind `json:"kind"`
	Code     fsm.Code      `json:"code,omitempty"`
	Request  string        `json:"request,omitempty"`
	Try      string        `json:"try,omitempty"` // as in Op
	Holder   string        `json:"holder,omitempty"`
	Session  string        `json:"session,omitempty"`
	Token    uint64        `json:"token,omitempty"`
	Wants    []Want        `json:"wants,omitempty"`
	Deadline fsm.Instant   `json:"deadline,omitempty"`
	Queued   fsm.Instant   `json:"queued,omitempty"`
	Granted  fsm.Instant   `json:"granted,omitempty"`
	Waited   int64         `json:"waited,omitempty"`
	Held     int64         `json:"held,omitempty"`
}

// eventsKey finds the line that has an entry's events.
type eventsKey struct{ index, digest uint64 }

// Write writes the history as lines of JSON, for [Read].
func (h *History) Write(w io.Writer) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	errs := []error{enc.Encode(line{Format: formatVersion})}
	put := func(l line) { errs = append(errs, enc.Encode(l)) }
	for i := range h.Faults {
		put(line{Fault: &h.Faults[i]})
	}
	for i := range h.Ops {
		put(line{Op: &h.Ops[i]})
	}
	for i := range h.Beliefs {
		put(line{Belief: &h.Beliefs[i]})
	}
	written := make(map[eventsKey]bool)
	for i := range h.Entries {
		put(line{Entry: h.Entries[i].line(written)})
	}
	if h.Dropped > 0 {
		put(line{Dropped: h.Dropped})
	}
	if err := errors.Join(append(errs, out.Flush())...); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	return nil
}

func (e *Entry) line(written map[eventsKey]bool) *entryLine {
	a := &e.Applied
	l := &entryLine{
		Node: e.Node, At: e.At, Index: a.Index, Term: a.Term, Now: a.Now, Refused: a.Refused,
		Digest: strconv.FormatUint(a.Digest, 16),
	}
	key := eventsKey{a.Index, a.Digest}
	if l.Same = written[key]; l.Same {
		return l
	}
	for i := range a.Events {
		l.Events = append(l.Events, newEventLine(&a.Events[i]))
	}
	written[key] = len(a.Events) > 0
	return l
}

func newEventLine(e *fsm.Event) eventLine {
	l := eventLine{
		Kind: e.Kind, Code: e.Code, Request: requestOf(e).String(), Token: e.Token, Holder: e.Holder,
		Deadline: e.Result.Deadline, Queued: e.Result.Queued, Granted: e.Result.Granted, Waited: e.Waited, Held: e.Held,
	}
	if e.Request.Once != (fsm.OnceID{}) {
		l.Try = requestOf(e).try()
	}
	if e.Session != (fsm.SessionID{}) {
		l.Session = hex.EncodeToString(e.Session[:])
	}
	for _, w := range e.Wants {
		l.Wants = append(l.Wants, Want(w))
	}
	return l
}

func requestOf(e *fsm.Event) requestID {
	return requestID{session: e.Request.Session, sequence: e.Request.Sequence, once: e.Request.Once}
}

// Read reads what [History.Write] has written.
func Read(r io.Reader) (*History, error) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, 64<<10), maxLine)
	h := &History{}
	events := make(map[eventsKey][]fsm.Event)
	n := 0
	for in.Scan() {
		n++
		if err := h.readLine(in.Bytes(), n == 1, events); err != nil {
			return nil, fmt.Errorf("read history: line %d: %w", n, err)
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("read history: line %d: %w", n+1, err)
	}
	if n == 0 {
		return nil, errors.New("read history: it is empty")
	}
	return h, nil
}

func (h *History) readLine(text []byte, first bool, events map[eventsKey][]fsm.Event) error {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return err
	}
	switch {
	case first && l.Format != formatVersion:
		return fmt.Errorf("field \"history\" is %d: the first line must have version %d", l.Format, formatVersion)
	case first:
	case l.Op != nil:
		h.Ops = append(h.Ops, *l.Op)
	case l.Belief != nil:
		h.Beliefs = append(h.Beliefs, *l.Belief)
	case l.Entry != nil:
		e, err := l.Entry.entry(events)
		if err != nil {
			return err
		}
		h.Entries = append(h.Entries, e)
	case l.Fault != nil:
		h.Faults = append(h.Faults, *l.Fault)
	case l.Dropped != 0:
		h.Dropped = l.Dropped
	default:
		return errors.New("must be an op, a belief, an entry, a fault or dropped")
	}
	return nil
}

func (l *entryLine) entry(events map[eventsKey][]fsm.Event) (Entry, error) {
	digest, err := strconv.ParseUint(l.Digest, 16, 64)
	if err != nil {
		return Entry{}, fmt.Errorf("digest %q: must be hexadecimal", l.Digest)
	}
	e := Entry{Node: l.Node, At: l.At, Applied: fsm.Applied{
		Index: l.Index, Term: l.Term, Now: l.Now, Refused: l.Refused, Digest: digest,
	}}
	key := eventsKey{l.Index, digest}
	if l.Same {
		e.Applied.Events = events[key]
		return e, nil
	}
	for i := range l.Events {
		ev, err := l.Events[i].event()
		if err != nil {
			return Entry{}, err
		}
		e.Applied.Events = append(e.Applied.Events, ev)
	}
	if len(l.Events) > 0 {
		events[key] = e.Applied.Events
	}
	return e, nil
}

func (l *eventLine) event() (fsm.Event, error) {
	id, err := parseRequest(l.Request)
	if err != nil {
		return fsm.Event{}, err
	}
	if l.Try != "" {
		try, err := parseRequest(l.Try)
		if err != nil {
			return fsm.Event{}, err
		}
		id.session, id.sequence = try.session, try.sequence
	}
	session, err := parse16("session", l.Session)
	e := fsm.Event{
		Kind: l.Kind, Holder: l.Holder, Code: l.Code, Session: session, Token: l.Token, Waited: l.Waited, Held: l.Held,
		Request: fsm.RequestID{Session: id.session, Sequence: id.sequence, Once: id.once},
		Result:  fsm.Result{Deadline: l.Deadline, Queued: l.Queued, Granted: l.Granted},
	}
	if l.Kind == fsm.EventGranted {
		e.Result.Token = l.Token
	}
	for _, w := range l.Wants {
		e.Wants = append(e.Wants, fsm.Want(w))
	}
	return e, err
}

func parseRequest(s string) (id requestID, err error) {
	if s == "" {
		return id, nil
	}
	before, after, ok := strings.Cut(s, "/")
	if before == "once" {
		id.once, err = parse16("request", after)
		return id, err
	}
	if id.session, err = parse16("request", before); err != nil {
		return id, err
	}
	if id.sequence, err = strconv.ParseUint(after, 10, 64); !ok || err != nil {
		return id, fmt.Errorf("request %q: must be session/sequence or once/ID", s)
	}
	return id, nil
}

func parse16(field, s string) (id [16]byte, err error) {
	if s == "" {
		return id, nil
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("%s %q: must be 16 bytes in hexadecimal", field, s)
	}
	return [16]byte(b), nil
}
