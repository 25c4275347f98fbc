package fsm

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The scripts in testdata/scripts tell stories of locks. A line that begins with
// "> " is input; the lines after it are what happened, and are compared, or
// written again with -update. Blank lines and lines that begin with "#" are for
// the reader. The input:
//
//	at 1.5s                   an empty entry with this stamp; later entries repeat it
//	term 3 [stamped 2]        the term of the entries that follow
//	open|end SESSION …        and keep, kill
//	acquire ID LOCK… …        LOCK is name, name:shared or name:2/3 (permits/limit);
//	                          detached=yes and once=NAME make it a detached one
//	cancel|release|renew|value|force|resize ID …
//	limits FIELD=VALUE…       and found NAME
//	level N
//	token ACCESSOR NAME …     and revoke ACCESSOR
//	policy NAME for=CALLER,… FIELD=N…, and drop NAME…
//	raw HEX                   a command of these bytes
//	batch … go                the commands between are one entry
//	show LOCK…, list, session SESSION, stats, next
//	restore                   go on with a table restored from a snapshot
//
// An ID is SESSION/SEQUENCE or -; acked=N and answered=N-N,N-N belong to it. The rest
// are key=value pairs; with as=CALLER, and force=yes, the request comes as somebody.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := string(data)
			got := runScript(t, want)
			if got == want {
				return
			}
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Error(firstDifference(file, got, want))
		})
	}
}

func firstDifference(file, got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("%s:%d:\n got %s\nwant %s", file, i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%s: got %d lines, want %d", file, len(g), len(w))
}

type script struct {
	*testing.T
	table   *Table
	out     strings.Builder
	index   uint64
	term    uint64
	stamped uint64
	stamp   Instant
	batch   [][]byte // commands of the entry under way
	inBatch bool
}

func runScript(t *testing.T, text string) string {
	t.Helper()
	s := &script{T: t, table: New(), term: 1, stamped: 1}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		input, ok := strings.CutPrefix(line, "> ")
		if ok || line == "" || strings.HasPrefix(line, "#") {
			s.printf("%s", line)
		}
		if ok {
			s.do(input)
		}
	}
	return s.out.String()
}

