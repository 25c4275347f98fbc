package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	apiv1 "github.com/locknode/locknode/api/v1"
)

// fields are the names that an object may have, each with a function that takes its
// value. The function's error says what the value must be; the name is put before it.
type fields map[string]func(json.RawMessage) error

const (
	// shortBody is how much of a body is read even if there is no room: what frees a lock
	// is shorter.
	shortBody = 4 << 10
	// bodyCost is how many bytes of memory reading and decoding take for each of a body.
	bodyCost = 3
)

// readBody reads a JSON object from the request. The body is read to its end:
// only then does net/http notice that a client has gone away.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, f fields) *apiv1.Error {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(s.cfg.Limits.BodyTime)) // not every ResponseWriter can
	from := http.MaxBytesReader(w, r.Body, int64(s.cfg.Limits.BodyBytes))
	body, err := io.ReadAll(io.LimitReader(from, shortBody))
	if err == nil && len(body) == shortBody { // longer than what frees a lock
		if conn := httpConn(r.Context()); conn != nil {
			bytes := bodyCost * s.cfg.Limits.BodyBytes
			if !conn.in.take(bytes) {
				w.Header().Set("Connection", "close")
				return conn.listener.in.full()
			}
			defer conn.in.force(-bytes)
		}
		var rest []byte
		rest, err = io.ReadAll(from)
		body = append(body, rest...)
	}
	_ = control.SetReadDeadline(time.Time{}) // an acquire may wait
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return apiv1.NewError(apiv1.CodeTooLarge, "body: is too long, must be at most %d bytes", tooLong.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		return apiv1.NewError(apiv1.CodeMalformed, "body: has not arrived within %v", s.cfg.Limits.BodyTime)
	case err != nil:
		return apiv1.NewError(apiv1.CodeMalformed, "body: %v", err)
	}
	return f.decode(body)
}

// decode reads one JSON object. It is stricter than encoding/json: names are
// compared exactly, unknown and repeated ones are refused, and strings that are
// not Unicode are refused instead of changed, since they may be lock names.
func (f fields) decode(body []byte) *apiv1.Error {
	if !utf8.Valid(body) {
		return apiv1.NewError(apiv1.CodeMalformed, "body: is not UTF-8, must be a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return malformed(err)
	}
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return malformed(err)
		}
		name, _ := t.(string) // an object's keys are strings
		set, ok := f[name]
		switch {
		case !ok:
			return apiv1.NewError(apiv1.CodeInvalid, "%.100q: is an unknown field, must be one of %s", name, f.names())
		case seen[name]:
			return apiv1.NewError(apiv1.CodeInvalid, "%s: is given twice, must be given once", name)
		}
		seen[name] = true
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return malformed(err)
		}
		if bytes.Equal(raw, []byte("null")) {
			continue
		}
		if err := set(raw); err != nil {
			return apiv1.NewError(apiv1.CodeInvalid, "%s: %v", name, err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return malformed(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return apiv1.NewError(apiv1.CodeMalformed, "body: goes on after its object, must be one JSON object")
	}
	return nil
}

func malformed(err error) *apiv1.Error {
	if err == nil || errors.Is(err, io.EOF) {
		return apiv1.NewError(apiv1.CodeMalformed, "body: is not complete or no object, must be one JSON object")
	}
	return apiv1.NewError(apiv1.CodeMalformed, "body: %v", err)
}

func (f fields) names() string {
	var names []string
	for name := range f {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func text(to *string) func(json.RawMessage) error {
	return func(raw json.RawMessage) error {
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return errors.New("must be a string")
		}
		// A lone surrogate becomes U+FFFD: another string than was sent.
		if strings.ContainsRune(s, utf8.RuneError) && !bytes.ContainsRune(raw, utf8.RuneError) &&
			!bytes.Contains(bytes.ToLower(raw), []byte(`\ufffd`)) {
			return errors.New("is not Unicode, must be a string without lone surrogates")
		}
		*to = s
		return nil
	}
}

func bytesOf(to *[]byte) func(json.RawMessage) error {
	return func(raw json.RawMessage) error {
		var s string
		err := text(&s)(raw)
		*to = []byte(s)
		return err
	}
}

func duration(to *time.Duration) func(json.RawMessage) error {
	return func(raw json.RawMessage) error {
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return errors.New(`must be a duration such as "30s"`)
		}
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf(`is %.40q, must be a duration such as "30s"`, s)
		}
		*to = d
		return nil
	}
}

func number(to *uint64) func(json.RawMessage) error {
	return func(raw json.RawMessage) error {
		if err := json.Unmarshal(raw, to); err != nil {
			return errors.New("must be a whole number")
		}
		return nil
	}
}

func firstProblem(problems ...*apiv1.Error) *apiv1.Error {
	for _, p := range problems {
		if p != nil {
			return p
		}
	}
	return nil
}

func needed(field string, there bool) *apiv1.Error {
	if there {
		return nil
	}
	return apiv1.NewError(apiv1.CodeInvalid, "%s: is missing", field)
}

func positive(field string, d time.Duration) *apiv1.Error {
	if d > 0 {
		return nil
	}
	return apiv1.NewError(apiv1.CodeInvalid, "%s: is %v, must be more than 0s", field, d)
}

func notNegative(field string, d time.Duration) *apiv1.Error {
	if d >= 0 {
		return nil
	}
	return apiv1.NewError(apiv1.CodeInvalid, "%s: is %v, must be 0s or more", field, d)
}