func (s *script) printf(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

// args are the words of a line: those without "=" in order, the others by key.
type args struct {
	words []string
	pairs map[string]string
}

func parseArgs(fields []string) args {
	a := args{pairs: map[string]string{}}
	for _, f := range fields {
		if k, v, ok := strings.Cut(f, "="); ok {
			a.pairs[k] = v
		} else {
			a.words = append(a.words, f)
		}
	}
	return a
}

func (s *script) do(line string) {
	s.Helper()
	fields := strings.Fields(line)
	a := parseArgs(fields[1:])
	switch fields[0] {
	case "at":
		s.stamp = Instant(s.duration(a.words[0]))
		s.apply()
	case "term":
		s.term = s.number(a.words[0])
		s.stamped = s.term
		if len(a.words) > 2 {
			s.stamped = s.number(a.words[2])
		}
	case "batch":
		s.inBatch = true
	case "go":
		s.inBatch = false
		s.apply()
	case "show":
		for _, name := range a.words {
			s.show(s.table.Lock(name))
		}
	case "list":
		s.list(a)
	case "session":
		s.session(a.words[0])
	case "stats":
		v := s.table.Stats()
		s.printf("%d locks, %d sessions, %d grants, %d waiters, last token %d, now %s",
			v.Locks, v.Sessions, v.Grants, v.Waiters, v.LastToken, seconds(v.Now))
	case "next":
		if at, ok := s.table.NextDeadline(); ok {
			s.printf("next deadline %s", seconds(at))
		} else {
			s.printf("no deadline")
		}
	case "restore":
		s.restore()
	case "raw":
		raw, err := hex.DecodeString(a.words[0])
		if err != nil {
			s.Fatal(err)
		}
		s.add(append([]byte{byte(len(raw))}, raw...))
	default:
		c := s.command(fields[0], a)
		if caller := a.pairs["as"]; caller != "" {
			c = As{Caller: caller, Force: a.pairs["force"] != "", Command: c}
		}
		s.add(AppendCommand(nil, c))
	}
}

// add makes an entry of a command, or puts it into the one under way.
func (s *script) add(command []byte) {
	s.Helper()
	s.batch = append(s.batch, command)
	if !s.inBatch {
		s.apply()
	}
}

func (s *script) apply() {
	s.Helper()
	s.index++
	data := AppendHeader(nil, s.stamped, s.stamp, int64(s.index), len(s.batch))
	data = append(data, slices.Concat(s.batch...)...)
	s.batch = nil
	a := s.table.Apply(s.index, s.term, data)
	s.trace(a)
}

func (s *script) trace(a Applied) {
	s.Helper()
	if a.Refused != OK {
		s.printf("refused: %s", codeName(a.Refused))
	}
	for _, r := range a.Results {
		s.printf("%s", resultText(r))
	}
	for _, e := range a.Events {
		s.printf("  %s", eventText(e))
	}
	if a.MoreDue {
		s.printf("  more is due")
	}
	if err := s.table.check(); err != nil {
		s.Fatalf("after entry %d: %v", a.Index, err)
	}
}

func (s *script) restore() {
	s.Helper()
	before := s.table.Hash()
	var buf bytes.Buffer
	if _, err := s.table.Snapshot().WriteTo(&buf); err != nil {
		s.Fatal(err)
	}
	table, err := Restore(&buf)
	if err != nil {
		s.Fatal(err)
	}
	if table.Hash() != before {
		s.Fatal("restored table is another")
	}
	s.table = table
}

func (s *script) command(name string, a args) Command {
	s.Helper()
	p := a.pairs
	word := func(i int) string {
		if i < len(a.words) {
			return a.words[i]
		}
		s.Fatalf("%s %v: too few words", name, a.words)
		return ""
	}
	switch name {
	case "open":
		return OpenSession{Session: scriptSession(word(0)), TTL: s.duration(p["ttl"]), Holder: p["holder"], Labels: scriptLabels(p["labels"]), Owner: p["owner"]}
	case "keep":
		var c KeepAlive
		for _, w := range a.words {
			c.Sessions = append(c.Sessions, KeepAliveSession{scriptSession(w), s.number(p["seen"])})
		}
		return c
	case "end":
		c := EndSession{Session: scriptSession(word(0))}
		for _, q := range strings.FieldsFunc(p["undelivered"], func(r rune) bool { return r == ',' }) {
			c.Undelivered = append(c.Undelivered, s.number(q))
		}
		return c
	case "kill":
		return KillSession{Session: scriptSession(word(0)), Reason: p["reason"], Who: p["who"]}
	case "acquire":
		return Acquire{
			ID: s.id(word(0), p), Wants: s.wants(a.words[1:]), TTL: s.duration(p["ttl"]), Wait: s.duration(p["wait"]),
			Holder: p["holder"], Value: []byte(p["value"]), Labels: scriptLabels(p["labels"]), Delay: s.duration(p["delay"]), Detached: p["detached"] != "",
			Owner: p["owner"],
		}
	case "cancel":
		return Cancel{ID: s.id(word(0), p), Target: s.id(word(1), nil)}
	case "release":
		return Release{ID: s.id(word(0), p), Token: s.number(p["token"]), Lock: p["lock"], Lost: p["lost"] != ""}
	case "renew":
		return Renew{ID: s.id(word(0), p), Token: s.number(p["token"]), Lock: p["lock"], TTL: s.duration(p["ttl"])}
	case "value":
		return SetValue{ID: s.id(word(0), p), Token: s.number(p["token"]), Lock: p["lock"], Value: []byte(p["value"])}
	case "force":
		return ForceRelease{ID: s.id(word(0), p), Lock: word(1), Token: s.number(p["token"]), Reason: p["reason"], Who: p["who"]}
	case "resize":
		return Resize{ID: s.id(word(0), p), Lock: word(1), Limit: uint32(s.number(p["limit"]))}
	case "limits":
		return Configure{Limits: s.limits(p)}
	case "found":
		var c Found
		copy(c.Cluster[:], word(0))
		return c
	}
	return s.rightsCommand(name, a, word)
}

func (s *script) rightsCommand(name string, a args, word func(int) string) Command {
	s.Helper()
	switch name {
	case "level":
		return RaiseLevel{Level: uint32(s.number(word(0))), Version: "0.1.0"}
	case "token":
		c := PutAccessToken{Accessor: word(0), Name: word(1), TTL: s.duration(a.pairs["ttl"]), Labels: scriptLabels(a.pairs["labels"])}
		copy(c.Hash[:], word(0))
		return c
	case "revoke":
		return RevokeAccessToken{Accessor: word(0)}
	case "drop":
		return ChangePolicies{Remove: a.words}
	case "policy":
		p := Policy{Name: word(0), Quota: Quota{Sessions: int(s.number(a.pairs["sessions"])), Grants: int(s.number(a.pairs["grants"])), Waiters: int(s.number(a.pairs["waiters"]))}}
		for _, subject := range strings.Split(a.pairs["for"], ",") {
			p.For = append(p.For, strings.NewReplacer("everybody", "*", "label:team:", "label:team=").Replace(subject))
		}
		return ChangePolicies{Put: []Policy{p}}
	}
	s.Fatalf("unknown line %q", name)
	return nil
}

func scriptSession(name string) (id SessionID) {
	if name != "none" {
		copy(id[:], name)
	}
	return id
}

func scriptLabels(text string) (labels []Label) {
	for _, l := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		k, v, _ := strings.Cut(l, ":")
		labels = append(labels, Label{k, v})
	}
	return labels
}

func (s *script) id(text string, p map[string]string) (id RequestID) {
	s.Helper()
	copy(id.Once[:], p["once"])
	for i, span := range strings.FieldsFunc(p["answered"], func(r rune) bool { return r == ',' }) {
		first, last, _ := strings.Cut(span, "-")
		id.Answered[i] = Span{s.number(first), s.number(last)}
	}
	if session, sequence, ok := strings.Cut(text, "/"); ok {
		id.Session, id.Sequence, id.Acked = scriptSession(session), s.number(sequence), s.number(p["acked"])
	} else if text != "-" {
		s.Fatalf("ID %q", text)
	}
	return id
}

func (s *script) wants(words []string) (wants []Want) {
	s.Helper()
	for _, w := range words {
		name, mode, _ := strings.Cut(w, ":")
		want := Want{Lock: name, Mode: Exclusive}
		if mode == "shared" {
			want.Mode = Shared
		} else if permits, limit, ok := strings.Cut(mode, "/"); ok {
			want.Mode, want.Permits, want.Limit = Permits, uint32(s.number(permits)), uint32(s.number(limit))
		}
		wants = append(wants, want)
	}
	return wants
}

func (s *script) limits(p map[string]string) (l Limits) {
	s.Helper()
	for field, v := range p {
		i := slices.IndexFunc(limitTable[:], func(e limit) bool { return e.field == field })
		if i < 0 {
			s.Fatalf("no limit %q", field)
		}
		limitTable[i].set(&l, int64(s.number(v)))
	}
	return l
}

func (s *script) number(text string) uint64 {
	s.Helper()
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		s.Fatal(err)
	}
	return n
}

func (s *script) duration(text string) int64 {
	s.Helper()
	if text == "" || text == "forever" {
		return -int64(len(text) / 7)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		s.Fatal(err)
	}
	return int64(d)
}
